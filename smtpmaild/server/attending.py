"""The supervisor's side of the attendant: it starts it, replaces it, tells it the news and hears its orders.

No loop and no thread, as in supervisor.py. There is at most one attendant that serves; after a reload the one before
may still be giving its last answers. Between them is a socket of datagrams (house.py says what is in them) that makes
nobody wait: news for which there is no room are told again a second later.

An attendant that dies is replaced as workers are; one that is silent for SILENCE seconds is killed first.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from smtpmaild.server.attendant import serve_attendant
from smtpmaild.server.house import Reload, State, reload_news, state_news
from smtpmaild.server.plan import AttendantPlan, Plan
from smtpmaild.server.pulse import Heart, pulse_sockets
from smtpmaild.server.restarts import next_delay
from smtpmaild.server.sockets import SocketTable
from smtpmaild.server.sums import Ledger
from smtpmaild.server.worker import SIGNALS

#: It says every second that it lives.
SILENCE = 30.0

#: What is wrong with a configuration is cut off here, to fit into a datagram.
_LONGEST_CAUSE = 50_000
_LARGEST_ORDER = 4096
_EX_SOFTWARE = 70


@dataclass(slots=True, eq=False)
class _Child:
    """One attendant process. line: our end."""

    pid: int
    line: socket.socket
    started_at: float
    heard_at: float
    is_retiring: bool = False


class Attending:
    """The attendants of a supervisor.

    selector: the supervisor's, where lines are registered with (hear, child).  life: closed by the kernel when the
    supervisor dies.  leave_ours: in a child, closes what is the supervisor's.  obey: does what an attendant orders.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        life: int,
        leave_ours: Callable[[], None],
        obey: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self.start_at = math.inf  # when the next one is due
        self._selector = selector
        self._pulses: tuple[socket.socket, socket.socket] | None = None
        self._life = life
        self._leave_ours = leave_ours
        self._obey = obey
        self._ledger = Ledger()
        self._children: list[_Child] = []
        self._plan: Plan | None = None
        self._sockets: SocketTable | None = None
        self._delay = 0.0
        self._state = b""
        self._owes_state = False

    @property
    def pids(self) -> list[int]:
        """Those who live."""
        return [child.pid for child in self._children]

    def prepare(self, plan: Plan) -> None:
        """Before a worker of this plan is forked."""
        if plan.attendant is not None and self._pulses is None:
            self._pulses = pulse_sockets()

    def heart(self, worker: int, plan: Plan) -> Heart | None:
        """In a worker: what sends its pulse."""
        if plan.attendant is None or self._pulses is None:
            return None
        return Heart(self._pulses[0], worker, os.getpid(), plan)

    def serve(self, plan: Plan, sockets: SocketTable) -> None:
        """Have an attendant for this plan, if it wants one; who served before retires."""
        if plan is self._plan:
            return
        self._plan, self._sockets = plan, sockets
        for child in self._children:
            if not child.is_retiring:
                child.is_retiring = True
                os.kill(child.pid, signal.SIGUSR2)
        self.start_at = 0.0 if plan.attendant is not None else math.inf
        self.look_after(time.monotonic())

    def look_after(self, now: float) -> None:
        """Do what is due."""
        plan = self._plan
        if now >= self.start_at and plan is not None and plan.attendant is not None:
            self.start_at = math.inf
            self.prepare(plan)
            self._start(plan, plan.attendant, now)
        for child in self._children:
            if now - child.heard_at >= SILENCE:
                child.heard_at = now
                os.kill(child.pid, signal.SIGKILL)
        if self._owes_state:
            self._send_state()

    def _start(self, plan: Plan, attendant: AttendantPlan, now: float) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setblocking(False)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._be_attendant(plan, attendant, theirs)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        theirs.close()
        child = _Child(pid, ours, now, now)
        self._children.append(child)
        self._selector.register(ours, selectors.EVENT_READ, (self._hear, child))
        plan.log.info("attendant_started", attendant=pid)
        self._send_state()

    def _be_attendant(self, plan: Plan, attendant: AttendantPlan, line: socket.socket) -> NoReturn:
        """In the child: never returns."""
        status = _EX_SOFTWARE
        try:
            self._leave_ours()
            self.leave()
            assert self._sockets is not None and self._pulses is not None, "serve() and prepare() came first"
            self._sockets.leave_to_others([one for one in self._sockets if one not in plan.for_attendant])
            serve_attendant(plan, attendant, self._sockets, self._pulses[1], line, self._ledger, self._life, SIGNALS)
            status = 0
        except BaseException:
            plan.log.exception("attendant_failed")
        finally:
            os._exit(status)

    def leave(self) -> None:
        """In a child: close what is between the supervisor and attendants."""
        for child in self._children:
            child.line.close()

    def _hear(self, child: _Child) -> None:
        if child not in self._children:
            return  # its death was reported in the same moment, and came first
        while True:
            try:
                order = child.line.recv(_LARGEST_ORDER)
            except BlockingIOError:
                return
            except OSError:
                order = b""
            if not order:  # it is ending, or ended: SIGCHLD tells how
                self._unregister(child)
                return
            child.heard_at = time.monotonic()
            self._obey(json.loads(order))

    def _unregister(self, child: _Child) -> None:
        if child.line.fileno() in self._selector.get_map():
            self._selector.unregister(child.line)

    def bury(self, pid: int, exit_code: int, *, is_stopping: bool = False) -> None:
        """A process has ended, maybe one of these. is_stopping: the daemon ends. Who sends SIGTERM to its whole process
        group ends the attendant early, and wants no other."""
        child = next((one for one in self._children if one.pid == pid), None)
        if child is None or self._plan is None:
            return
        self._children.remove(child)
        self._unregister(child)
        child.line.close()
        reason = f"exit status {exit_code}" if exit_code >= 0 else signal.Signals(-exit_code).name
        if child.is_retiring or (is_stopping and exit_code == 0):
            self._plan.log.info("attendant_ended", attendant=pid, reason=reason)
            return
        now = time.monotonic()
        self._delay = next_delay(self._delay, now - child.started_at)
        self.start_at = now + self._delay
        self._plan.log.error("attendant_died", attendant=pid, reason=reason, restart_in=self._delay)

    # News

    def tell_state(self, state: State) -> None:
        """What has changed."""
        self._state = state_news(state)
        self._send_state()

    def _send_state(self) -> None:
        self._owes_state = False in [_sent(child, self._state) for child in self._children]

    def tell_reload(self, reload: Reload) -> None:
        """What came of an order, to whoever gave it."""
        for child in self._children:
            _sent(child, reload_news(reload))

    # The end

    def end(self) -> None:
        """Have all of them give their last answers and end; there will be no other."""
        self.start_at = math.inf
        for child in self._children:
            child.is_retiring = True
            os.kill(child.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End those who are still there; nothing is said or heard any more."""
        for child in self._children:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            self._unregister(child)
            child.line.close()
        self._children.clear()
        for sock in self._pulses or ():
            sock.close()
        self._pulses = None


def _sent(child: _Child, news: bytes) -> bool:
    try:
        child.line.send(news)
    except BlockingIOError:
        return False
    except OSError:
        pass  # it is dead
    return True
