"""TLS over real sockets, in both loops: from the handshake to the last byte, and the ways it fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from authority import Pair, client_context, issue, write_ca
from house import Facts, Guest, MemorySink, listening, make_door, run_loop

from smtpmaild.server.listener import Door, TlsOffer
from smtpmaild.tls.certificates import Certificates
from smtpmaild.tls.settings import ClientCertificates, TlsSettings

pytestmark = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

Address = tuple[str, int]


class House:
    """A door with TLS, its store and its log."""

    def __init__(
        self,
        folder: Path,
        *,
        implicit: bool = False,
        clients: ClientCertificates = "none",
        settings: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        **door: Any,
    ) -> None:
        self.sink = MemorySink()
        self.log = Facts()
        pair = issue(folder)
        tls = TlsSettings((pair.files,), client_ca=write_ca(folder), **(settings or {}))
        self.certificates = Certificates(tls, [clients], self.log)
        offer = TlsOffer(self.certificates, clients, implicit)
        options = {"starttls": not implicit, **(options or {})}
        self.door: Door = make_door(self.sink, self.log, options=options, tls=offer, **door)

    @property
    def failures(self) -> list[object]:
        return [facts["reason"] for facts in self.log.named("tls_handshake_failed")]


class Encrypted(Guest):
    """A client with TLS from the first byte on, or after STARTTLS."""

    @classmethod
    async def implicit(cls, address: Address, pair: Pair | None = None, name: str = "mx.example.com") -> Encrypted:
        return cls(*await asyncio.open_connection(*address, ssl=client_context(pair), server_hostname=name))

    async def start_tls(self, pair: Pair | None = None) -> None:
        assert (await self.ask("STARTTLS")).startswith("220 ")
        await self.writer.start_tls(client_context(pair), server_hostname="mx.example.com")

    async def close(self) -> None:
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass


async def send_message(guest: Guest, text: str = "Subject: x\r\n\r\nhello") -> None:
    await guest.begin_message()
    assert (await guest.ask(f"{text}\r\n.")).startswith("250 2.0.0 Ok: queued as ")


def test_implicit(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path, implicit=True)
        async with listening(house.door) as (_, address):
            guest = await Encrypted.implicit(address)
            assert (await guest.reply()).startswith("220 ")
            assert "STARTTLS" not in await guest.ask("EHLO client.example")
            await send_message(guest)
            assert (await guest.ask("QUIT")).startswith("221 ")
            assert await guest.is_closed()
            await guest.close()
        (accepted,) = house.log.named("message_accepted")
        assert str(accepted["tls"]).startswith("TLSv1.3 TLS_")
        assert house.door.service.metrics.tls_handshakes == 1
        assert house.failures == []

    run_loop(go(), loop)


def test_starttls(loop: str, tmp_path: Path) -> None:
    async def go() -> None:
        house = House(tmp_path)
        async with listening(house.door) as (_, address), Encrypted.connected(address) as guest:
            assert (await guest.reply()).startswith("220 ")
            assert "STARTTLS" in await guest.ask("EHLO client.example")
            await guest.start_tls()
            assert (await guest.ask("MAIL FROM:<a@client.example>")).startswith("503 ")
            assert "STARTTLS" not in await guest.ask("EHLO client.example")
            assert (await guest.ask("STARTTLS")).startswith("503 ")
            await send_message(guest)
            assert (await guest.ask("QUIT")).startswith("221 ")
        assert house.failures == []

    run_loop(go(), loop)
