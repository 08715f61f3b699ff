"""The section `queue`: mail that travels on, kept until it has arrived or its sender was told that it cannot."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, StrictBool, model_validator

from smtpmaild.config.names import Network, UserName
from smtpmaild.config.paths import ConfigPath
from smtpmaild.config.report_words import WordsFile
from smtpmaild.config.section import Section, Whole
from smtpmaild.config.units import Duration, Size


class Priorities(Section):
    """Whose mail may say how urgent it is (MT-PRIORITY, RFC 6710): more urgent mail is taken on first."""

    profile: Literal["MIXER", "STANAG4406", "NSEP"] = Field(
        "MIXER", description="What the numbers from -9 to 9 mean among those who use them; it is told in EHLO."
    )
    from_networks: tuple[Network, ...] = Field(
        (), description="Networks of clients that are trusted with any priority."
    )
    users: tuple[UserName, ...] = Field((), description="Who is trusted with any priority when signed in.")
    signed_in: StrictBool = Field(False, description="The same for everybody who has signed in.")
    others: Whole = Field(
        # RFC 6710 §4.1: the server "MUST NOT allow "upgraded" (positive) priorities from untrusted" sources.
        0,
        ge=-9,
        le=0,
        description="The highest priority that anybody else may give, 0 at most; a higher one is lowered to it.",
    )


class Queue(Section):
    """Where mail waits, how long it is tried, and how much of it there may be."""

    path: ConfigPath = Field("var/queue", validate_default=True, description="The directory of the queue.")
    retry_first: Duration = Field(300.0, gt=0, description="How long after the first failure a message is tried again.")
    retry_longest: Duration = Field(
        4 * 3600.0, gt=0, description="The delay is doubled for each further failure, up to this."
    )
    max_age: Duration = Field(
        5 * 86400.0, gt=0, description="After this time we give up, and the sender gets the message back."
    )
    warn_after: Duration | None = Field(
        None, description="After this time the sender is told once that the message is late. Left out: never."
    )
    report_by: str = Field(
        "mx",
        description="What takes reports to senders in other domains: a name under relays, mx, or host:port.",
    )
    report_words_file: WordsFile | None = Field(
        None, description="A file with other words for reports; docs/reports.md says what stands in it."
    )
    report_returns: Size = Field(
        50_000,
        description="A message that failed comes back whole if its sender wants it so and it is not larger than this; "
        "else its header does.",
    )
    deliveries: Whole = Field(100, ge=1, le=10_000, description="Deliveries at a time, of each worker.")
    deliveries_per_destination: Whole = Field(
        20,
        ge=1,
        le=1000,
        description="The same to one destination: a relay, or a domain where MX decides. It begins with 2.",
    )
    max_messages: Whole = Field(
        0, ge=0, description="With so many in the queue, of all workers, no more are taken (452); 0: no limit."
    )
    max_size: Size = Field(0, description="The same for the bytes of all messages; 0: no limit.")
    min_free: Size = Field(
        100_000_000, description="With less free space than this on its disk, the queue takes no more mail (452)."
    )

    hold_longest: Duration = Field(
        7 * 86400.0,
        ge=0,
        le=999_999_999,
        description="How long clients that must sign in may have a message held back (FUTURERELEASE); 0: not at all.",
    )
    deliver_by_least: Duration = Field(
        0.0,
        ge=0,
        le=999_999_999,
        description="The least time within which a message can be asked to be delivered or returned (DELIVERBY).",
    )
    priorities: Priorities | None = Field(
        None, description="Whose mail may say how urgent it is (MT-PRIORITY). Left out: nobody's."
    )

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.retry_first > self.retry_longest:
            raise ValueError("retry_first is longer than retry_longest")
        return self
