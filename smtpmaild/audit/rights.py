"""Files of a configuration: who may read them, who may write them, and which of that is too much.

A secret is for the daemon alone; what others may write they may replace. Where everybody may write by purpose (the
directory of `sendmail`, a Unix socket with such a mode) that is shown and found no fault with.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from smtpmaild.config.models import Config
from smtpmaild.config.paths import Surroundings, secret_path_in
from smtpmaild.config.relays import SECRET_FILES
from smtpmaild.config.sockets import UnixAddress
from smtpmaild.config.yaml_nodes import Loc, ScalarNode


@dataclass(frozen=True, slots=True)
class Thing:
    """Something on the disk that the configuration names. is_secret: for the daemon alone.  is_public: others may
    write by purpose."""

    what: str
    path: str
    loc: Loc
    is_secret: bool = False
    is_public: bool = False


@dataclass(frozen=True, slots=True)
class Rights:
    """Of a thing as it is now. mode: "" where there is nothing yet.  readers, writers: besides root.  problems: what
    of that is too much."""

    what: str
    path: str
    where: str
    mode: str = ""
    owner: str = ""
    group: str = ""
    readers: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def things(config: Config) -> Iterator[Thing]:
    """Everything on the disk that must be trusted, or kept."""
    if config.document is not None:
        yield Thing("configuration", os.path.abspath(config.document.path), ())
    for name, store in config.deliver_to.items():
        path = getattr(store, "path", "")
        if path:
            yield Thing(f"store {name}", path.partition("{")[0].rstrip("/") or "/", ("deliver_to", name, "path"))
    if config.needs_queue:
        yield Thing("queue", config.queue.path, ("queue", "path"))
    if config.sendmail is not None:
        yield Thing("drop directory", config.sendmail.drop, ("sendmail", "drop"), is_public=True)
    for number, listener in enumerate(config.listeners):
        for index, address in enumerate(listener.listen):
            if isinstance(address, UnixAddress):
                loc: Loc = ("listeners", number, "listen", index)
                yield Thing(f"socket of {listener.name}", address.path, loc, is_public=True)
    if config.control is not None:
        yield Thing("control socket", config.control.socket, ("control", "socket"))
    yield from _secrets(config)


def _secrets(config: Config) -> Iterator[Thing]:
    if config.accounts is not None and config.accounts.users_file is not None:
        yield Thing("users file", config.accounts.users_file, ("accounts", "users_file"), is_secret=True)
    for index, one in enumerate(config.tls.certificates):
        key = "key" if one.key is not None else "certificate"
        yield Thing("private key", one.key or one.certificate, ("tls", "certificates", index, key), is_secret=True)
    for name, relay in config.relays.items():
        for key in SECRET_FILES:
            path = getattr(relay, key, "")
            if path:
                yield Thing(f"secret of relay {name}", path, ("relays", name, key), is_secret=True)
    if config.history is not None:
        yield Thing("history", config.history.path, ("history", "path"), is_secret=True)
    if config.logging.privacy:
        yield Thing("key of the pseudonyms", config.logging.privacy_file, ("logging", "privacy_file"), is_secret=True)
    # What is read into the model is known by its name in the file only.
    for loc in [("tls", "certificates", index, "key_passphrase_file") for index in range(len(config.tls.certificates))]:
        yield from _named(config, "passphrase of a key", loc)
    yield from _named(config, "token of the status page", ("status", "token_file"))


def _named(config: Config, what: str, loc: Loc) -> Iterator[Thing]:
    document = config.document
    if document is None or not document.has(loc):
        return
    _, node = document.find(loc)
    if isinstance(node, ScalarNode):
        directory = os.path.dirname(os.path.abspath(document.path))
        here = Surroundings(directory, os.environ.get("CREDENTIALS_DIRECTORY", ""))
        yield Thing(what, secret_path_in(here, node.text), loc, is_secret=True)


def look_at(config: Config, thing: Thing) -> Rights:
    """The rights of a thing, as this process sees them."""
    where = config.where(*thing.loc) if thing.loc else ""
    try:
        status = os.stat(thing.path)
    except OSError:
        return Rights(thing.what, thing.path, where)
    mode = stat.S_IMODE(status.st_mode)
    owner, group = _user(status.st_uid), _group(status.st_gid)
    return Rights(
        thing.what,
        thing.path,
        where,
        mode=f"{mode:04o}",
        owner=owner,
        group=group,
        readers=_who(mode, owner, group, stat.S_IRUSR, stat.S_IRGRP, stat.S_IROTH),
        writers=_who(mode, owner, group, stat.S_IWUSR, stat.S_IWGRP, stat.S_IWOTH),
        problems=tuple(_problems(thing, mode)),
    )


def _who(mode: int, owner: str, group: str, of_owner: int, of_group: int, of_others: int) -> tuple[str, ...]:
    if mode & of_others:
        return ("everybody",)
    return (*((owner,) if mode & of_owner else ()), *((f"group {group}",) if mode & of_group else ()))


def _problems(thing: Thing, mode: int) -> Iterator[str]:
    if thing.is_secret and mode & stat.S_IROTH:
        yield f"every user can read the {thing.what} {thing.path}: chmod o-rwx it"
    if not thing.is_public and mode & stat.S_IWOTH:
        yield f"every user can write the {thing.what} {thing.path}: chmod o-w it"
    folder = os.path.dirname(thing.path)
    above = _mode(folder)
    # In a directory with the sticky bit nobody renames what is another's (inode(7)).
    if above & stat.S_IWOTH and not above & stat.S_ISVTX:
        yield f"every user can replace the {thing.what} {thing.path}: chmod o-w {folder}"


def _mode(path: str) -> int:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return 0


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
