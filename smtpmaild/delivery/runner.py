"""The runner: takes what is due from the queue, has an agent try it, and settles what came of it.

One for each worker, in its event loop. It claims whenever there is room: when mail was put in, when a delivery ended,
and once a second. Everything that touches the queue happens in the queue's thread; reports are made in a thread, for
they read the message.

| of a claimed recipient                             | becomes                                                    |
|----------------------------------------------------|------------------------------------------------------------|
| somebody gave it a 5yz before (`queue bounce`)     | bounced, not tried                                         |
| too old, and tried before or its destination dead  | expired, not tried                                         |
| DELIVERBY with R, and the time is over             | expired with 5.4.7, not tried                              |
| its route has no agent any more                    | deferred with 4.3.5, until the configuration is mended     |
| tried: 2yz                                         | delivered                                                  |
| tried: 5yz                                         | bounced                                                    |
| tried: 4yz                                         | deferred by the schedule; expired when that is at its end  |
| not tried to the end: we are told to stop          | deferred until now, the attempt does not count             |

Where a report of a failure cannot be made now, the recipient stays deferred, and is not tried, until it can be.

A claim that is held long renews its lease. A settlement that the disk refuses is tried until it is taken: what was
delivered must not be delivered again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from smtpmaild.delivery import Agent, Outcome, Passed
from smtpmaild.delivery.pacing import Pacing, is_trouble
from smtpmaild.facts import Log
from smtpmaild.metrics import Metrics
from smtpmaild.queue import Claim, Entry, QueuedMessage, QueuedRecipient, Settlement, State
from smtpmaild.queue.reports import Action, Reporter, Told
from smtpmaild.queue.schedule import Schedule
from smtpmaild.queue.thread import QueueThread
from smtpmaild.smtp.reply import Reply
from smtpmaild.smtp.timing import deliver_by

#: How long a claim is ours without a word; renewed when half of it is over.
LEASE = 600.0
#: How often we look for what is due, and for what other processes changed.
POLL = 1.0
#: How often we look for what is too old, behind destinations that nothing is claimed for.
AGE_CHECK = 60.0
#: Before a settlement that the disk refused is tried again.
SETTLE_AGAIN = 5.0
#: Destinations that are told of, of those that are known.
MOST_DESTINATIONS = 200
#: Before a report that could not be made is tried again.
REPORT_AGAIN = 300.0
#: How long stop() lets deliveries go on.
GRACE = 10.0

EXPIRED = Reply(451, "4.4.7", "Delivery time expired")
# RFC 2852 §4.1.3: "failed" with 5.4.7, "delayed" with 4.4.7.
LATE = "4.4.7"
TOO_LATE = "It was not delivered within the time that its sender set"
NO_ROUTE = Reply(451, "4.3.5", "The configuration has no such relay")
AGENT_FAILED = Reply(451, "4.3.0", "Local error in delivery")


class Agents(Protocol):
    """The agents of a configuration, by the names of routes."""

    def get(self, route: str) -> Agent | None:
        """None: the configuration knows no such route."""
        ...

    async def close(self) -> None:
        """Let go of all of them."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How much at a time. deliveries: of this worker.  per_destination: of those, to one destination."""

    deliveries: int = 100
    per_destination: int = 20


