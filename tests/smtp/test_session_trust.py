"""STARTTLS (RFC 3207) and AUTH (RFC 4954) in the engine: what is understood when, and what is never looked at."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_driver import OPTIONS, Driver, agree, codes

from smtpmaild.smtp import reply as replies
from smtpmaild.smtp.events import Auth, AuthCancelled, AuthResponse, Event, StartTls
from smtpmaild.smtp.extension import Dialect, Security, ServerOptions
from smtpmaild.smtp.reply import Reply
from smtpmaild.smtp.session import ServerSession

TLS_OFFERED = replace(OPTIONS, starttls=True, mechanisms=("SCRAM-SHA-256", "PLAIN", "LOGIN"))
IN_CLEAR = replace(TLS_OFFERED, auth_in_clear=True)
SECRET = base64.b64encode(b"\0alice\0secret").decode()


def base64_of(data: bytes) -> bytes:
    return base64.b64encode(data)


def asking(*questions: bytes, verdict: Reply = replies.AUTHENTICATED) -> Callable[[Event], Reply | None]:
    """A driver that challenges the client with these, one after the other, and then says this."""
    left = [*questions]

    def answer(event: Event) -> Reply | None:
        if isinstance(event, Auth | AuthResponse):
            return Reply(334, "", base64_of(left.pop(0)).decode()) if left else verdict
        return agree(event)

    return answer


def secured() -> Driver:
    driver = Driver(TLS_OFFERED)
    driver.feed(b"EHLO a\r\nSTARTTLS\r\n")
    driver.session.restart(Security.TLS)
    return driver


# STARTTLS


def test_starttls() -> None:
    driver = Driver(TLS_OFFERED)
    assert b"250-STARTTLS\r\n" in driver.feed(b"EHLO a\r\n")
    assert driver.feed(b"STARTTLS\r\n") == b"220 2.0.0 Ready to start TLS\r\n"
    assert isinstance(driver.events[-1], StartTls)
    was_upgrading = driver.session.is_upgrading
    driver.session.restart(Security.TLS)
    assert (was_upgrading, driver.session.is_upgrading) == (True, False)
    # RFC 3207 §4.2: nothing of before is known, not even EHLO
    assert codes(driver.feed(b"MAIL FROM:<a@b.example>\r\n")) == [503]
    said = driver.feed(b"EHLO a\r\n")
    assert b"STARTTLS" not in said
    assert b"250-AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n" in said


def test_what_follows_in_clear_is_never_looked_at() -> None:
    driver = Driver(TLS_OFFERED)
    driver.feed(b"EHLO a\r\nSTARTTLS\r\n")
    assert driver.feed(b"MAIL FROM:<evil@x.example>\r\nQUIT\r\n\x16\x03\x01") == b""
    driver.session.restart(Security.TLS)
    assert driver.feed(b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"


@pytest.mark.parametrize("behind", [b"\n", b"RSET\r\n", b"\x16\x03\x01\x02\x00", b" "])
def test_what_came_with_starttls_ends_the_session(behind: bytes) -> None:
    driver = Driver(TLS_OFFERED)
    driver.feed(b"EHLO a\r\n")
    assert driver.feed(b"STARTTLS\r\n" + behind) == replies.INPUT_BEHIND_STARTTLS.wire
    assert driver.session.is_closed
    assert driver.session.farewell == replies.INPUT_BEHIND_STARTTLS
    assert not any(isinstance(event, StartTls) for event in driver.events)


def test_what_comes_while_starttls_is_decided_is_dropped() -> None:
    session = ServerSession(Dialect(TLS_OFFERED))
    session.next_event()
    session.reply(replies.COMMAND_OK)
    session.receive_data(b"STARTTLS\r\n")
    assert isinstance(session.next_event(), StartTls)
    session.receive_data(b"MAIL FROM:<evil@x.example>\r\n")
    session.reply(replies.READY_FOR_TLS)
    session.data_to_send()
    session.restart(Security.TLS)
    assert session.next_event() is None
    assert session.data_to_send() == b""


def test_transaction_is_forgotten() -> None:
    driver = Driver(TLS_OFFERED)
    driver.feed(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nSTARTTLS\r\n")
    driver.session.restart(Security.TLS)
    assert codes(driver.feed(b"EHLO a\r\nDATA\r\nMAIL FROM:<a@b.example>\r\n")) == [250, 503, 250]


def test_starttls_takes_no_parameter_and_comes_once() -> None:
    driver = Driver(TLS_OFFERED)
    assert codes(driver.feed(b"STARTTLS now\r\n")) == [501]
    assert codes(secured().feed(b"STARTTLS\r\n")) == [503]
    assert codes(Driver().feed(b"STARTTLS\r\n")) == [500]


def test_refused_starttls_leaves_all_as_it_was() -> None:
    def refuse(event: Event) -> Reply | None:
        return replies.TLS_UNAVAILABLE if isinstance(event, StartTls) else agree(event)

    driver = Driver(TLS_OFFERED, answer=refuse)
    assert codes(driver.feed(b"EHLO a\r\nSTARTTLS\r\n")) == [250, 454]
    assert not driver.session.is_upgrading
    assert codes(driver.feed(b"MAIL FROM:<a@b.example>\r\n")) == [250]


def test_nothing_before_tls_where_it_is_required() -> None:
    driver = Driver(replace(TLS_OFFERED, requires_tls=True))
    said = driver.feed(b"EHLO a\r\nHELO a\r\nMAIL FROM:<a@b.example>\r\nRSET\r\nAUTH PLAIN x\r\nNOOP\r\n")
    assert codes(said) == [250, 530, 530, 530, 538, 250]
    assert codes(driver.feed(b"STARTTLS\r\n")) == [220]


def test_tls_before_the_banner() -> None:
    session = ServerSession(Dialect(TLS_OFFERED))
    session.restart(Security.BOUND)
    assert not session.has_begun
    session.next_event()
    session.reply(replies.COMMAND_OK)
    session.receive_data(b"EHLO a\r\n")
    event = session.next_event()
    assert event is not None
    session.reply(agree(event) or replies.COMMAND_OK)
    assert b"AUTH SCRAM-SHA-256 PLAIN LOGIN" in session.data_to_send()


def test_line_limit_grows_with_what_tls_brings() -> None:
    driver = secured()
    driver.feed(b"EHLO a\r\n")
    line = b"MAIL FROM:<a@b.example> AUTH=" + b"x" * 500
    assert codes(driver.feed(line + b"\r\n")) == [250]
    clear = Driver(TLS_OFFERED)
    clear.feed(b"EHLO a\r\n")
    assert codes(clear.feed(line + b"\r\n")) == [555]


# AUTH


def test_auth_with_initial_response() -> None:
    driver = Driver(IN_CLEAR)
    said = driver.feed(b"EHLO a\r\nauth plain " + SECRET.encode() + b"\r\nMAIL FROM:<a@b.example>\r\n")
    assert codes(said) == [250, 235, 250]
    event = driver.events[2]
    assert isinstance(event, Auth)
    assert (event.mechanism, event.initial) == ("PLAIN", b"\0alice\0secret")
    assert "alice" not in repr(event)
    assert driver.session.is_authenticated


@pytest.mark.parametrize(("line", "initial"), [(b"AUTH LOGIN", None), (b"AUTH LOGIN =", b""), (b"AUTH  LOGIN ", None)])
def test_no_initial_response_is_another_thing_than_an_empty_one(line: bytes, initial: bytes | None) -> None:
    driver = Driver(IN_CLEAR)
    driver.feed(b"EHLO a\r\n" + line + b"\r\n")
    event = driver.events[-1]
    assert isinstance(event, Auth)
    assert event.initial == initial


def test_exchange_of_several_lines() -> None:
    driver = Driver(IN_CLEAR, answer=asking(b"Username:", b"Password:"))
    assert driver.feed(b"EHLO a\r\nAUTH LOGIN\r\n").endswith(b"334 VXNlcm5hbWU6\r\n")
    assert driver.feed(b"YWxpY2U=\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert driver.feed(b"c2VjcmV0\r\n") == replies.AUTHENTICATED.wire
    responses = [event.data for event in driver.events if isinstance(event, AuthResponse)]
    assert responses == [b"alice", b"secret"]
    assert "secret" not in repr(driver.events)
    assert codes(driver.feed(b"AUTH LOGIN\r\n")) == [503]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"*", replies.AUTH_CANCELLED),
        (b"YWxpY2U", replies.AUTH_NOT_BASE64),  # no padding
        (b"YWxp Y2U=", replies.AUTH_NOT_BASE64),
        (b"YWxpY2U=\xe9", replies.AUTH_NOT_BASE64),
        (b"MAIL FROM:<a@b.example>", replies.AUTH_NOT_BASE64),  # not a command
        (b"A" * 12287, replies.AUTH_LINE_TOO_LONG),
    ],
)
def test_what_ends_an_exchange(line: bytes, reply: Reply) -> None:
    driver = Driver(IN_CLEAR, answer=asking(b"Username:"))
    driver.feed(b"EHLO a\r\nAUTH LOGIN\r\n")
    assert driver.feed(line + b"\r\n") == reply.wire
    assert isinstance(driver.events[-1], AuthCancelled)
    assert not driver.session.is_authenticated
    assert codes(driver.feed(b"NOOP\r\nMAIL FROM:<a@b.example>\r\n")) == [250, 250]


def test_bare_line_feed_is_no_response() -> None:
    driver = Driver(IN_CLEAR, answer=asking(b"Username:"))
    driver.feed(b"EHLO a\r\nAUTH LOGIN\r\n")
    assert driver.feed(b"YWxpY2U=\n") == replies.AUTH_NOT_BASE64.wire


def test_responses_may_be_long() -> None:
    driver = Driver(IN_CLEAR, answer=asking(b"Token:"))
    driver.feed(b"EHLO a\r\nAUTH LOGIN\r\n")
    assert codes(driver.feed(b"A" * 12284 + b"\r\n")) == [235]
    # and commands are not, before and after
    assert codes(driver.feed(b"NOOP " + b"x" * 2000 + b"\r\n")) == [500]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"AUTH", 501),
        (b"AUTH PLAIN x y", 501),
        (b"AUTH PLA(IN", 501),
        (b"AUTH " + b"A" * 21, 501),
        (b"AUTH PLAIN ====", 501),
        (b"AUTH PLAIN \xc3\xa9", 501),
        (b"AUTH CRAM-MD5", 504),
        (b"AUTH SCRAM-SHA-256-PLUS", 504),  # no binding, not offered
    ],
)
def test_auth_that_is_wrong(line: bytes, code: int) -> None:
    driver = Driver(IN_CLEAR)
    assert codes(driver.feed(b"EHLO a\r\n" + line + b"\r\n")) == [250, code]


def test_auth_has_its_place() -> None:
    driver = Driver(IN_CLEAR)
    assert codes(driver.feed(b"AUTH LOGIN\r\nHELO a\r\nAUTH LOGIN\r\n")) == [503, 250, 503]
    assert codes(driver.feed(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nAUTH LOGIN\r\n")) == [250, 250, 503]
    assert codes(Driver(TLS_OFFERED).feed(b"EHLO a\r\nAUTH LOGIN\r\n")) == [250, 538]
    assert codes(Driver().feed(b"EHLO a\r\nAUTH LOGIN\r\n")) == [250, 500]


def test_no_mail_before_auth_where_it_is_required() -> None:
    driver = Driver(replace(IN_CLEAR, requires_auth=True))
    said = driver.feed(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRSET\r\nBDAT 4\r\nNOOP")
    assert codes(said) == [250, 530, 250, 530]
    assert codes(driver.feed(b"AUTH PLAIN " + SECRET.encode() + b"\r\nMAIL FROM:<a@b.example>\r\n")) == [235, 250]


def test_tls_forgets_who_signed_in() -> None:
    driver = Driver(replace(IN_CLEAR, requires_auth=True))
    driver.feed(b"EHLO a\r\nAUTH PLAIN " + SECRET.encode() + b"\r\nSTARTTLS\r\n")
    driver.session.restart(Security.TLS)
    assert codes(driver.feed(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\n")) == [250, 530]


def test_other_options_in_mid_session_keep_who_signed_in() -> None:
    driver = Driver(replace(IN_CLEAR, requires_auth=True))
    driver.feed(b"EHLO a\r\nAUTH PLAIN " + SECRET.encode() + b"\r\n")
    driver.session.speak(Dialect(replace(IN_CLEAR, requires_auth=True)))
    assert codes(driver.feed(b"MAIL FROM:<a@b.example>\r\n")) == [250]


def test_failed_logins_are_a_budget() -> None:
    wrong = Reply(535, "5.7.8", "Wrong")
    driver = Driver(replace(IN_CLEAR, bad_commands=2), answer=asking(verdict=wrong))
    driver.feed(b"EHLO a\r\n")
    said = driver.feed(b"AUTH PLAIN AAAA\r\n" * 4)
    assert codes(said) == [535, 535, 535, 421]
    assert driver.session.is_closed


def test_backend_that_is_down_is_no_fault_of_the_client() -> None:
    driver = Driver(replace(IN_CLEAR, bad_commands=1), answer=asking(verdict=replies.AUTH_UNAVAILABLE))
    driver.feed(b"EHLO a\r\n")
    assert codes(driver.feed(b"AUTH PLAIN AAAA\r\n" * 4)) == [454] * 4


def test_shutting_down_within_an_exchange() -> None:
    driver = Driver(IN_CLEAR, answer=asking(b"Username:"))
    driver.feed(b"EHLO a\r\nAUTH LOGIN\r\n")
    driver.session.shut_down()
    assert driver.feed(b"YWxpY2U=\r\n") == replies.SHUTTING_DOWN.wire


# Nothing secret is kept for the log


@pytest.mark.parametrize("options", [OPTIONS, TLS_OFFERED, IN_CLEAR])
@pytest.mark.parametrize("ending", ["\r\n", " x y\r\n", "\n", "\x01\r\n"])
def test_secrets_are_not_noted(options: ServerOptions, ending: str) -> None:
    driver = Driver(options, answer=asking(verdict=Reply(535, "5.7.8", "Wrong")))
    driver.feed(f"EHLO a\r\nAUTH PLAIN {SECRET}{ending}aUTH pLAIN {SECRET}{ending}".encode())
    # clients that do not wait for the refusal go on with name and password
    driver.feed(f"AUTH LOGIN\r\nYWxpY2U=\r\n{SECRET}\r\nBADCOMMAND\r\n".encode())
    assert driver.session.refusals
    noted = repr(driver.session.refusals)
    assert SECRET not in noted
    assert SECRET.upper() not in noted
    assert "YWxpY2U=" not in noted


@pytest.mark.parametrize("options", [OPTIONS, IN_CLEAR])
@pytest.mark.parametrize(
    "line", [f"AUTH {SECRET}", f" AUTH PLAIN {SECRET} x", f"AUTHPLAIN {SECRET}", f"auth:plain {SECRET}"]
)
def test_secrets_behind_a_mistyped_auth_are_not_noted(options: ServerOptions, line: str) -> None:
    driver = Driver(options)
    driver.feed(f"EHLO a\r\n{line}\r\n{SECRET}\r\n".encode())
    assert len(driver.session.refusals) == 2
    assert SECRET.upper() not in repr(driver.session.refusals).upper()


@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_nothing_in_an_exchange_raises(lines: list[bytes], asks: bool) -> None:
    driver = Driver(IN_CLEAR, answer=asking(*[b"?"] * (3 if asks else 0)))
    driver.feed(b"EHLO a\r\nAUTH LOGIN\r\n")
    for line in lines:
        driver.feed(line + b"\r\n")
