"""Accounts of a users file behind the seam: what each mechanism comes to, and what attempts cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp.core import ScramClient
from signing_in import CLEAR, Clock, conclude, gate, plain, session, waited

from smtpmaild.auth import Authenticated, Challenge, ChannelBinding, Failed, Step
from smtpmaild.auth.local import MECHANISMS, Local
from smtpmaild.auth.schemes import HashError, PasswordHash
from smtpmaild.auth.scram import ScramKeys
from smtpmaild.auth.throttle import ThrottleLimits
from smtpmaild.auth.users_file import UsersFile

T = TypeVar("T")
SHA = "{SHA}0vxRJJChUDZGC1SJQBQ51tpUB/o="  # of "pencil"
KEYS = ScramKeys.of_password("pencil", b"0123456789abcdef", 4096)
SCRAM = "{SCRAM-SHA-256}" + KEYS.format()
END_POINT = ChannelBinding("tls-server-end-point", b"digest")


class NoLog:
    def info(self, event: str, /, **facts: object) -> None:
        raise AssertionError((event, facts))

    warning = error = exception = info


class Inline:
    """Runs at once, and counts."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, work: Callable[[], T], /) -> T:
        self.runs += 1
        return work()


def accounts(
    folder: Path,
    *lines: str,
    clock: Clock | None = None,
    limits: ThrottleLimits | None = None,
    wanted: Sequence[str] = MECHANISMS,
    run: Inline | None = None,
) -> Local:
    path = folder / "users"
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    file = UsersFile(str(path), NoLog())
    return Local(file, run or Inline(), gate(clock or Clock(), limits), lambda: "nonce", wanted)


def refused(step: Step) -> tuple[int, str, str]:
    assert isinstance(step, Failed), step
    return step.reply.code, step.cause, step.user


@pytest.mark.parametrize(
    ("lines", "wanted", "mechanisms"),
    [
        ([f"alice:{SHA}"], MECHANISMS, ("PLAIN", "LOGIN")),
        ([f"alice:{SCRAM}"], MECHANISMS, ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")),
        ([f"alice:{SCRAM}", f"bob:{SHA}"], MECHANISMS, ("PLAIN", "LOGIN")),
        ([f"alice:{SCRAM}"], ("PLAIN", "SCRAM-SHA-256"), ("SCRAM-SHA-256", "PLAIN")),
        ([], MECHANISMS, ("PLAIN", "LOGIN")),
    ],
)
def test_mechanisms(tmp_path: Path, lines: Sequence[str], wanted: Sequence[str], mechanisms: Sequence[str]) -> None:
    assert accounts(tmp_path, *lines, wanted=wanted).mechanisms == mechanisms


@pytest.mark.parametrize(
    "response", [plain("alice", "pencil"), plain("ALICE", "pencil"), plain("alice", "pencil", "alice")]
)
def test_plain(tmp_path: Path, response: bytes) -> None:
    local = accounts(tmp_path, f"alice:{SHA}")
    assert conclude(local, "PLAIN", None) == Challenge(b"")
    assert conclude(local, "PLAIN", response) == Authenticated("alice")
    assert conclude(local, "PLAIN", None, response) == Authenticated("alice")


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (plain("alice", "pen"), (535, "wrong password", "alice")),
        (plain("bob", "pencil"), (535, "no such account", "bob")),
        (plain("alice", "pencil", "bob"), (535, "asks to act as another user", "alice")),
        (plain("alice", "pencil", "\x07"), (535, "asks to act as another user", "alice")),
        (b"", (501, "malformed credentials", "")),
        (b"alice pencil", (501, "malformed credentials", "")),
        (b"\0alice", (501, "malformed credentials", "")),
        (b"\0alice\0pencil\0", (501, "malformed credentials", "")),
        (b"\0\0pencil", (501, "malformed credentials", "")),
        (b"\0alice\0", (501, "malformed credentials", "")),
        (b"\0al\xffice\0pencil", (501, "malformed credentials", "")),
        (b"\0alice\0pen\rcil", (501, "malformed credentials", "")),
    ],
)
def test_refused_plain(tmp_path: Path, response: bytes, outcome: tuple[int, str, str]) -> None:
    assert refused(conclude(accounts(tmp_path, f"alice:{SHA}"), "PLAIN", response)) == outcome


def test_login(tmp_path: Path) -> None:
    local = accounts(tmp_path, f"alice:{SHA}")
    assert conclude(local, "LOGIN", None) == Challenge(b"Username:")
    assert conclude(local, "LOGIN", None, b"alice") == Challenge(b"Password:")
    assert conclude(local, "LOGIN", b"alice") == Challenge(b"Password:")
    assert conclude(local, "LOGIN", None, b"alice", b"pencil") == Authenticated("alice")
    assert refused(conclude(local, "LOGIN", b"alice", b"pen")) == (535, "wrong password", "alice")
    assert refused(conclude(local, "LOGIN", b""))[0] == 501
    assert refused(conclude(local, "LOGIN", b"alice", b"\xff"))[0] == 501


