"""docs/moving.md: what it sends people to exists."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import click
import pytest
from generate.keys import sections
from pages import ROOT, blocks

from smtpmaild.cli import cli
from smtpmaild.embedding.options import SessionOptions

PAGE = ROOT / "docs" / "moving.md"
POSTFIX, AIOSMTPD, MAILPIT = PAGE.read_text().split("\n## ")[1:]


def test_keys_are_keys() -> None:
    keys = {": ".join(key.path) for section in sections() for key in section.keys}
    keys |= {": ".join(section.key.path) for section in sections() if section.key is not None}
    cells = [row.split("|")[2] for row in POSTFIX.splitlines() if row.startswith("|")]
    named = {name for cell in cells for name in re.findall(r"`([a-z_]+(?:: [a-z0-9_]+)*)`", cell)}
    values = {"optional", "required", "implicit", "may", "verify", "mailq", "release", "drop"}
    # `role: submission` and `type: lmtp` are keys with their values.
    assert {name for name in named - values if not re.match(r"(?:type|role): ", name)} <= keys
    assert len(named) > 60


def test_commands_are_commands() -> None:
    for line in re.findall(r"`smtpmaild ([a-z]+(?: [a-z]+)?)", POSTFIX):
        first, _, second = line.partition(" ")
        command = cli.commands[first]
        assert not second or (isinstance(command, click.Group) and second in command.commands)


def test_options_are_options() -> None:
    for name in ("authenticator", "requires_auth", "auth_in_clear", "ssl_config", "message_size", "application"):
        assert f"`{name}`" in AIOSMTPD
        assert name in SessionOptions.__slots__


def test_flags_are_flags() -> None:
    options = {option for parameter in cli.commands["dev"].params for option in parameter.opts}
    cells = [row.split("|")[2] for row in MAILPIT.partition("| API ")[0].splitlines() if row.startswith("|")]
    named = {name for cell in cells for name in re.findall(r"`(--[a-z-]+)", cell)}
    assert named <= options
    assert len(named) > 8


def test_requests_are_in_the_page_of_the_api() -> None:
    api = (ROOT / "docs" / "dev.md").read_text()
    for row in MAILPIT.partition("| API ")[2].splitlines():
        for path in re.findall(r"(/api/[a-z]+)", row.split("|")[-2]) if row.startswith("|") else ():
            assert path in api


def test_program_does_what_the_handler_did(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = [block.text for block in blocks(PAGE) if block.text.startswith("# now")]
    names: dict[str, Any] = {}
    exec(compile(program, "docs/moving.md", "exec", dont_inherit=True), names)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(
            b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@example.org>\r\nRCPT TO:<c@example.com>\r\n"
            b"DATA\r\nhello\r\n.\r\n"
        )
        ours.shutdown(socket.SHUT_WR)
        asyncio.run(names["new_session"]().process(theirs))
        theirs.shutdown(socket.SHUT_WR)
        *_, refused, taken, go_on, stored = ours.recv(65536).decode().splitlines()
    assert (refused, stored) == ("550 5.7.1 not relaying to that domain", "250 2.0.0 Message accepted for delivery")
    assert (taken[:3], go_on[:3]) == ("250", "354")
    assert capsys.readouterr().out == "a@b.example c@example.com 7\n"
