"""Whose rights count when `check` asks whether something could be written: those of who will serve.

Started as root the daemon becomes the `user` of the config before it touches a store. As root everything can be
written, so the question is asked with the rights of that user, and taken back afterwards. Who has given up root
already, or never had it, asks as himself.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def rights_of(user: str | None, group: str | None) -> Iterator[None]:
    """Within it this process may do what that user may; what the machine does not know changes nothing.

    Only root can ask for others, and root is who starts a daemon: then there is one thread.
    """
    identity = _identity(user, group) if user and os.geteuid() == 0 else None
    if identity is None:
        yield
        return
    uid, gid, groups = identity
    before = os.getgroups(), os.getegid()
    try:
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[1])
        os.setgroups(before[0])


def _identity(user: str, group: str | None) -> tuple[int, int, list[int]] | None:
    """User, main group and all groups, as they will be when the daemon serves."""
    try:
        account = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        gid = account.pw_gid if not group else int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        return None
    return account.pw_uid, gid, os.getgrouplist(account.pw_name, gid)
