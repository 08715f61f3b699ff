"""The states of a server session and the two tables that rule them: what may come, and what follows.

Everything that moves the state is here. `REFUSALS` says which verb is out of order in which state, and how that is
answered; `NEXT` says where a cause leads. A pair that is missing in REFUSALS is allowed; one that is missing in NEXT
stays where it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from smtpmaild.smtp import reply
from smtpmaild.smtp.reply import Reply


class State(Enum):
    """Where in RFC 5321 §4.1.4 ("Order of Commands") a session is."""

    # Members are compared by identity; Enum's own hash is a Python function, 70 ns for each look-up in a table.
    __hash__ = object.__hash__

    CONNECTED = "nothing was said yet"
    REFUSED = "the banner was 554: only QUIT is left"
    START = "the banner was sent"
    READY = "greeted, no transaction"
    SENDER = "MAIL was accepted"
    RECIPIENT = "at least one RCPT was accepted"
    DATA = "a body follows, up to its dot"
    CHUNKS = "at least one BDAT was accepted, LAST has not come"
    CHUNKS_FAILED = "a BDAT was refused: the rest of its message is read and dropped"
    AUTHENTICATING = "334 was sent: the next line is a response, not a command"
    UPGRADING = "220 was sent to STARTTLS: what comes in clear is not looked at"
    CLOSED = "nothing that arrives is looked at any more"


class Cause(Enum):
    """What moves a session. The verbs' names stand for their acceptance."""

    __hash__ = object.__hash__

    BANNER = "banner sent"
    BANNER_REFUSED = "banner 5yz"
    HELLO = "HELO, EHLO or LHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "first BDAT"
    CHUNK_REFUSED = "a BDAT answered 4yz or 5yz"
    END = "the message ended, whatever came of it"
    RSET = "RSET"
    CHALLENGE = "334 to AUTH or to a response"
    AUTH_END = "the end of AUTH, whoever it is"
    XCLIENT = "XCLIENT"
    XCLIENT_REFUSED = "the client that XCLIENT named was answered 5yz"
    STARTTLS = "STARTTLS"
    SECURED = "the TLS handshake is done"
    CLOSE = "QUIT, 421 or the end of the connection"


# RFC 5321 §3.1: after 554 "the server MUST wait for the client to send a QUIT before closing the connection and
# SHOULD respond to any intervening commands with '503 bad sequence of commands'".
_AFTER_REFUSAL = {State.REFUSED: reply.BAD_SEQUENCE}
# In the middle of a BDAT sequence only BDAT, RSET, QUIT and what changes nothing (RFC 3030 §2).
_BETWEEN_CHUNKS = {State.CHUNKS: reply.BAD_SEQUENCE, State.CHUNKS_FAILED: reply.BAD_SEQUENCE}
_BEFORE_MAIL = {State.START: reply.HELLO_FIRST, State.READY: reply.MAIL_FIRST}

