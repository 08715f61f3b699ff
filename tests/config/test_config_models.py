from __future__ import annotations

import socket

import pytest
from pydantic import ValidationError

from smtpmaild.config.models import Config
from smtpmaild.config.rules import Deferral, Rejection
from smtpmaild.policy.builtin import BUILTIN, build_policies

LISTENERS = [{"name": "mx", "listen": ["127.0.0.1:2525"]}]


def built(**sections: object) -> Config:
    return Config.model_validate({"listeners": LISTENERS, **sections})


@pytest.mark.parametrize(
    ("own", "hostname"),
    [("MX.Example.com", "mx.example.com"), ("no host name", "localhost"), ("", "localhost")],
)
def test_hostname_of_the_machine(monkeypatch: pytest.MonkeyPatch, own: str, hostname: str) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: own)
    assert built().hostname == hostname


def test_nothing_can_be_changed() -> None:
    config = built()
    with pytest.raises(ValidationError):
        config.workers = 2  # type: ignore[misc]
    with pytest.raises(ValidationError):
        config.limits.recipients = 200  # type: ignore[misc]


@pytest.mark.parametrize("workers", [1, 1024, "auto"])
def test_workers(workers: int | str) -> None:
    assert built(workers=workers).workers == workers


@pytest.mark.parametrize("workers", [0, -1, 1025, True, "2", "many", 1.5])
def test_no_workers(workers: object) -> None:
    with pytest.raises(ValidationError, match="a number from 1 to 1024, or auto"):
        built(workers=workers)


def test_timeouts_are_those_of_the_rfc() -> None:
    timeouts = built().timeouts
    assert (timeouts.greeting, timeouts.command, timeouts.data_block) == (300, 300, 180)


def test_policies_are_those_of_the_table() -> None:
    config = built(policies={"mail_loop": {"mode": "monitor"}})
    options = config.policies.options()
    assert set(options) == set(BUILTIN)
    assert options["mail_loop"].mode.value == "monitor"
    modes = {policy.name: mode.value for policy, mode in build_policies(options)}
    assert modes["mail_loop"] == "monitor"


@pytest.mark.parametrize(
    ("written", "code", "enhanced", "text"),
    [
        (True, 550, "5.7.1", "Relaying denied"),
        ("go away", 550, "5.7.1", "go away"),
        ({"code": 554, "enhanced": "5.7.0"}, 554, "5.7.0", "Relaying denied"),
    ],
)
def test_rejection(written: object, code: int, enhanced: str, text: str) -> None:
    (rule,) = built(relay_rules=[{"name": "a", "reject": written}]).relay_rules
    assert rule.reject == Rejection(code=code, enhanced=enhanced, text=text)
    assert rule.defer is None


def test_deferral() -> None:
    (rule,) = built(relay_rules=[{"name": "a", "defer": {"text": "later"}}]).relay_rules
    assert rule.defer == Deferral(code=450, enhanced="4.7.1", text="later")


@pytest.mark.parametrize(
    ("key", "reply"),
    [
        ("reject", {"code": 450}),
        ("reject", {"code": 600}),
        ("defer", {"code": 421}),  # it would say that the connection is closed
        ("defer", {"enhanced": "5.7.1"}),
        ("reject", {"enhanced": "5.7"}),
        ("reject", {"text": ""}),
        ("reject", {"text": "a\r\nb"}),
        ("reject", {"text": "x" * 401}),
    ],
)
def test_reply_that_cannot_be_sent(key: str, reply: object) -> None:
    with pytest.raises(ValidationError):
        built(relay_rules=[{"name": "a", key: reply}])


def test_extensions_in_any_case() -> None:
    listener = {"name": "mx", "listen": ["127.0.0.1:2525"], "disable_extensions": ["chunking", "8bitMIME"]}
    assert built(listeners=[listener]).listeners[0].disable_extensions == ("CHUNKING", "8BITMIME")


@pytest.mark.parametrize(("text", "mode"), [("0660", 0o660), ("600", 0o600), ("0777", 0o777)])
def test_socket_mode(text: str, mode: int) -> None:
    listener = {"name": "mx", "listen": ["/a.sock"], "socket_mode": text}
    assert built(listeners=[listener]).listeners[0].socket_mode == mode
