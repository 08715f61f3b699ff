"""The control socket: our client and a hand-made one against it, in one loop; the blocking side runs in a thread."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import select
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attending import Staged, desk_for, lines, queue_in
from queueing import NOW
from receiving import RecordingLog

from smtpmaild.control import client, desk, serving
from smtpmaild.control.client import ControlError, NotRunningError, answer, ask, is_running
from smtpmaild.control.desk import Desk
from smtpmaild.control.serving import ControlSocket
from smtpmaild.control.verbs import VERBS, Answer, Done, Request, Verb
from smtpmaild.queue.shards import account_name
from smtpmaild.server.house import Reload

OLD = "000000000000000AAA"


class Served:
    control: ControlSocket

    def __init__(self, path: str, log: RecordingLog) -> None:
        self.path = path
        self.log = log

    async def say(self, data: bytes, *, shut: bool = True) -> list[dict[str, Any]]:
        """The lines that come back for these bytes."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            writer.write(data)
            if shut:
                writer.write_eof()
            return lines(await reader.read())
        finally:
            writer.close()

    async def error(self, data: bytes) -> tuple[str, int]:
        (said,) = await self.say(data)
        return said["error"], said["status"]

    async def ask(self, verb: str, /, **arguments: Any) -> list[dict[str, Any]]:
        return await asyncio.to_thread(lambda: [*ask(self.path, verb, arguments)])

    async def answer(self, verb: str, /, body: bytes | None = None, **arguments: Any) -> dict[str, Any]:
        source = io.BytesIO(body) if body is not None else None
        return await asyncio.to_thread(answer, self.path, verb, arguments, source)


@asynccontextmanager
async def serving_desk(folder: Path, desk: Desk | None = None) -> AsyncIterator[Served]:
    path, log = str(folder / "control.sock"), RecordingLog()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        control = ControlSocket(desk or desk_for(Staged(), queue_in(folder / "queue"), log), [listening], log)
        control.start(asyncio.get_running_loop())
        try:
            served = Served(path, log)
            served.control = control
            yield served
        finally:
            await control.stop()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 10))


def test_status(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path) as served:
            found = await served.answer("status")
            assert (found["hostname"], found["wanted"], len(found["workers"])) == ("mx.example", 2, 2)
            (said,) = await served.say(b'{"verb":"status"}\n', shut=False)
            assert said["done"]["hostname"] == "mx.example"
            for verb in ("stores", "certificates", "destinations"):
                assert isinstance(await served.ask(verb), list)

    run(work())


def test_socket_stays_for_the_attendant_that_follows(tmp_path: Path) -> None:
    """Loops of Python 3.13 and later remove the file when a server of theirs is closed."""

    async def work() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "control.sock"))
            listening.listen()
            for _ in range(2):
                log = RecordingLog()
                control = ControlSocket(desk_for(Staged(), log=log), [listening], log)
                control.start(asyncio.get_running_loop())
                assert (await Served(str(tmp_path / "control.sock"), log).answer("status"))["hostname"] == "mx.example"
                await control.stop()

    run(work())


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"nonsense\n", 'a request is a line of JSON: {"verb": "status"}'),
        (b"[]\n", "there is no verb None; there are: status, "),
        (b'{"verb": ["x"]}\n', "there is no verb ['x']"),
        (b'{"verb": "dance"}\n', "there is no verb 'dance'; there are: status, "),
        (b'{"verb": "status", "arguments": []}\n', "arguments are a mapping"),
        (b'{"verb": "status", "arguments": {"x": 1}}\n', "status: there is no argument 'x'; it takes none"),
        (b'{"verb": "drain", "arguments": {"now": 1}}\n', "drain: now is not a bool"),
        (b'{"verb": "queue.list", "arguments": {"ids": [1]}}\n', "queue.list: ids is not a list"),
        (b'{"verb": "queue.list", "arguments": {"ids": "x"}}\n', "queue.list: ids is not a list"),
        (b'{"verb": "queue.list", "arguments": {"limit": true}}\n', "queue.list: limit is not a int"),
        (b'{"verb": "queue.list", "arguments": {"received_before": "x"}}\n', "queue.list: received_before is not a fl"),
        (b'{"verb": "queue.list", "arguments": {"states": ["x"]}}\n', "states are queued, "),
        (b'{"verb": "queue.count"}\n', "verb is one of retry, "),
        (b'{"verb": "queue.import"}\n', "queue.import: size is missing"),
        (b'{"verb": "queue.import", "arguments": {"size": 5}}\nabc', "the message ended too early"),
        (b"[" * 100_000 + b"\n", "a request is not nested so deep"),
        (b"x" * 300_000, "a request is a line of at most 262144 bytes"),
    ],
)
def test_requests_that_are_none(tmp_path: Path, request_: bytes, error: str) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path) as served:
            text, status = await served.error(request_)
            assert text.startswith(error)
            assert status == 64

    run(work())


