"""Joins the protocol and the receiver of one session: bytes in, decisions, bytes out.

Whoever has a connection drives it: the daemon's `server/connection.py`, a program through `embedding/`, a test with
two lists of bytes. It knows no socket and no loop; what must wait is handed to `spawn`, and `changed` is called when
there is something new to send, or to stop reading for.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

from smtpmaild import queue_id
from smtpmaild.auth import ChannelBinding
from smtpmaild.envelope import Peer, Tls
from smtpmaild.receiver import Receiver
from smtpmaild.service import WAIT, Result, Service, Wait
from smtpmaild.smtp import reply as replies
from smtpmaild.smtp.events import Connected, EndOfData, Event
from smtpmaild.smtp.extension import Security
from smtpmaild.smtp.reply import Reply
from smtpmaild.smtp.session import ServerSession

#: The reason of a session whose peer went away without a word.
CONNECTION_LOST: Final = "connection lost"
#: Runs a coroutine to its end, some time; in the daemon loop.create_task.
Spawn = Callable[[Coroutine[object, object, None]], object]


class Dialogue:
    """One session. All methods are called in one thread; none blocks, none raises for what a peer sent.

    changed: called after everything that may have produced output, closed the session or made it busy.
    """

    __slots__ = ("_changed", "_event", "_spawn", "is_busy", "is_stopped", "protocol", "receiver")

    def __init__(self, service: Service, peer: Peer, spawn: Spawn, changed: Callable[[], None]) -> None:
        self.protocol = ServerSession(service.dialect)
        self.receiver = Receiver(service, peer, queue_id.make(), self.resume, time.time())
        self.is_busy = False  # a decision is on its way: read no more input until it is there
        self.is_stopped = False
        self._spawn = spawn
        self._changed = changed
        self._event: Event = Connected(service.dialect.banner)
        service.metrics.sessions_opened += 1
        service.metrics.sessions_open += 1

    def change(self, service: Service) -> None:
        """Go on with this service: a program changed its callbacks, verbs or extensions in mid-session."""
        self.protocol.speak(service.dialect)
        self.receiver.change(service)

    def receive_data(self, data: bytes) -> None:
        """Take input and go as far as it leads."""
        self.protocol.receive_data(data)
        self.advance()

    def advance(self) -> None:
        """Decide everything that can be decided now. The first call sends the banner."""
        protocol, receiver = self.protocol, self.receiver
        while not self.is_busy:
            event = protocol.next_event()
            if event is None:
                break
            self._event = event
            try:
                self._settle(receiver.handle(event))
            except Exception:
                self._failed()
        self._changed()

    @property
    def is_upgrading(self) -> bool:
        """220 was said to STARTTLS: when that is sent, begin TLS, then call secure()."""
        return self.protocol.is_upgrading

    def secure(self, tls: Tls, binding: ChannelBinding | None) -> None:
        """TLS stands: everything that was said before is forgotten. What follows comes to receive_data.

        Where TLS came first this is called before the first advance(). binding: what SASL can bind to.
        """
        self.protocol.restart(Security.TLS if binding is None else Security.BOUND)
        waiting = self.receiver.secure(tls, binding)
        if waiting is not None:
            self._spawn(_finish(waiting))

    def resume(self, result: Result) -> None:
        """What the receiver waited for is there."""
        self.is_busy = False
        if self.is_stopped:
            return
        try:
            self._settle(result)
        except Exception:
            self._failed()
        self.advance()

    @property
    def is_storing(self) -> bool:
        """The end of a message was seen, its reply is not there yet."""
        return self.is_busy and self._event.__class__ is EndOfData

    def _settle(self, result: Result | Awaitable[Result]) -> None:
        if result.__class__ is Reply or isinstance(result, Reply):
            self.protocol.reply(self.receiver.shaped(self._event, result), effect=self.receiver.effect)
            if self.receiver.is_over:
                self._end(result)
        elif result is WAIT:
            self.is_busy = True
        elif isinstance(result, tuple):
            self.protocol.reply_each([self.receiver.shaped(self._event, reply) for reply in result])
            if self.receiver.is_over:
                self._end(result[-1])
        elif result is not None and not isinstance(result, Wait):
            self.is_busy = True
            self._spawn(self._await(result))

    def _end(self, last: Reply) -> None:
        self.protocol.close()
        self.protocol.farewell = last

    async def _await(self, awaitable: Awaitable[Result]) -> None:
        try:
            result = await awaitable
        except Exception:
            self._failed()
            self._wake()
        except BaseException:
            # Cancelled: the loop ends, or something that a callback waited for. Nothing else would wake this session.
            self.protocol.close(replies.INTERNAL_ERROR)
            self._wake()
            raise
        else:
            self.resume(result)

    def _wake(self) -> None:
        self.is_busy = False
        self._changed()

    def _failed(self) -> None:
        """A bug of ours: the traceback for us, 421 for the peer, and the daemon serves on."""
        session = self.receiver.session
        self.receiver.service.log.exception("session_failed", session_id=session.session_id, peer=str(session.peer))
        self.protocol.close(replies.INTERNAL_ERROR)

    def time_out(self) -> None:
        """The peer was silent, or slow, for too long."""
        result = self.receiver.timed_out()
        if isinstance(result, Awaitable):
            self.is_busy = True
            self._spawn(self._time_out_later(result))
        else:
            self._end_by_timeout(result)

    async def _time_out_later(self, awaitable: Awaitable[Result]) -> None:
        result = await awaitable
        self.is_busy = False
        self._end_by_timeout(result)

    def _end_by_timeout(self, result: Result) -> None:
        try:
            self.protocol.close(self.receiver.filtered("timeout", result) if isinstance(result, Reply) else None)
        except Exception:
            self._failed()
        self._changed()

    def refuse(self, reply: Reply) -> None:
        """End the session from our side with this reply, here and now: a message under way is forgotten."""
        self.protocol.close(reply)
        self._changed()
        self.stop("")

    def stop(self, reason: str) -> None:
        """The connection is gone. reason: for the log, where the session did not end by a reply of ours."""
        if self.is_stopped:
            return
        self.is_stopped = True
        farewell = self.protocol.farewell
        if farewell is not None:
            reason = "" if farewell.is_positive else str(farewell)
        self.receiver.service.metrics.sessions_open -= 1
        self.protocol.close()
        waiting = self.receiver.stop(reason, self.protocol.refusals)
        if waiting is not None:
            self._spawn(_finish(waiting))
        # Who drives us holds us, and we would hold it: such circles wait for the collector, each with the last piece
        # of a body, and those that lived long wait for hours.
        self._event = _OVER
        self._changed = self._spawn = _nobody


#: In place of the last event once a session is over.
_OVER: Final = Connected(replies.INTERNAL_ERROR)


def _nobody(*_: object) -> None:
    """In place of the driver once a session is over: it has let go of us, and we of it."""


async def _finish(awaitable: Awaitable[object]) -> None:
    await awaitable
