"""The section `tests`: what the configuration must do, as cases that `check` and every reload play through it.

A case is one recipient of one session; the session is that of `smtpmaild try`. What it says of the answer is
compared by rehearsal.py.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, StrictBool, WithJsonSchema, model_validator

from smtpmaild.config.findings import Finding, Findings
from smtpmaild.config.mistakes import did_you_mean
from smtpmaild.config.section import AtLeastOne, Section
from smtpmaild.delivery.agents import parse_next_hop

#: How a client on a Unix socket is written, which has no address.
LOCAL = "local"

Outcome = Literal["accept", "defer", "reject"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """outcome: accept, defer or reject.  code, enhanced: of the reply; "" where any will do."""

    outcome: Outcome
    code: str = ""
    enhanced: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.outcome, self.code, self.enhanced)))

    def is_met_by(self, outcome: str, reply: str) -> bool:
        """reply: its last line."""
        code, _, rest = reply.partition(" ")
        return (
            outcome == self.outcome
            and self.code in ("", code)
            and (not self.enhanced or rest.partition(" ")[0] == self.enhanced)
        )


_OUTCOMES: Mapping[str, Outcome] = {"2": "accept", "4": "defer", "5": "reject"}
_BY_WORD: Mapping[str, Outcome] = {word: word for word in _OUTCOMES.values()}
# RFC 5321 §4.2: reply codes; RFC 3463 §2: enhanced status codes.
_EXPECTATION = re.compile(r"(accept|defer|reject)(?: ([245][0-9]{2})(?: ([245]\.[0-9]{1,3}\.[0-9]{1,3}))?)?")


def _expectation(value: object) -> Expectation:
    match = _EXPECTATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"'{value}' is no outcome: write it as accept, reject, reject 550, or defer 450 4.7.1")
    found = Expectation(_BY_WORD[match[1]], match[2] or "", match[3] or "")
    for digits in filter(None, (found.code, found.enhanced)):
        if _OUTCOMES[digits[0]] != found.outcome:
            raise ValueError(f"'{value}': {digits} does not {found.outcome}")
    return found


def _client(value: object) -> str:
    """The address as the daemon knows a peer: without zone, IPv4 also where it came in over IPv6; "" for none."""
    if value == LOCAL:
        return ""
    try:
        address = ipaddress.ip_address(value.partition("%")[0] if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f"'{value}' is not an IP address; a client on a Unix socket is written {LOCAL}") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _printable(text: str) -> str:
    if not text.isprintable():  # a line end would begin another command
        raise ValueError("this has characters that cannot be sent in a command")
    return text


def _path(text: str) -> str:
    return _printable(text).removeprefix("<").removesuffix(">")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Client = Annotated[
    str, PlainValidator(_client), WithJsonSchema({"type": "string", "examples": ["203.0.113.9", "2001:db8::1", LOCAL]})
]
Expected = Annotated[
    Expectation,
    PlainValidator(_expectation),
    WithJsonSchema({"type": "string", "pattern": f"^{_EXPECTATION.pattern}$"}),
]
Line = Annotated[str, AfterValidator(_printable)]
Path = Annotated[str, AfterValidator(_path)]
Names = Annotated[
    AtLeastOne[str],
    BeforeValidator(_as_list, json_schema_input_type=str | tuple[str, ...]),
]


class Case(Section):
    """A question and the answer it must get."""

    name: str = Field("", description="What it shows; printed where it fails.", examples=["strangers cannot relay"])
    client: Client = Field("192.0.2.1", description=f"The address it comes from; {LOCAL} for a Unix socket.")
    client_name: Line = Field("", description="The client's name in the DNS. Nothing is looked up.")
    client_certificate: str = Field(
        "", description="Subject or SHA-256 fingerprint of the certificate the client shows, taken for good."
    )
    listener: str | None = Field(None, description="Which listener it comes to. Left out: the first.")
    tls: StrictBool | None = Field(
        None, description="Encrypted or not. Left out: where the listener, the user or the certificate needs it."
    )
    user: Line = Field("", description="Who signs in; the password is taken for right.")
    helo: Line = Field("client.example", description="What the client calls itself.")
    sender: Path = Field("", alias="from", description="The sender; left out: the null sender <>.")
    to: Path = Field(min_length=1, description="The recipient.", examples=["alice@example.com"])
    expect: Expected = Field(
        description="accept, reject or defer; with a reply code and an enhanced code where they matter.",
        examples=["accept", "reject 550", "defer 450 4.7.1"],
    )
    rule: str | None = Field(
        None,
        description="The rule or policy that decides, as `smtpmaild try` names it.",
        examples=["signed-in users", "local_domains.example.com"],
    )
    delivered_to: Names = Field((), description="The store, or all stores, that get it: names under deliver_to.")
    relayed_to: Names = Field((), description="Who takes it on: a name under relays, mx, or host:port; or all of them.")

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.expect.outcome != "accept" and (self.delivered_to or self.relayed_to):
            raise ValueError(f"expect is '{self.expect}': what is not accepted goes nowhere")
        return self

    @property
    def title(self) -> str:
        """What it is called where it fails."""
        return f"'{self.name}'" if self.name else f"for '{self.to}'"


def case_findings(
    cases: Iterable[Case], listeners: Iterable[str], stores: Iterable[str], relays: Iterable[str]
) -> Findings:
    """Names that name nothing."""
    listeners, stores, relays = [*listeners], [*stores], [*relays]
    for number, case in enumerate(cases):
        if case.listener is not None and case.listener not in listeners:
            message = f"there is no listener '{case.listener}'{did_you_mean(case.listener, listeners)}"
            yield Finding(("tests", number, "listener"), message)
        for index, store in enumerate(case.delivered_to):
            if store not in stores:
                message = f"there is no '{store}' in deliver_to{did_you_mean(store, stores)}"
                yield Finding(("tests", number, "delivered_to", index), message)
        for index, relay in enumerate(case.relayed_to):
            if not (relay in relays or relay == "mx" or parse_next_hop(relay)):
                message = f"'{relay}' is neither in relays nor mx nor host:port{did_you_mean(relay, relays)}"
                yield Finding(("tests", number, "relayed_to", index), message)
