"""The addresses: who may ask what, and what is answered. Over real HTTP, without a browser."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from browsing import Answer, ask, connect, served
from looking import Looked, Remembered, accepted
from queueing import entry

from smtpmaild.control.desk import Store
from smtpmaild.status.site import VERSIONED, Access
from smtpmaild.web.guard import Token
from smtpmaild.web.serving import WebServer

SECRET = "correct-horse-battery"
SHOWN = {"Authorization": f"Bearer {SECRET}"}
TOKEN = Token(SECRET)
FOLDER = Path(__file__).resolve().parent.parent.parent / "smtpmaild" / "status" / "page"
JSON = {"Content-Type": "application/json"}


def answers(looked: Looked, *requests: Callable[[WebServer], Awaitable[Answer]]) -> list[Answer]:
    async def main() -> list[Answer]:
        async with served(looked.site.app, streams=(looked.broadcast,)) as server:
            return [await request(server) for request in requests]

    return asyncio.run(main())


def got(looked: Looked, path: str, **more: Any) -> Answer:
    return answers(looked, lambda server: ask(server, path, **more))[0]


def statuses(looked: Looked, *paths: str) -> dict[str, int]:
    found = answers(looked, *[partial(ask, path=path) for path in paths])
    return {path: answer.status for path, answer in zip(paths, found, strict=True)}


def ordered(looked: Looked, verb: str, order: object, headers: dict[str, str] = SHOWN) -> Answer:
    body = order if isinstance(order, bytes) else json.dumps(order).encode()
    return got(looked, f"/api/queue/{verb}", method="POST", body=body, headers={**JSON, **headers})


def test_what_monitoring_asks(tmp_path: Path) -> None:
    looked = Looked(tmp_path)
    live, ready, metrics = answers(
        looked,
        lambda server: ask(server, "/livez"),
        lambda server: ask(server, "/readyz"),
        lambda server: ask(server, "/metrics"),
    )
    assert (live.status, live.body.splitlines()[0]) == (200, b"ok: attendant (lag 0.000 s)")
    assert (ready.status, ready.body.splitlines()[-1]) == (200, b"ok: room in the queue")
    assert b'smtpmaild_messages_total{listener="mx",result="accepted"} 120.0' in metrics.body


def test_a_store_that_cannot_be_written_is_not_ready(tmp_path: Path) -> None:
    store = Store("mail", "maildir", "/secret/place", lambda: "Read-only file system")
    answer = got(Looked(tmp_path, stores=[store]), "/readyz")
    assert (answer.status, b"failed: store mail (Read-only file system)" in answer.body) == (503, True)
    strangers = Looked(tmp_path / "again", stores=[store], access=Access(TOKEN, for_reading=True))
    assert got(strangers, "/readyz").body == b"failed: store mail\n"


@pytest.mark.parametrize(
    "path", ["/metrics", "/api/overview", "/api/minutes", "/api/messages", "/api/queue", "/api/events"]
)
def test_reading_may_want_the_token(tmp_path: Path, path: str) -> None:
    looked = Looked(tmp_path, access=Access(TOKEN, for_reading=True))
    without, wrong = answers(
        looked,
        lambda server: ask(server, path),
        lambda server: ask(server, path, headers={"Authorization": "Bearer correct-horse-batterz"}),
    )
    assert (without.status, wrong.status) == (401, 401)
    assert SECRET.encode() not in without.body + wrong.body
    if path != "/api/events":
        assert got(looked, path, headers=SHOWN).status == 200


def test_page_and_probes_never_want_it(tmp_path: Path) -> None:
    looked = Looked(tmp_path, access=Access(TOKEN, for_reading=True))
    paths = ("/", "/page/style.css", "/livez", "/readyz", "/api/session")
    assert statuses(looked, *paths) == dict.fromkeys(paths, 200)


@pytest.mark.parametrize(
    ("access", "headers", "may_read", "may_steer"),
    [
        (Access(), {}, True, False),
        (Access(), SHOWN, True, False),
        (Access(TOKEN), {}, True, False),
        (Access(TOKEN), SHOWN, True, True),
        (Access(TOKEN, for_reading=True), {}, False, False),
        (Access(TOKEN, for_reading=True), SHOWN, True, True),
    ],
)
def test_session(tmp_path: Path, access: Access, headers: dict[str, str], may_read: bool, may_steer: bool) -> None:
    answer = got(Looked(tmp_path, access=access), "/api/session", headers=headers)
    told = {"may_read": may_read, "may_steer": may_steer, "has_token": access.token is not None, "has_history": False}
    assert answer.json == told


def test_monitoring_alone_has_no_page(tmp_path: Path) -> None:
    looked = Looked(tmp_path, has_page=False)
    paths = ("/", "/page/main.js", "/api/overview", "/metrics")
    assert [*statuses(looked, *paths).values()] == [404, 404, 404, 200]


def test_overview(tmp_path: Path) -> None:
    found = got(Looked(tmp_path, entry("b@y.example")), "/api/overview").json
    assert found["hostname"] == "mx.example"
    assert found["refusals"][0] == ["RCPT", "550 5.1.1", "local_domains.example.com (smtp.yaml:9)", 30]
    assert found["networks"] == {"192.0.2.0/24": 3}
    assert found["totals"]["messages_accepted"] == 120
    assert "numbers" not in found
    assert [one["destination"] for one in found["destinations"]] == ["mx:y.example"]


def test_minutes(tmp_path: Path) -> None:
    looked = Looked(tmp_path)
    looked.minutes.note(60.0, looked.observer.metrics())
    found = got(looked, "/api/minutes").json
    assert (found["columns"][0], found["rows"]) == ("accepted", [[1, 0, 0, 0, 0, 0, 0, 0]])


def test_messages_and_the_life_of_one(tmp_path: Path) -> None:
    memory = Remembered(tmp_path)
    accepted(memory, "Q1")
    looked = Looked(tmp_path, memory=memory)
    assert [row["id"] for row in got(looked, "/api/messages?q=alice").json] == ["Q1"]
    assert [event["name"] for event in got(looked, "/api/messages/Q1").json] == ["message_accepted"]
    memory.is_there = False
    assert got(looked, "/api/messages").json == []


def test_without_a_history_there_are_no_messages(tmp_path: Path) -> None:
    looked = Looked(tmp_path)
    assert got(looked, "/api/messages").json == got(looked, "/api/messages/Q1").json == []


def test_what_waits_for_a_destination(tmp_path: Path) -> None:
    looked = Looked(tmp_path, entry("b@y.example", "c@z.example", queue_id="00000000000000000A"), entry("d@z.example"))
    of_one = got(looked, "/api/queue?destination=mx:y.example").json
    assert [[one["address"] for one in message["recipients"]] for message in of_one] == [["b@y.example"]]
    assert len(got(looked, "/api/queue").json) == 2
    looked.desk.queue = None
    assert got(looked, "/api/queue").json == []


def test_the_queue_is_steered_with_the_token(tmp_path: Path) -> None:
    looked = Looked(tmp_path, entry("b@y.example", queue_id="00000000000000000A"), access=Access(TOKEN))
    order = {"ids": ["00000000000000000A"], "why": "a test"}
    assert ordered(looked, "drop", order, {}).status == 401
    assert ordered(looked, "hold", order).json == {"changed": 1}
    assert ordered(looked, "drop", order).json == {"changed": 1}
    assert looked.desk.queue is not None
    assert [*looked.desk.queue.find({})] == []
    log = (tmp_path / "queue" / "changes.log").read_text()
    assert "status page" in log
    assert "a test" in log


def test_without_a_token_file_nobody_steers(tmp_path: Path) -> None:
    assert ordered(Looked(tmp_path), "drop", {"ids": ["A"], "why": ""}).status == 401


@pytest.mark.parametrize(
    ("verb", "order"),
    [
        ("bounce", {"ids": ["A"], "why": ""}),  # tells strangers: not from a page
        ("drop", {"ids": [], "why": ""}),  # would be all of them
        ("drop", {"ids": ["A"]}),
        ("drop", {"ids": "A", "why": ""}),
        ("drop", {"ids": [""], "why": ""}),
        ("drop", {"ids": ["A"], "why": 1}),
        ("drop", {"ids": ["A"] * 1001, "why": ""}),
        ("drop", [1]),
        ("drop", b"{"),
        ("drop", b"[" * 60_000),
    ],
)
def test_orders_that_are_none(tmp_path: Path, verb: str, order: object) -> None:
    assert ordered(Looked(tmp_path, access=Access(TOKEN)), verb, order).status == 400


def test_pages_elsewhere_cannot_order(tmp_path: Path) -> None:
    looked = Looked(tmp_path, access=Access(TOKEN))
    answer = ordered(looked, "drop", {"ids": ["A"], "why": ""}, {**SHOWN, "Origin": "http://evil.example"})
    assert answer.status == 403


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = Looked(tmp_path, access=Access(TOKEN))

    async def fail(*_: object) -> list[Any]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(looked.desk, "change", fail)
    answer = ordered(looked, "hold", {"ids": ["A"], "why": ""})
    assert (answer.status, answer.body) == (503, b"The queue cannot be changed: No space left on device\n")


def test_events_begin_with_the_overview(tmp_path: Path) -> None:
    looked = Looked(tmp_path)

    async def main() -> None:
        async with served(looked.site.app, streams=(looked.broadcast,)) as server:
            reader, writer = await connect(server)
            writer.write(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"event: overview\ndata: {" in await reader.readuntil(b"\n\n\r\n")
            await looked.feed.look()
            assert b"event: minute" in await reader.readuntil(b"event: minute")
            writer.close()

    asyncio.run(main())


def test_what_was_read_is_good_for_a_moment(tmp_path: Path) -> None:
    looked = Looked(tmp_path)

    async def main() -> None:
        first, second = await asyncio.gather(looked.observer.look(), looked.observer.look())
        assert first is second

    asyncio.run(main())


def test_vendored_files_are_what_they_were() -> None:
    sums = dict(line.split()[::-1] for line in (FOLDER / "vendor" / "SHA256SUMS").read_text().splitlines())
    for name, expected in sums.items():
        assert hashlib.sha256((FOLDER / "vendor" / name).read_bytes()).hexdigest() == expected
    assert {name for name in sums if not name.endswith("LICENSE.txt")} == {
        name.removeprefix("vendor/") for name in VERSIONED
    }


@pytest.mark.parametrize(
    "forbidden", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"]
)
def test_page_has_no_way_to_make_markup_of_text(forbidden: str) -> None:
    for path in [*FOLDER.glob("*.js"), FOLDER / "index.html", FOLDER / "style.css"]:
        assert forbidden not in path.read_text(), path.name


def test_page_needs_nothing_inline() -> None:
    page = (FOLDER / "index.html").read_text()
    assert "<style" not in page
    assert " style=" not in page
    assert " onclick" not in page
    assert "<script>" not in page
