"""Handing a message to a server on a Unix socket, good or bad."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from queueing import address
from scripted import Scripted, serving

from smtpmaild.sendmail import Letter
from smtpmaild.sendmail.submit import relay, submit
from smtpmaild.smtp.reply import Reply

TWO = Letter(address("a@x.example"), (address("b@y.example"), address("c@y.example")), {"RET": "HDRS"}, {})


def sent(
    folder: Path, server: Scripted, message: bytes = b"Subject: x\r\n\r\n.dot\r\n", patience: float = 10
) -> list[str]:
    with serving(folder, server) as path:
        replies: Sequence[Reply] = submit(path, TWO, io.BytesIO(message), "h.example", patience=patience)
    return [str(reply) for reply in replies]


def test_message_arrives(tmp_path: Path) -> None:
    server = Scripted()
    assert sent(tmp_path, server) == ["250 2.0.0 Ok"] * 2
    assert server.said == [
        "EHLO h.example",
        "MAIL FROM:<a@x.example> RET=HDRS",
        "RCPT TO:<b@y.example>",
        "RCPT TO:<c@y.example>",
        "DATA",
        "end of data",
        "QUIT",
    ]
    assert server.message == b"Subject: x\r\n\r\n..dot\r\n"


def test_large_message_of_eight_bits(tmp_path: Path) -> None:
    server, message = Scripted(), b"\r\n" + b"x" * 500_000 + b"\xff\r\n"
    assert sent(tmp_path, server, message) == ["250 2.0.0 Ok"] * 2
    assert server.said[1] == "MAIL FROM:<a@x.example> BODY=8BITMIME RET=HDRS"
    assert server.message == message


NO = b"550 5.7.1 No\r\n"


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ({"greeting": b"554 5.3.2 Closed\r\n"}, ["554 5.3.2 Closed"] * 2),
        ({"greeting": b"421 4.3.2 Later\r\n"}, ["421 4.3.2 Later"] * 2),
        ({"greeting": b""}, ["451 4.4.2 Lost the connection while waiting for the greeting"] * 2),
        ({"MAIL": NO}, ["550 5.7.1 No"] * 2),
        ({"RCPT TO:<b": NO}, ["550 5.7.1 No", "250 2.0.0 Ok"]),
        ({"RCPT": NO}, ["550 5.7.1 No"] * 2),
        ({"DATA": b"451 4.3.0 Later\r\n"}, ["451 4.3.0 Later"] * 2),
        ({"end": NO}, ["550 5.7.1 No"] * 2),
        ({"end": b""}, ["451 4.4.2 Lost the connection while waiting for the reply to the message"] * 2),
        ({"QUIT": b""}, ["250 2.0.0 Ok"] * 2),
    ],
)
def test_what_it_says_counts(tmp_path: Path, replies: Mapping[str, bytes], expected: list[str]) -> None:
    assert sent(tmp_path, Scripted(replies)) == expected


def test_silence_is_temporary(tmp_path: Path) -> None:
    said = sent(tmp_path, Scripted({"EHLO": None}), patience=0.2)
    assert said == ["451 4.4.2 Timed out while greeting the server"] * 2


class Breaking(Scripted):
    """Takes the beginning of a message, then does something else."""

    def serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as lines:
            sock.sendall(b"220 x\r\n")
            for line in lines:
                sock.sendall({b"EHLO": b"250 x\r\n", b"DATA": b"354 \r\n"}.get(line[:4], b"250 Ok\r\n"))
                if line.startswith(b"DATA"):
                    lines.read(1000)
                    self.then(sock)
                    return

    def then(self, sock: socket.socket) -> None:
        sock.sendall(b"452 4.3.1 Full\r\n")


def test_server_that_goes_in_mid_message(tmp_path: Path) -> None:
    said = sent(tmp_path, Breaking(), b"\r\n" + b"x\r\n" * 2_000_000)
    assert said in (["452 4.3.1 Full"] * 2, ["451 4.4.2 Lost the connection while sending the message"] * 2)


def test_server_that_takes_no_more(tmp_path: Path) -> None:
    """Its buffer is full and it does not read on."""
    done = threading.Event()

    class Stuck(Breaking):
        def then(self, sock: socket.socket) -> None:
            done.wait(10)

    with serving(tmp_path, Stuck()) as path:
        replies = submit(path, TWO, io.BytesIO(b"\r\n" + b"x\r\n" * 2_000_000), "h.example", patience=0.3)
        done.set()
    assert [str(reply) for reply in replies] == ["451 4.4.2 Timed out while sending the message"] * 2


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        submit(str(tmp_path / "none"), TWO, io.BytesIO(b""), "h.example")


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_input_talks_to_the_server(tmp_path: Path, kind: str) -> None:
    server = Scripted({"QUIT": b""})
    lines = b"EHLO me\r\nMAIL FROM:<>\r\nQUIT\r\n"
    (tmp_path / "in").write_bytes(lines)
    if kind == "file":
        source = os.open(tmp_path / "in", os.O_RDONLY)
    else:
        source, end = os.pipe()
        os.write(end, lines)
        os.close(end)
    target, write = os.pipe()
    with serving(tmp_path, server) as path:
        relay(path, source, write)
    os.close(write)
    os.close(source)
    with open(target, "rb") as said:
        assert said.read().splitlines()[0] == b"220 mx.example"
    assert server.said == ["EHLO me", "MAIL FROM:<>", "QUIT"]
