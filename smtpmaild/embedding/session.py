"""One mail session of a program: its callbacks compiled into the chain, its state to look at, and the ways to run it.

Everything a program sets becomes the `Service` of this one session: a callback is a step of the chain that the
daemon's policies are made of, so each can do what the other can. The service is made anew at each change, and a
session under way goes on with it from its next event.
"""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from smtpmaild.dialogue import CONNECTION_LOST, Dialogue
from smtpmaild.embedding.events import EVENTS, event_of
from smtpmaild.embedding.options import read_options
from smtpmaild.embedding.said import Callback, Said, verdict
from smtpmaild.envelope import Peer, Route, Rule, Session, Tls, Transaction
from smtpmaild.metrics import Metrics
from smtpmaild.policy import Answer
from smtpmaild.policy.chain import Chain, Event, Step
from smtpmaild.server.connection import peer_of
from smtpmaild.server.stream_session import StreamSession
from smtpmaild.server.streams import Reader, Writer, open_streams
from smtpmaild.service import ReplyFilter, Service
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.extension import EXTENSIONS, XFORWARD, Dialect
from smtpmaild.smtp.extension import Extension as Row
from smtpmaild.smtp.reply import RECIPIENT_OK

#: Verbs that carry the session: callbacks decide about them, a handler of one's own could not stand in for them.
_CORE_VERBS = frozenset(
    ("HELO", "EHLO", "LHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "QUIT", "XFORWARD", "STARTTLS", "AUTH")
)
_WITH_KEYWORDS = frozenset((Event.EHLO, Event.LHLO))
_ACCEPTED = Route(Rule("callback"), RECIPIENT_OK)


class _TakesAll:
    """The Router of a session without local domains: what the callbacks let through is accepted."""

    def route(self, transaction: Transaction, forward_path: Address) -> Route:
        return _ACCEPTED


class Smtp:
    """One session of the old protocol: HELO, no EHLO. Esmtp is what clients of today expect, Lmtp what a MTA expects
    of the mail store behind it.

    Options by keyword, upper or lower case: see SessionOptions. Raises TypeError for one that is none.
    """

    #: Its word in the banner.
    protocol_name = "SMTP"
    #: Its rows of the EHLO table; HELP is a command of the old protocol too.
    rows: tuple[Row, ...] = tuple(row for row in EXTENSIONS if row.keyword == "HELP")
    #: LHLO greets, and the end of a message is answered for each recipient.
    is_lmtp = False
    #: Verbs it does not understand though RFC 5321 knows them.
    unknown_verbs = frozenset(("EHLO",))

    def __init__(self, **options: Any) -> None:
        self._options = read_options(options)
        self._rows = (*self.rows, XFORWARD) if self._options.xforward else self.rows
        self._removed_verbs = self.unknown_verbs
        self._callbacks: dict[Event, Step] = {}
        self._handlers: dict[str, Step] = {}  # verb -> who answers it
        # What extensions add: steps to ask before the callbacks, and changes of replies by verb or event.
        self._first_steps: dict[Event, list[Step]] = {}
        self._filters: dict[str, list[ReplyFilter]] = {}
        self._peer = self._options.peer or Peer("")
        self._metrics = Metrics()
        self._context: object = None
        self._dialogue: Dialogue | None = None
        self._tls_context = self._options.context()
        self._can_wait = False
        self._can_encrypt = True

    # Setting up

    def set_callback(self, event: str, callback: Callback, context: object = None) -> None:
        """Let `callback` decide an event, before or during a session; a second call replaces the first.

        event: its name in any case: banner, HELO, EHLO, LHLO, MAIL, RCPT, DATA-INIT, DATA-PART, DATA, RSET, NOOP, VRFY,
        EXPN, HELP, SEND, SOML, SAML, TURN, QUIT, XFORWARD, STARTTLS, timeout, linetobig, stop_session.  context: what
        the property of this name says while the callback runs.  Raises ValueError for another event.
        """
        found = event_of(event)
        self._callbacks[found] = Step("callback", self._asker(found, callback, context), found is Event.DATA)
        self._apply()

    def def_verb(self, verb: str, handler: Callback) -> None:
        """Understand one more command, or NOOP, VRFY, ... in another way: handler(session, argument) says what is
        answered, as a callback does.

        Raises ValueError for the commands that carry the session: those have callbacks.
        """
        verb = verb.upper()
        if verb in _CORE_VERBS:
            raise ValueError(f"{verb} is answered by the protocol: set a callback")
        self._handlers[verb] = self._handler(verb, handler)
        self._removed_verbs -= {verb}
        self._apply()

    def undef_verb(self, verb: str) -> None:
        """Understand a command no more: 500."""
        self._handlers.pop(verb.upper(), None)
        self._removed_verbs |= {verb.upper()}
        self._apply()

    def list_verbs(self) -> list[str]:
        """The commands that are understood."""
        dialect = self._dialect()
        return sorted(dialect.verbs.difference(dialect.locked))

    # What callbacks use

    @property
    def sender(self) -> Address | None:
        """The reverse-path from MAIL on, None when the transaction is over. `<>` is an Address as well: is_null."""
        transaction = self._transaction
        return transaction.envelope.reverse_path if transaction else None

    @property
    def recipients(self) -> list[Address] | None:
        """The accepted forward-paths, in order and with duplicates; None before the first."""
        transaction = self._transaction
        accepted = [recipient.address for recipient in transaction.envelope.recipients] if transaction else []
        return accepted or None

    @property
    def values(self) -> dict[str, Any]:
        """What the option functions of extensions made of their parameters, in this transaction."""
        transaction = self._transaction
        return transaction.envelope.values if transaction else {}

    @property
    def queue_id(self) -> str:
        """A name for the message of this transaction, unique on this host; "" outside of one."""
        transaction = self._transaction
        return transaction.envelope.queue_id if transaction else ""

    @property
    def context(self) -> Any:
        """What was given to set_callback with the callback that is running; yours, whatever it is."""
        return self._context

    @property
    def peer(self) -> Peer:
        """The other end: host and port; host is "" where no network is between."""
        return self._peer

    @property
    def tls(self) -> Tls | None:
        """The encryption of the connection, with the client's certificate if it showed one; None in clear text."""
        return self._dialogue.receiver.session.tls if self._dialogue else None

    @property
    def user(self) -> str:
        """Who signed in, "" for nobody."""
        return self._dialogue.receiver.session.user if self._dialogue else ""

    @property
    def hello(self) -> str:
        """What the client called itself, "" before that."""
        return self._dialogue.receiver.session.hello if self._dialogue else ""

    @property
    def forwarded(self) -> Mapping[str, str | None]:
        """What XFORWARD told of the original client: name, addr, port, proto, helo, ident, source; None: unknown."""
        return self._dialogue.receiver.session.forwarded if self._dialogue else {}

    def dojob(self, wanted: bool) -> None:
        """dojob(False) in a callback: send the reply and do nothing else, the state stays. True again at each event.

        The banner, the end of data and QUIT cannot be undone.
        """
        self._running().receiver.effect = wanted

    def close(self) -> None:
        """In a callback: end the session after its reply."""
        self._running().receiver.is_over = True

    @property
    def _transaction(self) -> Transaction | None:
        return self._dialogue.receiver.transaction if self._dialogue else None

    def _running(self) -> Dialogue:
        if self._dialogue is None:
            raise RuntimeError("this is for the callbacks of a running session")
        return self._dialogue

    # Running, with asyncio

    async def process(self, socket: sockets.socket | None = None) -> None:
        """Serve the session to its end: banner, commands, goodbye. The caller closes the socket.

        Over the socket given here or as an option, or handle_in and handle_out, or standard input and output.
        """
        async with self._streams(socket or self._options.socket) as (reader, writer, peer):
            await self.converse(reader, writer, peer)

    async def converse(self, reader: Reader, writer: Writer, peer: Peer) -> None:
        """The same over streams, which the caller closes. peer: who it is, unless an option said so."""
        self._peer = self._options.peer or peer
        self._can_wait = self._can_encrypt = True
        session = StreamSession(
            self._service(),
            self._peer,
            idle_timeout=self._options.idle_timeout,
            error_sleep_time=self._options.error_sleep_time,
            context=self._tls_context,
        )
        self._dialogue = session.dialogue
        await session.run(reader, writer)

    @asynccontextmanager
    async def _streams(self, sock: sockets.socket | None) -> AsyncIterator[tuple[Reader, Writer, Peer]]:
        handle_in, handle_out = self._options.handle_in, self._options.handle_out
        if sock is not None:
            descriptors = sock.fileno(), sock.fileno()
        elif handle_in is None or handle_out is None:
            descriptors = 0, 1
        elif isinstance(handle_in, asyncio.StreamReader) and isinstance(handle_out, asyncio.StreamWriter):
            yield handle_in, handle_out, peer_of(handle_out.transport)
            return
        elif isinstance(handle_in, asyncio.StreamReader) or isinstance(handle_out, asyncio.StreamWriter):
            raise TypeError("handle_in and handle_out are both asyncio streams, or both files")
        else:
            descriptors = handle_in.fileno(), handle_out.fileno()
        async with open_streams(*descriptors) as streams:
            yield streams

    # Running, in a loop of the caller's own. Coroutine functions cannot be callbacks then: 451; nor is STARTTLS
    # offered, as the bytes of TLS are the caller's.

    def banner(self) -> bytes:
        """Begin the session; what to send first."""
        self._can_wait = self._can_encrypt = False
        self._dialogue = Dialogue(self._service(), self._peer, _never, _nothing)
        self._dialogue.advance()
        return self._dialogue.protocol.data_to_send()

    def process_once(self, data: bytes) -> tuple[bytes, bool]:
        """Take input; what to send, and whether to close then. The banner is the caller's, from banner() or not."""
        if self._dialogue is None:
            self.banner()
        self._running().receive_data(data)
        return self._output()

    def time_out(self) -> bytes:
        """The peer was silent for too long: what to send before closing."""
        self._running().time_out()
        return self._output()[0]

    def stop(self, error: str = "") -> None:
        """The connection is gone, or closed as process_once() asked: the end of the session, once."""
        self._running().stop(error or CONNECTION_LOST)

    def _output(self) -> tuple[bytes, bool]:
        dialogue = self._running()
        output = bytearray()
        while piece := dialogue.protocol.data_to_send():
            output += piece
            dialogue.advance()  # a session stalls while too much waits to be sent
        return bytes(output), dialogue.protocol.is_closed

    # From callbacks to a service

    def _asker(self, event: Event, callback: Callback, context: object) -> Callable[..., Answer]:
        pick = EVENTS[event].pick

        def ask(*passed: object) -> Answer:
            arguments = pick(*passed)
            if event in _WITH_KEYWORDS:
                arguments = (*arguments, list(self._running().protocol.keywords))
            self._context = context
            # The end of a message under LMTP: the recipient that is asked about stands behind its content.
            failure = f"{arguments[1]} Failed" if event is Event.DATA and len(arguments) > 1 else "Failure"
            return self._heard(callback(self, *arguments), event, failure)

        return ask

    def _handler(self, verb: str, handler: Callback) -> Step:
        def ask(_session: Session, argument: str) -> Answer:
            self._context = None
            return self._heard(handler(self, argument), Event.NOOP)

        return Step(verb, ask)

    def _heard(self, said: Said | Awaitable[Said], event: Event, failure: str = "Failure") -> Answer:
        if isinstance(said, Awaitable) and not self._can_wait:
            if isinstance(said, Coroutine):
                said.close()
            raise RuntimeError("process_once() cannot wait for a coroutine function: use process()")
        return verdict(said, event, failure)

    def _dialect(self) -> Dialect:
        heard = {event.value for event in self._callbacks}.union(self._handlers, self._filters)
        return Dialect(
            self._options.protocol(
                self.protocol_name, frozenset(heard), is_lmtp=self.is_lmtp, can_encrypt=self._can_encrypt
            ),
            self._rows,
            added_verbs=self._handlers,
            removed_verbs=self._removed_verbs,
        )

    def _service(self) -> Service:
        log = self._options.log
        by_event = {event: tuple(steps) for event, steps in self._first_steps.items()}
        for event, step in self._callbacks.items():
            by_event[event] = (*by_event.get(event, ()), step)
        recipient_steps = by_event.pop(Event.DATA, ()) if self.is_lmtp else ()
        return Service(
            listener="embedded",
            dialect=self._dialect(),
            chain=Chain(by_event, log, self._metrics),
            router=_TakesAll(),
            sinks={},
            log=log,
            metrics=self._metrics,
            verbs={verb: (step,) for verb, step in self._handlers.items()},
            filters=self._filters,
            authenticator=self._options.authenticator,
            recipient_steps=recipient_steps,
        )

    def _apply(self) -> None:
        if self._dialogue is not None:
            self._dialogue.change(self._service())


def _never(work: Coroutine[object, object, None]) -> None:
    raise NotImplementedError("nothing waits in a loop of the caller's own")


def _nothing() -> None:
    pass
