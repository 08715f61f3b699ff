"""Programs with TLS and AUTH: sessions that encrypt in the middle, as clients of others see them."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from authority import client_context, issue
from talk import ENVELOPE, HOST, Recorder, Talk, esmtp

from smtpmaild.auth import Authenticated, ChannelBinding, Failed, Step
from smtpmaild.embedding import Address, Esmtp, Lmtp, Reply, Said, Smtp, serve
from smtpmaild.envelope import Session

MESSAGE = "From: a@a.example\r\n\r\nhi\r\n"
WRONG = Reply(535, "5.7.8", "Authentication credentials invalid")


@pytest.fixture(scope="module")
def ssl_config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    pair = issue(tmp_path_factory.mktemp("tls"), "localhost")
    return {"certificate": str(pair.certificate), "key": str(pair.key)}


class Accounts:
    """Alice and her password; an authenticator of a program."""

    mechanisms = ("PLAIN",)

    def begin(self, mechanism: str, session: Session, binding: ChannelBinding | None) -> Accounts:
        return self

    def respond(self, response: bytes | None) -> Step:
        return Authenticated("alice") if response == b"\0alice\0secret" else Failed(WRONG, "wrong password", "alice")

    def cancel(self) -> None:
        pass


def serving(make_session: Callable[[], Smtp], client: Callable[[int], None], **arguments: Any) -> None:
    """A server in a loop, and a client that blocks beside it."""

    async def run() -> None:
        server = await serve(make_session, "127.0.0.1", 0, **arguments)
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10):
            await asyncio.to_thread(client, port)
        server.close()
        await server.wait_closed()

    asyncio.run(run())


def connect(port: int) -> smtplib.SMTP:
    return smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=5)


def test_starttls_and_auth_with_a_client_of_others(ssl_config: dict[str, str]) -> None:
    heard: list[tuple[str, object]] = []

    def started(session: Esmtp) -> Said:
        heard.append(("STARTTLS", session.tls and session.tls.version))
        return False, 550, "nobody hears this"

    def queue(session: Esmtp, content: object) -> Said:
        heard.append(("DATA", session.user))
        return True

    def make() -> Esmtp:
        session = esmtp(ssl_config=ssl_config, authenticator=Accounts(), requires_auth=True)
        session.set_callback("STARTTLS", started)
        session.set_callback("DATA", queue)
        return session

    def client(port: int) -> None:
        with connect(port) as smtp:
            smtp.ehlo()
            assert smtp.has_extn("starttls") and not smtp.has_extn("auth")
            assert smtp.docmd("MAIL FROM:<a@a.example>")[0] == 530
            smtp._host = "localhost"  # type: ignore[attr-defined]
            smtp.starttls(context=client_context())
            smtp.ehlo()
            assert smtp.has_extn("auth") and not smtp.has_extn("starttls")
            with pytest.raises(smtplib.SMTPAuthenticationError, match="535"):
                smtp.login("alice", "wrong")
            smtp.login("alice", "secret")
            smtp.sendmail("a@a.example", ["b@b.example"], MESSAGE)

    serving(make, client)
    assert heard == [("STARTTLS", "TLSv1.3"), ("DATA", "alice")]


def test_tls_from_the_first_byte(ssl_config: dict[str, str]) -> None:
    versions: list[str] = []

    def helo(session: Esmtp, name: str, keywords: list[str]) -> Said:
        assert session.tls is not None
        versions.append(session.tls.version)
        assert "STARTTLS" not in keywords
        return None

    def make() -> Esmtp:
        session = esmtp()
        session.set_callback("EHLO", helo)
        return session

    def client(port: int) -> None:
        with smtplib.SMTP_SSL("localhost", port, local_hostname="c.example", timeout=5, context=client_context()) as it:
            it.sendmail("a@a.example", ["b@b.example"], MESSAGE)

    serving(make, client, ssl=context_of(ssl_config))
    assert versions == ["TLSv1.3"]


def context_of(config: dict[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config["certificate"], config["key"])
    return context


def test_a_context_of_ones_own_and_lmtp(ssl_config: dict[str, str]) -> None:
    session = Lmtp(hostname=HOST, log=Recorder(), ssl_config=context_of(ssl_config))
    assert "STARTTLS" in session.list_verbs()
    # the old protocol has no extensions
    assert "STARTTLS" not in Smtp(hostname=HOST, ssl_config=context_of(ssl_config)).list_verbs()


def test_callbacks_set_in_mid_session_stay_within_tls(ssl_config: dict[str, str]) -> None:
    def on_helo(session: Esmtp, name: str, keywords: list[str]) -> Said:
        session.set_callback("RCPT", refuse)
        return None

    def refuse(session: Esmtp, recipient: Address) -> Said:
        return False

    def make() -> Esmtp:
        session = esmtp(ssl_config=ssl_config)
        session.set_callback("EHLO", on_helo)
        return session

    def client(port: int) -> None:
        with connect(port) as smtp:
            smtp._host = "localhost"  # type: ignore[attr-defined]
            smtp.starttls(context=client_context())
            smtp.ehlo()
            assert not smtp.has_extn("starttls")
            smtp.ehlo()
            assert not smtp.has_extn("starttls")
            smtp.mail("a@a.example")
            assert smtp.rcpt("b@b.example")[0] == 550

    serving(make, client)


def test_large_message_over_a_socket_pair(ssl_config: dict[str, str]) -> None:
    """Renewed buffers in both directions, and the end of TLS said by both sides."""
    sizes: list[int] = []
    ours, theirs = socket.socketpair()

    def queue(session: Esmtp, content: Any) -> Said:
        sizes.append(content.size)
        return True

    session = esmtp(ssl_config=ssl_config)
    session.set_callback("DATA", queue)

    def client() -> None:
        theirs.settimeout(5)
        stream: socket.socket = theirs
        assert stream.recv(4096).startswith(b"220 ")
        stream.sendall(b"EHLO c\r\nSTARTTLS\r\n")
        while not stream.recv(4096).endswith(b"Ready to start TLS\r\n"):
            pass
        with client_context().wrap_socket(stream, server_hostname="localhost") as tls:
            tls.sendall("\r\n".join((*ENVELOPE, "DATA\r\n")).encode())
            while b"354 " not in tls.recv(65536):
                pass
            tls.sendall(b"x" * 70 + b"\r\n")
            for _ in range(40):
                tls.sendall((b"x" * 70 + b"\r\n") * 1000)
            tls.sendall(b".\r\n")
            assert tls.recv(4096).startswith(b"250 ")
            tls.sendall(b"QUIT\r\n")
            assert tls.recv(4096).startswith(b"221 ")
            assert tls.recv(4096) == b""  # close_notify, or this would raise

    async def run() -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(session.process(ours), asyncio.to_thread(client))

    asyncio.run(run())
    ours.close()
    assert sizes == [72 * 40_001]


@pytest.mark.parametrize("said", [b"EHLO in clear\r\n", b"\x16\x03\x01\x00\x05hello", b""])
def test_handshake_that_fails_ends_the_session(said: bytes, ssl_config: dict[str, str]) -> None:
    ours, theirs = socket.socketpair()
    log = Recorder()
    session = esmtp(ssl_config=ssl_config, log=log)

    def client() -> bytes:
        theirs.settimeout(5)
        theirs.recv(4096)
        theirs.sendall(b"STARTTLS\r\n")
        assert theirs.recv(4096) == b"220 2.0.0 Ready to start TLS\r\n"
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        output = b""
        while data := theirs.recv(4096):
            output += data
        theirs.close()
        return output

    async def run() -> bytes:
        async def process() -> None:
            await session.process(ours)
            ours.close()

        async with asyncio.timeout(10):
            _, output = await asyncio.gather(process(), asyncio.to_thread(client))
        return output

    output = asyncio.run(run())
    assert b"250" not in output and b"500" not in output  # an alert at most
    (facts,) = [facts for event, facts in log.facts if event == "session_closed"]
    assert facts["reason"]


def test_commands_behind_starttls_are_not_heard(ssl_config: dict[str, str]) -> None:
    ours, theirs = socket.socketpair()

    def client() -> bytes:
        theirs.settimeout(5)
        theirs.sendall(b"STARTTLS\r\nMAIL FROM:<evil@x.example>\r\n")
        output = b""
        while data := theirs.recv(4096):
            output += data
        theirs.close()
        return output

    async def run() -> bytes:
        async def process() -> None:
            await esmtp(ssl_config=ssl_config).process(ours)
            ours.close()

        async with asyncio.timeout(10):
            _, output = await asyncio.gather(process(), asyncio.to_thread(client))
        return output

    assert b"503 5.5.1 Nothing may follow STARTTLS" in asyncio.run(run())


def test_in_a_loop_of_the_callers_own_tls_is_his(ssl_config: dict[str, str]) -> None:
    talk = Talk(esmtp(ssl_config=ssl_config, authenticator=Accounts(), auth_in_clear=True))
    said = talk("EHLO c.example")
    assert "STARTTLS" not in said
    assert "AUTH PLAIN" in said
    assert talk("STARTTLS").startswith("500 ")
    assert talk("AUTH PLAIN AGFsaWNlAHNlY3JldA==").startswith("235 ")
    assert talk.session.user == "alice"
    assert talk.session.tls is None


def test_files_that_do_not_serve(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Esmtp(ssl_config={"certificate": str(tmp_path / "none.pem")})


def test_nobody_is_signed_in_before_the_session() -> None:
    session = esmtp()
    assert (session.user, session.tls) == ("", None)


@pytest.mark.parametrize("verb", ["STARTTLS", "auth"])
def test_trust_is_not_for_handlers_of_ones_own(verb: str) -> None:
    with pytest.raises(ValueError, match="answered by the protocol"):
        esmtp().def_verb(verb, lambda *_: True)
