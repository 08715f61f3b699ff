"""A trial is a session of the real code: where it ends, what it notes, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from receiving import Says, Store, make_service

from smtpmaild.auth import ChannelBinding, Exchange
from smtpmaild.envelope import ClientCertificate, Rule, Session, Tls, Transaction
from smtpmaild.idn import to_ascii
from smtpmaild.policy import Mode, Policy
from smtpmaild.policy.chain import Chain
from smtpmaild.smtp.address import Address
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
        ["mail"],
        mailboxes=["box@local.example"],
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


class Accounts:
    """Knows nobody: the trial must not ask it."""

    mechanisms = ("LOGIN",)

    def begin(self, mechanism: str, session: Session, binding: ChannelBinding | None) -> Exchange:
        raise AssertionError("asked for a password")


def known(question: Question, **options: Any) -> tuple[list[TrialStep], list[Session]]:
    """The steps of a session at a listener with TLS and accounts, and the session as policies saw it at MAIL."""
    seen: list[Session] = []

    class Witness(Policy):
        name = "witness"

        def mail(self, transaction: Transaction) -> None:
            seen.append(replace(transaction.session))

    notes = Notes()
    options = {"starttls": True, "requires_tls": True, "requires_auth": True, "mechanisms": ("LOGIN",), **options}
    service = make_service(options=options, authenticator=Accounts())
    service = replace(service, chain=Chain.compile([(Witness(), Mode.ENFORCE)], notes), log=notes)
    return asyncio.run(run(service, question, notes)), seen


ENCRYPTED = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", client=ClientCertificate("CN=a", "00"))


def test_a_client_that_proves_who_it_is() -> None:
    question = Question("a@c.example", TO, tls=ENCRYPTED, user="alice", client_name="c.example")
    steps, (session,) = known(question)
    assert words(steps) == [
        "connect 220", "EHLO 250", "STARTTLS 220", "EHLO 250", "AUTH 235", "MAIL 250", "RCPT 250"
    ]  # fmt: skip
    assert steps[4].command == "AUTH LOGIN (alice)"
    assert (session.tls, session.user, session.client_name) == (ENCRYPTED, "alice", "c.example")


def test_tls_may_come_first() -> None:
    steps, (session,) = known(Question("", TO, tls=ENCRYPTED, is_implicit=True, user="alice"), starttls=False)
    assert words(steps) == ["connect 220", "EHLO 250", "AUTH 235", "MAIL 250", "RCPT 250"]
    assert session.tls == ENCRYPTED


@pytest.mark.parametrize(
    ("question", "last"),
    [
        (Question("", TO), "MAIL 530"),
        (Question("", TO, user="alice"), "AUTH 538"),
        (Question("", TO, tls=ENCRYPTED), "MAIL 530"),
    ],
)
def test_who_does_not_goes_no_further(question: Question, last: str) -> None:
    steps, seen = known(question)
    assert words(steps)[-1] == last
    assert seen == []


def test_a_session_without_starttls_ends_where_it_is_asked_for() -> None:
    steps, _ = known(Question("", TO, tls=ENCRYPTED), starttls=False, requires_tls=False)
    assert words(steps)[-1] == "STARTTLS 500"


def test_rules_that_did_not_match_are_notes() -> None:
    notes = Notes()

    def missed(transaction: Transaction, forward_path: Address) -> list[tuple[Rule, str]]:
        assert transaction.envelope.reverse_path.is_null
        return [(Rule("first", "smtp.yaml:1"), "tls"), (Rule("second"), f"to {forward_path.domain}")]

    service = replace(make_service(), log=notes)
    (*_, last) = asyncio.run(run(service, Question("", ["mail@refused.example"]), notes, missed))
    assert last.notes == [
        "not by 'first' (smtp.yaml:1): tls does not hold", "not by 'second': to refused.example does not hold"
    ]  # fmt: skip
