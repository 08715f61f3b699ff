"""Dovecot's protocol, line by line, and accounts that are asked for by it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp.core import ScramClient
from signing_in import CLEAR, Clock, conclude, gate, plain, session, waited

from smtpmaild.auth import Authenticated, Challenge, Failed
from smtpmaild.auth.dovecot import (
    Accepted,
    Answer,
    Continue,
    Conversation,
    DovecotError,
    Refused,
    parameters_of,
)
from smtpmaild.auth.relayed import Relayed, Unavailable
from smtpmaild.auth.scram import ScramKeys, ScramServer
from smtpmaild.envelope import ClientCertificate, Tls

#: What a Dovecot 2.3 said.
GREETING = (
    b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tSCRAM-SHA-256\tmutual-auth\nSPID\t12\nCUID\t1\n"
    b"COOKIE\t3d0bcbd4a9e6c6c0c6d8fe3a4b6e9a55\nDONE\n"
)


def greeted() -> Conversation:
    conversation = Conversation(4711)
    assert conversation.receive_data(GREETING) == []
    assert conversation.is_ready
    return conversation


def test_greeting() -> None:
    conversation = Conversation(4711)
    assert conversation.hello() == b"VERSION\t1\t1\nCPID\t4711\n"
    for octet in GREETING[:-1]:
        assert conversation.receive_data(bytes([octet])) == []
        assert not conversation.is_ready
    conversation.receive_data(b"\n")
    assert conversation.is_ready
    assert conversation.mechanisms == ("PLAIN", "SCRAM-SHA-256")


def test_request() -> None:
    conversation = greeted()
    number, line = conversation.request("PLAIN", ["service=smtp", "rip=a\tb\x01c"], b"\0alice\0x")
    # the client's part is the last: Dovecot takes all behind "resp=" for it
    assert line == b"AUTH\t1\tPLAIN\tservice=smtp\trip=a\x01tb\x011c\tresp=AGFsaWNlAHg=\n"
    assert conversation.request("PLAIN", [], None) == (2, b"AUTH\t2\tPLAIN\n")
    assert conversation.request("PLAIN", [], b"") == (3, b"AUTH\t3\tPLAIN\tresp=\n")
    assert conversation.proceed(number, b"more") == b"CONT\t1\tbW9yZQ==\n"
    assert conversation.cancel(number) == b"CANCEL\t1\n"


def test_numbers_of_requests_stay_in_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smtpmaild.auth.dovecot._LAST_ID", 2)
    conversation = greeted()
    assert [conversation.request("PLAIN", [], None)[0] for _ in range(4)] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"CONT\t1\tbW9yZQ==", Continue(b"more")),
        (b"CONT\t1", Continue(b"")),
        (b"OK\t1\tuser=alice", Accepted("alice")),
        (b"OK\t1\tuser=al\x01tice\toriginal_user=x\tpass=secret", Accepted("al\tice")),
        (b"FAIL\t1\tuser=alice", Refused("Dovecot says no", "alice")),
        (b"FAIL\t1\tuser=alice\ttemp", Refused("Dovecot says no", "alice", is_temporary=True)),
        (b"FAIL\t1\tcode=temp_fail\tuser=alice", Refused("temp_fail", "alice", is_temporary=True)),
        (b"FAIL\t1\tuser=a\treason=Too old\tpass_expired", Refused("Too old, pass_expired", "a")),
        (b"FAIL\t1", Refused("Dovecot says no")),
    ],
)
def test_answers(line: bytes, answer: Answer) -> None:
    assert greeted().receive_data(line + b"\n") == [(1, answer)]


def test_answers_come_in_any_order_and_pieces() -> None:
    conversation = greeted()
    assert conversation.receive_data(b"OK\t2\tuser=bob\nFA") == [(2, Accepted("bob"))]
    assert conversation.receive_data(b"IL\t1\tuser=alice\n") == [(1, Refused("Dovecot says no", "alice"))]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (b"VERSION\t2\t0\n", "another version"),
        (b"VERSION\n", "another version"),
        (b"MECH\tPLAIN\nDONE\n", "does not say its version"),
        (b"OK\t1\tuser=alice\n", "OK came unexpected"),  # before its greeting is over
        (GREETING + b"OK\n", "OK came unexpected"),
        (GREETING + b"FAIL\tx\n", "FAIL came unexpected"),
        (GREETING + b"OK\t1\n", "OK names no user"),
        (GREETING + b"CONT\t1\t%%\n", "not base64"),
        (b"x" * 70_000, "no end"),
    ],
)
def test_nonsense(said: bytes, cause: str) -> None:
    with pytest.raises(DovecotError, match=cause):
        Conversation(1).receive_data(said)


@given(st.lists(st.binary() | st.sampled_from([GREETING, b"OK\t1\t", b"CONT\t", b"FAIL\t9\t", b"\n", b"user="])))
def test_nothing_raises_anything_else(pieces: Sequence[bytes]) -> None:
    conversation = Conversation(1)
    try:
        for piece in pieces:
            conversation.receive_data(piece)
    except DovecotError:
        pass


def test_what_dovecot_is_told() -> None:
    assert parameters_of(session("")) == ["service=smtp", "nologin"]
    clear = session("192.0.2.1")
    assert parameters_of(clear) == ["service=smtp", "nologin", "rip=192.0.2.1", "rport=4321"]
    clear.tls = Tls("TLSv1.3", "x")
    assert parameters_of(clear)[-1] == "secured"


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        ("CN=printer,O=Example", ["cert_username=printer"]),
        ("emailAddress=a@b.example+CN=pr\\,int\\2Ber,O=x", ["cert_username=pr,int+er"]),
        ("O=a\\,CN=root,CN=printer", ["cert_username=printer"]),  # not what somebody had signed as part of his O
        ("O=Example", []),
        ("", []),
    ],
)
def test_name_in_the_certificate(subject: str, told: list[str]) -> None:
    secured = session("192.0.2.1")
    secured.tls = Tls("TLSv1.3", "x", client=ClientCertificate(subject, "00"))
    assert parameters_of(secured)[4:] == ["secured", "valid-client-cert", *told]


# Accounts behind it


class FakeRequest:
    def __init__(self, dovecot: FakeDovecot) -> None:
        self._dovecot = dovecot

    async def proceed(self, data: bytes) -> Answer:
        return self._dovecot.answer("proceed", data)

    def cancel(self) -> None:
        self._dovecot.heard.append(("cancel", None))


class FakeDovecot:
    """Says what it is told to say; an exception is raised."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self._answers = [*answers]
        self.heard: list[tuple[str, bytes | None]] = []

    def answer(self, what: str, data: bytes | None) -> Answer:
        self.heard.append((what, data))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask(self, mechanism: str, parameters: Sequence[str], initial: bytes | None) -> tuple[FakeRequest, Answer]:
        return FakeRequest(self), self.answer(mechanism, initial)