class Runner:
    """A Companion of the worker (server/plan.py)."""

    def __init__(
        self,
        thread: QueueThread,
        agents: Agents,
        reporter: Reporter,
        log: Log,
        schedule: Schedule,
        pace: Pace,
        *,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._thread = thread
        self._agents = agents
        self._reporter = reporter
        self._log = log
        self._metrics = metrics or Metrics()
        self._schedule = schedule
        self._pacing = Pacing(pace.deliveries, pace.per_destination)
        self._clock = clock
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_claiming = False
        self._claim_again = False
        self._is_retired = False
        self._is_stopping = False
        self._check_age_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # The seam of companions

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to claim."""
        self._loop = loop
        self._thread.start(loop.call_soon_threadsafe)
        self._thread.on_put(self._look)
        self._tick()

    def retire(self) -> None:
        """Claim no more; when what is under way has ended, another runner may."""
        self._is_retired = True
        if self._timer is not None:
            self._timer.cancel()
        self._let_others_claim()

    def destinations(self) -> dict[str, dict[str, float]]:
        """What is known of those that are at work or in trouble, a bounded number (Pacing.destinations)."""
        return self._pacing.destinations(MOST_DESTINATIONS)

    async def stop(self) -> None:
        """Give what is under way a moment to end, put the rest back."""
        self.retire()
        self._is_stopping = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=GRACE)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await self._agents.close()
        await asyncio.to_thread(self._thread.stop)

    def revive(self, destinations: Collection[str]) -> None:
        """Try them now, whatever was learned of them: they have come back."""
        for destination in destinations:
            self._pacing.revive(destination)
        self._look()

    # Claiming

    def _tick(self) -> None:
        self._timer = self._loop.call_later(POLL, self._tick)
        self._look()

    def _look(self) -> None:
        """Claim what there is room for."""
        if self._is_retired or self._pacing.free <= 0:
            return
        if self._is_claiming:
            self._claim_again = True
            return
        self._is_claiming, self._claim_again = True, False
        now = self._clock()
        received_before = 0.0
        if now >= self._check_age_at:
            self._check_age_at = now + AGE_CHECK
            received_before = now - self._schedule.max_age
        room = self._pacing.room(now, received_before)
        self._thread.claim(now, now + LEASE, self._pacing.free, room, self._claimed)

    def _claimed(self, claims: Sequence[Claim]) -> None:
        self._is_claiming = False
        for claim in claims:
            self._pacing.began(claim.destination)
            task = self._loop.create_task(self._handle(claim))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        if self._is_retired:
            self._let_others_claim()
        elif claims or self._claim_again:
            self._look()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("delivery_failed", exc_info=task.exception())
        if self._is_retired:
            self._let_others_claim()
        else:
            self._look()

    def _let_others_claim(self) -> None:
        if not self._tasks and not self._is_claiming:
            self._thread.stop_claiming(lambda _: None)

    # One claim

    async def _handle(self, claim: Claim) -> None:
        is_success: bool | None = None
        try:
            held = _Held(claim)
            settlements, told, is_success = await self._attempt(held)
            reports = await self._report(claim.message, told)
            if reports is None:
                settlements, reports = self._kept_back(settlements, told), ()
            await self._settle(held.claim, settlements, reports)
        finally:
            self._pacing.ended(claim.destination, self._clock(), is_success=is_success)

    async def _attempt(self, held: _Held) -> tuple[list[Settlement], list[Told], bool | None]:
        """What becomes of each recipient, who is to be told, and how the destination did."""
        claim, now = held.claim, self._clock()
        results = [self._without_attempt(claim, recipient, now) for recipient in claim.recipients]
        to_try = [one for one, result in zip(claim.recipients, results, strict=True) if result is None]
        is_success: bool | None = None
        tried: list[_Result] = []
        if to_try:
            agent = self._agents.get(to_try[0].route)
            try:
                outcomes = await self._deliver(agent, held, to_try) if agent else [Outcome(NO_ROUTE)] * len(to_try)
            except asyncio.CancelledError:
                if not self._is_stopping:
                    raise
                return [Settlement(one.number, State.DEFERRED, next_attempt=now) for one in claim.recipients], [], None
            if agent:
                is_success = not is_trouble([outcome.reply for outcome in outcomes])
            now = self._clock()
            tried = [self._after_attempt(claim, *pair, now) for pair in zip(to_try, outcomes, strict=True)]
        rest = iter(tried)
        each = [result or next(rest) for result in results]
        return [settlement for settlement, _ in each], [told for _, told in each if told], is_success

    async def _deliver(self, agent: Agent, held: _Held, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        """Let the agent try, and keep the lease meanwhile."""
        message = held.claim.message
        delivery = self._loop.create_task(agent.deliver(message, recipients))
        try:
            while not (await asyncio.wait([delivery], timeout=LEASE / 2))[0]:
                await self._renew(held)
        except asyncio.CancelledError:
            delivery.cancel()
            await asyncio.wait([delivery])
            raise
        try:
            outcomes = delivery.result()
            if len(outcomes) == len(recipients):
                return outcomes
            self._log.error("agent_failed", queue_id=message.queue_id, cause="not one outcome for each recipient")
        except Exception as error:  # a mistake of ours: the mail waits until it is mended
            self._log.error("agent_failed", queue_id=message.queue_id, exc_info=error)
        return [Outcome(AGENT_FAILED)] * len(recipients)

    async def _renew(self, held: _Held) -> None:
        claim, until = held.claim, self._clock() + LEASE
        renewals = [Settlement(one.number, State.IN_DELIVERY, next_attempt=until) for one in claim.recipients]
        if await self._settled(claim, renewals, ()) is None:
            held.claim = replace(claim, lease_until=until)

    # What becomes of a recipient

    def _without_attempt(self, claim: Claim, recipient: QueuedRecipient, now: float) -> _Result | None:
        """The end of one that is not to be tried."""
        if recipient.last is not None and recipient.last.is_permanent:
            after = replace(recipient, state=State.BOUNCED)
            return self._result(claim, after, Settlement(recipient.number, State.BOUNCED), Action.FAILED)
        if _is_too_late(claim.message, now):
            reply = _too_late(recipient.last)
            after = replace(recipient, state=State.EXPIRED, last=reply, remote="")
            settlement = Settlement(recipient.number, State.EXPIRED, reply, at=now)
            return self._result(claim, after, settlement, Action.FAILED)
        if self._schedule.is_over(now, claim.message.released_at) and (
            recipient.attempts or self._pacing.is_dead(claim.destination)
        ):
            last = recipient.last or EXPIRED
            after = replace(recipient, state=State.EXPIRED, last=last)
            reply_now = None if recipient.last else EXPIRED
            settlement = Settlement(recipient.number, State.EXPIRED, reply_now, at=now)
            return self._result(claim, after, settlement, Action.FAILED)
        return None

    def _after_attempt(self, claim: Claim, recipient: QueuedRecipient, outcome: Outcome, now: float) -> _Result:
        message, reply = claim.message, outcome.reply
        since, deadline = message.released_at, message.deadline
        next_attempt, action, status = 0.0, None, ""
        if reply.is_positive:
            state, action = State.DELIVERED, _OF_SUCCESS[outcome.passed]
        elif reply.is_permanent:
            state, action = State.BOUNCED, Action.FAILED
        elif _is_too_late(message, now):
            state, action, reply = State.EXPIRED, Action.FAILED, _too_late(reply)
            outcome = Outcome(reply)
        elif self._schedule.is_over(now, since):
            state, action = State.EXPIRED, Action.FAILED
        else:
            state = State.DEFERRED
            next_attempt = self._schedule.next_attempt(now, since, recipient.attempts, self._chance())
            if now < deadline:  # its sender is to hear of it then
                next_attempt = min(next_attempt, deadline)
            is_late = 0 < deadline <= now and recipient.attempted_at < deadline
            if is_late or self._schedule.is_warning_due(now, since, recipient.attempted_at):
                action, status = Action.DELAYED, LATE if is_late else ""
        after = replace(
            recipient,
            state=state,
            attempts=recipient.attempts + 1,
            next_attempt=next_attempt,
            attempted_at=now,
            last=reply,
            remote=outcome.remote,
        )
        settlement = Settlement(recipient.number, state, reply, outcome.remote, now, next_attempt)
        is_traced = _is_traced(message, outcome, recipient)
        return self._result(claim, after, settlement, action, status=status, is_traced=is_traced)

    def _result(
        self,
        claim: Claim,
        after: QueuedRecipient,
        settlement: Settlement,
        action: Action | None,
        *,
        status: str = "",
        is_traced: bool = False,
    ) -> _Result:
        message = claim.message
        age = self._clock() - message.received_at
        self._metrics.deliveries.count(after.route, _EVENTS[after.state])
        if after.state is State.DELIVERED:
            self._metrics.delivery_seconds.observe(age)
        self._log.info(
            _EVENTS[after.state],
            queue_id=message.queue_id,
            sender=message.reverse_path.text,
            recipient=after.address.text,
            route=after.route,
            destination=claim.destination,
            remote=after.remote,
            reply=str(after.last),
            attempts=after.attempts,
            age=round(age, 3),
            **({"next_attempt": round(after.next_attempt)} if after.state is State.DEFERRED else {}),
        )
        if is_traced and not message.reverse_path.is_null:
            return settlement, Told(Action.RELAYED, after, is_traced=True)
        # RFC 5321 §6.1: no notification about a notification.
        if action is None or message.reverse_path.is_null:
            return settlement, None
        if action in _ON_REQUEST and "SUCCESS" not in after.parameters.get("NOTIFY", "").upper():
            return settlement, None
        return settlement, Told(action, after, status)

    # Settling

    async def _report(self, message: QueuedMessage, told: Sequence[Told]) -> Sequence[Entry] | None:
        """None: they could not be made now."""
        if not told:
            return ()
        try:
            reports = await asyncio.to_thread(self._reporter, message, told)
        except Exception as error:  # a disk that cannot be read, or a mistake of ours
            self._log.error("report_failed", queue_id=message.queue_id, exc_info=error)
            return None
        self._metrics.reports_made += len(reports)
        return reports

    def _kept_back(self, settlements: Sequence[Settlement], told: Sequence[Told]) -> list[Settlement]:
        """Who failed stays until his sender can be told: the next claim finds what was said, and does not try again.
        What was delivered must not be delivered twice, whoever hears of it."""
        failed = {one.recipient.number: one.recipient for one in told if one.action is Action.FAILED}
        again = self._clock() + REPORT_AGAIN
        return [
            replace(one, state=State.DEFERRED, reply=failed[one.number].last, next_attempt=again)
            if one.number in failed
            else one
            for one in settlements
        ]

    async def _settle(self, claim: Claim, settlements: Sequence[Settlement], reports: Sequence[Entry]) -> None:
        while await self._settled(claim, settlements, reports) is not None and not self._is_stopping:
            await asyncio.sleep(SETTLE_AGAIN)

    async def _settled(
        self, claim: Claim, settlements: Sequence[Settlement], reports: Sequence[Entry]
    ) -> OSError | None:
        answer: asyncio.Future[OSError | None] = self._loop.create_future()
        self._thread.settle(claim, settlements, reports, partial(_answer, answer))
        return await answer


@dataclass(slots=True)
class _Held:
    """A claim with its present lease."""

    claim: Claim


_Result = tuple[Settlement, Told | None]
_EVENTS = {
    State.DELIVERED: "delivered",
    State.DEFERRED: "deferred",
    State.BOUNCED: "bounced",
    State.EXPIRED: "expired",
}
#: RFC 3461 §5.2: where the next hop knows DSN, it tells.
_OF_SUCCESS = {Passed.ON: None, Passed.OUT: Action.RELAYED, Passed.IN: Action.DELIVERED}
#: Senders hear of success only when they asked to (RFC 3461 §4.1: NOTIFY=SUCCESS).
_ON_REQUEST = (Action.DELIVERED, Action.RELAYED)


def _is_too_late(message: QueuedMessage, now: float) -> bool:
    """It is to be returned rather than delivered now (RFC 2852 §4.1.3, by-mode R)."""
    by = deliver_by(message.parameters) if message.parameters else None
    return by is not None and by.is_returned and now >= message.deadline


def _too_late(last: Reply | None) -> Reply:
    return Reply(554, "5.4.7", f"{TOO_LATE}; last: {last}" if last else TOO_LATE)


def _is_traced(message: QueuedMessage, outcome: Outcome, recipient: QueuedRecipient) -> bool:
    """The sender is told that the message is on its way to somebody else: it asked for that (T; RFC 2852 §4.1.4), or
    else nobody would tell any more when the time is over (§4.1.4.2). Who was told so before hears nothing."""
    by = deliver_by(message.parameters) if message.parameters else None
    if by is None or outcome.passed is Passed.IN or not outcome.reply.is_positive:
        return False
    return by.is_traced or not (by.is_returned or outcome.keeps_time or recipient.attempted_at >= message.deadline)


def _answer(future: asyncio.Future[OSError | None], error: OSError | None) -> None:
    if not future.done():
        future.set_result(error)
