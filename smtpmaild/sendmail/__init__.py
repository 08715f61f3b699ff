"""The command `sendmail`: what cron and scripts call to hand in a message.

    flags.py     what the old command's flags mean, and which are passed for nothing
    message.py   text from standard input -> a message as it travels, and whom its header names
    submit.py    to the running daemon, through its Unix socket
    drop.py      the directory where messages wait while it does not run
    command.py   puts these together: standard input in, an exit status out
    pickup.py    the daemon's side of the drop directory

Everything but the last runs as whoever called it, for one message, and must start quickly: no pydantic, no loop.

What a message goes through, and what a kill at that point leaves:

| state                                      | left behind                 | who sees to it                           |
|--------------------------------------------|-----------------------------|------------------------------------------|
| being read or sent, no 250 yet             | nothing                     | the caller: it has no exit status 0      |
| 250                                        | the daemon has it           | the daemon                               |
| files in drop/tmp                          | files in drop/tmp           | the caller; pickup sweeps after 36 hours |
| `.eml` renamed into drop/                  | an `.eml` without `.json`   | the same                                 |
| `.json` renamed, synced                    | the pair                    | pickup                                   |
| picked up, 250                             | the pair, to come again     | pickup: a duplicate at worst             |
| `.json` removed                            | an `.eml` without `.json`   | pickup sweeps after 36 hours             |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from smtpmaild.envelope import NO_PARAMETERS
from smtpmaild.smtp.address import Address

SOCKET = "/run/smtpmaild/submit.sock"
DROP = "/var/spool/smtpmaild/drop"


@dataclass(frozen=True, slots=True)
class Letter:
    """An envelope that is handed in. mail, rcpt: parameters of the commands, the latter the same for all recipients."""

    reverse_path: Address
    recipients: tuple[Address, ...]
    mail: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)
    rcpt: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)