def test_queue(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path) as served:
            assert [row["queue_id"] for row in await served.ask("queue.list", domain="y.example")] == [OLD]
            assert (await served.answer("queue.show", id=OLD))["header"] == "Subject: x"
            assert {row["destination"] for row in await served.ask("queue.stats")} == {"mx:y.example", "mx:z.example"}
            assert await served.answer("queue.count", verb="hold", states=["queued"]) == {"recipients": 2}
            assert await served.answer("queue.count", verb="release", states=["queued"]) == {"recipients": 0}
            (changed,) = await served.ask("queue.hold", ids=[OLD], why="look at it")
            assert changed == {"queue_id": OLD, "sender": "a@x.example", "recipient": "b@y.example", "was": "queued"}
            (body,) = await served.ask("queue.export", id=OLD)
            assert body["text"] == "Subject: x\r\n\r\nHello\r\n"
            with pytest.raises(ControlError, match="there is no message NONE in the queue") as absent:
                await served.ask("queue.show", id="NONE")
            assert absent.value.status == 66
            (tmp_path / "queue" / "queue-0.sqlite").write_bytes(b"no database" * 100)
            with pytest.raises(ControlError, match=r"queue-0.sqlite: file is not a database") as broken:
                await served.ask("queue.list")
            assert broken.value.status == 74
        written = json.loads((tmp_path / "queue" / "changes.log").read_text())
        assert (written["user"], written["uid"], written["verb"]) == (account_name(os.getuid()), os.getuid(), "hold")
        assert written["why"] == "look at it"

    run(work())


def test_import_is_taken_in_pieces(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path) as served:
            body = b"Subject: large\r\n\r\n" + b"x" * 1_000_000
            record = json.dumps({"recipients": [{"address": "new@y.example"}]})
            done = await served.answer("queue.import", body, record=record, size=len(body), why="moved")
            (row,) = await served.ask("queue.list", ids=[done["queue_id"]])
            assert (row["size"], row["recipients"][0]["route"]) == (len(body), "relay:mx")
            pieces = await served.ask("queue.export", id=done["queue_id"])
            assert "".join(piece["text"] for piece in pieces).encode() == body
            with pytest.raises(ControlError, match="there are no recipients") as refused:
                await served.answer("queue.import", b"x", record="{}", size=1)
            assert refused.value.status == 65

    run(work())


