"""The composition root of the attendant: from a Config to the desk and what serves it. app.py does the same for mail.

Nothing here touches the disk or opens a socket; that begins with the companions in the hands of server/attendant.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from smtpmaild.config.models import Config
from smtpmaild.control.desk import Desk, Door, Premises, Store
from smtpmaild.control.queue_files import QueueFiles
from smtpmaild.control.serving import ControlSocket
from smtpmaild.facts import Log
from smtpmaild.idn import to_ascii
from smtpmaild.server.house import House
from smtpmaild.server.plan import AttendantPlan, Companion
from smtpmaild.server.sockets import Address, UnixAddress
from smtpmaild.sink.builtin import SinkOptions, writable
from smtpmaild.sink.folder import Template, why_not_writable
from smtpmaild.sink.options import DiscardOptions
from smtpmaild.smtp.address import Address as MailAddress
from smtpmaild.smtp.address import parse_mailbox
from smtpmaild.tls.settings import TlsSettings
from smtpmaild.tls.x509 import first_certificate

_Sockets = Callable[[Address], Sequence[socket.socket]]


def build_attendant(config: Config, route: Callable[[MailAddress], str], log: Log) -> AttendantPlan | None:
    """What the attendant serves; None where nobody wants it. route: what takes mail on that is put in by hand."""
    if config.control is None:
        return None
    address = UnixAddress(
        config.control.socket, config.control.mode, group=config.control.group or "", makes_folder=True
    )

    def companions(house: House, sockets: _Sockets) -> Sequence[Companion]:
        desk = Desk(house, premises(config), queue_files(config, route, log), log)
        return [desk, ControlSocket(desk, sockets(address), log)]

    return AttendantPlan((("control", address),), companions)


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
            with open(one.certificate, encoding="ascii", errors="replace") as file:
                certificate = first_certificate(file.read())
        except (OSError, ValueError):
            continue
        found.append((one.names or certificate.names, certificate.not_after, one.certificate))
    return found
