"""A trial is a session of the real code: where it ends, what it notes, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from receiving import Says, Store, make_service

from smtpmaild.idn import to_ascii
from smtpmaild.policy import Policy
from smtpmaild.policy.chain import Chain, Mode
from smtpmaild.smtp.reply import Reply
from smtpmaild.trial import Notes, Question, TrialStep, outcome, run, with_crlf

REFUSED = Reply(550, "5.7.1", "No")
DEFERRED = Reply(450, "4.7.1", "Later")
MESSAGE = b"Subject: x\r\n\r\nhello\r\n"
TO = ("mail@local.example",)


def tried(
    *policies: Policy,
    mode: Mode = Mode.ENFORCE,
    store: Store | None = None,
    sender: str = "a@c.example",
    to: Sequence[str] = TO,
    message: bytes | None = MESSAGE,
    is_lmtp: bool = False,
) -> list[TrialStep]:
    notes = Notes()
    service = make_service(
        stores={"mail": store or Store(), "spool": Store()}, options={"to_ascii": to_ascii, "is_lmtp": is_lmtp}
    )
    service = replace(service, chain=Chain.compile([(policy, mode) for policy in policies], notes), log=notes)
    return asyncio.run(run(service, Question(sender, to, message=message), notes))


def words(steps: Sequence[TrialStep]) -> list[str]:
    return [f"{step.command.split(' ')[0]} {step.code}" for step in steps]


def test_a_whole_session_step_by_step() -> None:
    store = Store()
    steps = tried(store=store)
    assert words(steps) == ["connect 220", "EHLO 250", "MAIL 250", "RCPT 250", "DATA 354", "message 250"]
    assert outcome(steps) == "accept"
    assert store.parcels == []  # nothing was even begun
    assert steps[3] == TrialStep(
        "RCPT TO:<mail@local.example>",
        "250 2.1.5 recipient mail@local.example OK",
        "local_domains.local.example",
        "smtp.yaml:3",
        ["/var/mail/mail/box"],
    )


def test_lmtp_is_spoken_where_the_listener_does() -> None:
    steps = tried(to=TO * 2, is_lmtp=True)
    assert words(steps) == ["connect 220", "LHLO 250", "MAIL 250", "RCPT 250", "RCPT 250", "DATA 354", "message 250"]
    first, second = steps[-1].reply.splitlines()  # one for each recipient
    assert first == second
    assert first.startswith("250 2.0.0 Ok: queued as ")
    assert outcome(steps) == "accept"


@pytest.mark.parametrize(
    ("stage", "last"),
    [
        ("connect", "connect 554"),
        ("helo", "EHLO 550"),
        ("mail", "MAIL 550"),
        ("rcpt", "RCPT 550"),
        ("data", "DATA 550"),
        ("part", "message 550"),
        ("message", "message 550"),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_it_ends_where_the_daemon_refuses(stage: str, last: str, later: bool) -> None:
    steps = tried(Says({stage: REFUSED}, later=later))
    assert words(steps)[-1] == last
    assert steps[-1].rule == "tester"
    assert outcome(steps) == "reject"


def test_a_session_that_is_closed_has_no_further_steps() -> None:
    steps = tried(Says({"rcpt": Reply(421, "4.7.0", "Enough")}), to=["mail@a.example", "mail@b.example"])
    assert words(steps)[-1] == "RCPT 421"
    assert outcome(steps) == "defer"


def test_a_store_in_trouble_is_told() -> None:
    steps = tried(store=Store(trouble=Reply(452, "4.3.1", "Disk full")))
    assert words(steps)[-1] == "DATA 452"
    assert steps[-1].rule == "deliver_to.mail"


def test_every_recipient_has_its_own_step() -> None:
    to = ["mail+spool@local.example", "mail@refused.example", "mail@later.example"]
    steps = tried(to=to)
    assert words(steps)[3:] == ["RCPT 250", "RCPT 550", "RCPT 450", "DATA 354", "message 250"]
    assert steps[3].lands_in == ["/var/mail/mail/box", "/var/mail/spool/box"]
    assert (steps[4].rule, steps[4].where, steps[4].lands_in) == ("spammers", "smtp.yaml:7", [])
    assert (steps[5].rule, steps[5].where) == ("moving", "")
    assert outcome(steps) == "reject"
    assert outcome(tried(to=to[::2])) == "defer"


@pytest.mark.parametrize(("sender", "to"), [("jürgen@c.example", TO), ("a@c.example", ("mail@bücher.example",))])
def test_smtputf8_is_asked_for_where_it_is_needed(sender: str, to: Sequence[str]) -> None:
    steps = tried(sender=sender, to=to, message=None)
    assert steps[2].command == f"MAIL FROM:<{sender}> SMTPUTF8"
    assert steps[2].code == 250


@pytest.mark.parametrize("message", [b"", b"\r\n", b".\r\n", b"..\r\n.\r\n.x", b"no end", b"a\r\n.\r\nb\r\n"])
def test_every_message_arrives_whole(message: bytes) -> None:
    policy = Says(reads=True)
    assert words(tried(policy, message=message))[-1] == "message 250"
    assert policy.body == message + (b"" if message.endswith(b"\r\n") or not message else b"\r\n")


def test_notes_tell_what_monitored_policies_would_have_said() -> None:
    steps = tried(Says({"mail": REFUSED, "rcpt": DEFERRED}, name="strict"), mode=Mode.MONITOR)
    assert outcome(steps) == "accept"
    assert [step.notes for step in steps] == [
        [], [], ["strict (monitored) would say: 550 5.7.1 No"], ["strict (monitored) would say: 450 4.7.1 Later"],
        [], [],
    ]  # fmt: skip


def test_notes_tell_of_policies_that_break() -> None:
    steps = tried(Says({"mail": RuntimeError("out of order")}))
    assert steps[-1].notes == ["tester raised RuntimeError('out of order')"]
    assert outcome(steps) == "defer"


@pytest.mark.parametrize(
    ("file", "wire"),
    [(b"", b""), (b"a\nb", b"a\r\nb"), (b"a\r\nb\n", b"a\r\nb\r\n"), (b"a\rb\n", b"a\rb\r\n"), (b"\n\n", b"\r\n\r\n")],
)
def test_files_get_the_line_ends_of_the_wire(file: bytes, wire: bytes) -> None:
    assert with_crlf(file) == wire
