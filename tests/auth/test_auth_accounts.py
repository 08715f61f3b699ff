"""The lines of a users file, and that unknown names cannot be told from known ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from smtpmaild.auth.accounts import Accounts, UsersFileError, problem_of_name, read_lines
from smtpmaild.auth.schemes import PasswordHash
from smtpmaild.auth.scram import ScramKeys
from smtpmaild.auth.users_file import UsersFile, read

SHA = "{SHA}0vxRJJChUDZGC1SJQBQ51tpUB/o="  # of "pencil"
SSHA = "{SSHA}BIlQ0XbPgumQC6IJOL6cnZPHHA9Xq7K3"
SCRAM = "{SCRAM-SHA-256}" + ScramKeys.of_password("pencil", b"0123456789abcdef", 4096).format()


def accounts_of(*lines: str) -> Accounts:
    return read_lines("users", "".join(f"{line}\n" for line in lines).encode())


def test_lines_of_all_kinds() -> None:
    accounts = accounts_of(
        "# who may send",
        "",
        f"alice:{SHA}",
        f"Bob@Example.com:{SSHA}:1003:1003::/home/bob::userdb_quota=5G extra",
        "carol:*",
        "dora:!$6$abcd$x",
        "eve::1004",
        f"frank:{SHA}\r",
    )
    assert [account.name for account in accounts.by_name.values()] == [
        "alice", "Bob@Example.com", "carol", "dora", "eve", "frank",
    ]  # fmt: skip
    assert accounts.by_name["bob@example.com"].line == 4
    assert accounts.verify("alice", "pencil").user == "alice"
    assert accounts.verify("ALICE", "pencil").user == "alice"
    assert accounts.verify("bob@example.com", "pencil").user == "Bob@Example.com"
    assert accounts.verify("frank", "pencil").user == "frank"


@pytest.mark.parametrize(
    ("user", "password", "cause"),
    [
        ("alice", "Pencil", "wrong password"),
        ("carol", "*", "the account is locked"),
        ("carol", "pencil", "the account is locked"),
        ("eve", "pencil", "the account is locked"),
        ("mallory", "pencil", "no such account"),
    ],
)
def test_wrong(user: str, password: str, cause: str) -> None:
    verdict = accounts_of(f"alice:{SHA}", "carol:*", "eve").verify(user, password)
    assert (verdict.user, verdict.cause) == ("", cause)


def test_nobody_signs_in_without_accounts() -> None:
    accounts = accounts_of("# nobody yet")
    assert accounts.verify("alice", "pencil").cause == "no such account"
    assert not accounts.serve_scram
    verdict, keys = accounts.scram_keys("alice")
    assert (verdict.user, keys.iterations) == ("", 4096)


def test_every_attempt_takes_one_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def verify(self: PasswordHash, password: str) -> bool:
        measured.append(self.scheme)
        return True  # whatever stands in, its answer must not count

    monkeypatch.setattr(PasswordHash, "verify", verify)
    accounts = accounts_of(f"alice:{SHA}", f"bob:{SSHA}", "carol:*")
    for name in ("alice", "bob", "carol", "mallory", "trudy"):
        before = len(measured)
        user = accounts.verify(name, "x").user
        assert len(measured) == before + 1
        assert bool(user) is (name in ("alice", "bob"))
    assert measured[:2] == ["SHA", "SSHA"]


def test_unknown_names_are_spread_over_the_schemes_as_known_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(PasswordHash, "verify", lambda self, _: measured.append(self.scheme))
    accounts = accounts_of(*(f"user{number}:{SHA}" for number in range(30)), *(f"x{n}:{SSHA}" for n in range(10)))
    for number in range(1000):
        accounts.verify(f"unknown{number}", "x")
    assert 180 < Counter(measured)["SSHA"] < 320  # a quarter
    # always the same for the same name
    measured.clear()
    for name in ("Mallory", "mallory") * 5:
        accounts.verify(name, "x")
    assert len(set(measured)) == 1


def test_unknown_names_get_a_challenge_like_that_of_known_ones() -> None:
    lines = [f"alice:{SCRAM}", f"bob:{SCRAM}"]
    accounts = accounts_of(*lines)
    assert accounts.serve_scram
    verdict, keys = accounts.scram_keys("alice")
    assert (verdict.user, keys.fits("pencil")) == ("alice", True)
    verdict, unusable = accounts.scram_keys("mallory")
    assert verdict.user == ""
    assert (unusable.iterations, len(unusable.salt)) == (keys.iterations, len(keys.salt))
    assert unusable.salt != accounts.scram_keys("trudy")[1].salt
    # asked again, in another process, and after an account was added: the salt of an account does not change either
    assert accounts_of(*lines, f"carol:{SCRAM}").scram_keys("MALLORY")[1].salt == unusable.salt


def test_scram_is_served_when_everybody_has_keys() -> None:
    assert accounts_of(f"alice:{SCRAM}", "carol:*").serve_scram
    mixed = accounts_of(f"alice:{SCRAM}", f"bob:{SHA}", "carol:*")
    assert not mixed.serve_scram
    assert mixed.without_scram == ("bob",)
    assert mixed.scram_keys("bob")[0].cause == "the account has no SCRAM keys"
    assert mixed.scram_keys("carol")[0].cause == "the account is locked"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"alice:pencil\n", "users:1: this is no hash of a known kind"),
        (b"\n:{SHA}x\n", "users:2: a user name is not empty"),
        (b" alice:*\n", "users:1: a user name is not empty, has neither a colon nor spaces"),
        ("a\u0085b:*\n".encode(), "users:1: a user name has at most 512 octets, without characters that control"),
        (b"alice:*\nbob:*\nAlice:*\n", "users:3: there is another 'Alice' in line 1"),
        (b"alice:*\nb\xff:*\n", "users:2: this is not UTF-8"),
        (
            b"alice:pencil\nbob:pencil\ncarol:*\n",
            "users:1: this is no hash of a known kind (and 1 more line with mistakes)",
        ),
    ],
)
def test_mistakes_have_a_line_and_no_secret(content: bytes, text: str) -> None:
    with pytest.raises(UsersFileError) as error:
        read_lines("users", content)
    assert str(error.value).startswith(text)
    assert "pencil" not in str(error.value)


def test_all_mistakes_are_told() -> None:
    with pytest.raises(UsersFileError) as error:
        read_lines("users", b"alice:a\nbob:*\ncarol:c\n")
    assert [mistake.line for mistake in error.value.mistakes] == [1, 3]


@pytest.mark.parametrize(
    ("name", "is_good"), [("a b", True), ("a:b", False), ("#a", False), ("a ", False), ("\udcff", False)]
)
def test_names(name: str, is_good: bool) -> None:
    assert (problem_of_name(name) == "") is is_good


# The file, read again


class Facts:
    """A log that remembers."""

    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, /, **facts: object) -> None:
        self.all.append((event, facts))

    warning = error = exception = info


def write(path: Path, *lines: str, mode: int = 0o600) -> None:
    new = path.with_suffix(".new")
    new.write_text("".join(f"{line}\n" for line in lines))
    new.chmod(mode)
    new.rename(path)


def names(file: UsersFile) -> list[str]:
    return [*file.current().by_name]


def test_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path, log = tmp_path / "users", Facts()
    write(path, "alice:*")
    file = UsersFile(str(path), log)
    assert names(file) == ["alice"]
    assert file.current() is file.current()
    write(path, "alice:*", "bob:*")
    assert names(file) == ["alice", "bob"]
    with path.open("a") as opened:  # in place
        opened.write("carol:*\n")
    assert names(file) == ["alice", "bob", "carol"]
    assert log.all == [("users_file_read", {"path": str(path), "accounts": n}) for n in (2, 3)]


@pytest.mark.parametrize(
    ("line", "mode", "cause"),
    [
        ("alice:pencil", 0o600, "users:1: this is no hash of a known kind"),
        ("alice:*", 0o604, "users: every user can read it: chmod o-rwx it"),
    ],
)
def test_bad_file_keeps_the_old_one_and_is_told_once(tmp_path: Path, line: str, mode: int, cause: str) -> None:
    path, log = tmp_path / "users", Facts()
    write(path, "bob:*")
    file = UsersFile(str(path), log)
    assert names(file) == ["bob"]
    write(path, line, mode=mode)
    assert [names(file), names(file)] == [["bob"], ["bob"]]
    assert log.all == [("users_file_refused", {"path": str(path), "cause": f"{tmp_path}/{cause}"})]
    write(path, "carol:*")
    assert names(file) == ["carol"]
    assert log.all[1:] == [("users_file_read", {"path": str(path), "accounts": 1})]


def test_file_that_goes_and_comes(tmp_path: Path) -> None:
    path, log = tmp_path / "users", Facts()
    file = UsersFile(str(path), log)
    assert [names(file), names(file)] == [[], []]
    write(path, "alice:*")
    assert names(file) == ["alice"]
    path.unlink()
    assert [names(file), names(file)] == [["alice"], ["alice"]]
    write(path, "bob:*")
    assert names(file) == ["bob"]
    refused = [facts["cause"] for event, facts in log.all if event == "users_file_refused"]
    assert refused == [f"{path}: No such file or directory"] * 2


def test_what_is_no_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError):
        read(str(tmp_path))
    with pytest.raises(UsersFileError, match="no regular file"):
        read("/dev/null")
    path = tmp_path / "users"
    write(path, "alice:*")
    monkeypatch.setattr("smtpmaild.auth.users_file._LARGEST", 3)
    with pytest.raises(UsersFileError, match="too large"):
        read(str(path))
