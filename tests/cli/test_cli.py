"""The commands as a user types them: what they print, where, and the status they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from running import Runner

import smtpmaild
from smtpmaild import cli
from smtpmaild.server import daemon
from smtpmaild.server.plan import Plan
from smtpmaild.server.privileges import PrivilegeError
from smtpmaild.server.sockets import SocketError

ROOT = Path(__file__).parents[2]
GOOD = str(ROOT / "config" / "smtp.yaml")
#: A configuration without a mistake and with something to warn of.
DOUBTFUL = """\
listeners: [{name: mx, listen: ["127.0.0.1:2525"]}]
local_domains: {a.example: {deliver: mail}}
deliver_to:
  mail: {type: maildir, path: "/dev/null/{domain}/{mailbox}"}
"""
COMMANDS = (
    "audit", "check", "completion", "dev", "drain", "healthcheck", "queue", "record", "reload", "replay", "schema",
    "sendmail", "status", "top", "trace", "try", "user", "version",
)  # fmt: skip


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(capfd, monkeypatch)


def write(folder: Path, text: str) -> str:
    path = folder / "smtp.yaml"
    path.write_text(text)
    return str(path)


# The command itself


def test_the_version(run: Runner) -> None:
    for option in ("--version", "-V"):
        ran = run(option)
        assert (ran.status, ran.out) == (0, f"smtpmaild {smtpmaild.__version__}\n")


def test_versions_for_a_bug_report(run: Runner) -> None:
    ran = run("version")
    assert ran.status == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == [
        "smtpmaild", "Python", "uvloop", "pydantic", "structlog", "click",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids="".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_ends_with_an_example(run: Runner, command: tuple[str, ...], option: str) -> None:
    ran = run(*command, option)
    assert ran.status == 0
    assert ran.err == ""
    last = ran.out.rstrip().splitlines()[-1].strip()
    assert last.startswith("Example: ")
    assert "smtpmaild" in last


def test_all_commands_are_listed(run: Runner) -> None:
    assert tuple(cli.cli.commands) == COMMANDS
    assert all(f"\n  {name} " in run("--help").out for name in COMMANDS)


def test_no_command_is_described_by_half_a_sentence(run: Runner) -> None:
    assert "..." not in run("--help").out.partition("Commands:")[2]


USAGE = [
    (("nonsense",), "No such command 'nonsense'"),
    (("--nonsense",), "No such option"),
    (("check", "--nonsense"), "No such option"),
    (("check", "-c", GOOD, "left", "over"), "unexpected extra argument"),
    (("smtp.yaml",), "No such command 'smtp.yaml'; did you mean --config smtp.yaml?"),
    (("check", "smtp.yaml"), "--config FILE is missing; did you mean --config smtp.yaml?"),
    ((), "--config FILE is missing"),
    (("check",), "--config FILE is missing"),
    (("healthcheck",), "--config FILE is missing"),
    (("try", "--to", "a@b.example"), "--config FILE is missing"),
    (("try", "-c", GOOD), "Missing option '--to'"),
    (("try", "-c", GOOD, "--to", "a@b.example", "--client", "localhost"), "not an IP address"),
    (("try", "-c", GOOD, "--to", "a@b.example", "--listener", "other"), "there is no listener 'other', only local"),
    (("try", "-c", GOOD, "--to", "a@b.example", "--message", "/does/not/exist"), "No such file"),
    (("try", "-c", GOOD, "--to", "a@b.example>\r\nDATA"), "--to"),
    (("try", "-c", GOOD, "--to", "a@b.example", "--from", "\x1b[2J"), "--from"),
    (("try", "-c", GOOD, "--to", "a@b.example", "--helo", "\udcff"), "--helo"),
    (("completion", "tcsh"), "tcsh"),
    (("healthcheck", "-c", GOOD, "--timeout", "0"), "--timeout"),
    (("--stdin", "--listener", "other", "-c", GOOD), "there is no listener 'other', only local"),
    (("--listener", "local", "-c", GOOD), "--listener goes with --stdin"),
]


@pytest.mark.parametrize(("arguments", "complaint"), USAGE)
def test_wrong_usage_is_64(run: Runner, arguments: tuple[str, ...], complaint: str) -> None:
    ran = run(*arguments)
    assert ran.status == 64
    assert complaint in ran.err
    assert "Traceback" not in ran.err


def test_without_anything_help_comes_before_the_complaint(run: Runner) -> None:
    assert run().out.startswith("Usage: smtpmaild ")


def test_an_interrupted_command_ends_as_shells_expect(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("smtpmaild.config.load", interrupted)
    assert run("check", "-c", GOOD).status == 130


def test_another_failure_of_a_command_is_70(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*_: object) -> None:
        raise click.ClickException("no luck")

    monkeypatch.setattr("smtpmaild.config.load", failed)
    ran = run("check", "-c", GOOD)
    assert (ran.status, ran.err) == (70, "Error: no luck\n")


# The configuration


def test_check_finds_nothing(run: Runner) -> None:
    ran = run("check", "--config", GOOD)
    assert ran.status == 0
    assert ran.out.startswith(f"{GOOD}: no mistakes")


def test_check_tells_what_roles_bring(run: Runner, tmp_path: Path) -> None:
    text = Path(GOOD).read_text().replace("listen:", "role: internal\n    bare_lf_commands: false\n    listen:", 1)
    told = run("check", "-c", write(tmp_path, text)).out.splitlines()
    assert len(told) == 2
    assert ": the role internal brings add_missing_headers: true, long_lines: accept, policies." in told[0]


def test_check_prints_every_mistake_at_its_place(run: Runner, tmp_path: Path) -> None:
    path = write(tmp_path, Path(GOOD).read_text().replace("local_domains", "local_domain").replace("workers", "worker"))
    ran = run("check", "-c", path)
    assert ran.status == 78
    assert ran.out == ""
    assert "did you mean 'local_domains'?" in ran.err
    assert "did you mean 'workers'?" in ran.err
    assert "^~~~" in ran.err


def test_check_plays_the_tests_and_nothing_is_served_that_fails_one(run: Runner, tmp_path: Path) -> None:
    config = DOUBTFUL.replace("/dev/null", "/tmp") + "tests:\n  - {to: x@a.example, expect: accept}\n"
    assert run("check", "-c", write(tmp_path, config)).out.endswith(": no mistakes, 0 warnings, 1 test passed\n")
    path = write(
        tmp_path, config.replace("to: x@a.example, expect: accept", "to: x@a.example, name: x, expect: reject")
    )
    for command in (["check", "-c", path], ["-c", path]):
        ran = run(*command)
        assert (ran.status, ran.out) == (78, "")
        assert ran.err.startswith(f"{path}:6:40: test 'x' failed: expected reject, and RCPT TO:<x@a.example> is ans")


def test_check_prints_warnings_and_counts_them(run: Runner, tmp_path: Path) -> None:
    ran = run("check", "-c", write(tmp_path, DOUBTFUL))
    assert ran.status == 0
    assert ran.out.endswith(": no mistakes, 1 warning\n")
    assert "warning: /dev/null: Not a directory" in ran.err


@pytest.mark.parametrize("arguments", [("check",), ("try", "--to", "a@b.example"), ("healthcheck",), ()])
@pytest.mark.parametrize("path", ["missing.yaml", ".", "binary.yaml"])
def test_a_file_that_is_no_configuration_is_78(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\x00\xff\xfe\x1b[2J")
    ran = run("-c", path, *arguments)
    assert ran.status == 78
    assert path in ran.err
    assert "\x1b" not in ran.err


def test_the_config_may_come_from_the_environment_or_stand_anywhere(
    run: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run("-c", GOOD, "check").out == run("check", "-c", GOOD).out
    monkeypatch.setenv("SMTPMAILD_CONFIG", GOOD)
    assert run("check").status == 0
    bad = write(tmp_path, "nonsense: true\n")
    assert run("check", "-c", bad).status == 78  # what is typed wins
    assert run("-c", bad, "check").status == 78


def test_the_schema_is_the_one_that_ships(run: Runner) -> None:
    shipped = ROOT / "smtpmaild" / "config" / "smtpmaild.schema.json"
    ran = run("schema")
    assert ran.status == 0
    assert ran.out == shipped.read_text()


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_each_shell(run: Runner, shell: str) -> None:
    ran = run("completion", shell)
    assert ran.status == 0
    assert "_SMTPMAILD_COMPLETE" in ran.out
    assert ran.out.count("\n") > 5


def test_completion_completes(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SMTPMAILD_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "smtpmaild he")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert run().out == "plain,healthcheck\n"


# Serving; what serves is the daemon's own matter


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    plans: list[Plan] = []

    def serve(plan: Plan) -> int:
        plans.append(plan)
        return 0

    monkeypatch.setattr(daemon, "run", serve)
    return plans


def test_serving_is_what_happens_without_a_command(run: Runner, served: list[Plan]) -> None:
    ran = run("--config", GOOD)
    assert ran.status == 0
    (plan,) = served
    fact, warning = [json.loads(line) for line in ran.err.splitlines()]
    assert (fact["event"], fact["domain"], fact["path"]) == (
        "domain_served", "example.com", f"{ROOT}/var/mail/{{domain}}/{{mailbox}}",
    )  # fmt: skip
    assert (warning["event"], warning["level"]) == ("certificate_self_signed", "warning")
    assert [one.name for one in plan.listeners] == ["local"]
    assert plan.allow_root is False


def test_root_may_be_allowed_on_the_command_line(run: Runner, served: list[Plan]) -> None:
    run("--config", GOOD, "--allow-root")
    assert served[0].allow_root is True


@pytest.mark.parametrize(
    ("error", "status", "cause"),
    [
        (SocketError("mx", "127.0.0.1:25", "taken"), 73, str(SocketError("mx", "127.0.0.1:25", "taken"))),
        (PrivilegeError("who is nobody?"), 77, "who is nobody?"),
        (OSError("disk is gone"), 73, "disk is gone"),
        (PermissionError(13, "Permission denied", "/var/mail"), 73, "Permission denied: /var/mail"),
        (OSError(28, "No space left on device"), 73, "No space left on device"),
    ],
)
def test_a_start_that_fails_says_why(
    run: Runner, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, cause: str
) -> None:
    def fail(plan: Plan) -> int:
        raise error

    monkeypatch.setattr(daemon, "run", fail)
    ran = run("--config", GOOD)
    assert ran.status == status
    facts = [json.loads(line) for line in ran.err.splitlines()]
    assert [fact["cause"] for fact in facts if fact["event"] == "start_failed"] == [cause]


def test_warnings_are_printed_before_serving(run: Runner, served: list[Plan], tmp_path: Path) -> None:
    assert "warning: /dev/null: Not a directory" in run("-c", write(tmp_path, DOUBTFUL)).err
    assert served


# As a program


def smtpmaild_(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "smtpmaild", *arguments],
        input=stdin,
        capture_output=True,
        timeout=20,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def test_it_runs_as_a_module() -> None:
    ran = smtpmaild_("--version")
    assert (ran.returncode, ran.stdout.decode()) == (0, f"smtpmaild {smtpmaild.__version__}\n")


def test_a_reader_that_closes_is_no_traceback() -> None:
    script = f"{sys.executable} -m smtpmaild schema | head -1"
    ran = subprocess.run(["sh", "-c", script], capture_output=True, cwd=ROOT, timeout=20, check=False)
    assert b"Traceback" not in ran.stderr


@pytest.mark.parametrize("help_", [False, True])
def test_what_is_asked_often_does_not_wait_for_pydantic(help_: bool) -> None:
    code = f"import sys; sys.argv = ['smtpmaild', '{'--help' if help_ else '--version'}']\n"
    code += "try:\n    from smtpmaild.cli import main; main()\n"
    code += "finally:\n    assert not {'pydantic', 'yaml', 'structlog', 'uvloop', 'asyncio'} & {*sys.modules}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=20, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
