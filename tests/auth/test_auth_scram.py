"""SCRAM as RFC 7677 shows it, as another library speaks it, and as nobody should."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramMechanism
from scramp.core import ScramClient

from smtpmaild.auth import ChannelBinding
from smtpmaild.auth.scram import SCRAM, SCRAM_PLUS, ScramError, ScramKeys, ScramServer

# RFC 7677 §3
USER, PASSWORD = "user", "pencil"
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
WITHOUT_PROOF = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FINAL = WITHOUT_PROOF + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
KEYS = ScramKeys.of_password(PASSWORD, SALT, 4096)
EXPORTER = ChannelBinding("tls-exporter", b"\x01" * 32)
#: What a client that can bind, and was not offered it, sends (RFC 5802 §6).
WOULD_BIND = b"y,,n=user,r=abc"


def server(mechanism: str = SCRAM, binding: ChannelBinding | None = None) -> ScramServer:
    return ScramServer(mechanism, binding, SERVER_NONCE)


def test_exchange_of_the_rfc() -> None:
    exchange = server()
    assert exchange.read_first(CLIENT_FIRST) == USER
    assert exchange.challenge(KEYS) == SERVER_FIRST
    assert exchange.read_final(CLIENT_FINAL) == SERVER_FINAL


def test_with_another_implementation() -> None:
    client = ScramClient(["SCRAM-SHA-256"], "al,i=ce", "secret \u2168", c_nonce="abc")
    keys = ScramKeys.of_password("secret IX", b"0123456789abcdef", 5000)  # SASLprep
    exchange = server()
    assert exchange.read_first(client.get_client_first().encode()) == "al,i=ce"
    client.set_server_first(exchange.challenge(keys).decode())
    client.set_server_final(exchange.read_final(client.get_client_final().encode()).decode())


def test_bound_with_another_implementation() -> None:
    binding = ChannelBinding("tls-server-end-point", b"digest")
    client = ScramClient(["SCRAM-SHA-256-PLUS"], USER, PASSWORD, channel_binding=("tls-server-end-point", b"digest"))
    exchange = server(SCRAM_PLUS, binding)
    exchange.read_first(client.get_client_first().encode())
    client.set_server_first(exchange.challenge(KEYS).decode())
    client.set_server_final(exchange.read_final(client.get_client_final().encode()).decode())


def test_another_connection_is_noticed() -> None:
    client = ScramClient(["SCRAM-SHA-256-PLUS"], USER, PASSWORD, channel_binding=("tls-server-end-point", b"theirs"))
    exchange = server(SCRAM_PLUS, ChannelBinding("tls-server-end-point", b"ours"))
    exchange.read_first(client.get_client_first().encode())
    client.set_server_first(exchange.challenge(KEYS).decode())
    with pytest.raises(ScramError, match="wrong channel binding"):
        exchange.read_final(client.get_client_final().encode())


def test_keys_are_those_another_library_makes() -> None:
    salt, stored_key, server_key, iterations = ScramMechanism("SCRAM-SHA-256").make_auth_info("pencil", 4096, SALT)
    assert (salt, stored_key, server_key, iterations) == (SALT, KEYS.stored_key, KEYS.server_key, KEYS.iterations)


@pytest.mark.parametrize(
    ("mechanism", "binding", "message", "cause", "is_malformed"),
    [
        (SCRAM, None, b"", "malformed first", True),
        (SCRAM, None, b"n,,n=user", "malformed first", True),  # no nonce
        (SCRAM, None, b"n,,m=x,n=user,r=abc", "malformed first", True),  # "m=" is for what we do not know
        (SCRAM, None, b"n,,n=us=er,r=abc", "malformed first", True),  # "=" unescaped
        (SCRAM, None, b"n,,n=user,r=a\xffc", "malformed first", True),
        (SCRAM, None, b"n,,n=us\0er,r=abc", "malformed first", True),
        (SCRAM, None, b"x,,n=user,r=abc", "malformed first", True),
        (SCRAM, None, b"p=,,n=user,r=abc", "malformed first", True),
        (SCRAM, None, b"n,,n=\x07,r=abc", "malformed user", True),
        (SCRAM, None, b"n,a=root,n=user,r=abc", "another user", False),
        (SCRAM, None, b"p=tls-exporter,,n=user,r=abc", "do not agree", False),
        (SCRAM_PLUS, EXPORTER, b"n,,n=user,r=abc", "do not agree", False),
        (SCRAM_PLUS, EXPORTER, WOULD_BIND, "do not agree", False),
        (SCRAM_PLUS, EXPORTER, b"p=tls-unique,,n=user,r=abc", "not offered", False),
        (SCRAM_PLUS, None, b"p=tls-exporter,,n=user,r=abc", "not offered", False),
        # we did offer it: somebody took it out of the list of mechanisms
        (SCRAM, EXPORTER, WOULD_BIND, "in between", False),
    ],
)
def test_refused_first_message(
    mechanism: str, binding: ChannelBinding | None, message: bytes, cause: str, is_malformed: bool
) -> None:
    with pytest.raises(ScramError, match=cause) as error:
        server(mechanism, binding).read_first(message)
    assert error.value.is_malformed is is_malformed


@pytest.mark.parametrize(
    ("message", "binding"),
    [
        (b"n,a=user,n=user,r=abc", None),  # as itself
        (b"n,,n=user,r=abc,x=more", None),  # an extension we do not know
        (WOULD_BIND, None),
    ],
)
def test_taken_first_message(message: bytes, binding: ChannelBinding | None) -> None:
    assert server(SCRAM, binding).read_first(message) == "user"


@pytest.mark.parametrize(
    ("message", "cause", "is_malformed"),
    [
        (b"", "malformed final", True),
        (WITHOUT_PROOF, "malformed final", True),
        (b"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzb", "wrong nonce", False),  # the server's half is missing
        (CLIENT_FINAL.replace(b"c=biws", b"c=eSws"), "wrong channel binding", False),  # "y,,"
        (CLIENT_FINAL.replace(b"c=biws", b"c=x"), "malformed base64", True),
        (WITHOUT_PROOF + b",p=dHzb", "malformed proof", True),
        (WITHOUT_PROOF + b",p=d", "malformed base64", True),
        (CLIENT_FINAL.replace(b"dHzb", b"eHzb"), "wrong password", False),
        (CLIENT_FINAL.replace(b",p=", b",x=more,p="), "wrong password", False),  # signed over another message
    ],
)
def test_refused_final_message(message: bytes, cause: str, is_malformed: bool) -> None:
    exchange = server()
    exchange.read_first(CLIENT_FIRST)
    exchange.challenge(KEYS)
    with pytest.raises(ScramError, match=cause) as error:
        exchange.read_final(message)
    assert error.value.is_malformed is is_malformed


ANYTHING = st.binary() | st.text().map(str.encode) | st.sampled_from([CLIENT_FIRST, CLIENT_FINAL, b"n,,", b"p="])


def only_scram_errors(read: Callable[[bytes], object], message: bytes) -> None:
    try:
        read(message)
    except ScramError as error:
        assert str(error).isascii()


@given(ANYTHING, ANYTHING)
def test_nothing_a_client_sends_raises_anything_else(first: bytes, final: bytes) -> None:
    only_scram_errors(server().read_first, first)
    exchange = server()
    exchange.read_first(CLIENT_FIRST)
    exchange.challenge(KEYS)
    only_scram_errors(exchange.read_final, final)


def test_keys_as_text() -> None:
    # what `doveadm pw -s SCRAM-SHA-256 -p pencil` printed
    text = (
        "4096,/8U06tBWuxrwOWuj+2JQ5w==,22x0MZN7FnaaRqDKlKvnPM1eHPT7JECeErRG4PEWUok=,"
        "dpkQ7Nk/FbTymVvB0mvVcOT3Be/30Qe59ILcnVYwt5Q="
    )
    keys = ScramKeys.parse(text)
    assert keys.format() == text
    assert keys.fits("pencil")
    assert not keys.fits("pencils")
    assert "22x0" not in repr(keys)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "four fields"),
        ("4096,a,b", "four fields"),
        ("1000,YWJj,YWJj,YWJj", "iterations"),
        ("99999999,YWJj,YWJj,YWJj", "iterations"),
        ("4096,YWJj,YWJj,YWJj", "32 octets"),
        ("4096,%,YWJj,YWJj", "base64"),
    ],
)
def test_keys_that_are_none(text: str, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        ScramKeys.parse(text)
