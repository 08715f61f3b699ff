"""Paths made from mail addresses, and the directories behind them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import Faults, to

from smtpmaild.sink import disk, folder
from smtpmaild.sink.folder import (
    Folder,
    Ownership,
    Template,
    check_template,
    make_root,
    safe_name,
    sweep,
    why_not_writable,
)

OURS = Ownership(0o600, 0o700)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("alice", "alice"),
        ("alice.smith+tag", "alice.smith+tag"),
        ("xn--fa-hia.de", "xn--fa-hia.de"),
        ("jürgen", "jürgen"),  # letters stay readable
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        ("a/b", "a%2Fb"),
        ("a\0b", "a%00b"),
        ("a b\r\n", "a%20b%0D%0A"),
        ("100%", "100%25"),
        ("[192.0.2.1]", "%5B192.0.2.1%5D"),
        ("a\u202eb", "a%E2%80%AEb"),  # turns text around
        ("a\ud800", "a%ED%A0%80"),  # not even valid
        ("", "%"),
    ],
)
def test_names_are_safe_and_readable(value: str, name: str) -> None:
    assert safe_name(value) == name


@given(st.text())
def test_names_are_safe_and_reversible(value: str) -> None:
    name = safe_name(value)
    assert name
    assert "/" not in name
    assert not name.startswith(".")
    assert name.isprintable()
    if value:
        assert unquote(name, errors="surrogatepass") == value


@given(st.text(), st.text())
def test_two_values_never_share_a_name(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) is (one == other)


@given(domain=st.text(), mailbox=st.text(), subaddress=st.text())
def test_no_destination_leaves_the_root(domain: str, mailbox: str, subaddress: str) -> None:
    path = Template("/var/mail/{domain}/{mailbox}/{subaddress}").path(to(mailbox, domain, subaddress, "a@b"))
    assert os.path.normpath(path) == path
    assert path.startswith("/var/mail/")
    parts = path.removeprefix("/var/mail/").split("/")
    assert len(parts) == (3 if subaddress else 2)
    assert all(0 < len(part.encode()) <= 255 for part in parts)


def test_long_names_are_shortened_and_stay_different() -> None:
    template = Template("/m/{mailbox}")
    one, other = (template.path(to("ü" * 500 + end, address="a@b")) for end in ("1", "2"))
    assert one != other
    assert len(os.path.basename(one).encode()) <= 255
    assert re.fullmatch(r"/m/ü+%~[0-9a-f]{32}", one)


@pytest.mark.parametrize(
    ("template", "subaddress", "path"),
    [
        ("/m/{domain}/{mailbox}", "tag", "/m/example.com/alice"),
        ("/m/{mailbox}@{domain}/", "tag", "/m/alice@example.com"),
        ("/m/{mailbox}/{subaddress}", "tag", "/m/alice/tag"),
        ("/m/{mailbox}/{subaddress}", "", "/m/alice"),
        ("/m/{mailbox}/.{subaddress}", "tag", "/m/alice/.tag"),  # Maildir++
        ("/m/{mailbox}/.{subaddress}", "", "/m/alice"),
        ("/m/{mailbox}/{subaddress}", "new", "/m/alice/%6Eew"),  # not inside of the Maildir's own new/
        ("/m/all", "tag", "/m/all"),
        ("var/./{mailbox}", "", "var/alice"),
        ("{mailbox}", "", "/alice"),
    ],
)
def test_templates(template: str, subaddress: str, path: str) -> None:
    assert Template(template).path(to("alice", subaddress=subaddress)) == path


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("/m/{user}", r"unknown placeholder \{user\}; use \{domain\}, \{mailbox\}, \{subaddress\}"),
        ("/m/{mailbox", "a lone brace"),
        ("/m/{{mailbox}}", "a lone brace"),
        ("/m/../{mailbox}", r"'\.\.'"),
        ("/m/\0", "NUL"),
        (" ", "empty"),
    ],
)
def test_templates_that_cannot_be_used(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_template(template)


def test_existing_directories_are_found_again(tmp_path: Path) -> None:
    template = Template(f"{tmp_path}/{{domain}}/m-{{mailbox}}/{{subaddress}}")
    wanted = {
        template.path(to("alice")),
        template.path(to("alice", subaddress="tag")),
        template.path(to("bob", "other.example")),
    }
    for path in wanted:
        Path(path, "tmp").mkdir(parents=True)
    Path(tmp_path, "example.com", "stranger").mkdir()
    Path(tmp_path, "example.com", "m-file").touch()
    assert set(template.existing()) == wanted
    assert list(Template(f"{tmp_path}/none/{{mailbox}}").existing()) == []


def test_a_folder_is_made_durable_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync_directory = disk.sync_directory

    def record(path: str) -> None:
        synced.append(os.path.relpath(path, tmp_path))
        sync_directory(path)

    monkeypatch.setattr(disk, "sync_directory", record)
    made = Folder(str(tmp_path), f"{tmp_path}/a/b", f"{tmp_path}/a/b/new", ("tmp", "new", "cur"), OURS)
    made.make()
    made.make()
    assert synced == [".", "a", "a/b", "a/b", "a/b"]
    assert made.device == tmp_path.stat().st_dev

    # Another process finds it there, perhaps not yet synced by the one who made it.
    synced.clear()
    Folder(str(tmp_path), f"{tmp_path}/a/b", f"{tmp_path}/a/b/new", ("tmp", "new", "cur"), OURS).make()
    assert synced == [".", "a", "a/b", "a/b", "a/b"]


def test_a_parent_that_may_not_be_read_is_trusted_only_if_it_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    faults = Faults(monkeypatch)
    faults("open_directory", errno.EACCES, times=2)
    OURS.make_directory(str(tmp_path / "old"))
    with pytest.raises(PermissionError):
        OURS.make_directory(str(tmp_path / "fresh"))


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="/file"):
        OURS.make_directory(str(tmp_path / "file"))
    with pytest.raises(NotADirectoryError, match="/file"):
        make_root(str(tmp_path / "file"), OURS)
    with pytest.raises(NotADirectoryError, match="/file"):
        make_root(str(tmp_path / "file/below"), OURS)
    assert str(why_not_writable(str(tmp_path / "file/below"))).endswith("/file: Not a directory")


def test_a_file_that_cannot_be_given_away_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, "injected")

    made = Folder(str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/a", ("tmp",), Ownership(0o600, 0o700, gid=os.getegid()))
    made.make()
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(PermissionError):
        made.create("x")
    assert list((tmp_path / "a/tmp").iterdir()) == []


def read_only(path: str) -> os.statvfs_result:
    return os.statvfs_result((0, 0, 0, 0, 0, 0, 0, 0, os.ST_RDONLY, 255))


def denied(*arguments: object, **options: object) -> bool:
    return False


@pytest.mark.parametrize(
    ("name", "function", "number"), [("statvfs", read_only, errno.EROFS), ("access", denied, errno.EACCES)]
)
def test_a_root_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, function: Callable[..., object], number: int
) -> None:
    monkeypatch.setattr(os, name, function)
    with pytest.raises(OSError, match=str(tmp_path)) as caught:
        make_root(str(tmp_path), OURS)
    assert caught.value.errno == number
    assert why_not_writable(f"{tmp_path}/a/b") == f"{tmp_path}: {os.strerror(number)}"


def test_a_root_behind_a_dead_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        make_root(str(tmp_path / "link/mail"), OURS)


def test_writable_touches_nothing(tmp_path: Path) -> None:
    assert why_not_writable(f"{tmp_path}/a/b/c") is None
    assert list(tmp_path.iterdir()) == []


def test_relative_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_root("a/b", OURS)
    make_root("", OURS)
    assert (tmp_path / "a/b").is_dir()
    assert why_not_writable("") is None


@pytest.mark.parametrize("changes", [{"uid": 12345}, {"gid": 12345}])
def test_only_root_gives_files_away(monkeypatch: pytest.MonkeyPatch, changes: dict[str, int]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionError, match="only root"):
        Ownership(0o600, 0o700, **changes).check("/mail")
    Ownership(0o600, 0o700, uid=1000, gid=os.getegid()).check("/mail")


def test_sweep_takes_only_old_files(tmp_path: Path) -> None:
    for name in ("old", "read lately", "young"):
        (tmp_path / name).touch()
    os.utime(tmp_path / "old", (1, 1))
    os.utime(tmp_path / "read lately", (4e9, 1))
    (tmp_path / "directory").mkdir()
    os.utime(tmp_path / "directory", (1, 1))
    assert sweep(str(tmp_path), 60) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "read lately", "young"]
    assert sweep(str(tmp_path / "missing"), 60) == 0


def test_sweep_goes_on_with_the_start_when_it_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").touch()
    os.utime(tmp_path / "old", (1, 1))
    Faults(monkeypatch)("unlink", errno.EACCES)
    assert sweep(str(tmp_path), 60) == 0


def test_sweep_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_LARGEST_SWEEP", 3)
    for number in range(10):
        (tmp_path / f"box{number}").mkdir()
    assert len(list(Template(f"{tmp_path}/{{mailbox}}").existing())) == 3
