"""Makes a 7-bit message of an 8-bit one, for servers without 8BITMIME (RFC 6152 §3): its parts that hold 8-bit octets
become quoted-printable if they are text, else base64. Everything else stays as it is, octet for octet.

What cannot be done without harm is not done: DowngradeError says why, and the message goes back as if nobody had tried.
That is anything signed or encrypted, 8-bit octets where no encoding can be declared (header fields, between the parts,
in a message that is not MIME), and lines that no line end closes.

The message is read line by line, each part twice: never in memory as a whole.
"""

from __future__ import annotations

import base64
import binascii
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from typing import BinaryIO

from smtpmaild.queue import Body

#: Octets of a line; beyond it is no line.
_LONGEST_LINE = 64 * 1024
#: How deep parts may be nested: each level costs a comparison for each line.
_DEEPEST = 50
#: A multiple of 57, the octets of a base64 line (RFC 2045 §6.8: 76 characters).
_BASE64_BLOCK = 57 * 512

_PLAIN_ENCODINGS = frozenset(("7bit", "8bit", "binary"))
#: Whoever changes a part of these breaks a signature, or what is encrypted.
_SIGNED_TYPES = frozenset(("multipart/signed", "multipart/encrypted"))
_SIGNED_PREFIXES = ("application/pkcs7-", "application/x-pkcs7-", "application/pgp-")
_SIGNATURES = frozenset(("dkim-signature", "arc-message-signature", "domainkey-signature"))

_parser = BytesHeaderParser()


class DowngradeError(Exception):
    """It cannot be done; the text says why."""


class SevenBitBody:
    """What became of it, in a file without a name; to be closed."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self._file = file

    def open(self) -> BinaryIO:
        """One reader at a time."""
        self._file.seek(0)
        return os.fdopen(os.dup(self._file.fileno()), "rb")

    def close(self) -> None:
        self._file.close()


def downgrade(body: Body) -> SevenBitBody:
    """Raises DowngradeError and OSError. Blocks."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  the body closes it
    try:
        with body.open() as source:
            _Rewriter(source, file.write).message(())
        file.flush()
        return SevenBitBody(file, file.tell())
    except BaseException:
        file.close()
        raise


@dataclass(frozen=True, slots=True)
class _Delimiter:
    """A line between parts. level: whose boundary it is, 0 for the outermost."""

    line: bytes
    level: int
    is_last: bool


