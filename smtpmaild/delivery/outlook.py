"""What lies ahead of mail that travels on, for `smtpmaild try`: its next hop, TLS and schedule, from the configuration.

Nothing is connected to. Only `find_servers` asks the DNS, in the way that deliveries do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smtpmaild.delivery.agents import options_of
from smtpmaild.delivery.builtin import AgentOptions
from smtpmaild.delivery.lmtp import LmtpOptions
from smtpmaild.delivery.next_hop import NextHops, NowhereError
from smtpmaild.delivery.pipe import PipeOptions
from smtpmaild.delivery.smtp import MxOptions, SmtpOptions
from smtpmaild.delivery.webhook import WebhookOptions
from smtpmaild.queue.schedule import Schedule

_TLS = {
    "none": "in clear text",
    "may": "TLS where it is offered",
    "required": "TLS, whoever it is",
    "verify": "TLS with a valid certificate",
}
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))


@dataclass(slots=True)
class NextHop:
    """Where mail goes from here, in words. route: as the queue names it.  tls: "" where there can be none.  user: who
    signs in there.  servers: what the DNS says, the best first; trouble: why it says nothing. Both only if asked."""

    route: str
    to: str
    tls: str = ""
    user: str = ""
    servers: list[str] = field(default_factory=list)
    trouble: str = ""


def next_hop(route: str, domain: str, relays: Mapping[str, AgentOptions]) -> NextHop:
    """domain: of the recipient."""
    options = options_of(route, relays)
    if isinstance(options, MxOptions):
        return NextHop(route, f"the mail servers of {domain} (MX)", _TLS[options.tls], options.username)
    if isinstance(options, SmtpOptions):
        tls = "TLS from the first byte" if options.implicit_tls else _TLS[options.tls]
        return NextHop(route, f"{_bracketed(options.host)}:{options.port}", tls, options.username)
    if isinstance(options, LmtpOptions):
        if options.path:
            return NextHop(route, f"{options.path} (LMTP)")
        return NextHop(route, f"{_bracketed(options.host)}:{options.port} (LMTP)", _TLS[options.tls], options.username)
    if isinstance(options, PipeOptions):
        return NextHop(route, f"the command {options.command[0]}")
    if isinstance(options, WebhookOptions):
        return NextHop(route, options.url)
    return NextHop(route, "nowhere: the configuration has no such relay")


async def find_servers(hop: NextHop, domain: str, relays: Mapping[str, AgentOptions], dns: NextHops) -> None:
    """Ask the DNS for its servers."""
    options = options_of(hop.route, relays)
    try:
        if isinstance(options, MxOptions):
            found = await dns.of_domain(domain, options.port, options.ip)
        elif isinstance(options, SmtpOptions):
            found = await dns.of_host(options.host, options.port, options.ip)
        else:
            return
    except NowhereError as error:
        hop.trouble = f"{error.reply.code} {error.reply.enhanced} {error.reply.text}"
    else:
        hop.servers = [str(endpoint) for endpoint in found]


def in_words(schedule: Schedule) -> str:
    """When it is tried, and what comes in the end."""
    again = f"again after {_span(schedule.first)}"
    if schedule.longest > schedule.first:
        again += f", doubled up to {_span(schedule.longest)}"
    late = f"; its sender is told after {_span(schedule.warn_after)} that it is late" if schedule.warn_after else ""
    return f"at once, {again}; after {_span(schedule.max_age)} it goes back to its sender{late}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _span(seconds: float) -> str:
    """1d12h, 5m: as the configuration has it."""
    words = ""
    for unit, name in _UNITS:
        count, seconds = divmod(seconds, unit)
        words += f"{int(count)}{name}" * bool(count)
    return words or "0s"
