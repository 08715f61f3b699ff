"""What the tests of authenticators share: a client's side of an exchange, and a clock that nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from smtpmaild.auth import Authenticator, ChannelBinding, Step
from smtpmaild.auth.gate import Gate
from smtpmaild.auth.throttle import Throttle, ThrottleLimits
from smtpmaild.envelope import Peer, Session


def session(host: str = "192.0.2.1") -> Session:
    return Session("s1", "submission", "mx.example", Peer(host, 4321 if host else 0))


CLEAR = session()


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 1))
        self.now += seconds


def gate(clock: Clock, limits: ThrottleLimits | None = None) -> Gate:
    return Gate(Throttle(limits or ThrottleLimits()), clock.sleep, clock)


def plain(user: str, password: str, acting_as: str = "") -> bytes:
    return f"{acting_as}\0{user}\0{password}".encode()


async def waited(step: Step | Awaitable[Step]) -> Step:
    return await step if isinstance(step, Awaitable) else step


def conclude(
    accounts: Authenticator,
    mechanism: str,
    *responses: bytes | None,
    host: str = "192.0.2.1",
    binding: ChannelBinding | None = None,
) -> Step:
    """What the last of these responses came to."""

    async def talk() -> Step:
        exchange = accounts.begin(mechanism, session(host), binding)
        steps = [await waited(exchange.respond(response)) for response in responses]
        return steps[-1]

    return asyncio.run(talk())
