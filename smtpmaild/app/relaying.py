"""The queue of a configuration, what takes mail on from it, and what senders are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from smtpmaild.app.routes import build_routing
from smtpmaild.config import sockets as config_sockets
from smtpmaild.config.models import Config
from smtpmaild.delivery.agents import ConfiguredAgents, route_to
from smtpmaild.delivery.etrn import Etrn
from smtpmaild.delivery.next_hop import NextHops
from smtpmaild.delivery.outlook import find_servers, in_words, next_hop
from smtpmaild.delivery.runner import Pace, Runner
from smtpmaild.delivery.shared import Shared
from smtpmaild.delivery.store import LOCAL, StoreAgent
from smtpmaild.facts import Log
from smtpmaild.metrics import Metrics
from smtpmaild.queue.dsn import Reports
from smtpmaild.queue.schedule import Schedule
from smtpmaild.queue.shards import Shards
from smtpmaild.queue.sqlite import SqliteQueue
from smtpmaild.queue.thread import Limits, QueueThread
from smtpmaild.queue.words import ENGLISH
from smtpmaild.resolver import make_resolver
from smtpmaild.routing import QUEUE, Routing
from smtpmaild.sink import STORE_ROUTE, Sink
from smtpmaild.sink.enqueue import EnqueueSink
from smtpmaild.sink.reporting import ReportingSink
from smtpmaild.sink.writer import Writer
from smtpmaild.smtp.address import Address
from smtpmaild.trial import Notes, TrialStep


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
    store = SqliteQueue(queue.path, log, workers=config.worker_count)
    limits = Limits(queue.path, queue.max_messages, queue.max_size, queue.min_free)
    thread = QueueThread(store, limits, log)
    sink = sinks[QUEUE] = EnqueueSink(queue.path, thread, writer, log)
    route = partial(route_with, config, routing)
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
    return partial(route_with, config, build_routing(config))


def route_with(config: Config, routing: Routing, sender: Address) -> str:
    """The route of mail from or to this address: a store of ours, or what takes reports on."""
    return LOCAL if routing.local(sender) is not None else route_to(config.queue.report_by, config.relays)


def _shared(config: Config, log: Log) -> Shared:
    addresses = [one for listener in config.listeners for one in listener.listen]
    ours = {config.hostname, *(one.host for one in addresses if isinstance(one, config_sockets.TcpAddress))}
    return Shared(config.hostname, log, NextHops(make_resolver(config.dns.servers, config.dns.timeout), ours))


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
