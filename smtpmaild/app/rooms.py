"""Everything that one process serves with, built from one configuration; the same for sessions that are only tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from smtpmaild.app.doors import build_dialect, build_door, offered
from smtpmaild.app.memory import remembering
from smtpmaild.app.relaying import build_relaying, build_reports
from smtpmaild.app.routes import build_routing
from smtpmaild.app.trust import build_certificates, build_client_names, build_signing_in
from smtpmaild.config import ConfigError
from smtpmaild.config.listeners import Listener as ListenerConfig
from smtpmaild.config.models import Config
from smtpmaild.config.queue import Priorities as PrioritiesConfig
from smtpmaild.delivery.runner import Runner
from smtpmaild.envelope import Session
from smtpmaild.facts import Log
from smtpmaild.history.recorder import History
from smtpmaild.idn import to_ascii
from smtpmaild.metrics import Metrics
from smtpmaild.policy.builtin import build_policies
from smtpmaild.policy.chain import Chain, Step
from smtpmaild.privacy.pseudonyms import Pseudonyms
from smtpmaild.rehearsal import Stage, failures
from smtpmaild.routing import QUEUE, Routing
from smtpmaild.sendmail.pickup import LOOK_SECONDS, PickUp
from smtpmaild.server.listener import Door
from smtpmaild.server.plan import Companion, Vitals
from smtpmaild.server.watch import Watch
from smtpmaild.service import Service
from smtpmaild.sink import Sink
from smtpmaild.sink.builtin import build as build_sink
from smtpmaild.sink.completing import CompletingSink
from smtpmaild.sink.writer import Writer
from smtpmaild.trial import Notes


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
    log, record = remembering(log, history, pseudonyms)
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
            dialect=build_dialect(config, listener, offered(config, listener), mechanisms),
            chain=chain,
            router=routing,
            sinks=_stores(stores, listener),
            log=log,
            metrics=metrics,
            authenticator=authenticator,
            hides_client=listener.hide_client,
            client_names=client_names if listener.reverse_dns else None,
            record=record,
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


def stage(config: Config) -> Stage:
    """The same rooms with nobody in them: for sessions that are only tried."""
    notes = Notes()
    built = build(config, notes, is_trial=True)
    return Stage(config, lambda name, peer: built.doors[name].service_for(peer), built.routing, notes)


def rehearse(config: Config) -> None:
    """Play the cases of the configuration; raises ConfigError with those that fail."""
    found = failures(stage(config)) if config.tests else ()
    if found:
        raise ConfigError(found)
