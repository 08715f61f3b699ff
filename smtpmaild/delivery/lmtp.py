"""LMTP (RFC 2033) to a message store such as Dovecot: over a Unix socket, or TCP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from smtpmaild.delivery import Outcome
from smtpmaild.delivery.attempt import attempt
from smtpmaild.delivery.courier import Courier
from smtpmaild.delivery.dial import Manner
from smtpmaild.delivery.endpoint import Endpoint
from smtpmaild.delivery.options import Port, SessionOptions, TlsMode
from smtpmaild.delivery.shared import Shared
from smtpmaild.queue import QueuedMessage, QueuedRecipient


class LmtpOptions(SessionOptions):
    """A server that delivers, and says so for each recipient."""

    type: Literal["lmtp"] = Field(description="LMTP to a message store.")
    path: str = Field("", description="Its Unix socket.")
    host: str = Field("", description="Or its name or IP address.")
    port: Port = Field(24, description="Its port.")
    tls: TlsMode = Field("none", description="As for SMTP; never over a Unix socket.")

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if bool(self.path) == bool(self.host):
            raise ValueError("give either the path of a Unix socket, or a host")
        if self.path and (self.tls != "none" or self.username):
            raise ValueError("over a Unix socket there is neither TLS nor a username")
        return self


class LmtpAgent:
    """Takes mail to one LMTP server."""

    def __init__(self, options: LmtpOptions, shared: Shared) -> None:
        self._options = options
        self._log = shared.log
        self._next_hops = shared.next_hops
        self._courier = Courier(Manner(options, shared.hostname, shared.log, is_lmtp=True))

    async def deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return await attempt(self._log, self._deliver, message, recipients)

    async def _deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        options = self._options
        if options.path:
            endpoints = [Endpoint(options.path, options.path)]
        else:
            endpoints = await self._next_hops.of_host(options.host, options.port, ("ipv6", "ipv4"))
        return await self._courier.deliver(message, recipients, endpoints)

    async def close(self) -> None:
        await self._courier.close()
