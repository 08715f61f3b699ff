"""From what names a person to what names nobody: the same all day, and found in any text.

A pseudonym is ten hexadecimal digits of a keyed hash (BLAKE2b, RFC 7693): without the key of the day nobody gets from
one to the other, not by trying all addresses there are either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from hashlib import blake2b

#: Pseudonyms that are remembered; the next one is 1.5 us away.
_REMEMBERED = 20_000
_BYTES = 5

#: A mailbox within a text: quoted or not, in any script, at a domain or a literal (RFC 5321 §4.1.2, and looser).
_MAILBOX = re.compile(
    r'(?P<local>"(?:[^"\\\n]|\\.){0,128}"|[^\s<>()\[\],;:"@\\]{1,128})@(?P<domain>[\w.-]{1,255}|\[[^\]\s]{1,64}\])'
)
_LITERAL = re.compile(r"IPv6:([0-9A-F:.]{2,45})", re.ASCII | re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)", re.ASCII)
# Four groups at least, or "::": not the time of day.
_IPV6 = re.compile(
    r"(?<![\w:.])(?:(?:[0-9A-F]{1,4}:){1,7}(?::[0-9A-F]{1,4}){1,7}|(?:[0-9A-F]{1,4}:){7}[0-9A-F]{1,4}"
    r"|::(?:[0-9A-F]{1,4}:){0,6}[0-9A-F]{1,4}|(?:[0-9A-F]{1,4}:){1,7}:)(?![\w:])(?:%\w+)?",
    re.ASCII | re.IGNORECASE,
)
_PATH = re.compile(r"'(/[^'\n]*)'")
_CODE = re.compile(r"[245]\d\d ", re.ASCII)
_PORT = re.compile(r":\d+\Z", re.ASCII)
#: Below these names are those of people's own machines (RFC 6762, RFC 8375, and what routers make up).
_AT_HOME = frozenset(("local", "lan", "home", "internal", "localdomain", "box"))
_NUMBERED = re.compile(r"\A(?:u|ip|n)-[0-9a-f]{10}", re.ASCII)


class Pseudonyms:
    """today: the number of the day and its key.  words: steps of paths that name nobody."""

    def __init__(self, today: Callable[[], tuple[int, bytes]], words: Collection[str] = ()) -> None:
        self._today = today
        self._words = frozenset(words)
        self._day = -1
        self._known: dict[tuple[str, str], str] = {}

    def _of(self, prefix: str, text: str) -> str:
        day, key = self._today()
        if day != self._day or len(self._known) > _REMEMBERED:
            self._day, self._known = day, {}
        found = self._known.get((prefix, text))
        if found is None:
            digest = blake2b(f"{prefix}\0{text}".encode("utf-8", "replace"), digest_size=_BYTES, key=key)
            found = self._known[prefix, text] = f"{prefix}-{digest.hexdigest()}"
        return found

    def address(self, text: str) -> str:
        """A mailbox, in whatever case: its domain stays, unless it is an address itself."""
        local_part, at, domain = text.rpartition("@")
        if not text:
            return ""
        if not at:
            return self.name(text)
        return f"{self.local_part(local_part, domain)}@{self.ip_in(domain)}"

    def local_part(self, text: str, domain: str) -> str:
        """Of a mailbox at that domain."""
        return self._of("u", f"{text.strip(chr(34)).lower()}@{domain.lower()}")

    def name(self, text: str) -> str:
        """A user, a Message-ID, whatever names somebody as a whole. A user called by his address is that address."""
        if "@" in text and not text.startswith("<"):
            return self.address(text)
        return self._of("n", text.lower()) if text else ""

    def ip(self, text: str) -> str:
        """An IP address, with brackets and port or without: neither is kept."""
        host = _PORT.sub("", text) if text.startswith("[") or text.count(":") == 1 else text
        host = host.strip("[]").removeprefix("IPv6:").lower()
        return self._of("ip", host) if any(character.isdigit() or character == ":" for character in host) else text

    def host(self, text: str) -> str:
        """A host name: names of clients have their address or their owner in front, so two labels stay."""
        name = text.lower()
        if name.startswith("[") or _IPV4.fullmatch(name):
            return f"[{self.ip(text)}]"
        labels = name.split(".")
        if name and (not labels[-1] or labels[-1][0].isdigit() or labels[-1] in _AT_HOME):
            return self._of("n", name)
        if not name or name == "localhost" or (len(labels) == 2 and not any(map(str.isdigit, name))):
            return self.text(text)
        return f"{self._of('n', name)}.{'.'.join(labels[-2:])}" if len(labels) > 2 else self._of("n", name)

    def path(self, text: str) -> str:
        """A path: steps that no store of the configuration has are somebody's."""
        return "/".join(
            step if not step or step in self._words or _NUMBERED.match(step) else self._of("n", step.lower())
            for step in text.split("/")
        )

    def ip_in(self, text: str) -> str:
        """A text with its IP addresses replaced."""
        text = _LITERAL.sub(lambda match: self.ip(match[1]), text) if "IP" in text.upper() else text
        text = _IPV4.sub(lambda match: self._of("ip", match[0]), text)
        return _IPV6.sub(lambda match: self._of("ip", match[0].lower()), text) if ":" in text else text

    def text(self, text: str) -> str:
        """Any text: the mailboxes, the IP addresses and the quoted paths in it are replaced."""
        if "@" in text:
            text = _MAILBOX.sub(lambda match: self.address(f"{match['local']}@{match['domain']}"), text)
        if "'/" in text:
            text = _PATH.sub(lambda match: f"'{self.path(match[1])}'", text)
        return self.ip_in(text)

    def said(self, text: str, about: str = "") -> str:
        """A text about this address, or this user: see without_local_part()."""
        return without_local_part(self.text(text), about, self.name(about)) if about else self.text(text)


def without_local_part(text: str, address: str, pseudonym: str) -> str:
    """A text without the local part of this address, also where the other side left the domain out."""
    local_part = (address.rpartition("@")[0] or address).strip('"')
    if not local_part or local_part.lower() not in text.lower():
        return text
    word = re.compile(rf"(?<![\w-]){re.escape(local_part)}(?![\w-])", re.IGNORECASE)
    replaced = pseudonym.rpartition("@")[0] or pseudonym
    # The code and the enhanced code are not about him, even if he is called 550.
    start = 3 if _CODE.match(text) else 0
    return text[:start] + word.sub(lambda _: replaced, text[start:])
