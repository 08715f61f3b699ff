"""The receiver alone: events in, replies and what became of the envelope and the stores out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from receiving import Says, Store, log_of, make_service

from smtpmaild.envelope import BodyType, IpAddress, Peer, Session, Transaction
from smtpmaild.policy import Mode, Policy
from smtpmaild.policy.chain import Event as Moment
from smtpmaild.policy.chain import Step
from smtpmaild.queue_id import is_queue_id
from smtpmaild.receiver import Receiver, verb_of
from smtpmaild.service import WAIT, Result, Service
from smtpmaild.smtp import reply as replies
from smtpmaild.smtp.address import Address, parse_forward_path
from smtpmaild.smtp.events import (
    Body,
    Command,
    Connected,
    Data,
    EndOfData,
    Event,
    Hello,
    LineTooLong,
    Mail,
    Rcpt,
    XClient,
    XForward,
)
from smtpmaild.smtp.reply import Reply

SENDER_OK = Reply(250, "2.1.0", "Sender ok")
REFUSED = Reply(550, "5.7.1", "No")
DEFERRED = Reply(450, "4.7.1", "Later")
WELCOME = Reply(250, "2.0.0", "Very well")
FULL = Reply(452, "4.3.1", "Disk full")
BROKEN = Reply(554, "5.3.0", "Broken")
ALICE = Address("alice", "client.example", "alice@client.example")

BANNER = Connected(Reply(220, "", "mx.example"))
EHLO = Hello("EHLO", "client.example", (), Reply(250, "", "hello"))
HELO = Hello("HELO", "client.example", (), Reply(250, "", "hello"))
DATA = Data()
RSET = Command("RSET", "", replies.RSET_OK)


def mail(**parameters: str) -> Mail:
    return Mail(ALICE, parameters, SENDER_OK)


def rcpt(text: str = "mail@local.example", **parameters: str) -> Rcpt:
    found = parse_forward_path(f"<{text}>", str)
    assert found is not None
    return Rcpt(found[0], parameters, replies.RECIPIENT_OK)


def end(size: int = 0, failure: Reply | None = None) -> EndOfData:
    return EndOfData(size, failure)


class Desk:
    """A receiver and what it said later."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.later: list[Result] = []
        self.receiver = Receiver(service, Peer("192.0.2.1", 4711), "S1", self.later.append, 0.0)

    @property
    def log(self) -> Any:
        return log_of(self.service)

    @property
    def session(self) -> Session:
        return self.receiver.session

    def say(self, event: Event) -> Result:
        answer = self.receiver.handle(event)
        if answer is None or isinstance(answer, Reply) or answer is WAIT:
            return answer
        return run(answer)

    def says(self, *events: Event) -> list[Result]:
        return [self.say(event) for event in events]

    def send(self, *chunks: bytes) -> Result:
        """A message from EHLO to its end."""
        self.says(EHLO, mail(), rcpt(), DATA, *map(Body, chunks))
        return self.say(end(sum(map(len, chunks))))


def run(answer: Any) -> Result:
    """What an awaitable comes to."""

    async def wait() -> Result:
        found: Result = await answer
        return found

    return asyncio.run(wait())


def transaction_of(it: Desk) -> Transaction:
    assert it.receiver.transaction is not None
    return it.receiver.transaction


def desk(*policies: Policy, stores: Mapping[str, Store] | None = None, **more: Any) -> Desk:
    return Desk(make_service(*policies, stores=stores, **more))


# A message from end to end


def test_a_message_is_stored_and_acknowledged_with_its_id() -> None:
    store = Store()
    it = desk(stores={"mail": store})
    assert it.says(BANNER, EHLO) == [BANNER.success, EHLO.success]
    assert it.says(mail(SIZE="7", BODY="8bitmime"), rcpt(NOTIFY="NEVER"), DATA) == [
        SENDER_OK,
        replies.RECIPIENT_OK,
        replies.START_MAIL_INPUT,
    ]
    assert it.says(Body(b"a: 1\r\n"), Body(b"\r\n")) == [None, None]
    reply = it.say(end(8))
    parcel = store.parcel
    assert isinstance(reply, Reply)
    assert str(reply) == f"250 2.0.0 Ok: queued as {parcel.envelope.queue_id}"
    assert is_queue_id(parcel.envelope.queue_id)
    assert parcel.message == b"a: 1\r\n\r\n"
    assert parcel.chunks[0].startswith(b"Received: from client.example ([192.0.2.1])")
    assert [to.sink for to in parcel.destinations] == ["mail"]
    envelope = parcel.envelope
    assert (envelope.protocol, envelope.body, envelope.declared_size) == ("ESMTP", BodyType.EIGHT_BIT_MIME, 7)
    assert envelope.recipients[0].parameters == {"NOTIFY": "NEVER"}
    assert it.receiver.transaction is None
    assert it.session.messages == 1


