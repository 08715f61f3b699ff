"""Signing in from the configuration to the socket: listeners, accounts and threads as app/ puts them together."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from house import Facts, Guest, listening, run_loop, until

from smtpmaild import app
from smtpmaild.auth.schemes import hash_password
from smtpmaild.config import load

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
CONFIG = """\
listeners:
  - {{name: required, listen: ["127.0.0.1:0"], auth: required, auth_without_tls: true, mechanisms: [PLAIN, LOGIN]}}
  - {{name: optional, listen: ["127.0.0.1:0"], auth: optional, auth_without_tls: true}}
  - {{name: none, listen: ["127.0.0.1:0"]}}
accounts: {{{accounts}}}
local_domains: {{local.example: {{deliver: nowhere}}}}
deliver_to: {{nowhere: {{type: discard}}}}
"""
SECRET = "correct horse"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def plain(user: str, password: str) -> str:
    return f"AUTH PLAIN {encoded(f'{chr(0)}{user}{chr(0)}{password}')}"


def write_config(folder: Path, accounts: str = "users_file: users", *, scram: bool = False) -> Path:
    users = folder / "users"
    users.write_text(f"alice:{hash_password(SECRET, scram=scram)}\n")
    users.chmod(0o600)
    path = folder / "smtp.yaml"
    path.write_text(CONFIG.format(accounts=accounts))
    return path


@asynccontextmanager
async def serving(config: Path, log: Facts, listener: str = "required") -> AsyncIterator[tuple[str, int]]:
    built = app.build(load(config), log)
    for companion in built.companions:
        companion.start(asyncio.get_running_loop())
    try:
        async with listening(built.doors[listener]) as (_, address):
            yield address
    finally:
        for companion in built.companions:
            await companion.stop()


async def extensions(guest: Guest) -> list[str]:
    assert (await guest.reply()).startswith("220 ")
    return [line[4:] for line in (await guest.ask("EHLO client.example")).splitlines()[1:]]


@LOOPS
def test_session(tmp_path: Path, loop: str) -> None:
    config, log = write_config(tmp_path), Facts()

    async def work() -> None:
        async with serving(config, log) as address, Guest.connected(address) as guest:
            assert "AUTH PLAIN LOGIN" in await extensions(guest)
            assert (await guest.ask("MAIL FROM:<alice@local.example>")).startswith("530 5.7.0 ")
            assert (await guest.ask("AUTH SCRAM-SHA-256")).startswith("504 ")
            assert (await guest.ask(plain("alice", "wrong"))).startswith("535 5.7.8 ")
            assert await guest.ask("AUTH LOGIN") == f"334 {encoded('Username:')}"
            assert (await guest.ask("*")).startswith("501 ")
            assert await guest.ask("AUTH LOGIN") == f"334 {encoded('Username:')}"
            assert await guest.ask(encoded("alice")) == f"334 {encoded('Password:')}"
            assert (await guest.ask(encoded(SECRET))).startswith("235 2.7.0 ")
            assert (await guest.ask(plain("alice", SECRET))).startswith("503 5.5.1 ")
            await guest.begin_message()
            assert (await guest.ask("Subject: x\r\n\r\nx\r\n.")).startswith("250 ")
            await guest.ask("QUIT")

    run_loop(work(), loop)
    assert log.named("authenticated")[0]["user"] == "alice"
    assert [facts["cause"] for facts in log.named("authentication_failed")] == ["wrong password"]
    assert log.named("message_accepted")[0]["user"] == "alice"
    everything = repr(log.all)
    assert not [text for text in (SECRET, encoded(SECRET), plain("alice", SECRET), "argon2") if text in everything]


@pytest.mark.parametrize(
    ("listener", "scram", "offered"),
    [
        ("required", True, ["AUTH PLAIN LOGIN"]),
        ("optional", True, ["AUTH SCRAM-SHA-256 PLAIN LOGIN"]),
        ("optional", False, ["AUTH PLAIN LOGIN"]),
        ("none", True, []),
    ],
)
def test_what_is_offered(tmp_path: Path, listener: str, scram: bool, offered: list[str]) -> None:
    config = write_config(tmp_path, scram=scram)

    async def work() -> None:
        async with serving(config, Facts(), listener) as address, Guest.connected(address) as guest:
            assert [line for line in await extensions(guest) if line.startswith("AUTH")] == offered
            if listener != "required":
                assert (await guest.ask("MAIL FROM:<a@b.example>")).startswith("250 ")
            if listener == "optional":
                assert (await guest.ask(plain("alice", SECRET))).startswith("503 ")  # in a transaction

    run_loop(work())


def test_who_guesses_is_turned_away(tmp_path: Path) -> None:
    throttle = "failures: 3, failure_delay: 0, longest_failure_delay: 0, uncounted_networks: []"
    config, log = write_config(tmp_path, f"users_file: users, {throttle}"), Facts()

    async def work() -> None:
        async with serving(config, log) as address:
            for attempt in range(3):
                async with Guest.connected(address) as guest:
                    await guest.reply()
                    await guest.ask("EHLO x")
                    assert (await guest.ask(plain("alice", f"guess {attempt}"))).startswith("535 ")
            async with Guest.connected(address) as guest:
                await guest.reply()
                await guest.ask("EHLO x")
                assert (await guest.ask(plain("alice", SECRET))).startswith("421 4.7.0 ")
                assert await guest.is_closed()
            async with Guest.connected(address, "127.0.0.2") as guest:
                await guest.reply()
                await guest.ask("EHLO x")
                assert (await guest.ask(plain("alice", SECRET))).startswith("235 ")

    run_loop(work())
    assert log.named("authentication_failed")[-1]["cause"] == "too many failures from this address"


def test_attempts_under_way_do_not_hold_others_up(tmp_path: Path) -> None:
    config = write_config(tmp_path)

    async def work() -> None:
        async with serving(config, Facts(), "optional") as address, Guest.connected(address) as bystander:
            await extensions(bystander)
            guests = [Guest(*await asyncio.open_connection(*address)) for _ in range(20)]
            for number, guest in enumerate(guests):
                guest.send("EHLO x", plain(f"user{number}", "x"))
            for _ in range(20):
                assert (await bystander.ask("NOOP")).startswith("250 ")
            for guest in guests[:10]:  # they go away while their passwords wait
                guest.writer.transport.abort()
            for guest in guests[10:]:
                assert [(await guest.reply())[:3] for _ in range(3)] == ["220", "250", "535"]
                guest.writer.transport.abort()

    run_loop(work())


def test_account_that_is_added_can_sign_in_at_once(tmp_path: Path) -> None:
    config, log = write_config(tmp_path), Facts()
    users = tmp_path / "users"

    async def work() -> None:
        async with serving(config, log) as address, Guest.connected(address) as guest:
            await extensions(guest)
            assert (await guest.ask(plain("bob", SECRET))).startswith("535 ")
            users.write_text(users.read_text() + f"bob:{hash_password(SECRET)}\n")
            assert (await guest.ask(plain("bob", SECRET))).startswith("235 ")
        await until(lambda: log.named("users_file_read"))

    run_loop(work())


def test_session_on_standard_input(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    commands = ["EHLO x", plain("alice", SECRET), "MAIL FROM:<alice@local.example>", "QUIT"]
    ran = subprocess.run(
        [sys.executable, "-m", "smtpmaild", "--stdin", "--allow-root", "--config", str(config)],
        input="".join(f"{line}\r\n" for line in commands).encode(), capture_output=True, timeout=20, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    codes = [line[:3] for line in ran.stdout.decode().splitlines() if line[3:4] == " "]
    assert codes == ["220", "250", "235", "250", "221"]


def test_dovecot_that_is_not_there_yet(tmp_path: Path) -> None:
    config, log = write_config(tmp_path, "dovecot_socket: auth"), Facts()

    async def work() -> None:
        async with serving(config, log) as address, Guest.connected(address) as guest:
            assert "AUTH PLAIN LOGIN" in await extensions(guest)
            assert (await guest.ask(plain("alice", SECRET))).startswith("454 4.7.0 ")

    run_loop(work())
    assert log.named("dovecot_unavailable") == [{"path": str(tmp_path / "auth"), "cause": "No such file or directory"}]
