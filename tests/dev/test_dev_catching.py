"""The server for tests, met by clients that we did not write."""

from __future__ import annotations

import asyncio
import base64
import smtplib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import pytest
from receiving import RecordingLog

from smtpmaild.dev import CatchAll, Failure
from smtpmaild.dev.catcher import Catcher, Settings
from smtpmaild.dev.inbox import Bounds, Inbox
from smtpmaild.server.sockets import SocketError


@pytest.fixture
def server() -> Iterator[CatchAll]:
    with CatchAll() as running:
        yield running


def letter() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.org", "b@example.org", "Grüße"
    message.set_content("Hello\n")
    message.add_alternative("<p>Hello</p>", subtype="html")
    message.add_attachment(b"\0\1", maintype="application", subtype="octet-stream", filename="a.bin")
    return message


def send(
    server: CatchAll, *recipients: str, sender: str = "a@example.org", raw: bytes = b"Subject: x\r\n\r\ny\r\n"
) -> None:
    with smtplib.SMTP(server.host, server.port, timeout=5) as client:
        client.sendmail(sender, recipients or ["b@example.org"], raw)


def test_message_is_caught_with_its_envelope(server: CatchAll) -> None:
    with smtplib.SMTP(server.host, server.port, "client.example", timeout=5) as client:
        client.send_message(letter(), to_addrs=["b@example.org", "secret@example.org"])
    (message,) = server.wait_for(1)
    assert (message.sender, message.recipients) == ("a@example.org", ("b@example.org", "secret@example.org"))
    assert message.bcc == ["secret@example.org"]
    assert (message.subject, message.text, message.html) == ("Grüße", "Hello\n", "<p>Hello</p>\n")
    assert [(one.name, one.type, one.content) for one in message.attachments] == [
        ("a.bin", "application/octet-stream", b"\0\1")
    ]
    assert message.parsed["subject"] == "Grüße"
    assert (message.hello, message.protocol, message.tls, message.user) == ("client.example", "ESMTP", "", "")
    assert message.client.startswith("127.0.0.1:")
    assert message.id in repr(message)


def test_message_is_kept_as_it_was_sent(server: CatchAll) -> None:
    raw = b"Subject: dots\r\n\r\n..\r\n.two\r\n\xff\0" + b"long" * 1000 + b"\r\n"
    send(server, raw=raw)
    bare = b"Subject: bare\n\nline\rends"
    with socket.create_connection((server.host, server.port), 5) as client:
        commands = b"EHLO x", b"MAIL FROM:<>", b"RCPT TO:<b@example.org> NOTIFY=NEVER", b"BDAT %d LAST" % len(bare)
        client.sendall(b"\r\n".join(commands) + b"\r\n" + bare)
        server.wait_for(2)
    assert [message.raw for message in server.messages] == [raw, bare]
    assert server.messages[1].recipient_parameters == ({"NOTIFY": "NEVER"},)
    assert server.messages[1].sender == ""


def test_any_login_is_right(server: CatchAll) -> None:
    for mechanism in ("auth_plain", "auth_login", "auth_cram_md5"):
        with smtplib.SMTP(server.host, server.port, timeout=5) as client:
            client.ehlo()
            client.user, client.password = "anybody", "whatever"
            client.auth(mechanism[5:].replace("_", "-"), getattr(client, mechanism))
            client.sendmail("a@example.org", "b@example.org", b"x")
        assert server.messages[-1].user == "anybody"


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_bearer_tokens_are_taken(mechanism: str) -> None:
    words = {
        "XOAUTH2": "user=alice\1auth=Bearer {}\1\1",
        "OAUTHBEARER": "n,a=alice,\1host=localhost\1auth=Bearer {}\1\1",
    }
    with CatchAll(accounts={"alice": "secret"}) as server, smtplib.SMTP(server.host, server.port, timeout=5) as client:
        client.ehlo()
        for token, code in (("wrong", 535), ("secret", 235)):
            text = base64.b64encode(words[mechanism].format(token).encode()).decode()
            assert client.docmd("AUTH", f"{mechanism} {text}")[0] == code