def test_an_accepted_message_is_one_fact() -> None:
    it = desk()
    it.send(b"12345")
    facts = it.log.only("message_accepted")
    queue_id = facts["queue_id"]
    assert facts.pop("seconds") >= 0
    assert facts == {
        "session_id": "S1",
        "queue_id": queue_id,
        "listener": "mx",
        "peer": "192.0.2.1:4711",
        "helo": "client.example",
        "reverse_path": "alice@client.example",
        "recipients": ["mail@local.example"],
        "rules": ["local_domains.local.example"],
        "size": 5,
        "reply": f"250 2.0.0 Ok: queued as {queue_id}",
        "decided_by": "",
    }


@pytest.mark.parametrize(
    ("hello", "parameters", "protocol"),
    [(HELO, {}, "SMTP"), (EHLO, {}, "ESMTP"), (EHLO, {"SMTPUTF8": ""}, "UTF8SMTP")],
)
def test_received_says_how_the_message_came(hello: Hello, parameters: dict[str, str], protocol: str) -> None:
    store = Store()
    it = desk(stores={"mail": store})
    it.says(hello, mail(**parameters), rcpt(), DATA)
    assert store.parcel.envelope.protocol == protocol
    assert store.parcel.envelope.is_utf8 is (protocol == "UTF8SMTP")
    assert f" with {protocol} id ".encode() in store.parcel.chunks[0]


def test_received_may_keep_the_client_to_itself() -> None:
    store = Store()
    desk(stores={"mail": store}, hides_client=True).send(b"text\r\n")
    assert store.parcel.chunks[0].startswith(b"Received: by mx.example with ESMTP id ")


def test_two_messages_in_one_session_are_two() -> None:
    store = Store()
    it = desk(stores={"mail": store})
    it.send(b"one")
    it.send(b"two")
    first, second = store.parcels
    assert (first.message, second.message) == (b"one", b"two")
    assert first.envelope.queue_id != second.envelope.queue_id
    assert it.session.messages == it.service.metrics.messages_accepted == 2
    assert it.service.metrics.bytes_received == 6


# Verdicts at each stage

STAGES: list[tuple[str, Event, str, str]] = [
    # stage of the policy, the event it decides, command and argument of the note in the session's log
    ("helo", EHLO, "EHLO", "client.example"),
    ("helo", HELO, "HELO", "client.example"),
    ("mail", mail(), "MAIL", "alice@client.example"),
    ("rcpt", rcpt(), "RCPT", "mail@local.example"),
    ("data", DATA, "DATA", ""),
    ("message", end(4), "end of data", ""),
]
BEFORE: dict[str, list[Event]] = {
    "helo": [],
    "mail": [EHLO],
    "rcpt": [EHLO, mail()],
    "data": [EHLO, mail(), rcpt()],
    "message": [EHLO, mail(), rcpt(), DATA, Body(b"body")],
}


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
@pytest.mark.parametrize("verdict", [REFUSED, DEFERRED], ids=str)
@pytest.mark.parametrize(("stage", "event", "command", "argument"), STAGES)
def test_a_refusal_is_sent_and_noted(
    later: bool, verdict: Reply, stage: str, event: Event, command: str, argument: str
) -> None:
    store = Store()
    it = desk(Says({stage: verdict}, later=later), stores={"mail": store})
    it.says(*BEFORE[stage])
    assert it.say(event) == verdict
    assert not [parcel for parcel in store.parcels if not parcel.is_aborted]
    it.receiver.stop("")
    (note,) = it.log.only("session_closed")["refusals"]
    assert note.pop("reverse_path", None) == (ALICE.text if command not in {"connect", "EHLO", "HELO"} else None)
    assert note == {"command": command, "argument": argument, "reply": str(verdict), "rule": "tester"}


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
@pytest.mark.parametrize(("stage", "event", "command", "argument"), STAGES)
def test_a_policy_that_breaks_defers(later: bool, stage: str, event: Event, command: str, argument: str) -> None:
    it = desk(Says({stage: RuntimeError("broken policy")}, later=later))
    it.says(*BEFORE[stage])
    assert it.say(event) == replies.LOCAL_ERROR
    assert "broken policy" in it.log.only("policy_failed")["traceback"]
    assert it.service.metrics.policy_errors == 1


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
@pytest.mark.parametrize(("stage", "event", "command", "argument"), STAGES)
def test_a_positive_verdict_is_the_reply(later: bool, stage: str, event: Event, command: str, argument: str) -> None:
    it = desk(Says({stage: WELCOME}, later=later))
    it.says(*BEFORE[stage])
    # RFC 5321 §4.1.1.4: a client sends its message after 354 and nothing else.
    assert it.say(event) == (WELCOME if stage != "data" else replies.START_MAIL_INPUT)


