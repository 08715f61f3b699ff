"""Where mail goes: MX records in every state the DNS can be in, against a name server of the test."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Collection, Mapping, MutableSequence, Sequence
from dataclasses import replace
from typing import Any

import pytest
from delivering import BOUNCE, MESSAGE, Peer, Script, closing, recipients, run, serving, shared, shown
from nameserver import BROKEN, SILENT, name_server

from smtpmaild.delivery import next_hop
from smtpmaild.delivery.builtin import build
from smtpmaild.delivery.endpoint import Endpoint
from smtpmaild.delivery.next_hop import IpVersion, NextHops, NowhereError
from smtpmaild.delivery.smtp import MxOptions, SmtpOptions
from smtpmaild.queue import QueuedMessage
from smtpmaild.resolver import make_resolver

Records = Mapping[str, list[str] | str]
BOTH: tuple[IpVersion, ...] = ("ipv6", "ipv4")


class InOrder(random.Random):
    """Not at all by chance."""

    def shuffle(self, x: MutableSequence[Any]) -> None:
        x[:] = sorted(x, key=str)


def find(
    records: Records,
    domain: str = "x.example",
    *,
    versions: Sequence[IpVersion] = BOTH,
    ours: Collection[str] = (),
    shuffle: random.Random | None = None,
) -> list[str] | str:
    """The endpoints, or the reply that there are none."""
    found: list[list[str] | str] = []

    async def work() -> None:
        async with name_server(records) as server:
            hops = NextHops(make_resolver([server.address], 0.3), ours, shuffle or InOrder())
            try:
                found.append([f"{end.name} {end.host}" for end in await hops.of_domain(domain, 25, versions)])
            except NowhereError as error:
                found.append(str(error.reply))

    run(work())
    return found[0]


A = {"a.example A": ["192.0.2.1"], "b.example A": ["192.0.2.2"], "c.example A": ["192.0.2.3"]}
BY_MX: Mapping[str, tuple[Records, list[str] | str]] = {
    "by preference": (
        {"x.example MX": ["20 b.example.", "10 a.example.", "30 c.example."], **A},
        ["a.example 192.0.2.1", "b.example 192.0.2.2", "c.example 192.0.2.3"],
    ),
    "a host that is unknown is left out": (
        {"x.example MX": ["10 gone.example.", "20 b.example."], **A},
        ["b.example 192.0.2.2"],
    ),
    "a host that fails is left out": (
        {"x.example MX": ["10 a.example.", "20 b.example."], **A, "a.example A": BROKEN},
        ["b.example 192.0.2.2"],
    ),
    "both kinds of address": (
        {"x.example MX": ["10 a.example."], **A, "a.example AAAA": ["2001:db8::1"]},
        ["a.example 2001:db8::1", "a.example 192.0.2.1"],
    ),
    "one kind of address fails": (
        {"x.example MX": ["10 a.example."], **A, "a.example AAAA": BROKEN},
        ["a.example 192.0.2.1"],
    ),
    "no MX": ({"x.example A": ["192.0.2.9"]}, ["x.example 192.0.2.9"]),
    "no MX, IPv6 only": ({"x.example AAAA": ["2001:db8::9"]}, ["x.example 2001:db8::9"]),
    "neither MX nor address": ({"x.example TXT": ['"x"']}, "550 5.4.4 No mail server of x.example has an address"),
    "MX without addresses": (
        {"x.example MX": ["10 gone.example."]},
        "550 5.4.4 No mail server of x.example has an address",
    ),
    "null MX": ({"x.example MX": ["0 ."]}, "556 5.1.10 The domain x.example takes no mail (null MX)"),
    "null MX and another": ({"x.example MX": ["0 .", "10 a.example."], **A}, ["a.example 192.0.2.1"]),
    "no such domain": ({}, "550 5.1.2 The domain x.example does not exist"),
    "MX fails": ({"x.example MX": BROKEN}, "451 4.4.3 Cannot look up x.example: *"),
    "MX is silent": ({"x.example MX": SILENT}, "451 4.4.3 Cannot look up x.example: *"),
    "all addresses fail": (
        {"x.example MX": ["10 a.example."], "a.example A": BROKEN},
        "451 4.4.3 Cannot look up x.example: *",
    ),
    "address of the domain fails": (
        {"x.example TXT": ['"x"'], "x.example A": BROKEN, "x.example AAAA": BROKEN},
        "451 4.4.3 Cannot look up x.example: *",
    ),
    "only so many hosts are looked up": (
        {
            "x.example MX": [f"{number} h{number}.example." for number in range(9)],
            **{f"h{number}.example A": [f"192.0.2.{number}"] for number in range(9)},
        },
        [f"h{number}.example 192.0.2.{number}" for number in range(5)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_MX)
def test_by_mx(case: str) -> None:
    records, expected = BY_MX[case]
    found = find(records)
    if isinstance(expected, str) and expected.endswith("*"):
        assert isinstance(found, str) and found.startswith(expected[:-1]), found
    else:
        assert found == expected


MX: Records = {"x.example MX": ["10 a.example.", "20 b.example.", "20 c.example."], **A}


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (["b.example"], ["a.example 192.0.2.1"]),
        (["c.example"], ["a.example 192.0.2.1"]),
        (["a.example"], "554 5.4.6 Mail for x.example would come back to this host"),
        (["192.0.2.2"], ["a.example 192.0.2.1"]),
        (["192.0.2.1"], "554 5.4.6 Mail for x.example would come back to this host"),
        (["elsewhere.example"], ["a.example 192.0.2.1", "b.example 192.0.2.2", "c.example 192.0.2.3"]),
    ],
)
def test_mail_does_not_come_back(ours: list[str], expected: list[str] | str) -> None:
    assert find(MX, ours=ours) == expected


@pytest.mark.parametrize(("versions", "hosts"), [
    (("ipv6", "ipv4"), ["2001:db8::1", "192.0.2.1"]),
    (("ipv4", "ipv6"), ["192.0.2.1", "2001:db8::1"]),
    (("ipv4",), ["192.0.2.1"]),
])  # fmt: skip
def test_versions(versions: Sequence[IpVersion], hosts: list[str]) -> None:
    records: Records = {"x.example A": ["192.0.2.1"], "x.example AAAA": ["2001:db8::1"]}
    assert find(records, versions=versions) == [f"x.example {host}" for host in hosts]


def test_equal_preferences_share_the_load() -> None:
    firsts = {tuple(find(MX, shuffle=random.Random(seed)))[1] for seed in range(10)}
    assert firsts == {"b.example 192.0.2.2", "c.example 192.0.2.3"}


@pytest.mark.parametrize(("literal", "host"), [("[192.0.2.1]", "192.0.2.1"), ("[IPv6:2001:db8::1]", "2001:db8::1")])
def test_address_literal(literal: str, host: str) -> None:
    assert find({}, literal) == [f"{host} {host}"]


@pytest.mark.parametrize("domain", ["x" * 64 + ".example", ".".join(["x" * 60] * 5), "", "a..b"])
def test_what_is_no_domain_does_not_exist(domain: str) -> None:
    assert find({}, domain) == f"550 5.1.2 The domain {domain} does not exist"


def test_answers_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_hop, "_MOST_KNOWN", 2)
    monkeypatch.setattr(next_hop, "_SHORTEST", 0.0)
    monkeypatch.setattr(next_hop, "_KEEP_NONE", 0.2)

    async def work() -> None:
        async with name_server({"x.example A": ["192.0.2.1"]}, ttl=600) as server:
            hops = NextHops(make_resolver([server.address], 0.3))
            for _ in range(2):
                await hops.of_domain("x.example", 25, ("ipv4",))
            assert server.asked == ["x.example MX", "x.example A"]
            # What is not there is asked for again before what is.
            await asyncio.sleep(0.3)
            await hops.of_domain("x.example", 25, ("ipv4",))
            assert server.asked[2:] == ["x.example MX"]
            with pytest.raises(NowhereError):
                await hops.of_domain("y.example", 25, ("ipv4",))
            assert len(hops._known) == 2

    run(work())


# A host of the config


def host(name: str, versions: Sequence[IpVersion] = BOTH) -> list[Endpoint] | str:
    found: list[list[Endpoint] | str] = []

    async def work() -> None:
        hops = NextHops(make_resolver([("127.0.0.1", 1)], 0.3))
        try:
            found.append(await hops.of_host(name, 587, versions))
            assert await hops.of_host(name, 587, versions) == found[0]
        except NowhereError as error:
            found.append(str(error.reply))

    run(work())
    return found[0]


def test_host_by_address() -> None:
    assert host("192.0.2.1") == [Endpoint("192.0.2.1", "192.0.2.1", 587)]
    assert host("2001:db8:0::1") == [Endpoint("2001:db8:0::1", "2001:db8::1", 587)]


def test_host_by_name() -> None:
    assert Endpoint("localhost", "127.0.0.1", 587) in host("localhost")


def test_host_has_to_have_an_address_of_the_right_kind() -> None:
    assert host("192.0.2.1", ("ipv6",)) == "451 4.4.3 The host 192.0.2.1 has no address of the kind that may be used"


@pytest.mark.parametrize("name", ["nowhere.invalid", "x" * 70 + ".example", "a..b"])
def test_host_that_is_not_found_is_the_operators_mistake(name: str) -> None:
    found = host(name)
    assert isinstance(found, str) and found.startswith(f"451 4.4.3 Cannot look up {name}: ")


def test_endpoint_is_shown_as_people_write_it() -> None:
    assert str(Endpoint("mx.example", "192.0.2.1", 25)) == "mx.example [192.0.2.1]:25"
    assert str(Endpoint("192.0.2.1", "192.0.2.1", 25)) == "[192.0.2.1]:25"
    assert str(Endpoint("/run/lmtp", "/run/lmtp")) == "/run/lmtp"


# The agent


def port_on(*hosts: str) -> int:
    """A port that is free on all of them."""
    while True:
        with socket.create_server((hosts[0], 0)) as one:
            port: int = one.getsockname()[1]
            try:
                others = [socket.create_server((other, port)) for other in hosts[1:]]
            except OSError:
                continue
            for other in others:
                other.close()
            return port


TWO: Records = {
    "x.example MX": ["10 a.example.", "20 b.example."],
    "y.example MX": ["10 a.example."],
    "a.example A": ["127.0.0.2"],
    "b.example A": ["127.0.0.3"],
}


async def by_mx(records: Records, port: int, *addresses: str, message: QueuedMessage = MESSAGE) -> list[str]:
    async with name_server(records) as server:
        hops = NextHops(make_resolver([server.address], 5.0))
        options = MxOptions(type="mx", port=port, ip=("ipv4",))
        async with closing(build(options, shared(next_hops=hops))) as agent:
            outcomes = await agent.deliver(message, recipients(*addresses))
            return [f"{outcome.reply} {outcome.remote}".strip() for outcome in outcomes]


def test_the_next_server_takes_what_the_first_does_not() -> None:
    async def work() -> None:
        port = port_on("127.0.0.2", "127.0.0.3")
        first = Script(replies={"RCPT TO:<later": "450 4.2.0 greylisted", "RCPT TO:<never": "550 5.1.1 no"})
        async with serving(first, "127.0.0.2", port) as a, serving(Script(), "127.0.0.3", port) as b:
            found = await by_mx(TWO, port, "now@x.example", "later@x.example", "never@x.example")
        assert found == [
            f"250 2.0.0 taken a.example [127.0.0.2]:{port}",
            f"250 2.0.0 taken b.example [127.0.0.3]:{port}",
            f"550 5.1.1 no a.example [127.0.0.2]:{port}",
        ]
        assert [len(a.taken[0].commands), len(b.taken[0].commands)] == [2, 2]

    run(work())


def test_report_about_what_requires_tls_goes_by_mx() -> None:
    """RFC 8689 §5; what proves nothing (§2) is not told that it must."""

    async def work() -> None:
        port = port_on("127.0.0.2")
        message = replace(BOUNCE, parameters={"REQUIRETLS": ""})
        async with serving(Script(("REQUIRETLS",)), "127.0.0.2", port) as peer:
            (found,) = await by_mx(TWO, port, "u@y.example", message=message)
        assert found.startswith("250 2.0.0 taken")
        assert peer.taken[0].commands[0] == "MAIL FROM:<>"

    run(work())


def test_the_next_server_stands_in_for_one_that_is_down() -> None:
    async def work() -> None:
        port = port_on("127.0.0.2", "127.0.0.3")
        async with serving(Script(), "127.0.0.3", port):
            assert await by_mx(TWO, port, "u@x.example") == [f"250 2.0.0 taken b.example [127.0.0.3]:{port}"]

    run(work())


@pytest.mark.parametrize("is_first_down", [True, False])
def test_server_that_is_down_may_be_back_tomorrow(is_first_down: bool) -> None:
    async def work() -> None:
        port = port_on("127.0.0.2", "127.0.0.3")
        refusing = Script(replies={"greeting": "554 5.7.1 not you"})
        async with serving(refusing, "127.0.0.3" if is_first_down else "127.0.0.2", port):
            (found,) = await by_mx(TWO, port, "u@x.example")
            # 554 to a connection is final only where nobody else could take the mail.
            assert found.startswith("451 4.4.1" if is_first_down else "554 5.7.1")

    run(work())


def test_each_domain_has_its_servers() -> None:
    async def work() -> None:
        port = port_on("127.0.0.2", "127.0.0.3")
        async with serving(Script(), "127.0.0.2", port) as a:
            found = await by_mx(TWO, port, "u@x.example", "u@nowhere.example", "v@y.example", "v@x.example")
        assert [reply[:9] for reply in found] == ["250 2.0.0", "550 5.1.2", "250 2.0.0", "250 2.0.0"]
        assert sorted(len(taken.commands) for taken in a.taken) == [2, 3]

    run(work())


def test_not_more_than_two_servers_are_asked() -> None:
    async def work() -> None:
        hosts = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
        port = port_on(*hosts)
        records: Records = {"x.example A": hosts}
        busy = Script(replies={"MAIL": "451 4.3.0 later"})
        peers: list[Peer] = []
        async with (
            serving(busy, hosts[0], port) as one,
            serving(busy, hosts[1], port) as two,
            serving(busy, hosts[2], port) as three,
        ):
            peers = [one, two, three]
            assert (await by_mx(records, port, "u@x.example"))[0].startswith("451 4.3.0 later")
        assert sum(len(peer.sessions) for peer in peers) == 2

    run(work())


def test_smarthost_is_never_asked_for_by_mx() -> None:
    async def work() -> None:
        async with name_server({}) as server, serving(Script()) as peer:
            hops = NextHops(make_resolver([server.address], 5.0))
            options = SmtpOptions(host="127.0.0.1", port=peer.port)
            async with closing(build(options, shared(next_hops=hops))) as agent:
                assert shown(await agent.deliver(MESSAGE, recipients("a@nowhere.example"))) == ["250 2.0.0 taken"]
            assert server.asked == []

    run(work())
