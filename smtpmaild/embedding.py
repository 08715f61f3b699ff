"""The engine for programs: a mail session whose every step is an event with a callback.

    session = Esmtp(hostname="mx.example.org")
    session.set_callback("RCPT", validate_recipient)
    session.set_callback("DATA", queue_message)
    await session.process(sock)

It re-creates Perl's Net::Server::Mail. A callback is a function or coroutine function that gets the session and the
arguments of its event (ARGUMENTS below) and returns what is to be said:

    None or True                    success, with the reply of the protocol
    False                           failure: 550
    (success, code, text)           success or failure in your words; code and text may be left out
    Reply(code, enhanced, text)     the same as a value

A callback that raises is logged and answered 451 4.3.0; the session goes on. Callbacks become steps of the same chain
that the daemon's policies are made of.
"""

from __future__ import annotations

import asyncio
import re
import socket as sockets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import idna

from smtpmaild.content import Content
from smtpmaild.dialogue import Dialogue
from smtpmaild.envelope import Peer, Route, Rule, Session, Transaction
from smtpmaild.facts import Log
from smtpmaild.metrics import Metrics
from smtpmaild.policy import Answer, Verdict
from smtpmaild.policy.chain import Chain, Event, Step
from smtpmaild.receiver import ReplyFilter, Service
from smtpmaild.server.streams import StreamSession, standard_streams
from smtpmaild.smtp import extension as rows
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.extension import EXTENSIONS, XFORWARD, Dialect, ServerOptions
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply

__all__ = ["Address", "Content", "Esmtp", "Extension", "Reply", "Smtp", "serve"]

#: What a callback may return, see above.
Said = None | bool | Reply | Sequence[object]
Callback = Callable[..., Said | Awaitable[Said]]

_CALLBACK = "callback"  # the name of a user's step in the chain: there is one for each event
# A text that begins with an enhanced status code brings it along: "5.1.1 No such user".
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3}) (.*)", re.ASCII | re.DOTALL)
_ACCEPTED = Route(Rule("callback"), RECIPIENT_OK)

#: What callbacks get behind the session, by event: made from what the chain passes to every step of it.
ARGUMENTS: Mapping[Event, Callable[..., tuple[object, ...]]] = {
    Event.BANNER: lambda session: (),
    Event.HELO: lambda session: (session.hello,),
    Event.EHLO: lambda session: (session.hello,),  # and the keyword lines, which the session adds
    Event.MAIL: lambda transaction: (transaction.envelope.reverse_path,),
    Event.RCPT: lambda transaction, forward_path: (forward_path,),
    Event.DATA_INIT: lambda transaction: (),
    Event.DATA_PART: lambda transaction, chunk: (chunk,),
    Event.DATA: lambda transaction, content: (content,),
    Event.VRFY: lambda session, argument: (argument,),
    Event.EXPN: lambda session, argument: (argument,),
    Event.HELP: lambda session, argument: (argument,),
    Event.XFORWARD: lambda session, attributes: (attributes,),
    Event.STOP_SESSION: lambda session, reason: (reason,),
}
#: The failure reply of an event where it is not 550.
_FAILURES: Mapping[Event, tuple[int, str]] = {Event.BANNER: (554, "")}
#: The code of success where it is not 250.
_SUCCESSES: Mapping[Event, int] = {
    Event.BANNER: 220,
    Event.DATA_INIT: 354,
    Event.QUIT: 221,
    Event.HELP: 214,
    Event.TIMEOUT: 421,
    Event.LINE_TOO_LONG: 500,
}
#: Events whose replies carry no enhanced status code (RFC 2034 §4).
_PLAIN = frozenset((Event.BANNER, Event.HELO, Event.EHLO))


class _Silent:
    """The log of a program that wants none."""

    def info(self, event: str, **facts: object) -> object:
        return None

    warning = error = exception = info


class _TakesAll:
    """The Router of a session without local domains: what the callbacks let through is accepted."""

    def route(self, transaction: Transaction, forward_path: Address) -> Route:
        return _ACCEPTED


def to_ascii(domain: str) -> str:
    """A-labels by IDNA2008 (RFC 5891), upper case folded first as people type it (UTS 46)."""
    return idna.encode(domain, uts46=True).decode("ascii")


@dataclass(frozen=True, slots=True)
class _Registered:
    callback: Callback
    context: object


