from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from smtpmaild.config.paths import Surroundings
from smtpmaild.config.sockets import InheritedSocket, Listen, ListenAddress, TcpAddress, UnixAddress

ADAPTER: TypeAdapter[ListenAddress] = TypeAdapter(Listen)


def parse(value: object) -> ListenAddress:
    return ADAPTER.validate_python(value, context=Surroundings("/etc/smtpmaild"))


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("0.0.0.0:25", TcpAddress("0.0.0.0", 25), "0.0.0.0:25"),
        ("[::]:25", TcpAddress("::", 25), "[::]:25"),
        ("[2001:DB8:0::1]:0", TcpAddress("2001:db8::1", 0), "[2001:db8::1]:0"),
        ("localhost:65535", TcpAddress("localhost", 65535), "localhost:65535"),
        ("MX.example.com:25", TcpAddress("mx.example.com", 25), "mx.example.com:25"),
        ("/run/smtp.sock", UnixAddress("/run/smtp.sock"), "/run/smtp.sock"),
        ("../run/smtp.sock", UnixAddress("/etc/run/smtp.sock"), "/etc/run/smtp.sock"),  # relative to the file
        ("./a:b", UnixAddress("/etc/smtpmaild/a:b"), "/etc/smtpmaild/a:b"),
        ("systemd:smtp", InheritedSocket("smtp"), "systemd:smtp"),
    ],
)
def test_address(text: str, address: ListenAddress, shown: str) -> None:
    assert parse(text) == address
    assert str(address) == shown


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (25, "did you mean '0.0.0.0:25'?"),
        ("*:25", "did you mean '0.0.0.0:25'?"),
        (":2525", "did you mean '0.0.0.0:2525'?"),
        ("smtp.sock", "did you mean './smtp.sock'?"),
        ("99999", "write it as 0.0.0.0:25"),
        ("٢٥", "write it as 0.0.0.0:25"),
        (":::25", "did you mean '[::]:25'?"),
        ("[::1]", "write it as"),
        ("0.0.0.0:+25", "write it as"),
        ("systemd:", "write it as"),
        ("systemd:a b", "write it as"),
        (True, "write it as"),
        (None, "write it as"),
        ("0.0.0.0:65536", "port 65536 is not between 0 and 65535"),
        ("300.0.0.1:25", "'300.0.0.1' is not an IPv4 address"),
        ("[1::2::3]:25", "'1::2::3' is not an IPv6 address"),
        ("[127.0.0.1]:25", "brackets are for IPv6 addresses"),
        ("a..b:25", "'a..b' is not a host name"),
        ("/" + "x" * 107, "may have 107 bytes, not 108"),
        ("/a\0b", "a path"),
    ],
)
def test_no_address(value: object, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(value)
    assert words in str(caught.value)
