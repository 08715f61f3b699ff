"""A DNS server of a few lines, on loopback, in the loop of the test: it says what it was told to say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

SILENT, BROKEN = "silent", "broken"


class NameServer(asyncio.DatagramProtocol):
    """records: "name TYPE" -> values; SILENT: no answer, BROKEN: SERVFAIL. A name without a record is unknown."""

    def __init__(self, records: Mapping[str, list[str] | str], ttl: int, delay: float) -> None:
        self.records = dict(records)
        self.ttl = ttl
        self.delay = delay
        self.asked: list[str] = []
        self.address = ("", 0)
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.DatagramTransport) or hasattr(transport, "sendto")
        self._transport = transport  # type: ignore[assignment]
        self.address = transport.get_extra_info("sockname")[:2]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self.answer(dns.message.from_wire(data))
        if reply is not None:
            wire = reply.to_wire()
            asyncio.get_running_loop().call_later(self.delay, lambda: self._transport.sendto(wire, addr))

    def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        (question,) = query.question
        kind = question.to_text().split()[-1]
        asked = f"{question.name.to_text(omit_final_dot=True)} {kind}"
        self.asked.append(asked)
        said = self.records.get(asked)
        if said == SILENT:
            return None
        reply = dns.message.make_response(query, recursion_available=True)
        if said == BROKEN:
            reply.set_rcode(dns.rcode.SERVFAIL)
        elif said is None:
            known = {key.partition(" ")[0] for key in self.records}
            reply.set_rcode(dns.rcode.NOERROR if asked.partition(" ")[0] in known else dns.rcode.NXDOMAIN)
        else:
            reply.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *said))
        return reply


@asynccontextmanager
async def name_server(
    records: Mapping[str, list[str] | str], ttl: int = 600, delay: float = 0.0
) -> AsyncIterator[NameServer]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: NameServer(records, ttl, delay), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()


@contextmanager
def name_server_beside(records: Mapping[str, list[str] | str]) -> Iterator[NameServer]:
    """The same in a thread, for a daemon in another process."""
    started: list[NameServer] = []
    is_there, is_over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with name_server(records) as server:
            started.append(server)
            is_there.set()
            while not is_over.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert is_there.wait(5)
    try:
        yield started[0]
    finally:
        is_over.set()
        thread.join()
