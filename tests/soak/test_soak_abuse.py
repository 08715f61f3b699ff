"""Clients that mean harm, or are broken: the daemon serves on, its memory stays what it was, its log knows no bug.

One daemon bears all of it. Every test is followed by the same look: a good client is served at once, resident memory
is near where it was, and no session, policy or writer failed in a way that is ours.
"""

from __future__ import annotations

import json
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from real_daemon import (
    MAIL,
    PATIENCE,
    SPOOL,
    Client,
    RealDaemon,
    Shelves,
    replies,
    scaled,
    send_one,
    until,
)  # fmt: skip

pytestmark = pytest.mark.soak
MIB = 1024 * 1024
#: KiB that one message, one line or one client may cost: 16 MB, as promised for a message of 200 MB.
LARGEST_GROWTH = 16_000_000 // 1024
#: KiB that a client may cost who sends and never reads: what was read at once (128 KiB) and the replies that wait (64
#: KiB), with what an allocator adds. There may be many of them.
LARGEST_OF_CLIENT = 512
CLIENTS = scaled(5, 50)
#: KiB that may stay afterwards: what an allocator keeps for the next time.
LASTING_GROWTH = 12 * 1024
SESSIONS = scaled(300, 10_000)


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDaemon]:
    with RealDaemon(tmp_path_factory.mktemp("abuse"), size="300 MB", memory="8 MB") as daemon:
        for to in (f"x@{MAIL}", f"x@{SPOOL}"):  # what is made at the first use is there
            assert send_one(daemon.address, b"a line\r\n" * 100_000, to).startswith("250 ")
        yield daemon


@pytest.fixture
def daemon(fortress: RealDaemon) -> Iterator[RealDaemon]:
    """For what one client can do."""
    yield from unharmed(fortress, LARGEST_GROWTH, LASTING_GROWTH)


@pytest.fixture
def crowded_daemon(fortress: RealDaemon) -> Iterator[RealDaemon]:
    """For what `CLIENTS` can do together. An allocator keeps what they had, for the next ones."""
    yield from unharmed(fortress, CLIENTS * LARGEST_OF_CLIENT, CLIENTS * LARGEST_OF_CLIENT)


def unharmed(fortress: RealDaemon, most: int, most_to_stay: int) -> Iterator[RealDaemon]:
    """Afterwards it serves as before, and has taken no more memory than this, in KiB, for the moment and to stay."""
    before = fortress.resident()
    fortress.forget_peak()
    yield fortress
    began = time.monotonic()
    assert send_one(fortress.address).startswith("250 ")
    assert time.monotonic() - began < 1.0
    until(lambda: Shelves(fortress.stores).leftovers() == [], "the end of what was given up")
    peak, lasting = fortress.peak() - before, fortress.resident() - before
    print(f"resident memory: {before} KiB, at most {peak} more, {lasting} to stay")
    assert peak < most
    assert lasting < most_to_stay
    fortress.assert_no_mistakes()


# Noise


