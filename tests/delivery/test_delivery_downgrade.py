"""8-bit messages for 7-bit servers: what a library that is not ours reads is the same before and after."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.message import Message

import pytest
from delivering import EIGHT_BIT, MESSAGE, Bytes, Script, Unreadable, closing, recipients, run, serving, shared, shown
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.delivery import downgrade as module
from smtpmaild.delivery.builtin import build
from smtpmaild.delivery.downgrade import DowngradeError, downgrade
from smtpmaild.delivery.smtp import SmtpOptions
from smtpmaild.envelope import BodyType
from smtpmaild.queue import QueuedMessage

TOP = b"Received: by x\r\n\twith y\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
UTF8 = "Grüße,\r\n.\r\nFrom Jürgen\t \r\n=3D ".encode() + "ä".encode() * 100 + b"\r\n"


def downgraded(octets: bytes) -> bytes:
    body = downgrade(Bytes(octets))
    try:
        with body.open() as stream:
            first = stream.read()
        with body.open() as stream:
            assert stream.read() == first
        assert body.size == len(first)
        return first
    finally:
        body.close()


def leaves(octets: bytes) -> Iterator[tuple[str, object]]:
    """Type and decoded content of each part that has no parts."""
    message: Message = email.message_from_bytes(octets, policy=email.policy.compat32)
    for part in message.walk():
        if not part.is_multipart():
            yield part.get_content_type(), part.get_payload(decode=True)


def part(kind: str, body: bytes, encoding: str = "8bit") -> bytes:
    declared = f"Content-Transfer-Encoding: {encoding}\r\n" if encoding else ""
    return f"Content-Type: {kind}\r\n{declared}\r\n".encode() + body


def multipart(*parts: bytes, kind: str = "mixed", boundary: str = "b", encoding: str = "8bit") -> bytes:
    inner = b"".join(f"--{boundary}\r\n".encode() + one + b"\r\n" for one in parts)
    header = f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n'
    return f"{header}Content-Transfer-Encoding: {encoding}\r\n\r\n".encode() + inner + f"--{boundary}--\r\n".encode()


WHOLE = {
    "text": TOP + part("text/plain; charset=utf-8", UTF8),
    "no encoding is declared": TOP + part("text/plain; charset=utf-8", UTF8, ""),
    "no line end": TOP + part("text/plain; charset=utf-8", UTF8[:-2]),
    "not text": TOP + part("application/xml", UTF8),
    "not text, no line end": TOP + part("application/xml", UTF8[:-2]),
    "large and not text": TOP + part("image/x", b"\xff" * 70 + b"\r\n" + (b"\xfe" * 75 + b"\r\n") * 2000),
    "binary": TOP + part("text/plain", b"\x00ascii\r\n", "binary"),
    "nothing to do": TOP + part("text/plain", b"ascii\r\n"),
    "encoded already": TOP + part("text/plain", b"=C3=A4\r\n", "quoted-printable"),
    "no body": TOP + b"Content-Transfer-Encoding: 8bit\r\n",
    "parts": TOP
    + multipart(
        part("text/plain; charset=utf-8", UTF8),
        part("application/xml", UTF8),
        part("application/xml", UTF8 + b"\r\n"),
        part("text/plain", b"ascii", "7bit"),
        part("image/png", b"iVBORw0KGgo=\r\n", "base64"),
        multipart(part("text/plain", UTF8), part("text/html", UTF8), kind="alternative", boundary="b2"),
        part("message/rfc822", TOP + part("text/plain", UTF8)),
        part("message/rfc822", TOP + multipart(part("text/plain", UTF8), boundary="b3"), ""),
        b"\r\n" + b"no header at all\r\n",
    )
    + b"epilogue\r\n",
    "an inner multipart without end": TOP
    + b'Content-Type: multipart/mixed; boundary="o"\r\n\r\npreamble\r\n--o\r\n'
    + b'Content-Type: multipart/mixed; boundary="i"\r\n\r\n--i\r\n'
    + part("text/plain", UTF8)
    + b"--o--\r\n",
    "digest": TOP + multipart(b"\r\n" + TOP + part("text/plain", UTF8), kind="digest"),
    "boundaries that look like one another": TOP
    + multipart(multipart(part("text/plain", UTF8 + b"--b\r\n"[:2]), boundary="bb"), boundary="b"),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_the_content_is_the_same(name: str) -> None:
    before = WHOLE[name]
    after = downgraded(before)
    assert after.isascii()
    assert b"8bit" not in after and b"binary" not in after
    assert all(len(line) <= 998 for line in after.split(b"\r\n"))
    assert after.count(b"\n") == after.count(b"\r\n") == after.count(b"\r")
    expected, found = list(leaves(before)), list(leaves(after))
    assert [kind for kind, _ in found] == [kind for kind, _ in expected]
    assert found == expected


def test_what_is_ascii_stays_octet_for_octet() -> None:
    whole = TOP + multipart(
        part("text/plain", b"a  \r\n=20\r\n", "7bit"), part("text/x", b"=41\r\n", "quoted-printable")
    )
    assert downgraded(whole) == whole.replace(b"8bit", b"7bit")


CANNOT = {
    "signed": (TOP + multipart(part("text/plain", UTF8), kind="signed"), "it has a part of type multipart/signed"),
    "encrypted": (TOP + multipart(kind="encrypted"), "it has a part of type multipart/encrypted"),
    "smime": (TOP + part("application/pkcs7-mime", b"\xff"), "it has a part of type application/pkcs7-mime"),
    "dkim": (b"DKIM-Signature: v=1\r\n" + TOP + part("text/plain", UTF8), "it is signed"),
    "dkim within": (
        TOP + part("message/rfc822", b"dkim-signature: v=1\r\n" + TOP + part("text/plain", UTF8)), "it is signed"
    ),
    "header": ("Subject: ä\r\n\r\n".encode(), "it has a header field beyond ASCII"),
    "header of a part": (
        TOP + multipart("X: ä\r\n\r\n".encode()), "it has a header field beyond ASCII"
    ),
    "preamble": (
        TOP + 'Content-Type: multipart/mixed; boundary=b\r\n\r\nä\r\n--b--\r\n'.encode(),
        "it has octets beyond ASCII outside of its parts",
    ),
    "epilogue": (TOP + multipart() + "ä\r\n".encode(), "it has octets beyond ASCII outside of its parts"),
    "no boundary": (
        TOP + "Content-Type: multipart/mixed\r\nContent-Transfer-Encoding: x\r\n\r\nä\r\n".encode(),
        "it has a part in x with octets beyond ASCII",
    ),
    "wrongly encoded": (
        TOP + part("text/plain", UTF8, "base64"), "it has a part in base64 with octets beyond ASCII"
    ),
    "no MIME": (b"Subject: x\r\n\r\n" + UTF8, "it is not a MIME message"),
    "bare line feed": (TOP + part("text/plain", "ä\nä\r\n".encode()), "it has lines without CRLF"),
    "bare carriage return": (TOP + part("text/plain", "ä\rä\r\n".encode()), "it has lines without CRLF"),
    "endless line": (TOP + part("text/plain", b"x" * 70_000), "it has lines without CRLF"),
    "deep": (
        TOP + b"".join(f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n".encode() for n in range(60)),
        "its parts are nested too deep",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_done_without_harm(name: str) -> None:
    octets, why = CANNOT[name]
    with pytest.raises(DowngradeError, match=f"^{why}$"):
        downgrade(Bytes(octets))


def test_file_that_cannot_be_read() -> None:
    with pytest.raises(OSError, match="No such file"):
        downgrade(Unreadable())


LINES = st.lists(
    st.sampled_from([b"", b".", b"a", b" ", b"\t", b"=", b"--b", b"--", b"From x", "ä".encode(), b"\xff" * 80])
)


@settings(deadline=None)
@given(LINES, st.sampled_from(["text/plain", "application/x"]))
def test_any_body(lines: list[bytes], kind: str) -> None:
    whole = TOP + part(kind, b"\r\n".join(lines))
    assert list(leaves(downgraded(whole))) == list(leaves(whole))


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"--b", b"--b--", b"--c", b"--c--", b"", "ä".encode(), b"Content-Type: text/plain",
    b"Content-Type: multipart/mixed; boundary=c", b"Content-Transfer-Encoding: 8bit", b"x"]), max_size=30))  # fmt: skip
def test_any_structure_ends_or_is_refused(lines: list[bytes]) -> None:
    whole = TOP + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"\r\n".join(lines)
    try:
        assert downgraded(whole).isascii()
    except DowngradeError:
        pass


def test_blocks_meet_at_base64_lines() -> None:
    assert module._BASE64_BLOCK % 57 == 0


def outcome_of(message: QueuedMessage, how: str) -> tuple[str, bytes]:
    found: list[str] = []
    taken: list[bytes] = []

    async def work() -> None:
        async with serving(Script(("SIZE 0",))) as peer:
            options = SmtpOptions(host="127.0.0.1", port=peer.port, eight_bit=how)
            async with closing(build(options, shared())) as agent:
                found.extend(shown(await agent.deliver(message, recipients("a@x.example"))))
            taken.extend(one.body for one in peer.taken)
            found[0] = found[0].replace(f"[127.0.0.1]:{peer.port}: ", "")

    run(work())
    return found[0], b"".join(taken)


def test_server_that_takes_no_8_bit() -> None:
    message = QueuedMessage("Q", MESSAGE.reverse_path, 0.0, Bytes(WHOLE["parts"]), body_type=BodyType.EIGHT_BIT_MIME)
    refused = "554 5.6.3 The next hop does not take 8-bit messages (8BITMIME)"
    assert outcome_of(message, "bounce") == (refused, b"")
    reply, taken = outcome_of(message, "downgrade")
    assert reply == "250 2.0.0 taken"
    assert list(leaves(taken)) == list(leaves(WHOLE["parts"]))
    assert outcome_of(EIGHT_BIT, "downgrade") == (
        f"{refused}, and it cannot be changed: it is not a MIME message", b""
    )  # fmt: skip
