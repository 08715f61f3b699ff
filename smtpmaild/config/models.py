"""The whole file as one model: plain data, frozen, with a description on every field.

Config is what the rest of the daemon is built from. It remembers where in the file each part stands, so that a log
line can name the rule that decided with its line.
"""

from __future__ import annotations

import os
import socket
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, PrivateAttr, StrictBool, WithJsonSchema, model_validator

from smtpmaild.config.accounts import Accounts
from smtpmaild.config.control import Control
from smtpmaild.config.dns import Dns
from smtpmaild.config.domains import LocalDomain, LocalDomains
from smtpmaild.config.history import History
from smtpmaild.config.limits import Limits, Timeouts
from smtpmaild.config.listeners import Listener
from smtpmaild.config.mistakes import Mistake
from smtpmaild.config.names import HostName, MailAddress, host_name
from smtpmaild.config.paths import ConfigPath
from smtpmaild.config.policies import Policies
from smtpmaild.config.queue import Queue
from smtpmaild.config.relays import Relay
from smtpmaild.config.roles import brought, overridden, with_roles
from smtpmaild.config.rules import RelayRule
from smtpmaild.config.section import AtLeastOne, Section
from smtpmaild.config.sendmail import Sendmail
from smtpmaild.config.status import Status
from smtpmaild.config.stores import Store
from smtpmaild.config.tests import Case
from smtpmaild.config.tls import Tls
from smtpmaild.config.yaml_nodes import Document, Value


def _own_host_name() -> str:
    try:
        return host_name(socket.getfqdn())
    except ValueError:
        return "localhost"


def _workers(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024:
        return value
    raise ValueError("workers is a number from 1 to 1024, or auto for one each processor")


Workers = Annotated[
    int | Literal["auto"],
    PlainValidator(_workers),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1024}, {"const": "auto"}]}),
]


