"""To the running daemon: SMTP through its Unix socket, by our own client session, blocking."""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Sequence
from typing import BinaryIO

from smtpmaild.sendmail import Letter
from smtpmaild.smtp.client import BodyDue, ClientSession, Closed, Event, Failed, Sent
from smtpmaild.smtp.mailing import Forward, Mailing
from smtpmaild.smtp.reply import Reply

_BLOCK = 64 * 1024
#: A daemon that does not answer for so long is taken for one that does not run.
PATIENCE = 60.0


class _Wire:
    """A session and its socket."""

    def __init__(self, sock: socket.socket, hostname: str) -> None:
        self.session = ClientSession(hostname)
        self._sock = sock

    def event(self) -> Event:
        while True:
            event = self.session.next_event()
            self._flush()  # what came may have been answered
            if event is not None:
                return event
            try:
                data = self._sock.recv(_BLOCK)
            except TimeoutError:
                self.session.timed_out()
            except OSError:
                self.session.connection_lost()
            else:
                self.session.receive_data(data)
                if not data:
                    self.session.connection_lost()

    def write(self, block: bytes) -> None:
        self.session.write(block)
        self._flush()

    def _flush(self) -> None:
        data = self.session.data_to_send()
        if not data:
            return
        try:
            self._sock.sendall(data)
        except TimeoutError:
            self.session.timed_out()
        except OSError:
            self._sock.settimeout(0)  # what it said before it went is still to be read; no more will come
            self._take_last_words()

    def _take_last_words(self) -> None:
        try:
            while data := self._sock.recv(_BLOCK):
                self.session.receive_data(data)
        except OSError:
            pass
        self.session.connection_lost()


def submit(
    path: str, letter: Letter, stream: BinaryIO, hostname: str, *, patience: float = PATIENCE
) -> Sequence[Reply]:
    """One reply for each recipient, in order. stream: the message with CRLF. OSError where nobody is there."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience)
        sock.connect(path)
        wire = _Wire(sock, hostname)
        event = wire.event()
        if isinstance(event, Failed):
            return [event.reply] * len(letter.recipients)
        replies = _send(wire, letter, stream, size)
        wire.session.quit()
        while not isinstance(wire.event(), Closed):
            pass
        return replies


def _send(wire: _Wire, letter: Letter, stream: BinaryIO, size: int) -> Sequence[Reply]:
    forwards = [Forward(recipient, letter.rcpt) for recipient in letter.recipients]
    body = "7BIT" if _is_ascii(stream) else "8BITMIME"
    wire.session.send(Mailing(letter.reverse_path, forwards, size, body, parameters=letter.mail))
    event = wire.event()
    if isinstance(event, BodyDue):
        while wire.session.wants_body and (block := stream.read(_BLOCK)):
            wire.write(block)
        wire.session.end_body()
        event = wire.event()
    assert isinstance(event, Sent), "a transaction ends in replies, whatever happens"
    return event.replies


def _is_ascii(stream: BinaryIO) -> bool:
    is_ascii = True
    while is_ascii and (block := stream.read(_BLOCK)):
        is_ascii = block.isascii()
    stream.seek(0)
    return is_ascii


def relay(path: str, source: int, target: int) -> None:
    """Let whoever is at the descriptors talk to the daemon, until it hangs up. OSError where nobody is there."""
    with socket.socket(socket.AF_UNIX) as sock, selectors.DefaultSelector() as selector:
        sock.connect(path)
        selector.register(sock, selectors.EVENT_READ)
        try:
            selector.register(source, selectors.EVENT_READ)
        except PermissionError:  # a regular file: it is always ready
            _pour(source, sock)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sock:
                    data = sock.recv(_BLOCK)
                    if not data:
                        return
                    _write_all(target, data)
                elif data := os.read(source, _BLOCK):
                    sock.sendall(data)
                else:
                    selector.unregister(source)
                    sock.shutdown(socket.SHUT_WR)


def _pour(source: int, sock: socket.socket) -> None:
    while data := os.read(source, _BLOCK):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def _write_all(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]
