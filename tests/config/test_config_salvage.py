"""What stands in for the broken parts of a file; what is said of the rest is in both-kinds*.yaml."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path

import pytest
from authority import with_certificates

from smtpmaild.config import ConfigError, load_text
from smtpmaild.config.models import Config
from smtpmaild.config.salvage import NOTHING_BROKEN, mend
from smtpmaild.config.schema import config_schema
from smtpmaild.config.yaml_nodes import Loc, Value

WHOLE: dict[str, Value] = {
    "listeners": [{"name": "mx", "listen": ["127.0.0.1:25"]}],
    "local_domains": {"a.example": {"deliver": "mail"}},
    "deliver_to": {"mail": {"type": "discard"}},
    "relay_rules": [{"name": "one", "listeners": ["mx"], "deliver": "mail"}],
    "relays": {"hub": {"host": "hub.example"}},
    "limits": {"recipients": 200},
}


def copied() -> dict[str, Value]:
    return deepcopy(WHOLE)


@pytest.mark.parametrize(
    "loc",
    [
        ("listeners",),
        ("listeners", 0),
        ("listeners", 0, "name"),
        ("listeners", 0, "listen", 0),
        ("local_domains",),
        ("local_domains", "a.example"),
        ("local_domains", "a.example", "[key]"),
        ("local_domains", "a.example", "mailboxes", 3),
        ("deliver_to", "mail", "maildir", "path"),
        ("relay_rules", 0),
        ("relay_rules", 0, "deliver"),
        ("relays", "hub", "port"),
        ("limits", "recipients"),
        ("workers",),
        ("lisseners",),
    ],
)
def test_what_is_mended_is_valid(loc: Loc) -> None:
    value = copied()
    broken = mend(value, [loc])
    Config.model_validate(value)
    assert broken.covers(loc)


def test_nothing_mends_what_is_wrong_with_the_whole() -> None:
    value = copied()
    assert mend(value, [()]) == NOTHING_BROKEN
    assert value == WHOLE


def test_keys_that_are_right_stay() -> None:
    value = copied()
    broken = mend(value, [("relay_rules", 0, "reject")])
    assert value["relay_rules"] == [
        {"name": "?", "to_domains": ["broken.invalid"], "listeners": ["mx"], "deliver": "mail"}
    ]
    assert broken.covers(("relay_rules", 0, "name"))
    assert not broken.covers(("relay_rules", 0, "listeners", 0))
    assert not broken.covers(("relay_rules", 1, "name"))


def test_a_section_stays_broken_when_its_entries_are_too() -> None:
    value = copied()
    broken = mend(value, [("listeners", 0, "name"), ("listeners",)])
    assert broken.covers(("listeners", 0, "listen", 0))
    assert not broken.spares("listeners")


def test_warnings_wait_for_the_whole() -> None:
    text = "listeners: [{name: mx, listen: ['127.0.0.1:25']}]\ndeliver_to: {mail: {type: discard}}\n"
    assert len(load_text(text, "smtp.yaml", {}).warnings) == 2
    with pytest.raises(ConfigError) as caught:
        load_text(text + "limits: {recipients: many}\n", "smtp.yaml", {})
    assert all(mistake.is_error for mistake in caught.value.mistakes)


def test_what_cannot_be_mended_is_told_all_the_same() -> None:
    """Two decisions of one rule are no key's mistake: the rule as a whole is replaced."""
    with pytest.raises(ConfigError) as caught:
        load_text("listeners: []\nrelay_rules: [{name: a, reject: true, defer: true}, {nam: b}]\n", "smtp.yaml", {})
    assert [mistake.message for mistake in caught.value.mistakes] == [
        "the list must not be empty",
        "rule 'a' has reject and defer: a rule decides one thing",
        "missing key 'name' in relay_rules.2",
        "unknown key 'nam' in relay_rules.2; did you mean 'name'?",
    ]


EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "config").rglob("*.yaml"))
KEYS = {key for part in config_schema()["$defs"].values() for key in part.get("properties", ())}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_a_misspelled_key_is_the_only_mistake(path: Path, tmp_path: Path) -> None:
    """Nothing else is said of an example that is right but for one key, wherever that is."""
    text = with_certificates(path, tmp_path).read_text()
    environment = {"MAIL_HOST": "mx.example.com", "MAIL_DOMAIN": "example.com"}
    lines = text.splitlines()
    for number, line in enumerate(lines):
        for found in re.finditer(r"\b([a-z_]+):(?=\s|$)", line.partition("#")[0]):
            if found[1] not in KEYS:
                continue
            misspelled = f"{line[: found.end(1)]}zz{line[found.end(1) :]}"
            broken = "\n".join([*lines[:number], misspelled, *lines[number + 1 :]])
            with pytest.raises(ConfigError) as caught:
                load_text(broken, str(path), environment)
            told = [one.message for one in caught.value.mistakes]
            assert all(one.startswith(("unknown key", "missing key")) for one in told), (misspelled, told)