class Smtp:
    """One session, without extensions: HELO only is extended by nothing, EHLO offers nothing.

    Options, upper or lower case: socket, or handle_in and handle_out (asyncio streams); idle_timeout in seconds, 0
    for never; error_sleep_time in seconds before each 4yz and 5yz; hostname; application, the words of the banner;
    peer; log (a structlog logger); and the limits of `ServerOptions`: message_size, recipients, body_line, ...
    Raises TypeError for an option that is not one.
    """

    protocol_name = "SMTP"
    extensions: tuple[rows.Extension, ...] = ()

    def __init__(self, **options: Any) -> None:
        given = {name.lower(): value for name, value in options.items()}
        self._socket: sockets.socket | None = given.pop("socket", None)
        self._handle_in: asyncio.StreamReader | None = given.pop("handle_in", None)
        self._handle_out: asyncio.StreamWriter | None = given.pop("handle_out", None)
        self._idle_timeout: float = given.pop("idle_timeout", 300.0)
        self._error_sleep_time: float = given.pop("error_sleep_time", 0.0)
        self._peer: Peer = given.pop("peer", Peer(""))
        self._log: Log = given.pop("log", _Silent())
        application = given.pop("application", "smtpmaild")
        given.setdefault("hostname", sockets.gethostname())
        given.setdefault("banner", f"{self.protocol_name} {application} Service ready")
        self._options = ServerOptions(to_ascii=to_ascii, **given)
        self._chain = Chain.compile([], self._log)
        self._callbacks: dict[Event, _Registered] = {}
        self._verbs: dict[str, tuple[Step, ...]] = {}
        self._removed_verbs: frozenset[str] = frozenset()
        self._filters: dict[str, list[ReplyFilter]] = {}
        self._registered: list[Extension] = []
        self._context: object = None
        self._dialogue: Dialogue | None = None

    # Setting up

    def set_callback(self, event: str, callback: Callback, context: object = None) -> None:
        """Let `callback` decide an event; a second call replaces the first. context: see the property.

        event: its name in any case: banner, HELO, EHLO, MAIL, RCPT, DATA-INIT, DATA-PART, DATA, RSET, NOOP, VRFY,
        EXPN, HELP, SEND, SOML, SAML, TURN, QUIT, XFORWARD, timeout, linetobig, stop_session.  Raises ValueError for
        another. Works before and during a session.
        """
        found = _event_of(event)
        self._callbacks[found] = _Registered(callback, context)
        step = Step(_CALLBACK, self._step(found), needs_body=found is Event.DATA)
        self._chain = self._chain.with_step(found, step)
        self._apply()

    def def_verb(self, verb: str, handler: Callback) -> None:
        """Understand one more command: handler(session, argument) says what is answered, as a callback does."""
        self._verbs[verb.upper()] = (Step(verb.upper(), self._verb_step(handler)),)
        self._removed_verbs -= {verb.upper()}
        self._apply()

    def undef_verb(self, verb: str) -> None:
        """Understand a command no more: 500."""
        self._verbs.pop(verb.upper(), None)
        self._removed_verbs |= {verb.upper()}
        self._apply()

    def list_verbs(self) -> list[str]:
        """The commands that are understood."""
        return sorted(self._dialect().verbs - self._removed_verbs | set(self._verbs))

    # What callbacks use

    @property
    def sender(self) -> Address | None:
        """The reverse-path; None before MAIL was accepted and after the transaction. `<>` is an Address as well."""
        transaction = self._transaction
        return transaction.envelope.reverse_path if transaction else None

    @property
    def recipients(self) -> list[Address] | None:
        """The accepted forward-paths; None before the first."""
        transaction = self._transaction
        accepted = [recipient.address for recipient in transaction.envelope.recipients] if transaction else []
        return accepted or None

    @property
    def values(self) -> dict[str, object]:
        """What the option functions of extensions made of their parameters, in this transaction."""
        transaction = self._transaction
        return transaction.envelope.values if transaction else {}

    @property
    def context(self) -> object:
        """What was given to set_callback with the callback that is running."""
        return self._context

    @property
    def peer(self) -> Peer:
        """The other end."""
        return self._peer

    @property
    def hello(self) -> str:
        """What the client called itself, "" before that."""
        return self._dialogue.receiver.session.hello if self._dialogue else ""

    @property
    def forwarded(self) -> Mapping[str, str | None]:
        """What XFORWARD told of the original client: name, addr, port, proto, helo, ident, source."""
        return self._dialogue.receiver.forwarded if self._dialogue else {}

    def dojob(self, wanted: bool) -> None:
        """dojob(False) in a callback: send the reply and do nothing else, the state stays. True again at each event."""
        assert self._dialogue is not None, "dojob() is for callbacks of a running session"
        self._dialogue.receiver.effect = wanted

    def close(self) -> None:
        """In a callback: end the session after its reply."""
        assert self._dialogue is not None, "close() is for callbacks of a running session"
        self._dialogue.receiver.is_over = True

    @property
    def _transaction(self) -> Transaction | None:
        return self._dialogue.receiver.transaction if self._dialogue else None

    # Running

    async def process(self, socket: sockets.socket | None = None) -> None:
        """Serve the session to its end: banner, commands, goodbye. The caller closes the socket.

        Over the socket given here or as an option, or handle_in and handle_out, or standard input and output.
        """
        sock = socket or self._socket
        if sock is not None:
            sock.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=sock.dup())
            self._peer = _peer_of(sock)
            try:
                await self._run(reader, writer)
            finally:
                writer.close()
        elif self._handle_in is not None and self._handle_out is not None:
            await self._run(self._handle_in, self._handle_out)
        else:
            await self._run(*await standard_streams())

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = StreamSession(
            self._service(), self._peer, idle_timeout=self._idle_timeout, error_sleep_time=self._error_sleep_time
        )
        self._dialogue = session.dialogue
        await session.run(reader, writer)

    def banner(self) -> bytes:
        """For a caller with a loop of its own: begin the session; what to send first."""
        dialogue = Dialogue(self._service(), self._peer, _no_waiting, _nothing)
        self._dialogue = dialogue
        dialogue.advance()
        return dialogue.protocol.data_to_send()

    def process_once(self, data: bytes) -> tuple[bytes, bool]:
        """For a caller with a loop of its own: take input; what to send, and whether to close then.

        Coroutine functions cannot be callbacks here: RuntimeError.
        """
        if self._dialogue is None:
            self.banner()
        assert self._dialogue is not None
        self._dialogue.receive_data(data)
        output = bytearray()
        while piece := self._dialogue.protocol.data_to_send():
            output += piece
            self._dialogue.advance()
        return bytes(output), self._dialogue.protocol.is_closed

    # From callbacks to the chain

    def _step(self, event: Event) -> Callable[..., Answer]:
        arguments_of = ARGUMENTS.get(event, _no_arguments)

        def ask(*passed: object) -> Answer:
            registered = self._callbacks[event]
            arguments = arguments_of(*passed)
            if event is Event.EHLO:
                arguments = (*arguments, self._dialect().keywords)
            self._context = registered.context
            return _verdict(registered.callback(self, *arguments), event)

        return ask

    def _verb_step(self, handler: Callback) -> Callable[..., Answer]:
        def ask(session: Session, argument: str) -> Answer:
            return _verdict(handler(self, argument), Event.NOOP)

        return ask

    def _dialect(self) -> Dialect:
        heard = frozenset(event.value for event in self._callbacks) | frozenset(self._verbs)
        options = replace(self._options, listens=heard)
        dialect = Dialect(options, (*self.extensions, *(extension.row() for extension in self._registered)))
        dialect.verbs = (dialect.verbs | set(self._verbs)) - self._removed_verbs
        return dialect

    def _service(self) -> Service:
        return Service(
            listener="embedded",
            dialect=self._dialect(),
            chain=self._chain,
            router=_TakesAll(),
            sinks={},
            log=self._log,
            metrics=Metrics(),
            verbs=self._verbs,
            filters=self._filters,
        )

    def _apply(self) -> None:
        if self._dialogue is not None:
            self._dialogue.receiver.chain = self._chain
            self._dialogue.protocol.speak(self._dialect())


