"""The runner over a reference queue, with agents that do as they are told."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from queueing import LATER, NO, OK, MemoryQueue, entry
from receiving import RecordingLog

from smtpmaild.delivery import Agent, Outcome, Passed, runner
from smtpmaild.delivery.runner import EXPIRED, NO_ROUTE, Pace, Runner
from smtpmaild.metrics import Metrics
from smtpmaild.queue import BY_MX, Entry, Query, QueuedMessage, QueuedRecipient, State
from smtpmaild.queue.reports import Action, Told
from smtpmaild.queue.schedule import DAY, HOUR, Schedule
from smtpmaild.queue.sqlite import SqliteQueue
from smtpmaild.queue.thread import Limits, QueueThread
from smtpmaild.smtp.reply import Reply

NOW = 1_700_000_000.0
REFUSED = Reply(451, "4.4.1", "Connection refused")
Deliver = Callable[[QueuedMessage, Sequence[QueuedRecipient]], Awaitable[Sequence[Outcome]]]


def answers(*replies: Reply, passed: Passed = Passed.OUT) -> Deliver:
    """An agent that gives these replies, the last one again and again."""
    left = list(replies)

    async def deliver(_: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return [Outcome(left.pop(0) if len(left) > 1 else left[0], "mx.y.example", passed) for _ in recipients]

    return deliver


class FakeAgent:
    def __init__(self, deliver: Deliver) -> None:
        self.tried: list[tuple[str, ...]] = []
        self._deliver = deliver

    async def deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        self.tried.append(tuple(one.address.text for one in recipients))
        return await self._deliver(message, recipients)

    async def close(self) -> None:
        """Nothing is open."""


class Fakes:
    def __init__(self, agents: dict[str, Agent]) -> None:
        self.agents = agents
        self.is_closed = False

    def get(self, route: str) -> Agent | None:
        return self.agents.get(route)

    async def close(self) -> None:
        self.is_closed = True


class House:
    """A runner at work."""

    def __init__(self, deliver: Deliver, *, schedule: Schedule | None = None, pace: Pace | None = None) -> None:
        self.store = MemoryQueue()
        self.log = RecordingLog()
        self.thread = QueueThread(self.store, Limits("/"), self.log)
        self.agent = FakeAgent(deliver)
        self.agents = Fakes({BY_MX: self.agent})
        self.told: list[Told] = []
        self.now = NOW
        self.metrics = Metrics()
        self.runner = Runner(
            self.thread,
            self.agents,
            self.report,
            self.log,
            schedule or Schedule(),
            pace or Pace(),
            metrics=self.metrics,
            clock=lambda: self.now,
            chance=lambda: 0.5,
        )

    def report(self, message: QueuedMessage, told: Sequence[Told]) -> Sequence[Entry]:
        self.told += told
        return [entry("report@x.example", sender="", at=self.now + HOUR)]

    async def put(self, *entries: Entry) -> None:
        done = asyncio.get_running_loop().create_future()
        for one in entries:
            self.thread.put(one, lambda _: None)
        self.thread.put(entry(state=State.HELD, queue_id=f"last{len(self.store.held)}"), done.set_result)
        assert await done is None

    def recipients(self) -> dict[str, QueuedRecipient]:
        found = self.store.find(Query())
        return {one.address.text: one for _, each in found for one in each if one.state is not State.HELD}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.002)

    async def later(self, seconds: float) -> None:
        """So much later: once every attempt has ended, for an attempt looks at the clock until its very end."""
        await self.until(lambda: not self.runner._tasks)
        self.now += seconds

    async def until_settled(self) -> None:
        """Nothing is queued or in delivery any more."""
        busy = (State.QUEUED, State.IN_DELIVERY)
        await self.until(
            lambda: all(
                one.state not in busy or one.next_attempt > self.now + 700 for one in self.recipients().values()
            )
        )


def live(house: House, scene: Callable[[House], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        house.runner.start(asyncio.get_running_loop())
        try:
            await scene(house)
        finally:
            await house.runner.stop()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL", 0.01)
    monkeypatch.setattr(runner, "SETTLE_AGAIN", 0.01)
    monkeypatch.setattr(runner, "GRACE", 0.05)


def test_mail_that_was_put_is_delivered_at_once_and_gone() -> None:
    async def scene(house: House) -> None:
        await house.put(entry("b@y.example", "c@y.example", at=NOW), entry("d@z.example", at=NOW))
        await house.until(lambda: house.recipients() == {})

    house = House(answers(OK))
    live(house, scene)
    assert sorted(house.agent.tried) == [("b@y.example", "c@y.example"), ("d@z.example",)]
    assert house.told == []
    assert house.agents.is_closed
    delivered = house.log.named("delivered")
    assert len(delivered) == 3
    assert delivered[0]["reply"] == "250 2.0.0 Ok"


def test_each_recipient_has_its_own_end() -> None:
    async def scene(house: House) -> None:
        await house.put(entry("b@y.example", "c@y.example", "d@y.example", at=NOW))
        await house.until_settled()

    house = House(answers(OK, NO, LATER))
    live(house, scene)
    found = house.recipients()
    assert {name: one.state for name, one in found.items() if name != "report@x.example"} == {
        "b@y.example": State.DELIVERED,
        "c@y.example": State.BOUNCED,
        "d@y.example": State.DEFERRED,
    }
    assert found["d@y.example"].next_attempt == pytest.approx(NOW + 300)
    assert found["d@y.example"].attempts == 1
    assert [(one.action, one.recipient.last) for one in house.told] == [(Action.FAILED, NO)]
    assert "report@x.example" in found
    events = ("delivered", "bounced", "deferred")
    assert house.metrics.deliveries.names == {(BY_MX, event): 1 for event in events}
    assert sum(house.metrics.delivery_seconds.counts) == 1
    assert house.metrics.reports_made == 1


def test_nobody_is_told_about_a_report() -> None:
    async def scene(house: House) -> None:
        await house.put(entry(sender="", at=NOW))
        await house.until(lambda: house.recipients() == {})

    house = House(answers(NO))
    live(house, scene)
    assert house.told == []


@pytest.mark.parametrize(
    ("passed", "notify", "action"),
    [
        (Passed.OUT, "SUCCESS,FAILURE", Action.RELAYED),
        (Passed.IN, "success", Action.DELIVERED),
        (Passed.ON, "SUCCESS", None),
        (Passed.IN, "FAILURE", None),
    ],
)
def test_success_is_told_to_who_asked(passed: Passed, notify: str, action: Action | None) -> None:
    async def scene(house: House) -> None:
        message, (one,) = entry(at=NOW)
        await house.put((message, [replace(one, parameters={"NOTIFY": notify})]))
        await house.until(lambda: "b@y.example" not in house.recipients())

    house = House(answers(OK, passed=passed))
    live(house, scene)
    assert [one.action for one in house.told] == ([action] if action else [])


def test_late_mail_is_warned_about_once() -> None:
    async def scene(house: House) -> None:
        await house.put(entry(at=NOW - 5 * HOUR))
        await house.until(lambda: house.recipients()["b@y.example"].attempts == 1)
        await house.later(HOUR)
        await house.until(lambda: house.recipients()["b@y.example"].attempts == 2)

    house = House(answers(LATER), schedule=Schedule(warn_after=4 * HOUR))
    live(house, scene)
    assert [one.action for one in house.told] == [Action.DELAYED]


def test_old_mail_expires_after_a_last_try() -> None:
    async def scene(house: House) -> None:
        await house.put(entry(at=NOW - 6 * DAY))
        await house.until(lambda: "b@y.example" not in house.recipients())

    house = House(answers(LATER))
    live(house, scene)
    assert len(house.agent.tried) == 1
    assert [(one.action, one.recipient.state, one.recipient.last) for one in house.told] == [
        (Action.FAILED, State.EXPIRED, LATER)
    ]


def test_mail_for_a_dead_destination_expires_without_being_tried() -> None:
    async def scene(house: House) -> None:
        await house.put(*(entry(f"{name}@y.example", at=NOW) for name in "xyz"))
        await house.until(lambda: len(house.agent.tried) == 3)
        await house.until_settled()
        await house.put(entry("waits@y.example", at=NOW))
        await asyncio.sleep(0.05)
        assert house.recipients()["waits@y.example"].state is State.QUEUED
        await house.later(5 * DAY - 10)
        await asyncio.sleep(0.05)
        await house.later(70)
        await house.until(lambda: "waits@y.example" not in house.recipients())

    house = House(answers(REFUSED))
    live(house, scene)
    assert ("waits@y.example",) not in house.agent.tried[:3]
    (waits,) = [one.recipient for one in house.told if one.recipient.address.text == "waits@y.example"]
    assert waits.state is State.EXPIRED
    assert waits.last in (EXPIRED, REFUSED)


def test_who_was_bounced_by_hand_is_not_tried() -> None:
    async def scene(house: House) -> None:
        message, (one, other) = entry("b@y.example", "c@y.example", at=NOW)
        await house.put((message, [replace(one, last=NO), other]))
        await house.until_settled()

    house = House(answers(LATER))
    live(house, scene)
    assert house.agent.tried == [("c@y.example",)]
    assert [one.recipient.address.text for one in house.told] == ["b@y.example"]


def test_route_that_the_configuration_lost_waits_for_it() -> None:
    async def scene(house: House) -> None:
        await house.put(entry(route="relay:gone", at=NOW))
        await house.until_settled()
        assert house.recipients()["b@y.example"].last == NO_ROUTE
        house.agents.agents["relay:gone"] = house.agent
        await house.later(400)
        await house.until(lambda: "b@y.example" not in house.recipients())

    live(House(answers(OK)), scene)


@pytest.mark.parametrize("mistake", ["raises", "too few"])
def test_mistake_of_an_agent_costs_no_mail(mistake: str) -> None:
    async def broken(_: QueuedMessage, __: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        if mistake == "raises":
            raise ZeroDivisionError
        return []

    async def scene(house: House) -> None:
        await house.put(entry(at=NOW))
        await house.until_settled()

    house = House(broken)
    live(house, scene)
    assert house.recipients()["b@y.example"].state is State.DEFERRED
    assert len(house.log.named("agent_failed")) == 1


def test_failure_that_cannot_be_told_now_is_told_later() -> None:
    """And the mail is not tried again meanwhile."""

    async def scene(house: House) -> None:
        make, errors = house.runner._reporter, [OSError(errno.EIO, "disk")]

        def report(message: QueuedMessage, told: Sequence[Told]) -> Sequence[Entry]:
            if errors:
                raise errors.pop()
            return make(message, told)

        house.runner._reporter = report
        await house.put(entry("b@y.example", "c@y.example", at=NOW))
        await house.until_settled()
        kept = house.recipients()["b@y.example"]
        assert (kept.state, kept.last) == (State.DEFERRED, NO)
        await house.later(runner.REPORT_AGAIN)
        await house.until(lambda: "b@y.example" not in house.recipients())

    house = House(answers(NO, OK, passed=Passed.IN))
    live(house, scene)
    assert len(house.log.named("report_failed")) == 1
    assert len(house.agent.tried) == 1
    assert [(one.action, one.recipient.last) for one in house.told] == [(Action.FAILED, NO)]


def test_settlement_that_the_disk_refuses_is_tried_until_it_is_taken() -> None:
    async def scene(house: House) -> None:
        await house.put(entry(at=NOW))
        await house.until(lambda: house.recipients() == {})

    async def deliver(_: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        house.store.fails = OSError(errno.ENOSPC, "full")
        return [Outcome(OK) for _ in recipients]

    house = House(deliver)
    live(house, scene)
    assert len(house.agent.tried) == 1
    assert house.log.named("queue_failed") != []


def test_long_delivery_keeps_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LEASE", 0.02)
    go = asyncio.Event()

    async def slow(_: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        await go.wait()
        return [Outcome(OK) for _ in recipients]

    async def scene(house: House) -> None:
        await house.put(entry(at=NOW))
        for _ in range(20):
            await asyncio.sleep(0.005)
            house.now += 0.005
        go.set()
        await house.until(lambda: house.recipients() == {})

    house = House(slow)
    live(house, scene)
    assert len(house.agent.tried) == 1


def test_stop_puts_back_what_did_not_end() -> None:
    async def never(_: QueuedMessage, __: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        await asyncio.Event().wait()
        raise AssertionError

    async def scene(house: House) -> None:
        await house.put(entry("b@y.example", "c@y.example", at=NOW))
        await house.until(lambda: bool(house.agent.tried))

    house = House(never)
    live(house, scene)
    for one in house.recipients().values():
        assert (one.state, one.attempts, one.next_attempt) == (State.DEFERRED, 0, NOW)


def test_retired_runner_claims_no_more_and_lets_another_one(tmp_path: Path) -> None:
    log = RecordingLog()

    async def main() -> None:
        agent = FakeAgent(answers(OK))
        runners = []
        for _ in range(2):
            thread = QueueThread(SqliteQueue(str(tmp_path), log), Limits(str(tmp_path)), log)
            runners.append(
                (
                    thread,
                    Runner(thread, Fakes({BY_MX: agent}), lambda *_: [], log, Schedule(), Pace(), clock=lambda: NOW),
                )
            )
        loop = asyncio.get_running_loop()
        (old_thread, old), (_, new) = runners
        old.start(loop)
        await asyncio.sleep(0.05)
        new.start(loop)
        await asyncio.sleep(0.05)
        old.retire()
        old_thread.put(entry(at=NOW), lambda _: None)
        async with asyncio.timeout(5):
            while not agent.tried:
                await asyncio.sleep(0.01)
        await old.stop()
        await new.stop()

    asyncio.run(main())


class Ticks:
    """Time that goes in steps: in each one every delivery under way ends that is not of a slow destination."""

    def __init__(self) -> None:
        self.under_way: list[asyncio.Future[None]] = []
        self.never: list[asyncio.Future[None]] = []
        self.ended: dict[str, int] = {}

    async def deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        domain = recipients[0].address.domain
        if domain == "dead.example":
            return [Outcome(REFUSED) for _ in recipients]
        future = asyncio.get_running_loop().create_future()
        (self.never if domain == "slow.example" else self.under_way).append(future)
        await future
        self.ended[domain] = self.ended.get(domain, 0) + 1
        return [Outcome(OK) for _ in recipients]


def steps_for(tmp_path: Path, others: Sequence[str], each: int) -> int:
    """How many steps 48 destinations need for their mail, with two others beside them."""
    log = RecordingLog()
    store = SqliteQueue(str(tmp_path), log)
    store.open()
    good = [f"d{number}.example" for number in range(48)]
    mail = [entry(f"u@{domain}", at=NOW) for _ in range(each) for domain in [*others, *good]]
    store.put(mail)
    store.close()
    ticks = Ticks()

    async def main() -> int:
        thread = QueueThread(store, Limits(str(tmp_path)), log)
        one = Runner(
            thread,
            Fakes({BY_MX: FakeAgent(ticks.deliver)}),
            lambda *_: [],
            log,
            Schedule(),
            Pace(100, 20),
            clock=lambda: NOW,
        )
        one.start(asyncio.get_running_loop())
        steps = 0
        while sum(ticks.ended.get(domain, 0) for domain in good) < 48 * each:
            # Until nothing more begins: each task waits for its step, and the last claim found nothing.
            while one._is_claiming or len(one._tasks) != len(ticks.under_way) + len(ticks.never):
                await asyncio.sleep(0.001)
            steps += 1
            batch, ticks.under_way = ticks.under_way, []
            for future in batch:
                future.set_result(None)
            assert steps < 1000
        await one.stop()
        return steps

    return asyncio.run(main())


def test_one_dead_and_one_slow_destination_do_not_slow_the_others(tmp_path: Path) -> None:
    each = 40
    alone = steps_for(tmp_path / "alone", ["e0.example", "e1.example"], each)
    beside = steps_for(tmp_path / "beside", ["dead.example", "slow.example"], each)
    assert beside <= alone * 1.1, f"{beside} steps beside them, {alone} alone"


def timed(by: str, **parameters: str) -> Entry:
    message, recipients = entry("b@y.example", at=NOW)
    notify = {"NOTIFY": parameters["notify"]} if parameters else {}
    return replace(message, parameters={"BY": by}), [replace(one, parameters=notify) for one in recipients]


def test_mail_that_is_not_delivered_in_its_time_goes_back() -> None:
    async def scene(house: House) -> None:
        await house.put(timed("900;R"))
        await house.until(lambda: house.recipients()["b@y.example"].state is State.DEFERRED)
        assert house.recipients()["b@y.example"].next_attempt == NOW + 900  # not an hour later
        await house.later(900)
        await house.until(lambda: "b@y.example" not in house.recipients())

    house = House(answers(REFUSED), schedule=Schedule(first=HOUR))
    live(house, scene)
    (told,) = house.told
    assert told.action is Action.FAILED
    assert (
        str(told.recipient.last)
        == f"554 5.4.7 It was not delivered within the time that its sender set; last: {REFUSED}"
    )
    assert len(house.agent.tried) == 1


def test_time_that_ends_during_an_attempt_is_over() -> None:
    async def late(_: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        house.now = NOW + 61
        return [Outcome(REFUSED)] * len(recipients)

    async def scene(house: House) -> None:
        await house.put(timed("60;R"))
        await house.until(lambda: "b@y.example" not in house.recipients())

    house = House(late)
    live(house, scene)
    assert [told.action for told in house.told] == [Action.FAILED]


def test_sender_is_told_once_that_the_time_is_over_and_mail_is_tried_on() -> None:
    def is_deferred(house: House) -> bool:
        found = house.recipients()["b@y.example"]
        return found.state is State.DEFERRED and found.next_attempt > house.now

    async def scene(house: House) -> None:
        await house.put(timed("900;N"))
        await house.until(lambda: house.recipients()["b@y.example"].state is State.DEFERRED)
        assert house.told == []
        for seconds in (900, 4100, 4000):
            await house.later(seconds)
            await house.until(lambda: is_deferred(house))

    house = House(answers(REFUSED), schedule=Schedule(first=HOUR, longest=HOUR))
    live(house, scene)
    assert [(told.action, told.status) for told in house.told] == [(Action.DELAYED, "4.4.7")]


@pytest.mark.parametrize(
    ("by", "passed", "keeps_time", "told"),
    [
        ("900;R", Passed.OUT, False, []),
        ("900;RT", Passed.ON, True, [Action.RELAYED]),
        ("900;N", Passed.ON, True, []),
        ("900;N", Passed.ON, False, [Action.RELAYED]),  # nobody would tell that it is late
        ("900;NT", Passed.IN, False, []),  # it has arrived
        ("-900;N", Passed.ON, True, []),
        ("-900;N", Passed.ON, False, []),  # RFC 2852 §4.1.4.2: only "before deliver-by-time"
    ],
)
def test_who_asked_for_a_trace_hears_of_each_step(
    by: str, passed: Passed, keeps_time: bool, told: list[Action]
) -> None:
    async def deliver(_: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return [Outcome(OK, "mx.y.example", passed, keeps_time)] * len(recipients)

    async def scene(house: House) -> None:
        await house.put(timed(by))
        await house.until(lambda: "b@y.example" not in house.recipients())

    house = House(deliver)
    live(house, scene)
    assert [one.action for one in house.told] == told
    assert all(one.is_traced for one in house.told)


def test_sender_hears_of_mail_that_was_late_before_anybody_took_it() -> None:
    """RFC 2852 §4.1.3 wants a report of what is late; no delay was told, so that it was relayed is."""

    async def late(_: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        house.now = NOW + 61
        return [Outcome(OK, "mx.y.example", Passed.OUT)] * len(recipients)

    async def scene(house: House) -> None:
        await house.put(timed("60;N"))
        await house.until(lambda: "b@y.example" not in house.recipients())

    house = House(late)
    live(house, scene)
    assert [one.action for one in house.told] == [Action.RELAYED]


def test_sender_who_knows_that_mail_is_late_hears_nothing_when_it_is_relayed() -> None:
    async def scene(house: House) -> None:
        await house.put(timed("60;N"))
        await house.until(lambda: house.recipients()["b@y.example"].state is State.DEFERRED)
        await house.later(60)
        await house.until(lambda: len(house.told) == 1)
        await house.later(2 * HOUR)
        await house.until(lambda: "b@y.example" not in house.recipients())

    replies = [REFUSED, REFUSED, OK]

    async def deliver(_: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return [Outcome(replies.pop(0), "mx.y.example", Passed.OUT)] * len(recipients)

    house = House(deliver, schedule=Schedule(first=HOUR, longest=HOUR))
    live(house, scene)
    assert [one.action for one in house.told] == [Action.DELAYED]


def test_age_counts_from_when_mail_was_released() -> None:
    async def scene(house: House) -> None:
        message, recipients = entry("b@y.example", at=NOW - 5 * DAY)
        await house.put((replace(message, parameters={"HOLDFOR": str(int(5 * DAY))}), recipients))
        await house.until(lambda: house.recipients()["b@y.example"].state is State.DEFERRED)

    house = House(answers(REFUSED))
    live(house, scene)
    assert len(house.agent.tried) == 1


def test_who_comes_back_is_tried_at_once() -> None:
    async def scene(house: House) -> None:
        for _ in range(3):
            house.runner._pacing.began("mx:y.example")
            house.runner._pacing.ended("mx:y.example", house.now, is_success=False)
        await house.put(entry("b@y.example", at=NOW))
        assert house.agent.tried == []
        house.runner.revive(["mx:y.example", "mx:unknown.example"])
        await house.until(lambda: "b@y.example" not in house.recipients())

    live(House(answers(OK)), scene)
