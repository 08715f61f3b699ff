"""The cases under `tests:`: each kind of answer they can want, and what is said where they do not get it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from receiving import RecordingLog

from smtpmaild import app
from smtpmaild.config import Config, ConfigError, load, load_text
from smtpmaild.config.mistakes import Mistake
from smtpmaild.log import LogStream
from smtpmaild.rehearsal import failures

CONFIG = """\
hostname: mx.example.com
listeners:
  - {name: mx, listen: ["127.0.0.1:2525"], reverse_dns: true}
  - {name: clear, listen: ["127.0.0.1:2526"]}
  - {name: submission, listen: ["127.0.0.1:2587"], role: submission}
  - {name: certified, listen: ["127.0.0.1:2588"], tls: required, client_certificates: require}
tls: {self_signed: true, client_ca: /dev/null}
accounts: {dovecot_socket: /nowhere/auth}
local_domains:
  example.com: {mailboxes: [alice, bob], aliases: {all: [alice, far@partner.example]}, relay: smarthost, deliver: mail}
deliver_to: {mail: {type: discard}}
relay_rules:
  - {name: signed-in users, authenticated: true, relay: mx}
  - {name: office, client_names: ["*.office.example.com"], relay: smarthost}
  - {name: machines, client_certificates: ["CN=printer"], relay: smarthost}
  - {name: later, from_networks: [198.51.100.0/24], defer: {code: 451, enhanced: 4.7.1, text: Later}}
  - {name: this machine, listeners: [clear], from_networks: [127.0.0.1], relay: "mail.partner.example:25"}
