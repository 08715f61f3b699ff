"""From what stores said to what a client hears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from smtpmaild.envelope import Destination, Recipient, Route, Rule
from smtpmaild.outcomes import badness, destinations_by_sink, replies_by_recipient, without_trouble, worst_reply
from smtpmaild.sink import Outcome
from smtpmaild.smtp.address import Address
from smtpmaild.smtp.reply import RECIPIENT_OK, Reply

STORED = Reply(250, "2.0.0", "Stored")
FULL = Reply(452, "4.3.1", "Full")
BROKEN = Reply(554, "5.3.0", "Broken")


def recipient(*sinks: str) -> Recipient:
    address = Address("a", "b", "a@b")
    return Recipient(
        address, Route(Rule("r"), RECIPIENT_OK, tuple(Destination(sink, "b", sink, "", address) for sink in sinks))
    )


def test_badness_is_in_the_order_of_what_a_client_should_do() -> None:
    assert sorted([FULL, STORED, BROKEN], key=badness) == [STORED, BROKEN, FULL]


@pytest.mark.parametrize(
    ("outcomes", "worst"),
    [
        ([], None),
        ([STORED], STORED),
        ([STORED, BROKEN], BROKEN),
        ([FULL, BROKEN], FULL),  # it tries again, and nothing is lost
        ([STORED, [STORED, FULL], BROKEN], FULL),
    ],
)
def test_worst_reply(outcomes: Sequence[Outcome], worst: Reply | None) -> None:
    assert worst_reply(outcomes) == worst


def test_destinations_keep_their_order() -> None:
    by_sink = destinations_by_sink([recipient("x", "y"), recipient(), recipient("y"), recipient("x", "x")])
    assert {sink: len(to) for sink, to in by_sink.items()} == {"x": 3, "y": 2}
    assert [to.mailbox for to in by_sink["x"]] == ["x"] * 3


def test_who_needs_a_store_in_trouble() -> None:
    recipients = [recipient("x"), recipient("x", "y"), recipient("y"), recipient()]
    assert without_trouble(recipients, {"y": FULL}) == [recipients[0], recipients[3]]
    assert without_trouble(recipients, {}) == recipients


X, Y, XY, NONE = recipient("x"), recipient("y"), recipient("x", "y"), recipient()


@pytest.mark.parametrize(
    ("recipients", "outcomes", "troubles", "replies"),
    [
        ([X, Y], {"x": STORED, "y": FULL}, {}, [STORED, FULL]),
        ([X, XY, NONE], {"x": STORED, "y": FULL}, {}, [STORED, FULL, None]),
        ([X, XY, X], {"x": [STORED, BROKEN, FULL], "y": [STORED]}, {}, [STORED, BROKEN, FULL]),
        ([recipient("x", "x"), X], {"x": [FULL, STORED, STORED]}, {}, [FULL, STORED]),
        # of the second nothing was given to x, so x has said nothing of it
        ([X, XY, X], {"x": [STORED, FULL]}, {"y": BROKEN}, [STORED, BROKEN, FULL]),
    ],
)
def test_replies_by_recipient(
    recipients: Sequence[Recipient],
    outcomes: Mapping[str, Outcome],
    troubles: Mapping[str, Reply],
    replies: Sequence[Reply | None],
) -> None:
    assert [*replies_by_recipient(recipients, outcomes, troubles)] == replies
