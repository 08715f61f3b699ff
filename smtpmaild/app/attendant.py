"""The attendant: the desk, and what serves it. Its companions begin in the hands of server/attendant.py."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial

from smtpmaild.config import sockets as config_sockets
from smtpmaild.config.models import Config
from smtpmaild.config.status import Status
from smtpmaild.control.desk import Desk, Door, Premises, Store, WithoutNames
from smtpmaild.control.queue_files import QueueFiles
from smtpmaild.control.recordings import Recordings
from smtpmaild.control.serving import ControlSocket
from smtpmaild.facts import Log
from smtpmaild.idn import to_ascii
from smtpmaild.server.house import House
from smtpmaild.server.notice import Notice
from smtpmaild.server.plan import AttendantPlan, Companion
from smtpmaild.server.sockets import Address, InheritedAddress, TcpAddress, UnixAddress
from smtpmaild.server.sums import Ledger
from smtpmaild.sink.builtin import SinkOptions, writable
from smtpmaild.sink.folder import Template, why_not_writable
from smtpmaild.sink.options import DiscardOptions
from smtpmaild.smtp.address import Address as MailAddress
from smtpmaild.smtp.address import parse_mailbox
from smtpmaild.tls.settings import TlsSettings
from smtpmaild.tls.x509 import first_certificate

_Sockets = Callable[[Address], Sequence[socket.socket]]


def build_attendant(
    config: Config,
    route: Callable[[MailAddress], str],
    log: Log,
    chart: Ledger | None = None,
    notice: Notice | None = None,
    without_names: WithoutNames | None = None,
) -> AttendantPlan | None:
    """What the attendant serves; None where nobody wants it. route: what takes mail on that is put in by hand.
    chart: where the status page keeps what was counted.  notice: where the workers are told.
    without_names: a text as the log would have it."""
    addresses = _addresses(config)
    if not addresses:
        return None

    def companions(house: House, sockets: _Sockets) -> Sequence[Companion]:
        desk = Desk(house, premises(config), queue_files(config, route, log), log)
        if without_names is not None:
            desk.without_names = without_names
        if notice is not None:
            desk.recordings = Recordings(notice, log)
            desk.recordings.forget()
        found: list[Companion] = [desk]
        if config.control is not None:
            found.append(ControlSocket(desk, sockets(addresses["control"]), log))
        if config.status is not None:
            found += build_status(config, config.status, desk, sockets(addresses["status"]), chart or Ledger(), log)
        return found

    return AttendantPlan(tuple(addresses.items()), companions)


def _addresses(config: Config) -> dict[str, Address]:
    """Where the attendant listens, by what it serves there."""
    addresses: dict[str, Address] = {}
    control, status = config.control, config.status
    if control is not None:
        # It is bound before privileges go, and belongs to who the daemon becomes.
        owner, group = config.user or "", control.group or config.group or ""
        addresses["control"] = UnixAddress(control.socket, control.mode, owner, group, makes_folder=True)
    if status is not None:
        addresses["status"] = _address(status)
    return addresses


def _address(status: Status) -> Address:
    match status.listen:
        case config_sockets.TcpAddress(host, port):
            return TcpAddress(host, port)
        case config_sockets.UnixAddress(path):
            return UnixAddress(path, status.mode, group=status.group or "", makes_folder=True)
        case config_sockets.InheritedSocket(name):
            return InheritedAddress(name)


def build_status(
    config: Config, status: Status, desk: Desk, sockets: Sequence[socket.socket], chart: Ledger, log: Log
) -> Sequence[Companion]:
    """The status page and what is beside it. Importing it takes 0.3 s, which only the attendant does."""
    from smtpmaild.history.reading import Reading
    from smtpmaild.status.feed import Feed
    from smtpmaild.status.messages import Messages
    from smtpmaild.status.minutes import Minutes
    from smtpmaild.status.observed import Observer
    from smtpmaild.status.site import Access, Site
    from smtpmaild.web.events import Broadcast
    from smtpmaild.web.guard import Token
    from smtpmaild.web.serving import WebServer

    is_local = config_sockets.is_local(status.listen)
    token = Token(status.token_file.get_secret_value()) if status.token_file is not None else None
    access = Access(token, not is_local or status.token_for == "everything", status.hosts, any_host=not is_local)  # noqa: S105
    messages = Messages(partial(Reading, config.history.path)) if config.history is not None else None
    observer, minutes, broadcast = Observer(desk, _queue_limits(config)), Minutes(chart), Broadcast()
    site = Site(observer, minutes, broadcast, messages, access, has_page=status.page)
    feed = Feed(observer, minutes, broadcast, messages, log)
    return [feed, WebServer(site.app, _address(status), log, streams=[broadcast], sockets=sockets)]


def _queue_limits(config: Config) -> tuple[int, int]:
    return config.queue.max_messages, config.queue.max_size


def queue_files(config: Config, route: Callable[[MailAddress], str], log: Log) -> QueueFiles | None:
    """The queue, if there is one."""
    if not config.needs_queue:
        return None
    return QueueFiles(config.queue.path, log, lambda text: parse_mailbox(text, to_ascii), route)


def premises(config: Config) -> Premises:
    """What people ask for that the configuration says."""
    doors = [
        Door(one.name, [str(address) for address in one.listen], one.protocol, one.tls, one.auth)
        for one in config.listeners
    ]
    stores = [_store(name, options) for name, options in config.deliver_to.items()]
    if config.needs_queue:
        path = config.queue.path
        stores.append(Store("queue", "queue", path, lambda: why_not_writable(path)))
    settings = config.tls.settings(config.hostname)
    return Premises(config.hostname, doors, stores, lambda: _certificates(settings))


def _store(name: str, options: SinkOptions) -> Store:
    path = "" if isinstance(options, DiscardOptions) else Template(options.path).root
    return Store(name, options.type, path, lambda: writable(options))


def _certificates(settings: TlsSettings) -> list[tuple[Sequence[str], float, str]]:
    """As they are on disk now; what cannot be read the log has told of."""
    found: list[tuple[Sequence[str], float, str]] = []
    for one in settings.certificates:
        try:
            with open(one.certificate, encoding="utf-8", errors="replace") as file:
                certificate = first_certificate(file.read())
        except (OSError, ValueError):
            continue
        found.append((one.names or certificate.names, certificate.not_after, one.certificate))
    return found