def test_a_policy_may_choose_the_words_of_354() -> None:
    go_on = Reply(354, "", "Tell me")
    it = desk(Says({"data": go_on}))
    assert it.says(EHLO, mail(), rcpt(), DATA)[-1] == go_on


def test_everybody_may_wait_at_every_stage() -> None:
    store = Store()
    it = desk(Says(later=True), stores={"mail": store})
    it.say(BANNER)
    reply = it.send(b"a: 1\r\n\r\n", b"body")
    assert isinstance(reply, Reply)
    assert reply.is_positive
    assert store.parcel.message == b"a: 1\r\n\r\nbody"


@pytest.mark.parametrize(
    ("verdict", "reply"),
    [
        (REFUSED, Reply(554, "5.7.1", "No")),  # RFC 5321 §3.1 knows no other
        (Reply(554, "5.7.1", "Never"), Reply(554, "5.7.1", "Never")),
        (DEFERRED, Reply(421, "4.7.1", "Later")),  # there is no session to try again in
        (Reply(421, "4.7.0", "Busy"), Reply(421, "4.7.0", "Busy")),
    ],
)
def test_a_refused_session_is_told_so_in_the_banner(verdict: Reply, reply: Reply) -> None:
    it = desk(Says({"connect": verdict}))
    assert it.say(BANNER) == reply
    assert it.service.metrics.sessions_refused == 1
    it.receiver.stop("")
    (note,) = it.log.only("session_closed")["refusals"]
    assert (note["command"], note["reply"], note["rule"]) == ("connect", str(verdict), "tester")


def test_a_policy_may_choose_the_banner() -> None:
    banner = Reply(220, "", "mx.example Hello there")
    assert desk(Says({"connect": banner})).say(BANNER) == banner


def test_a_monitored_policy_decides_nothing() -> None:
    it = desk(Says({"mail": REFUSED}), mode=Mode.MONITOR)
    assert it.says(EHLO, mail())[-1] == SENDER_OK
    assert it.log.only("policy_would_refuse")["reply"] == str(REFUSED)


# Greetings


def test_a_refused_greeting_changes_nothing_but_the_mode() -> None:
    policy = Says()
    it = desk(policy)
    it.say(HELO)
    policy.verdicts["helo"] = REFUSED
    it.say(Hello("EHLO", "other.example", (), EHLO.success))
    assert it.session.hello == "client.example"
    assert it.session.is_extended
    policy.verdicts.clear()
    it.say(HELO)
    assert not it.session.is_extended


def test_a_greeting_ends_the_transaction() -> None:
    store = Store()
    it = desk(stores={"mail": store})
    it.says(EHLO, mail(), rcpt(), DATA, Body(b"half"), EHLO)  # BDAT without LAST, then EHLO
    assert it.receiver.transaction is None
    assert store.parcel.is_aborted


# The envelope


def test_a_refused_sender_leaves_no_transaction() -> None:
    it = desk(Says({"mail": REFUSED}))
    it.says(EHLO, mail())
    assert it.receiver.transaction is None


@pytest.mark.parametrize(
    ("recipient", "reply", "rule"),
    [
        ("mail@refused.example", Reply(550, "5.7.1", "Go away"), "spammers (smtp.yaml:7)"),
        ("mail@later.example", Reply(450, "4.7.1", "Come back"), "moving"),
    ],
)
def test_the_rule_that_refused_a_recipient_is_named(recipient: str, reply: Reply, rule: str) -> None:
    it = desk()
    assert it.says(EHLO, mail(), rcpt(recipient))[-1] == reply
    it.receiver.stop("")
    (note,) = it.log.only("session_closed")["refusals"]
    said = {"command": "RCPT", "argument": recipient, "reply": str(reply), "rule": rule}
    assert note == {**said, "reverse_path": ALICE.text}


