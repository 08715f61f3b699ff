"""Messages as programs make them, and as nobody should."""

from __future__ import annotations

import email
import random
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.dev.reading import Reading, decoded, subject_of


def read(text: str) -> Reading:
    return Reading(text.replace("\n", "\r\n").encode("utf-8", "surrogateescape"))


def see_all(reading: Reading) -> None:
    """Look at everything there is to see."""
    _ = reading.fields, reading.subject, reading.text, reading.html
    for part in reading.attachments:
        assert part.type
        assert part.type.isascii()
        _ = part.text, part.name.encode(), part.content_id.encode()


def test_parts_of_a_usual_message() -> None:
    message = EmailMessage()
    message["Subject"] = "Ünïcode"
    message.set_content("plain\n")
    message.add_alternative('<img src="cid:logo@x">', subtype="html")
    *_, html = message.walk()
    assert isinstance(html, EmailMessage)
    html.add_related(b"PNG", "image", "png", cid="<logo@x>", filename="logo.png")
    message.add_attachment("a,b\n", subtype="csv", filename="tëst.csv")
    reading = Reading(message.as_bytes())
    assert reading.subject == "Ünïcode"
    assert (reading.text, reading.html) == ("plain\n", '<img src="cid:logo@x">\n')
    assert [(one.number, one.type, one.name, one.content_id) for one in reading.attachments] == [
        (2, "image/png", "logo.png", "logo@x"),
        (3, "text/csv", "tëst.csv", ""),
    ]


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        ("=?iso-8859-1?q?Gr=FC=DFe?=", "Grüße"),
        ("Grüße", "Grüße"),
        ("two\n lines", "two lines"),
        ("=?nonsense?q?abc?=", "=?nonsense?q?abc?="),
        ("", ""),
    ],
)
def test_header_fields_are_decoded(field: str, shown: str) -> None:
    assert read(f"Subject: {field}\n\n").subject == shown
    assert subject_of(f"X: y\nSubject: {field}\n".replace("\n", "\r\n").encode()) == shown


def test_field_that_is_not_there() -> None:
    assert read("X: y\n\n").subject == ""
    assert subject_of(b"") == ""


@pytest.mark.parametrize(
    ("octets", "charset", "text"),
    [
        (b"gr\xfc", "latin-1", "grü"),
        ("grü".encode(), "", "grü"),
        (b"gr\xfc", "utf-8", "grü"),
        (b"gr\xfc", "no-such-charset", "grü"),
        (b"abc", "base64", "abc"),
        (b"abc", "a\0b", "abc"),
    ],
)
def test_text_is_decoded_somehow(octets: bytes, charset: str, text: str) -> None:
    assert decoded(octets, charset) == text


HOSTILE = {
    "nothing": "",
    "no header": "\n\njust text",
    "broken base64": "Content-Transfer-Encoding: base64\n\n!!!!",
    "unknown encoding": "Content-Transfer-Encoding: rot13\n\nuryyb",
    "broken type": "Content-Type: text/html;;;=\n\n<p>x",
    "empty type": "Content-Type:\n\nx",
    "type with a line end": 'Content-Type: "te\n xt/html\x07"\n\nx',
    "unknown charset": 'Content-Type: text/plain; charset="\0nonsense"\n\nx',
    "charset of RFC 2231": "Content-Type: text/plain; charset*=us-ascii'en'utf-8\n\nx",
    "multipart without boundary": "Content-Type: multipart/mixed\n\n--x\n\nx",
    "multipart that never ends": "Content-Type: multipart/mixed; boundary=x\n\n--x\n\nx",
    "multipart in base64": "Content-Type: multipart/mixed; boundary=x\nContent-Transfer-Encoding: base64\n\n--x\n\nx",
    "name in pieces": "Content-Type: a/b; name*0*=utf-8''a; name*2=c; name*1=%FF\n\nx",
    "name twice": "Content-Disposition: attachment; filename=a; filename*=x'y'%E4; filename=\"../../b\"\n\nx",
    "disposition of nothing": "Content-Disposition: ;\n\nx",
    "message within nothing": "Content-Type: message/rfc822\n\n",
    "message in base64": "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeA==",
    "report": "Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\nFinal-Recipient: y\n",
    "surrogates": 'Subject: \udcff\udcfe\nContent-Disposition: attachment; filename="\udcff"\n\n\udcff',
    "addresses": 'To: <>,,@;:\nFrom: "\nContent-ID: <a<b>>\nDate: yesterday\nMessage-ID: <[x>\n\nx',
    "uuencoded": "Content-Transfer-Encoding: x-uuencode\n\nbegin 666 x\n!!!\nend",
    "bidi": 'Subject: \u202egpj.exe\nContent-Disposition: attachment; filename="\u202egpj.exe"\n\nx',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=[*HOSTILE])
def test_nothing_raises(text: str) -> None:
    see_all(read(text))


def test_parts_nested_without_end() -> None:
    text = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(1200)) + "\nlast\n"
    reading = read("Subject: deep\n" + text)
    see_all(reading)
    assert reading.subject == "deep"
    assert "--b1\n" in reading.text


def test_as_many_parts_as_can_be_shown() -> None:
    text = "Content-Type: multipart/mixed; boundary=x\n\n" + "--x\nContent-Type: a/b\n\ny\n" * 5000 + "--x--\n"
    assert len(read(text).parts) == 500


@pytest.mark.parametrize("name", ["To", "Subject", "Content-Type", "Content-Disposition", "Message-ID", "X"])
@pytest.mark.parametrize("value", ["a, " * 350_000, "=?utf-8?q?x?= " * 80_000, '"' * 1_000_000, "; a=b" * 200_000])
def test_header_of_a_megabyte_costs_no_minute(name: str, value: str) -> None:
    reading = read(f"{name}: {value}\nSubject: after\n\nx\n")
    see_all(reading)
    assert len(reading.field(name)) <= 32 * 1024
    assert "x" in reading.text or reading.attachments


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_any_octets(raw: bytes) -> None:
    see_all(Reading(raw))


def test_broken_messages_of_all_kinds() -> None:
    """Real messages of the standard library's own tests where they are installed, and ours, each damaged at random."""
    samples = [text.encode("utf-8", "surrogateescape") for text in HOSTILE.values()]
    folder = Path(email.__file__).parent.parent / "test" / "test_email" / "data"
    samples += [path.read_bytes() for path in sorted(folder.glob("*.txt"))[:25]]
    die = random.Random(5)
    for sample in samples:
        for _ in range(6):
            damaged = bytearray(sample or b"x")
            for _ in range(die.randint(1, 8)):
                place = die.randrange(len(damaged))
                damaged[place : place + die.randint(0, 3)] = die.choice(
                    [b"", b"\0", b"\xff", b"\r\n", b"=?", b";", b'"', b"--", b"(", b"multipart/", b"*0*="]
                )
                damaged = damaged or bytearray(b"x")
            see_all(Reading(bytes(damaged)))
