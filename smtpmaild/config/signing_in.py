"""What makes no sense about signing in: doors without accounts, accounts without doors, passwords in clear text."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence

from smtpmaild.auth.accounts import Accounts, UsersFileError, canonical
from smtpmaild.auth.users_file import read
from smtpmaild.config.findings import Finding, Findings
from smtpmaild.config.mistakes import did_you_mean
from smtpmaild.config.models import Config
from smtpmaild.config.policies import Policies
from smtpmaild.config.rights import rights_of
from smtpmaild.config.sockets import is_local
from smtpmaild.config.yaml_nodes import Loc
from smtpmaild.policy.senders import EVERY, SendersOptions


def _doors(config: Config) -> Findings:
    for number, listener in enumerate(config.listeners):
        if listener.auth != "none":
            if config.accounts is None:
                message = f"nobody can sign in at listener '{listener.name}': there is no section 'accounts'"
                yield Finding(("listeners", number, "auth"), message)
            continue
        for key in sorted(listener.model_fields_set & {"mechanisms", "auth_without_tls"}):
            message = f"'{key}' is for signing in, and listener '{listener.name}' has no 'auth'"
            yield Finding(("listeners", number, key), message, "warning", of_key=True)


def _etrn(config: Config) -> Findings:
    for number, listener in enumerate(config.listeners):
        if listener.etrn_signed_in and listener.auth != "required":
            message = f"who has not signed in could use it too: 'etrn_signed_in' wants auth: required ({listener.name})"
            yield Finding(("listeners", number, "etrn_signed_in"), message)
        for key in sorted(listener.model_fields_set & {"etrn_from", "etrn_signed_in"}):
            if not config.needs_queue:
                message = f"'{key}' is about mail that waits in the queue, and nothing here needs one"
                yield Finding(("listeners", number, key), message, "warning", of_key=True)
        for index, network in enumerate(listener.etrn_from):
            if network.prefixlen == 0:
                message = f"{network} is everybody: any stranger could have the whole queue tried again with ETRN"
                yield Finding(("listeners", number, "etrn_from", index), message)


def _unused_accounts(config: Config) -> Findings:
    if config.accounts is not None and all(listener.auth == "none" for listener in config.listeners):
        yield Finding(("accounts",), "nobody can sign in: no listener has 'auth'", "warning", of_key=True)


def _clear_text(config: Config) -> Findings:
    for number, listener in enumerate(config.listeners):
        for address in listener.listen if listener.auth_without_tls else ():
            if not is_local(address):
                message = f"passwords would travel in clear text to {address}: this is for loopback and Unix sockets"
                yield Finding(("listeners", number, "auth_without_tls"), message)
                break


def _users_file(config: Config) -> Findings:
    path = config.accounts.users_file if config.accounts is not None else None
    if path is None:
        return
    loc = ("accounts", "users_file")
    try:
        with rights_of(config.user, config.group):
            accounts, _ = read(path)
    except FileNotFoundError:
        message = f"there is no {path} yet, so nobody can sign in: `smtpmaild user add` makes it"
        yield Finding(loc, message, "warning")
    except OSError as error:  # as with stores: who asks may be another user than who serves
        yield Finding(loc, f"{path}: {error.strerror}", "warning")
    except UsersFileError as error:
        for mistake in error.mistakes:
            yield Finding(loc, f"{path}:{mistake.line}: {mistake.text}")
        if not error.mistakes:
            yield Finding(loc, str(error))
    else:
        if not accounts.serve_scram:
            yield from _without_scram(config, path, accounts)


def _unknown_users(config: Config) -> Findings:
    """Users whom rules, policies and cases name, and who have no account."""
    path = config.accounts.users_file if config.accounts is not None else None
    named = [*_named_users(config)] if path is not None else []
    if path is None or not named:
        return
    try:
        with rights_of(config.user, config.group):
            accounts, _ = read(path)
    except (OSError, UsersFileError):  # told above
        return
    for loc, user in named:
        if canonical(user) not in accounts.by_name:
            near = did_you_mean(user, (account.name for account in accounts.by_name.values()))
            yield Finding(loc, f"there is no account '{user}' in {path}{near}", "warning", of_key="senders" in loc)


def _named_users(config: Config) -> Iterator[tuple[Loc, str]]:
    for number, rule in enumerate(config.relay_rules):
        for index, user in enumerate(rule.users):
            yield ("relay_rules", number, "users", index), user
    sections: list[tuple[Loc, Policies]] = [(("policies",), config.policies)]
    sections += [(("listeners", number, "policies"), one.policies) for number, one in enumerate(config.listeners)]
    for loc, policies in sections:
        senders = policies.options()["senders"]
        assert isinstance(senders, SendersOptions)
        for user in senders.users.keys() - {EVERY}:
            yield (*loc, "senders", "users", user), user
    for number, case in enumerate(config.tests):
        if case.user:
            yield ("tests", number, "user"), case.user


def _without_scram(config: Config, path: str, accounts: Accounts) -> Findings:
    """Listeners that want SCRAM by name, and do not get it."""
    name = next(iter(accounts.without_scram), "")
    reason = f"'{name}' has no SCRAM keys" if name else "there are no accounts"
    for number, listener in enumerate(config.listeners):
        for index, mechanism in enumerate(listener.mechanisms if "mechanisms" in listener.model_fields_set else ()):
            if mechanism.startswith("SCRAM"):
                message = f"{mechanism} is not offered: {reason} in {path}; `smtpmaild user passwd --scram` makes them"
                yield Finding(("listeners", number, "mechanisms", index), message, "warning")


def _dovecot_socket(config: Config) -> Findings:
    path = config.accounts.dovecot_socket if config.accounts is not None else None
    if path is None:
        return
    try:
        with rights_of(config.user, config.group):
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
            problem = "" if is_socket else "this is no socket"
            if is_socket and not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
                problem = os.strerror(errno.EACCES)
    except OSError as error:
        problem = error.strerror or ""
    if problem:
        yield Finding(("accounts", "dovecot_socket"), f"{path}: {problem}", "warning")


def login(config: Config, user: str) -> tuple[str, str]:
    """Who signs in by this name, as the accounts write it, and what is doubtful about that: for `smtpmaild try`."""
    path = config.accounts.users_file if config.accounts is not None else None
    if path is None:
        return user, ""
    try:
        accounts, _ = read(path)
    except (OSError, UsersFileError) as error:
        return user, f"cannot tell whether there is an account '{user}': {error}"
    account = accounts.by_name.get(canonical(user))
    if account is None:
        return user, f"there is no account '{user}' in {path}: it could not sign in"
    return account.name, "" if account.password is not None else f"the account '{user}' in {path} is locked"


SIGNING_IN_CHECKS: Sequence[Callable[[Config], Findings]] = (
    _doors,
    _etrn,
    _unused_accounts,
    _clear_text,
    _users_file,
    _unknown_users,
    _dovecot_socket,
)