def test_recipients_are_counted_by_their_reply() -> None:
    policy = Says()
    it = desk(policy)
    it.says(EHLO, mail(), rcpt(), rcpt("mail@refused.example"), rcpt("mail@later.example"))
    for verdict in (REFUSED, DEFERRED):
        policy.verdicts["rcpt"] = verdict
        it.say(rcpt())
    metrics = it.service.metrics
    assert (metrics.recipients_accepted, metrics.recipients_refused, metrics.recipients_deferred) == (1, 2, 2)
    assert it.session.refused_recipients == 4
    assert [one.address.text for one in transaction_of(it).envelope.recipients] == ["mail@local.example"]


def test_refusals_are_counted_by_verb_reply_and_rule() -> None:
    it = desk()
    it.says(EHLO, mail(), *[rcpt("mail@refused.example")] * 2, rcpt("mail@later.example"))
    it.receiver.stop(
        "", [("MAIL TO:<x>", Reply(501, "5.5.4", "Syntax")), ("GET /index.html", Reply(500, "5.5.2", "What?"))]
    )
    assert it.service.metrics.refusals.names == {
        ("RCPT", "550 5.7.1", "spammers (smtp.yaml:7)"): 2,
        ("RCPT", "450 4.7.1", "moving"): 1,
        ("MAIL", "501 5.5.4", ""): 1,
        ("other", "500 5.5.2", ""): 1,
    }


def test_sessions_and_messages_are_counted_by_listener_and_time() -> None:
    store = Store()
    it = desk(stores={"mail": store})
    it.send(b"whole")
    store.parcel.finish()
    it.receiver.stop("")
    metrics = it.service.metrics
    assert metrics.messages_by_listener.names == {(it.session.listener, "accepted"): 1}
    assert metrics.sessions_by_listener.names == {(it.session.listener,): 1}
    assert [sum(one.counts) for one in (metrics.commit_seconds, metrics.session_seconds)] == [1, 1]
    assert metrics.commit_seconds.total < 1.0


def test_a_positive_verdict_does_not_skip_the_routing() -> None:
    it = desk(Says({"rcpt": WELCOME}))
    replies_ = it.says(EHLO, mail(), rcpt(), rcpt("mail@refused.example"))
    assert replies_[-2:] == [WELCOME, Reply(550, "5.7.1", "Go away")]


def test_a_session_keeps_the_first_refusals_only() -> None:
    it = desk()
    it.says(EHLO, mail(), *[rcpt("mail@refused.example")] * 130)
    it.receiver.stop("")
    facts = it.log.only("session_closed")
    assert len(facts["refusals"]) == 100
    assert facts["refused_recipients"] == 130


def test_rset_ends_the_transaction() -> None:
    store = Store()
    it = desk(stores={"mail": store})
    assert it.says(EHLO, mail(), rcpt(), DATA, Body(b"half"), RSET)[-1] == replies.RSET_OK
    assert it.receiver.transaction is None
    assert store.parcel.is_aborted
    assert it.send(b"whole") is not None
    assert store.parcels[1].message == b"whole"


def test_a_refused_rset_keeps_the_transaction() -> None:
    it = desk()
    chain = it.service.chain.with_step(Moment.RSET, Step("mine", lambda _: REFUSED))
    it.receiver.chain = chain
    assert it.says(EHLO, mail(), RSET)[-1] == REFUSED
    assert it.receiver.transaction is not None


# Stores


def test_a_store_in_trouble_refuses_before_a_byte_is_sent() -> None:
    good, bad = Store(), Store(trouble=FULL)
    it = desk(stores={"mail": good, "spool": bad})
    assert it.says(EHLO, mail(), rcpt("mail+spool@local.example"), DATA)[-1] == FULL
    assert not good.parcels
    it.receiver.stop("")
    (note,) = it.log.only("session_closed")["refusals"]
    said = {"command": "DATA", "argument": "", "reply": str(FULL), "rule": "deliver_to.spool"}
    assert note == {**said, "reverse_path": ALICE.text}


# The body