class Esmtp(Smtp):
    """One session with extensions: those of the daemon, XFORWARD if asked for, and your own.

    xforward: True offers XFORWARD; only for peers you trust.
    """

    protocol_name = "ESMTP"
    extensions = EXTENSIONS

    def __init__(self, **options: Any) -> None:
        given = {name.lower(): value for name, value in options.items()}
        if given.pop("xforward", False):
            self.extensions = (*EXTENSIONS, XFORWARD)
        super().__init__(**given)

    def register(self, extension: type[Extension]) -> None:
        """Add an extension: builds it with this session and wires in what it brings.

        Raises ValueError for a parameter or verb that is taken, and for a reply function of a verb there is not.
        """
        built = extension(self)
        self._registered.append(built)
        try:
            dialect = self._dialect()
            _check_parameters(built, self._registered[:-1], self.extensions)
        except ValueError:
            self._registered.pop()
            raise
        for verb, handler in built.verb():
            self._verbs[verb.upper()] = (Step(verb.upper(), self._verb_step(handler)),)
        for verb, change in built.reply():
            if verb.upper() not in dialect.verbs and verb not in _MORE_REPLIES:
                raise ValueError(f"there is no verb {verb!r} whose reply could be changed")
            self._filters.setdefault(verb, []).append(self._reply_filter(change))
        self._put_first(Event.EHLO, Step(type(built).__name__, lambda session: built.extend_mode(True)))
        self._put_first(Event.HELO, Step(type(built).__name__, lambda session: built.extend_mode(False)))
        for verb, key, function in reversed(built.option()):
            event = _event_of(verb)
            self._put_first(event, Step(f"{verb} {key}", self._option_step(verb, key, function)))
        self._apply()

    def _put_first(self, event: Event, step: Step) -> None:
        """Extensions are asked before callbacks: an option may refuse what the callback then never sees."""
        by_event = {**self._chain.by_event, event: (step, *self._chain.steps(event))}
        self._chain = replace(self._chain, by_event=by_event)

    def _option_step(self, verb: str, key: str, function: Callback) -> Callable[..., Answer]:
        def ask(transaction: Transaction, forward_path: Address | None = None) -> Answer:
            value = transaction.parameters.get(key.upper())
            if value is None:
                return None
            address = forward_path or transaction.envelope.reverse_path
            said = function(self, verb, address, key, value)
            return _verdict(said, _event_of(verb), success_is_silent=True)

        return ask

    def _reply_filter(self, change: Callable[..., object]) -> ReplyFilter:
        def changed(session: Session, verb: str, reply: Reply) -> Reply:
            said = change(self, verb, reply.is_positive, reply.code, reply.text)
            if said is None or isinstance(said, Reply):
                return said or reply
            assert isinstance(said, Sequence)
            code, text = said
            return Reply(code, reply.enhanced if reply.enhanced[:1] == str(code)[0] else "", str(text))

        return changed


