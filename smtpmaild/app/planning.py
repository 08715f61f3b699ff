"""What the processes of the daemon serve, in the words of server/plan.py, and the reload it carries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from smtpmaild.app.attendant import build_attendant
from smtpmaild.app.memory import build_history, build_pseudonyms
from smtpmaild.app.relaying import route_with
from smtpmaild.app.rooms import build, rehearse
from smtpmaild.config import load
from smtpmaild.config import sockets as config_sockets
from smtpmaild.config.listeners import Listener as ListenerConfig
from smtpmaild.config.models import Config
from smtpmaild.facts import Log
from smtpmaild.history.recorder import History
from smtpmaild.log import LogStream, set_up
from smtpmaild.metrics import Metrics
from smtpmaild.server import sockets
from smtpmaild.server.listener import Door
from smtpmaild.server.notice import Notice
from smtpmaild.server.plan import AttendantPlan, ListenerPlan, Plan
from smtpmaild.server.sums import Ledger
from smtpmaild.sink.options import DiscardOptions


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
        workers=config.worker_count,
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
                partial(route_with, config, app.routing),
                app.log,
                chart,
                notice,
                None if pseudonyms is None else pseudonyms.said,
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
