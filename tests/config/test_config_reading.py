from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpmaild.config import Config, ConfigError, load, load_text
from smtpmaild.config.sockets import TcpAddress, UnixAddress
from smtpmaild.delivery.smtp import SmtpOptions
from smtpmaild.sink.options import MaildirOptions

SMALL = """\
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"]}
local_domains:
  Bücher.example:
    deliver: mail
    mailboxes: [Alice]
    aliases: {Info: alice}
deliver_to:
  mail: {type: discard}
relay_rules:
  - name: printers
    to_domains: [other.example]
    deliver: mail
"""


def load_small(more: str = "", path: str = "/etc/smtpmaild/smtp.yaml", **environment: str) -> Config:
    return load_text(SMALL + more, path, environment)


def messages(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "smtp.yaml", {})
    return [mistake.message for mistake in caught.value.mistakes]


def test_values_are_normal() -> None:
    config = load_small()
    (domain,) = config.local_domains.items()
    assert domain[0] == "xn--bcher-kva.example"
    assert domain[1].mailboxes == ("alice",)
    assert domain[1].aliases == {"info": ("alice",)}
    assert config.listeners[0].listen == (TcpAddress("127.0.0.1", 2525),)


def test_where_knows_names_in_both_spellings() -> None:
    config = load_small()
    assert config.where("relay_rules", 0) == "smtp.yaml:11"
    assert config.where("local_domains", "xn--bcher-kva.example") == "smtp.yaml:4"
    assert config.where("local_domains", "Bücher.example") == "smtp.yaml:4"
    assert config.where("local_domains", "xn--bcher-kva.example", "aliases", "info") == "smtp.yaml:7"
    assert config.where("local_domains", "xn--bcher-kva.example", "aliases", "Info") == "smtp.yaml:7"


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "smtp.yaml").write_text(
        "listeners: [{name: a, listen: [../run/a.sock]}]\n"
        "local_domains: {a.example: {deliver: mail}}\n"
        'deliver_to: {mail: {type: maildir, path: "../var/{domain}/{mailbox}"}}\n'
    )
    monkeypatch.chdir(tmp_path)
    for path in (folder / "smtp.yaml", "etc/smtp.yaml"):
        config = load(path)
        store = config.deliver_to["mail"]
        assert config.listeners[0].listen == (UnixAddress(f"{tmp_path}/run/a.sock"),)
        assert isinstance(store, MaildirOptions)
        assert store.path == f"{tmp_path}/var/{{domain}}/{{mailbox}}"


@pytest.mark.parametrize(
    ("path", "absolute"),
    [
        ("{domain}", "/etc/smtpmaild/{domain}"),
        ("mail-{domain}", "/etc/smtpmaild/mail-{domain}"),
        ("../mail/{domain}/{mailbox}", "/etc/mail/{domain}/{mailbox}"),
        ("/var/mail", "/var/mail"),
        ("mail", "/etc/smtpmaild/mail"),
    ],
)
def test_path_of_a_store(path: str, absolute: str) -> None:
    config = load_text(SMALL.replace("{type: discard}", f'{{type: maildir, path: "{path}"}}'), "/etc/smtpmaild/x", {})
    store = config.deliver_to["mail"]
    assert isinstance(store, MaildirOptions)
    assert store.path == absolute


def test_environment_is_expanded() -> None:
    assert load_small('hostname: "${HOST}"\n', HOST="mx.example.com").hostname == "mx.example.com"


RELAY = "relays: {smarthost: {host: smtp.example, tls: verify, username: u, password_file: relay}}\n"


def test_secret_of_systemd(tmp_path: Path) -> None:
    (tmp_path / "relay").write_text("secret\n")
    (tmp_path / "relay").chmod(0o400)
    config = load_small(RELAY, CREDENTIALS_DIRECTORY=str(tmp_path))
    relay = config.relays["smarthost"]
    assert isinstance(relay, SmtpOptions)
    assert relay.password_file == str(tmp_path / "relay")


