"""SMTP to other hosts: one host for everything (a smarthost), or the MX hosts of each recipient's domain."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from smtpmaild.delivery import Outcome
from smtpmaild.delivery.attempt import attempt, same
from smtpmaild.delivery.courier import Courier, without
from smtpmaild.delivery.dial import Manner
from smtpmaild.delivery.next_hop import IpVersion, NextHops
from smtpmaild.delivery.options import Port, SessionOptions
from smtpmaild.delivery.shared import Shared
from smtpmaild.queue import QueuedMessage, QueuedRecipient
from smtpmaild.smtp.reply import Reply

# RFC 8689 §4.2.1 wants DNSSEC or MTA-STS before a certificate for the name of a MX proves anything.
UNPROVEN = Reply(550, "5.7.30", "REQUIRETLS: nothing proves that the MX records of the domain are its own")


class HopOptions(SessionOptions):
    """What both have in common."""

    ip: tuple[IpVersion, ...] = Field(
        ("ipv6", "ipv4"), min_length=1, description="Which addresses of a host are tried, in this order."
    )


class SmtpOptions(HopOptions):
    """One host for everything: a smarthost, or the primary MX of a domain we are the backup of."""

    type: Literal["smtp"] = Field("smtp", description="One host for everything.")
    host: str = Field(min_length=1, description="Its name or IP address; MX records are not asked for.")
    port: Port = Field(25, description="Its port: 25 between mail servers, 587 for submission, 465 with implicit_tls.")
    implicit_tls: bool = Field(False, description="TLS from the first octet, as on port 465 (RFC 8314).")

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        if self.implicit_tls and self.tls not in ("required", "verify"):
            raise ValueError("implicit_tls is TLS: set tls to `required` or `verify`")
        return self


class MxOptions(HopOptions):
    """The mail servers of each recipient's domain."""

    type: Literal["mx"] = Field(description="To the MX hosts of each recipient's domain.")
    port: Port = Field(25, description="Their port.")


class SmtpAgent:
    """Takes mail to one host."""

    def __init__(self, options: SmtpOptions, shared: Shared) -> None:
        self._options = options
        self._log = shared.log
        self._next_hops = shared.next_hops
        self._courier = Courier(Manner(options, shared.hostname, shared.log, implicit_tls=options.implicit_tls))

    async def deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return await attempt(self._log, self._deliver, message, recipients)

    async def _deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        options = self._options
        endpoints = await self._next_hops.of_host(options.host, options.port, options.ip)
        return await self._courier.deliver(message, recipients, endpoints)

    async def close(self) -> None:
        await self._courier.close()


class MxAgent:
    """Takes mail where the DNS says. Domains with the same servers share connections."""

    def __init__(self, options: MxOptions, shared: Shared) -> None:
        self._options = options
        self._log = shared.log
        self._next_hops: NextHops = shared.next_hops
        self._courier = Courier(Manner(options, shared.hostname, shared.log))

    async def deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        by_domain: dict[str, list[QueuedRecipient]] = {}
        for recipient in recipients:
            by_domain.setdefault(recipient.address.domain, []).append(recipient)
        groups = list(by_domain.values())
        outcomes = await asyncio.gather(*(attempt(self._log, self._deliver, message, group) for group in groups))
        by_number = {
            recipient.number: outcome
            for group, results in zip(groups, outcomes, strict=True)
            for recipient, outcome in zip(group, results, strict=True)
        }
        return [by_number[recipient.number] for recipient in recipients]

    async def _deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        if message.requires_tls:
            return same(UNPROVEN, recipients)
        message = without(message, "REQUIRETLS")  # of a report
        options = self._options
        domain = recipients[0].address.domain
        endpoints = await self._next_hops.of_domain(domain, options.port, options.ip)
        return await self._courier.deliver(message, recipients, endpoints)

    async def close(self) -> None:
        await self._courier.close()
