"""What a role brings to a listener, and that the manual says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from smtpmaild.config import Config, load_text
from smtpmaild.config.listeners import Listener
from smtpmaild.config.roles import ROLES, ROLES_WITH_CERTIFICATES, Role, leaves, overridden, with_role, with_roles
from smtpmaild.config.yaml_nodes import Value
from smtpmaild.policy import Mode

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "roles.md"
LISTENER: dict[str, Any] = {"name": "x", "listen": ["127.0.0.1:2525"]}


def listener(**keys: object) -> Listener:
    return Listener.model_validate({**LISTENER, **keys})


def table() -> str:
    """The table of docs/roles.md."""
    rows = {role: {".".join(key): shown(value) for key, value in leaves(brought)} for role, brought in ROLES.items()}
    for role, brought in ROLES_WITH_CERTIFICATES.items():
        rows[role] |= {".".join(key): f"{shown(value)} where there are certificates" for key, value in leaves(brought)}
    keys = sorted({key for row in rows.values() for key in row})
    lines = [f"| key | {' | '.join(f'`{role}`' for role in rows)} |", "|---" * (len(rows) + 1) + "|"]
    lines += [f"| `{key}` | {' | '.join(row.get(key, '') for row in rows.values())} |" for key in keys]
    return "\n".join(lines)


def shown(value: Value) -> str:
    return f"`{str(value).lower()}`"


def test_the_manual_has_the_table() -> None:
    assert table() in MANUAL.read_text(), f"put this into docs/roles.md:\n\n{table()}\n"


def test_there_is_a_row_for_each_role() -> None:
    assert list(ROLES) == list(get_args(Role))
    assert listener().role == "mx"


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_brings_is_valid(role: str) -> None:
    made = listener(role=role)
    for key, value in leaves(ROLES[role]):
        found: Any = made.model_dump(mode="json", exclude={"listen"})
        for step in key:
            found = found[step]
        assert found == value


@pytest.mark.parametrize("role", ROLES)
def test_what_the_listener_says_wins(role: str) -> None:
    own = {"add_missing_headers": False, "long_lines": "refuse", "policies": {"helo_syntax": {"mode": "monitor"}}}
    made = listener(role=role, **own)
    assert not made.add_missing_headers
    assert made.long_lines == "refuse"
    assert made.policies.options()["helo_syntax"].mode is Mode.MONITOR
    # Beside it stays what the role brings.
    expected = Mode.ENFORCE if role == "mx" else Mode.OFF
    assert made.policies.options()["early_talker"].mode is expected


@pytest.mark.parametrize("given", [None, "text", {"role": 5}, {"role": "none"}, {"role": ["mx"]}])
def test_what_is_no_listener_is_left_to_the_models(given: object) -> None:
    assert with_role(given) is given


def test_a_role_does_not_hide_what_is_wrong() -> None:
    assert with_role({"role": "submission", "policies": 5}) == {
        **ROLES["submission"],
        "role": "submission",
        "policies": 5,
    }


@pytest.mark.parametrize(
    ("tls", "own", "mode"),
    [
        ({"self_signed": True}, {}, "optional"),
        ({"certificates": [{"certificate": "mx.pem"}]}, {}, "optional"),
        ({"self_signed": True}, {"tls": "implicit"}, "implicit"),
        ({"self_signed": True}, {"role": "mx"}, "none"),
        ({"certificates": []}, {}, "none"),
        ({"self_signed": False}, {}, "none"),
        ({}, {}, "none"),
    ],
)
def test_internal_offers_tls_where_there_are_certificates(tls: Any, own: Any, mode: str) -> None:
    config = Config.model_validate({"listeners": [{**LISTENER, "role": "internal", **own}], "tls": tls})
    assert config.listeners[0].tls == mode


@pytest.mark.parametrize("given", [None, {}, {"listeners": 5}, {"listeners": []}, {"listeners": [5], "tls": 5}])
def test_what_is_no_file_is_left_to_the_models(given: object) -> None:
    assert with_roles(given) is given


SEVERAL = """\
listeners:
  - {name: mx, listen: ["127.0.0.1:25"]}
  - name: door
    listen: ["127.0.0.1:26"]
    role: internal
    policies: {mail_loop: {max_received: 7}}
    limits: {recipients: 200}
    timeouts: {command: 10s}
local_domains: {a.example: {deliver: mail}}
deliver_to: {mail: {type: discard}}
policies: {mail_loop: {mode: monitor, max_received: 50}, helo_syntax: {mode: monitor}}
limits: {recipients: 300, message_size: 1 MB}
timeouts: {command: 1m, session: 2h}
"""


def several() -> Config:
    return load_text(SEVERAL, "smtp.yaml", {})


def test_the_section_for_all_gives_what_is_left_out() -> None:
    config = several()
    assert config.at(config.listeners[0]) == config
    here = config.at(config.listeners[1])
    assert (here.limits.recipients, here.limits.message_size, here.limits.memory) == (200, 1_000_000, 256_000_000)
    assert (here.timeouts.command, here.timeouts.session) == (10.0, 7200.0)
    options = here.policies.options()
    assert options["mail_loop"].model_dump() == {"mode": Mode.MONITOR, "max_received": 7}
    assert options["helo_syntax"].mode is Mode.OFF  # a role comes before the section for all
    assert here.where("listeners", 1) == "smtp.yaml:3"


def test_nothing_said_changes_nothing() -> None:
    config = several()
    assert overridden(config.limits, config.listeners[0].limits) == config.limits


def test_what_is_brought_is_told_without_what_the_listener_says() -> None:
    config = several()
    assert config.brought(config.listeners[0]) == {}
    assert config.brought(config.listeners[1]) == {
        "add_missing_headers": True,
        "bare_lf_commands": True,
        "long_lines": "accept",
        "policies.early_talker.mode": "off",
        "policies.helo_syntax.mode": "off",
    }
    own = "long_lines: refuse\n    policies: {helo_syntax: {mode: monitor}, mail_loop:"
    text = "tls: {self_signed: true}\n" + SEVERAL.replace("policies: {mail_loop:", own, 1)
    config = load_text(text, "smtp.yaml", {})
    assert config.brought(config.listeners[1]) == {
        "add_missing_headers": True,
        "bare_lf_commands": True,
        "policies.early_talker.mode": "off",
        "tls": "optional",
    }


def test_a_config_of_a_program_tells_all_that_is_brought() -> None:
    config = Config.model_validate({"listeners": [{**LISTENER, "role": "lmtp", "policies": {}}]})
    assert config.brought(config.listeners[0])["protocol"] == "lmtp"