def test_a_refused_part_drains_the_rest() -> None:
    store, policy = Store(), Says()
    it = desk(policy, stores={"mail": store})
    it.says(EHLO, mail(), rcpt(), DATA, Body(b"one"))
    policy.verdicts["part"] = REFUSED
    assert it.says(Body(b"two"), Body(b"three"), Body(b"four")) == [None, None, None]
    assert policy.parts == [b"one", b"two"]  # nobody is asked again
    assert store.parcel.is_aborted
    assert it.say(end(15)) == REFUSED
    facts = it.log.only("message_refused")
    assert (facts["size"], facts["decided_by"]) == (15, "tester")
    it.receiver.stop("")
    assert it.log.only("session_closed")["refusals"][0]["rule"] == "tester"


def test_what_the_protocol_has_against_a_body_comes_first() -> None:
    store, policy = Store(), Says({"message": WELCOME}, reads=True)
    it = desk(policy, stores={"mail": store})
    it.says(EHLO, mail(), rcpt(), DATA, Body(b"\n"))
    assert it.say(end(1, replies.BARE_CR_OR_LF)) == replies.BARE_CR_OR_LF
    assert policy.body == b""  # it was not asked
    assert store.parcel.is_aborted
    assert it.receiver.transaction is None
    assert it.service.metrics.messages_refused == 1


def test_a_message_policy_reads_header_and_body() -> None:
    policy = Says(reads=True)
    it = desk(policy)
    it.send(b"a: 1\r\n\r\nbody")
    assert (policy.header, policy.body) == (b"a: 1\r\n", b"a: 1\r\n\r\nbody")


# Callbacks that ask for the reply only


UNDONE: dict[Moment, Event] = {
    Moment.EHLO: EHLO,
    Moment.MAIL: mail(),
    Moment.RCPT: rcpt(),
    Moment.DATA_INIT: DATA,
    Moment.DATA_PART: Body(b"lost"),
    Moment.RSET: RSET,
    Moment.XFORWARD: XForward({"NAME": "x.example"}),
}


def test_without_effect_only_the_reply_happens() -> None:
    store = Store()
    it = desk(stores={"mail": store})

    def undone(moment: Moment) -> Result:
        """Handle the event as if a callback had asked that nothing but the reply happens."""
        chain = it.receiver.chain
        it.receiver.chain = chain.with_step(moment, Step("job", lambda *_: setattr(it.receiver, "effect", False)))
        result = it.say(UNDONE[moment])
        it.receiver.chain = chain
        return result

    assert undone(Moment.EHLO) == EHLO.success
    assert it.session.hello == ""
    assert it.says(EHLO)
    assert undone(Moment.MAIL) == SENDER_OK
    assert it.receiver.transaction is None
    it.say(mail())
    assert undone(Moment.RCPT) == replies.RECIPIENT_OK
    assert transaction_of(it).envelope.recipients == []
    it.say(rcpt())
    assert undone(Moment.DATA_INIT) == replies.START_MAIL_INPUT
    assert store.parcels == []
    assert undone(Moment.RSET) == replies.RSET_OK
    assert transaction_of(it).envelope.recipients
    assert undone(Moment.XFORWARD) == replies.XFORWARD_OK
    assert it.session.forwarded == {}
    it.say(DATA)
    assert undone(Moment.DATA_PART) is None
    it.says(Body(b"kept"), end(8))
    assert store.parcel.message == b"kept"


# Other events


MESSAGE = (mail(), rcpt(), DATA, Body(b"text"), end(4))


def test_forwarded_attributes_add_up_and_are_logged() -> None:
    it = desk()
    assert it.says(EHLO, XForward({"name": "x.example", "addr": "198.51.100.1"}))[-1] == replies.XFORWARD_OK
    it.say(XForward({"addr": None}))
    assert it.session.forwarded == {"name": "x.example", "addr": None}
    it.says(*MESSAGE)
    assert it.log.only("message_accepted")["forwarded"] == {"name": "x.example", "addr": None}


def test_forwarded_attributes_end_with_their_transaction() -> None:
    """XFORWARD_README: they are reset at the end of the next MAIL transaction, by DOT or RSET."""
    it = desk()
    it.says(EHLO, XForward({"addr": "198.51.100.1"}), *MESSAGE)
    assert it.session.forwarded == {}
    it.says(XForward({"addr": "198.51.100.1"}), RSET, *MESSAGE)
    assert "forwarded" not in it.log.named("message_accepted")[1]


