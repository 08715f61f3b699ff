"""What the desk says of a daemon, and what becomes of orders: with a house that the test is the supervisor of."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attending import Staged, desk_for, post, queue_in
from queueing import NOW
from receiving import RecordingLog

from smtpmaild.control.desk import Store
from smtpmaild.control.queue_files import QueueFiles
from smtpmaild.control.rates import Rates
from smtpmaild.queue.shards import Who
from smtpmaild.server.house import House, Reload, State, state_news
from smtpmaild.server.pulse import Pulse
from smtpmaild.server.sums import Ledger, Sums

ROOT = Who("root", 0)


def test_workers_and_their_pulse() -> None:
    async def work() -> None:
        staged = Staged()
        desk = desk_for(staged)
        staged.pulse(1, lag=0.5, sessions={"mx": 3}, memory=9, networks={"192.0.2.0/24": 3})
        staged.pulse(2, at=NOW - 60, sessions={"mx": 1, "old": 2}, networks={"192.0.2.0/24": 1, "2001:db8::/56": 9})
        staged.pulse(7)  # nobody who works here
        staged.house.hear_pulse(b"no pulse")
        first, second = desk.workers()
        assert (first["pid"], first["state"], first["lag"], first["sessions"]) == (101, "serving", 0.5, 3)
        assert second["state"] == "silent"
        assert [(one["name"], one["sessions"]) for one in desk.listeners()] == [("mx", 4), ("old", 2)]
        assert list(desk.networks().items()) == [("2001:db8::/56", 9), ("192.0.2.0/24", 4)]
        assert desk.is_ready() == ""
        staged.state(post(1, is_retiring=True), post(3, is_ready=False))
        assert [one["state"] for one in desk.workers()] == ["starting", "retiring"]
        assert desk.is_ready() == "no worker accepts connections"
        staged.state(post(1), is_stopping=True)
        assert [one["state"] for one in desk.workers()] == ["draining"]
        assert desk.is_ready() == "draining"

    asyncio.run(work())


def test_numbers_keep_what_ended_workers_counted() -> None:
    async def work() -> None:
        staged = Staged()
        desk = desk_for(staged)
        staged.pulse(1, counters={"messages_accepted": 5})
        staged.pulse(2, counters={"messages_accepted": 7})
        staged.state(post(2), post(3))
        staged.house.save()
        assert desk.numbers() == {"messages_accepted": 12}
        staged.pulse(3, counters={"messages_accepted": 1})
        assert desk.numbers() == {"messages_accepted": 13}

    asyncio.run(work())


def test_last_pulse_is_heard_before_a_worker_counts_as_ended() -> None:
    staged = Staged()
    waiting = [lambda: staged.pulse(1, counters={"a": 9})]
    staged.house._drain_pulses = lambda: waiting.pop()() if waiting else None
    staged.state(post(2))
    staged.house.save()
    assert staged.house.numbers() == {"a": 9}


def test_samples_are_taken(tmp_path: Path) -> None:
    async def work() -> None:
        desk = desk_for(Staged())
        desk.start(asyncio.get_running_loop())
        assert desk._timer is not None
        await desk.stop()
        assert desk._timer.cancelled()
        await desk_for(Staged()).stop()  # that never started

    asyncio.run(work())


def test_rates() -> None:
    rates = Rates()
    assert rates.per_second(60) == {}
    for step in range(100):
        rates.note(5.0 * step, {"a": 10 * step, "b": [1], "c": {"x": 1}} | ({"late": 5} if step == 99 else {}))
    assert rates.per_second(60) == {"a": 2.0, "late": 5 / 60}
    assert rates.per_second(0.1) == {}
    assert len(rates._samples) < 70


def test_stores_and_certificates(tmp_path: Path) -> None:
    async def work() -> None:
        stores = [
            Store("mail", "maildir", str(tmp_path / "not" / "yet"), lambda: None),
            Store("trash", "discard", "", lambda: None),
            Store("bad", "spool", "/dev/null/x", lambda: "/dev/null: Not a directory"),
            Store("strange", "spool", "/proc/self/fd/999999\0", lambda: None),
        ]
        desk = desk_for(Staged(), stores=stores[:3], certificates=lambda: [(("mx.example",), NOW, "/mx.pem")])
        mail, trash, bad = await desk.stores()
        assert mail["free"] > 0 and mail["problem"] is None and trash["total"] > 0
        assert bad["problem"] == "/dev/null: Not a directory"
        assert await desk.certificates() == [{"names": ["mx.example"], "not_after": NOW, "path": "/mx.pem"}]

    asyncio.run(work())


def test_what_was_said_and_who_is_here_may_be_without_names(tmp_path: Path) -> None:
    async def work() -> None:
        staged = Staged()
        desk = desk_for(staged, queue_in(tmp_path))
        assert isinstance(desk.queue, QueueFiles)
        before = desk.waiting("", 9)
        desk.without_names = lambda text, about: f"({text} of {about})"
        staged.pulse(1, networks={"192.0.2.0/24": 3})
        assert desk.networks() == {"(192.0.2.0/24 of )": 3}
        told = await desk.destinations()
        assert {one["last"][:1] for one in told} == {"("}
        assert not any("last_to" in one for one in told)
        (message, *_) = desk.waiting("", 9)
        assert message["reverse_path"] == f"({before[0]['reverse_path']} of )"
        address = before[0]["recipients"][0]["address"]
        assert message["recipients"][0]["reply"] == f"({before[0]['recipients'][0]['reply']} of {address})"
        assert message["size"] == before[0]["size"]

    asyncio.run(work())


def test_destinations_are_what_waits_and_what_runners_know(tmp_path: Path) -> None:
    async def work() -> None:
        staged = Staged()
        desk = desk_for(staged, queue_in(tmp_path))
        staged.pulse(1, destinations={"mx:y.example": {"in_flight": 1, "window": 2, "dead_until": 0.0}})
        staged.pulse(
            2,
            destinations={
                "mx:y.example": {"in_flight": 1, "window": 1, "dead_until": 9.0},
                "mx:elsewhere.example": {"in_flight": 3, "window": 4, "dead_until": 0.0},
            },
        )
        found = {one["destination"]: one for one in await desk.destinations()}
        first = found["mx:y.example"]
        assert (first["messages"], first["in_flight"], first["window"], first["dead_until"]) == (1, 2, 3, 9.0)
        assert (found["mx:z.example"]["messages"], found["mx:z.example"]["in_flight"]) == (1, 0)
        assert (found["mx:elsewhere.example"]["messages"], found["mx:elsewhere.example"]["in_flight"]) == (0, 3)
        summary = await desk.summary()
        assert summary["queue"] == {
            "messages": 2,
            "size": summary["queue"]["size"],
            "destinations": 2,
            "dead": 1,
            "in_flight": 5,
            "oldest": NOW,
        }
        assert len(await desk.change("hold", {"ids": ["000000000000000AAA"]}, ROOT, "why")) == 1
        found = {one["destination"]: one for one in await desk.destinations()}
        assert found["mx:y.example"]["states"] == {"held": 1}

    asyncio.run(work())


def test_daemon_without_a_queue() -> None:
    async def work() -> None:
        desk = desk_for(Staged())
        assert (await desk.summary())["queue"] is None
        assert await desk.destinations() == []
        assert await desk.change("hold", {}, ROOT, "") == []

    asyncio.run(work())


def test_reload_is_told_as_it_goes_on() -> None:
    async def work() -> None:
        log = RecordingLog()

        def obey(staged: Staged, order: Mapping[str, Any]) -> None:
            reload = Reload(order["number"], NOW, is_good=True, changed=["listeners: mx changed"])
            loop = asyncio.get_running_loop()
            staged.reloaded(reload)
            loop.call_later(0.01, staged.reloaded, Reload(0, NOW, is_good=True))  # by a signal: not ours
            loop.call_later(0.02, staged.reloaded, Reload(order["number"], NOW, is_good=True, is_done=True))

        desk = desk_for(Staged(obey), log=log)
        steps = [reload.is_done async for reload in desk.reload(ROOT)]
        assert steps == [False, True]
        assert log.named("reload_ordered") == [{"user": "root"}]

    asyncio.run(work())


def test_reload_that_is_refused_or_never_answered() -> None:
    async def work() -> None:
        refused = Staged(
            lambda staged, order: staged.reloaded(Reload(order["number"], NOW, False, "smtp.yaml:1:1: no"))
        )
        assert [one.cause async for one in desk_for(refused).reload(ROOT)] == ["smtp.yaml:1:1: no"]
        assert [one async for one in Staged().house.reload(0.01)] == []

    asyncio.run(work())


def test_drain_is_told_as_it_goes_on() -> None:
    async def work() -> None:
        def obey(staged: Staged, order: Mapping[str, Any]) -> None:
            assert order == {"order": "drain", "now": True}
            loop = asyncio.get_running_loop()
            loop.call_later(0.01, lambda: staged.state(post(2), is_stopping=True))
            loop.call_later(0.02, lambda: staged.state(is_stopping=True))

        staged = Staged(obey)
        staged.pulse(2, sessions={"mx": 4})
        rows = [row async for row in desk_for(staged).drain(ROOT, now=True)]
        assert rows[-1] == {"workers": 0, "sessions": 0}
        assert rows[:-1] in ([], [{"workers": 1, "sessions": 4}])  # both changes may come before the first look

    asyncio.run(work())


def test_last_pulse_that_came_before_the_news_is_counted() -> None:
    ledger = Ledger(page_size=10_000)
    before = House(lambda _: None, Sums(ledger))
    before.hear_news(state_news(State(posts=[post(1)])))
    before.hear_pulse(Pulse(1, 101, NOW, NOW, counters={"messages_accepted": 2}).to_bytes())
    before.save()
    # The worker has ended, and so has the attendant; the next one reads what the worker said last.
    after = House(lambda _: None, Sums(ledger))
    after.hear_pulse(Pulse(1, 101, NOW, NOW + 1, counters={"messages_accepted": 3}).to_bytes())
    after.hear_news(state_news(State(posts=[post(2)])))
    after.hear_pulse(Pulse(7, 107, NOW, NOW + 1, counters={"messages_accepted": 100}).to_bytes())  # of nobody
    after.save()
    assert after.numbers() == {"messages_accepted": 3}