def test_import_of_a_file_that_cannot_be_read_to_its_end(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 0:
                raise OSError(errno.EIO, "Input/output error", "old.eml")
            return super().read(size)

    async def work() -> None:
        async with serving_desk(tmp_path) as served:
            record = json.dumps({"recipients": [{"address": "new@y.example"}]})
            arguments = {"record": record, "size": 200_000, "why": "moved"}
            with pytest.raises(OSError, match=r"Input/output error: 'old.eml'"):
                await asyncio.to_thread(answer, served.path, "queue.import", arguments, Broken(b"x" * 200_000))
            assert [row["queue_id"] for row in await served.ask("queue.list", domain="y.example")] == [OLD]

    run(work())


def test_no_queue(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving_desk(tmp_path, desk_for(Staged())) as served:
            for verb in ("queue.list", "queue.drop"):
                with pytest.raises(ControlError, match="no mail travels on here") as refused:
                    await served.ask(verb)
                assert refused.value.status == 69

    run(work())


def test_reload_and_drain(tmp_path: Path) -> None:
    async def work() -> None:
        outcomes = iter(
            (
                Reload(0, NOW, is_good=True, changed=["workers: changed"], is_done=True),
                Reload(0, NOW, is_good=False, cause="smtp.yaml:3:1: no"),
            )
        )

        def obey(staged: Staged, order: Mapping[str, Any]) -> None:
            if order["order"] == "reload":
                staged.reloaded(replace(next(outcomes), number=order["number"]))
            else:
                staged.state(is_stopping=True)

        async with serving_desk(tmp_path, desk_for(Staged(obey))) as served:
            assert (await served.answer("reload"))["changed"] == ["workers: changed"]
            with pytest.raises(ControlError, match=r"smtp\.yaml:3:1: no") as refused:
                await served.answer("reload")
            assert refused.value.status == 78
            assert await served.ask("drain", now=True) == [{"workers": 0, "sessions": 0}]

    run(work())


def test_what_came_of_the_order_of_another_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attendant that a reload has replaced ordered it; how that ends is told to the next one, too."""

    async def work() -> None:
        monkeypatch.setattr("smtpmaild.control.desk.RELOAD_PATIENCE", 0.01)
        before: list[int] = []
        async with serving_desk(tmp_path, desk_for(Staged(lambda _, order: before.append(order["number"])))) as served:
            with pytest.raises(ControlError):
                await served.answer("reload")

        def obey(staged: Staged, order: Mapping[str, Any]) -> None:
            staged.reloaded(Reload(before[0], NOW, is_good=True, is_done=True))

        (tmp_path / "after").mkdir()
        async with serving_desk(tmp_path / "after", desk_for(Staged(obey))) as served:
            with pytest.raises(ControlError, match="the new workers do not serve yet"):
                await served.answer("reload")

    run(work())


def test_reload_whose_workers_never_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr("smtpmaild.control.desk.RELOAD_PATIENCE", 0.01)
        async with serving_desk(tmp_path, desk_for(Staged())) as served:
            with pytest.raises(ControlError, match="the new workers do not serve yet") as late:
                await served.answer("reload")
            assert late.value.status == 75

    run(work())


def a_verb(monkeypatch: pytest.MonkeyPatch, function: Callable[[Request], Answer]) -> None:
    monkeypatch.setattr(serving, "VERBS", {**VERBS, "test": Verb(function)})


def test_mistake_of_ours_is_told_and_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async def fail(request: Request) -> Answer:
            yield {"first": 1}
            raise RuntimeError("a bug")

        a_verb(monkeypatch, fail)
        async with serving_desk(tmp_path) as served:
            row, error = await served.say(b'{"verb": "test"}\n')
            assert (row, error["status"]) == ({"row": {"first": 1}}, 70)
            assert "a bug" in served.log.only("control_failed")["traceback"]
            assert (await served.answer("status"))["wanted"] == 2

    run(work())


def test_client_that_goes_away_ends_what_it_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        has_ended, monkey = asyncio.Event(), {"begun": asyncio.Event()}

        async def follow(request: Request) -> Answer:
            try:
                yield {"first": 1}
                monkey["begun"].set()
                await asyncio.sleep(3600)
                yield Done({})
            finally:
                has_ended.set()

        a_verb(monkeypatch, follow)
        monkeypatch.setattr(serving, "_LOOK_SECONDS", 0.01)
        async with serving_desk(tmp_path) as served:
            reader, writer = await asyncio.open_unix_connection(served.path)
            writer.write(b'{"verb": "test"}\n')
            writer.write_eof()  # it still reads
            assert await reader.readline()
            await monkey["begun"].wait()
            await asyncio.sleep(0.05)
            assert not has_ended.is_set()
            writer.close()
            await has_ended.wait()

    run(work())


@pytest.mark.parametrize("rows", [250, 3000], ids=["what it can be rid of", "more than that"])
def test_client_that_does_not_read_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    async def much(request: Request) -> Answer:
        for _ in range(rows):
            yield {"text": "x" * 1000}
        yield Done({})

    a_verb(monkeypatch, much)
    monkeypatch.setattr(serving, "_IDLE_SECONDS", 0.2)

    async def work() -> None:
        async with serving_desk(tmp_path) as served:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(served.path)
                sock.sendall(b'{"verb": "test"}\n')
                poll = select.poll()
                poll.register(sock, 0)
                while not any(event & select.POLLHUP for _, event in poll.poll(0)):
                    await asyncio.sleep(0.02)

    run(work())


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(serving, "_REQUEST_SECONDS", 0.5)
        monkeypatch.setattr(serving, "_CONNECTIONS", 2)
        async with serving_desk(tmp_path) as served:
            silent = [asyncio.create_task(served.say(b"", shut=False)) for _ in range(2)]
            await asyncio.sleep(0.01)
            (refused,) = await served.say(b"", shut=False)
            assert (refused["error"], refused["status"]) == ("too many commands at a time; try again", 75)
            for task in silent:
                assert (await task)[0]["error"] == "no request came in time"
            assert await served.say(b"") == []

    run(work())


# The client's end


def test_nobody_is_there(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with pytest.raises(NotRunningError, match=f"nobody listens on {path}"):
        answer(path, "status")
    assert not is_running(path)
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(path)
    assert not is_running(path)
    with socket.socket(socket.AF_UNIX) as listening:
        os.unlink(path)
        listening.bind(path)
        listening.listen()
        assert is_running(path)


@pytest.mark.parametrize(
    ("number", "status", "text"),
    [(errno.EACCES, 77, "you may not use /x: become root"), (errno.EPROTOTYPE, 69, "/x: Protocol wrong type")],
)
def test_socket_that_does_not_let_us_in(number: int, status: int, text: str) -> None:
    error = client._explained("/x", OSError(number, os.strerror(number)))
    assert error.status == status
    assert str(error).startswith(text)


@pytest.mark.parametrize(
    ("said", "body"), [(b"", b"x" * 10**7), (b"", b""), (b'{"row": {}}\n', b""), (b'{"row": {}}\n{"done"', b"")]
)
def test_daemon_that_ends_before_it_answers(tmp_path: Path, said: bytes, body: bytes) -> None:
    async def work() -> None:
        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(said)
            writer.close()

        path = str(tmp_path / "control.sock")
        server = await asyncio.start_unix_server(hang_up, path)
        with pytest.raises(ControlError, match="ended before it had answered; try again"):
            await asyncio.to_thread(answer, path, "queue.import", {"size": len(body)}, io.BytesIO(body))
        server.close()

    run(work())


def ended(*answers: bytes, body: bytes = b"", path: str) -> ControlError:
    """How `status` ends at a daemon that says this and hangs then."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        accepted: list[socket.socket] = []

        def serve() -> None:
            accepted.append(listening.accept()[0])
            accepted[0].sendall(b"".join(answers))

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ControlError) as found:
            answer(path, "status", body=io.BytesIO(body))
        thread.join()
        accepted[0].close()
        return found.value


@pytest.mark.parametrize("answers", [(), (b'{"row": {}}\n', b'{"row"')], ids=["at once", "amid its answer"])
def test_daemon_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: Sequence[bytes]) -> None:
    monkeypatch.setattr(client, "_PATIENCE", 0.2)
    path = str(tmp_path / "control.sock")
    error = ended(*answers, path=path)
    assert error.status == 75
    assert str(error) == f"smtpmaild says nothing at {path}, for 0.2 s now; what was asked for may yet be done"


def test_daemon_that_hangs_before_it_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PATIENCE", 0.2)
    monkeypatch.setattr(client, "_lines", lambda _: pytest.fail("it waits for an answer to what was not sent"))
    error = ended(body=b"x" * 10**7, path=str(tmp_path / "control.sock"))
    assert (error.status, "says nothing" in str(error)) == (75, True)


def test_daemon_that_accepts_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with ExitStack() as waiting:
        listening = waiting.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(path)
        listening.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                one = waiting.enter_context(socket.socket(socket.AF_UNIX))
                one.setblocking(False)
                one.connect(path)
        for ask_it in (is_running, lambda path: answer(path, "status")):
            with pytest.raises(ControlError, match=f"^smtpmaild does not answer at {path}; try again$") as refused:
                ask_it(path)
            assert refused.value.status == 75


def test_who_asks_waits_longer_than_the_daemon_does() -> None:
    assert client.patience("reload") > desk.RELOAD_PATIENCE
    assert client.patience("queue.drop") > client.patience("status")