def test_only_named_accounts_may_sign_in_where_some_are_named() -> None:
    with CatchAll(auth="required", accounts={"alice": "secret"}) as server:
        with smtplib.SMTP(server.host, server.port, timeout=5) as client:
            with pytest.raises(smtplib.SMTPSenderRefused, match="530"):
                client.sendmail("a@example.org", "b@example.org", b"x")
            for user, password in (("alice", "wrong"), ("bob", "secret")):
                with pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
                    client.login(user, password)
            client.login("alice", "secret")
            client.sendmail("a@example.org", "b@example.org", b"x")
        assert [message.user for message in server.messages] == ["alice"]


@pytest.mark.parametrize(
    "said", [b"AUTH CRAM-MD5", b"AUTH XOAUTH2", b"AUTH XOAUTH2 " + base64.b64encode(b"user=a\1auth=Basic x\1\1")]
)
def test_malformed_login_is_refused(server: CatchAll, said: bytes) -> None:
    with smtplib.SMTP(server.host, server.port, timeout=5) as client:
        client.ehlo()
        code, _ = client.docmd(said.decode())
        if code == 334:
            code, _ = client.docmd(base64.b64encode(b"nothing").decode())
        assert code == 501


@pytest.mark.parametrize("tls", ["optional", "required"])
def test_starttls_with_a_certificate_of_its_own(tls: str) -> None:
    with CatchAll(tls=tls) as server:
        with smtplib.SMTP(server.host, server.port, timeout=5) as client:
            if tls == "required":
                client.ehlo()
                assert client.docmd("MAIL FROM:<a@example.org>")[0] == 530
            client.starttls(context=server.client_context())
            client.sendmail("a@example.org", "b@example.org", b"x")
        assert server.messages[0].tls.startswith("TLSv1.3 ")
        with smtplib.SMTP(server.host, server.port, timeout=5) as client, pytest.raises(ssl.SSLError):
            client.starttls(context=ssl.create_default_context())


def test_tls_from_the_first_byte() -> None:
    with CatchAll(tls="implicit") as server:
        with smtplib.SMTP_SSL(server.host, server.port, timeout=5, context=server.client_context()) as client:
            client.sendmail("a@example.org", "b@example.org", b"x")
        assert server.messages[0].protocol == "ESMTPS"


def test_internationalised_addresses(server: CatchAll) -> None:
    with smtplib.SMTP(server.host, server.port, timeout=5) as client:
        client.send_message(letter(), "jürgen@example.org", ["用户@例子.example"])
    assert (server.messages[0].sender, *server.messages[0].recipients) == ("jürgen@example.org", "用户@例子.example")


def test_failures_are_chosen_while_it_runs(server: CatchAll) -> None:
    chosen = server.fail("rcpt", 451, times=1)
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="451"):
        send(server)
    send(server)
    assert chosen.hits == 1
    assert len(server.messages) == 1
    server.fail("message=554")
    assert [one.failure for one in server.failures] == [Failure("message", 554)]
    with pytest.raises(smtplib.SMTPDataError, match="554"):
        send(server)
    server.clear()
    assert not server.failures
    assert not server.messages
    with pytest.raises(ValueError, match="stage"):
        server.fail("sleep", 451)


def test_login_fails_by_order(server: CatchAll) -> None:
    server.fail("auth", 454, times=1)
    with smtplib.SMTP(server.host, server.port, timeout=5) as client:
        client.ehlo()
        client.user, client.password = "a", "b"
        with pytest.raises(smtplib.SMTPAuthenticationError, match="454"):
            client.auth("PLAIN", client.auth_plain)
        client.auth("PLAIN", client.auth_plain)


