"""The daemon from its first to its last act: `run(plan)`.

Order: who we shall be is settled and may be refused; everything is bound; privileges go; stores are prepared as the
user who will write to them; then one worker serves in this process, or several processes under a supervisor.
"""

from __future__ import annotations

import os
import signal
from collections.abc import MutableMapping

from smtpmaild.server import privileges
from smtpmaild.server.notify import Notifier
from smtpmaild.server.plan import Plan
from smtpmaild.server.sockets import InheritedSockets, SocketTable
from smtpmaild.server.supervisor import Supervisor
from smtpmaild.server.worker import SIGNALS, import_loop, log_listening, serve_alone


def run(plan: Plan, environment: MutableMapping[str, str] = os.environ) -> int:
    """Serve until a signal ends it; the exit status.

    Raises, before anything is served, PrivilegeError, SocketError, or the OSError of a store that cannot be written.
    """
    notifier = Notifier.from_environment(environment)
    identity = privileges.settle(plan.user, plan.group, allow_root=plan.allow_root)
    privileges.prepare_process()
    sockets = SocketTable(InheritedSockets.from_environment(environment)).rebind(plan.sockets, plan.workers)
    try:
        import_loop(plan)
        if identity is not None:
            identity.assume(environment)
        for sink in plan.sinks:
            sink.prepare()
        # From here on who reads "listening" may send signals; they wait until somebody hears them.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        log_listening(plan, sockets)
        if plan.is_supervised:
            sockets = Supervisor(plan, sockets, notifier).run()
        else:
            sockets = serve_alone(plan, sockets, notifier)
    finally:
        sockets.close_all_but()
    plan.log.info("stopped")
    return 0