def test_refusals_name_whom_the_mail_was_forwarded_for() -> None:
    it = desk()
    it.says(EHLO, XForward({"addr": "198.51.100.1"}), mail(), rcpt("a@refused.example"), RSET)
    it.says(XForward({"name": "x"}), mail(), rcpt("a@refused.example"))
    it.receiver.stop("")
    refusals = it.log.only("session_closed")["refusals"]
    assert [refusal["forwarded_for"] for refusal in refusals] == ["198.51.100.1", "unknown"]


def test_what_a_proxy_told_is_logged() -> None:
    it = desk()
    it.session.proxy = Peer("192.0.2.8", 4711)
    it.session.proxy_facts = {"authority": "mx.example"}
    it.session.client_name = "client.example"
    it.send(b"text")
    it.receiver.stop("")
    for event in ("message_accepted", "session_closed"):
        facts = it.log.only(event)
        assert facts["proxy"] == "192.0.2.8:4711"
        assert facts["proxied"] == {"authority": "mx.example"}
        assert facts["client_name"] == "client.example"


@pytest.mark.parametrize(
    ("events", "is_news"),
    [([HELO], False), ([HELO, mail(), rcpt("a@refused.example")], True), ([EHLO, *MESSAGE], True)],
)
def test_probe_of_a_proxy_is_no_news(events: list[Event], is_news: bool) -> None:
    it = desk()
    it.session.is_probe = True
    it.says(*events)
    it.receiver.stop("")
    assert bool(it.log.named("session_closed")) == is_news


def xclient(**attributes: str | None) -> XClient:
    return XClient(attributes, BANNER.success)


def test_session_begins_again_with_the_client_that_is_named() -> None:
    it = desk()
    it.session.is_probe = it.session.talked_early = True
    it.says(BANNER, EHLO, XForward({"addr": "198.51.100.1"}))
    named = xclient(
        addr="2001:db8::1", port="99", name="c.example", helo="c", login="alice", proto="SMTP", destport="25"
    )
    assert it.say(named) == BANNER.success
    session = it.session
    assert (session.peer, session.proxy) == (Peer("2001:db8::1", 99), Peer("192.0.2.1", 4711))
    assert (session.client_name, session.hello, session.user, session.is_extended) == ("c.example", "c", "alice", False)
    assert it.session.forwarded == {}
    assert not (session.is_probe or session.talked_early)
    it.send(b"text")
    facts = it.log.only("message_accepted")
    assert (facts["peer"], facts["proxy"], facts["user"]) == ("[2001:db8::1]:99", "192.0.2.1:4711", "alice")
    assert facts["proxied"] == {"proto": "SMTP", "helo": "c", "destport": "25"}
    assert it.log.only("client_named")["peer"] == "[2001:db8::1]:99"


def test_client_without_address_is_nowhere() -> None:
    it = desk()
    it.say(xclient(addr=None, name=None))
    assert (it.session.peer, it.session.client_name) == (Peer(""), "")
    it.say(xclient(addr="198.51.100.1"))
    it.say(xclient(helo="x"))
    assert it.session.peer == Peer("198.51.100.1")
    assert it.session.proxy == Peer("192.0.2.1", 4711)  # the first one, at the end of the connection


def test_policies_are_asked_about_the_client_that_is_named() -> None:
    class NotThisOne(Policy):
        name = "not this one"

        def connect(self, session: Session) -> Reply | None:
            return REFUSED if session.peer.host == "198.51.100.1" else None

    it = desk(NotThisOne())
    it.says(BANNER, EHLO)
    assert it.say(xclient(addr="198.51.100.1")) == Reply(554, "5.7.1", "No")


def test_name_is_looked_up_where_nobody_has_told_it() -> None:
    async def later(ip: IpAddress) -> str:
        return f"late-{ip}"

    asked: list[IpAddress] = []

    def known(ip: IpAddress) -> str:
        asked.append(ip)
        return "known.example"

    it = desk()
    it.receiver.service = replace(it.service, client_names=known)
    it.say(BANNER)
    assert it.session.client_name == "known.example"
    it.says(xclient(addr="198.51.100.1", name="told.example"), xclient(name=None))
    assert (it.session.client_name, len(asked)) == ("", 1)
    it.say(xclient(addr=None))  # no address, no name
    assert (it.session.client_name, len(asked)) == ("", 1)
    it.receiver.service = replace(it.service, client_names=later)
    it.say(xclient(addr="198.51.100.2"))
    assert it.session.client_name == "late-198.51.100.2"
    it.session.is_probe = True
    it.say(BANNER)
    assert it.session.client_name == ""


