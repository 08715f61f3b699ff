"""Names of routes, and the agents behind them."""

from __future__ import annotations

import asyncio

import pytest
from queueing import address
from receiving import RecordingLog

from smtpmaild.delivery.agents import ConfiguredAgents, parse_next_hop, route_to
from smtpmaild.delivery.builtin import AgentOptions
from smtpmaild.delivery.next_hop import NextHops
from smtpmaild.delivery.pipe import PipeAgent, PipeOptions
from smtpmaild.delivery.shared import Shared
from smtpmaild.delivery.smtp import MxAgent, MxOptions, SmtpAgent, SmtpOptions
from smtpmaild.queue import QueuedRecipient
from smtpmaild.resolver import make_resolver

RELAYS: dict[str, AgentOptions] = {
    "smart": SmtpOptions(host="smart.example"),
    "strict": MxOptions(type="mx", tls="required"),
    "script": PipeOptions(type="pipe", command=("true",)),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail.example", ("mail.example", 25)),
        ("Mail.example:587", ("mail.example", 587)),
        ("localhost:2525", ("localhost", 2525)),
        ("[2001:db8::1]:26", ("[2001:db8::1]", 26)),
        ("[192.0.2.1]", ("[192.0.2.1]", 25)),
        ("smart", None),
        ("mail.example:0", None),
        ("mail.example:70000", None),
        ("a b.example", None),
    ],
)
def test_next_hop(text: str, expected: tuple[str, int] | None) -> None:
    assert parse_next_hop(text) == expected


@pytest.mark.parametrize(
    ("target", "route", "destination", "kind"),
    [
        ("mx", "relay:mx", "mx:y.example", MxAgent),
        ("smart", "relay:smart", "relay:smart", SmtpAgent),
        ("strict", "relay:mx/strict", "mx/strict:y.example", MxAgent),
        ("script", "relay:script", "relay:script", PipeAgent),
        ("Mail.example", "relay:mail.example:25", "relay:mail.example:25", SmtpAgent),
        ("[2001:db8::1]:26", "relay:[2001:db8::1]:26", "relay:[2001:db8::1]:26", SmtpAgent),
        ("gone", "relay:gone", "relay:gone", None),
    ],
)
def test_route_and_its_agent(target: str, route: str, destination: str, kind: type | None) -> None:
    async def scene() -> None:
        log = RecordingLog()
        agents = ConfiguredAgents(
            RELAYS, lambda: Shared("mx.example", log, NextHops(make_resolver([("127.0.0.1", 53)], 1.0)))
        )
        assert route_to(target, RELAYS) == route
        assert QueuedRecipient(0, address("b@y.example"), route).destination == destination
        agent = agents.get(route)
        assert isinstance(agent, kind or type(None))
        assert agents.get(route) is agent
        await agents.close()

    asyncio.run(scene())


def test_mx_of_the_configuration_is_the_one_of_rules() -> None:
    relays: dict[str, AgentOptions] = {"mx": MxOptions(type="mx", port=2525)}
    assert route_to("mx", relays) == "relay:mx"
