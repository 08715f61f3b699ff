"""TLS and signing in on the way out: what the modes let through, and what never goes in clear text."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from authority import authority, bare, issue, write_ca
from delivering import (
    BOUNCE,
    DROP,
    MESSAGE,
    STALL,
    Facts,
    Peer,
    Script,
    closing,
    recipients,
    run,
    serving,
    shared,
    shown,
)

from smtpmaild.delivery.builtin import build
from smtpmaild.delivery.courier import Courier
from smtpmaild.delivery.dial import Manner
from smtpmaild.delivery.endpoint import Endpoint
from smtpmaild.delivery.options import TimeoutOptions
from smtpmaild.delivery.smtp import SmtpOptions
from smtpmaild.queue import QueuedMessage

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
SHORT = TimeoutOptions(connect=2, greeting=2, command=0.5, tls_handshake=0.5, quit=0.5)


def server_context(folder: Path, *names: str, by: trustme.CA | None = None, days: float = 90) -> ssl.SSLContext:
    pair = issue(folder, *(names or ("localhost",)), by=by, days=days)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


async def delivered(peer: Peer, log: Facts | None = None, message: QueuedMessage = MESSAGE, **options: Any) -> str:
    """What comes of one message to a server that calls itself localhost."""
    options = {"host": "localhost", "port": peer.port, "ip": ["ipv4"], "timeouts": SHORT, **options}
    async with closing(build(SmtpOptions(**options), shared(log))) as agent:
        (outcome,) = shown(await agent.deliver(message, recipients("a@x.example")))
    return outcome.replace(f"localhost [127.0.0.1]:{peer.port}: ", "")


TAKEN = "250 2.0.0 taken"
NOT_OFFERED = "451 4.7.4 TLS is required, but the server does not offer it"


@LOOPS
@pytest.mark.parametrize("tls", ["none", "may", "required", "verify"])
def test_tls_by_mode(tls: str, loop: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(Script(tls=server_context(tmp_path))) as peer:
            assert await delivered(peer, tls=tls, ca_file=write_ca(tmp_path)) == TAKEN
        (session,) = peer.sessions
        assert ("STARTTLS" in session) == (tls != "none")
        assert session.count("EHLO client.example") == (1 if tls == "none" else 2)

    run(work(), loop)


def test_authority_that_lacks_what_rfc_5280_wants(tmp_path: Path) -> None:
    async def work() -> None:
        (tmp_path / "ca.pem").write_bytes(bare(authority()))
        async with serving(Script(tls=server_context(tmp_path))) as peer:
            assert await delivered(peer, tls="verify", ca_file=str(tmp_path / "ca.pem")) == TAKEN

    run(work())


@pytest.mark.parametrize(
    ("tls", "outcome"), [("none", TAKEN), ("may", TAKEN), ("required", NOT_OFFERED), ("verify", NOT_OFFERED)]
)
def test_tls_that_is_not_offered(tls: str, outcome: str) -> None:
    async def work() -> None:
        async with serving(Script()) as peer:
            assert await delivered(peer, tls=tls) == outcome
            assert peer.sessions[0][-1] == "QUIT"

    run(work())


@pytest.mark.parametrize(
    ("tls", "outcome"),
    [
        ("may", TAKEN),
        ("required", "451 4.7.4 TLS is required, but the server refused it: 454 4.7.0 not now"),
    ],
)
def test_tls_that_is_refused(tls: str, outcome: str, tmp_path: Path) -> None:
    async def work() -> None:
        script = Script(tls=server_context(tmp_path), replies={"STARTTLS": "454 4.7.0 not now"})
        async with serving(script) as peer:
            assert await delivered(peer, tls=tls) == outcome

    run(work())


def test_server_that_goes_at_starttls(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(Script(tls=server_context(tmp_path), replies={"STARTTLS": DROP})) as peer:
            assert await delivered(peer) == "451 4.4.2 Lost the connection while asking for TLS"

    run(work())


async def no_handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Offers TLS and knows nothing of it; the second connection is taken in clear text."""
    writer.write(b"220 x\r\n")
    while line := await reader.readline():
        verb = line.split()[0].upper()
        replies = {b"EHLO": b"250-x\r\n250 STARTTLS", b"STARTTLS": b"220 go", b"DATA": b"354 go", b"QUIT": b"221 bye"}
        writer.write(replies.get(verb, b"250 2.0.0 taken") + b"\r\n")
        if verb == b"STARTTLS":
            await reader.read(10)
            writer.write(b"500 what?\r\n")
        if verb == b"DATA":
            await reader.readuntil(b"\r\n.\r\n")
            writer.write(b"250 2.0.0 taken\r\n")
        if verb in (b"QUIT", b"STARTTLS"):
            break
    await writer.drain()
    writer.close()


