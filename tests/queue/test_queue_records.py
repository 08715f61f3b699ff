"""Messages as JSON, out and in again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from queueing import NO, NOW, address, entry

from smtpmaild.queue import Entry, State
from smtpmaild.queue.body import BytesBody
from smtpmaild.queue.records import RecordError, from_record, to_record
from smtpmaild.smtp.address import Address, parse_mailbox

BODY = BytesBody(b"x")


def read(record: object) -> Entry:
    return from_record(json.dumps(record).encode(), BODY, NOW + 5, parse_mailbox, lambda _: "relay:mx")


def test_what_is_written_is_read_back() -> None:
    message, recipients = entry(
        "b@y.example", '"c d"@z.example', user="alice", at=NOW, queue_id="0" * 18, route="relay:x"
    )
    recipients = [
        replace(recipients[0], last=NO, attempts=2, attempted_at=NOW, accepted_as="Postmaster"),
        replace(recipients[1], state=State.HELD, accepted_as="all@z.example"),
    ]
    record = to_record(message, recipients)
    assert record["recipients"][0]["reply"] == "550 5.1.1 No such user"  # type: ignore[index]

    found = from_record(json.dumps(record).encode(), message.body, NOW + 5, parse_mailbox, lambda _: "")
    assert found[0] == message
    assert [(one.address, one.route, one.state, one.parameters) for one in found[1]] == [
        (address("b@y.example"), "relay:x", State.QUEUED, {"NOTIFY": "NEVER"}),
        (address('"c d"@z.example'), "relay:x", State.HELD, {"NOTIFY": "NEVER"}),
    ]
    assert {one.next_attempt for one in found[1]} == {NOW + 5}
    assert [one.accepted_as for one in found[1]] == ["Postmaster", "all@z.example"]


def test_record_of_a_spool_will_do() -> None:
    spool = {
        "version": 1, "queue_id": "x/../y", "received_at": "2026-11-22T14:45:19.123456Z", "reverse_path": "",
        "recipients": [{"address": "b@y.example", "rule": "r"}], "body": "8BITMIME", "smtputf8": True, "peer": None,
    }  # fmt: skip
    message, (one,) = read(spool)
    assert message.queue_id != "x/../y"
    assert (message.reverse_path.is_null, message.is_utf8, message.body_type.value) == (True, True, "8BITMIME")
    assert one.route == "relay:mx"


def test_what_its_sender_held_back_stays_so() -> None:
    recipients = [{"address": "b@y.example"}]
    message, (one,) = read({"recipients": recipients, "parameters": {"HOLDFOR": "3600"}})
    assert one.next_attempt == message.received_at + 3600 > NOW + 5


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ([], "not a mapping"),
        ({}, "no recipients"),
        ({"recipients": ["b@y.example"]}, "a recipient is a mapping"),
        ({"recipients": [{"address": ""}]}, "'' is not a mail address"),
        ({"recipients": [{"address": "b@y.example", "accepted_as": "a\r\nb"}]}, "is not a mail address"),
        ({"recipients": [{"address": "b@y.example"}], "reverse_path": 3}, "3 is not a mail address"),
        ({"recipients": [{"address": "b@y.example"}], "body": "9BIT"}, "'9BIT' is not a body type"),
        ({"recipients": [{"address": "b@y.example"}], "received_at": "now"}, "'now' is not a time"),
        ({"recipients": [{"address": "b@y.example"}], "parameters": {"BY": "soon"}}, "BY, HOLDFOR, .* is none"),
    ],
)
def test_mistakes(record: object, problem: str) -> None:
    with pytest.raises(RecordError, match=problem):
        read(record)


def test_what_is_no_json() -> None:
    def nobody(_: Address) -> str:
        raise AssertionError

    with pytest.raises(RecordError, match="not JSON"):
        from_record(b"{", BODY, NOW, parse_mailbox, nobody)
