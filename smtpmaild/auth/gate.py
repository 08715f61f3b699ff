"""What every attempt to sign in goes through: the throttle before it, the account of it after it.

`Gate.attempt` waits as long as the throttle says, lets the password be looked at, and tells the throttle what came of
it. Time and sleep are brought by who builds it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from smtpmaild.auth import Failed, Step
from smtpmaild.auth.accounts import canonical
from smtpmaild.auth.throttle import Throttle
from smtpmaild.envelope import IpAddress
from smtpmaild.smtp.reply import Reply

WRONG = Reply(535, "5.7.8", "Authentication credentials invalid")
MALFORMED = Reply(501, "5.5.2", "Malformed authentication data")
TOO_MANY_FAILURES = Reply(421, "4.7.0", "Too many failed logins, closing transmission channel")

T = TypeVar("T")
#: Waits for so many seconds (asyncio.sleep).
Sleep = Callable[[float], Awaitable[object]]
#: Seconds of a clock that only goes forward (time.monotonic).
Clock = Callable[[], float]


class Run(Protocol):
    """Runs a function that takes long, somewhere beside the loop; what it raises comes out."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


class Gate:
    """One for all accounts of a process."""

    def __init__(self, throttle: Throttle, sleep: Sleep, clock: Clock) -> None:
        self._throttle = throttle
        self._sleep = sleep
        self._clock = clock

    async def attempt(
        self,
        ip: IpAddress | None,
        user: str,
        is_over: Callable[[], bool],
        verify: Callable[[], Coroutine[Any, Any, Step]],
    ) -> Step:
        """Let `verify` look at a password, if and when it may. is_over: the client has gone away meanwhile."""
        account = canonical(user)
        admission = self._throttle.begin(ip, account, self._clock())
        if admission.is_refused:
            return Failed(TOO_MANY_FAILURES, "too many failures from this address", user)
        if admission.delay:
            await self._sleep(admission.delay)
        # Who hangs up to be spared the delay has failed: the attempt goes on counting.
        step = Failed(WRONG, "the client went away", user) if is_over() else await verify()
        # A Challenge after the proof is our own proof, to somebody who knew the password.
        if not isinstance(step, Failed):
            self._throttle.succeed(ip, account, self._clock())
        elif not step.reply.is_permanent:
            self._throttle.forgive(ip, account, self._clock())
        return step