@LOOPS
@pytest.mark.parametrize("tls", ["may", "required"])
def test_handshake_that_fails(tls: str, loop: str) -> None:
    async def work() -> None:
        log = Facts()
        server = await asyncio.start_server(no_handshake, "127.0.0.1", 0)
        peer = Peer(Script())
        peer.port = server.sockets[0].getsockname()[1]
        outcome = await delivered(peer, log, tls=tls)
        # May is as good as no TLS at all; required never falls back.
        if tls == "may":
            assert outcome == TAKEN
            assert log.events == ["tls_handshake_failed"]
        else:
            assert outcome.startswith("451 4.7.5 TLS handshake failed: ")
        server.close()
        await asyncio.sleep(0.05)

    run(work(), loop)


@pytest.mark.parametrize("case", ["another name", "another authority", "expired"])
@pytest.mark.parametrize("tls", ["required", "verify"])
def test_certificate_that_is_not_the_servers(tls: str, case: str, tmp_path: Path) -> None:
    contexts = {
        "another name": lambda: server_context(tmp_path, "elsewhere.example"),
        "another authority": lambda: server_context(tmp_path, by=trustme.CA()),
        "expired": lambda: server_context(tmp_path, days=-1),
    }

    async def work() -> None:
        async with serving(Script(tls=contexts[case]())) as peer:
            outcome = await delivered(peer, tls=tls, ca_file=write_ca(tmp_path))
            if tls == "required":
                assert outcome == TAKEN
            else:
                assert outcome.startswith("451 4.7.5 TLS handshake failed: ")
                assert peer.taken == []

    run(work())


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(Script(tls=server_context(tmp_path))) as peer:
            outcome = await delivered(peer, tls="verify", ca_file=str(tmp_path / "nowhere"))
            assert outcome.startswith("451 4.7.5 TLS handshake failed: ")

    run(work())


def test_authorities_of_the_system_do_not_know_ours(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(Script(tls=server_context(tmp_path))) as peer:
            assert (await delivered(peer, tls="verify")).startswith("451 4.7.5 TLS handshake failed: ")

    run(work())


async def implicit(script: Script, context: ssl.SSLContext) -> tuple[asyncio.Server, Peer]:
    peer = Peer(script)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=context)
    peer.port = server.sockets[0].getsockname()[1]
    return server, peer


@LOOPS
@pytest.mark.parametrize(
    ("tls", "names"), [("verify", ["localhost"]), ("required", ["x.example"]), ("verify", ["x.example"])]
)
def test_implicit_tls(tls: str, names: list[str], loop: str, tmp_path: Path) -> None:
    async def work() -> None:
        server, peer = await implicit(Script(), server_context(tmp_path, *names))
        outcome = await delivered(peer, tls=tls, implicit_tls=True, ca_file=write_ca(tmp_path))
        if (tls, names) == ("verify", ["x.example"]):
            assert outcome.startswith("451 4.7.5 TLS handshake failed: ")
        else:
            assert outcome == TAKEN
            assert "STARTTLS" not in peer.sessions[0]
        server.close()
        await asyncio.sleep(0.05)

    run(work(), loop)


