"""The table of kinds: what the YAML may say of each, and the mistakes that are told at once."""

from __future__ import annotations

from typing import Any

import pytest
from delivering import run, shared
from pydantic import TypeAdapter, ValidationError

from smtpmaild.delivery.builtin import BUILTIN, DEFAULT_TYPE, AgentOptions, build

EXAMPLES: dict[str, dict[str, Any]] = {
    "smtp": {"host": "smtp.example"},
    "mx": {},
    "lmtp": {"path": "/run/lmtp"},
    "pipe": {"command": ["/bin/true"]},
    "webhook": {"url": "https://hooks.example/in"},
}


@pytest.mark.parametrize("kind", BUILTIN)
def test_kind_is_read_and_built(kind: str) -> None:
    options = TypeAdapter[AgentOptions](AgentOptions).validate_python({"type": kind, **EXAMPLES[kind]})
    assert isinstance(options, BUILTIN[kind].options)
    assert set(BUILTIN[kind].files) <= set(type(options).model_fields)
    assert all(field.description for field in type(options).model_fields.values())

    async def work() -> None:
        await build(options, shared()).close()

    run(work())


def test_relay_without_type_is_a_smarthost() -> None:
    assert BUILTIN[DEFAULT_TYPE].options(host="smtp.example").type == "smtp"


@pytest.mark.parametrize(
    ("kind", "options", "mistake"),
    [
        ("smtp", {}, "Field required"),
        ("smtp", {"host": "x", "username": "u"}, "username and password_file belong together"),
        ("smtp", {"host": "x", "username": "u", "password_file": "p"}, "with a username, tls is"),
        ("smtp", {"host": "x", "implicit_tls": True}, "implicit_tls is TLS"),
        ("smtp", {"host": "x", "port": 0}, "greater than or equal to 1"),
        ("smtp", {"host": "x", "source_ipv4": "::1"}, "'::1' is not an IPv4 address"),
        ("smtp", {"host": "x", "source_ipv6": "127.0.0.1"}, "'127.0.0.1' is not an IPv6 address"),
        ("smtp", {"host": "x", "ip": []}, "at least 1 item"),
        ("smtp", {"host": "x", "timeouts": {"quit": "soon"}}, "a duration is a number"),
        ("mx", {"host": "x"}, "Extra inputs are not permitted"),
        ("lmtp", {}, "give either the path of a Unix socket, or a host"),
        ("lmtp", {"path": "/x", "host": "x"}, "give either the path of a Unix socket, or a host"),
        ("lmtp", {"path": "/x", "tls": "required"}, "over a Unix socket there is neither TLS nor a username"),
        ("pipe", {"command": []}, "at least 1 item"),
        ("pipe", {"command": "/bin/true"}, "valid tuple"),
        ("webhook", {"url": "ftp://x"}, "is not the URL of a web server"),
    ],
)
def test_mistakes(kind: str, options: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ValidationError, match=mistake.replace("(", r"\(")):
        BUILTIN[kind].options(type=kind, **options)