#: Names besides verbs whose replies an extension may change.
_MORE_REPLIES = frozenset(("banner", "DATA-INIT", "DATA", "timeout", "linetobig"))


class Extension:
    """An ESMTP extension of your own: override what it brings, give the class to Esmtp.register().

    Verbs, options and replies only count in extended mode, after EHLO.
    """

    def __init__(self, session: Esmtp) -> None:
        self.session = session

    def verb(self) -> Sequence[tuple[str, Callback]]:
        """(VERB, handler(session, argument)): commands it adds."""
        return ()

    def keyword(self) -> str:
        """Its word in the EHLO reply."""
        return type(self).__name__.upper()

    def parameter(self) -> Sequence[str]:
        """The words behind the keyword."""
        return ()

    def option(self) -> Sequence[tuple[str, str, Callback]]:
        """("MAIL" or "RCPT", KEY, handler(session, verb, address, key, value)): parameters it understands.

        The handler runs before the callback of its verb, in this order. It may refuse as a callback does, and keep
        what it made of the value in session.values.
        """
        return ()

    def reply(self) -> Sequence[tuple[str, Callable[..., object]]]:
        """(VERB, handler(session, verb, success, code, text)): it returns (code, text), a Reply, or None for as is."""
        return ()

    def extend_mode(self, extended: bool) -> None:
        """The client said EHLO (True) or HELO (False)."""

    def row(self) -> rows.Extension:
        """Its row in the EHLO table."""
        words = " ".join(self.parameter())
        return rows.Extension(
            self.keyword(),
            lambda _: words,
            mail={key.upper(): _ANY_VALUE for verb, key, _ in self.option() if verb.upper() == "MAIL"},
            rcpt={key.upper(): _ANY_VALUE for verb, key, _ in self.option() if verb.upper() == "RCPT"},
            verbs=tuple(verb.upper() for verb, _ in self.verb()),
            growth=_OPTION_GROWTH * len(self.option()),
        )


