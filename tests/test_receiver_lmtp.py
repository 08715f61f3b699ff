"""The receiver under LMTP: each recipient gets the worst reply of the stores it needed, and of no others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from receiving import Says, Store, log_of, make_service

from smtpmaild.dialogue import Dialogue
from smtpmaild.envelope import Peer, Tls
from smtpmaild.policy import Policy
from smtpmaild.policy.chain import Step
from smtpmaild.receiver import Receiver
from smtpmaild.sink import Outcome
from smtpmaild.smtp.reply import MESSAGE_ACCEPTED, Reply

STORED = MESSAGE_ACCEPTED
FULL = Reply(452, "4.3.1", "Disk full")
BROKEN = Reply(554, "5.3.0", "Broken")
WELCOME = Reply(250, "2.0.0", "Very well")
GONE = Reply(421, "4.7.0", "Gone")


class Talk:
    """A LMTP session with stores that do as they are told."""

    def __init__(self, *policies: Policy, stores: Mapping[str, Store], **more: Any) -> None:
        self.service = make_service(*policies, stores=stores, options={"is_lmtp": True}, **more)
        self.work: list[Any] = []
        self.dialogue = Dialogue(self.service, Peer("192.0.2.1", 4711), self.work.append, lambda: None)
        self.dialogue.advance()
        self.send("LHLO client.example")

    def send(self, line: str) -> str:
        self.dialogue.receive_data(line.encode() + b"\r\n")
        return self.output()

    def output(self) -> str:
        while self.work:
            asyncio.run(self.work.pop(0))
        return self.dialogue.protocol.data_to_send().decode()

    def envelope(self, *local_parts: str) -> None:
        self.send("MAIL FROM:<a@client.example>")
        for local_part in local_parts:
            assert self.send(f"RCPT TO:<{local_part}@local.example>").startswith("250 ")

    def message(self, *local_parts: str) -> list[str]:
        """The codes of the replies to a message to these recipients; each names the stores that it needs."""
        self.envelope(*local_parts)
        said = self.send("DATA")
        if not said.startswith("354 "):
            return [said[:3]]
        return [line[:3] for line in self.send("text\r\n.").splitlines()]

    def fact(self, event: str) -> dict[str, Any]:
        return log_of(self.service).only(event)


def test_each_recipient_hears_of_its_own_stores() -> None:
    talk = Talk(stores={"mail": Store(), "spool": Store(FULL), "third": Store(BROKEN)})
    assert talk.message("mail", "spool", "third", "mail+spool", "mail", "third+spool") == [
        "250", "452", "554", "452", "250", "452"
    ]  # fmt: skip
    facts = talk.fact("message_accepted")  # for two of them it was
    assert [reply[:3] for reply in facts["replies"]] == ["250", "452", "554", "452", "250", "452"]
    assert facts["reply"] == f"250 2.0.0 Ok: queued as {facts['queue_id']}"
    assert talk.service.metrics.messages_accepted == 1
    assert talk.dialogue.receiver.session.messages == 1


@pytest.mark.parametrize(
    ("outcome", "event"), [(FULL, "message_deferred"), (BROKEN, "message_refused"), ([BROKEN, FULL], "message_refused")]
)
def test_a_message_that_nobody_got_is_logged_as_that(outcome: Outcome, event: str) -> None:
    talk = Talk(stores={"mail": Store(outcome)})
    said = talk.message("mail", "mail")
    assert said == [str(one.code) for one in ([outcome] * 2 if isinstance(outcome, Reply) else outcome)]
    assert [reply[:3] for reply in talk.fact(event)["replies"]] == said
    assert talk.service.metrics.messages_accepted == 0


def test_a_store_answers_for_each_destination_in_order() -> None:
    mail = Store([STORED, FULL, BROKEN, STORED])
    talk = Talk(stores={"mail": mail, "spool": Store([FULL, STORED])})
    assert talk.message("mail", "mail", "spool", "mail", "mail+spool") == ["250", "452", "452", "554", "250"]
    assert [to.recipient.text for to in mail.parcel.destinations] == ["mail@local.example"] * 3 + [
        "mail+spool@local.example"
    ]


def test_slow_stores_are_waited_for_and_told_apart() -> None:
    mail, spool = Store(answers_at_once=False), Store(answers_at_once=False)
    talk = Talk(stores={"mail": mail, "spool": spool})
    assert talk.message("mail", "spool") == []
    spool.parcel.finish(FULL)
    assert talk.output() == ""
    mail.parcel.finish()
    assert [line[:3] for line in talk.output().splitlines()] == ["250", "452"]
    assert talk.send("NOOP") == "250 2.0.0 Ok\r\n"


def test_a_store_in_trouble_refuses_only_who_needs_it() -> None:
    mail, spool = Store(), Store(trouble=FULL)
    talk = Talk(stores={"mail": mail, "spool": spool})
    assert talk.message("mail", "spool", "mail+spool") == ["250", "452", "452"]
    assert spool.parcels == []
    # The third is tried again, as a whole: nothing of it is stored now.
    assert [to.recipient.text for to in mail.parcel.destinations] == ["mail@local.example"]


def test_stores_in_trouble_that_all_need_refuse_data() -> None:
    mail = Store()
    talk = Talk(stores={"mail": mail, "spool": Store(trouble=FULL), "third": Store(trouble=BROKEN)})
    assert talk.message("spool", "mail+third") == ["452"]
    assert mail.parcels == []
    assert talk.dialogue.receiver.session.decided_by == "deliver_to.spool"
    assert talk.send("RCPT TO:<mail@local.example>").startswith("250 ")  # the recipients are kept
    assert [line[:3] for line in (talk.send("DATA"), *talk.send(".").splitlines())] == ["354", "452", "554", "250"]


def test_policy_decides_for_all() -> None:
    store = Store()
    talk = Talk(Says({"message": BROKEN}), stores={"mail": store})
    assert talk.message("mail", "mail") == ["554", "554"]
    assert store.parcel.is_aborted
    facts = talk.fact("message_refused")
    assert "replies" not in facts
    assert facts["reply"] == str(BROKEN)


def test_words_of_a_policy_are_for_those_who_got_it() -> None:
    talk = Talk(Says({"message": WELCOME}, later=True), stores={"mail": Store([STORED, FULL])})
    talk.envelope("mail", "mail")
    talk.send("DATA")
    assert talk.send("text\r\n.") == "250 2.0.0 Very well\r\n452 4.3.1 Disk full\r\n"


@pytest.mark.parametrize(
    ("parameters", "tls", "user", "protocol"),
    [
        ("", None, "", "LMTP"),
        (" SMTPUTF8", None, "", "UTF8LMTP"),
        ("", Tls("TLSv1.3", "x"), "", "LMTPS"),
        ("", None, "alice", "LMTPA"),
        (" SMTPUTF8", Tls("TLSv1.3", "x"), "alice", "UTF8LMTPSA"),
    ],
)
def test_received_says_so(parameters: str, tls: Tls | None, user: str, protocol: str) -> None:
    store = Store()
    talk = Talk(stores={"mail": store})
    talk.dialogue.protocol.speak(make_service(options={"is_lmtp": True, "to_ascii": str}).dialect)
    talk.dialogue.receiver.session.tls = tls
    talk.dialogue.receiver.session.user = user
    assert talk.send(f"MAIL FROM:<>{parameters}").startswith("250 ")
    talk.send("RCPT TO:<mail@local.example>")
    talk.send("DATA")
    talk.send(".")
    assert f" with {protocol} id ".encode() in store.parcel.chunks[0]
    assert store.parcel.envelope.is_lmtp


# Steps that are asked about each recipient


def test_who_is_gone_is_asked_about_no_further_recipient() -> None:
    """The connection is lost while the first answer is waited for."""
    asked: list[str] = []
    receivers: list[Receiver] = []

    async def ask(_transaction: object, _content: object, recipient: object) -> Reply | None:
        asked.append(str(recipient))
        receivers[0].stop("connection lost")
        return None

    talk = Talk(stores={"mail": Store()}, recipient_steps=(Step("each", ask),))
    receivers.append(talk.dialogue.receiver)
    talk.envelope("mail", "mail")
    talk.send("DATA")
    assert talk.send(".") == ""
    assert asked == ["mail@local.example"]


# As many replies as recipients, whatever happens

OUTCOMES = st.sampled_from([STORED, FULL, BROKEN])


@given(
    recipients=st.lists(st.sampled_from(["mail", "spool", "mail+spool", "nowhere"]), min_size=1, max_size=8),
    outcomes=st.lists(OUTCOMES, min_size=16, max_size=16),
    shared=st.lists(st.booleans(), min_size=2, max_size=2),
    troubles=st.lists(st.sampled_from([None, None, None, FULL]), min_size=2, max_size=2),
    verdict=st.sampled_from([None, None, None, BROKEN, WELCOME, GONE]),
    stage=st.sampled_from(["part", "message"]),
    body=st.sampled_from(["text\r\n", "", "a\nb\r\n", "x" * 1100 + "\r\n", "y\r\n" * 2000]),
    chunked=st.booleans(),
)
def test_as_many_replies_as_recipients(
    recipients: Sequence[str],
    outcomes: Sequence[Reply],
    shared: Sequence[bool],
    troubles: Sequence[Reply | None],
    verdict: Reply | None,
    stage: str,
    body: str,
    chunked: bool,
) -> None:
    each: dict[str, list[Reply]] = {"mail": [], "spool": []}
    wanted = iter(outcomes)
    stores = {}
    for name, is_shared, trouble in zip(each, shared, troubles, strict=True):
        stores[name] = EachStore(each[name], wanted, is_shared=is_shared, trouble=trouble)
    talk = Talk(Says({stage: verdict} if verdict else {}), stores=stores)
    talk.dialogue.protocol.speak(make_service(options={"is_lmtp": True, "message_size": 5000}).dialect)
    talk.send("MAIL FROM:<a@client.example>")
    accepted = 0
    for local_part in recipients:
        domain = "refused.example" if local_part == "nowhere" else "local.example"
        accepted += talk.send(f"RCPT TO:<{local_part}@{domain}>").startswith("250 ")
    if chunked:
        said = talk.send(f"BDAT {len(body)} LAST\r\n{body}"[:-2] if body else "BDAT 0 LAST")
    else:
        said = talk.send("DATA")
        if not said.startswith("354 "):
            assert said[:3] == ("452" if accepted else "503")
            return
        said = talk.send(body + ".")
    replies = said.splitlines()
    assert len(replies) == max(1, accepted)
    assert all(line[3] == " " for line in replies)
    assert talk.dialogue.protocol.is_closed == any(line.startswith("421") for line in replies)
    if not talk.dialogue.protocol.is_closed:
        assert talk.send("NOOP") == "250 2.0.0 Ok\r\n"


class EachStore(Store):
    """Answers with one reply for all, or one for each of its destinations."""

    def __init__(self, given: list[Reply], wanted: Any, *, is_shared: bool, trouble: Reply | None) -> None:
        super().__init__(trouble=trouble)
        self._given, self._wanted, self._is_shared = given, wanted, is_shared

    def begin(self, envelope: Any, destinations: Any, drained: Any) -> Any:
        self._given += [next(self._wanted) for _ in destinations]
        self.outcome = self._given[0] if self._is_shared else self._given
        return super().begin(envelope, destinations, drained)
