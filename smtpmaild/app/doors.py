"""A listener as its sessions meet it: what it speaks and offers, its limits and its patience."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import combinations

from smtpmaild.config.check_tls import clients_of
from smtpmaild.config.listeners import Listener as ListenerConfig
from smtpmaild.config.models import Config
from smtpmaild.config.tls import is_offered
from smtpmaild.idn import to_ascii
from smtpmaild.policy import Mode
from smtpmaild.policy.messages_per_session import MessagesPerSessionOptions
from smtpmaild.server.listener import ConnectionLimits, Door, Timeouts, TlsOffer
from smtpmaild.service import Service
from smtpmaild.smtp.extension import ETRN, EXTENSIONS, XCLIENT, XFORWARD, Dialect, Extension, ServerOptions
from smtpmaild.tls.certificates import Certificates


def offered(config: Config, listener: ListenerConfig) -> tuple[Extension, ...]:
    """The extensions that a listener has for everybody."""
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
        # RFC 4865 §4.2: "MUST NOT advertise this support ... on any port other than the submission port": wherever only
        # those who sign in have mail taken.
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
    usual = offered(config, listener)
    more = [row for row in rows if row not in usual]
    return replace(service, dialect=build_dialect(config, listener, (*usual, *more), mechanisms))
