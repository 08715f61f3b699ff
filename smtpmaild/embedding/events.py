"""The events of a session as callbacks know them: name -> what a callback gets, and the codes it may leave out.

One table, from which the code looks up and the documentation is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from smtpmaild.dialogue import CONNECTION_LOST
from smtpmaild.policy.chain import Event
from smtpmaild.smtp.reply import COMMAND_OK, Reply


def _none(*_passed: object) -> tuple[object, ...]:
    return ()


def _argument(_session: object, argument: object) -> tuple[object, ...]:
    return (argument,)


@dataclass(frozen=True, slots=True)
class EventRow:
    """arguments: what a callback gets behind the session, in words.  pick: makes them of what the chain passes to
    every step of this event.  success, failure: the codes where a callback names none.  agreed: the reply to True
    without words where the protocol's own reply is a refusal, or None.  is_plain: its replies carry no enhanced code.
    """

    arguments: str = ""
    pick: Callable[..., tuple[object, ...]] = _none
    success: int = 250
    failure: int = 550
    agreed: Reply | None = None
    is_plain: bool = False

    def takes(self, code: int, *, success: bool) -> bool:
        """True if the code says what the success says, for the peer and for the protocol."""
        if not success or self.success >= 400:  # timeout and linetobig end in an error even when all went well
            return code >= 400
        return code // 100 == self.success // 100


# RFC 2034 §4: no enhanced status code in the greeting and in the replies to HELO, EHLO and LHLO.
EVENTS: Mapping[Event, EventRow] = {
    Event.BANNER: EventRow(success=220, failure=554, is_plain=True),
    Event.HELO: EventRow("host name", lambda session: (session.hello,), is_plain=True),
    # The keyword lines are added by the session, which knows them.
    Event.EHLO: EventRow("host name, list of keyword lines", lambda session: (session.hello,), is_plain=True),
    Event.LHLO: EventRow("host name, list of keyword lines", lambda session: (session.hello,), is_plain=True),
    Event.MAIL: EventRow("reverse-path", lambda transaction: (transaction.envelope.reverse_path,)),
    Event.RCPT: EventRow("forward-path", _argument),
    Event.DATA_INIT: EventRow(success=354),
    Event.DATA_PART: EventRow("bytes of this part", _argument),
    Event.DATA: EventRow("content (Lmtp: content, recipient)", lambda _transaction, *passed: passed),
    Event.RSET: EventRow(),
    Event.NOOP: EventRow(),
    Event.VRFY: EventRow("rest of the line", _argument, agreed=COMMAND_OK),
    Event.EXPN: EventRow("rest of the line", _argument, agreed=COMMAND_OK),
    Event.HELP: EventRow("rest of the line", _argument, success=214),
    Event.SEND: EventRow(agreed=COMMAND_OK),
    Event.SOML: EventRow(agreed=COMMAND_OK),
    Event.SAML: EventRow(agreed=COMMAND_OK),
    Event.TURN: EventRow(agreed=COMMAND_OK),
    Event.QUIT: EventRow(success=221),
    Event.XFORWARD: EventRow("dict of all values so far", _argument),
    Event.STARTTLS: EventRow(success=220),  # TLS stands already, what it says is not sent
    Event.TIMEOUT: EventRow(success=421),
    Event.LINE_TOO_LONG: EventRow(success=500),
    Event.STOP_SESSION: EventRow(
        "error text or None", lambda _session, reason: (None if reason in ("", CONNECTION_LOST) else reason,)
    ),
}
_BY_NAME = {event.value.lower(): event for event in Event}


def event_of(name: str) -> Event:
    """The event of this name, in any case. Raises ValueError if there is none."""
    found = _BY_NAME.get(name.lower())
    if found is None:
        raise ValueError(f"there is no event {name!r}; there are {', '.join(event.value for event in Event)}")
    return found