_ANY_VALUE = ".*"
_OPTION_GROWTH = 128  # octets of command line for each parameter of an extension whose needs we do not know


async def serve(
    make_session: Callable[[], Smtp], host: str | None = "127.0.0.1", port: int = 2525, **arguments: Any
) -> asyncio.Server:
    """Listen, and process each connection with a session of its own: `await serve(make_session, "127.0.0.1", 2525)`.

    make_session: builds a session with its callbacks.  arguments: for asyncio.start_server. Returns its server.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = make_session()
        session._peer = _peer_of(writer.get_extra_info("socket"))
        try:
            await session._run(reader, writer)
        finally:
            writer.close()

    return await asyncio.start_server(connected, host, port, **arguments)


def _peer_of(sock: sockets.socket) -> Peer:
    name = sock.getpeername()
    return Peer(name[0].partition("%")[0], name[1]) if isinstance(name, tuple) else Peer("")


def _event_of(name: str) -> Event:
    for event in Event:
        if event.value.lower() == name.lower():
            return event
    raise ValueError(f"there is no event {name!r}; there are {', '.join(event.value for event in Event)}")


def _no_arguments(*passed: object) -> tuple[object, ...]:
    return ()


def _nothing() -> None:
    pass


def _no_waiting(work: Any) -> None:
    work.close()
    raise RuntimeError("process_once() cannot wait for a coroutine: use process()")


def _check_parameters(built: Extension, others: Sequence[Extension], builtin: Sequence[rows.Extension]) -> None:
    """Two extensions that understand one parameter would both decide it."""
    taken = {("MAIL", key) for row in builtin for key in row.mail} | {
        ("RCPT", key) for row in builtin for key in row.rcpt
    }
    for extension in (*others, built):
        for verb, key, _ in extension.option():
            if verb.upper() not in ("MAIL", "RCPT"):
                raise ValueError(f"options belong to MAIL and RCPT, not to {verb!r}")
            if (verb.upper(), key.upper()) in taken:
                raise ValueError(f"two extensions offer the parameter {key!r} of {verb}")
            taken.add((verb.upper(), key.upper()))


def _verdict(said: Said | Awaitable[Said], event: Event, *, success_is_silent: bool = False) -> Answer:
    """What a callback said, as the chain understands it."""
    if said is None or (said is True and success_is_silent):
        return None
    if isinstance(said, Awaitable):
        return _awaited(said, event, success_is_silent)
    if isinstance(said, Reply):
        return said
    success, *rest = said if isinstance(said, Sequence) else (said,)
    if success is None or (success and not rest):
        return None
    code, text = _code_and_text(event, bool(success), rest)
    found = _ENHANCED.fullmatch(text)
    if found and found[1][0] == str(code)[0]:
        return Reply(code, found[1], found[2])
    enhanced = "" if event in _PLAIN or (code < 400 and code >= 300) else f"{code // 100}.0.0"
    return Reply(code, enhanced, text)


def _code_and_text(event: Event, success: bool, rest: Sequence[object]) -> tuple[int, str]:
    code = rest[0] if rest and rest[0] is not None else None
    text = rest[1] if len(rest) > 1 and rest[1] is not None else None
    if code is None:
        code = _SUCCESSES.get(event, 250) if success else _FAILURES.get(event, (550, ""))[0]
    if not isinstance(code, int):
        raise TypeError(f"a reply code is a number, not {code!r}")
    if success != (code < 400) and event not in _SAY_ERRORS:
        raise ValueError(f"success {success} and reply code {code} contradict each other")
    if text is None:
        text = "Ok" if code < 400 else "Failure"
    return code, "\n".join(map(str, text)) if isinstance(text, list | tuple) else str(text)


#: Events that end in an error code even when all went well.
_SAY_ERRORS = frozenset((Event.TIMEOUT, Event.LINE_TOO_LONG))


async def _awaited(said: Awaitable[Said], event: Event, success_is_silent: bool) -> Verdict:
    verdict = _verdict(await said, event, success_is_silent=success_is_silent)
    assert verdict is None or isinstance(verdict, Reply)
    return verdict
