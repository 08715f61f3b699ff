"""The composition root: from a Config to everything that runs. The one room that knows all others.

| file         | translates                                                                       |
|--------------|----------------------------------------------------------------------------------|
| rooms.py     | the whole configuration into an `App`: what one process serves with              |
| routes.py    | local_domains, relay_rules                                                       |
| doors.py     | listeners, limits, timeouts: what each speaks and offers                         |
| trust.py     | accounts, tls, dns: how we know our clients and they know us                     |
| relaying.py  | queue, relays: the queue, what takes mail on from it, what senders are told      |
| memory.py    | history, logging.privacy                                                         |
| attendant.py | control, status: the desk, and what asks it                                      |
| planning.py  | an `App` into the plan that server/ serves, with the reload it carries           |

Each function gives its room the plain values that it asks for. Nothing here decides anything, touches the disk or opens
a socket; that begins with the plan in the hands of server/.
"""

from __future__ import annotations

from smtpmaild.app.memory import build_history, build_pseudonyms, remembered
from smtpmaild.app.planning import log_domains, plan
from smtpmaild.app.relaying import look_ahead, route_of_mail
from smtpmaild.app.rooms import App, build, rehearse, stage
from smtpmaild.app.routes import build_routing

__all__ = [
    "App",
    "build",
    "build_history",
    "build_pseudonyms",
    "build_routing",
    "log_domains",
    "look_ahead",
    "plan",
    "rehearse",
    "remembered",
    "route_of_mail",
    "stage",
]