def scram(
    local: Local, user: str, password: str, mechanism: str = "SCRAM-SHA-256", binding: ChannelBinding | None = None
) -> Step:
    """The whole exchange with another implementation as client."""
    bound = (binding.name, binding.data) if binding and mechanism.endswith("PLUS") else None
    client = ScramClient([mechanism], user, password, channel_binding=bound)

    async def talk() -> Step:
        exchange = local.begin(mechanism, CLEAR, binding)
        assert exchange.respond(None) == Challenge(b"")
        step = await waited(exchange.respond(client.get_client_first().encode()))
        if isinstance(step, Challenge):
            client.set_server_first(step.data.decode())
            step = await waited(exchange.respond(client.get_client_final().encode()))
        if isinstance(step, Challenge):
            client.set_server_final(step.data.decode())
            step = await waited(exchange.respond(b""))
        return step

    return asyncio.run(talk())


def test_scram(tmp_path: Path) -> None:
    local = accounts(tmp_path, f"Alice:{SCRAM}", "carol:*")
    assert scram(local, "alice", "pencil") == Authenticated("Alice")
    assert scram(local, "alice", "pencil", "SCRAM-SHA-256-PLUS", END_POINT) == Authenticated("Alice")
    assert conclude(local, "PLAIN", plain("alice", "pencil")) == Authenticated("Alice")
    assert refused(scram(local, "alice", "pen")) == (535, "wrong password", "alice")
    # who is not there, or is locked, is challenged as who is, and hears the same
    assert refused(scram(local, "mallory", "pencil")) == (535, "no such account", "mallory")
    assert refused(scram(local, "carol", "pencil")) == (535, "the account is locked", "carol")


def test_downgrade_is_noticed_only_where_binding_was_offered(tmp_path: Path) -> None:
    would_bind = b"y,,n=alice,r=abc"
    assert refused(conclude(accounts(tmp_path, f"alice:{SCRAM}"), "SCRAM-SHA-256", would_bind, binding=END_POINT)) == (
        535, "channel binding was offered and did not arrive: somebody is in between", "",
    )  # fmt: skip
    without = accounts(tmp_path, f"alice:{SCRAM}", wanted=("SCRAM-SHA-256",))
    assert isinstance(conclude(without, "SCRAM-SHA-256", would_bind, binding=END_POINT), Challenge)


def test_nothing_may_come_after_the_proof(tmp_path: Path) -> None:
    local = accounts(tmp_path, f"alice:{SCRAM}")
    client = ScramClient(["SCRAM-SHA-256"], "alice", "pencil")

    async def talk() -> Step:
        exchange = local.begin("SCRAM-SHA-256", CLEAR, None)
        step = await waited(exchange.respond(client.get_client_first().encode()))
        assert isinstance(step, Challenge)
        client.set_server_first(step.data.decode())
        await waited(exchange.respond(client.get_client_final().encode()))
        return await waited(exchange.respond(b"more"))

    assert refused(asyncio.run(talk()))[0] == 501


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Local:
    limits = ThrottleLimits(failures=1_000_000)
    return accounts(tmp_path_factory.mktemp("users"), f"alice:{SCRAM}", limits=limits)


@given(
    st.sampled_from(MECHANISMS),
    st.lists(
        st.none()
        | st.binary()
        | st.text().map(str.encode)
        | st.sampled_from([b"n,,n=alice,r=abc", b"\0alice\0pencil"]),
        min_size=1,
        max_size=4,
    ),
)
def test_nothing_a_client_sends_raises(shared: Local, mechanism: str, responses: Sequence[bytes | None]) -> None:
    async def talk() -> None:
        exchange = shared.begin(mechanism, CLEAR, END_POINT)
        for response in responses:
            step = await waited(exchange.respond(response))
            assert "pencil" not in repr(step)
            if not isinstance(step, Challenge):
                return

    asyncio.run(talk())


# What attempts cost


def test_one_hash_for_each_attempt_on_known_and_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    verify = PasswordHash.verify

    def counted(self: PasswordHash, password: str) -> bool:
        hashed.append(self.scheme)
        return verify(self, password)

    monkeypatch.setattr(PasswordHash, "verify", counted)
    run = Inline()
    local = accounts(tmp_path, f"alice:{SHA}", "carol:*", run=run)
    for user in ("alice", "carol", "mallory"):
        conclude(local, "PLAIN", plain(user, "x"))
        conclude(local, "LOGIN", user.encode(), b"x")
    assert (hashed, run.runs) == (["SHA"] * 6, 6)


