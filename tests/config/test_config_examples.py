"""The files people start from: each loads without a mistake and without a doubt."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from authority import with_certificates

from smtpmaild.config import Config, load
from smtpmaild.config.listeners import ExtensionKeyword
from smtpmaild.config.models import Config as ConfigModel
from smtpmaild.config.schema import config_schema
from smtpmaild.delivery.builtin import BUILTIN
from smtpmaild.sink.options import MaildirOptions, SpoolOptions
from smtpmaild.smtp.extension import EXTENSIONS

ROOT = Path(__file__).resolve().parents[2]
OF_THIS_MACHINE = ("Permission denied", "No such file or directory", "`smtpmaild user add` makes it")
EXAMPLES = sorted((ROOT / "config" / "examples").glob("*.yaml"))


@pytest.fixture(autouse=True)
def container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_HOST", "mx.example.com")
    monkeypatch.setenv("MAIL_DOMAIN", "example.com")


def load_clean(path: Path) -> Config:
    config = load(path)
    # Whether this machine has /run/smtpmaild and lets us write to /var/spool says nothing about the example.
    doubts = [warning.message for warning in config.warnings if not warning.message.endswith(OF_THIS_MACHINE)]
    assert not doubts
    return config


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_loads(path: Path, tmp_path: Path) -> None:
    assert load_clean(with_certificates(path, tmp_path)).listeners


def test_there_are_examples() -> None:
    names = {path.stem for path in EXAMPLES}
    assert names >= {"mx", "intake", "backup-store", "systemd-socket", "container", "submission", "mx-and-submission"}


def test_default_runs_as_it_is() -> None:
    config = load_clean(ROOT / "config" / "smtp.yaml")
    (listener,) = config.listeners
    assert [str(address) for address in listener.listen] == ["127.0.0.1:2525"]
    assert config.local_domains["example.com"].mailboxes is None
    store = config.deliver_to[config.local_domains["example.com"].deliver]
    assert isinstance(store, MaildirOptions)
    assert store.path == f"{ROOT}/var/mail/{{domain}}/{{mailbox}}"


COMMENTED_KEYS = {
    "version", "hostname", "postmaster", "listeners", "accounts", "local_domains", "deliver_to", "relay_rules",
    "policies", "tls", "limits", "timeouts", "dns", "logging", "workers", "event_loop", "user", "group", "queue",
    "tests",
    "history",
    "control",
    "status",
}  # fmt: skip


def test_default_shows_every_section() -> None:
    text = (ROOT / "config" / "smtp.yaml").read_text()
    shown = {line.lstrip("# ").partition(":")[0] for line in text.splitlines()}
    assert shown >= COMMENTED_KEYS
    left_out = set(ConfigModel.model_fields) - COMMENTED_KEYS
    assert left_out == {"relays", "sendmail", "allow_root"}  # two have pages of their own, one is not to be recommended


def keys_of(*models: str) -> set[str]:
    schema = config_schema()
    objects = [schema["$defs"][name] for name in models] if models else [schema, *schema["$defs"].values()]
    return {key for node in objects for key in node.get("properties", {})}


#: Shown in docs/relaying.md.
OF_RELAYS = [*(kind.options.__name__ for kind in BUILTIN.values()), "TimeoutOptions"]


def test_page_shows_every_key_of_relays() -> None:
    text = (ROOT / "docs" / "relaying.md").read_text()
    assert {key for key in keys_of(*OF_RELAYS) if not re.search(rf"\b{key}\b", text)} == set()


def test_default_shows_every_key() -> None:
    text = (ROOT / "config" / "smtp.yaml").read_text()
    keys = keys_of(*set(config_schema()["$defs"]) - {*OF_RELAYS}) | keys_of() - keys_of(*OF_RELAYS) - {"allow_root"}
    assert {key for key in keys if not re.search(rf"\b{key}\b", text)} == set()


def test_commented_keys_are_valid(tmp_path: Path) -> None:
    """What stands behind a '#' in the default is a key with its default, ready to be uncommented."""
    lines = []
    for line in (ROOT / "config" / "smtp.yaml").read_text().splitlines():
        head, mark, rest = line.partition("# ")
        is_key = mark and not head.strip() and rest.lstrip().partition(":")[0].isidentifier() and ":" in rest
        lines.append(head + rest if is_key else line)
    (tmp_path / "config").mkdir()
    path = tmp_path / "config" / "smtp.yaml"
    text = "\n".join(lines).replace("user: smtpmaild", "user: root").replace("group: smtpmaild", "group: root")
    no_such_file = r"^  (certificates|client_ca|report_words_file):"
    text = re.sub(no_such_file, r"  # \1:", text, flags=re.MULTILINE)
    path.write_text(text.replace("sales: [alice, bob]", "sales: alice"))
    config = load(path)
    assert config.hostname == "mx.example.com"
    assert config.local_domains["example.com"].mailboxes == ("alice", "bob")
    plain = load(ROOT / "config" / "smtp.yaml")
    assert config.limits == plain.limits
    assert config.timeouts == plain.timeouts
    assert config.listeners == plain.listeners
    assert config.policies == plain.policies
    assert (config.workers, config.event_loop) == (plain.workers, plain.event_loop)


def test_intake_is_a_spool() -> None:
    config = load_clean(ROOT / "config" / "examples" / "intake.yaml")
    store = config.deliver_to["intake"]
    assert isinstance(store, SpoolOptions)
    assert store.file_mode == 0o640


def test_keywords_that_can_be_turned_off_are_those_there_are() -> None:
    others = {"STARTTLS", "AUTH"}  # they have keys of their own
    keywords = [extension.keyword for extension in EXTENSIONS if extension.keyword not in others]
    assert list(ExtensionKeyword.__args__) == keywords  # type: ignore[attr-defined]
