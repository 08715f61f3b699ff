"""A mail server for developers: takes every message, keeps it in memory, sends nothing on.

    with CatchAll() as server:
        send_mail_to(server.host, server.port)
        message = server.wait_for(1)[0]
        assert message.subject == "Hello"

    server.py     CatchAll: a server in a thread of its own       catcher.py   the same in a loop that is there
    caught.py     one message with its envelope                   inbox.py     all of them, bounded
    sink.py       how they come in                                login.py     AUTH where no account is real
    failures.py   refusals, drops and stalls that somebody chose
    reading.py    what is in a message; believes nothing it says
    frame.py      its HTML, shown without harm                    search.py    which messages somebody means
    remarks.py    what other servers would stumble over
    api.py        the JSON API, and the page in page/             running.py   `smtpmaild dev`, until a signal

Its mail runs through the engine of the daemon: the connections, the protocol, the receiver are the same; policies,
routing and stores are those of this room. Only api.py needs the extra `web`.
"""

from __future__ import annotations

from smtpmaild.dev.caught import Caught
from smtpmaild.dev.failures import Failure
from smtpmaild.dev.server import CatchAll

__all__ = ["CatchAll", "Caught", "Failure"]
