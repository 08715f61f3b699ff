"""Takes messages to servers over connections that it keeps for the next message: what SMTP and LMTP have in common.

A message is offered to the servers of a list in turn, until each recipient has an answer that is final: a server that
cannot be reached, or that defers, is followed by the next (RFC 5321 §5.1), within bounds. Connections wait for another
message a few seconds; one that turns out to have been closed meanwhile counts for nothing, a new one is made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from smtpmaild.delivery import Outcome, Passed
from smtpmaild.delivery.channel import BLOCK, Channel
from smtpmaild.delivery.dial import Dialer, Manner, NotConnectedError
from smtpmaild.delivery.downgrade import DowngradeError, downgrade
from smtpmaild.delivery.endpoint import Endpoint
from smtpmaild.envelope import BodyType
from smtpmaild.queue import Body, QueuedMessage, QueuedRecipient
from smtpmaild.smtp.mailing import (
    NEEDS_DELIVERBY,
    NEEDS_EIGHT_BIT,
    NEEDS_REQUIRETLS,
    NEEDS_TLS,
    Forward,
    Mailing,
    Offer,
    original_recipient,
)
from smtpmaild.smtp.reply import OwnReply, Reply
from smtpmaild.smtp.timing import deliver_by

#: In one attempt. RFC 5321 §5.1: "at least two addresses"; Postfix tries five and talks to two.
_MOST_ADDRESSES = 5
_MOST_SESSIONS = 2
#: Connections that wait for another message, to all servers together.
_MOST_IDLE = 100


class Courier:
    """Serves any number of messages at a time, each over a connection of its own."""

    def __init__(self, manner: Manner) -> None:
        self._options = manner.options
        self._is_lmtp = manner.is_lmtp
        self._dialer = Dialer(manner)
        self._idle: dict[Endpoint, list[tuple[Channel, asyncio.TimerHandle]]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def deliver(
        self, message: QueuedMessage, recipients: Sequence[QueuedRecipient], endpoints: Sequence[Endpoint]
    ) -> list[Outcome]:
        """One outcome for each recipient, in order. endpoints: at least one, the best first."""
        outcomes: list[Outcome | None] = [None] * len(recipients)
        sessions = 0
        for endpoint in endpoints[:_MOST_ADDRESSES]:
            left = [number for number, outcome in enumerate(outcomes) if outcome is None or _is_open(outcome)]
            if not left or sessions == _MOST_SESSIONS:
                break
            try:
                results = await self._offer(endpoint, message, [recipients[number] for number in left])
                sessions += not all(map(_is_of_server, results))
                is_neighbours = False
            except NotConnectedError as error:
                results = [_outcome(_unconnected(error, message), endpoint)] * len(left)
                is_neighbours = results[0].reply.is_permanent
            for number, result in zip(left, results, strict=True):
                # Who could not be had may be there tomorrow, whatever a neighbour says to a connection or cannot do.
                if is_neighbours or _is_of_server(result):
                    result = outcomes[number] or result
                outcomes[number] = result
        return [outcome for outcome in outcomes if outcome is not None]

    async def close(self) -> None:
        """Take leave of all servers."""
        self._is_closed = True
        for idle in self._idle.values():
            for channel, timer in idle:
                timer.cancel()
                self._leave(channel)
        self._idle.clear()
        while self._leaving:
            await asyncio.wait(self._leaving)

    async def _offer(
        self, endpoint: Endpoint, message: QueuedMessage, recipients: Sequence[QueuedRecipient]
    ) -> list[Outcome]:
        """To one server, in as many transactions as it takes. Raises NotConnectedError, but only before the first."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(recipients):
            try:
                outcomes += await self._transact(endpoint, message, recipients[len(outcomes) :])
            except NotConnectedError as error:
                if not outcomes:
                    raise
                outcomes += [_outcome(error.reply, endpoint)] * (len(recipients) - len(outcomes))
        return outcomes

    async def _transact(
        self, endpoint: Endpoint, message: QueuedMessage, recipients: Sequence[QueuedRecipient]
    ) -> list[Outcome]:
        """One transaction, with the first of the recipients."""
        for channel in self._idle_channels(endpoint):
            answered = channel.session.answered
            outcomes = await self._send(channel, message, recipients)
            if channel.session.is_sound or channel.session.answered > answered:
                return outcomes
        return await self._send(await self._dialer.connect(endpoint), message, recipients)

    async def _send(
        self, channel: Channel, message: QueuedMessage, recipients: Sequence[QueuedRecipient]
    ) -> list[Outcome]:
        offer = channel.session.offer
        is_safe = channel.is_verified and "REQUIRETLS" in offer
        # A socket stays on this machine, in the hands of the store: RFC 8689 is about the way between hosts. A report
        # goes on without rather than not at all (§5), and "MUST only be specified" within verified TLS (§2).
        if not channel.endpoint.port or (message.reverse_path.is_null and not is_safe):
            message = without(message, "REQUIRETLS")
        most = self._options.recipients_per_message
        group = recipients[: min(most, offer.most_recipients or most)]
        try:
            if "REQUIRETLS" in message.parameters and not channel.is_verified:
                replies: Sequence[Reply] = [NEEDS_TLS] * len(group)
            else:
                replies = await self._send_body(channel, message, group)
        except BaseException:
            channel.abort()
            raise
        self._keep(channel)
        passed, keeps_time = self._passed(offer), "DELIVERBY" in offer
        return [_outcome(reply, channel.endpoint, passed, keeps_time=keeps_time) for reply in replies]

    async def _send_body(
        self, channel: Channel, message: QueuedMessage, recipients: Sequence[QueuedRecipient]
    ) -> Sequence[Reply]:
        offer = channel.session.offer
        if self._is_lmtp and "DELIVERBY" not in offer:
            # RFC 2852 §1: handing it to the store is delivering it, and now is in time; nothing is relayed.
            message = without(message, "BY")
        if message.body_type is not BodyType.EIGHT_BIT_MIME or "8BITMIME" in offer:
            return await channel.send(_mailing(message, recipients), message.body)
        # Many clients declare 8BITMIME whatever they send.
        if await _is_ascii(message.body):
            seven_bit = replace(message, body_type=BodyType.SEVEN_BIT)
            return await channel.send(_mailing(seven_bit, recipients), message.body)
        # A report has nowhere to go back to: it is changed rather than lost.
        if self._options.eight_bit == "bounce" and not message.reverse_path.is_null:
            return [NEEDS_EIGHT_BIT] * len(recipients)
        try:
            body = await asyncio.to_thread(downgrade, message.body)
        except DowngradeError as error:
            refusal = OwnReply(554, "5.6.3", f"{NEEDS_EIGHT_BIT.text}, and it cannot be changed: {error}")
            return [refusal] * len(recipients)
        try:
            seven_bit = replace(message, body=body, body_type=BodyType.SEVEN_BIT)
            return await channel.send(_mailing(seven_bit, recipients), body)
        finally:
            body.close()

    def _passed(self, offer: Offer) -> Passed:
        if self._is_lmtp:
            return Passed.IN
        return Passed.ON if "DSN" in offer else Passed.OUT

    # Connections that wait for another message

    def _idle_channels(self, endpoint: Endpoint) -> Iterator[Channel]:
        """Those that wait, the last used first; who is taken is no longer there."""
        while idle := self._idle.get(endpoint):
            channel, timer = idle.pop()
            timer.cancel()
            if not idle:
                del self._idle[endpoint]
            if channel.is_reusable:
                yield channel
            else:
                channel.abort()

    def _keep(self, channel: Channel) -> None:
        is_worn = channel.messages >= self._options.messages_per_connection or not channel.is_reusable
        if is_worn or self._is_closed or sum(map(len, self._idle.values())) >= _MOST_IDLE:
            self._leave(channel)
            return
        timer = asyncio.get_running_loop().call_later(self._options.idle, self._expire, channel)
        self._idle.setdefault(channel.endpoint, []).append((channel, timer))

    def _expire(self, channel: Channel) -> None:
        idle = self._idle[channel.endpoint]
        idle[:] = [entry for entry in idle if entry[0] is not channel]
        if not idle:
            del self._idle[channel.endpoint]
        self._leave(channel)

    def _leave(self, channel: Channel) -> None:
        """Say QUIT while the caller goes on."""
        task = asyncio.get_running_loop().create_task(channel.quit())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


