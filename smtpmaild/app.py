"""The composition root: from a Config to everything that runs. The one file that knows all rooms.

Each function translates one section of the configuration into the plain values that its room asks for. Nothing here
decides anything, touches the disk or opens a socket; that begins with the plan in the hands of server/.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations

from smtpmaild.auth import Authenticator
from smtpmaild.auth.gate import Gate
from smtpmaild.auth.local import Local
from smtpmaild.auth.relayed import Relayed
from smtpmaild.auth.throttle import Throttle
from smtpmaild.auth.users_file import UsersFile
from smtpmaild.config import ConfigError, load
from smtpmaild.config import sockets as config_sockets
from smtpmaild.config.accounts import Accounts as AccountsConfig
from smtpmaild.config.check_tls import clients_of
from smtpmaild.config.domains import LocalDomain as LocalDomainConfig
from smtpmaild.config.listeners import Listener as ListenerConfig
from smtpmaild.config.models import Config
from smtpmaild.config.queue import Priorities as PrioritiesConfig
from smtpmaild.config.rules import RelayRule as RelayRuleConfig
from smtpmaild.config.tls import is_offered
from smtpmaild.delivery.agents import ConfiguredAgents, route_to
from smtpmaild.delivery.etrn import Etrn
from smtpmaild.delivery.next_hop import NextHops
from smtpmaild.delivery.outlook import find_servers, in_words, next_hop
from smtpmaild.delivery.runner import Pace, Runner
from smtpmaild.delivery.shared import Shared
from smtpmaild.delivery.store import LOCAL, StoreAgent
from smtpmaild.envelope import Rule, Session
from smtpmaild.facts import Log
from smtpmaild.history import Settings
from smtpmaild.history.recorder import History, Recorder
from smtpmaild.idn import to_ascii
from smtpmaild.log import LogStream, set_up
from smtpmaild.metrics import Metrics
from smtpmaild.policy import Mode
from smtpmaild.policy.builtin import build_policies
from smtpmaild.policy.chain import Chain, Step
from smtpmaild.policy.messages_per_session import MessagesPerSessionOptions
from smtpmaild.premises import build_attendant
from smtpmaild.privacy.keys import Keys
from smtpmaild.privacy.log import Private
from smtpmaild.privacy.pseudonyms import Pseudonyms
from smtpmaild.queue.dsn import Reports
from smtpmaild.queue.schedule import Schedule
from smtpmaild.queue.shards import Shards
from smtpmaild.queue.sqlite import SqliteQueue
from smtpmaild.queue.thread import Limits, QueueThread
from smtpmaild.queue.words import ENGLISH
from smtpmaild.rehearsal import Stage, failures
from smtpmaild.resolver import make_resolver
from smtpmaild.routing import QUEUE, Deliver, LocalDomain, Refuse, Relay, RelayRule, Routing
from smtpmaild.sendmail.pickup import LOOK_SECONDS, PickUp
from smtpmaild.server import sockets
from smtpmaild.server.dovecot import DovecotSocket, mechanisms_of
from smtpmaild.server.listener import ConnectionLimits, Door, Timeouts, TlsOffer
from smtpmaild.server.notice import Notice
from smtpmaild.server.plan import AttendantPlan, Companion, ListenerPlan, Plan, Vitals
from smtpmaild.server.sums import Ledger
from smtpmaild.server.threads import Threads
from smtpmaild.server.watch import Watch
from smtpmaild.service import LookUp, Service
from smtpmaild.sink import STORE_ROUTE, Sink
from smtpmaild.sink.builtin import build as build_sink
from smtpmaild.sink.completing import CompletingSink
from smtpmaild.sink.enqueue import EnqueueSink
from smtpmaild.sink.options import DiscardOptions
from smtpmaild.sink.reporting import ReportingSink
from smtpmaild.sink.writer import Writer
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.extension import ETRN, EXTENSIONS, XCLIENT, XFORWARD, Dialect, Extension, ServerOptions
from smtpmaild.smtp.reply import Reply
from smtpmaild.tls.certificates import Certificates
from smtpmaild.trial import Notes, TrialStep


def _nothing(*_: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class App:
    """Everything that one process serves with, built from one configuration."""

    config: Config
    routing: Routing
    sinks: Mapping[str, Sink]
    doors: Mapping[str, Door]
    log: Log
    metrics: Metrics
    companions: Sequence[Companion] = ()
    enter: Callable[[int], object] = _nothing
    retire: Callable[[], object] = _nothing
    vitals: Callable[[], Vitals] = Vitals


def build(
    config: Config,
    log: Log,
    metrics: Metrics | None = None,
    history: History | None = None,
    pseudonyms: Pseudonyms | None = None,
    *,
    is_trial: bool = False,
) -> App:
    """All rooms of a configuration. metrics: those of before, when a configuration is reloaded.  history: what keeps
    the facts that are told to the log.  pseudonyms: what takes the names out of them before.  is_trial: nobody will
    connect, so no certificate is loaded."""
    metrics = metrics or Metrics()
    log = log if history is None else Recorder(log, history)
    log = log if pseudonyms is None else Private(log, pseudonyms)
    writer = Writer(log, memory=config.limits.memory)
    sinks = {name: build_sink(options, writer) for name, options in config.deliver_to.items()}
    routing = build_routing(config)
    relaying = build_relaying(config, routing, sinks, writer, log, metrics) if config.needs_queue else None
    stores = sinks if relaying is None else relaying.stores
    signing_in = build_signing_in(config.accounts, log) if config.accounts is not None else None
    certificates = None if is_trial else build_certificates(config, log)
    client_names = build_client_names(config)
    verbs = {} if relaying is None else {"ETRN": (Step("etrn", relaying.etrn.answer),)}
    doors = {}
    for listener in config.listeners:
        policies = build_policies(config.at(listener).policies.options(), routing)
        chain = Chain.compile(policies, log, metrics, partial(config.where_policy, listener))
        authenticator = None
        if signing_in is not None and listener.auth != "none":
            authenticator = signing_in.authenticator(listener.mechanisms)
        mechanisms = tuple(authenticator.mechanisms) if authenticator is not None else ()
        service = Service(
            listener=listener.name,
            dialect=build_dialect(config, listener, _offered(config, listener), mechanisms),
            chain=chain,
            router=routing,
            sinks=_stores(stores, listener),
            log=log,
            metrics=metrics,
            authenticator=authenticator,
            hides_client=listener.hide_client,
            client_names=client_names if listener.reverse_dns else None,
            is_recorded=history is not None,
            verbs=verbs,
            queue="" if relaying is None else QUEUE,
            most_urgent=most_urgent(config.queue.priorities) if config.queue.priorities is not None else _not_urgent,
        )
        doors[listener.name] = build_door(config, listener, service, certificates)
    companions: list[Companion] = [] if history is None else [history]
    if signing_in is not None:
        companions += signing_in.companions
    if config.sendmail is not None:
        socket = config.sendmail.socket_of(config.listeners)
        # Whatever its route: the report is dropped where the message was.
        reporter = build_reports(config, lambda _: "drop", log)
        pick_up = PickUp(config.sendmail.drop, socket, config.hostname, to_ascii, log, reporter)
        companions.append(Watch(pick_up.look, log, LOOK_SECONDS))
    if certificates is not None:
        companions.append(Watch(certificates.look, log))
    runner = relaying.runner if relaying is not None else None
    vitals = partial(_vitals, metrics, writer, runner)
    if relaying is None:
        return App(config, routing, sinks, doors, log, metrics, companions, vitals=vitals)
    companions.append(relaying.runner)
    enter, retire = relaying.store.enter, relaying.runner.retire
    return App(config, routing, sinks, doors, log, metrics, companions, enter, retire, vitals)


def _vitals(metrics: Metrics, writer: Writer, runner: Runner | None) -> Vitals:
    return Vitals(metrics.counters(), writer.held, runner.destinations() if runner is not None else {})


def stage(config: Config) -> Stage:
    """The same rooms with nobody in them: for sessions that are only tried."""
    notes = Notes()
    built = build(config, notes, is_trial=True)
    return Stage(config, lambda name, peer: built.doors[name].service_for(peer), built.routing, notes)


async def look_ahead(config: Config, steps: Sequence[TrialStep], *, asks_dns: bool) -> None:
    """Say of each step where what travels on goes next. asks_dns: which servers that are now."""
    dns = _shared(config, Notes()).next_hops if asks_dns else None
    queue = config.queue
    schedule = in_words(Schedule(queue.retry_first, queue.retry_longest, queue.max_age, queue.warn_after or 0.0))
    for step in steps:
        for route, domain in step.travels:
            hop = next_hop(route, domain, config.relays)
            if dns is not None:
                await find_servers(hop, domain, config.relays, dns)
            step.onward.append({**asdict(hop), "schedule": schedule})


def rehearse(config: Config) -> None:
    """Play the cases of the configuration; raises ConfigError with those that fail."""
    found = failures(stage(config)) if config.tests else ()
    if found:
        raise ConfigError(found)


def build_history(config: Config, log: Log, before: History | None = None) -> History | None:
    """The memory of a configuration; that of before, where it is the same."""
    if config.history is None:
        return None
    settings = Settings(config.history.path, config.history.keep, config.history.size)
    return before if before is not None and before.settings == settings else History(settings, log)


def build_pseudonyms(config: Config, log: Log) -> Pseudonyms | None:
    """What takes the names out of facts, where the configuration wants it."""
    path = config.logging.privacy_file
    if not config.logging.privacy:
        return None
    stores = (options.path for options in config.deliver_to.values() if not isinstance(options, DiscardOptions))
    words = {step for template in stores for step in template.split("/")} | {*config.local_domains, "new", "cur", "tmp"}

    def tell(cause: str) -> None:
        log.error("privacy_key_unavailable", path=path, cause=cause, then="each process has a key of its own")

    return Pseudonyms(Keys(path, tell).today, words)


def _stores(sinks: Mapping[str, Sink], listener: ListenerConfig) -> Mapping[str, Sink]:
    return {name: CompletingSink(sink) for name, sink in sinks.items()} if listener.add_missing_headers else sinks


def _not_urgent(_: Session) -> int:
    return 0


def most_urgent(priorities: PrioritiesConfig) -> Callable[[Session], int]:
    """The highest priority that a client may give its mail."""
    named = frozenset(map(str.casefold, priorities.users))

    def granted(session: Session) -> int:
        ip, user = session.peer.ip, session.user
        is_known = user != "" and (priorities.signed_in or user.casefold() in named)
        is_trusted = is_known or (ip is not None and any(ip in network for network in priorities.from_networks))
        return 9 if is_trusted else priorities.others

    return granted


def build_client_names(config: Config) -> LookUp | None:
    """What finds the names of clients, if any listener wants them. Importing it takes 90 ms."""
    if not any(listener.reverse_dns for listener in config.listeners):
        return None
    from smtpmaild.server.client_names import ClientNames

    return ClientNames(config.dns.servers, config.dns.timeout).find


@dataclass(frozen=True, slots=True)
class Relaying:
    """The queue of a configuration and what takes mail on from it. stores: those of all mail, where success is told."""

    store: SqliteQueue
    sink: EnqueueSink
    runner: Runner
    stores: Mapping[str, Sink]
    etrn: Etrn


def build_relaying(
    config: Config, routing: Routing, sinks: dict[str, Sink], writer: Writer, log: Log, metrics: Metrics
) -> Relaying:
    """What mail that travels on needs. sinks: get the queue as one of them."""
    queue = config.queue
    store = SqliteQueue(queue.path, log, workers=worker_count(config))
    limits = Limits(queue.path, queue.max_messages, queue.max_size, queue.min_free)
    thread = QueueThread(store, limits, log)
    sink = sinks[QUEUE] = EnqueueSink(queue.path, thread, writer, log)
    route = partial(_route_of_mail, config, routing)
    reports = build_reports(config, route, log)
    told = {name: ReportingSink(store, reports, thread.tell, is_queue=store is sink) for name, store in sinks.items()}
    stores = {LOCAL: "", **{f"{STORE_ROUTE}{name}": name for name in config.deliver_to}}
    agents = {
        way: StoreAgent(routing.local, sinks, QUEUE, config.hostname, log, store) for way, store in stores.items()
    }
    runner = Runner(
        thread,
        ConfiguredAgents(config.relays, partial(_shared, config, log), agents),
        reports,
        log,
        Schedule(queue.retry_first, queue.retry_longest, queue.max_age, queue.warn_after or 0.0),
        Pace(queue.deliveries, queue.deliveries_per_destination),
        metrics=metrics,
    )
    etrn = Etrn(Shards(queue.path, log), log, routing.is_local, runner.revive)
    return Relaying(store, sink, runner, told, etrn)


def build_reports(config: Config, route: Callable[[Address], str], log: Log) -> Reports:
    """What senders are told, in whose words."""
    queue = config.queue
    words = queue.report_words_file or ENGLISH
    return Reports(config.hostname, route, log, queue.max_age, words, queue.report_returns)


def route_of_mail(config: Config) -> Callable[[Address], str]:
    """What takes mail on that no rule was asked about: reports, and what a person puts into the queue."""
    return partial(_route_of_mail, config, build_routing(config))


def _route_of_mail(config: Config, routing: Routing, sender: Address) -> str:
    return LOCAL if routing.local(sender) is not None else route_to(config.queue.report_by, config.relays)


def _shared(config: Config, log: Log) -> Shared:
    addresses = [one for listener in config.listeners for one in listener.listen]
    ours = {config.hostname, *(one.host for one in addresses if isinstance(one, config_sockets.TcpAddress))}
    return Shared(config.hostname, log, NextHops(make_resolver(config.dns.servers, config.dns.timeout), ours))


@dataclass(frozen=True, slots=True)
class SigningIn:
    """The accounts of a configuration. authenticator: for a listener that wants these mechanisms.  companions: what
    must run for them."""

    authenticator: Callable[[Sequence[str]], Authenticator]
    companions: tuple[Companion, ...]


def build_signing_in(accounts: AccountsConfig, log: Log) -> SigningIn:
    """Who can sign in, and who finds that out."""
    gate = Gate(Throttle(accounts.throttle), asyncio.sleep, time.monotonic)
    if accounts.dovecot_socket is not None:
        dovecot = DovecotSocket(accounts.dovecot_socket, log)
        # Where it does not answer now, it will have what every Dovecot has.
        offered = mechanisms_of(accounts.dovecot_socket) or ("PLAIN",)
        return SigningIn(partial(Relayed, dovecot, gate, offered), (dovecot,))
    threads = Threads(accounts.verifications, "password")
    file = UsersFile(accounts.users_file or "", log)
    return SigningIn(partial(Local, file, threads, gate, secrets.token_urlsafe), (threads,))


def build_certificates(config: Config, log: Log) -> Certificates | None:
    """What the listeners with TLS show to their clients; None where there are none."""
    clients = {clients_of(config, listener) for listener in config.listeners if is_offered(listener.tls)}
    if not clients:
        return None
    if config.tls.self_signed:
        log.warning("certificate_self_signed", hostname=config.hostname, cause="it encrypts, and proves nothing")
    return Certificates(config.tls.settings(config.hostname), clients, log)


def build_routing(config: Config) -> Routing:
    """Local domains and relay rules, each with its place in the file."""
    return Routing(
        [_local_domain(config, name, domain) for name, domain in config.local_domains.items()],
        [_relay_rule(config, index, rule) for index, rule in enumerate(config.relay_rules)],
        hostname=config.hostname,
        postmaster=config.postmaster or "",
    )


def _local_domain(config: Config, name: str, domain: LocalDomainConfig) -> LocalDomain:
    is_queued = config.is_queued(domain)
    return LocalDomain(
        name=name,
        rule=Rule(f"local_domains.{name}", config.where("local_domains", name)),
        sink=QUEUE if is_queued else domain.deliver,
        mailboxes=None if domain.mailboxes is None else frozenset(domain.mailboxes),
        aliases=domain.aliases,
        catch_all=domain.catch_all or "",
        subaddress=domain.subaddress or "",
        route=route_to(domain.relay, config.relays) if domain.relay is not None else "",
        delivered_by=route_to(domain.deliver, config.relays) if is_queued else "",
    )


def _relay_rule(config: Config, index: int, rule: RelayRuleConfig) -> RelayRule:
    return RelayRule(
        rule=Rule(rule.name, config.where("relay_rules", index)),
        action=_action(config, rule),
        from_networks=rule.from_networks,
        listeners=frozenset(rule.listeners),
        sender_domains=rule.from_domains,
        sender_addresses=rule.from_addresses,
        recipient_domains=rule.to_domains,
        recipient_addresses=rule.to_addresses,
        authenticated=rule.authenticated,
        users=rule.users,
        tls=rule.tls,
        client_certificates=rule.client_certificates,
        client_names=rule.client_names,
    )


def _action(config: Config, rule: RelayRuleConfig) -> Deliver | Relay | Refuse:
    if rule.deliver is not None:
        return Deliver(rule.deliver)
    if rule.relay is not None:
        return Relay(route_to(rule.relay, config.relays))
    refusal = rule.reject or rule.defer
    assert refusal is not None, "the model wants one of the four"
    return Refuse(Reply(refusal.code, refusal.enhanced, refusal.text))


def _offered(config: Config, listener: ListenerConfig) -> tuple[Extension, ...]:
    rows = (*EXTENSIONS, ETRN) if listener.etrn_signed_in and config.needs_queue else EXTENSIONS
    return tuple(row for row in rows if row.keyword not in listener.disable_extensions)


def build_dialect(
    config: Config, listener: ListenerConfig, extensions: tuple[Extension, ...], mechanisms: tuple[str, ...] = ()
) -> Dialect:
    """What a listener speaks. mechanisms: those that its accounts can serve."""
    here = config.at(listener)
    limits = here.limits
    options = ServerOptions(
        hostname=config.hostname,
        banner=listener.greeting,
        is_lmtp=listener.protocol == "lmtp",
        message_size=limits.message_size,
        recipients=limits.recipients,
        messages=_mail_max(here),
        body_line=listener.body_line_length if listener.long_lines == "refuse" else 0,
        keep_bare_newlines=listener.bare_newlines == "keep",
        allow_bare_lf=listener.bare_lf_commands,
        bad_commands=limits.bad_commands,
        refused_recipients=limits.refused_recipients,
        to_ascii=to_ascii,
        mechanisms=mechanisms,
        auth_in_clear=listener.auth_without_tls,
        requires_auth=listener.auth == "required",
        starttls=listener.tls in ("optional", "required"),
        requires_tls=listener.tls == "required",
        reports=config.needs_queue,
        delivers_by=config.needs_queue,
        least_by=int(config.queue.deliver_by_least),
        longest_hold=int(config.queue.hold_longest) if config.needs_queue and listener.auth == "required" else 0,
        priorities=config.queue.priorities.profile if config.needs_queue and config.queue.priorities else "",
        requires_onward_tls=config.needs_queue,
        clock=time.time,
    )
    return Dialect(options, extensions)


def _mail_max(config: Config) -> int:
    options = config.policies.options()["messages_per_session"]
    assert isinstance(options, MessagesPerSessionOptions)
    return options.limit if options.mode is Mode.ENFORCE else 0


def build_door(
    config: Config, listener: ListenerConfig, service: Service, certificates: Certificates | None = None
) -> Door:
    """A listener as its sessions meet it."""
    here = config.at(listener)
    timeouts, limits = here.timeouts, here.limits
    return Door(
        service=service,
        xforward_networks=listener.xforward_from,
        xclient_networks=listener.xclient_from,
        etrn_networks=listener.etrn_from,
        offering={
            frozenset(row.keyword for row in rows): _offering(config, listener, service, rows)
            for rows in _trusted_rows(config, listener)
        },
        timeouts=Timeouts(
            greeting=timeouts.greeting,
            command=timeouts.command,
            data_block=timeouts.data_block,
            session=timeouts.session,
            proxy_header=timeouts.proxy_header,
            tls_handshake=timeouts.tls_handshake,
        ),
        limits=_connection_limits(config, listener),
        greeting_delay=listener.greeting_delay,
        body_rate=limits.body_rate,
        trusted_proxies=listener.trusted_proxies if listener.proxy_protocol else None,
        tls=_tls_offer(config, listener, certificates),
    )


def _tls_offer(config: Config, listener: ListenerConfig, certificates: Certificates | None) -> TlsOffer | None:
    if certificates is None or not is_offered(listener.tls):
        return None
    return TlsOffer(certificates, clients_of(config, listener), is_implicit=listener.tls == "implicit")


def _connection_limits(config: Config, listener: ListenerConfig) -> ConnectionLimits:
    """A listener that says anything of connections counts them by itself, within those of all."""
    here = config.at(listener).limits
    own = listener.limits.model_fields_set & {"connections", "connections_per_ip", "connections_per_network"}
    return ConnectionLimits(
        total=config.limits.connections,
        per_address=here.connections_per_ip,
        per_network=here.connections_per_network,
        here=here.connections if "connections" in own else 0,
        name=listener.name if own else "",
    )


def _trusted_rows(config: Config, listener: ListenerConfig) -> list[tuple[Extension, ...]]:
    """What peers may be offered that are trusted: each of it alone, and together."""
    etrn_from = listener.etrn_from if config.needs_queue else ()
    given = ((XFORWARD, listener.xforward_from), (XCLIENT, listener.xclient_from), (ETRN, etrn_from))
    wanted = [row for row, networks in given if networks]
    return [some for count in range(1, len(wanted) + 1) for some in combinations(wanted, count)]


def _offering(config: Config, listener: ListenerConfig, service: Service, rows: tuple[Extension, ...]) -> Service:
    # The options of the dialect that is there are those of its connections in clear: without AUTH, maybe.
    mechanisms = () if service.authenticator is None else tuple(service.authenticator.mechanisms)
    offered = _offered(config, listener)
    more = [row for row in rows if row not in offered]
    return replace(service, dialect=build_dialect(config, listener, (*offered, *more), mechanisms))


def plan(
    config: Config,
    stream: LogStream,
    log: Log,
    *,
    allow_root: bool = False,
    metrics: Metrics | None = None,
    before: History | None = None,
    chart: Ledger | None = None,
) -> Plan:
    """What the processes of the daemon serve. The reload it carries reads the same file again.

    allow_root: as the key of the config, from the command line.  before, chart: of the plan that this one follows.
    """
    history = build_history(config, log, before)
    pseudonyms = build_pseudonyms(config, log)
    app = build(config, log, metrics, history, pseudonyms)
    chart = chart or (Ledger() if config.status is not None else None)
    path = config.document.path if config.document else ""

    def reload() -> Plan:
        new = load(path)
        rehearse(new)
        new_log = log if new.logging == config.logging else _log_like(new, stream)
        return plan(new, stream, new_log, allow_root=allow_root, metrics=app.metrics, before=history, chart=chart)

    notice = Notice() if config.control is not None else None
    return Plan(
        listeners=tuple(_listener_plan(listener, app.doors[listener.name]) for listener in config.listeners),
        sinks=[*app.sinks.values()],
        log=app.log,
        reload=reload,
        workers=worker_count(config),
        event_loop=config.event_loop,
        drain_seconds=config.timeouts.drain,
        user=config.user or "",
        group=config.group or "",
        allow_root=config.allow_root or allow_root,
        prefix_v4=config.limits.network_prefix_v4,
        prefix_v6=config.limits.network_prefix_v6,
        log_start=stream.start,
        log_stop=stream.stop,
        companions=app.companions,
        enter=app.enter,
        retire=app.retire,
        handshakes=config.tls.handshakes,
        vitals=app.vitals,
        sections=_sections(config),
        attendant=_with_history(
            build_attendant(
                config,
                partial(_route_of_mail, config, app.routing),
                app.log,
                chart,
                notice,
                str if pseudonyms is None else pseudonyms.text,
            ),
            history,
        ),
        notice=notice,
    )


def _sections(config: Config) -> Mapping[str, Mapping[str, object]]:
    """What the file says, part by part; what has a name stands under it."""
    return {name: _parts(getattr(config, name)) for name in Config.model_fields}


def _parts(value: object) -> Mapping[str, object]:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple) and value:
        return {one.name: one for one in value}
    return {"": value} if value != () else {}


def _with_history(attendant: AttendantPlan | None, history: History | None) -> AttendantPlan | None:
    """What operators change is remembered too."""
    if attendant is None or history is None:
        return attendant
    others = attendant.companions
    return replace(attendant, companions=lambda house, sockets: [history, *others(house, sockets)])


def _log_like(config: Config, stream: LogStream) -> Log:
    return set_up(stream, config.logging.level, config.logging.format, os.environ)


def log_domains(config: Config, log: Log) -> None:
    """Where the mail of each local domain goes, told at the start."""
    for name, domain in config.local_domains.items():
        store = config.deliver_to.get(domain.deliver)
        path = "" if store is None or isinstance(store, DiscardOptions) else store.path
        log.info("domain_served", domain=name, store=domain.deliver, path=path)


def _listener_plan(listener: ListenerConfig, door: Door) -> ListenerPlan:
    addresses = tuple(_address(listener, one) for one in listener.listen)
    return ListenerPlan(listener.name, addresses, door, listener.backlog)


def _address(listener: ListenerConfig, address: config_sockets.ListenAddress) -> sockets.Address:
    if isinstance(address, config_sockets.TcpAddress):
        return sockets.TcpAddress(address.host, address.port)
    if isinstance(address, config_sockets.InheritedSocket):
        # RFC 2033 §5: LMTP "MUST NOT be used on the TCP service port 25". What others open, check cannot know.
        return sockets.InheritedAddress(address.name, 25 if listener.protocol == "lmtp" else 0)
    owner, group = listener.socket_owner or "", listener.socket_group or ""
    return sockets.UnixAddress(address.path, listener.socket_mode, owner, group)


def worker_count(config: Config) -> int:
    """How many processes serve."""
    return len(os.sched_getaffinity(0)) if config.workers == "auto" else config.workers
