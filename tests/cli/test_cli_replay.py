"""`smtpmaild replay`: the first difference is found, here and over a socket, and what is not on record is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from pathlib import Path

import pytest
import trustme
from running import Runner

from smtpmaild.transcripts import Expect
from smtpmaild.transcripts.playing import Difference, NotPlayedError, filler, play
from smtpmaild.transcripts.reading import read

CONFIG = """\
hostname: mx.example.com
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"], reverse_dns: true, tls: optional, auth: optional}
  - {name: safe, listen: ["127.0.0.1:2465"], tls: implicit, auth: required}
tls: {self_signed: true}
accounts: {dovecot_socket: /nowhere/auth}
local_domains: {example.com: {mailboxes: [alice], deliver: mail}}
deliver_to: {mail: {type: discard}}
queue: {path: queue}
relay_rules:
  - {name: office, client_names: ["*.office.example"], relay: mx}
  - {name: staff, users: [alice], relay: mx}
"""
GOOD = """\
@client 198.51.100.7 p.office.example
@listener mx
S: 220 *
C: EHLO client.example
S... 250 *
C: MAIL FROM:<a@b.example>
C: RCPT TO:<x@far.example>
C: RCPT TO:<alice@example.com>
C: DATA
S: 250 *
S: 250 2.1.5 *
S: 250 2.1.5 *
S: 354 *
C! body 1234
S: 250 2.0.0 Ok: queued as *
C: MAIL FROM:<>
S: 250 2.1.0 *
C: RCPT TO:<alice@example.com>
S: 250 2.1.5 *
C: BDAT 512
C! octets 512
S: 250 *
C: BDAT 10 LAST
C! octets 10
S: 250 2.0.0 Ok: queued as *
C: STARTTLS
S: 220 *
C! STARTTLS
C: EHLO client.example
S... 250 *
C! AUTH PLAIN alice
S: 235 *
C~ b"QUIT" + b"\\r\\n"
S: 221 *
S.
"""
SAFE = """\
@listener safe
@tls implicit
S: 220 *
C: EHLO client.example
S... 250 *
C! AUTH PLAIN alice
S: 235 *
C: MAIL FROM:<alice@example.com>
S: 250 *
C: RCPT TO:<x@far.example>
S: 250 *
"""


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runner:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smtp.yaml").write_text(CONFIG)
    return Runner(capfd, monkeypatch)


def written(text: str, name: str = "s.smtp") -> str:
    Path(name).write_text(text)
    return name


def test_the_same_is_said(run: Runner) -> None:
    ran = run("replay", "-c", "smtp.yaml", written(GOOD), written(SAFE, "safe.smtp"))
    assert (ran.status, ran.out, ran.err) == (0, "2 of 2 sessions are answered as recorded\n", "")


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (
            " p.office.example",
            "",
            ["s.smtp:11:", "  C: RCPT TO:<x@far.example>", "- S: 250 2.1.5 *"]
            + ["+ S: 550 5.7.1 Relaying denied   decided by 'no relay rule matched'"],
        ),
        (
            "S: 354 *",
            "S: 354 *\nS: 250 *",
            ["s.smtp:14:", "- S: 250 *", "+ (nothing)"],
        ),
        ("S... 250 *", "S... 251 *", ["s.smtp:5:", "  C: EHLO client.example", "- S... 251 *", "+ (nothing)"]),
        ("S.\n", "", ["s.smtp:", "- (the connection stays open)", "+ S."]),
        ('C~ b"QUIT" + b"\\r\\n"\nS: 221 *\n', "", ["s.smtp:", "- S.", "+ (the connection stays open)"]),
        ("S: 221 *\n", "", ["s.smtp:", '  C~ b"QUIT" + b"\\r\\n"', "+ S: 221 2.0.0 mx.example.com"]),
    ],
)
def test_the_first_difference_is_shown(run: Runner, old: str, new: str, lines: list[str]) -> None:
    assert old in GOOD
    ran = run("replay", "-c", "smtp.yaml", written(GOOD.replace(old, new, 1)))
    said = ran.out.splitlines()
    assert (ran.status, said.pop()) == (1, "0 of 1 sessions are answered as recorded")
    assert len(said) == len(lines)
    assert all(one.startswith(wanted) for one, wanted in zip(said, lines, strict=True)), said


def test_nobody_has_a_name_where_none_is_looked_up(run: Runner) -> None:
    plain = '  - {name: plain, listen: ["127.0.0.1:2526"], tls: optional, auth: optional}\n'
    Path("smtp.yaml").write_text(CONFIG.replace("  - {name: safe", f"{plain}  - {{name: safe"))
    ran = run("replay", "-c", "smtp.yaml", "--listener", "plain", written(GOOD))
    assert (ran.status, "+ S: 550 5.7.1 Relaying denied" in ran.out) == (1, True)


def test_another_listener_is_played_to_as_it_begins(run: Runner) -> None:
    """TLS comes first where the listener has it so, whatever the listener on record had."""
    assert (
        run("replay", "-c", "smtp.yaml", "--listener", "safe", written(SAFE.replace("@tls implicit\n", ""))).status == 0
    )
    starttls = "@tls implicit\nS: 220 *\nC: EHLO a\nS... 250 *\nC: STARTTLS\nS: 220 *\n"
    assert run("replay", "-c", "smtp.yaml", "--listener", "mx", written(starttls)).status == 0


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (SAFE.replace("@tls implicit\n", ""), ["- (clear text)", "+ (TLS from the first octet)"]),
        (SAFE.replace("safe", "mx"), ["- (TLS from the first octet)", "+ (clear text)"]),
    ],
)
def test_a_listener_that_begins_otherwise_than_on_record_is_a_difference(
    run: Runner, text: str, lines: list[str]
) -> None:
    ran = run("replay", "-c", "smtp.yaml", written(text))
    assert (ran.status, ran.out.splitlines()[:3]) == (1, ["s.smtp:", *lines])


def test_for_programs_and_other_listeners(run: Runner) -> None:
    ran = run("replay", "-c", "smtp.yaml", "--json", "--listener", "safe", written(GOOD))
    (found,) = json.loads(ran.out)
    assert (ran.status, found["same"], found["difference"]["expected"]) == (1, False, "S: 250 *")
    assert found["difference"]["said"] == "S: 530 5.7.0 Authentication required"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["-c", "smtp.yaml", "--listener", "no", "s.smtp"], 64, "there is no listener 'no'"),
        (["-c", "smtp.yaml", "--server", "/a", "--listener", "no", "s.smtp"], 64, "there is no listener 'no'"),
        (["--server", "there", "s.smtp"], 64, "neither HOST:PORT nor a path"),
        (["--server", "/nowhere/socket", "s.smtp"], 69, "No such file or directory"),
        (["--server", "/nowhere/socket", "s.smtp", "-c", "not-looked-at.yaml"], 69, "No such file or directory"),
        (["--server", "/nowhere/socket", "--listener", "mx", "s.smtp"], 64, "--config FILE is missing"),
        (["s.smtp"], 64, "--config FILE is missing"),
        (["-c", "smtp.yaml", "bad.smtp"], 65, "bad.smtp:1: not a line of a transcript"),
    ],
)
def test_what_cannot_be_played(run: Runner, arguments: list[str], status: int, message: str) -> None:
    written(GOOD)
    written("X: what", "bad.smtp")
    ran = run("replay", *arguments)
    assert ran.status == status
    assert message in ran.err


def test_what_stands_in_a_file_steers_no_terminal(run: Runner) -> None:
    ran = run("replay", "-c", "smtp.yaml", written("X: \a\u202ewhat"))
    assert (ran.status, ran.err) == (65, "s.smtp:1: not a line of a transcript: X: \\x07\\u202ewhat\n")


def test_many_stars_are_no_trouble() -> None:
    (expect,) = read("S: 250 " + "*a" * 5_000 + "b", "x").steps
    assert isinstance(expect, Expect)
    assert not expect.matches("250 " + "a" * 20_000)
    assert expect.matches("250 " + "a" * 20_000 + "b")


@pytest.mark.parametrize(
    ("pattern", "line", "does"),
    [("a*a", "a", False), ("a*a", "aa", True), ("a*b*a", "axbxa", True), ("*", "", True), ("a", "ab", False)]
    + [("*b", "ab", True), ("*b", "aba", False), ("a*", "ba", False), ("a*b*b", "ab", False), ("a.c", "abc", False)]
    + [("a**b", "a\nb", True)],
)
def test_a_star_stands_for_anything(pattern: str, line: str, does: bool) -> None:
    assert Expect("x:1", pattern, skips=False).matches(line) is does


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C! body x", "x:1: C! is followed by STARTTLS, AUTH, body or octets"),
        ("C! sing", "x:1: C! is followed by"),
        ("@tls required", "x:1: @tls implicit"),
        ("C~ b'a", "x:1: not a bytes literal: b'a"),
        ("C~ " + "(" * 10_000, "x:1: not a bytes literal: (((("),
        ("C~ " + "-" * 100_000, "x:1: not a bytes literal: ----"),
        ("C~ b'a' * x", "x:1: not a number of times: x"),
        ("C~ b'a' * " + "9" * 5_000, "x:1: not a number of times: 9999"),
        ("C~ b'aaaaaaaa' * 99999999", "x:1: more than 67108864 octets"),
        ("C~ b'a' * 60000000 + b'a' * 60000000", "x:1: more than 67108864 octets"),
        ("C! body 99999999999", "x:1: more than 67108864 octets"),
        ("C! octets " + "9" * 5_000, "x:1: more than 67108864 octets"),
        ("S.\n C: x", "x:2: not a line of a transcript:  C: x"),
    ],
)
def test_mistakes_of_the_marks(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
        read(text, "x")


@pytest.mark.parametrize("size", [0, 1, 20, 21, 22, 100, 98, 99, 176, 177, 178])
def test_a_body_that_is_not_there_has_its_length(size: int) -> None:
    made = filler(size)
    assert len(made) == size
    assert not made.endswith(b"\r")


# Against a server


async def served(
    text: str, *, password: str = "", tls: ssl.SSLContext | None = None
) -> tuple[Difference | None, bytes]:
    """A server that answers every line with 250, STARTTLS with 220 and AUTH with 235, and ends at QUIT."""
    heard = b""
    is_over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(b"220 hi\r\n")
        while line := await reader.readline():
            heard += line
            verb = line.split()[0] if line.split() else b""
            writer.write(
                {b"AUTH": b"235 in\r\n", b"STARTTLS": b"220 go\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n")
            )
            if verb == b"STARTTLS":
                assert tls is not None
                await writer.start_tls(tls)
            if verb == b"QUIT":
                break
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        is_over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with asyncio.timeout(10):
            try:
                return await play(read(text, "x"), host, port, password), heard
            finally:
                await is_over.wait()


TALK = "S: 220 *\nC: EHLO a\nS: 250 ok\nC! AUTH LOGIN al\nS: 235 in\nC: QUIT\nS: 221 bye\nS.\n"


def test_a_running_server() -> None:
    difference, heard = asyncio.run(served(TALK, password="pw"))
    assert difference is None
    assert heard == b"EHLO a\r\nAUTH PLAIN AGFsAHB3\r\nQUIT\r\n"
    difference, _ = asyncio.run(served(TALK.replace("250 ok", "250 no"), password="pw"))
    assert difference == Difference("x:3", "C: EHLO a", "S: 250 no", "S: 250 ok")
    difference, _ = asyncio.run(served("S: 220 *\nC: NOOP\nS: 250 ok\n"))
    assert difference is None
    with pytest.raises(NotPlayedError, match="signs in as al: its password is not on record"):
        asyncio.run(served(TALK))


def test_a_running_server_with_tls(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mx.example.com").configure_cert(context)
    talk = TALK.replace("C! AUTH LOGIN al\nS: 235 in", "C: STARTTLS\nS: 220 go\nC! STARTTLS\nC: EHLO b\nS: 250 ok")
    difference, heard = asyncio.run(served(talk, tls=context))
    assert (difference, heard) == (None, b"EHLO a\r\nSTARTTLS\r\nEHLO b\r\nQUIT\r\n")


def test_tls_comes_first_on_a_unix_socket_too(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mx.example.com").configure_cert(context)
    path = str(tmp_path / "s")

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        writer.close()

    async def work() -> list[Difference | None]:
        async with await asyncio.start_unix_server(serve, path, ssl=context):
            of_listener = await play(read("S: 220 hi\nS.\n", "x"), path, 0, is_implicit=True)
            return [of_listener, await play(read("@tls implicit\nS: 220 hi\nS.\n", "x"), path, 0)]

    assert asyncio.run(work()) == [None, None]
