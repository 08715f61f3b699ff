"""XCLIENT in the engine: what the session forgets, what it keeps, and what the next client inherits (nothing)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from session_driver import OPTIONS

from smtpmaild.smtp.events import Event, Hello, XClient
from smtpmaild.smtp.extension import EXTENSIONS, XCLIENT, Dialect, Security, ServerOptions
from smtpmaild.smtp.reply import Reply
from smtpmaild.smtp.session import ServerSession

SIGNED_IN = replace(OPTIONS, mechanisms=("PLAIN",), auth_in_clear=True, requires_auth=True)


def begun(options: ServerOptions = OPTIONS) -> ServerSession:
    session = ServerSession(Dialect(options, (*EXTENSIONS, XCLIENT)))
    assert session.next_event() is not None
    session.reply(Reply(220, "", "mx"))
    return session


def said(session: ServerSession, line: str) -> Event | bytes:
    """The event of a line, which waits for a reply, or what the session answered itself."""
    session.data_to_send()
    session.receive_data(line.encode() + b"\r\n")
    return session.next_event() or session.data_to_send()


def xclient(session: ServerSession, attributes: str, reply: Reply | None = None) -> dict[str, str | None]:
    event = said(session, f"XCLIENT {attributes}")
    assert isinstance(event, XClient)
    session.reply(reply or event.success)
    return dict(event.attributes)


def test_success_is_the_banner_without_enhanced_code() -> None:
    session = begun()
    xclient(session, "ADDR=192.0.2.1", Reply(220, "2.0.0", "mx ready"))
    assert session.data_to_send() == b"220 mx ready\r\n"


def test_attributes_of_one_client_add_up() -> None:
    session = begun()
    xclient(session, "ADDR=192.0.2.1 NAME=a.example LOGIN=alice")
    assert xclient(session, "HELO=b NAME=[UNAVAILABLE]") == {
        "addr": "192.0.2.1", "name": None, "login": "alice", "helo": "b",
    }  # fmt: skip


def test_next_client_inherits_nothing() -> None:
    """A proxy that keeps its connection for another client must not lend it the login of the one before."""
    session = begun(SIGNED_IN)
    xclient(session, "ADDR=192.0.2.1 LOGIN=alice")
    assert said(session, "MAIL FROM:<>") == b"503 5.5.1 Send HELO or EHLO first\r\n"
    assert xclient(session, "ADDR=192.0.2.2") == {"addr": "192.0.2.2"}
    assert said(session, "MAIL FROM:<>") == b"530 5.7.0 Authentication required\r\n"
    assert not session.is_authenticated


def test_login_is_as_good_as_auth() -> None:
    session = begun(SIGNED_IN)
    xclient(session, "LOGIN=alice")
    hello = said(session, "EHLO x")
    assert isinstance(hello, Hello)
    session.reply(hello.success)
    assert said(session, "AUTH PLAIN") == b"503 5.5.1 Already authenticated\r\n"
    xclient(session, "LOGIN=[UNAVAILABLE]")
    assert not session.is_authenticated


def test_refused_client_leaves_only_quit() -> None:
    session = begun()
    xclient(session, "ADDR=192.0.2.1", Reply(554, "5.7.1", "no"))
    assert session.data_to_send() == b"554 no\r\n"
    assert said(session, "XCLIENT ADDR=192.0.2.2") == b"503 5.5.1 Bad sequence of commands\r\n"
    assert str(said(session, "QUIT")).startswith("b'221")


def test_421_closes() -> None:
    session = begun()
    xclient(session, "ADDR=192.0.2.1", Reply(421, "", "full"))
    assert session.is_closed


@pytest.mark.parametrize("needs_tls", [True, False])
def test_where_tls_comes_first_so_it_does_for_proxies(needs_tls: bool) -> None:
    session = begun(replace(OPTIONS, starttls=True, requires_tls=needs_tls))
    answer = said(session, "XCLIENT ADDR=192.0.2.1")
    assert isinstance(answer, XClient) != needs_tls
    if needs_tls:
        assert answer == b"530 5.7.0 Must issue a STARTTLS command first\r\n"


def test_restart_within_tls_forgets_the_login() -> None:
    session = begun(replace(SIGNED_IN, starttls=True))
    xclient(session, "ADDR=192.0.2.1 LOGIN=alice")
    session.restart(Security.TLS)
    assert not session.is_authenticated
    assert xclient(session, "HELO=x") == {"helo": "x"}
