"""Reads the replies of a server: RFC 5321 §4.2, bounded in every direction.

A server is a stranger as a client is: it may send lines without end, replies of a million lines, or a web page. What
is no reply is `Strange`, and nothing behind it is read. LF ends a line as CRLF does: no two readers can see different
replies by that, because nothing but us reads them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from smtpmaild.smtp.lines import BadLine, LineBuffer
from smtpmaild.smtp.reply import Reply, printable

# RFC 5321 §4.5.3.1.5 has 512 octets, but RFC 4954 §4 lets a challenge take 12,288. Postfix reads 2,048, Exim 4,096.
LONGEST_LINE = 12_288 + 6
#: EHLO of the most talkative servers takes 30.
MOST_LINES = 100
LONGEST_REPLY = 65_536

# Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
# Reply-code = %x32-35 %x30-35 %x30-39; we take any second digit.
_LINE = re.compile(r"([2-5][0-9]{2})(?:([ -])(.*))?")
# RFC 2034 §4: the enhanced code stands first on every line, and its class is that of the reply.
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")


@dataclass(frozen=True, slots=True)
class Strange:
    """The server does not speak SMTP, or no longer. why: for people."""

    why: str


class ReplyReader:
    """The octets that a server sent and that are no complete reply yet. Its length is 0 between two replies."""

    __slots__ = ("_code", "_lines", "_size", "_texts")

    def __init__(self) -> None:
        self._lines = LineBuffer(LONGEST_LINE, allow_bare_lf=True)
        self._code = ""
        self._texts: list[str] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._lines) + self._size

    def feed(self, data: bytes) -> None:
        """Append what the network brought."""
        self._lines.feed(data)

    def next_reply(self) -> Reply | Strange | None:
        """The next complete reply; None until there is one. Its text is printable ASCII."""
        while (line := self._lines.next_line()) is not None:
            if isinstance(line, BadLine):
                return Strange(f"a reply line of more than {LONGEST_LINE} octets")
            text = printable(line.decode("utf-8", "replace"))
            match = _LINE.fullmatch(text)
            if match is None or (self._texts and match[1] != self._code):
                return Strange(f"no SMTP reply: {text[:200]}")
            self._code = match[1]
            self._texts.append(match[3] or "")
            self._size += len(line) + 2
            if match[2] != "-":
                return self._whole()
            if len(self._texts) == MOST_LINES or self._size > LONGEST_REPLY:
                return Strange(f"a reply of more than {MOST_LINES} lines or {LONGEST_REPLY} octets")
        return None

    def _whole(self) -> Reply:
        code, texts = self._code, self._texts
        self._code, self._texts, self._size = "", [], 0
        found = _ENHANCED.match(texts[0])
        if found is None or found[1][0] != code[0]:
            return Reply(int(code), "", "\n".join(texts))
        enhanced = found[1]
        return Reply(int(code), enhanced, "\n".join(text.removeprefix(enhanced).lstrip(" ") for text in texts))