#: Enhanced codes of what this server cannot do and its neighbour might; 5.4.7: it takes too long (RFC 2852 §4.1.4.1).
#: RFC 8689 §4.2.1: "repeat steps 2-5 with each host on the recipient domain's list of MX hosts in an attempt to find a
#: mail path".
_OF_SERVER = frozenset((NEEDS_DELIVERBY.enhanced, NEEDS_REQUIRETLS.enhanced, NEEDS_TLS.enhanced, "5.4.7"))


def _is_of_server(outcome: Outcome) -> bool:
    return not outcome.remote and outcome.reply.enhanced in _OF_SERVER


def _is_open(outcome: Outcome) -> bool:
    """Another server may be asked."""
    return 400 <= outcome.reply.code < 500 or _is_of_server(outcome)


def _unconnected(error: NotConnectedError, message: QueuedMessage) -> Reply:
    """RFC 8689 §4.2.1: that there is no TLS is the end of a message that requires it: "the SMTP client MUST send a
    non-delivery notification"."""
    if error.is_insecure and message.requires_tls:
        return OwnReply(NEEDS_TLS.code, NEEDS_TLS.enhanced, f"{NEEDS_TLS.text}: {error.reply.text}")
    return error.reply


def _outcome(reply: Reply, endpoint: Endpoint, passed: Passed = Passed.OUT, *, keeps_time: bool = False) -> Outcome:
    if isinstance(reply, OwnReply):
        return Outcome(Reply(reply.code, reply.enhanced, f"{endpoint}: {reply.text}"))
    return Outcome(reply, str(endpoint), passed, keeps_time)


