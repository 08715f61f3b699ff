"""The lines of a users file as accounts: who there is, and whether a password is right.

    alice:{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$...      what `smtpmaild user add` writes
    bob:$2y$05$...                                           what htpasswd -B writes
    carol:{SHA512-CRYPT}$6$...:1003:1003::/home/carol::      a line of Dovecot's passwd-file: the rest is ignored
    dora:*                                                   locked: no password is right; so are "!", "x" and nothing

Lines that are empty or begin with # are skipped. Names are compared in one form (RFC 4013) and without case.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from smtpmaild.auth.saslprep import LONGEST, prepare, prepare_bytes
from smtpmaild.auth.schemes import PasswordHash, SchemeError, parse
from smtpmaild.auth.scram import ScramKeys

_SALT_SIZE = 16


@dataclass(frozen=True, slots=True)
class LineMistake:
    """What is wrong with a line of the file, without its secrets."""

    line: int
    text: str


class UsersFileError(Exception):
    """The file cannot be used. mistakes: in its lines; none if the file itself is the trouble."""

    def __init__(self, path: str, text: str, mistakes: tuple[LineMistake, ...] = ()) -> None:
        super().__init__(text)
        self.path = path
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Account:
    """One line. password: None where no password is right."""

    name: str
    line: int
    password: PasswordHash | None


def canonical(name: str) -> str:
    """The one form of a name, by which accounts are found; "" if it cannot be one."""
    return prepare(name).casefold()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a password. user: as the file writes it, "" if it was wrong, and then cause says why."""

    user: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Accounts:
    """All accounts of one reading of the file; never changes.

    Who is not in it must not be told apart from who is, neither by words nor by time: an unknown name is measured by
    the hash of some account, always the same for the same name, so that unknown names take as long as known ones do,
    whatever mixture of schemes the file has. Its answer is thrown away.
    """

    by_name: Mapping[str, Account]
    _measures: tuple[PasswordHash, ...] = field(repr=False)
    _secret: bytes = field(repr=False)

    @classmethod
    def of(cls, accounts: Iterator[Account]) -> Accounts:
        """Those of a file. No two may have the same canonical name."""
        by_name = {canonical(account.name): account for account in accounts}
        measures = tuple(account.password for account in by_name.values() if account.password is not None)
        # Secret, because made of secrets; the same in every process, and after most changes of the file.
        secret = hashlib.sha256(measures[0].stored.encode()).digest() if measures else b""
        return cls(by_name, measures, secret)

    @property
    def without_scram(self) -> tuple[str, ...]:
        """Who could not sign in by SCRAM, though by a password."""
        return tuple(a.name for a in self.by_name.values() if a.password is not None and a.password.scram is None)

    @property
    def serve_scram(self) -> bool:
        """Everybody can use it. A client that has the choice takes SCRAM, and would fail where keys are missing."""
        return bool(self._measures) and not self.without_scram

    def verify(self, name: str, password: str) -> Verdict:
        """Take the time of one hash, and say who it is. Raises HashError."""
        account = self.by_name.get(canonical(name))
        stored = account.password if account is not None else None
        measure = stored or self._stand_in(name)
        is_right = measure is not None and measure.verify(password)
        if account is None:
            return Verdict("", "no such account")
        if stored is None:
            return Verdict("", "the account is locked")
        return Verdict(account.name) if is_right else Verdict("", "wrong password")

    def scram_keys(self, name: str) -> tuple[Verdict, ScramKeys]:
        """The keys to challenge this client with: its own, or some that nobody can have (RFC 5802 §9, last item).

        Verdict: who it is if it proves to have the password.
        """
        account = self.by_name.get(canonical(name))
        if account is None:
            return Verdict("", "no such account"), self._unusable_keys(name)
        if account.password is None:
            return Verdict("", "the account is locked"), self._unusable_keys(name)
        if account.password.scram is None:
            return Verdict("", "the account has no SCRAM keys"), self._unusable_keys(name)
        return Verdict(account.name), account.password.scram

    def _stand_in(self, name: str) -> PasswordHash | None:
        if not self._measures:
            return None
        return self._measures[int.from_bytes(self._digest("measure", name)[:8]) % len(self._measures)]

    def _unusable_keys(self, name: str) -> ScramKeys:
        stand_in = self._stand_in(name)
        keys = stand_in.scram if stand_in is not None else None
        iterations = keys.iterations if keys is not None else 4096
        size = len(keys.salt) if keys is not None else _SALT_SIZE
        salt = self._digest("salt", name)[:size]
        return ScramKeys(iterations, salt, self._digest("stored", name), self._digest("server", name))

    def _digest(self, purpose: str, name: str) -> bytes:
        return hmac.digest(self._secret, f"{purpose}:{canonical(name)}".encode(), "sha256")


def read_lines(path: str, content: bytes) -> Accounts:
    """The accounts of a file; raises UsersFileError with all its mistakes."""
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _error(path, [LineMistake(line, "this is not UTF-8")]) from None
    accounts: dict[str, Account] = {}
    mistakes = []
    for number, text in enumerate(lines, 1):
        entry = split_line(text)
        if entry is None:
            continue
        try:
            account = _account(number, *entry)
            first = accounts.setdefault(canonical(account.name), account)
            if first is not account:
                raise SchemeError(f"there is another '{account.name}' in line {first.line}")
        except SchemeError as error:
            mistakes.append(LineMistake(number, str(error)))
    if mistakes:
        raise _error(path, mistakes)
    return Accounts.of(iter(accounts.values()))


def split_line(text: str) -> tuple[str, str] | None:
    """(name, password field) of a line; None where it is empty or a comment. The field is None without a colon."""
    text = text.rstrip("\r")
    if not text.strip() or text.startswith("#"):
        return None
    name, _, rest = text.partition(":")
    return name, rest.partition(":")[0]


def _account(number: int, name: str, password: str) -> Account:
    if problem := problem_of_name(name):
        raise SchemeError(problem)
    return Account(name, number, None if password in _LOCKED or password.startswith("!") else parse(password))


def problem_of_name(name: str) -> str:
    """Why this cannot be the name of an account; "" if it can."""
    if not name or ":" in name or name.startswith("#") or name != name.strip():
        return "a user name is not empty, has neither a colon nor spaces at its ends, and does not begin with #"
    if not prepare_bytes(name.encode("utf-8", "surrogateescape")):
        return f"a user name has at most {LONGEST} octets, without characters that control or that RFC 4013 prohibits"
    return ""


def _error(path: str, mistakes: list[LineMistake]) -> UsersFileError:
    first = mistakes[0]
    more = len(mistakes) - 1
    others = f" (and {more} more line{'s' * (more > 1)} with mistakes)" if more else ""
    return UsersFileError(path, f"{path}:{first.line}: {first.text}{others}", tuple(mistakes))


#: What stands in /etc/shadow and in Dovecot's files for "no password is right".
_LOCKED = ("", "*", "x")