def talk(address: tuple[str, int], pieces: Sequence[bytes]) -> bytes:
    """Send this whatever is answered, close our half, and hear the server out."""
    heard = b""
    with socket.create_connection(address, PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has closed the connection, which is its good right
        try:
            while data := sock.recv(65536):
                heard += data
        except ConnectionError:
            return heard[: heard.rfind(b"\r\n") + 2]  # a reset may cut the last words short
    return heard


def talk_often(address: tuple[str, int], make: Callable[[random.Random], Sequence[bytes]]) -> list[list[int]]:
    """Many sessions, some of them at a time; the codes of the replies of each."""
    with ThreadPoolExecutor(8) as pool:
        return [*pool.map(lambda seed: replies(talk(address, make(random.Random(seed)))), range(SESSIONS))]


def test_random_bytes(daemon: RealDaemon) -> None:
    def noise(dice: random.Random) -> Sequence[bytes]:
        return [dice.randbytes(dice.choice((1, 10, 100, 1000, 20_000))) for _ in range(dice.randrange(1, 5))]

    heard = talk_often(daemon.address, noise)
    assert all(codes[0] == 220 for codes in heard)
    assert not any(code in (250, 354) for codes in heard for code in codes)


DIALOGUE = (
    b"EHLO client.example\r\nMAIL FROM:<a@client.example> BODY=8BITMIME SIZE=1000\r\nRCPT TO:<x@mail.example>\r\n"
    b'RCPT TO:<"x y"@spool.example>\r\nDATA\r\nSubject: x\r\n\r\n..hello\r\n.\r\nRSET\r\nNOOP\r\nVRFY x\r\n'
    b"MAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nBDAT 5\r\nhelloBDAT 7 LAST\r\nworld\r\nQUIT\r\n"
)


def mutated(dice: random.Random) -> Sequence[bytes]:
    """The dialogue with a few mistakes in it, in pieces."""
    data = bytearray(DIALOGUE)
    for _ in range(dice.randrange(1, 8)):
        at = dice.randrange(len(data))
        end = at + dice.choice((1, 2, 10, 60))
        match dice.randrange(5):
            case 0:
                del data[at:end]
            case 1:
                data[at:at] = dice.randbytes(dice.choice((1, 3, 700)))
            case 2:
                data[at:at] = data[at:end] * dice.choice((1, 2, 50))
            case 3:
                data[at] ^= 1 << dice.randrange(8)
            case _:
                data[at:at] = dice.choice((b"\r\n", b"\n", b"\r", b"\0", b"\r\n.\r\n", b" ", b"<", b"\xc3\xbc", b"9"))
    cut = dice.randrange(len(data) + 1)
    return [bytes(data[:cut]), bytes(data[cut:])]


def test_mutated_dialogues(daemon: RealDaemon) -> None:
    heard = talk_often(daemon.address, mutated)
    assert all(codes[0] == 220 for codes in heard)
    assert sum(354 in codes for codes in heard) > SESSIONS // 10  # not all of them stumble over the first mistake


# Without an end


LONG = scaled(20, 200) * MIB
LARGE = scaled(30, 200) * MIB


def pour(client: Client, piece: bytes, size: int) -> None:
    """Send so many bytes of it."""
    piece *= max(1, 65536 // len(piece))
    for _ in range(size // len(piece)):
        client.socket.sendall(piece)


def test_command_line_without_an_end(daemon: RealDaemon) -> None:
    with Client(daemon.address) as client:
        client.greet()
        pour(client, b"x", LONG)
        assert client.ask(b"\r\n").startswith("500 5.5.2 ")
        assert client.ask("QUIT").startswith("221 ")


@pytest.mark.parametrize("to", [MAIL, SPOOL])
def test_body_line_without_an_end(daemon: RealDaemon, to: str) -> None:
    with Client(daemon.address) as client:
        begin_body(client, to)
        pour(client, b"x", LONG)
        assert client.ask(b"\r\n.\r\n").startswith("5")
        assert client.ask("QUIT").startswith("221 ")


def begin_body(client: Client, to: str) -> None:
    client.greet()
    assert client.ask("MAIL FROM:<a@client.example>").startswith("250 ")
    assert client.ask(f"RCPT TO:<large@{to}>").startswith("250 ")
    assert client.ask("DATA").startswith("354 ")


BODIES = [
    pytest.param(b"The quick brown fox jumps over the lazy dog.\r\n", 1, id="lines"),
    pytest.param(b"\r\n", 4, id="blank-lines"),
    pytest.param(b"..\r\n", 4, id="dots"),
]


@pytest.mark.parametrize(("line", "share"), BODIES)
def test_large_body(daemon: RealDaemon, line: bytes, share: int) -> None:
    line *= 65536 // len(line)
    with Client(daemon.address) as client:
        begin_body(client, MAIL)
        pour(client, line, LARGE // share)
        assert client.ask(b"the end\r\n.\r\n").startswith("250 ")
    (stored,) = daemon.stores.glob("mail/large/new/*")
    sent = (
        LARGE // share // len(line) * len(line.replace(b"\r\n..", b"\r\n.").removeprefix(b".").replace(b"\r\n", b"\n"))
    )
    assert 0 < stored.stat().st_size - sent - len("the end\n") < 1000  # the header fields in front of it
    stored.unlink()


def test_large_chunk(daemon: RealDaemon) -> None:
    with Client(daemon.address) as client:
        client.greet()
        client.socket.sendall(b"MAIL FROM:<>\r\nRCPT TO:<large@spool.example>\r\nBDAT %d LAST\r\n" % LARGE)
        pour(client, b"x" * 62 + b"\r\n", LARGE)
        assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "250"]
    (large,) = [path for path in daemon.stores.glob("spool/*.eml") if path.stat().st_size > LARGE]
    large.with_suffix(".json").unlink()
    large.unlink()


# Holding on


def test_clients_that_never_read(crowded_daemon: RealDaemon) -> None:
    never_read(crowded_daemon)
    before = crowded_daemon.resident()
    never_read(crowded_daemon)  # and the next ones need no more
    assert crowded_daemon.resident() - before < CLIENTS * LARGEST_OF_CLIENT // 2


def never_read(daemon: RealDaemon) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(daemon.address)) for _ in range(CLIENTS)]
        for client in clients:
            sent = 0
            client.socket.settimeout(0.05)
            try:
                while sent < 64 * MIB:
                    sent += client.socket.send(b"EHLO client.example\r\n" * 3000)
            except TimeoutError:
                continue
            raise AssertionError("64 MiB of commands were taken, and no reply was read")
        assert send_one(daemon.address).startswith("250 ")


def test_pipelined_flood(daemon: RealDaemon) -> None:
    count = scaled(5_000, 100_000)
    with Client(daemon.address) as client:
        flood = threading.Thread(target=client.socket.sendall, args=(b"EHLO client.example\r\n" * count + b"QUIT\r\n",))
        flood.start()
        codes = [client.reply()[:3] for _ in range(count + 2)]
        flood.join()
    assert codes == ["220", *["250"] * count, "221"]


def test_silent_connections(daemon: RealDaemon) -> None:
    count = min(1000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)
    before = daemon.resident()
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(daemon.address)) for _ in range(count)]
        began = time.monotonic()
        assert send_one(daemon.address).startswith("250 ")
        assert time.monotonic() - began < PATIENCE / 2
        assert (daemon.resident() - before) / count < 8  # KiB
        assert {client.reply()[:3] for client in clients} == {"220"}


