"""From the section `status` of a file to what is served: addresses, access, and what the page finds."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from attending import Staged
from browsing import parsed
from receiving import RecordingLog

from smtpmaild.app.attendant import build_attendant
from smtpmaild.config import Config, load
from smtpmaild.server.plan import AttendantPlan
from smtpmaild.server.sockets import InheritedAddress, TcpAddress, UnixAddress

REST = """
listeners: [{name: mx, listen: ["127.0.0.1:0"]}]
local_domains: {example.com: {deliver: mail}}
deliver_to: {mail: {type: maildir, path: mail}}
history: {path: history.sqlite}
relay_rules: [{name: out, from_networks: [192.0.2.0/24], relay: mx}]
queue: {path: queue}
"""


def loaded(folder: Path, status: str) -> Config:
    (folder / "token").write_text("a-secret-of-a-test\n")
    (folder / "token").chmod(0o600)
    (folder / "smtp.yaml").write_text(f"status: {status}{REST}")
    return load(str(folder / "smtp.yaml"))


def attendant(folder: Path, status: str) -> AttendantPlan:
    found = build_attendant(loaded(folder, status), lambda _: "mx", RecordingLog())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("status", "address"),
    [
        ("{}", TcpAddress("127.0.0.1", 8080)),
        ("{listen: '[::1]:9090'}", TcpAddress("::1", 9090)),
        (
            "{listen: /run/x/status.sock, mode: '0660', group: adm}",
            UnixAddress("/run/x/status.sock", 0o660, group="adm"),
        ),
        ("{listen: 'systemd:status', token_file: token}", InheritedAddress("status")),
    ],
)
def test_address(tmp_path: Path, status: str, address: object) -> None:
    assert attendant(tmp_path, status).addresses == (("status", address),)


@pytest.mark.parametrize(
    ("status", "metrics", "page"),
    [
        ("{}", 200, 200),
        ("{page: false}", 200, 404),
        ("{token_file: token}", 200, 200),
        ("{token_file: token, token_for: everything}", 401, 200),
        ("{listen: '0.0.0.0:8080', token_file: token}", 401, 200),
    ],
)
def test_who_may(tmp_path: Path, status: str, metrics: int, page: int) -> None:
    plan = attendant(tmp_path, status)

    async def main() -> list[int]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            companions = plan.companions(Staged().house, lambda _: [listening])
            for companion in companions:
                companion.start(asyncio.get_running_loop())
            try:
                return [await status_of(listening, path) for path in ("/metrics", "/", "/livez")]
            finally:
                for companion in reversed(companions):
                    await companion.stop()

    assert asyncio.run(main())[:2] == [metrics, page]


async def status_of(listening: socket.socket, path: str) -> int:
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    found = parsed(await reader.read())
    writer.close()
    return found.status