def test_policy_may_wait_behind_the_look_up() -> None:
    class Slow(Policy):
        name = "slow"

        async def connect(self, session: Session) -> Reply | None:
            return REFUSED if session.client_name == "late.example" else None

    async def later(_ip: IpAddress) -> str:
        return "late.example"

    it = desk(Slow())
    it.receiver.service = replace(it.service, client_names=later)
    assert it.say(BANNER) == Reply(554, "5.7.1", "No")


def test_client_that_is_one_too_many_is_refused() -> None:
    it = desk()
    full = Reply(421, "", "full")
    asked: list[Peer] = []

    def admit(client: Peer) -> Reply:
        asked.append(client)
        return full

    it.receiver.admit = admit
    assert it.say(xclient(addr="198.51.100.1")) == full
    assert asked == [Peer("198.51.100.1")]


def test_refused_attributes_are_not_kept() -> None:
    it = desk()
    it.receiver.chain = it.receiver.chain.with_step(Moment.XFORWARD, Step("no", lambda *_: REFUSED))
    assert it.say(XForward({"NAME": "x.example"})) == REFUSED
    assert it.session.forwarded == {}


@pytest.mark.parametrize(
    ("event", "moment", "arguments"),
    [
        (Command("NOOP", "", replies.NOOP_OK), Moment.NOOP, ()),
        (Command("VRFY", "alice", replies.VRFY_NEUTRAL), Moment.VRFY, ("alice",)),
        (Command("EXPN", "list", replies.NOT_IMPLEMENTED), Moment.EXPN, ("list",)),
        (Command("HELP", "DATA", replies.COMMAND_OK), Moment.HELP, ("DATA",)),
        (Command("QUIT", "", replies.COMMAND_OK), Moment.QUIT, ()),
        (LineTooLong(), Moment.LINE_TOO_LONG, ()),
    ],
)
def test_other_commands_are_what_listeners_say(event: Command, moment: Moment, arguments: tuple[str, ...]) -> None:
    heard: list[tuple[object, ...]] = []
    it = desk()
    assert it.say(event) == event.success

    def listener(*given: object) -> Reply:
        heard.append(given)
        return REFUSED

    it.receiver.chain = it.receiver.chain.with_step(moment, Step("mine", listener))
    assert it.say(event) == REFUSED
    assert heard == [(it.session, *arguments)]


def test_verbs_of_extensions_have_their_own_steps() -> None:
    step = Step("extension", lambda session, argument: Reply(250, "2.0.0", f"{session.session_id} {argument}"))
    it = desk(verbs={"XFOO": (step,)})
    assert it.say(Command("XFOO", "bar", replies.COMMAND_OK)) == Reply(250, "2.0.0", "S1 bar")


def test_filters_change_replies_in_extended_mode_only() -> None:
    def shout(session: Session, verb: str, reply: Reply) -> Reply:
        return Reply(reply.code, reply.enhanced, f"{verb}: {reply.text}".upper())

    it = desk(filters={"NOOP": [shout, shout], "banner": [shout]})
    noop = Command("NOOP", "", replies.NOOP_OK)
    assert it.receiver.shaped(BANNER, BANNER.success).text == "BANNER: MX.EXAMPLE"  # before any mode
    assert it.receiver.shaped(noop, replies.NOOP_OK) == replies.NOOP_OK
    it.say(EHLO)
    assert it.receiver.shaped(noop, replies.NOOP_OK).text == "NOOP: NOOP: OK"
    assert it.receiver.shaped(DATA, replies.START_MAIL_INPUT) == replies.START_MAIL_INPUT
    assert desk().receiver.shaped(noop, replies.NOOP_OK) is replies.NOOP_OK


def test_events_have_the_names_of_callbacks() -> None:
    events: list[Event] = [
        BANNER,
        EHLO,
        HELO,
        mail(),
        rcpt(),
        DATA,
        Body(b"x"),
        end(),
        RSET,
        XForward({}),
        LineTooLong(),
    ]
    assert [verb_of(event) for event in events] == [
        "banner", "EHLO", "HELO", "MAIL", "RCPT", "DATA-INIT", "DATA-PART", "DATA", "RSET", "XFORWARD", "linetobig",
    ]  # fmt: skip


def test_the_service_may_change_in_mid_session() -> None:
    it = desk()
    other = make_service(Says({"mail": REFUSED}))
    it.say(EHLO)
    it.receiver.change(other)
    assert it.say(mail()) == REFUSED