def test_secret_that_everybody_can_read(tmp_path: Path) -> None:
    (tmp_path / "relay").write_text("secret\n")
    with pytest.raises(ConfigError) as caught:
        load_small(RELAY, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert f"every user can read '{tmp_path}/relay'" in caught.value.render()


def test_warnings_do_not_stop() -> None:
    config = load_small("user: nobody-of-that-name\n")
    assert [warning.message for warning in config.warnings] == ["this machine has no user 'nobody-of-that-name'"]


def test_warnings_are_shown_beside_mistakes() -> None:
    text = SMALL.replace("deliver: mail\n    mail", "deliver: mial\n    mail") + "user: nobody-of-that-name\n"
    assert messages(text) == [
        "there is no 'mial' in deliver_to; did you mean 'mail'?",
        "this machine has no user 'nobody-of-that-name'",
    ]


def test_mistakes_of_yaml_and_models_together() -> None:
    assert messages("workers: 0\nworkers: 1\nhostname: ${NO}\n") == [
        "missing key 'listeners'",
        "workers is a number from 1 to 1024, or auto for one each processor",
        "'workers' is given twice, the first time in line 1",
        "the environment has no variable 'NO'",  # and not that the empty text is no host name
    ]


def test_only_yaml_mistakes() -> None:
    assert messages(SMALL + "workers: 1\nworkers: 2\n") == ["'workers' is given twice, the first time in line 14"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.yaml", "No such file or directory"), (".", "Is a directory")],
)
def test_unreadable_file(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / name)
    assert caught.value.render() == f"{tmp_path / name}: cannot read the file: {words}"


def test_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "smtp.yaml").write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load(tmp_path / "smtp.yaml").where("listeners") == "smtp.yaml:1"


def test_line_ends_of_windows(tmp_path: Path) -> None:
    (tmp_path / "smtp.yaml").write_bytes(SMALL.replace("\n", "\r\n").encode())
    assert load(tmp_path / "smtp.yaml").where("relay_rules", 0) == "smtp.yaml:11"


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [(b"\xff", 1, 1), (b"a: b\r\nc: \xc3\xa9\xff", 2, 5), (b"a: b\rc\xff", 2, 2)],
)
def test_not_utf_8(tmp_path: Path, data: bytes, line: int, column: int) -> None:
    (tmp_path / "smtp.yaml").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "smtp.yaml")
    (mistake,) = caught.value.mistakes
    assert (mistake.line, mistake.column, mistake.message) == (line, column, "byte 0xff is not UTF-8")


# Keys and values of a config, put together in every wrong way.
WORDS = st.sampled_from(
    ["listeners", "name", "listen", "local_domains", "example.com", "deliver", "aliases", "deliver_to", "type", "path"]
    + ["maildir", "relay_rules", "reject", "relay", "limits", "message_size", "50 MB", "to_domains", "version", "user"]
    + ["*.example.com", "alice", "alice@example.com", "[::]:25", "policies", "mail_loop", "mode", "é", "\t", "${X}"]
)
VALUES: st.SearchStrategy[object] = st.recursive(
    st.one_of(WORDS, st.booleans(), st.none(), st.integers(-9, 10**20), st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=20,
)


@given(st.dictionaries(WORDS, VALUES, max_size=5))
@settings(max_examples=150, deadline=None)
def test_whatever_the_models_are_given(value: dict[str, object]) -> None:
    import json

    text = json.dumps(value, ensure_ascii=False)
    try:
        load_text(text, "smtp.yaml", {})
    except ConfigError as error:
        for mistake in error.mistakes:
            assert mistake.line <= 1
            assert 0 <= mistake.column <= len(text) + 1
        assert error.render().count("\n") < 3 * len(error.mistakes)


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_whatever_the_text_is(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "smtp.yaml", {})
    assert caught.value.render()
