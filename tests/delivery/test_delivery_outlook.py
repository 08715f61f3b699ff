"""What lies ahead of mail that travels on, in words: by route and configuration, and what the DNS adds."""

from __future__ import annotations

import asyncio

import pytest
from nameserver import name_server

from smtpmaild.delivery.builtin import AgentOptions
from smtpmaild.delivery.lmtp import LmtpOptions
from smtpmaild.delivery.next_hop import NextHops
from smtpmaild.delivery.outlook import find_servers, in_words, next_hop
from smtpmaild.delivery.pipe import PipeOptions
from smtpmaild.delivery.smtp import MxOptions, SmtpOptions
from smtpmaild.delivery.webhook import WebhookOptions
from smtpmaild.queue.schedule import Schedule
from smtpmaild.resolver import make_resolver

RELAYS: dict[str, AgentOptions] = {
    "smart": SmtpOptions(host="smart.example", port=587, tls="required", username="u", password_file="/p"),
    "tls": SmtpOptions(host="2001:db8::1", port=465, implicit_tls=True, tls="verify"),
    "direct": MxOptions(type="mx", tls="verify"),
    "dovecot": LmtpOptions(type="lmtp", path="/run/lmtp.sock"),
    "cyrus": LmtpOptions(type="lmtp", host="store.example"),
    "program": PipeOptions(type="pipe", command=("/usr/bin/program", "-x")),
    "hook": WebhookOptions(type="webhook", url="https://hook.example/mail"),
}


@pytest.mark.parametrize(
    ("route", "to", "tls", "user"),
    [
        ("relay:smart", "smart.example:587", "TLS, whoever it is", "u"),
        ("relay:tls", "[2001:db8::1]:465", "TLS from the first byte", ""),
        ("relay:mx/direct", "the mail servers of far.example (MX)", "TLS with a valid certificate", ""),
        ("relay:mx", "the mail servers of far.example (MX)", "TLS where it is offered", ""),
        ("relay:192.0.2.1:2525", "192.0.2.1:2525", "TLS where it is offered", ""),
        ("relay:dovecot", "/run/lmtp.sock (LMTP)", "", ""),
        ("relay:cyrus", "store.example:24 (LMTP)", "in clear text", ""),
        ("relay:program", "the command /usr/bin/program", "", ""),
        ("relay:hook", "https://hook.example/mail", "", ""),
        ("relay:gone", "nowhere: the configuration has no such relay", "", ""),
    ],
)
def test_next_hop(route: str, to: str, tls: str, user: str) -> None:
    hop = next_hop(route, "far.example", RELAYS)
    assert (hop.route, hop.to, hop.tls, hop.user) == (route, to, tls, user)
    assert (hop.servers, hop.trouble) == ([], "")


def test_servers_are_what_deliveries_would_find() -> None:
    async def work() -> None:
        records = {"far.example MX": ["10 mx.far.example."], "mx.far.example A": ["192.0.2.5"]}
        async with name_server(records) as server:
            dns = NextHops(make_resolver([server.address], 2.0))

            async def found(route: str, domain: str) -> tuple[list[str], str]:
                hop = next_hop(route, domain, RELAYS)
                await find_servers(hop, domain, RELAYS, dns)
                return hop.servers, hop.trouble

            assert await found("relay:mx", "far.example") == (["mx.far.example [192.0.2.5]:25"], "")
            assert await found("relay:mx", "no.example") == ([], "550 5.1.2 The domain no.example does not exist")
            assert await found("relay:192.0.2.1:2525", "far.example") == (["[192.0.2.1]:2525"], "")
            assert await found("relay:hook", "far.example") == ([], "")

    asyncio.run(work())


BACK = "it goes back to its sender"


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        (Schedule(), f"at once, again after 5m, doubled up to 4h; after 5d {BACK}"),
        (
            Schedule(90.0, 90.0, 129600.0, 3600.0),
            f"at once, again after 1m30s; after 1d12h {BACK}; its sender is told after 1h that it is late",
        ),
        (Schedule(0.5, 0.5, 60.0), f"at once, again after 0s; after 1m {BACK}"),
    ],
)
def test_schedule_in_words(schedule: Schedule, words: str) -> None:
    assert in_words(schedule) == words