def test_injected_reply_before_tls_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        script = Script(tls=server_context(tmp_path), replies={"STARTTLS": "220 go\r\n250-injected"})
        async with serving(script) as peer:
            outcome = await delivered(peer, tls="required")
            assert outcome == "451 4.5.0 Protocol error of the remote server: it spoke before the TLS handshake"

    run(work())


def test_requiretls_goes_to_a_verified_server_only(tmp_path: Path) -> None:
    message = replace(MESSAGE, parameters={"REQUIRETLS": ""})

    async def work() -> None:
        async with serving(Script(("REQUIRETLS",), tls=server_context(tmp_path))) as peer:
            for tls, code in (("required", "550"), ("verify", "250")):
                options = SmtpOptions(
                    host="localhost", port=peer.port, ip=("ipv4",), tls=tls, ca_file=write_ca(tmp_path)
                )
                async with closing(build(options, shared())) as agent:
                    (outcome,) = shown(await agent.deliver(message, recipients("a@x.example")))
                    assert outcome.startswith(code), outcome

    run(work())


SAFE = ("REQUIRETLS",)


@pytest.mark.parametrize(
    ("scripts", "reply"),
    [
        # RFC 8689 §4.2.1: "repeat steps 2-5 with each host ... in an attempt to find a mail path"
        ([None, Script(("X",)), Script(("X",)), Script(SAFE)], "250 2.0.0 taken"),
        ([Script(("X",))], "550 5.7.30 "),
        ([None], "550 5.7.10 "),
        ([Script(("X",)), None], "550 5.7.30 "),
        # Who does not take it now may take it later, whatever the others cannot do.
        ([Script(SAFE, {"RCPT TO": "450 4.2.0 later"}), Script(("X",)), None], "450 4.2.0 later"),
        ([Script(("X",)), Script(SAFE, {"greeting": "450 4.3.2 busy"})], "450 4.3.2 busy"),
        ([Script(SAFE, {"RCPT TO": "550 5.1.1 no"}), Script(SAFE)], "550 5.1.1 no"),
        ([Script(SAFE, {"STARTTLS": "454 4.7.0 not now"})], "451 4.7.4 "),
        ([Script(SAFE, {"STARTTLS": "554 5.7.0 never"})], "550 5.7.10 "),
    ],
)
def test_requiretls_asks_one_server_after_the_other(scripts: list[Script | None], reply: str, tmp_path: Path) -> None:
    """None: a server without TLS."""

    async def work() -> None:
        async with AsyncExitStack() as stack:
            tls = server_context(tmp_path)
            peers = [
                await stack.enter_async_context(serving(replace(script, tls=tls) if script else Script()))
                for script in scripts
            ]
            options = SmtpOptions(host="localhost", tls="verify", ca_file=write_ca(tmp_path))
            courier = Courier(Manner(options, "client.example", Facts()))
            endpoints = [Endpoint("localhost", "127.0.0.1", peer.port) for peer in peers]
            message = replace(MESSAGE, parameters={"REQUIRETLS": ""})
            (found,) = shown(await courier.deliver(message, recipients("a@x.example"), endpoints))
            assert found.startswith(reply), found
            await courier.close()
            assert [len(peer.taken) for peer in peers] == [0] * (len(peers) - 1) + [int(found.startswith("250"))]

    run(work())


def test_certificate_that_is_wrong_ends_a_message_that_requires_tls(tmp_path: Path) -> None:
    message = replace(MESSAGE, parameters={"REQUIRETLS": ""})

    async def work() -> None:
        async with serving(Script(SAFE, tls=server_context(tmp_path, "elsewhere.example"))) as peer:
            ca_file = write_ca(tmp_path)
            outcome = await delivered(peer, message=message, tls="verify", ca_file=ca_file)
            assert outcome.startswith("550 5.7.10 Encryption needed: TLS handshake failed: ")
            # That we cannot read our authorities is no fault of the server.
            (tmp_path / "broken").write_text("")
            for name in ("nowhere", "broken"):
                outcome = await delivered(peer, message=message, tls="verify", ca_file=str(tmp_path / name))
                assert outcome.startswith("451 4.7.5 ")

    run(work())


