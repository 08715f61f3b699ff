"""Lives: what belongs together is told together, whatever name somebody knows of it; and the words it is told in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from remembering import NOW, Told, attempt, id_of, message, refusal, session, write

from smtpmaild.history.lives import lives
from smtpmaild.history.reading import Reading
from smtpmaild.history.story import Story, story_of

S1, Q1, Q2, REPORT, S2, Q3, S3 = (id_of(number, NOW - 1) for number in range(7))


def policy(session_id: str) -> Told:
    facts = {"policy": "helo_syntax", "rule": "helo_syntax (smtp.yaml:12)", "stage": "EHLO", "session_id": session_id}
    return NOW, "policy_would_refuse", {**facts, "reply": "501 no name"}, None


BATCHES: list[list[Told]] = [
    # a session with two messages: one is stored, one travels on, is deferred, and bounces
    [
        policy(S1),
        message(Q1, session_id=S1, at=NOW + 1, message_id="<one@x>", user="ann", tls="TLSv1.3 X"),
        message(Q2, session_id=S1, at=NOW + 2, to="carol@remote.example", route="relay:smarthost", subject=""),
        session(
            S1,
            at=NOW + 3,
            messages=2,
            refusals=[refusal("no1@local.example"), refusal("no2@local.example")],
            refused_at=[(NOW + 0.9, Q1), (NOW + 1.5, Q2)],
            refused_commands=["FOO: 500 what"],
            client_name="name.example",
            proxy="192.0.2.200:1",
        ),
    ],
    [attempt(Q2, "deferred", at=NOW + 4, reply="451 later", next_attempt=NOW + 304)],
    [attempt(Q2, "bounced", at=NOW + 304, attempts=2, reply="550 no")],
    [(NOW + 305, "report_made", {"queue_id": REPORT, "about": Q2, "action": "failed"}, None)],
    [attempt(REPORT, at=NOW + 306, recipient="alice@sender.example", remote="")],
    # a client that was refused only
    [session(S2, at=NOW + 400, peer="[2001:db8:7::1]:9", messages=0, refusals=[refusal("no1@local.example")])],
    # a message that was refused in a session that nobody has closed
    [message(Q3, session_id=S3, at=NOW + 500, peer="198.51.100.7:5", name="message_refused", reply="550 spam")],
    [(NOW + 600, "reload_refused", {"cause": "smtp.yaml:3: no such thing"}, None)],
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("lives"), *BATCHES)


@pytest.fixture
def reading(path: str) -> Iterator[Reading]:
    with Reading(path) as reading:
        yield reading


WANTED = [
    (Q1, [("message", Q1)]),
    (Q2.lower(), [("message", Q2)]),
    (S1, [("session", S1)]),
    ("<one@x>", [("message", Q1)]),
    ("one@x", [("message", Q1)]),
    ("ann", [("message", Q1)]),
    ("Carol@remote.example", [("message", Q2)]),
    ("alice@sender.example", [("message", Q3), ("session", S2), ("message", REPORT), ("message", Q2), ("message", Q1)]),
    ("no1@local.example", [("session", S2), ("session", S1)]),
    ("192.0.2.1", [("session", S1)]),
    ("2001:db8:7:0::1", [("session", S2)]),
    ("[2001:db8:7::1]", [("session", S2)]),
    ("192.0.2.0/24", [("session", S1)]),
    ("2001:db8::/32", [("session", S2)]),
    ("0.0.0.0/0", [("session", S3), ("session", S1)]),
    ("10.0.0.0/8", []),
    ("10.9.9.9", []),
    ("smtp.yaml:3", [("event", "11")]),
    ("spam", [("message", Q3)]),
    ("nothing of it", []),
    ("  ", []),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "found"), WANTED)
def test_what_is_found(reading: Reading, wanted: str, found: list[tuple[str, str]]) -> None:
    assert [(life.kind, life.name) for life in lives(reading, wanted, 10)] == found


def test_a_limit_keeps_the_newest(reading: Reading) -> None:
    assert [life.name for life in lives(reading, "alice@sender.example", 2)] == [Q3, S2]
    assert [life.name for life in lives(reading, "0.0.0.0/0", 1)] == [S3]
    assert [life.name for life in lives(reading, "a", 1)] == ["11"]


def story(reading: Reading, wanted: str) -> Story:
    (life,) = lives(reading, wanted, 1)
    return story_of(life)


def told(story: Story) -> list[str]:
    return [line.text for line in story.lines]


def test_message_that_is_stored(reading: Reading) -> None:
    found = story(reading, Q1)
    assert found.title == f'message {Q1} from <alice@sender.example> to bob@local.example, "Hello"'
    assert told(found) == [
        "192.0.2.1:4000 connects to listener mx",
        "helo_syntax (smtp.yaml:12), in monitor mode at EHLO, would refuse",
        "RCPT TO:<no1@local.example> refused",
        f"message {Q1} from <alice@sender.example>, 4.1 kB accepted",
        "session closed after 500 ms",
    ]
    assert found.lines[0].at == NOW - 1
    assert found.lines[2].more == ("550 5.1.1 No such mailbox", "by local_domains.local.example (smtp.yaml:9)")
    assert found.lines[3].more == (
        f"250 2.0.0 Ok: queued as {Q1}",
        "signed in as ann",
        "bob@local.example: by local_domains.local.example (smtp.yaml:9)",
        "    stored in mail, the mailbox of bob@local.example",
    )
    assert found.lines[4].more == (
        "refused by the protocol: FOO: 500 what",
        "1 more refused for other messages of the session",
        "2 messages in the session",
    )
    assert (found.end, found.tone) == ("stored", "good")


def test_message_that_travels(reading: Reading) -> None:
    found = story(reading, Q2)
    assert told(found)[-4:] == [
        "session closed after 500 ms",
        f"{Q2} could not be delivered yet to carol@remote.example",
        f"{Q2} bounced for carol@remote.example",
        f"report {REPORT} made for the sender of {Q2}",
    ]
    assert found.lines[-3].more == (
        "mx.remote.example [192.0.2.99]:25 said: 451 later",
        "attempt 1 by relay:smarthost, 1.5 s after it came",
        "the next one in 5 min",
    )
    assert (found.end, found.tone) == ("bounced", "bad")


def test_whole_session(reading: Reading) -> None:
    found = story(reading, S1)
    assert found.title == f"session {S1}"
    assert "greets as client.example" in found.lines[0].more
    assert f"{Q2} bounced for carol@remote.example" in told(found)
    assert found.end == "2 messages, 3 commands refused"  # two by rules, one by the protocol


def test_session_that_is_open(reading: Reading) -> None:
    found = story(reading, "198.51.100.7")
    assert told(found)[-1] == f"message {Q3} from <alice@sender.example>, 4.1 kB refused"
    assert found.end == "the session is not closed, or nothing tells so"
    assert story(reading, Q3).end == "refused"


def test_event_of_its_own(reading: Reading) -> None:
    found = story(reading, "smtp.yaml:3")
    assert (found.title, found.end) == ("reload refused", "")
    assert found.lines[0].more == ("cause: smtp.yaml:3: no such thing",)


OTHERS: list[tuple[Told, str]] = [
    ((NOW, "authenticated", {"session_id": S1, "user": "ann", "peer": "x"}, None), "signed in as ann"),
    (
        (NOW, "authentication_failed", {"session_id": S1, "user": "", "reply": "535 no", "cause": "x"}, None),
        "could not sign in as anybody",
    ),
    ((NOW, "policy_would_defer", {"session_id": S1, "policy": "p", "stage": "MAIL"}, None),
     "p, in monitor mode at MAIL, would defer"),
    ((NOW, "policy_would_accept", {"session_id": S1, "policy": "p", "stage": "MAIL"}, None),
     "p, in monitor mode at MAIL, would accept"),
    (
        (NOW, "queue_changed", {"queue_id": Q1, "verb": "hold", "user": "root", "recipient": "a@b.example"}, None),
        "queue hold of a@b.example by root",
    ),
    ((NOW, "tls_handshake_failed", {"peer": "[::1]:1", "reason": "x"}, None), "TLS handshake with [::1]:1 failed"),
    (
        (NOW, "connection_limit_reached", {"peer": "192.0.2.1:1", "listener": "mx"}, None),
        "192.0.2.1:1 has too many connections to mx",
    ),
    ((NOW, "reloaded", {}, None), "reloaded"),
]  # fmt: skip


@pytest.mark.parametrize(("event", "text"), OTHERS)
def test_words_of_other_events(tmp_path: Path, event: Told, text: str) -> None:
    with Reading(write(tmp_path, [event])) as reading:
        (life,) = lives(reading, event[1], 1) or lives(reading, S1, 1) or lives(reading, Q1, 1)
    assert [line.text for line in story_of(life).lines] == [text]


ENDS = [
    ([message(Q1)], "stored"),
    ([message(Q1, name="message_deferred")], "deferred"),
    ([message(Q1, to="carol@remote.example", route="relay:mx")], "waits for its first attempt"),
    ([attempt(Q1)], "delivered"),
    ([attempt(Q1, "deferred")], "waits for its next attempt"),
    ([attempt(Q1, "expired")], "expired"),
    ([attempt(Q1), attempt(Q1, recipient="x@y.example")], "all 2 recipients: delivered"),
    ([attempt(Q1), attempt(Q1, "bounced", recipient="x@y.example")], "1 delivered, 1 bounced"),
    ([(NOW, "agent_failed", {"queue_id": Q1}, None)], "nothing tells of its end"),
]


@pytest.mark.parametrize(("events", "end"), ENDS)
def test_ends(tmp_path: Path, events: list[Told], end: str) -> None:
    with Reading(write(tmp_path, events)) as reading:
        (life,) = lives(reading, Q1, 1)
    assert story_of(life).end == end


def test_lmtp_says_each_reply_and_a_connection_is_refused(tmp_path: Path) -> None:
    turned_away = {"command": "connect", "argument": "", "reply": "421 later", "rule": ""}
    refused = [turned_away, {**turned_away, "command": "MAIL", "argument": "a@b"}, {**turned_away, "command": "DATA"}]
    batch = [
        message(Q1, replies=["250 kept", "x"], size=3),
        session(S1, refusals=refused, seconds=5000.0, reason="gone"),
    ]
    with Reading(write(tmp_path, batch)) as reading:
        (first,), (second,) = lives(reading, Q1, 1), lives(reading, S1, 1)
    assert "    250 kept" in story_of(first).lines[1].more
    assert [line.text for line in story_of(second).lines] == [
        "192.0.2.1:4000 connects to listener mx",
        "the client deferred",
        "MAIL FROM:<a@b> deferred",
        "DATA deferred",
        "session closed after 83 min: gone",
    ]


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", '"Grüße"'),
        ("=?none?q?x?=", '"=?none?q?x?="'),
        ("=?utf-8?b?x?=", '"=?utf-8?b?x?="'),
    ],
)
def test_subjects(tmp_path: Path, subject: str, shown: str) -> None:
    with Reading(write(tmp_path, [message(Q1, subject=subject)])) as reading:
        assert story_of(lives(reading, Q1, 1)[0]).title.endswith(shown)


def test_ids_that_are_none(tmp_path: Path) -> None:
    """Programs that embed the server may name messages as they like."""
    with Reading(write(tmp_path, [message("my own", session_id="s-1")])) as reading:
        (life,) = lives(reading, "my own", 1)
    assert [line.at for line in story_of(life).lines] == [NOW, NOW]