def begin_bodies(
    daemon: RealDaemon, stack: ExitStack, count: int, start: bytes, size: int, *, is_patient: bool = False
) -> list[str]:
    """So many clients begin a message and stop in the middle of it; the replies to DATA.

    is_patient: they try again after a 452, as the disk may be slower than they are.
    """
    answers = []
    end = time.monotonic() + PATIENCE
    for _ in range(count):
        client = stack.enter_context(Client(daemon.address))
        client.greet()
        assert client.ask("MAIL FROM:<>").startswith("250 ")
        assert client.ask(f"RCPT TO:<x@{MAIL}>").startswith("250 ")
        answers.append(client.ask("DATA")[:9])
        while is_patient and answers[-1].startswith("452 ") and time.monotonic() < end:
            time.sleep(0.1)
            answers[-1] = client.ask("DATA")[:9]
        if answers[-1].startswith("354 "):
            client.socket.sendall(start + (b"x" * 62 + b"\r\n") * (size // 64))
    return answers


def test_bodies_that_never_end(daemon: RealDaemon) -> None:
    with ExitStack() as stack:
        answers = begin_bodies(daemon, stack, 400, b"S: x\r\n\r\n", 30 * 1024)
    # They hold what limits.memory says and little more; then nobody else may begin.
    assert answers.index("452 4.3.1") > 100
    assert {answer[:3] for answer in answers} == {"354", "452"}


def test_headers_that_never_end(daemon: RealDaemon) -> None:
    with ExitStack() as stack:
        answers = begin_bodies(daemon, stack, 100, b"", 200 * 1024, is_patient=True)
    assert {answer[:3] for answer in answers} == {"354"}  # what arrives is on disk, all but the beginning


def test_byte_by_byte(daemon: RealDaemon) -> None:
    def session(_: int) -> list[int]:
        return replies(talk(daemon.address, [DIALOGUE[at : at + 1] for at in range(len(DIALOGUE))]))

    with ThreadPoolExecutor(10) as pool:
        heard = [*pool.map(session, range(scaled(10, 100)))]
    at_once = replies(talk(daemon.address, [DIALOGUE]))
    assert at_once.count(250) > 8 and at_once[-1] == 221
    assert all(codes == at_once for codes in heard)


def test_disconnects_anywhere(daemon: RealDaemon) -> None:
    for cut in range(0, len(DIALOGUE), scaled(20, 1)):
        with socket.create_connection(daemon.address, PATIENCE) as sock:
            sock.sendall(DIALOGUE[:cut])
            if cut % 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not an end


# Names and numbers


def test_strange_mailboxes(daemon: RealDaemon) -> None:
    dice = random.Random(1)
    alphabet = [
        "/",
        "..",
        ".",
        "\\\\",
        '\\"',
        "%",
        "~",
        " ",
        "-",
        "new",
        "tmp",
        "*",
        ":",
        ",S=1",
        "\u00fc",
        "\U0001f4a9",
        "x" * 20,
    ]
    accepted = 0
    with Client(daemon.address) as client:
        client.greet()
        for _ in range(scaled(3, 50)):
            assert client.ask("MAIL FROM:<> SMTPUTF8").startswith("250 ")
            local_parts = ["".join(dice.choices(alphabet, k=dice.randrange(1, 6))) for _ in range(30)]
            replies = [client.ask(f'RCPT TO:<"{local_part}"@{MAIL}>') for local_part in local_parts]
            assert {reply[:9] for reply in replies} <= {"250 2.1.5", "553 5.1.3", "501 5.1.3"}
            accepted += sum(reply[0] == "2" for reply in replies)
            assert client.ask("DATA").startswith("354 ")
            assert client.ask(b"S: x\r\n\r\nx\r\n.\r\n").startswith("250 ")
    assert accepted > scaled(50, 1000)
    # Each mailbox is a Maildir of its own right below the root, and there is nothing else.
    assert {path.name for path in daemon.stores.iterdir()} == {"mail", "spool", "smtp.yaml", "daemon.log"}
    assert {path.name for path in daemon.stores.glob("mail/*/*")} == {"tmp", "new", "cur"}
    assert not [path for path in daemon.stores.glob("mail/*/*/*") if not path.is_file()]


def test_thousands_of_recipients(daemon: RealDaemon) -> None:
    count = scaled(2_000, 20_000)
    with Client(daemon.address) as client:
        client.greet()
        assert client.ask("MAIL FROM:<>").startswith("250 ")
        codes = []
        for start in range(0, count, 500):
            commands = [b"RCPT TO:<box%d@mail.example>\r\n" % (number % 7) for number in range(start, start + 500)]
            client.socket.sendall(b"".join(commands))
            codes += [client.reply()[:9] for _ in range(500)]
        assert [code[:3] for code in codes[:1000]] == ["250"] * 1000
        assert {*codes[1000:]} == {"452 4.5.3"}
        assert client.ask("DATA").startswith("354 ")
        assert client.ask(b"S: x\r\n\r\nx\r\n.\r\n").startswith("250 ")


SIZES = (b"99999999999999999999999", b"300000001", b"18446744073709551616", b"-1", b"1e9", b"\xd9\xa3", b"0x10", b"")


@pytest.mark.parametrize("size", SIZES)
def test_chunk_of_a_size_that_cannot_be(daemon: RealDaemon, size: bytes) -> None:
    with Client(daemon.address) as client:
        client.greet()
        for command in ("MAIL FROM:<>", "RCPT TO:<x@mail.example>"):
            assert client.ask(command).startswith("250 ")
        client.socket.sendall(b"BDAT " + size + b" LAST\r\n")
        client.socket.sendall(b"NOOP\r\n")  # it is either a command, or the first octets of far too many
        client.socket.shutdown(socket.SHUT_WR)
        heard = client.rest()
    assert 250 not in heard[:1]
    assert all(code in (250, 500, 501, 503, 552) for code in heard)


def test_disconnects_within_large_chunks(daemon: RealDaemon) -> None:
    for _ in range(scaled(5, 50)):
        with Client(daemon.address) as client:
            client.greet()
            client.socket.sendall(b"MAIL FROM:<>\r\nRCPT TO:<x@mail.example>\r\nBDAT 200000000 LAST\r\n")
            pour(client, b"x" * 62 + b"\r\n", 2 * MIB)


def test_nothing_of_it_was_stored_in_part(fortress: RealDaemon) -> None:
    """Behind all of the above: every file says its own size."""
    for path in fortress.stores.glob("mail/*/new/*"):
        assert f",S={path.stat().st_size}" in path.name
    for path in fortress.stores.glob("spool/*.json"):
        assert json.loads(path.read_bytes())["size"] == path.with_suffix(".eml").stat().st_size
