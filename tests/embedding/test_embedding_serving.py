"""serve(): a session for each connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from talk import esmtp

from smtpmaild.embedding import Peer, Smtp, serve


async def say(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(5):
            return await reader.read(-1)
    finally:
        writer.close()


async def with_server(make_session: Callable[[], Smtp], *inputs: bytes) -> list[bytes]:
    server = await serve(make_session, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        return await asyncio.gather(*(say(port, data) for data in inputs))


def test_sessions_of_their_own() -> None:
    peers: list[Peer] = []

    def make_session() -> Smtp:
        session = esmtp()
        session.set_callback("QUIT", lambda session: peers.append(session.peer))
        return session

    outputs = asyncio.run(with_server(make_session, b"EHLO a\r\nQUIT\r\n", b"QUIT\r\n"))
    assert all(output.startswith(b"220 ") and b"\r\n221 " in output for output in outputs)
    assert {peer.host for peer in peers} == {"127.0.0.1"}
    assert len({peer.port for peer in peers}) == 2


def test_last_reply_reaches_a_client_that_goes_on_sending() -> None:
    """Closing at once would reset the connection, and the reset overtakes the reply."""
    [output] = asyncio.run(with_server(lambda: esmtp(bad_commands=0), b"FROB\r\n" * 50_000))
    assert output.endswith(b"\r\n421 4.7.0 Too many errors, closing transmission channel\r\n")


def test_session_that_cannot_be_made_closes_its_connection() -> None:
    failures: list[object] = []

    def make_session() -> Smtp:
        raise RuntimeError("no session today")

    async def main() -> list[bytes]:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context["exception"]))
        return await with_server(make_session, b"")

    assert asyncio.run(main()) == [b""]
    assert [str(failure) for failure in failures] == ["no session today"]
