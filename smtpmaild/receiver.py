"""One session's mail transactions: event -> policies -> routing -> stores -> reply. No loop, no socket.

Each event of the protocol is handled in three steps, as everywhere: check (the chain of policies and callbacks),
decide (routing, the stores' health), do (the envelope, the stores: reception.py). Nothing joins the envelope before it
was accepted; nothing is acknowledged before every store that was given the message says it is durable.

`handle` returns the reply where it is known at once, which is nearly always; `WAIT` where a store will call back; or
a coroutine where a policy has to wait. What runs it is the driver's business (dialogue.py).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from smtpmaild import queue_id
from smtpmaild.auth import ChannelBinding
from smtpmaild.content import Content
from smtpmaild.envelope import (
    NOTHING_FORWARDED,
    BodyType,
    Destination,
    Envelope,
    Peer,
    Recipient,
    Session,
    Tls,
    Transaction,
)
from smtpmaild.journal import Journal
from smtpmaild.outcomes import (
    badness,
    destinations_by_sink,
    through_queue,
    without_trouble,
)
from smtpmaild.policy import Answer, Verdict
from smtpmaild.policy.chain import Event as Moment
from smtpmaild.reception import Reception, Replies, nobody_waits
from smtpmaild.service import WAIT, LookUp, Result, Service, Wait
from smtpmaild.sign_in import SignIn
from smtpmaild.smtp import reply as replies
from smtpmaild.smtp import timing
from smtpmaild.smtp.events import (
    Auth,
    AuthCancelled,
    AuthResponse,
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
    StartTls,
    XClient,
    XForward,
)
from smtpmaild.smtp.reply import Reply


class Receiver:
    """Decides the events of one session and carries out what was decided.

    resume: called in the loop's thread with what `handle` could only answer with WAIT.
    effect: False when a callback of this event asked that nothing but the reply happens.  is_over: a callback asked
    to end the session after the reply.  admit: counts another client in place of the one before, when XCLIENT names
    one; None, or why it may not come in.
    """

    __slots__ = (
        "_is_stopped", "_journal", "_reception", "_resume", "_sign_in", "_transaction", "admit", "chain", "effect",
        "is_over", "service", "session",
    )  # fmt: skip

    def __init__(
        self, service: Service, peer: Peer, session_id: str, resume: Callable[[Result], None], started_at: float
    ) -> None:
        self.service = service
        self.chain = service.chain
        self.session = Session(session_id, service.listener, service.dialect.options.hostname, peer)
        self.effect = True
        self.is_over = False
        self.admit: Callable[[Peer], Reply | None] = _anybody
        self._resume = resume
        self._journal = Journal(self.session, service.log, service.metrics, started_at, service.record)
        self._sign_in = SignIn(self.session, self._journal)
        self._transaction: Transaction | None = None
        self._reception: Reception | None = None
        self._is_stopped = False

    def change(self, service: Service) -> None:
        """Go on with this service from the next event on: a program set a callback in mid-session."""
        self.service = service
        self.chain = service.chain

    @property
    def transaction(self) -> Transaction | None:
        """The transaction under way; None before MAIL and after its end."""
        return self._transaction

    def handle(self, event: Event) -> Result | Awaitable[Result]:
        """Decide an event. Its exceptions are bugs of ours; policies' exceptions are answered 451 by the chain."""
        self.effect = True
        self.session.decided_by = ""
        return _HANDLERS[event.__class__](self, event)

    # Check: ask whoever listens, then go on with the verdict, now or when it is there.

    def _ask(
        self, moment: Moment, decided: Callable[[Verdict, Any], Result], event: Event, *arguments: object
    ) -> Result | Awaitable[Result]:
        steps = self.chain.by_event.get(moment)
        if not steps:
            return decided(None, event)
        return self._then(self.chain.ask(steps, self.session, *arguments), decided, event)

    def _then(
        self, answer: Answer, decided: Callable[[Verdict, Any], Result], event: Event
    ) -> Result | Awaitable[Result]:
        if answer is None or isinstance(answer, Reply):
            return decided(answer, event)
        return self._later(answer, decided, event)

    async def _later(
        self, answer: Awaitable[Verdict], decided: Callable[[Verdict, Any], Result], event: Event
    ) -> Result:
        verdict = await answer
        # A session that ended meanwhile has no transaction left to decide about, and nobody hears the reply.
        return None if self._is_stopped else decided(verdict, event)

    # The session

    def _connected(self, event: Connected | XClient) -> Result | Awaitable[Result]:
        if self.service.client_names is not None:
            return self._look_up(self.service.client_names, event)
        return self._greet(event)

    def _look_up(self, find: LookUp, event: Connected | XClient) -> Result | Awaitable[Result]:
        """Who is it? The banner waits for the answer, so that everything behind it may count on the name."""
        ip = self.session.peer.ip
        found = "" if ip is None or self.session.is_probe else find(ip)
        if not isinstance(found, str):
            return self._greet_later(found, event)
        self.session.client_name = found
        return self._greet(event)

    async def _greet_later(self, name: Awaitable[str], event: Connected | XClient) -> Result:
        self.session.client_name = await name
        answer = None if self._is_stopped else self._greet(event)
        return answer if answer is None or isinstance(answer, Reply | Wait | tuple) else await answer

    def _greet(self, event: Connected | XClient) -> Result | Awaitable[Result]:
        return self._ask(Moment.BANNER, self._connected_decided, event, self.session)

    def _connected_decided(self, verdict: Verdict, event: Connected | XClient) -> Result:
        if verdict is not None and not verdict.is_positive:
            self.service.metrics.sessions_refused += 1
            self._refused("connect", "", verdict)
            # RFC 5321 §3.1 knows 554 for a refused session; other permanent codes would confuse clients.
            if verdict.is_permanent and verdict.code != 554:
                return Reply(554, verdict.enhanced, verdict.text)
            return verdict if verdict.is_permanent else Reply(421, verdict.enhanced, verdict.text)
        return verdict or event.success

    def _hello(self, event: Hello) -> Result | Awaitable[Result]:
        session = self.session
        before, session.hello = session.hello, event.domain
        # A refused EHLO extends the session as well: the peer has shown what it speaks.
        session.is_extended = session.is_extended or event.verb != "HELO"

        def decided(verdict: Verdict, event: Hello) -> Result:
            reply = verdict or event.success
            if reply.is_positive and self.effect:
                session.is_extended = event.verb != "HELO"
                self._forget_transaction()
                return reply
            session.hello = before
            if not reply.is_positive:
                self._refused(event.verb, event.domain, reply)
            return reply

        return self._ask(_MOMENTS[event.verb], decided, event, self.session)

    def _command(self, event: Command) -> Result | Awaitable[Result]:
        steps = self.service.verbs.get(event.verb)
        if steps:
            return self._then(
                self.chain.ask(steps, self.session, self.session, event.argument), self._command_decided, event
            )
        argument = (event.argument,) if event.verb in _VERBS_WITH_ARGUMENT else ()
        return self._ask(_MOMENTS[event.verb], self._command_decided, event, self.session, *argument)

    def _command_decided(self, verdict: Verdict, event: Command) -> Result:
        reply = verdict or event.success
        if event.verb == "RSET" and reply.is_positive and self.effect:
            self._forget_transaction()
        return reply

    def _xforward(self, event: XForward) -> Result | Awaitable[Result]:
        # Attributes of several commands add up, the last value of each wins.
        attributes = {**self.session.forwarded, **event.attributes}

        def decided(verdict: Verdict, event: XForward) -> Result:
            reply = verdict or event.success
            if reply.is_positive and self.effect:
                self.session.forwarded = attributes
            return reply

        return self._ask(Moment.XFORWARD, decided, event, self.session, attributes)

    # Trust

    def _xclient(self, event: XClient) -> Result | Awaitable[Result]:
        """The session begins again, with the client that this peer speaks for."""
        self._speak_for(event.attributes)
        self._journal.client_named()
        refusal = self.admit(self.session.peer)
        if refusal is not None:
            return self._refused("connect", "", refusal)
        # Who tells the name, or that there is none, has looked it up.
        return self._greet(event) if "name" in event.attributes else self._connected(event)

    def _speak_for(self, said: Mapping[str, str | None]) -> None:
        """Take on the client that XCLIENT named. TLS stays as it is, and so does who may say XCLIENT."""
        self._forget_transaction()
        session = self.session
        if session.proxy is None:
            session.proxy = session.peer
        host = (said["addr"] or "") if "addr" in said else session.peer.host
        session.peer = Peer(host, int(said.get("port") or 0))
        session.client_name = said.get("name") or ""
        session.hello, session.is_extended = said.get("helo") or "", False
        session.user = said.get("login") or ""
        session.talked_early = session.is_probe = False
        session.proxy_facts = {name: value for name in _ONLY_LOGGED if (value := said.get(name))}

    def _start_tls(self, event: StartTls) -> Result:
        return event.success

    def secure(self, tls: Tls, binding: ChannelBinding | None) -> Awaitable[Verdict] | None:
        """TLS stands: what the client said before is forgotten. What is returned is to be run to its end."""
        self._forget_transaction()
        session = self.session
        session.tls, session.hello, session.is_extended, session.user = tls, "", False, ""
        self._sign_in.binding = binding
        steps = self.chain.by_event.get(Moment.STARTTLS)
        answer = self.chain.ask(steps, session, session) if steps else None
        return None if answer is None or isinstance(answer, Reply) else answer

    def _auth(self, event: Auth) -> Result | Awaitable[Result]:
        if self.service.authenticator is None:
            return replies.AUTH_UNAVAILABLE
        return self._sign_in.begin(self.service.authenticator, event.mechanism, event.initial)

    def _auth_response(self, event: AuthResponse) -> Result | Awaitable[Result]:
        return self._sign_in.respond(event.data)

    def _auth_cancelled(self, event: AuthCancelled) -> Result:
        self._sign_in.cancel()
        return event.success

    def _line_too_long(self, event: LineTooLong) -> Result | Awaitable[Result]:
        return self._ask(Moment.LINE_TOO_LONG, _or_success, event, self.session)

    # The envelope

    def _mail(self, event: Mail) -> Result | Awaitable[Result]:
        session = self.session
        kept = parameters = event.parameters
        is_utf8 = "SMTPUTF8" in parameters
        is_lmtp = self.service.dialect.is_lmtp
        if "MT-PRIORITY" in parameters:
            kept = parameters = self._granted(event)
        elif "MT-PRIORITY" in self.service.dialect.mail_parameters:
            # RFC 6710 §4.1: "By default, each message has priority 0"; §4.2: the next hop MUST be told it.
            kept = {**parameters, "MT-PRIORITY": "0"}
        envelope = Envelope(
            queue_id=queue_id.make(),
            session_id=session.session_id,
            listener=session.listener,
            hostname=session.hostname,
            peer=session.peer,
            hello=session.hello,
            protocol=_protocol(session, is_lmtp=is_lmtp, is_utf8=is_utf8),
            received_at=time.time(),
            reverse_path=event.reverse_path,
            body=_BODY_TYPES[parameters.get("BODY", "7BIT").upper()],
            is_utf8=is_utf8,
            declared_size=int(parameters.get("SIZE", "0")),
            parameters=kept,
            tls=session.tls,
            user=session.user,
            proxy=session.proxy,
            client_name=session.client_name,
            is_lmtp=is_lmtp,
            priority=event.parameters.get("MT-PRIORITY", ""),
        )
        if "HOLDFOR" in parameters or "HOLDUNTIL" in parameters:
            envelope.release_at = timing.release_at(parameters, envelope.received_at)
        self._transaction = Transaction(session, envelope, parameters)
        return self._ask(Moment.MAIL, self._mail_decided, event, self._transaction)

    def _granted(self, event: Mail) -> Mapping[str, str]:
        """RFC 6710 §4.1: a priority that is above what the client is trusted with is lowered, and it is told so."""
        asked, most = timing.priority(event.parameters), self.service.most_urgent(self.session)
        if asked <= most:
            return event.parameters
        event.success = Reply(250, "2.3.6", f"{most} is the new priority assigned to the message")
        return {**event.parameters, "MT-PRIORITY": str(most)}

    def _mail_decided(self, verdict: Verdict, event: Mail) -> Result:
        reply = verdict or event.success
        if not reply.is_positive:
            self._refused("MAIL", event.reverse_path.text, reply)
        if not (reply.is_positive and self.effect):
            self._transaction = None
        return reply

    def _rcpt(self, event: Rcpt) -> Result | Awaitable[Result]:
        transaction = self._in_transaction()
        transaction.parameters = event.parameters
        return self._ask(Moment.RCPT, self._rcpt_decided, event, transaction, event.forward_path)

    def _rcpt_decided(self, verdict: Verdict, event: Rcpt) -> Result:
        metrics = self.service.metrics
        if verdict is not None and not verdict.is_positive:
            metrics.recipients_refused += verdict.is_permanent
            metrics.recipients_deferred += not verdict.is_permanent
            return self._refused("RCPT", event.forward_path.text, verdict)
        transaction = self._in_transaction()
        route = self.service.router.route(transaction, event.forward_path)
        if not route.reply.is_positive:
            metrics.recipients_refused += route.reply.is_permanent
            metrics.recipients_deferred += not route.reply.is_permanent
            self.session.decided_by = f"{route.rule.name} ({route.rule.where})" if route.rule.where else route.rule.name
            return self._refused("RCPT", event.forward_path.text, route.reply)
        metrics.recipients_accepted += 1
        if self.effect:
            transaction.envelope.recipients.append(Recipient(event.forward_path, route, event.parameters))
        return verdict or event.success

    # The message

    def _data(self, event: Data) -> Result | Awaitable[Result]:
        return self._ask(Moment.DATA_INIT, self._data_decided, event, self._in_transaction())

    def _data_decided(self, verdict: Verdict, event: Data) -> Result:
        if verdict is not None and not verdict.is_positive:
            return self._refused("DATA", "", verdict)
        envelope = self._in_transaction().envelope
        if envelope.release_at:
            self._hold(envelope)
        recipients: Collection[Recipient] = envelope.recipients
        by_sink = destinations_by_sink(recipients)
        troubles: dict[str, Reply] = {}
        for name in by_sink:
            trouble = self.service.sinks[name].unhealthy()
            if trouble is not None:
                troubles[name] = trouble
        if troubles:
            recipients = without_trouble(recipients, troubles) if envelope.is_lmtp else ()
            if not recipients:
                name, trouble = next(iter(troubles.items()))
                self.session.decided_by = f"deliver_to.{name}"
                return self._refused("DATA", "", trouble)
            by_sink = destinations_by_sink(recipients)
        if self.effect:
            self._begin(by_sink, troubles)
        # RFC 5321 §4.1.1.4: the client sends its message after 354 only, whatever word of praise a policy has.
        return verdict if verdict is not None and verdict.code == 354 else event.success

    def _hold(self, envelope: Envelope) -> None:
        """Everything waits in the queue until its sender's time has come, what is for our own stores as well."""
        queue = self.service.queue
        stores = self.service.sinks.keys() - {queue}
        envelope.recipients[:] = [through_queue(recipient, queue, stores) for recipient in envelope.recipients]

    def _begin(self, by_sink: Mapping[str, Sequence[Destination]], troubles: Mapping[str, Reply]) -> None:
        content = Content(keep_body=self.chain.needs_body or bool(self.service.recipient_steps))
        self._reception = Reception(
            self.service, self._in_transaction(), by_sink, troubles, content, self._resume, self._concluded
        )

    def _body(self, event: Body) -> Result | Awaitable[Result]:
        reception = self._in_reception()
        if reception.refusal is not None:
            return None
        return self._ask(Moment.DATA_PART, self._body_decided, event, self._in_transaction(), event.chunk)

    def _body_decided(self, verdict: Verdict, event: Body) -> Result:
        reception = self._in_reception()
        if verdict is not None and not verdict.is_positive:
            reception.refuse(verdict, self.session.decided_by)
            return None
        if not self.effect:
            return None
        return None if reception.write(event.chunk) else WAIT

    def _end_of_data(self, event: EndOfData) -> Result | Awaitable[Result]:
        reception = self._in_reception()
        self.service.metrics.bytes_received += event.size
        refusal = event.failure or reception.refusal
        if refusal is not None:
            self.session.decided_by = "" if event.failure else reception.refused_by
            return self._refuse_message(refusal, event.size)
        if self.service.recipient_steps:
            return self._ask_each(event)
        return self._ask(Moment.DATA, self._message_decided, event, self._in_transaction(), reception.content)

    # A program that speaks LMTP is asked about each recipient, one after the other.

    def _ask_each(self, event: EndOfData) -> Result | Awaitable[Result]:
        transaction, content = self._in_transaction(), self._in_reception().content
        verdicts: list[Reply] = []
        answers = self._answers(transaction, content)
        for answer in answers:
            if not (answer is None or isinstance(answer, Reply)):
                return self._ask_rest(answer, answers, verdicts, event)
            verdicts.append(answer or event.success)
        return self._each_decided(verdicts)

    def _answers(self, transaction: Transaction, content: Content) -> Iterator[Answer]:
        # One by one, so not a generator expression: mypyc would ask all of them at once.
        for recipient in transaction.envelope.recipients:
            if self._is_stopped:
                return  # nobody is left to hear about those who are still to be asked about
            yield self.chain.ask(self.service.recipient_steps, self.session, transaction, content, recipient.address)

    async def _ask_rest(
        self, waiting: Awaitable[Verdict], answers: Iterator[Answer], verdicts: list[Reply], event: EndOfData
    ) -> Result:
        verdicts.append(await waiting or event.success)
        for answer in answers:
            verdict = answer if answer is None or isinstance(answer, Reply) else await answer
            verdicts.append(verdict or event.success)
        return None if self._is_stopped else self._each_decided(verdicts)

    def _each_decided(self, verdicts: Sequence[Reply]) -> Result:
        content, each = self._in_reception().content, tuple(verdicts)
        content.close()
        self._concluded(self._in_transaction(), each, content, content.size)
        return each

    def _message_decided(self, verdict: Verdict, event: EndOfData) -> Result:
        if verdict is not None and not verdict.is_positive:
            return self._refuse_message(verdict, event.size)
        reception = self._in_reception()
        success = verdict or event.success
        if verdict is None and reception.stores:
            success = Reply(250, "2.0.0", f"Ok: queued as {self._in_transaction().envelope.queue_id}")
        return reception.commit(success)

    def _refuse_message(self, refusal: Reply, size: int) -> Reply:
        transaction, reception = self._in_transaction(), self._in_reception()
        reception.abort()
        self._refused("end of data", "", refusal)
        self._concluded(transaction, refusal, reception.content, size)
        return refusal

    def _concluded(self, transaction: Transaction, said: Replies, content: Content, size: int) -> None:
        """The transaction is over, whatever came of it. A message that one of its recipients got was accepted."""
        if isinstance(said, Reply):
            self._journal.concluded(transaction, said, content, size, ())
        else:
            best = min(said, key=badness)
            self._journal.concluded(transaction, best, content, size, [str(reply) for reply in said])
        self._transaction = self._reception = None
        self.session.forwarded = NOTHING_FORWARDED

    # The end of the session

    def timed_out(self) -> Result | Awaitable[Result]:
        """The peer was silent for too long: the reply to close with."""
        self.service.metrics.sessions_timed_out += 1
        verdict = Connected(self.service.dialect.timeout)
        return self._ask(Moment.TIMEOUT, _or_success, verdict, self.session)

    def stop(self, reason: str, refused: Sequence[tuple[str, Reply]] = ()) -> Awaitable[Verdict] | None:
        """The connection is gone. reason: for the log, "" when both sides said goodbye.  refused: the commands that
        the protocol itself refused.

        A message that is not being committed is forgotten; one that is, the stores finish: the client will send it
        again, having seen no 250, which is the duplicate that SMTP cannot exclude (RFC 1047).
        """
        self._is_stopped = True
        self._forget_transaction()
        self._sign_in.cancel()
        self.admit = _anybody
        self._resume = nobody_waits  # who waited for us; it holds us, and we would hold it until the collector comes
        session = self.session
        # A proxy looks every few seconds whether we are there; that is no news as long as all is well.
        if not session.is_probe or session.messages or self._journal.refusals or refused:
            self._journal.closed(reason, refused)
        steps = self.chain.by_event.get(Moment.STOP_SESSION)
        answer = self.chain.ask(steps, session, session, reason) if steps else None
        return None if answer is None or isinstance(answer, Reply) else answer

    def shaped(self, event: Event, reply: Reply) -> Reply:
        """The reply as extensions want it."""
        return self.filtered(verb_of(event), reply) if self.service.filters else reply

    def filtered(self, name: str, reply: Reply) -> Reply:
        """The reply to a verb, or to an event of this name, as extensions want it.

        In extended mode only; the banner comes before any mode.
        """
        if self.session.is_extended or name == "banner":
            for change in self.service.filters.get(name, ()):
                reply = change(self.session, name, reply)
        return reply

    # What every handler needs

    def _in_transaction(self) -> Transaction:
        assert self._transaction is not None, "the protocol lets no RCPT or DATA through before MAIL"
        return self._transaction

    def _in_reception(self) -> Reception:
        assert self._reception is not None, "the protocol has no body before DATA"
        return self._reception

    def _refused(self, command: str, argument: str, reply: Reply) -> Reply:
        self._journal.refused(command, argument, reply, self._transaction)
        return reply

    def _forget_transaction(self) -> None:
        if self._reception is not None:
            self._reception.abort()
        self._transaction = self._reception = None
        self.session.forwarded = NOTHING_FORWARDED  # it was said of this transaction (Postfix's XFORWARD_README)