ALL = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")


def accounts(dovecot: FakeDovecot, clock: Clock | None = None) -> Relayed:
    return Relayed(dovecot, gate(clock or Clock()), ("PLAIN", "SCRAM-SHA-256"), ALL)


@pytest.mark.parametrize(
    ("offered", "wanted", "mechanisms"),
    [
        (("PLAIN", "LOGIN", "SCRAM-SHA-256", "CRAM-MD5"), ALL, ("SCRAM-SHA-256", "PLAIN", "LOGIN")),
        (("PLAIN",), ALL, ("PLAIN", "LOGIN")),  # LOGIN is ours to speak
        (("PLAIN", "SCRAM-SHA-256"), ("SCRAM-SHA-256",), ("SCRAM-SHA-256",)),
        (("CRAM-MD5",), ALL, ()),
    ],
)
def test_mechanisms(offered: Sequence[str], wanted: Sequence[str], mechanisms: Sequence[str]) -> None:
    assert Relayed(FakeDovecot(), gate(Clock()), offered, wanted).mechanisms == mechanisms


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_passwords(mechanism: str) -> None:
    dovecot = FakeDovecot(Accepted("alice@example.com"))
    sent = [plain("alice", "secret")] if mechanism == "PLAIN" else [b"alice", b"secret"]
    assert conclude(accounts(dovecot), mechanism, *sent) == Authenticated("alice@example.com")
    assert dovecot.heard == [("PLAIN", b"\0alice\0secret")]


@pytest.mark.parametrize(
    ("answer", "code", "user"),
    [
        (Refused("Dovecot says no", "alice@example.com"), 535, "alice@example.com"),
        (Refused("Dovecot says no"), 535, "alice"),
        (Refused("the database is down", "alice", is_temporary=True), 454, "alice"),
        (Unavailable("/run/auth: Connection refused"), 454, "alice"),
    ],
)
def test_refusals(answer: Answer | Exception, code: int, user: str) -> None:
    step = conclude(accounts(FakeDovecot(answer)), "PLAIN", plain("alice", "secret"))
    assert isinstance(step, Failed)
    assert (step.reply.code, step.user) == (code, user)


