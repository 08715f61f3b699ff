"""The engine for programs: a mail session whose every step is an event with a callback.

    session = Esmtp(hostname="mx.example.org")
    session.set_callback("RCPT", validate_recipient)
    session.set_callback("DATA", queue_message)
    await session.process(sock)

It re-creates Perl's Net::Server::Mail. A callback is a function or coroutine function that gets the session and the
arguments of its event and returns what is to be said:

    None                            no opinion: the reply of the protocol, nearly always success
    True                            success, with the reply of the protocol
    False                           failure: 550
    (success, code, text)           success or failure in your words; code and text may be left out
    Reply(code, enhanced, text)     the same as a value

A callback that raises is logged and answered 451 4.3.0; the session goes on.

    session.py    Smtp: callbacks, accessors, process()     extended.py   Esmtp, Lmtp and Extension
    events.py     what each event passes and answers        said.py       from what a callback returned to a reply
    options.py    what a session may be told                serving.py    serve(): listen for connections
"""

from __future__ import annotations

from smtpmaild.content import Content
from smtpmaild.embedding.extended import Esmtp, Extension, Lmtp, ReplyChange
from smtpmaild.embedding.said import Callback, Said
from smtpmaild.embedding.serving import serve
from smtpmaild.embedding.session import Smtp
from smtpmaild.envelope import Peer
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import Reply

__all__ = [
    "Address",
    "Callback",
    "Content",
    "Esmtp",
    "Extension",
    "Lmtp",
    "Peer",
    "Reply",
    "ReplyChange",
    "Said",
    "Smtp",
    "serve",
]