#: (verb, state) -> the reply to a command that is out of order.
REFUSALS: Mapping[str, Mapping[State, Reply]] = {
    "HELO": _AFTER_REFUSAL,
    "EHLO": _AFTER_REFUSAL,
    "LHLO": _AFTER_REFUSAL,
    "MAIL": {
        **_AFTER_REFUSAL,
        **_BETWEEN_CHUNKS,
        State.START: reply.HELLO_FIRST,
        State.SENDER: reply.NESTED_MAIL,
        State.RECIPIENT: reply.NESTED_MAIL,
    },
    "RCPT": {**_AFTER_REFUSAL, **_BETWEEN_CHUNKS, **_BEFORE_MAIL},
    "DATA": {**_AFTER_REFUSAL, **_BETWEEN_CHUNKS, **_BEFORE_MAIL, State.SENDER: reply.NO_VALID_RECIPIENTS},
    "BDAT": {
        **_AFTER_REFUSAL,
        **_BEFORE_MAIL,
        State.SENDER: reply.NO_VALID_RECIPIENTS,
        State.CHUNKS_FAILED: reply.BAD_SEQUENCE,
    },
    "XFORWARD": {
        **_AFTER_REFUSAL,
        **_BETWEEN_CHUNKS,
        State.START: reply.HELLO_FIRST,
        State.SENDER: reply.BAD_SEQUENCE,
        State.RECIPIENT: reply.BAD_SEQUENCE,
    },
    # XCLIENT_README: at any time, "except in the middle of a mail delivery transaction".
    "XCLIENT": {
        **_AFTER_REFUSAL,
        **_BETWEEN_CHUNKS,
        State.SENDER: reply.BAD_SEQUENCE,
        State.RECIPIENT: reply.BAD_SEQUENCE,
    },
    # RFC 4954 §4: "The AUTH command is not permitted during a mail transaction."
    "AUTH": {
        **_AFTER_REFUSAL,
        **_BETWEEN_CHUNKS,
        State.START: reply.AUTH_NEEDS_EHLO,
        State.SENDER: reply.BAD_SEQUENCE,
        State.RECIPIENT: reply.BAD_SEQUENCE,
    },
    # RFC 1985 §5: after EHLO, at any time but within a transaction.
    "ETRN": {
        **_AFTER_REFUSAL,
        **_BETWEEN_CHUNKS,
        State.START: reply.HELLO_FIRST,
        State.SENDER: reply.BAD_SEQUENCE,
        State.RECIPIENT: reply.BAD_SEQUENCE,
    },
    "STARTTLS": {**_AFTER_REFUSAL, **_BETWEEN_CHUNKS},
    "QUIT": {},
}
_IN_LMTP = {
    reply.HELLO_FIRST: reply.LHLO_FIRST,
    reply.AUTH_NEEDS_EHLO: reply.LHLO_FIRST,
    reply.NO_VALID_RECIPIENTS: reply.LMTP_NO_VALID_RECIPIENTS,
}
#: The same in the words of LMTP.
LMTP_REFUSALS: Mapping[str, Mapping[State, Reply]] = {
    verb: {state: _IN_LMTP.get(refusal, refusal) for state, refusal in row.items()} for verb, row in REFUSALS.items()
}
#: For every verb without a row of its own: NOOP, RSET, VRFY, EXPN, HELP, TURN, those of extensions.
OTHER_REFUSALS: Mapping[State, Reply] = _AFTER_REFUSAL

_BEFORE_TLS = (State.START, State.READY, State.SENDER, State.RECIPIENT)
_GREETED = {
    State.READY: State.READY,
    State.SENDER: State.READY,
    State.RECIPIENT: State.READY,
    State.DATA: State.READY,
    State.CHUNKS: State.READY,
    State.CHUNKS_FAILED: State.READY,
}

#: (cause, state) -> the next state.
NEXT: Mapping[Cause, Mapping[State, State]] = {
    Cause.BANNER: {State.CONNECTED: State.START},
    Cause.BANNER_REFUSED: {State.CONNECTED: State.REFUSED},
    Cause.HELLO: {State.START: State.READY, **_GREETED},
    Cause.MAIL: {State.READY: State.SENDER},
    Cause.RCPT: {State.SENDER: State.RECIPIENT},
    Cause.DATA: {State.RECIPIENT: State.DATA},
    Cause.BDAT: {State.RECIPIENT: State.CHUNKS},
    Cause.CHUNK_REFUSED: {State.RECIPIENT: State.CHUNKS_FAILED, State.CHUNKS: State.CHUNKS_FAILED},
    Cause.END: _GREETED,
    # RFC 5321 §4.1.1.5: RSET forgets sender, recipients and mail data, not the greeting.
    Cause.RSET: _GREETED,
    Cause.CHALLENGE: {State.READY: State.AUTHENTICATING},
    Cause.AUTH_END: {State.AUTHENTICATING: State.READY},
    Cause.XCLIENT: {State.START: State.START, State.READY: State.START},
    Cause.XCLIENT_REFUSED: {State.START: State.REFUSED, State.READY: State.REFUSED},
    Cause.STARTTLS: dict.fromkeys(_BEFORE_TLS, State.UPGRADING),
    # RFC 3207 §4.2: "Upon completion of the TLS handshake, the SMTP protocol is reset to the initial state (the state
    # in SMTP after a server issues a 220 service ready greeting)." Where TLS came first, the greeting is still to come.
    Cause.SECURED: {State.UPGRADING: State.START},
    Cause.CLOSE: dict.fromkeys(State, State.CLOSED),
}
