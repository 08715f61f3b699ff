"""The agents of a configuration, by the names of routes, as they stand with each recipient in the queue.

| the rule says              | route                     | agent                                                 |
|----------------------------|---------------------------|-------------------------------------------------------|
| relay: NAME                | relay:NAME                | what `relays` says of NAME                            |
| the same, of type mx       | relay:mx/NAME             | the same; concurrency is counted by domain            |
| relay: mx                  | relay:mx                  | `mx` of `relays`, else MX with all its defaults       |
| relay: host:port           | relay:host:port           | SMTP to that host with all its defaults               |
| (a report to us)           | local                     | our own stores: store.py                              |

A name is looked up at each attempt and its agent made at the first, so mail that waits goes where a corrected
configuration sends it. An entry that changes between mx and another type keeps its waiting mail.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from smtpmaild.delivery import Agent
from smtpmaild.delivery.builtin import BUILTIN, AgentOptions, build
from smtpmaild.delivery.shared import Shared
from smtpmaild.delivery.smtp import MxOptions, SmtpOptions
from smtpmaild.queue import BY_MX

_PREFIX = "relay:"
_MX = "mx"
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?")
_SMTP = 25


def parse_next_hop(text: str) -> tuple[str, int] | None:
    """host, host:port or [address]:port; None for a word that is no host: one without dot, colon and bracket."""
    match = _HOST.fullmatch(text)
    if match is None or not any(character in text for character in ".:["):
        return None
    port = int(match["port"] or _SMTP)
    return (match["host"].lower(), port) if 1 <= port <= 65535 else None


def route_to(target: str, relays: Mapping[str, AgentOptions]) -> str:
    """The route of what a rule names; a mistake in it was found before."""
    options = relays.get(target)
    if options is not None:
        is_by_domain = BUILTIN[options.type].is_by_domain and target != _MX
        return f"{BY_MX}/{target}" if is_by_domain else f"{_PREFIX}{target}"
    next_hop = parse_next_hop(target)
    return f"{_PREFIX}{next_hop[0]}:{next_hop[1]}" if next_hop else f"{_PREFIX}{target}"


def options_of(route: str, relays: Mapping[str, AgentOptions]) -> AgentOptions | None:
    """What the configuration says of the target of a route; None: nothing."""
    target = _target(route)
    if target in relays:
        return relays[target]
    if target == _MX:
        return MxOptions(type="mx")
    next_hop = parse_next_hop(target)
    return SmtpOptions(host=next_hop[0].strip("[]"), port=next_hop[1]) if next_hop else None


def _target(route: str) -> str:
    return route.removeprefix(_PREFIX).removeprefix(f"{_MX}/")


class ConfiguredAgents:
    """The Agents of the runner.

    shared: made when the first agent is, in the loop.  others: agents that no relay describes, by their routes.
    """

    def __init__(
        self,
        relays: Mapping[str, AgentOptions],
        shared: Callable[[], Shared],
        others: Mapping[str, Agent] = MappingProxyType({}),
    ) -> None:
        self._relays = relays
        self._make_shared = shared
        self._shared: Shared | None = None
        self._agents: dict[str, Agent] = {}
        self._others = others

    def get(self, route: str) -> Agent | None:
        """None: the configuration has no such relay."""
        if route in self._others:
            return self._others[route]
        target = _target(route)
        agent = self._agents.get(target)
        if agent is None:
            options = options_of(route, self._relays)
            if options is None:
                return None
            if self._shared is None:
                self._shared = self._make_shared()
            agent = self._agents[target] = build(options, self._shared)
        return agent

    async def close(self) -> None:
        """All that were made."""
        while self._agents:
            await self._agents.popitem()[1].close()