class Logging(Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least important level shown.")
    format: Literal["auto", "console", "json", "logfmt"] = Field(
        "auto", description="console for people, json or logfmt for programs; auto: console on a terminal, else json."
    )
    privacy: StrictBool = Field(
        False,
        description="Local parts, IP addresses and users are pseudonyms in the log and the history, others each day.",
    )
    privacy_file: ConfigPath = Field(
        "var/privacy.key", validate_default=True, description="The key of the day, which all workers share."
    )


class Config(Section):
    """The configuration of smtpmaild: who may hand us mail, for whom, and where it goes."""

    version: Literal[1] = Field(1, description="The version of this format.")
    hostname: HostName = Field(
        default_factory=_own_host_name,
        description="How we call ourselves in the greeting and in Received. Left out: the host name of the machine.",
        examples=["mx.example.com"],
    )
    postmaster: MailAddress | None = Field(
        None,
        description="Who gets mail for postmaster where a local domain does not say so itself: an address in a local "
        "domain. Left out: the mailbox postmaster in the store of the domain.",
        examples=["alice@example.com"],
    )
    listeners: AtLeastOne[Listener] = Field(description="Where clients connect, and what each door is for.")
    accounts: Accounts | None = Field(
        None, description="Who can sign in at listeners that have `auth`, and how fast passwords may be guessed."
    )
    local_domains: LocalDomains = Field(
        {},
        description="The domains we receive mail for; *.example.com stands for the sub-domains of example.com.",
    )
    deliver_to: dict[str, Store] = Field({}, description="The stores, each under the name that `deliver` uses.")
    relay_rules: tuple[RelayRule, ...] = Field(
        (), description="What to do with mail for other domains: in order, the first match decides; no match: refused."
    )
    relays: dict[str, Relay] = Field({}, description="What takes our mail on, each under the name `relay` uses.")
    queue: Queue = Field(
        {},
        validate_default=True,
        description="Where mail waits that travels on, how long it is tried, and how much of it there may be.",
    )
    sendmail: Sendmail | None = Field(None, description="Mail from programs on this machine, by the command sendmail.")
    control: Control | None = Field(None, description="The socket by which commands ask and steer a running daemon.")
    status: Status | None = Field(None, description="The status page, /metrics and health. Left out: none.")
    tls: Tls = Field(
        default_factory=Tls, description="Certificates and what is asked of clients, for all listeners with TLS."
    )
    policies: Policies = Field(default_factory=Policies, description="What is checked at each step of the dialogue.")
    limits: Limits = Field(default_factory=Limits, description="How much clients may use. Beyond it: 421, 452 or 552.")
    timeouts: Timeouts = Field(default_factory=Timeouts, description="How long we wait, mostly for clients.")
    dns: Dns = Field(default_factory=Dns, description="Who is asked for names of clients and mail servers.")
    tests: tuple[Case, ...] = Field(
        (), description="What must come of some mail: `check` tries it, and a configuration that fails is not served."
    )
    history: History | None = Field(
        None, description="What happened, for `smtpmaild trace` and the status page. Left out: nothing is kept."
    )
    logging: Logging = Field(default_factory=Logging, description="What is logged, on standard error.")
    workers: Workers = Field(1, description="Processes that serve: a number, or auto for one each processor.")
    event_loop: Literal["uvloop", "asyncio"] = Field("uvloop", description="The event loop; uvloop is the faster one.")
    user: str | None = Field(
        None,
        description="Who the daemon becomes after it has bound its sockets as root. Left out: whoever starts it.",
        examples=["smtpmaild"],
    )
    group: str | None = Field(None, description="The group with it. Left out: the main group of that user.")
    allow_root: StrictBool = Field(False, description="Serve as root where no user is given; refused otherwise.")

    _document: Document | None = PrivateAttr(None)
    _warnings: tuple[Mistake, ...] = PrivateAttr(())

    @model_validator(mode="before")
    @classmethod
    def _with_roles(cls, value: object) -> object:
        return with_roles(value)

    def at(self, listener: Listener) -> Config:
        """The configuration as it holds at one of its listeners: its own policies, limits and timeouts come first."""
        own = {
            "policies": overridden(self.policies, listener.policies),
            "limits": overridden(self.limits, listener.limits),
            "timeouts": overridden(self.timeouts, listener.timeouts),
        }
        return self.model_copy(update=own)

    def brought(self, listener: Listener) -> dict[str, Value]:
        """What the role of a listener brings that it does not say itself, by the names of the keys."""
        number = self.listeners.index(listener)
        found = brought(listener.role, has_certificates=bool(self.tls.certificates) or self.tls.self_signed)
        return {
            ".".join(steps): value
            for steps, value in found.items()
            if self._document is None or not self._document.has(("listeners", number, *steps))
        }

    @property
    def worker_count(self) -> int:
        """How many processes serve."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers

    @property
    def needs_queue(self) -> bool:
        """There is mail that travels on."""
        return any(rule.relay is not None for rule in self.relay_rules) or any(
            domain.relay is not None or self.is_queued(domain) for domain in self.local_domains.values()
        )

    def is_queued(self, domain: LocalDomain) -> bool:
        """Its mail goes into the queue, from which a relay takes it. A store of the same name comes first."""
        return domain.deliver in self.relays and domain.deliver not in self.deliver_to

    def where_policy(self, listener: Listener, name: str) -> str:
        """The line of the policy that holds at a listener; "" where it is only a default."""
        number = self.listeners.index(listener)
        for loc in (("listeners", number, "policies", name), ("policies", name)):
            if self._document is not None and self._document.has(loc):
                return self._document.where(loc)
        return ""

    def where(self, *loc: str | int) -> str:
        """The line of a part of the file: where("relay_rules", 0) is "smtp.yaml:14"; "" if there is no file."""
        return self._document.where(loc) if self._document is not None else ""

    @property
    def warnings(self) -> tuple[Mistake, ...]:
        """What is doubtful, but no reason not to start."""
        return self._warnings

    @property
    def document(self) -> Document | None:
        """The file it was read from."""
        return self._document
