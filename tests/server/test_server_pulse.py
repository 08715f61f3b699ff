"""What a worker says of itself, what of it is sent, and how the numbers of all workers are added up."""

from __future__ import annotations

import ipaddress
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest
from house import Facts, MemorySink, make_door, make_plan

from smtpmaild.server.differences import differences
from smtpmaild.server.listener import Listener
from smtpmaild.server.plan import Vitals
from smtpmaild.server.pulse import LARGEST, Heart, Pulse, pulse_sockets
from smtpmaild.server.sums import Ledger, Sums, added


def heart(sock: socket.socket, **vitals: Any) -> Heart:
    log, sink = Facts(), MemorySink()
    plan = make_plan(make_door(sink, log), sink, log, vitals=lambda: Vitals(**vitals))
    return Heart(sock, 7, 1234, plan, clock=lambda: 1000.0)


def listener(*ips: str | None) -> Listener:
    connections = [SimpleNamespace(ip=None if ip is None else ipaddress.ip_address(ip)) for ip in ips]
    return cast("Listener", SimpleNamespace(door=SimpleNamespace(name="mx"), connections=connections))


def test_a_pulse_is_what_the_other_end_reads() -> None:
    ours, theirs = pulse_sockets()
    with ours, theirs:
        beating = heart(ours, counters={"messages_accepted": 3}, memory=17, destinations={"mx:x": {"in_flight": 1}})
        beating.beat([listener("192.0.2.1", "192.0.2.77", "2001:db8::1", None)], 0.25)
        assert Pulse.from_bytes(theirs.recv(LARGEST)) == Pulse(
            worker=7,
            pid=1234,
            started_at=1000.0,
            at=1000.0,
            lag=0.25,
            sessions={"mx": 4},
            networks={"192.0.2.0/24": 2, "2001:db8::/56": 1},
            memory=17,
            destinations={"mx:x": {"in_flight": 1}},
            counters={"messages_accepted": 3},
        )


def test_nobody_waits_for_a_pulse() -> None:
    ours, theirs = pulse_sockets()
    with ours, theirs:
        for _ in range(5000):  # more than any buffer holds
            heart(ours).beat([])
        assert Pulse.from_bytes(theirs.recv(LARGEST)).worker == 7
    heart(ours).beat([])  # closed: no matter


def test_a_pulse_that_would_be_too_large_leaves_out_what_there_is_most_of() -> None:
    ours, theirs = pulse_sockets()
    with ours, theirs:
        many = {f"mx:{number}.example": {"in_flight": number} for number in range(5000)}
        heart(ours, counters={"a": 1}, destinations=many).beat([listener("192.0.2.1")])
        data = theirs.recv(1 << 20)
        assert len(data) < LARGEST
        pulse = Pulse.from_bytes(data)
        assert (pulse.destinations, pulse.networks, pulse.counters) == ({}, {"192.0.2.0/24": 1}, {"a": 1})


def test_networks_of_many_sessions_are_counted_now_and_then() -> None:
    ours, theirs = pulse_sockets()
    with ours, theirs:
        beating = heart(ours)
        few, many = [listener("192.0.2.1")], [listener(*["192.0.2.1"] * 1001)]
        assert beating.pulse(few, 0.0).networks == {"192.0.2.0/24": 1}
        for _ in range(9):
            assert beating.pulse(many, 0.0).networks == {"192.0.2.0/24": 1}
        assert beating.pulse(many, 0.0).networks == {"192.0.2.0/24": 1001}


@pytest.mark.parametrize(
    ("one", "other", "sum_"),
    [
        (1, 2, 3),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"x": 1}}, {"a": {"x": 2, "y": 3}}, {"a": {"x": 3, "y": 3}}),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, {"a": [2, 4, 3]}),
        ({"a": [[1], 5]}, {"a": [[1]]}, {"a": [[2], 5]}),
        ({}, {}, {}),
    ],
)
def test_added(one: Any, other: Any, sum_: Any) -> None:
    assert added(one, other) == added(other, one) == sum_


def test_numbers_never_go_down() -> None:
    """Workers end, the attendant is replaced, and what was counted stays."""
    ledger = Ledger()
    sums = Sums(ledger)
    assert sums.total == {}
    sums.note(1, {"a": 10})
    sums.note(2, {"a": 5})
    sums.save()
    sums.note(2, {"a": 6})
    assert sums.total == {"a": 15}  # what is not saved is not told: it could go down again
    assert Sums(ledger).total == {"a": 15}
    sums.save()
    assert sums.total == {"a": 16}
    after = Sums(ledger)
    after.keep_only({2, 3})
    assert after.total == {"a": 16}
    after.note(3, {"a": 1, "b": 1})
    after.note(2, {"a": 7})
    after.save()
    assert after.total == {"a": 18, "b": 1}
    last = Sums(ledger)
    last.keep_only(())
    last.save()
    assert last.total == Sums(ledger).total == {"a": 18, "b": 1}


def test_ledger_keeps_what_was_there_until_the_new_is_whole() -> None:
    ledger = Ledger(page_size=10)
    assert ledger.read() == b""
    assert ledger.write(b"first")
    assert not ledger.write(b"much too large")
    assert ledger.read() == b"first"
    assert ledger.write(b"2")
    assert ledger.read() == b"2"


def test_differences_in_words() -> None:
    before = {"listeners": {"mx": 1, "old": 1}, "limits": {"": 1}, "workers": {"": 2}, "gone": {"x": 1}}
    after = {"listeners": {"mx": 2, "new": 1}, "limits": {"": 2}, "workers": {"": 2}}
    assert differences(before, after) == [
        "listeners: mx changed, old removed, new added",
        "limits: changed",
        "gone: x removed",
    ]
    assert differences(before, before) == []
