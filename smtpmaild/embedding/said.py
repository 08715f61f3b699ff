"""From what a callback returned to what the chain understands: a Reply, None for no opinion, or a coroutine of these.

What a callback returns that is none of the forms below raises TypeError or ValueError. The chain treats that as any
exception of a callback: it is logged and answered 451, so a slip of a program never accepts mail.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from smtpmaild.embedding.events import EVENTS
from smtpmaild.policy import Answer, Verdict
from smtpmaild.policy.chain import Event
from smtpmaild.smtp.reply import Reply

#: What a callback may return: see the package.
Said = None | bool | Reply | Sequence[object]
Callback = Callable[..., Said | Awaitable[Said]]

# A text that begins with an enhanced status code brings it along: "5.1.1 No such user".
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3}) (.*)", re.ASCII | re.DOTALL)


def verdict(said: Said | Awaitable[Said], event: Event, failure: str = "Failure") -> Answer:
    """What a callback of this event said. failure: the text of a refusal without words."""
    return _awaited(said, event, failure) if isinstance(said, Awaitable) else _verdict(said, event, failure)


async def _awaited(said: Awaitable[Said], event: Event, failure: str) -> Verdict:
    return _verdict(await said, event, failure)


def _verdict(said: Said, event: Event, failure: str) -> Verdict:
    if said is None:
        return None
    if isinstance(said, Reply):
        _check(event, said.is_positive or EVENTS[event].success >= 400, said.code)
        return said
    success, code, text = _three(said)
    if success is None:
        return None
    if success and code is None and text is None:
        return EVENTS[event].agreed
    return _reply(event, bool(success), code, text, failure)


def _three(said: object) -> tuple[object, object, object]:
    """Success, code, text; what was left out is None."""
    if isinstance(said, bool):
        return said, None, None
    if not isinstance(said, tuple | list) or not 1 <= len(said) <= 3:
        raise TypeError(f"a callback returns None, True, False, a Reply or (success, code, text), not {said!r}")
    success, code, text = (*said, None, None)[:3]
    return success, code, text


def _reply(event: Event, success: bool, code: object, text: object, failure: str) -> Reply:
    row = EVENTS[event]
    if code is None:
        code = row.success if success else row.failure
    if not isinstance(code, int):
        raise TypeError(f"a reply code is a number, not {code!r}")
    _check(event, success, code)
    if text is None:
        text = "Ok" if code < 400 else failure
    return reply_of(code, text, is_plain=row.is_plain)


def _check(event: Event, success: bool, code: int) -> None:
    if not EVENTS[event].takes(code, success=success):
        raise ValueError(f"reply code {code} is no {'success' if success else 'failure'} of {event.value}")


def reply_of(code: int, text: object, *, is_plain: bool = False, enhanced: str = "") -> Reply:
    """The reply of a code and a text or list of lines.

    Its enhanced code is what the text begins with, else the one given, else X.0.0; a 3yz and plain events have none.
    """
    words = "\n".join(map(str, text)) if isinstance(text, list | tuple) else str(text)
    kind = str(code)[0]
    found = _ENHANCED.fullmatch(words)
    if found and found[1][0] == kind:
        return Reply(code, found[1], found[2])
    if is_plain or kind == "3":
        return Reply(code, "", words)
    return Reply(code, enhanced if enhanced[:1] == kind else f"{kind}.0.0", words)