@pytest.mark.parametrize(
    ("tls", "offers", "said"),
    [("none", (), ""), ("required", SAFE, ""), ("verify", (), ""), ("verify", SAFE, " REQUIRETLS")],
)
def test_report_is_not_lost_for_want_of_requiretls(
    tls: str, offers: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """RFC 8689 §5: it "SHOULD NOT cause a bounce message to be discarded"; §2: it is said within verified TLS."""

    async def work() -> None:
        async with serving(Script(offers, tls=server_context(tmp_path))) as peer:
            message = replace(BOUNCE, parameters={"REQUIRETLS": ""})
            assert await delivered(peer, message=message, tls=tls, ca_file=write_ca(tmp_path)) == TAKEN
        assert peer.taken[0].commands[0] == f"MAIL FROM:<>{said}"

    run(work())


# Signing in


@pytest.mark.parametrize(
    ("offered", "used"),
    [("PLAIN LOGIN", "PLAIN"), ("LOGIN", "LOGIN"), ("PLAIN SCRAM-SHA-256 X", "SCRAM-SHA-256")],
)
def test_sign_in(offered: str, used: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("pass\n")

    async def work() -> None:
        script = Script((f"AUTH {offered}",), tls=server_context(tmp_path))
        async with serving(script) as peer:
            password_file = str(tmp_path / "password")
            assert await delivered(peer, tls="required", username="user", password_file=password_file) == TAKEN
        (command,) = (line for line in peer.sessions[0] if line.startswith("AUTH"))
        assert command.split()[1] == used

    run(work())


@pytest.mark.parametrize(
    ("mechanisms", "replies", "why"),
    [
        ("PLAIN", {}, "451 4.7.8 Cannot sign in: 535 5.7.8 wrong"),
        ("SCRAM-SHA-256", {}, "451 4.7.8 Cannot sign in: 535 5.7.8 wrong"),
        ("X", {}, "451 4.7.0 The server offers no way to sign in that we know"),
        ("PLAIN", {"AUTH": "334 eA=="}, "451 4.7.8 Cannot sign in: 451 4.7.8 a challenge to PLAIN, which has none"),
        ("PLAIN", {"AUTH": DROP}, "451 4.7.8 Cannot sign in: 451 4.4.2 Lost the connection while signing in"),
        ("PLAIN", {"AUTH": STALL}, "451 4.7.8 Cannot sign in: 451 4.4.2 Timed out while signing in"),
    ],
)  # fmt: skip
def test_sign_in_that_fails_is_no_fault_of_the_sender(
    mechanisms: str, replies: dict[str, Any], why: str, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("wrong")

    async def work() -> None:
        async with serving(Script((f"AUTH {mechanisms}",), replies)) as peer:
            password_file = str(tmp_path / "password")
            assert await delivered(peer, tls="none", username="user", password_file=password_file) == why
            assert peer.taken == []

    run(work())


def test_server_that_takes_scram_without_proving_itself(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("pass")

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in (b"220 x", b"250-x\r\n250 AUTH SCRAM-SHA-256", b"235 2.7.0 welcome", b"221 bye"):
            writer.write(reply + b"\r\n")
            await reader.readline()
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(impostor, "127.0.0.1", 0)
        peer = Peer(Script())
        peer.port = server.sockets[0].getsockname()[1]
        outcome = await delivered(peer, tls="none", username="user", password_file=str(tmp_path / "password"))
        assert outcome == "451 4.7.8 Cannot sign in: the server did not prove that it knows us"
        server.close()
        await asyncio.sleep(0.05)

    run(work())


def test_password_that_cannot_be_read(tmp_path: Path) -> None:
    log = Facts()

    async def work() -> None:
        async with serving(Script(("AUTH PLAIN",))) as peer:
            outcome = await delivered(peer, log, tls="none", username="user", password_file=str(tmp_path / "nowhere"))
            assert outcome == "451 4.3.5 Cannot read the password for the next hop"
        assert log.events == ["password_unreadable"]

    run(work())
