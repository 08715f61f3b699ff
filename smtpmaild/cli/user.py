"""`smtpmaild user`: the accounts of a users file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from smtpmaild.cli.options import read_config

if TYPE_CHECKING:
    from smtpmaild.auth.accounts import Accounts
    from smtpmaild.config import Config

EX_DATAERR, EX_NOINPUT, EX_NOUSER, EX_CANTCREAT, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 65, 66, 67, 73, 75, 77, 78
Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]}, epilog="Example: smtpmaild user add alice -c smtp.yaml"
)
def user() -> None:
    """Add, change, check and list the accounts of a users file.

    The file is the one that the configuration names (accounts: users_file), or that of --file. A running daemon notices
    the change by itself.
    """


def file_options(command: Command) -> Command:
    """`--file FILE` or `--config FILE`."""
    config = click.option("-c", "--config", metavar="FILE", help="The configuration that names the users file.")
    return config(click.option("-f", "--file", metavar="FILE", help="The users file itself.")(command))


def password_option(command: Command) -> Command:
    """`--password-file FILE`."""
    return click.option(
        "--password-file",
        type=click.File("rb"),
        metavar="FILE",
        help="Read the password from this file, or - for standard input; else it is asked for.",
    )(command)


@user.command("add", epilog="Example: smtpmaild user add alice@example.com --file /etc/smtpmaild/users")
@click.argument("name")
@file_options
@password_option
@click.option("--scram", is_flag=True, help="Store keys for SCRAM; PLAIN and LOGIN work by them too.")
@click.pass_context
def add(
    context: click.Context, name: str, file: str | None, config: str | None, password_file: Any, scram: bool
) -> None:
    """Add an account.

    Its password is stored as argon2id. SCRAM is offered to clients when every account has keys for it (--scram).
    """
    from smtpmaild.auth import users_edit
    from smtpmaild.auth.accounts import problem_of_name

    if problem := problem_of_name(name):
        _fail(EX_DATAERR, problem)
    path, group = _users_file(context, file, config)
    if not scram:
        _doubt_plain_hash(path, name)
    with _troubles():
        users_edit.add(path, name, _new_hash(password_file, scram=scram), group)
    click.echo(f"{path}: {name} added")


@user.command("passwd", epilog="Example: smtpmaild user passwd alice -c smtp.yaml")
@click.argument("name")
@file_options
@password_option
@click.option("--scram", is_flag=True, help="Store keys for SCRAM; PLAIN and LOGIN work by them too.")
@click.pass_context
def passwd(
    context: click.Context, name: str, file: str | None, config: str | None, password_file: Any, scram: bool
) -> None:
    """Give an account another password; a locked one works again."""
    from smtpmaild.auth import users_edit

    path, _ = _users_file(context, file, config)
    if not scram:
        _doubt_plain_hash(path, name)
    with _troubles():
        users_edit.set_password(path, name, _new_hash(password_file, scram=scram))
    click.echo(f"{path}: {name} changed")


@user.command("remove", epilog="Example: smtpmaild user remove alice -c smtp.yaml")
@click.argument("name")
@file_options
@click.pass_context
def remove(context: click.Context, name: str, file: str | None, config: str | None) -> None:
    """Remove an account. Sessions that are open go on."""
    from smtpmaild.auth import users_edit

    path, _ = _users_file(context, file, config)
    with _troubles():
        users_edit.remove(path, name)
    click.echo(f"{path}: {name} removed")


@user.command("verify", epilog="Example: smtpmaild user verify alice -c smtp.yaml")
@click.argument("name")
@file_options
@password_option
@click.pass_context
def verify(context: click.Context, name: str, file: str | None, config: str | None, password_file: Any) -> None:
    """Say whether a password is right, and how it is stored.

    Exit status: 0 it is right, 67 no such account, 77 it is wrong.
    """
    from smtpmaild.auth.accounts import canonical

    path, _ = _users_file(context, file, config)
    with _troubles():
        accounts = _accounts(path)
        account = accounts.by_name.get(canonical(name))
        if account is None:
            _fail(EX_NOUSER, f"there is no account '{name}'")
        if account.password is None:
            _fail(EX_NOPERM, f"the account '{account.name}' is locked: no password is right")
        scheme = account.password.scheme
        verdict = accounts.verify(name, _password(password_file, confirm=False))
    if not verdict.user:
        _fail(EX_NOPERM, f"{verdict.cause} (stored as {scheme})")
    click.echo(f"{account.name}: the password is right (stored as {scheme})")


@user.command("list", epilog="Example: smtpmaild user list -c smtp.yaml --json")
@file_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def list_(context: click.Context, file: str | None, config: str | None, as_json: bool) -> None:
    """List the accounts, and how their passwords are stored."""
    path, _ = _users_file(context, file, config)
    with _troubles():
        accounts = _accounts(path).by_name.values()
    rows = [(account.name, account.password.scheme if account.password else "") for account in accounts]
    if as_json:
        click.echo(json.dumps([{"name": name, "scheme": scheme, "locked": not scheme} for name, scheme in rows]))
        return
    width = max((len(name) for name, _ in rows), default=0)
    for name, scheme in rows:
        click.echo(f"{name:{width}}  {scheme or 'locked'}")


def _users_file(context: click.Context, file: str | None, config: str | None) -> tuple[str, int | None]:
    """(its path, the group that the daemon will have, if that is known)."""
    if file:
        return file, None
    path = config or context.find_root().obj
    if not path:
        raise click.UsageError("--file FILE or --config FILE is missing", context)
    loaded = read_config(path)
    if loaded.accounts is None or loaded.accounts.users_file is None:
        _fail(EX_CONFIG, f"{path}: the section 'accounts' names no users_file")
    return loaded.accounts.users_file, _group_of(loaded)


def _group_of(config: Config) -> int | None:
    from smtpmaild.server.privileges import PrivilegeError, settle

    try:
        identity = settle(config.user or "", config.group or "", allow_root=True)
    except PrivilegeError:  # another user than the daemon's: the file gets the group of whoever makes it
        return None
    return identity.gid if identity is not None else None


def _accounts(path: str) -> Accounts:
    from smtpmaild.auth.users_file import read

    return read(path)[0]


def _doubt_plain_hash(path: str, name: str) -> None:
    """Clients use SCRAM where they can; it is offered as long as every account has keys for it."""
    from smtpmaild.auth.accounts import UsersFileError

    try:
        has_scram = _accounts(path).serve_scram
    except (OSError, UsersFileError):  # told by whoever changes the file
        return
    if has_scram:
        note = f"note: all accounts have SCRAM keys; without --scram for '{name}' SCRAM ends at the next reload"
        click.echo(note, err=True)


def _new_hash(password_file: Any, *, scram: bool) -> str:
    from smtpmaild.auth.schemes import hash_password

    return hash_password(_password(password_file, confirm=True), scram=scram)


def _password(password_file: Any, *, confirm: bool) -> str:
    """The password, prepared."""
    from smtpmaild.auth.saslprep import LONGEST, prepare_bytes

    if password_file is None:
        asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=confirm, err=True)
        octets = asked.encode("utf-8", "surrogateescape")
    else:
        octets = password_file.read(LONGEST + 3).removesuffix(b"\n").removesuffix(b"\r")
    password = prepare_bytes(octets)
    if not password:
        _fail(EX_DATAERR, f"a password is one line of text in UTF-8, 1 to {LONGEST} octets without control characters")
    return password


@contextmanager
def _troubles() -> Iterator[None]:
    """What may go wrong with the file, as a sentence and an exit status."""
    from smtpmaild.auth.accounts import UsersFileError
    from smtpmaild.auth.schemes import HashError, SchemeError
    from smtpmaild.auth.users_edit import BusyError, EditError, NoSuchAccountError

    try:
        yield
    except UsersFileError as error:
        lines = [f"{error.path}:{mistake.line}: {mistake.text}" for mistake in error.mistakes]
        _fail(EX_DATAERR, "\n".join(lines) or str(error))
    except NoSuchAccountError as error:
        _fail(EX_NOUSER, str(error))
    except BusyError as error:
        _fail(EX_TEMPFAIL, str(error))
    except (EditError, SchemeError, HashError) as error:
        _fail(EX_CANTCREAT, str(error))
    except PermissionError as error:
        _fail(EX_NOPERM, f"{error.filename or 'the users file'}: {error.strerror}")
    except OSError as error:
        _fail(EX_NOINPUT, f"{error.filename or 'the users file'}: {error.strerror}")


def _fail(status: int, text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(status)
