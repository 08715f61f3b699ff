"""Mechanisms alone: the example of the RFC, servers that lie, and nothing secret in what is shown."""

from __future__ import annotations

import base64

import pytest
from scramp import ScramMechanism

from smtpmaild.delivery.sasl import Login, Plain, SaslError, ScramSha256, choose

# RFC 7677 §3
NONCE = "rOprNGfwEbeRWgbNEkqO"
FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
PROOF = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def scram() -> ScramSha256:
    return ScramSha256("user", "pencil", NONCE)


def test_example_of_the_rfc() -> None:
    mechanism = scram()
    assert mechanism.initial() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert mechanism.respond(FIRST) == PROOF
    assert not mechanism.is_satisfied
    assert mechanism.respond(FINAL) == b""
    assert mechanism.is_satisfied


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\xff",
        b"r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        # a nonce to which the server added nothing
        b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        # too few, too many, far too many
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=10000001",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=100000000",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W,i=4096",
        b"m=ext," + FIRST,
    ],
)
def test_first_message_that_is_none(first: bytes) -> None:
    with pytest.raises(SaslError):
        scram().respond(first)


@pytest.mark.parametrize("final", [b"", b"e=other-error", b"v=AAAA", b"v=A", FINAL[:-3] + b"5G4="[:3]])
def test_server_that_does_not_know_the_password(final: bytes) -> None:
    mechanism = scram()
    mechanism.respond(FIRST)
    with pytest.raises(SaslError):
        mechanism.respond(final)
    assert not mechanism.is_satisfied


@pytest.mark.parametrize(("user", "password"), [("user", "pencil"), ("a=b,c", "x,=y"), ("Jürgen", "paß\u00a0wort")])
def test_against_a_server_that_is_not_ours(user: str, password: str) -> None:
    server_side = ScramMechanism("SCRAM-SHA-256")
    info = server_side.make_auth_info(password.replace("\u00a0", " "), iteration_count=4096)
    accounts = {user: info}
    server = server_side.make_server(accounts.__getitem__)
    mechanism = ScramSha256(user, password)
    server.set_client_first((mechanism.initial() or b"").decode())
    final = mechanism.respond(server.get_server_first().encode())
    server.set_client_final(final.decode())
    assert mechanism.respond(server.get_server_final().encode()) == b""


def test_nonces_differ() -> None:
    assert ScramSha256("u", "p").initial() != ScramSha256("u", "p").initial()


def test_plain() -> None:
    mechanism = Plain("usér", "pass")
    assert mechanism.initial() == "\0usér\0pass".encode()
    assert mechanism.is_satisfied
    with pytest.raises(SaslError):
        mechanism.respond(b"")


def test_login() -> None:
    mechanism = Login("user", "pass")
    assert mechanism.initial() is None
    assert [mechanism.respond(b"Username:"), mechanism.respond(b"whatever")] == [b"user", b"pass"]
    with pytest.raises(SaslError):
        mechanism.respond(b"again")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["LOGIN", "PLAIN"], "PLAIN"), (["SCRAM-SHA-256", "PLAIN"], "SCRAM-SHA-256"), (["XOAUTH2"], None), ([], None)],
)
def test_choice(offered: list[str], chosen: str | None) -> None:
    assert choose(offered) == chosen


def test_no_secret_is_shown() -> None:
    shown = [repr(kind("user", "secret")) for kind in (Plain, Login, ScramSha256)]
    assert not any("secret" in text or base64.b64encode(b"secret").decode() in text for text in shown)
