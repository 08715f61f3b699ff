"""The receiver and trust: who signed in, what TLS forgets, and what the stores and the log hear of both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from receiving import Store, log_of, make_service

from smtpmaild.auth import Authenticated, Challenge, ChannelBinding, Failed, Step
from smtpmaild.dialogue import Dialogue
from smtpmaild.envelope import ClientCertificate, Peer, Session, Tls
from smtpmaild.policy.chain import Chain
from smtpmaild.policy.chain import Event as Moment
from smtpmaild.policy.chain import Step as ChainStep
from smtpmaild.service import Service
from smtpmaild.smtp.extension import Dialect, ServerOptions
from smtpmaild.smtp.reply import Reply

OPTIONS = ServerOptions("mx.local.example", starttls=True, mechanisms=("PLAIN", "LOGIN"), auth_in_clear=True)
TLS = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
WRONG = Failed(Reply(535, "5.7.8", "Authentication credentials invalid"), "wrong password", "alice")
MESSAGE = b"MAIL FROM:<alice@client.example>\r\nRCPT TO:<mail@local.example>\r\nDATA\r\na: 1\r\n\r\n.\r\n"


class Accounts:
    """An authenticator that gives these answers. responses: what it was given."""

    mechanisms = ("PLAIN", "LOGIN")

    def __init__(self, *steps: Step | Awaitable[Step]) -> None:
        self.steps = [*steps]
        self.begun: list[tuple[str, Session, ChannelBinding | None]] = []
        self.responses: list[bytes | None] = []
        self.cancelled = 0

    def begin(self, mechanism: str, session: Session, binding: ChannelBinding | None) -> Accounts:
        self.begun.append((mechanism, session, binding))
        return self

    def respond(self, response: bytes | None) -> Step | Awaitable[Step]:
        self.responses.append(response)
        return self.steps.pop(0)

    def cancel(self) -> None:
        self.cancelled += 1


class Talk:
    """A dialogue whose work, if it waits, is done at once."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.spawned: list[Any] = []
        self.dialogue = Dialogue(service, Peer("192.0.2.1", 4711), self.spawned.append, lambda: None)
        self.dialogue.advance()

    def say(self, data: bytes) -> bytes:
        self.dialogue.receive_data(data)
        return self.dialogue.protocol.data_to_send()

    def wait(self) -> bytes:
        for work in self.spawned:
            asyncio.run(work)
        self.spawned.clear()
        return self.dialogue.protocol.data_to_send()

    @property
    def log(self) -> Any:
        return log_of(self.service)


def talk(
    accounts: Accounts | None = None,
    *,
    options: ServerOptions = OPTIONS,
    store: Store | None = None,
    steps: Sequence[ChainStep] = (),
) -> Talk:
    service = make_service(stores={"mail": store or Store()})
    service = replace(service, dialect=Dialect(options), authenticator=accounts)
    chain = service.chain
    for step in steps:
        chain = chain.with_step(Moment.STARTTLS, step)
    return Talk(replace(service, chain=Chain(chain.by_event, service.log, service.metrics)))


# AUTH


def test_who_signed_in_is_known_to_all() -> None:
    store = Store()
    it = talk(Accounts(Authenticated("alice")), store=store)
    said = it.say(b"EHLO a\r\nAUTH PLAIN AGFsaWNlAHg=\r\n" + MESSAGE)
    assert b"235 2.7.0 Authentication succeeded\r\n" in said
    assert store.parcel.envelope.user == "alice"
    assert store.parcel.envelope.protocol == "ESMTPA"
    assert it.log.only("authenticated")["user"] == "alice"
    assert it.log.only("message_accepted")["user"] == "alice"
    it.dialogue.stop("")
    assert it.log.only("session_closed")["user"] == "alice"
    assert it.service.metrics.authentications_accepted == 1