def test_refusals_are_counted_and_trouble_is_not() -> None:
    clock = Clock()
    down = accounts(FakeDovecot(*[Unavailable("down")] * 50), clock)
    for _ in range(50):
        conclude(down, "PLAIN", plain("alice", "x"), host="198.51.100.7")
    assert clock.slept == []
    wrong = accounts(FakeDovecot(*[Refused("no")] * 10), clock)
    steps = [conclude(wrong, "PLAIN", plain("alice", "x"), host="198.51.100.7") for _ in range(11)]
    assert [step.reply.code for step in steps if isinstance(step, Failed)] == [535] * 10 + [421]


KEYS = ScramKeys.of_password("secret", b"0123456789abcdef", 4096)


class ScramDovecot(FakeDovecot):
    """Knows alice."""

    def __init__(self) -> None:
        super().__init__()
        self._server = ScramServer("SCRAM-SHA-256", None, "nonce")
        self._is_proved = False

    def answer(self, what: str, data: bytes | None) -> Answer:
        self.heard.append((what, data))
        if what == "SCRAM-SHA-256":
            assert self._server.read_first(data or b"") == "alice"
            return Continue(self._server.challenge(KEYS))
        if self._is_proved:
            return Accepted("alice")
        self._is_proved = True
        return Continue(self._server.read_final(data or b""))


def test_scram_goes_through() -> None:
    dovecot, clock = ScramDovecot(), Clock()
    client = ScramClient(["SCRAM-SHA-256"], "alice", "secret")

    async def talk() -> None:
        exchange = accounts(dovecot, clock).begin("SCRAM-SHA-256", session("198.51.100.7"), None)
        assert exchange.respond(None) == Challenge(b"")
        step = await waited(exchange.respond(client.get_client_first().encode()))
        assert isinstance(step, Challenge)
        client.set_server_first(step.data.decode())
        step = await waited(exchange.respond(client.get_client_final().encode()))
        assert isinstance(step, Challenge)
        client.set_server_final(step.data.decode())
        assert await waited(exchange.respond(b"")) == Authenticated("alice")

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("responses", "answers", "code"),
    [
        ([b"rubbish"], [], 501),
        ([b"n,a=root,n=alice,r=x"], [], 535),
        ([b"n,,n=" + b"a" * 600 + b",r=x"], [], 501),
        ([b"n,,n=alice,r=" + b"x" * 9000], [], 501),
        ([b"n,,n=alice,r=x"], [Unavailable("down")], 454),
        ([b"n,,n=alice,r=x"], [Refused("no such mechanism")], 535),
        ([b"n,,n=alice,r=x", b"c=biws"], [Continue(b"r=x"), Refused("wrong")], 535),
        ([b"n,,n=alice,r=x", b"c=biws"], [Continue(b"r=x"), Unavailable("down")], 454),
        ([b"n,,n=alice,r=x", b"y" * 9000], [Continue(b"r=x")], 501),
        ([b"n,,n=alice,r=x", b"c=biws", b""], [Continue(b"r=x"), Continue(b"v="), Unavailable("down")], 454),
    ],
)
def test_scram_that_fails(responses: Sequence[bytes], answers: Sequence[Answer | Exception], code: int) -> None:
    step = conclude(accounts(FakeDovecot(*answers)), "SCRAM-SHA-256", *responses)
    assert isinstance(step, Failed)
    assert step.reply.code == code


def test_cancelled_scram_is_cancelled_there() -> None:
    dovecot = FakeDovecot(Continue(b"r=x"))

    async def talk() -> None:
        exchange = accounts(dovecot).begin("SCRAM-SHA-256", CLEAR, None)
        exchange.cancel()  # nothing has begun yet
        exchange = accounts(dovecot).begin("SCRAM-SHA-256", CLEAR, None)
        await waited(exchange.respond(b"n,,n=alice,r=x"))
        exchange.cancel()

    asyncio.run(talk())
    assert [what for what, _ in dovecot.heard] == ["SCRAM-SHA-256", "cancel"]


ANSWERS = st.sampled_from([Continue(b"r=x"), Accepted("alice"), Refused("no"), Unavailable("down")])
RESPONSES = st.none() | st.binary() | st.sampled_from([b"n,,n=alice,r=x", b"c=biws,r=x,p=eA==", b"\0alice\0x", b""])


@given(st.sampled_from(["SCRAM-SHA-256", "PLAIN", "LOGIN"]), st.lists(RESPONSES, max_size=4), st.lists(ANSWERS))
def test_nothing_a_client_sends_raises(
    mechanism: str, responses: Sequence[bytes | None], answers: Sequence[Answer | Exception]
) -> None:
    async def talk() -> None:
        exchange = accounts(FakeDovecot(*answers, *[Unavailable("down")] * 4)).begin(mechanism, CLEAR, None)
        for response in responses:
            if not isinstance(await waited(exchange.respond(response)), Challenge):
                return

    asyncio.run(talk())