# The end of the session


def test_a_session_is_one_fact() -> None:
    it = desk()
    it.send(b"text")
    assert it.receiver.stop("connection lost") is None
    facts = it.log.only("session_closed")
    assert facts.pop("seconds") > 0
    assert facts == {
        "session_id": "S1",
        "listener": "mx",
        "peer": "192.0.2.1:4711",
        "helo": "client.example",
        "messages": 1,
        "refused_recipients": 0,
        "refusals": [],
        "reason": "connection lost",
    }


def test_a_client_that_goes_in_mid_message_leaves_nothing() -> None:
    store = Store()
    it = desk(stores={"mail": store})
    it.says(EHLO, mail(), rcpt(), DATA, Body(b"half"))
    it.receiver.stop("connection lost")
    assert store.parcel.is_aborted
    assert it.log.named("message_accepted") == []


def test_a_client_that_goes_while_its_message_is_stored_leaves_a_message() -> None:
    store = Store(answers_at_once=False)
    it = desk(stores={"mail": store})
    assert it.send(b"whole") is WAIT
    it.receiver.stop("connection lost")
    assert not store.parcel.is_aborted
    store.parcel.finish()
    assert it.log.only("message_accepted")["size"] == 5


def test_a_client_that_goes_while_a_policy_thinks_gets_no_decision() -> None:
    store, policy = Store(), Says(later=True)
    it = desk(policy, stores={"mail": store})
    it.says(EHLO, mail(), rcpt(), DATA, Body(b"whole"))
    thinking = it.receiver.handle(end(5))
    it.receiver.stop("connection lost")
    assert run(thinking) is None
    assert store.parcel.is_aborted
    assert it.log.named("message_accepted") == []


def test_a_timeout_is_counted_and_may_be_worded() -> None:
    it = desk()
    reply = it.receiver.timed_out()
    assert isinstance(reply, Reply)
    assert reply.code == 421
    assert it.service.metrics.sessions_timed_out == 1
    words = Reply(421, "4.4.2", "Asleep?")
    it.receiver.chain = it.receiver.chain.with_step(Moment.TIMEOUT, Step("mine", lambda _: words))
    assert it.receiver.timed_out() == words


@pytest.mark.parametrize("later", [False, True])
def test_listeners_hear_of_the_end(later: bool) -> None:
    heard: list[str] = []

    async def wait(session: Session, reason: str) -> None:
        heard.append(reason)

    def now(session: Session, reason: str) -> Reply:
        heard.append(reason)
        return REFUSED  # nobody hears it

    it = desk()
    it.receiver.chain = it.receiver.chain.with_step(Moment.STOP_SESSION, Step("mine", wait if later else now))
    answer = it.receiver.stop("why")
    if later:
        assert answer is not None
        run(answer)
    else:
        assert answer is None
    assert heard == ["why"]


def test_a_history_is_told_more_than_the_log() -> None:
    told: dict[str, tuple[dict[str, Any], Any]] = {}

    def record(event: str, facts: dict[str, Any], trace: Any) -> None:
        told[event] = facts, trace

    it = desk(stores={"mail": Store(), "spool": Store()}, record=record)
    it.says(EHLO, mail(), rcpt("mail+spool@local.example"), rcpt("x@refused.example"), DATA)
    it.says(Body(b"From: a\r\nMessage-ID: <m@x>\r\nSubject: Hi\r\n\r\nbody\r\n"), end(10))
    it.receiver.stop("")
    places = [("mail", "box", "local.example", ""), ("spool", "box", "local.example", "")]
    assert it.log.facts == []  # that is left to who is told more
    (accepted, of_message), (closed, of_session) = told["message_accepted"], told["session_closed"]
    to = [("mail+spool@local.example", "local_domains.local.example", "smtp.yaml:3", places)]
    assert of_message == (to, "<m@x>", "Hi")
    ((refused,),) = of_session
    assert refused == (pytest.approx(time.time(), abs=60), accepted["queue_id"])
    assert closed["refusals"][0]["argument"] == "x@refused.example"


def test_without_a_history_the_log_is_told() -> None:
    it = desk()
    it.says(EHLO, mail(), rcpt(), rcpt("x@refused.example"), DATA, Body(b"Subject: Hi\r\n\r\n"), end(10))
    it.receiver.stop("")
    assert [event for event, _ in it.log.facts] == ["message_accepted", "session_closed"]