@pytest.mark.parametrize("stage", ["connect", "helo", "auth", "mail", "rcpt", "data", "message"])
def test_connection_is_dropped(server: CatchAll, stage: str) -> None:
    server.fail(stage, "drop")
    # A reset shows as OSError, an end of file as SMTPServerDisconnected, which is one.
    with pytest.raises(OSError), smtplib.SMTP(server.host, server.port, timeout=5) as client:
        if stage == "auth":
            client.login("a", "b")
        client.sendmail("a@example.org", ["b@example.org"], b"x")
    assert not server.messages


def test_stalled_session_does_not_hold_up_the_end() -> None:
    with CatchAll() as server:
        server.fail("helo", "stall")
        client = smtplib.SMTP(server.host, server.port, timeout=0.05)
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"):
            client.ehlo()
    client.close()


def test_refusal_at_the_door(server: CatchAll) -> None:
    server.fail("connect", 554)
    with pytest.raises(smtplib.SMTPConnectError, match="554"):
        smtplib.SMTP(server.host, server.port, timeout=5)


def test_waiting_for_a_message_that_comes_later(server: CatchAll) -> None:
    later = threading.Timer(0.02, send, (server, "late@example.org"))
    later.start()
    assert server.wait_for(lambda message: "late@example.org" in message.recipients).sender == "a@example.org"
    later.join()


def test_waiting_in_vain_tells_what_is_there(server: CatchAll) -> None:
    send(server, raw=b"Subject: the only one\r\n\r\n")
    with pytest.raises(TimeoutError, match=r"waited 0\.01 s for 2 messages; there is 1:\n.*the only one"):
        server.wait_for(2, timeout=0.01)
    with pytest.raises(TimeoutError, match="for a message that matches"):
        server.wait_for(lambda message: message.subject == "another", timeout=0.01)


def test_asynchronous_client_waits_without_blocking(server: CatchAll) -> None:
    async def test() -> None:
        waiting = asyncio.create_task(server.wait_for_async(1))
        await aiosmtplib.send(letter(), hostname=server.host, port=server.port)
        (message,) = await waiting
        assert message.subject == "Grüße"
        assert await server.wait_for_async(lambda one: one is message) is message

    asyncio.run(test())


def test_more_than_there_is_room_for_is_deferred() -> None:
    with CatchAll(bounds=Bounds(octets=10_000, message=8_000)) as server:
        with smtplib.SMTP(server.host, server.port, timeout=5) as client:
            client.ehlo()
            assert client.esmtp_features["size"] == "8000"
            with pytest.raises(smtplib.SMTPSenderRefused, match="552"):
                client.sendmail("a@example.org", "b@example.org", b"x" * 9000)
        # Two at once, which together are too much.
        with socket.create_connection((server.host, server.port), 5) as other:
            other.sendall(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
            replies = b""
            while b"354" not in replies:
                replies += other.recv(4096)
            other.sendall(b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 95)
            with pytest.raises(smtplib.SMTPDataError, match="452"):
                send(server, raw=b"z" * 6000)
        send(server)
        assert len(server.messages) == 1


def test_port_that_is_taken_is_an_error(server: CatchAll) -> None:
    with pytest.raises(SocketError):
        CatchAll(port=server.port).start()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"tls": "yes"}, "tls is none, optional, required or implicit, not 'yes'"),
        ({"auth": True}, "auth is none, optional or required, not True"),
        ({"port": 70000}, "port is a number from 0 to 65535, not 70000"),
    ],
)
def test_setting_that_means_nothing_is_an_error(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        CatchAll(**wrong)


def test_it_must_be_started() -> None:
    server = CatchAll()
    server.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.port


def test_client_that_resets_amidst_a_handshake_does_not_disturb_the_end() -> None:
    async def main() -> None:
        catcher = Catcher(Settings(tls="implicit"), Inbox(), RecordingLog())
        await catcher.start()
        client = socket.create_connection(("127.0.0.1", catcher.port), 5)
        async with asyncio.timeout(5):
            while catcher.sessions == 0:
                await asyncio.sleep(0.001)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await catcher.stop()  # before the loop has heard of the reset

    asyncio.run(main())