relays: {smarthost: {host: smtp.provider.example}}
tests:
"""
RULE = "RCPT TO:<b@c.example> is answered"
DENIED = f"{RULE} 550 5.7.1 Relaying denied, decided by 'no relay rule matched'"
ALICE = "RCPT TO:<alice@example.com> is answered 250 2.1.5 recipient alice@example.com OK, decided by "
ALICE += "'local_domains.example.com' (smtp.yaml:10), it goes to mail"

ALL = "expected it to go to mail, and RCPT TO:<all@example.com> is answered 250 2.1.5 recipient all@example.com OK, "
ALL += "decided by 'local_domains.example.com' (smtp.yaml:10), it goes to mail and relay:smarthost"
UNKNOWN = "expected accept, and MAIL FROM:<> is answered 530 5.7.0 Authentication required, decided by the protocol "
UNKNOWN += "and its limits"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return str(path)


def failed(authority: str, *cases: str) -> list[Mistake]:
    text = CONFIG.replace("/dev/null", authority) + "".join(f"  - {{{case}}}\n" for case in cases)
    return failures(app.stage(load_text(text, "smtp.yaml", {})))


@pytest.mark.parametrize(
    "case",
    [
        "to: b@c.example, expect: reject 550 5.7.1, rule: no relay rule matched",
        "to: alice@example.com, expect: accept, delivered_to: mail, rule: local_domains.example.com",
        "to: nobody@example.com, expect: reject 550 5.1.1",
        "to: all@example.com, expect: accept, delivered_to: mail, relayed_to: smarthost",
        "client: 198.51.100.9, to: b@c.example, expect: defer 451 4.7.1, rule: later",
        "client_name: p1.office.example.com, to: b@c.example, expect: accept 250, relayed_to: smarthost",
        "listener: clear, client: 127.0.0.1, to: b@c.example, expect: accept, relayed_to: mail.partner.example",
        "listener: clear, client: local, to: b@c.example, expect: reject",
        "listener: submission, to: alice@example.com, expect: reject 530",
        "listener: submission, user: bob, from: bob@example.com, to: b@c.example, expect: accept, relayed_to: mx",
        "listener: submission, user: bob, from: alice@example.com, to: b@c.example, expect: reject 553, rule: senders",
        'listener: certified, client_certificate: "CN=printer", to: b@c.example, expect: accept, rule: machines',
        "to: <alice@example.com>, helo: x, expect: accept",
    ],
)
def test_a_case_that_holds(authority: str, case: str) -> None:
    assert failed(authority, case) == []


@pytest.mark.parametrize(
    ("case", "at", "message"),
    [
        ("to: b@c.example, expect: reject 554", "reject 554", f"expected reject 554, and {DENIED}"),
        ("to: b@c.example, expect: reject 550 5.7.2", "reject", f"expected reject 550 5.7.2, and {DENIED}"),
        ("to: b@c.example, expect: defer", "defer", f"expected defer, and {DENIED}"),
        (
            "to: b@c.example, expect: accept",
            "accept",
            f"expected accept, and {DENIED}; nothing is looked up in the DNS: give the client's name as 'client_name'",
        ),
        ("listener: clear, to: b@c.example, expect: accept", "accept", f"expected accept, and {DENIED}"),
        ("to: alice@example.com, expect: reject", "reject", f"expected reject, and {ALICE}"),
        ("rule: office, to: alice@example.com, expect: accept", "office", f"expected 'office' to decide, and {ALICE}"),
        (
            "to: alice@example.com, expect: accept, relayed_to: [smarthost]",
            "[smarthost]",
            f"expected it to go to smarthost, and {ALICE}",
        ),
        (
            "to: all@example.com, expect: accept, delivered_to: mail",
            "mail",
            ALL,
        ),
        (
            "listener: submission, to: b@c.example, expect: accept",
            "accept",
            UNKNOWN,
        ),
    ],
)
def test_a_case_that_fails(authority: str, case: str, at: str, message: str) -> None:
    (mistake,) = failed(authority, "to: nobody@example.com, expect: reject", case)
    assert mistake.line == CONFIG.count("\n") + 2
    assert mistake.source[mistake.column - 1 :].startswith(at)
    title = "'alice@example.com'" if "to: alice" in case else "'all@example.com'" if "all@" in case else "'b@c.example'"
    assert mistake.message == f"test for {title} failed: {message}"


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "name: x, listener: clear, client_name: p1.office.example.com",
            "test 'x' cannot be: clients have no names at listener 'clear': it has no 'reverse_dns'",
        ),
        ("name: x, user: bob", "test 'x' cannot be: nobody can sign in at listener 'mx': it has no 'auth'"),
        ("name: x, listener: clear, tls: true", "test 'x' cannot be: listener 'clear' has no TLS"),
        ("name: x, client_certificate: CN=a", "test 'x' cannot be: listener 'mx' has no TLS"),
        ("name: x, listener: certified", "listener 'certified' ends a handshake without a certificate"),
        ("name: x, listener: certified, client_certificate: 12", "'12' is neither a SHA-256 fingerprint"),
        ("name: x, listener: certified, client_certificate: CN=a, tls: false", "no session without TLS with a client"),
    ],
)
def test_a_case_that_cannot_be(authority: str, case: str, message: str) -> None:
    case = case.replace("client_certificate: 12", 'client_certificate: "12"')
    (mistake,) = failed(authority, f"{case}, to: a@b.example, expect: accept")
    assert message in mistake.message


def test_a_configuration_from_a_program_is_rehearsed_too() -> None:
    built = Config.model_validate(
        {
            "listeners": [{"name": "mx", "listen": ["127.0.0.1:2525"]}],
            "tests": [{"to": "a@b.example", "expect": "accept"}],
        }
    )
    with pytest.raises(ConfigError, match=r"^tests\.0\.expect: test for 'a@b\.example' failed: expected accept, and"):
        app.rehearse(built)


def test_a_reload_that_fails_a_test_is_refused(tmp_path: Path, authority: str) -> None:
    path = tmp_path / "smtp.yaml"
    path.write_text(CONFIG.replace("/dev/null", authority) + "  - {to: b@c.example, expect: reject}\n")
    first = app.plan(load(path), LogStream(2), RecordingLog())
    assert first.reload().listeners[0].name == "mx"
    path.write_text(path.read_text().replace("reject}", "accept}"))
    with pytest.raises(ConfigError, match=r"smtp\.yaml:20:.* failed: expected accept"):
        first.reload()
