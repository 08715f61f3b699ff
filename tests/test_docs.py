"""The manual is true: its configurations load, its commands print what it says, its links lead somewhere."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from authority import issue
from generate.markdown import anchor
from pages import BLOCKS, PAGES, ROOT, Block, commands, is_like, prose, shell_in

from smtpmaild.config import Config, ConfigError, load_text

YAML = [block for block in BLOCKS if block.kind == "yaml"]
#: How doubts end that say nothing about the page.
OF_THIS_MACHINE = (
    "Permission denied",
    "No such file or directory",
    "`smtpmaild user add` makes it",
    "has no user 'smtpmaild'",
)

CERTIFICATE = re.compile(
    r"\bcertificate: \"?([^\s,}\"]+)\"?(?:[,\s]+key: \"?([^\s,}\"]+)\"?)?(?:[,\s]+(key_passphrase_file): )?"
)
#: What a part of a file is completed with, where it has no such section itself.
REST = {
    "listeners": """\
listeners:
  - {name: mx, listen: ["127.0.0.1:25"], tls: optional, reverse_dns: true}
  - {name: submission, listen: ["127.0.0.1:587"], role: submission}
  - {name: local, listen: [./submit.sock], role: internal}
""",
    "accounts": "accounts: {users_file: users}\n",
    "local_domains": "local_domains: {example.com: {deliver: mail}}\n",
    "tls": """\
tls:
  certificates: [{certificate: of-the-test.pem, key: of-the-test.key}]
  client_ca: of-the-test.pem
  client_certificates: ask
""",
}


def completed(text: str) -> str:
    """A part of a file as a whole one."""
    if text.startswith("# part of a listener"):
        text = f"listeners:\n  - name: mx\n    listen: ['127.0.0.1:25']\n{text}"
    own = re.findall(r"^(\w+):", text, re.MULTILINE)
    whole = text + "".join(section for name, section in REST.items() if name not in own)
    stores = re.findall(r"\bdeliver: (\w+)", whole)
    relays = {*re.findall(r"\b(?:relay|report_by): (\w+)(?![\w.:])", whole)} - {"mx"}
    if "deliver_to" not in own:
        rest = relays | set(re.findall(r"^  (\w+): *\{type: lmtp", whole, re.MULTILINE))
        whole += "deliver_to:\n" + "".join(f"  {name}: {{type: discard}}\n" for name in {*stores} - rest)
    if "relays" not in own and relays:
        whole += "relays:\n" + "".join(f"  {name}: {{host: mx.example.net}}\n" for name in relays)
    return whole


def with_files(text: str, folder: Path) -> str:
    """The same, with every file that it names, in this folder."""
    text = re.sub(r"/run/secrets/|/etc/letsencrypt/live/[\w.]+/|/etc/smtpmaild/", f"{folder}/", text)
    for name in re.findall(r"\w+_file: \"?([^\s,}\"]+)", text):
        (folder / name).write_text("")
        (folder / name).chmod(0o600)
    for name in re.findall(r"report_words_file: (\S+)", text):
        (folder / name).write_text(next(block.text for block in BLOCKS if block.text.startswith("[failed]")))
    for name in re.findall(r"(?:password|secret|passphrase)_file: \"?([^\s,}\"]+)", text):
        (folder / name).write_text("secret\n")
    for name in re.findall(r"token_file: \"?([^\s,}\"]+)", text):
        (folder / name).write_text("a-secret-of-a-test\n")
    for certificate, key, is_locked in CERTIFICATE.findall(text):
        pair = issue(folder, stem="of-the-test", passphrase="secret" if is_locked else "")
        (folder / certificate).write_bytes(pair.certificate.read_bytes())
        (folder / (key or certificate)).write_bytes(pair.key.read_bytes())
        (folder / (key or certificate)).chmod(0o600)
    return text


def loaded(text: str, folder: Path) -> Config:
    variables = {"MAIL_HOST": "mx.example.com", "MAIL_DOMAIN": "example.com"}
    return load_text(with_files(text, folder), str(folder / "smtp.yaml"), variables)


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_block_is_a_configuration(block: Block, tmp_path: Path) -> None:
    if (file := block.file) is None:
        first = block.text.split("\n", 1)[0]
        assert re.fullmatch(r"# part of (a listener in )?smtp\.yaml(:.*)?", first), f"{block}: tests/pages.py says how"
        loaded(completed(block.text), tmp_path)
    elif file["wrong"]:
        with pytest.raises(ConfigError):
            loaded(block.text, tmp_path)
    elif file["program"]:
        assert [*yaml.safe_load_all(block.text)]
    else:
        doubts = [one.message for one in loaded(block.text, tmp_path).warnings]
        assert [doubt for doubt in doubts if not doubt.endswith(OF_THIS_MACHINE)] == []


#: Commands that only look at what a daemon does beside them: what is not there yet comes in a moment.
ASKING = tuple(
    f"smtpmaild {command} "
    for command in ("queue list", "queue stats", "reload --plan", "status", "trace", "top --once")
)
#: Seconds that such a moment takes at most.
PATIENCE = 10.0
WITH_COMMANDS = [page for page in PAGES if any(block.page == page and block.kind == "console" for block in BLOCKS)]


@pytest.mark.debian
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_commands_print_what_is_shown(page: Path, needs_program: Callable[[str], str]) -> None:
    if any("$ curl " in block.text for block in BLOCKS if block.page == page):
        needs_program("curl")
    # Not tmp_path: what is printed is cut where a path is long, and so is a Unix socket's.
    with tempfile.TemporaryDirectory() as name, shell_in(Path(name)) as shell:
        for block in BLOCKS:
            if block.page != page:
                continue
            if (file := block.file) is not None:
                shell.write(file["name"], with_files(block.text, shell.folder))
            for line, shown in commands(block.text) if block.kind == "console" else ():
                printed = shell.run(line)
                end = time.monotonic() + (PATIENCE if line.startswith(ASKING) else 0)
                while not is_like(printed, shown) and time.monotonic() < end:
                    time.sleep(0.05)
                    printed = shell.run(line)
                assert is_like(printed, shown), f"{block}: $ {line}\n{printed}"


def targets(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in targets(page):
        path, _, place = target.partition("#")
        if target.startswith("https://"):
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not place or place in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"(?<![\w/.])(?:config|docs|systemd|bench|tests)/[\w./-]+\.\w+", page.read_text()):
        assert (ROOT / name).exists(), name


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in targets(index)}
    assert {*PAGES} - {index, ROOT / "README.md"} <= linked


@pytest.mark.parametrize(
    ("printed", "shown", "verdict"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\n", False),
        ("a 1 c\n", "a ... c\n", True),
        ("a\nb\nc\n", "a\n...\nc\n", True),
        ("a\nb\n", "...\n", True),
        ("", "...\n", True),
        ("a\nb\n", "a...\n", False),
        ("(x)\n", "(.)\n", False),
    ],
)
def test_wildcards(printed: str, shown: str, verdict: bool) -> None:
    assert is_like(printed, shown) is verdict


def test_a_session_is_read_as_typed() -> None:
    assert commands("$ one \\\n    two\nprinted\n\nmore\n$ three\n") == [
        ("one two", "printed\n\nmore\n"), ("three", "")
    ]  # fmt: skip