def test_attempts_wait_and_then_the_address_is_turned_away(tmp_path: Path) -> None:
    clock, run = Clock(), Inline()
    local = accounts(tmp_path, f"alice:{SHA}", clock=clock, run=run)
    guesses = [conclude(local, "PLAIN", plain("alice", f"x{n}"), host="198.51.100.7") for n in range(11)]
    assert [refused(step)[0] for step in guesses] == [535] * 10 + [421]
    # twice as long each time; less what was forgotten while they waited
    assert [round(seconds) for seconds in clock.slept] == [1, 2, 4, 7, 10, 10, 10, 10]
    # who is turned away costs no hash
    assert run.runs == 10
    assert refused(conclude(local, "PLAIN", plain("bob", "x"), host="198.51.100.7"))[0] == 421
    # the owner comes in from elsewhere, after one delay
    clock.slept.clear()
    assert conclude(local, "PLAIN", plain("alice", "pencil")) == Authenticated("alice")
    assert conclude(local, "PLAIN", plain("alice", "pencil")) == Authenticated("alice")
    assert clock.slept == [10.0]


def test_scram_guesses_wait_too(tmp_path: Path) -> None:
    clock = Clock()
    local = accounts(tmp_path, f"alice:{SCRAM}", clock=clock)
    codes = [refused(scram(local, "alice", "x"))[0] for _ in range(11)]
    assert codes == [535] * 10 + [421]
    assert len(clock.slept) == 8


def test_who_hangs_up_costs_no_hash_and_counts(tmp_path: Path) -> None:
    clock, run = Clock(), Inline()
    local = accounts(tmp_path, f"alice:{SHA}", clock=clock, run=run)

    async def hang_up(mechanism: str, *responses: bytes) -> Step:
        exchange = local.begin(mechanism, session("198.51.100.7"), None)
        for response in responses[:-1]:
            exchange.respond(response)
        step = exchange.respond(responses[-1])
        exchange.cancel()
        return await waited(step)

    for _ in range(5):
        assert refused(asyncio.run(hang_up("PLAIN", plain("alice", "pencil"))))[1] == "the client went away"
    for _ in range(5):
        assert refused(asyncio.run(hang_up("LOGIN", b"alice", b"pencil")))[1] == "the client went away"
    assert run.runs == 0
    assert refused(conclude(local, "PLAIN", plain("alice", "pencil"), host="198.51.100.7"))[0] == 421


def test_who_hangs_up_in_mid_scram(tmp_path: Path) -> None:
    local = accounts(tmp_path, f"alice:{SCRAM}")
    client = ScramClient(["SCRAM-SHA-256"], "alice", "pencil")

    async def hang_up() -> Step:
        exchange = local.begin("SCRAM-SHA-256", CLEAR, None)
        step = await waited(exchange.respond(client.get_client_first().encode()))
        assert isinstance(step, Challenge)
        client.set_server_first(step.data.decode())
        final = exchange.respond(client.get_client_final().encode())
        exchange.cancel()
        return await waited(final)

    assert refused(asyncio.run(hang_up()))[1] == "the client went away"


def test_who_hangs_up_while_waiting_in_the_queue(tmp_path: Path) -> None:
    class Queue(Inline):
        async def __call__(self, work: Callable[[], T], /) -> T:
            exchange.cancel()
            return work()

    local = accounts(tmp_path, f"alice:{SHA}", run=Queue())
    exchange = local.begin("PLAIN", CLEAR, None)

    async def respond() -> Step:
        return await waited(exchange.respond(plain("alice", "pencil")))

    assert refused(asyncio.run(respond()))[:2] == (535, "the client went away")


def test_hash_that_cannot_be_computed_is_no_failure_of_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(self: PasswordHash, password: str) -> bool:
        raise HashError("Memory allocation error")

    monkeypatch.setattr(PasswordHash, "verify", no_memory)
    clock = Clock()
    local = accounts(tmp_path, f"alice:{SHA}", clock=clock)
    for _ in range(20):
        step = conclude(local, "PLAIN", plain("alice", "pencil"), host="198.51.100.7")
        assert refused(step)[:2] == (454, "the hash cannot be computed: Memory allocation error")
    assert clock.slept == []


def test_too_many_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpmaild.auth.local._MOST_WAITING", 3)

    class Slow(Inline):
        async def __call__(self, work: Callable[[], T], /) -> T:
            await asyncio.sleep(0.01)
            return work()

    local = accounts(tmp_path, f"alice:{SHA}", run=Slow())

    async def talk() -> list[Step]:
        exchanges = [local.begin("PLAIN", session(f"192.0.2.{n}"), None) for n in range(5)]
        return await asyncio.gather(*(waited(one.respond(plain("alice", "pencil"))) for one in exchanges))

    steps = asyncio.run(talk())
    assert steps[:3] == [Authenticated("alice")] * 3
    assert [refused(step)[0] for step in steps[3:]] == [454, 454]


def test_file_that_changes_is_used_at_once(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("alice:*\n")
    path.chmod(0o600)

    class Log(NoLog):
        def info(self, event: str, /, **facts: object) -> None:
            assert event == "users_file_read"

    local = Local(UsersFile(str(path), Log()), Inline(), gate(Clock()), lambda: "nonce")
    assert refused(conclude(local, "PLAIN", plain("alice", "pencil")))[1] == "the account is locked"
    path.write_text(f"alice:{SHA}\n")
    assert conclude(local, "PLAIN", plain("alice", "pencil")) == Authenticated("alice")