def without(message: QueuedMessage, parameter: str) -> QueuedMessage:
    """The message as if MAIL had not had that parameter."""
    if parameter not in message.parameters:
        return message
    return replace(message, parameters={key: value for key, value in message.parameters.items() if key != parameter})


def _mailing(message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Mailing:
    forwards = [Forward(recipient.address, _rcpt_parameters(recipient)) for recipient in recipients]
    parameters, size = _parameters(message, time.time()), message.body.size
    return Mailing(message.reverse_path, forwards, size, message.body_type.value, message.is_utf8, parameters)


def _rcpt_parameters(recipient: QueuedRecipient) -> Mapping[str, str]:
    """Of mail to an alias the next hop is told who that was, so that its reports tell it, too.

    RFC 3461 §5.2.1 (d): where there was none "an ORCPT parameter MAY be added", and "MUST contain the recipient address
    from the RCPT command used when the message was received by that MTA".
    """
    if not recipient.accepted_as or "ORCPT" in recipient.parameters:
        return recipient.parameters
    original = original_recipient(recipient.accepted_as)
    return {**recipient.parameters, "ORCPT": original} if original else recipient.parameters


def _parameters(message: QueuedMessage, now: float) -> Mapping[str, str]:
    """Those of MAIL, as they are now: of the time to deliver by (RFC 2852 §4.1.4), some has gone."""
    by = deliver_by(message.parameters)
    return {**message.parameters, "BY": by.passed_on(now - message.received_at)} if by else message.parameters


async def _is_ascii(body: Body) -> bool:
    try:
        return await asyncio.to_thread(_reads_ascii, body)
    except OSError:
        return False  # who cannot read it now will see so when it is sent


def _reads_ascii(body: Body) -> bool:
    with body.open() as stream:
        while block := stream.read(BLOCK):
            if not block.isascii():
                return False
    return True
