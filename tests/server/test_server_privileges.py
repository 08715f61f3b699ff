"""Who the daemon is while it serves. What cannot be undone happens in children."""

from __future__ import annotations

import grp
import os
import pwd
import resource
import sys
import traceback
from collections.abc import Callable

import pytest

from smtpmaild.server.privileges import Identity, PrivilegeError, prepare_process, settle

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody else")
NOBODY = pwd.getpwnam("nobody")
NOGROUP = grp.getgrgid(NOBODY.pw_gid).gr_name


def in_child(work: Callable[[], None]) -> None:
    """Run it in a child process; its failure is ours."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY.pw_gid, NOBODY.pw_gid, NOBODY.pw_gid)
    os.setresuid(NOBODY.pw_uid, NOBODY.pw_uid, NOBODY.pw_uid)


def as_nobody(work: Callable[[], None]) -> None:
    def go() -> None:
        if IS_ROOT:
            become_nobody()
        work()

    in_child(go)


@needs_root
def test_user_is_assumed_for_good() -> None:
    def work() -> None:
        environment = {"HOME": "/root", "USER": "root"}
        identity = settle("nobody", "", allow_root=False)
        assert identity == Identity("nobody", NOBODY.pw_uid, NOBODY.pw_gid, NOBODY.pw_dir)
        identity.assume(environment)
        assert os.getresuid() == (NOBODY.pw_uid,) * 3
        assert os.getresgid() == (NOBODY.pw_gid,) * 3
        assert 0 not in os.getgroups()
        assert environment == {"HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody"}
        with pytest.raises(PermissionError):
            os.setuid(0)
        with pytest.raises(PrivilegeError, match="cannot become the user nobody: Operation not permitted"):
            identity.assume({})

    in_child(work)


@needs_root
def test_group_of_the_config_replaces_the_main_one() -> None:
    mail = grp.getgrnam("mail").gr_gid

    def work() -> None:
        identity = settle("nobody", "mail", allow_root=False)
        assert identity is not None
        identity.assume({})
        assert os.getresgid() == (mail,) * 3

    in_child(work)


@needs_root
@pytest.mark.parametrize("user", ["", "root"])
def test_root_does_not_serve_unless_told(user: str) -> None:
    with pytest.raises(
        PrivilegeError, match="will not serve as root: let `user` name an account to become, or say --allow-root"
    ):
        settle(user, "", allow_root=False)
    root = pwd.getpwuid(0)
    assert settle(user, "", allow_root=True) == Identity("root", 0, root.pw_gid, root.pw_dir)
    assert settle(user, "mail", allow_root=True) == Identity("root", 0, grp.getgrnam("mail").gr_gid, root.pw_dir)


@needs_root
def test_numbers_will_do() -> None:
    identity = settle(str(NOBODY.pw_uid), "12345", allow_root=False)
    assert identity == Identity("nobody", NOBODY.pw_uid, 12345, NOBODY.pw_dir)


@pytest.mark.parametrize(
    ("user", "group", "message"),
    [
        ("no-such-user", "", "there is no user 'no-such-user'"),
        ("", "no-such-group", "there is no group 'no-such-group'"),
        ("4294967294", "", "there is no user '4294967294'"),
        ("4294967295", "", "there is no user '4294967295'"),
        ("", "4294967295", "there is no group '4294967295'"),
    ],
)
def test_unknown_names_are_said(user: str, group: str, message: str) -> None:
    with pytest.raises(PrivilegeError, match=message):
        settle(user, group, allow_root=True)


def test_others_stay_who_they_are() -> None:
    def work() -> None:
        assert settle("", "", allow_root=False) is None
        me = pwd.getpwuid(os.geteuid())
        assert settle(me.pw_name, "", allow_root=False) is None
        assert settle(me.pw_name, grp.getgrgid(os.getegid()).gr_name, allow_root=False) is None
        with pytest.raises(PrivilegeError, match="only root can become the user root; this is user number"):
            settle("root", "", allow_root=False)
        with pytest.raises(PrivilegeError, match="only root can become the group root"):
            settle("", "root", allow_root=False)

    as_nobody(work)


def test_groups_go_first_and_root_last(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    for name in ("initgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, name, lambda *arguments, name=name: calls.append((name, *arguments)))
    Identity("mail", 8, 12, "/var/mail").assume({})
    assert calls == [("initgroups", "mail", 12), ("setresgid", 12, 12, 12), ("setresuid", 8, 8, 8)]

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "initgroups", refuse)
    with pytest.raises(PrivilegeError, match="cannot become the user mail: Operation not permitted"):
        Identity("mail", 8, 12, "/var/mail").assume({})


@pytest.mark.parametrize(
    ("user", "group", "message"),
    [
        ("root", "", "only root can become the user root; this is user"),
        ("", "root", "become the group root"),
    ],
)
def test_nobody_else_becomes_anybody(monkeypatch: pytest.MonkeyPatch, user: str, group: str, message: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: NOBODY.pw_gid)
    monkeypatch.setattr(os, "getgroups", list)
    assert settle("nobody", NOGROUP, allow_root=False) is None
    with pytest.raises(PrivilegeError, match=message):
        settle(user, group, allow_root=False)


def test_process_is_prepared() -> None:
    def work() -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
        prepare_process()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)
        assert os.umask(0) == 0o077

    in_child(work)
