"""The attendant: the process that answers the operator. The control socket and the status page live in it.

A child of the supervisor, beside the workers and with their rights; the path of a message never waits for it. It is
replaced when it dies, and by each reload: the one before accepts no more and ends when its answers are given. When the
daemon is told to stop, it stays until the workers have ended, and can say so.

| signal             | what happens                                                     |
|--------------------|------------------------------------------------------------------|
| SIGTERM            | the daemon ends: give the last answers, then exit                |
| SIGQUIT            | exit                                                             |
| SIGUSR2            | retire: another attendant takes over; give the last answers      |
| SIGINT, SIGHUP     | ignored: they are for the supervisor                             |
| supervisor is gone | exit                                                             |

It listens on sockets that the supervisor holds, so who connects while there is none waits for the next.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from smtpmaild.server.house import House
from smtpmaild.server.plan import AttendantPlan, Companion, Plan
from smtpmaild.server.sockets import SocketTable
from smtpmaild.server.sums import Ledger, Sums
from smtpmaild.server.unraisable import log_unraisable

#: How often what was counted is kept, and told.
_SAVE_SECONDS = 0.25
_ALIVE_SECONDS = 1.0
#: How long the last answers may take.
_FAREWELL_SECONDS = 3.0
#: A datagram of the supervisor, at most: what is wrong with a configuration may be long.
_LARGEST = 256 * 1024


def serve_attendant(
    plan: Plan,
    attendant: AttendantPlan,
    sockets: SocketTable,
    pulses: socket.socket,
    line: socket.socket,
    ledger: Ledger,
    life: int,
    signals: Sequence[int],
) -> None:
    """Be the attendant until told to end. line: to the supervisor.  life: readable when that is gone.  signals: blocked
    until there is an ear for them."""
    plan.log_start()
    log_unraisable(plan.log)
    try:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(_Attendant(plan, attendant, sockets, pulses, line, ledger).serve(life, signals))
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            loop.close()
    finally:
        plan.log_stop()


class _Attendant:
    def __init__(
        self,
        plan: Plan,
        attendant: AttendantPlan,
        sockets: SocketTable,
        pulses: socket.socket,
        line: socket.socket,
        ledger: Ledger,
    ) -> None:
        self._log = plan.log
        self._pulses = pulses
        self._line = line
        self._end = asyncio.Event()
        self._say_at = 0.0
        self._is_last = True  # nobody has taken over
        self.house = House(self._order, Sums(ledger), self._read_pulses)
        self._companions: Sequence[Companion] = attendant.companions(self.house, sockets.get)

    async def serve(self, life: int, signals: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for number, action in self._on_signal().items():
            loop.add_signal_handler(number, action)
        loop.add_reader(life, self._leave)
        loop.add_reader(self._pulses, self._read_pulses)
        loop.add_reader(self._line, self._read_news)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        self._say_alive(loop.time())
        started: list[Companion] = []
        try:
            for companion in self._companions:
                try:
                    companion.start(loop)
                except Exception as error:  # a port that is taken, say: the others serve
                    self._log.error("attendant_incomplete", cause=str(error) or repr(error))
                else:
                    started.append(companion)
            gc.freeze()
            await self._until_the_end()
        finally:
            self._stop_reading_pulses()
            while started:
                await self._stopped(started.pop())
            loop.remove_reader(life)
            loop.remove_reader(self._line)
            for number in self._on_signal():
                loop.remove_signal_handler(number)

    def _on_signal(self) -> Mapping[signal.Signals, Callable[[], None]]:
        return {signal.SIGTERM: self._end.set, signal.SIGUSR2: self._retire, signal.SIGQUIT: self._leave}

    async def _until_the_end(self) -> None:
        while not self._end.is_set():
            try:
                async with asyncio.timeout(_SAVE_SECONDS):
                    await self._end.wait()
            except TimeoutError:
                self.house.save()
                self._say_alive(asyncio.get_running_loop().time())
        if self._is_last:
            self.house.save()

    def _say_alive(self, now: float) -> None:
        if now >= self._say_at:
            self._say_at = now + _ALIVE_SECONDS
            self._order({"order": "alive"})

    async def _stopped(self, companion: Companion) -> None:
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await companion.stop()
        except TimeoutError:
            pass

    def _retire(self) -> None:
        self._is_last = False
        self._stop_reading_pulses()
        self._end.set()

    def _leave(self) -> None:
        os._exit(0)

    # Datagrams

    def _stop_reading_pulses(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pulses)

    def _read_pulses(self) -> None:
        while self._is_last and (data := _received(self._pulses)) is not None:
            self.house.hear_pulse(data)

    def _read_news(self) -> None:
        while (data := _received(self._line)) is not None:
            if not data:
                asyncio.get_running_loop().remove_reader(self._line)
                return
            self.house.hear_news(data)

    def _order(self, order: Mapping[str, Any]) -> None:
        try:
            self._line.send(json.dumps(order).encode())
        except OSError:
            self._log.warning("order_not_sent", order=order["order"])


def _received(sock: socket.socket) -> bytes | None:
    """The next datagram; None for none now, b"" at the end."""
    try:
        return sock.recv(_LARGEST)
    except BlockingIOError:
        return None
