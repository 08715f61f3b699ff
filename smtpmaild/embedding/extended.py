"""ESMTP and LMTP sessions, and the extensions a program adds to them.

An extension brings rows and steps like those of the daemon: a keyword for EHLO, parameters of MAIL and RCPT with a
function each, commands, and functions that change replies. Registering one checks all of it first and then adds it
whole, so a refused extension leaves the session as it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from smtpmaild.embedding.said import Callback, reply_of
from smtpmaild.embedding.session import Smtp
from smtpmaild.envelope import Session, Transaction
from smtpmaild.policy import Answer, Verdict
from smtpmaild.policy.chain import Event, Step
from smtpmaild.service import ReplyFilter
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.extension import BASE_VERBS, EXTENSIONS, LMTP_VERBS
from smtpmaild.smtp.extension import Extension as Row
from smtpmaild.smtp.reply import Reply

#: handler(session, verb, success, code, text) -> (code, text), a Reply, or None for as it is.
ReplyChange = Callable[..., tuple[int, object] | Reply | None]

# The events with options.
_WITH_OPTIONS = {"MAIL": Event.MAIL, "RCPT": Event.RCPT}
# Whose replies may be changed, besides those of verbs.
_REPLIES = {"BANNER": "banner", "DATA-INIT": "DATA-INIT", "TIMEOUT": "timeout", "LINETOBIG": "linetobig"}
# What only somebody with a queue can promise: a program that has one offers it by itself.
_PROMISES = ("DELIVERBY", "FUTURERELEASE", "MT-PRIORITY")
_ANY_VALUE = ".*"  # the handler judges it
_OPTION_GROWTH = 128  # octets of a command line for each parameter: what its values need is not known here


class Esmtp(Smtp):
    """One session with EHLO: the extensions of the daemon, XFORWARD by option, and your own."""

    protocol_name = "ESMTP"
    rows = tuple(row for row in EXTENSIONS if row.keyword not in _PROMISES)
    unknown_verbs = frozenset()

    def register(self, extension: type[Extension]) -> None:
        """Add an extension, before the session begins: builds it with this session and wires in what it brings.

        Raises ValueError, and adds nothing, where its keyword, a parameter or a verb is taken, and where it changes
        replies of a verb that is not there.
        """
        built = extension(self)
        row = _row_of(built)
        _check_free(row, self._rows, set(self._handlers))
        verbs = {verb.upper(): handler for verb, handler in built.verb()}
        filters = [(self._reply_name(name, verbs), change) for name, change in built.reply()]
        options = [(*_option_event(verb), key.upper(), handler) for verb, key, handler in built.option()]

        self._rows = (*self._rows, row)
        self._handlers.update({verb: self._handler(verb, handler) for verb, handler in verbs.items()})
        for name, change in filters:
            self._filters.setdefault(name, []).append(self._reply_filter(change))
        for greeting in (Event.EHLO, Event.LHLO):
            self._add_first(greeting, Step(row.keyword, _mode_setter(built, extended=True)))
        self._add_first(Event.HELO, Step(row.keyword, _mode_setter(built, extended=False)))
        for event, verb, key, handler in options:
            self._add_first(event, Step(f"{verb} {key}", self._option_asker(event, verb, key, handler)))
        self._apply()

    def _add_first(self, event: Event, step: Step) -> None:
        # Before the callback: what an option refuses, the callback never sees.
        self._first_steps.setdefault(event, []).append(step)

    def _reply_name(self, name: str, verbs: dict[str, Callback]) -> str:
        found = _REPLIES.get(name.upper())
        if found is None and name.upper() not in {*self._dialect().verbs, *verbs}:
            raise ValueError(f"there is no verb {name!r} whose reply could be changed")
        return found or name.upper()

    def _option_asker(self, event: Event, verb: str, key: str, handler: Callback) -> Callable[..., Answer]:
        def ask(transaction: Transaction, forward_path: Address | None = None) -> Answer:
            value = transaction.parameters.get(key)
            if value is None:
                return None
            said = handler(self, verb, forward_path or transaction.envelope.reverse_path, key, value)
            answer = self._heard(said, event)
            return _refusal(answer) if answer is None or isinstance(answer, Reply) else _awaited_refusal(answer)

        return ask

    def _reply_filter(self, change: ReplyChange) -> ReplyFilter:
        def changed(_session: Session, name: str, reply: Reply) -> Reply:
            try:
                return _changed(reply, change(self, name, reply.is_positive, reply.code, reply.text))
            except Exception:
                self._options.log.exception("reply_change_failed", verb=name, session_id=_session.session_id)
                return reply

        return changed


class Lmtp(Esmtp):
    """One session of LMTP (RFC 2033): LHLO in place of HELO and EHLO, and at the end of a message the callback of DATA
    is asked about each accepted recipient in turn: callback(session, content, recipient). Each gets its own reply."""

    protocol_name = "LMTP"
    is_lmtp = True


class Extension:
    """An ESMTP extension of your own: override what it brings, give the class to Esmtp.register().

    Options and changed replies only count in extended mode, after EHLO or LHLO.
    """

    def __init__(self, session: Esmtp) -> None:
        self.session = session

    def verb(self) -> Sequence[tuple[str, Callback]]:
        """(VERB, handler(session, argument)): commands it adds; what a handler returns is what is answered."""
        return ()

    def keyword(self) -> str:
        """Its word in the EHLO reply."""
        return type(self).__name__.upper()

    def parameter(self) -> Sequence[str]:
        """The words behind the keyword."""
        return ()

    def option(self) -> Sequence[tuple[str, str, Callback]]:
        """("MAIL" or "RCPT", KEY, handler(session, verb, address, key, value)): parameters it understands.

        Handlers run before the callback of the verb, in this order. One may refuse as a callback does, and keep what
        it made of the value in session.values.
        """
        return ()

    def reply(self) -> Sequence[tuple[str, ReplyChange]]:
        """(VERB, handler(session, verb, success, code, text)): it returns (code, text), a Reply, or None for as is.

        Instead of a verb also banner, DATA-INIT, timeout, linetobig. The first digit must stay: the state of the
        session follows from the reply before the change.
        """
        return ()

    def extend_mode(self, extended: bool) -> None:
        """The client said EHLO or LHLO (True), or HELO (False)."""


def _row_of(built: Extension) -> Row:
    """Its row in the EHLO table."""
    words = " ".join(built.parameter())
    options = [(verb.upper(), key.upper()) for verb, key, _ in built.option()]
    if len(set(options)) != len(options):
        raise ValueError(f"{built.keyword()} offers a parameter twice")
    return Row(
        built.keyword(),
        lambda _options: words,
        mail={key: _ANY_VALUE for verb, key in options if verb == "MAIL"},
        rcpt={key: _ANY_VALUE for verb, key in options if verb == "RCPT"},
        verbs=tuple(verb.upper() for verb, _ in built.verb()),
        growth=_OPTION_GROWTH * len(options),
    )


def _check_free(row: Row, others: Sequence[Row], handled: set[str]) -> None:
    """Two that understand one thing would both decide it."""
    taken = {
        "keyword": {row.keyword} & {other.keyword for other in others},
        "parameter of MAIL": row.mail.keys() & {key for other in others for key in other.mail},
        "parameter of RCPT": row.rcpt.keys() & {key for other in others for key in other.rcpt},
        "verb": set(row.verbs)
        & {verb for other in others for verb in other.verbs}.union(handled, BASE_VERBS, LMTP_VERBS),
    }
    for kind, names in taken.items():
        if names:
            raise ValueError(f"the {kind} {min(names)} is taken: {row.keyword} cannot offer it too")


def _option_event(verb: str) -> tuple[Event, str]:
    if verb.upper() not in _WITH_OPTIONS:
        raise ValueError(f"options belong to MAIL and RCPT, not to {verb!r}")
    return _WITH_OPTIONS[verb.upper()], verb.upper()


def _mode_setter(built: Extension, *, extended: bool) -> Callable[[Session], None]:
    def tell(_session: Session) -> None:
        built.extend_mode(extended)

    return tell


def _refusal(verdict: Verdict) -> Verdict:
    """A success of one option is no verdict on the address: the callback has its say as well."""
    return None if verdict is None or verdict.is_positive else verdict


async def _awaited_refusal(answer: Awaitable[Verdict]) -> Verdict:
    return _refusal(await answer)


def _changed(reply: Reply, said: tuple[int, object] | Reply | None) -> Reply:
    if said is None:
        return reply
    if not isinstance(said, Reply):
        code, text = said
        said = reply_of(code, text, is_plain=not reply.enhanced, enhanced=reply.enhanced)
    if said.code // 100 != reply.code // 100:
        raise ValueError(f"a changed reply keeps its first digit: {reply.code} cannot become {said.code}")
    return said
