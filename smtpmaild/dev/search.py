"""Which messages somebody means: words, all of which a message must have, and words for one place of it.

    welcome                       somewhere: an address, the Subject, a text
    "good to see"                 with blanks
    to:alice from:@shop.example   a recipient, the sender (of the envelope or the header)
    subject:welcome               the Subject
    has:attachment                with something attached

Case makes no difference. Nothing is an error: what is no such word is looked for as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from smtpmaild.dev.caught import Caught

Matches = Callable[[Caught], bool]

_WORD = re.compile(r'(?:(?P<place>[a-z]+):)?(?:"(?P<quoted>[^"]*)"|(?P<plain>\S+))', re.IGNORECASE)


def _header(message: Caught, *names: str) -> str:
    return " ".join(value for name, value in message.reading.fields if name.lower() in names)


#: Where one word is looked for.
_PLACES: Mapping[str, Callable[[Caught], str]] = {
    "from": lambda message: f"{message.sender} {_header(message, 'from')}",
    "to": lambda message: f"{' '.join(message.recipients)} {_header(message, 'to', 'cc')}",
    "subject": lambda message: message.subject,
    "id": lambda message: message.id,
}


def matcher(query: str) -> Matches:
    """What tells whether a message is one of those."""
    tests = [_test(found) for found in _WORD.finditer(query)]
    return lambda message: all(test(message) for test in tests)


def in_place(place: str, text: str) -> Matches:
    """The same for one text as it is, blanks and quotes included. place: from, to or subject."""
    where, wanted = _PLACES[place], text.lower()
    return lambda message: wanted in where(message).lower()


def _test(found: re.Match[str]) -> Matches:
    place = (found["place"] or "").lower()
    text = found["quoted"] if found["quoted"] is not None else found["plain"]
    if place in _PLACES:
        return in_place(place, text)
    if place == "has" and text.lower() == "attachment":
        return lambda message: bool(message.attachments)
    wanted = (text if not place else found[0]).lower()
    return lambda message: wanted in message.haystack