def test_exchange_of_several_lines() -> None:
    accounts = Accounts(Challenge(b"Username:"), Challenge(b"Password:"), Authenticated("alice"))
    it = talk(accounts)
    assert it.say(b"EHLO a\r\nAUTH LOGIN\r\n").endswith(b"334 VXNlcm5hbWU6\r\n")
    assert it.say(b"YWxpY2U=\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert it.say(b"eA==\r\n").startswith(b"235 ")
    assert accounts.responses == [None, b"alice", b"x"]
    assert accounts.begun == [("LOGIN", it.dialogue.receiver.session, None)]
    assert accounts.cancelled == 0


def test_wrong_password() -> None:
    it = talk(Accounts(WRONG))
    assert it.say(b"EHLO a\r\nAUTH PLAIN AGFsaWNlAHg=\r\n").endswith(
        b"535 5.7.8 Authentication credentials invalid\r\n"
    )
    facts = it.log.only("authentication_failed")
    assert (facts["user"], facts["cause"], facts["peer"]) == ("alice", "wrong password", "192.0.2.1:4711")
    assert it.dialogue.receiver.session.user == ""
    assert it.service.metrics.authentications_refused == 1


def test_checking_that_takes_time_holds_only_this_session() -> None:
    async def later() -> Step:
        return Authenticated("alice")

    it = talk(Accounts(later()))
    assert b"235" not in it.say(b"EHLO a\r\nAUTH PLAIN AGFsaWNlAHg=\r\nNOOP\r\n")
    assert it.dialogue.is_busy
    assert it.wait() == b"235 2.7.0 Authentication succeeded\r\n250 2.0.0 Ok\r\n"


def test_client_that_leaves_while_it_is_checked() -> None:
    async def later() -> Step:
        return Authenticated("alice")

    accounts = Accounts(later())
    it = talk(accounts)
    it.say(b"EHLO a\r\nAUTH PLAIN AGFsaWNlAHg=\r\n")
    it.dialogue.stop("connection lost")
    assert it.wait() == b""
    assert it.dialogue.receiver.session.user == ""
    assert accounts.cancelled == 1


def test_client_that_gives_up() -> None:
    accounts = Accounts(Challenge(b"Username:"))
    it = talk(accounts)
    it.say(b"EHLO a\r\nAUTH LOGIN\r\n")
    assert it.say(b"*\r\n") == b"501 5.7.0 Authentication cancelled\r\n"
    assert accounts.cancelled == 1
    it.dialogue.stop("")
    assert accounts.cancelled == 1


def test_nobody_who_knows_the_accounts() -> None:
    it = talk(None)
    assert it.say(b"EHLO a\r\nAUTH LOGIN\r\n").endswith(b"454 4.7.0 Temporary authentication failure\r\n")


def test_bug_of_an_authenticator_ends_the_session_and_says_why() -> None:
    async def broken() -> Step:
        raise ValueError("no such thing")

    it = talk(Accounts(broken()))
    it.say(b"EHLO a\r\nAUTH LOGIN\r\n")
    assert it.wait() == b"421 4.3.0 Internal error, closing transmission channel\r\n"
    assert "no such thing" in it.log.only("session_failed")["traceback"]


# TLS


def test_tls_forgets_what_was_said_before() -> None:
    store = Store()
    it = talk(Accounts(Authenticated("alice"), Authenticated("bob")), store=store)
    said = it.say(
        b"EHLO a\r\nAUTH PLAIN AA==\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<mail@local.example>\r\nSTARTTLS\r\n"
    )
    assert said.endswith(b"220 2.0.0 Ready to start TLS\r\n")
    assert it.dialogue.is_upgrading
    it.dialogue.secure(TLS, None)
    session = it.dialogue.receiver.session
    assert (session.hello, session.is_extended, session.user, session.tls) == ("", False, "", TLS)
    assert it.dialogue.receiver.transaction is None
    assert it.say(b"DATA\r\n").startswith(b"503 ")
    it.say(b"EHLO b\r\nAUTH PLAIN AA==\r\n" + MESSAGE)
    assert (store.parcel.envelope.tls, store.parcel.envelope.protocol) == (TLS, "ESMTPSA")
    assert store.parcel.envelope.user == "bob"


def test_tls_first() -> None:
    service = replace(make_service(stores={"mail": Store()}), dialect=Dialect(OPTIONS), authenticator=Accounts())
    dialogue = Dialogue(service, Peer("192.0.2.1", 4711), lambda _: None, lambda: None)
    dialogue.secure(TLS, ChannelBinding("tls-exporter", b"x"))
    dialogue.advance()
    assert dialogue.protocol.data_to_send().startswith(b"220 ")
    dialogue.receive_data(b"EHLO a\r\n")
    assert b"AUTH PLAIN LOGIN" in dialogue.protocol.data_to_send()


def test_binding_reaches_the_exchange() -> None:
    binding = ChannelBinding("tls-exporter", b"secret")
    accounts = Accounts(Authenticated("alice"))
    it = talk(accounts)
    it.say(b"STARTTLS\r\n")
    it.dialogue.secure(TLS, binding)
    it.say(b"EHLO a\r\nAUTH PLAIN AA==\r\n")
    assert accounts.begun[0][2] is binding
    assert "secret" not in repr(binding)


@pytest.mark.parametrize(
    ("tls", "facts"),
    [
        (TLS, {"tls": "TLSv1.3 TLS_AES_256_GCM_SHA384"}),
        (
            replace(TLS, client=ClientCertificate("CN=printer", "00ff")),
            {"tls": "TLSv1.3 TLS_AES_256_GCM_SHA384", "client_certificate": "CN=printer"},
        ),
    ],
)
def test_log_tells_of_tls(tls: Tls, facts: dict[str, str]) -> None:
    it = talk(Accounts())
    it.say(b"STARTTLS\r\n")
    it.dialogue.secure(tls, None)
    it.say(b"EHLO a\r\n" + MESSAGE)
    it.dialogue.stop("")
    for event in ("message_accepted", "session_closed"):
        logged = it.log.only(event)
        assert {key: logged[key] for key in ("tls", "client_certificate", "user") if key in logged} == facts


def test_callback_is_asked_when_tls_stands_and_its_answer_is_not_sent() -> None:
    heard: list[Session] = []

    def refuse(session: Session) -> Reply:
        heard.append(session)
        return Reply(550, "5.7.1", "No")

    it = talk(Accounts(), steps=[ChainStep("callback", refuse)])
    it.say(b"STARTTLS\r\n")
    assert heard == []
    it.dialogue.secure(TLS, None)
    assert heard[0].tls is TLS
    assert it.say(b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"


def test_callback_that_waits() -> None:
    heard: list[Session] = []

    async def listen(session: Session) -> None:
        heard.append(session)

    it = talk(Accounts(), steps=[ChainStep("callback", listen)])
    it.say(b"STARTTLS\r\n")
    it.dialogue.secure(TLS, None)
    assert it.wait() == b""
    assert len(heard) == 1


def test_utf8_message_within_tls() -> None:
    store = Store()
    service = replace(make_service(stores={"mail": store}), dialect=Dialect(replace(OPTIONS, to_ascii=str)))
    it = Talk(service)
    it.say(b"STARTTLS\r\n")
    it.dialogue.secure(TLS, None)
    it.say(b"EHLO a\r\n" + MESSAGE.replace(b"example>\r\nRCPT", b"example> SMTPUTF8\r\nRCPT"))
    assert store.parcel.envelope.protocol == "UTF8SMTPS"


def test_plain_helo_has_no_letters() -> None:
    store = Store()
    it = talk(Accounts(), store=store)
    it.say(b"STARTTLS\r\n")
    it.dialogue.secure(TLS, None)
    it.say(b"HELO a\r\n" + MESSAGE)
    assert store.parcel.envelope.protocol == "SMTP"
