"""How we know our clients and they know us: accounts, certificates, names from the DNS."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from smtpmaild.auth import Authenticator
from smtpmaild.auth.gate import Gate
from smtpmaild.auth.local import Local
from smtpmaild.auth.relayed import Relayed
from smtpmaild.auth.throttle import Throttle
from smtpmaild.auth.users_file import UsersFile
from smtpmaild.config.accounts import Accounts as AccountsConfig
from smtpmaild.config.check_tls import clients_of
from smtpmaild.config.models import Config
from smtpmaild.config.tls import is_offered
from smtpmaild.facts import Log
from smtpmaild.server.dovecot import DovecotSocket, mechanisms_of
from smtpmaild.server.plan import Companion
from smtpmaild.server.threads import Threads
from smtpmaild.service import LookUp
from smtpmaild.tls.certificates import Certificates


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


def build_client_names(config: Config) -> LookUp | None:
    """What finds the names of clients, if any listener wants them. Importing it takes 90 ms."""
    if not any(listener.reverse_dns for listener in config.listeners):
        return None
    from smtpmaild.server.client_names import ClientNames

    return ClientNames(config.dns.servers, config.dns.timeout).find
