"""Who the daemon is while it serves: settled before anything is bound, assumed when everything is.

Started as root it binds, then becomes the user of the config for good. It does not serve as root unless told, and
started as somebody else it does not pretend to change.
"""

from __future__ import annotations

import grp
import os
import pwd
import resource
from collections.abc import MutableMapping
from dataclasses import dataclass


class PrivilegeError(Exception):
    """The daemon may not be what the config says it shall be: the operator reads its text."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user to become, with the group that replaces its main one."""

    name: str
    uid: int
    gid: int
    home: str

    def assume(self, environment: MutableMapping[str, str]) -> None:
        """Become this user for good, in every respect; raises PrivilegeError."""
        try:
            # Groups first: who has given up root may not change them any more.
            os.initgroups(self.name, self.gid)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise PrivilegeError(f"cannot become the user {self.name}: {error.strerror}") from error
        environment.update(USER=self.name, LOGNAME=self.name, HOME=self.home)


def settle(user: str, group: str, *, allow_root: bool) -> Identity | None:
    """Whom to become after binding; None to stay who we are. Raises PrivilegeError for what cannot or must not be."""
    account = _account(user) if user else None
    gid = _gid(group) if group else account.pw_gid if account else os.getgid()
    if os.geteuid() != 0:
        _refuse_change(user, account, group, gid)
        return None
    if account is None:
        account = pwd.getpwuid(0)
        if not group:
            gid = account.pw_gid
    if account.pw_uid == 0 and not allow_root:
        raise PrivilegeError("will not serve as root: let `user` name an account to become, or say --allow-root")
    return Identity(account.pw_name, account.pw_uid, gid, account.pw_dir)


def _refuse_change(user: str, account: pwd.struct_passwd | None, group: str, gid: int) -> None:
    if account is not None and account.pw_uid != os.geteuid():
        raise PrivilegeError(f"only root can become the user {user}; this is user number {os.geteuid()}")
    if group and gid not in (os.getegid(), *os.getgroups()):
        raise PrivilegeError(f"only root can become the group {group}")


def _account(user: str) -> pwd.struct_passwd:
    number = number_of(user)
    try:
        return pwd.getpwnam(user) if number is None else pwd.getpwuid(number)
    except KeyError:
        raise PrivilegeError(f"there is no user {user!r}") from None


def _gid(group: str) -> int:
    number = number_of(group)
    if number is not None:
        return number
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise PrivilegeError(f"there is no group {group!r}") from None


def number_of(name: str) -> int | None:
    """The number that a user or group is named by, None where it is a name; -1 means nobody to the kernel."""
    is_number = name.isascii() and name.isdecimal() and int(name) < 2**32 - 1
    return int(name) if is_number else None


def prepare_process() -> None:
    """What every process of the daemon wants: files that nobody else reads, and as many descriptors as it may have."""
    os.umask(0o077)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
