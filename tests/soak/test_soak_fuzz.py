"""Random sessions in memory: whatever a client says in whatever order, the promises of a session hold.

Each session is drawn from a small grammar by a seed, then played twice: unit by unit as a polite client would, where
every reply is looked at, and as one stream in random pieces, where the answers must be the same. Stores refuse, ask
for breaks and answer late; policies refuse, at once or later.

- every reply is well-formed, and each unit gets the number of replies it must get;
- a message is in the store exactly where its end was answered 2yz, once, as it was sent;
- no session hangs: QUIT is answered 221 wherever it is a command, unless the session had ended already.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

import pytest
from real_daemon import replies, scaled
from receiving import Parcel, Says, Store, log_of, make_service

from smtpmaild.dialogue import CONNECTION_LOST, Dialogue
from smtpmaild.envelope import Peer
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply

pytestmark = pytest.mark.soak
SESSIONS = scaled(2_000, 40_000)
_REFUSALS = (Reply(550, "5.7.1", "No"), Reply(451, "4.7.1", "Later"))
_STAGES = ("helo", "mail", "rcpt", "data", "part", "message")


class LateStore(Store):
    """Answers and takes breaks as the dice say; `work_on` is its writer thread."""

    def __init__(self, seed: int) -> None:
        super().__init__(answers_at_once=False)
        self._dice = random.Random(seed)
        self.breaks_after = self._dice.choice(((), (2,), (3,)))
        self._rested: list[Parcel] = []
        self._answered: list[Parcel] = []
        self.stored: list[bytes] = []

    def work_on(self) -> bool:
        """Answer one commit, or end one break; False if there is none."""
        for parcel in self.parcels:
            if parcel.is_aborted or any(parcel is each for each in self._answered):
                continue
            if parcel.done is not None:
                self._answered.append(parcel)
                outcome = Reply(451, "4.3.0", "No") if self._dice.random() < 0.2 else MESSAGE_ACCEPTED
                if outcome.is_positive:
                    self.stored.append(parcel.message)
                parcel.finish(outcome)
                return True
            if len(parcel.chunks) in self.breaks_after and not any(parcel is each for each in self._rested):
                self._rested.append(parcel)
                parcel.drained()
                return True
        return False


@dataclass
class Table:
    """One session and everything around it."""

    seed: int
    work: list[Coroutine[object, object, None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        dice = random.Random(f"policies {self.seed}")
        self.store = LateStore(self.seed)
        verdicts: dict[str, Reply | Exception] = {}
        if dice.random() < 0.3:
            breaks = dice.random() < 0.1  # tracebacks are slow
            verdicts[dice.choice(_STAGES)] = ValueError("a bad policy") if breaks else dice.choice(_REFUSALS)
        policy = Says(verdicts, later=dice.random() < 0.5)
        options = {
            "message_size": dice.choice((200, 100_000)),
            "recipients": dice.choice((2, 100)),
            "bad_commands": dice.choice((5, 1000, 1000)),
            "refused_recipients": dice.choice((2, 1000, 1000)),
            "keep_bare_newlines": dice.random() < 0.5,
            "allow_bare_lf": dice.random() < 0.2,
        }
        self.service = make_service(policy, stores={"mail": self.store}, options=options)
        self.dialogue = Dialogue(self.service, Peer("192.0.2.1", 1), self.work.append, lambda: None)
        self.output = b""
        self.settle(self.dialogue.advance)

    def settle(self, step: Callable[[], object]) -> None:
        """Do it, and see through all that it began."""
        step()
        protocol = self.dialogue.protocol
        while True:
            self.output += protocol.data_to_send()
            if self.work:
                _run(self.work.pop(0))
            elif not self.store.work_on():
                was_stalled = protocol.is_stalled
                self.dialogue.advance()
                more = protocol.data_to_send()
                self.output += more
                if not (more or was_stalled or self.work):
                    break
        assert protocol.is_closed or not self.dialogue.is_busy, "nobody would wake this session"

    def send(self, data: bytes) -> bytes:
        """What is answered to it."""
        before = len(self.output)
        self.settle(lambda: self.dialogue.receive_data(data))
        return self.output[before:]

    @property
    def is_closed(self) -> bool:
        return self.dialogue.protocol.is_closed

    def stored(self) -> list[bytes]:
        return self.store.stored

    def stop(self) -> None:
        """The end; then nothing may be left over."""
        self.dialogue.stop(CONNECTION_LOST)
        while self.work:
            _run(self.work.pop(0))
        assert not log_of(self.service).named("session_failed")
        assert self.service.metrics.sessions_open == 0
        for parcel in self.store.parcels:
            assert parcel.is_aborted != (parcel.done is not None), "neither stored nor given up"


def _run(work: Coroutine[object, object, None]) -> None:
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("nothing here waits for a loop")


# The grammar

VERBS = (
    b"EHLO c.example", b"HELO c.example", b"RSET", b"NOOP", b"VRFY x", b"EXPN x", b"HELP", b"HELP DATA", b"TURN",
    b"MAIL FROM:<>", b"MAIL FROM:<a@c.example>", b"MAIL FROM:<a@c.example> SIZE=10 BODY=8BITMIME",
    b"MAIL FROM:<a@c.example> BODY=BINARYMIME", b"MAIL FROM:<a@c.example> SIZE=999999", b"MAIL FROM:a@c.example",
    b"RCPT TO:<mail@local.example>", b"RCPT TO:<mail@refused.example>", b"RCPT TO:<mail@later.example>",
    b"RCPT TO:<mail@local.example> NOTIFY=NEVER", b"RCPT TO:<>", b"rcpt to:<@a,@b:mail@local.example>",
    b"DATA", b"DATA now", b"BDAT", b"BDAT x", b"BDAT 5 LATEST", b"BDAT 0", b"BDAT -1", b"XFORWARD NAME=x", b"STARTTLS",
    b"XCLIENT ADDR=192.0.2.1",
    b"", b"\x00", b"\xff\xfe", b"QUITE", b"x" * 600, b"MAIL FROM:<\xc3\xbc@c.example> SMTPUTF8",
)  # fmt: skip
#: What a session that wants to get somewhere says, one after the other.
USUAL = (b"EHLO c.example", b"MAIL FROM:<a@c.example>", b"RCPT TO:<mail@local.example>")
BODIES = (
    b"", b"hello\r\n", b".leading dot\r\n..two\r\n", b"\r\n\r\n\r\n", b"no end of line", b"bare\nnewline\r\n",
    b"bare\rreturn\r\n", b"\n.\n", b"\r\n.\r", b"x" * 998 + b"\r\n", b"x" * 1200 + b"\r\n", b"QUIT\r\nRSET\r\n",
    b"nul \x00 \xff\r\n", b"a line\r\n" * 100,
)  # fmt: skip


@dataclass
class Player:
    """A client that notes what it sent, what was answered, and which messages must be in the store."""

    table: Table
    dice: random.Random
    sent: bytes = b""
    messages: list[bytes] = field(default_factory=list)
    chunks: bytes = b""
    steps: int = 0

    def say(self, data: bytes, count: int | None = 1) -> list[int]:
        """Send it; the replies, of which there are so many unless the session has ended."""
        was_closed = self.table.is_closed
        self.sent += data
        codes = replies(self.table.send(data))
        if was_closed:
            assert codes == []
        elif count is not None:
            # The budget of bad commands is told by the 421 itself, which may stand in place of a reply or behind it.
            assert len(codes) == count or (self.table.is_closed and codes[-1] == 421), (data, codes)
        return codes

    def play(self) -> None:
        for _ in range(self.dice.randrange(2, 30)):
            if self.dice.random() < 0.3:
                self.say_verb(self.dice.choice(VERBS))
            elif self.steps < len(USUAL):
                self.steps += self.say(USUAL[self.steps] + b"\r\n") == [250]
            else:
                self.dice.choice((self.data, self.chunk, self.chunk))()

    def say_verb(self, verb: bytes) -> None:
        if verb == b"DATA":
            self.data()
        elif self.say(verb + b"\r\n") == [250] and verb[:4] in (b"EHLO", b"HELO", b"RSET"):
            self.chunks, self.steps = b"", min(self.steps, 1)

    def data(self) -> None:
        if self.say(b"DATA\r\n") != [354]:
            return
        body = self.body()
        stuffed = (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:]
        if self.say(stuffed + b".\r\n")[0] // 100 == 2:
            self.messages.append(body)
        self.steps = 1

    def chunk(self) -> None:
        body = self.body()
        is_last = self.dice.random() < 0.5
        codes = self.say(b"BDAT %d%s\r\n" % (len(body), b" LAST" * is_last) + body)
        is_accepted = codes[:1] == [250]
        self.chunks = self.chunks + body if is_accepted else b""
        if is_last or not is_accepted:
            if is_accepted:
                self.messages.append(self.chunks)
            self.chunks, self.steps = b"", 1

    def body(self) -> bytes:
        return self.dice.choice(BODIES) + b"%d\r\n" % len(self.sent)

    def quit(self) -> None:
        was_closed = self.table.is_closed
        assert self.say(b"QUIT\r\n", count=None) == ([] if was_closed else [221])
        assert self.table.is_closed


def test_random_sessions() -> None:
    endings = {"messages": 0, "refused": 0, "closed early": 0}
    for seed in range(SESSIONS):
        player = Player(Table(seed), random.Random(seed))
        try:
            player.play()
            endings["closed early"] += player.table.is_closed
            player.quit()
            player.table.stop()
            assert player.table.stored() == player.messages
            again = Table(seed)
            send_in_pieces(again, player.sent, random.Random(seed))
            again.stop()
            assert replies(again.output) == replies(player.table.output)
            assert again.stored() == player.messages
        except BaseException:
            print(f"seed {seed}: {player.sent!r}\n{player.table.output.decode()}")
            raise
        endings["messages"] += len(player.messages)
        endings["refused"] += len(player.table.store.parcels) - len(player.messages)
    # The dice must have led somewhere: else none of the above was seen.
    assert all(count > SESSIONS // 20 for count in endings.values()), endings


def send_in_pieces(table: Table, data: bytes, dice: random.Random) -> None:
    while data:
        size = min(len(data), dice.choice((1, 2, 5, 30, 500, 5000, len(data))))
        table.send(data[:size])
        data = data[size:]