def _protocol(session: Session, *, is_lmtp: bool, is_utf8: bool) -> str:
    """The word for `with` in Received (RFC 3848 and RFC 6531 §4.3): only extended SMTP has letters for TLS and AUTH."""
    if is_lmtp:
        name = "UTF8LMTP" if is_utf8 else "LMTP"
    elif is_utf8 or session.is_extended:
        name = "UTF8SMTP" if is_utf8 else "ESMTP"
    else:
        return "SMTP"
    if session.tls is None and not session.user:
        return name
    return f"{name}{'S' if session.tls else ''}{'A' if session.user else ''}"


def verb_of(event: Event) -> str:
    """The name under which callbacks and extensions know an event."""
    if isinstance(event, Hello | Command):
        return event.verb
    return _EVENT_NAMES[event.__class__]


def _anybody(_client: Peer) -> Reply | None:
    """Where nobody counts clients."""
    return None


def _or_success(verdict: Verdict, event: Connected | LineTooLong) -> Result:
    return verdict or event.success


_BODY_TYPES: Mapping[str, BodyType] = {body.value: body for body in BodyType}
_VERBS_WITH_ARGUMENT = frozenset(("VRFY", "EXPN", "HELP"))
_MOMENTS: Mapping[str, Moment] = {moment.value: moment for moment in Moment}
#: What XCLIENT tells of a client that decides nothing here.
_ONLY_LOGGED = ("proto", "helo", "destaddr", "destport")
_EVENT_NAMES: Mapping[type, str] = {
    Connected: "banner",
    Mail: "MAIL",
    Rcpt: "RCPT",
    Data: "DATA-INIT",
    Body: "DATA-PART",
    EndOfData: "DATA",
    XForward: "XFORWARD",
    XClient: "XCLIENT",
    StartTls: "STARTTLS",
    Auth: "AUTH",
    AuthResponse: "AUTH",
    AuthCancelled: "AUTH",
    LineTooLong: "linetobig",
}
_HANDLERS: Mapping[type, Callable[[Receiver, Any], Result | Awaitable[Result]]] = {
    Connected: Receiver._connected,
    Hello: Receiver._hello,
    Mail: Receiver._mail,
    Rcpt: Receiver._rcpt,
    Data: Receiver._data,
    Body: Receiver._body,
    EndOfData: Receiver._end_of_data,
    Command: Receiver._command,
    XForward: Receiver._xforward,
    XClient: Receiver._xclient,
    StartTls: Receiver._start_tls,
    Auth: Receiver._auth,
    AuthResponse: Receiver._auth_response,
    AuthCancelled: Receiver._auth_cancelled,
    LineTooLong: Receiver._line_too_long,
}