class _Rewriter:
    """boundaries, in all of its methods: those of the multiparts around, the outermost first. Each method ends at one
    of their delimiters and returns it, or None at the end of the message."""

    def __init__(self, source: BinaryIO, write: Callable[[bytes], object]) -> None:
        self._source = source
        self._write = write

    def message(self, boundaries: Sequence[bytes]) -> _Delimiter | None:
        return self._entity(boundaries, "text/plain", is_message=True)

    def _entity(self, boundaries: Sequence[bytes], default_type: str, *, is_message: bool = False) -> _Delimiter | None:
        fields, end = self._header(boundaries)
        header = _parser.parsebytes(b"".join(fields))
        header.set_default_type(default_type)
        if is_message and _SIGNATURES.intersection(name.lower() for name in header):
            raise DowngradeError("it is signed")
        kind = header.get_content_type()
        if kind in _SIGNED_TYPES or kind.startswith(_SIGNED_PREFIXES):
            raise DowngradeError(f"it has a part of type {kind}")
        if end is not None:
            self._write(b"".join(fields))
            return end
        encoding = str(header.get("Content-Transfer-Encoding", "7bit")).strip().lower()
        boundary = header.get_boundary() if header.get_content_maintype() == "multipart" else None
        if boundary and encoding in _PLAIN_ENCODINGS:
            self._write(b"".join(_with_encoding(fields, "7bit", only_if="8bit binary")) + b"\r\n")
            part_type = "message/rfc822" if kind == "multipart/digest" else "text/plain"
            return self._multipart([*boundaries, boundary.encode("ascii", "replace")], part_type)
        if kind == "message/rfc822" and encoding in _PLAIN_ENCODINGS:
            self._write(b"".join(_with_encoding(fields, "7bit", only_if="8bit binary")) + b"\r\n")
            return self.message(boundaries)
        return self._leaf(fields, header, encoding, boundaries, is_message=is_message)

    def _header(self, boundaries: Sequence[bytes]) -> tuple[list[bytes], _Delimiter | None]:
        """Its fields, up to the empty line; a delimiter where there is no empty line before it."""
        fields: list[bytes] = []
        while line := self._line():
            if (delimiter := _delimiter(line, boundaries)) is not None:
                return fields, delimiter
            if line == b"\r\n":
                return fields, None
            if not line.isascii():
                raise DowngradeError("it has a header field beyond ASCII")
            if line[:1] in b" \t" and fields:
                fields[-1] += line
            else:
                fields.append(line)
        return fields, None

    def _multipart(self, boundaries: Sequence[bytes], part_type: str) -> _Delimiter | None:
        level = len(boundaries) - 1
        if level >= _DEEPEST:
            raise DowngradeError("its parts are nested too deep")
        end = self._copy(boundaries)
        while end is not None and end.level == level and not end.is_last:
            self._write(end.line)
            end = self._entity(boundaries, part_type)
        if end is None or end.level < level:
            return end
        self._write(end.line)
        return self._copy(boundaries[:-1])

    def _copy(self, boundaries: Sequence[bytes]) -> _Delimiter | None:
        """What stands before the first part and behind the last."""
        while line := self._line():
            if (delimiter := _delimiter(line, boundaries)) is not None:
                return delimiter
            if not line.isascii():
                raise DowngradeError("it has octets beyond ASCII outside of its parts")
            self._write(line)
        return None

    def _leaf(
        self, fields: list[bytes], header: Message, encoding: str, boundaries: Sequence[bytes], *, is_message: bool
    ) -> _Delimiter | None:
        is_binary = encoding == "binary"
        if self._is_ascii(boundaries) and not is_binary:
            self._write(b"".join(_with_encoding(fields, "7bit", only_if="8bit")) + b"\r\n")
            return self._copy(boundaries)
        if encoding not in _PLAIN_ENCODINGS:
            raise DowngradeError(f"it has a part in {encoding} with octets beyond ASCII")
        if is_message and "MIME-Version" not in header:
            raise DowngradeError("it is not a MIME message")
        if header.get_content_maintype() == "text" and not is_binary:
            self._write(b"".join(_with_encoding(fields, "quoted-printable")) + b"\r\n")
            return self._quoted_printable(boundaries)
        self._write(b"".join(_with_encoding(fields, "base64")) + b"\r\n")
        return self._base64(boundaries)

    def _is_ascii(self, boundaries: Sequence[bytes]) -> bool:
        """Up to its end; looked at in advance."""
        begin = self._source.tell()
        try:
            while (line := self._line()) and _delimiter(line, boundaries) is None:
                if not line.isascii():
                    return False
            return True
        finally:
            self._source.seek(begin)

    def _quoted_printable(self, boundaries: Sequence[bytes]) -> _Delimiter | None:
        while line := self._line():
            if (delimiter := _delimiter(line, boundaries)) is not None:
                return delimiter
            text = line.removesuffix(b"\r\n")
            encoded = binascii.b2a_qp(text + b"\r\n", istext=True)  # where it finds CRLF it breaks lines by CRLF
            self._write(encoded if text != line else encoded.removesuffix(b"\r\n"))
        return None

    def _base64(self, boundaries: Sequence[bytes]) -> _Delimiter | None:
        data, delimiter = b"", None
        while line := self._line():
            if (delimiter := _delimiter(line, boundaries)) is not None:
                data = data.removesuffix(b"\r\n")  # RFC 2046 §5.1.1: it belongs to the boundary
                break
            data += line
            if len(data) > _BASE64_BLOCK + 2:
                self._write(_base64_lines(data[:_BASE64_BLOCK]))
                data = data[_BASE64_BLOCK:]
        self._write(_base64_lines(data))
        return delimiter

    def _line(self) -> bytes:
        """The next one with its CRLF, which only the last may lack; b"" at the end."""
        line = self._source.readline(_LONGEST_LINE)
        text = line.removesuffix(b"\r\n")
        if b"\r" in text or b"\n" in text or (text == line and len(line) == _LONGEST_LINE):
            raise DowngradeError("it has lines without CRLF")
        return line


def _delimiter(line: bytes, boundaries: Sequence[bytes]) -> _Delimiter | None:
    # RFC 2046 §5.1.1: delimiter := CRLF "--" boundary; close-delimiter := delimiter "--"; both with white space behind.
    if not line.startswith(b"--"):
        return None
    text = line[2:].rstrip(b" \t\r\n")
    for level in reversed(range(len(boundaries))):
        if text.startswith(boundaries[level]) and text[len(boundaries[level]) :] in (b"", b"--"):
            return _Delimiter(line, level, text.endswith(b"--") and text != boundaries[level])
    return None


def _with_encoding(fields: Sequence[bytes], encoding: str, *, only_if: str = "") -> list[bytes]:
    """The fields with this Content-Transfer-Encoding; only_if: in place of one of these, else as they are."""
    changed = f"Content-Transfer-Encoding: {encoding}\r\n".encode()
    found: list[bytes] = []
    for field in fields:
        name, _, value = field.partition(b":")
        if name.strip().lower() != b"content-transfer-encoding":
            found.append(field)
        elif not only_if or value.strip().lower().decode() in only_if.split():
            found.append(changed)
        else:
            found.append(field)
    return found if only_if or changed in found else [*found, changed]


def _base64_lines(data: bytes) -> bytes:
    encoded = base64.b64encode(data)
    return b"".join(encoded[at : at + 76] + b"\r\n" for at in range(0, len(encoded), 76))
