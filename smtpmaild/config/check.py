"""What makes no sense though each part of it is well-formed: names that name nothing, rules nobody reaches.

Each check is a function from a Config to findings and a line in the table at the end. A finding says where by a
location of keys and indexes, so a check knows nothing of files and lines. An error stops the daemon; a warning is for
what may be right on another machine or at another time.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from smtpmaild.config.aliases import End, LocalNames, Name
from smtpmaild.config.check_paths import unmade_sockets, unwritable_paths
from smtpmaild.config.check_tls import tls_files, tls_listeners, tls_rights
from smtpmaild.config.coverage import hidden_rules
from smtpmaild.config.exposure import doors_in_clear, open_relays, rules_for_nobody
from smtpmaild.config.findings import Finding, Findings
from smtpmaild.config.mistakes import Mistake, did_you_mean, in_order
from smtpmaild.config.models import Config
from smtpmaild.config.paths import read_secret_file
from smtpmaild.config.relays import SECRET_FILES
from smtpmaild.config.roles import ROLES
from smtpmaild.config.salvage import NOTHING_BROKEN, Broken
from smtpmaild.config.signing_in import SIGNING_IN_CHECKS
from smtpmaild.config.sockets import ListenAddress, TcpAddress, UnixAddress
from smtpmaild.config.tests import case_findings
from smtpmaild.config.yaml_nodes import Document, Loc
from smtpmaild.delivery.agents import parse_next_hop


def check(config: Config, broken: Broken = NOTHING_BROKEN) -> list[Mistake]:
    """Every finding about a configuration, in the order of the file.

    broken: what of it only stands in for the file. Then there are no warnings, which look at the whole.
    """
    checks = (examine for examine in _CHECKS if all(map(broken.spares, _NEEDS.get(examine, ()))))
    findings = (finding for examine in checks for finding in examine(config))
    return in_order(_placed(config, one) for one in findings if not _is_known(config, broken, one))


def _is_known(config: Config, broken: Broken, finding: Finding) -> bool:
    """True where the file has a mistake already, from which this one may only follow."""
    document = config.document
    return (
        any(map(broken.covers, (finding.loc, *finding.rests_on)))
        or (broken != NOTHING_BROKEN and finding.severity == "warning")
        or (document is not None and document.is_broken(finding.loc))
    )


def _placed(config: Config, finding: Finding) -> Mistake:
    document = config.document
    if document is None:  # built in a program
        name = ".".join(str(step) for step in finding.loc)
        return Mistake(name, 0, 0, 0, finding.message, severity=finding.severity)
    place = document.place(finding.loc, of_key=finding.of_key)
    return document.mistake(place, finding.message + _brought(config, document, finding.loc), finding.severity)


def _brought(config: Config, document: Document, loc: Loc) -> str:
    """` (the role submission brings 'tls')`, where a listener is told of a key that it does not have."""
    if loc[0] != "listeners" or len(loc) < 3 or document.has(loc[:3]):
        return ""
    role = config.listeners[int(loc[1])].role
    key = str(loc[2])
    return f" (the role {role} brings '{key}')" if key in ROLES[role] else ""


def _line(config: Config, *loc: str | int) -> str:
    where = config.where(*loc).rpartition(":")[2]
    return f" in line {where}" if where else ""


def _repeated(config: Config, section: str, names: Iterable[str], what: str) -> Findings:
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in first:
            line = _line(config, section, first[name], "name")
            yield Finding((section, index, "name"), f"there is another {what} '{name}'{line}")
        first.setdefault(name, index)


def _listener_names(config: Config) -> Findings:
    return _repeated(config, "listeners", (listener.name for listener in config.listeners), "listener")


def _rule_names(config: Config) -> Findings:
    return _repeated(config, "relay_rules", (rule.name for rule in config.relay_rules), "rule")


def _listen_addresses(config: Config) -> Findings:
    taken: list[tuple[ListenAddress, Loc]] = []
    for loc, address in _addresses(config):
        for other, there in taken:
            if _overlap(address, other):
                listener = config.listeners[int(there[1])].name
                socket = f"{other} and with it {address}" if address != other else "this socket"
                yield Finding(loc, f"listener '{listener}' has {socket} already{_line(config, *there)}")
                break
        taken.append((address, loc))


def _addresses(config: Config) -> Iterator[tuple[Loc, ListenAddress]]:
    for number, listener in enumerate(config.listeners):
        for index, address in enumerate(listener.listen):
            yield ("listeners", number, "listen", index), address


# Every address of a family, which takes the port from each single one; "::" is IPv6 alone (sockets.py).
_WILDCARDS = {4: "0.0.0.0", 6: "::"}  # noqa: S104  the check is about these
_LOCALHOST = {"127.0.0.1", "::1"}


def _overlap(one: ListenAddress, other: ListenAddress) -> bool:
    if not (isinstance(one, TcpAddress) and isinstance(other, TcpAddress)):
        return one == other
    if one.port != other.port or one.port == 0:  # port 0: the kernel chooses another one each time
        return False
    return any(_same_host(mine, theirs) for mine in _hosts(one) for theirs in _hosts(other))


def _hosts(address: TcpAddress) -> set[str]:
    return _LOCALHOST if address.host == "localhost" else {address.host}


def _same_host(one: str, other: str) -> bool:
    family = 6 if ":" in one else 4
    is_same_family = (":" in one) == (":" in other)
    return one == other or (is_same_family and _WILDCARDS[family] in (one, other))


def _unix_options(config: Config) -> Findings:
    for number, listener in enumerate(config.listeners):
        if any(isinstance(address, UnixAddress) for address in listener.listen):
            continue
        for key in sorted(listener.model_fields_set & {"socket_mode", "socket_owner", "socket_group"}):
            message = f"'{key}' is for Unix sockets, and listener '{listener.name}' has none"
            yield Finding(("listeners", number, key), message, "warning", of_key=True)


def _lmtp(config: Config) -> Findings:
    for number, listener in enumerate(config.listeners):
        if listener.protocol != "lmtp":
            continue
        for index, address in enumerate(listener.listen):
            if isinstance(address, TcpAddress) and address.port == 25:
                message = (
                    "LMTP must not be spoken on port 25 (RFC 2033 section 5), where other servers come with SMTP: "
                    "take a Unix socket or another port"
                )
                yield Finding(("listeners", number, "listen", index), message)
        for index, keyword in enumerate(listener.disable_extensions):
            if keyword in ("PIPELINING", "ENHANCEDSTATUSCODES"):
                message = f"every server of LMTP offers {keyword} (RFC 2033 section 5)"
                yield Finding(("listeners", number, "disable_extensions", index), message, "warning")


def _trusted_proxies(config: Config) -> Findings:
    for number, listener in enumerate(config.listeners):
        trusted = {
            "xforward_from": (listener.xforward_from, " with XFORWARD"),
            "xclient_from": (listener.xclient_from, " with XCLIENT"),
            "trusted_proxies": (listener.trusted_proxies, ""),
        }
        for key, (networks, how) in trusted.items():
            for index, network in enumerate(networks):
                if network.prefixlen == 0:
                    message = f"{network} is everybody: any client could give itself another address{how}"
                    yield Finding(("listeners", number, key, index), message)


def _proxy_protocol(config: Config) -> Findings:
    for number, listener in enumerate(config.listeners):
        name = listener.name
        is_local = all(isinstance(address, UnixAddress) for address in listener.listen)
        if listener.proxy_protocol and not listener.trusted_proxies and not is_local:
            message = f"whom does listener '{name}' believe? Name the balancers in trusted_proxies"
            yield Finding(("listeners", number, "proxy_protocol"), message, of_key=True)
        if listener.trusted_proxies and not listener.proxy_protocol:
            message = f"'trusted_proxies' is for proxy_protocol, which listener '{name}' does not have"
            yield Finding(("listeners", number, "trusted_proxies"), message, "warning", of_key=True)


def _stores(config: Config) -> Findings:
    for name, domain in config.local_domains.items():
        if domain.deliver not in config.relays:
            yield from _store(config, ("local_domains", name, "deliver"), domain.deliver, config.relays)
        elif domain.deliver not in config.deliver_to and config.relays[domain.deliver].type == "mx":
            message = f"'{domain.deliver}' goes by MX, which for a local domain leads back here"
            yield Finding(("local_domains", name, "deliver"), message)
    for index, rule in enumerate(config.relay_rules):
        if rule.deliver is not None:
            yield from _store(config, ("relay_rules", index, "deliver"), rule.deliver)


def _store(config: Config, loc: Loc, name: str, others: Iterable[str] = ()) -> Findings:
    if name not in config.deliver_to:
        yield Finding(loc, f"there is no '{name}' in deliver_to{did_you_mean(name, [*config.deliver_to, *others])}")


def _unused_stores(config: Config) -> Findings:
    used = {domain.deliver for domain in config.local_domains.values()}
    used |= {rule.deliver for rule in config.relay_rules if rule.deliver is not None}
    for name in config.deliver_to:
        if name not in used:
            yield Finding(("deliver_to", name), f"nothing is delivered to '{name}'", "warning", of_key=True)


def _accepts_something(config: Config) -> Findings:
    if not config.local_domains and all(rule.deliver is None and rule.relay is None for rule in config.relay_rules):
        yield Finding(
            ("listeners",),
            "no mail is accepted: there is neither a local domain nor a rule that delivers or relays",
            "warning",
            True,
        )


def _aliases(config: Config) -> Findings:
    names = LocalNames(config.local_domains, config.postmaster)
    for domain, section in config.local_domains.items():
        for alias, targets in section.aliases.items():
            for index, target in enumerate(targets):
                loc: Loc = ("local_domains", domain, "aliases", alias, index)
                yield from _target(names, loc, target, domain, alias)


def _circles(config: Config) -> Findings:
    for way in LocalNames(config.local_domains, config.postmaster).circles():
        message = f"aliases run in a circle: {' -> '.join(map(str, way))}"
        yield Finding(_loc_of_name(config, way[0]), message, of_key=True)


def _loc_of_name(config: Config, name: Name) -> Loc:
    """Its key; for a postmaster that the domain does not name, what stands for it."""
    domain = config.local_domains[name.domain]
    if name.local_part in domain.aliases:
        return ("local_domains", name.domain, "aliases", name.local_part)
    return ("local_domains", name.domain, "catch_all") if domain.catch_all else ("postmaster",)


def _target(names: LocalNames, loc: Loc, target: str, domain: str, alias: str = "") -> Findings:
    end = names.follow(target, domain, alias)
    if isinstance(end, Name) and end.is_catch_all:
        yield Finding(loc, f"'{target}' is neither a mailbox nor an alias: the {end} gets its mail", "warning")
    elif end in _DEAD_ENDS:
        yield Finding(loc, f"'{target}' leads nowhere: {_DEAD_ENDS[end]}{names.nearest(target, domain, alias)}")


_DEAD_ENDS: Mapping[Name | End, str] = {
    End.NOWHERE: "it is neither a mailbox nor an alias",
    End.NOT_LOCAL: "its domain is not in local_domains",
}


def _catch_alls(config: Config) -> Findings:
    names = LocalNames(config.local_domains, config.postmaster)
    for domain, section in config.local_domains.items():
        if section.catch_all is None:
            continue
        loc: Loc = ("local_domains", domain, "catch_all")
        yield from _target(names, loc, section.catch_all, domain)
        if section.mailboxes is None:
            message = f"every local part of {domain} is a mailbox already: nothing is left for the catch-all"
            yield Finding(loc, message, "warning", of_key=True)


def _postmaster(config: Config) -> Findings:
    if config.postmaster is None:
        return
    if config.local_domains:
        names = LocalNames(config.local_domains, config.postmaster)
        yield from _target(names, ("postmaster",), config.postmaster, "")
    else:
        message = "there are no local domains: nobody's mail for postmaster is accepted"
        yield Finding(("postmaster",), message, "warning", of_key=True)


def _hidden_mailboxes(config: Config) -> Findings:
    for domain, section in config.local_domains.items():
        seen: set[str] = set()
        for index, mailbox in enumerate(section.mailboxes or ()):
            loc: Loc = ("local_domains", domain, "mailboxes", index)
            targets = section.aliases.get(mailbox, (mailbox,))
            if mailbox in seen:
                yield Finding(loc, f"'{mailbox}' is listed twice", "warning")
            elif mailbox not in targets and f"{mailbox}@{domain}" not in targets:
                message = f"an alias takes the mail of '{mailbox}'; let it name '{mailbox}' too to keep a copy"
                yield Finding(loc, message, "warning")
            seen.add(mailbox)


def _rule_listeners(config: Config) -> Findings:
    names = [listener.name for listener in config.listeners]
    for number, rule in enumerate(config.relay_rules):
        for index, name in enumerate(rule.listeners):
            if name not in names:
                loc: Loc = ("relay_rules", number, "listeners", index)
                yield Finding(loc, f"there is no listener '{name}'{did_you_mean(name, names)}")


def _local_recipients(config: Config) -> Findings:
    names = LocalNames(config.local_domains, config.postmaster)
    for number, rule in enumerate(config.relay_rules):
        for key, patterns in (("to_domains", rule.to_domains), ("to_addresses", rule.to_addresses)):
            for index, pattern in enumerate(patterns):
                local = names.domain_of(pattern.rpartition("@")[2])
                if local is not None:
                    line = _line(config, "local_domains", local)
                    message = f"'{pattern}' is local{line}: rules are asked for other domains only"
                    yield Finding(("relay_rules", number, key, index), message)


def _unreachable_rules(config: Config) -> Findings:
    rules = config.relay_rules
    for number, hiding in hidden_rules(rules):
        name, line = rules[number].name, _line(config, "relay_rules", hiding)
        message = f"rule '{name}' is never reached: '{rules[hiding].name}'{line} takes everything it matches"
        yield Finding(("relay_rules", number, "name"), message)


def _relaying(config: Config) -> Findings:
    for loc, target in targets_of_relays(config):
        if not (target in config.relays or target == "mx" or parse_next_hop(target)):
            hint = did_you_mean(target, config.relays)
            yield Finding(loc, f"'{target}' is neither in relays nor mx nor host:port{hint}")


def targets_of_relays(config: Config) -> Iterator[tuple[Loc, str]]:
    """Everything that says who takes mail on, with its place."""
    for number, rule in enumerate(config.relay_rules):
        if rule.relay is not None:
            yield ("relay_rules", number, "relay"), rule.relay
    for name, domain in config.local_domains.items():
        if domain.relay is not None:
            yield ("local_domains", name, "relay"), domain.relay
        if domain.deliver in config.relays and domain.deliver not in config.deliver_to:
            yield ("local_domains", name, "deliver"), domain.deliver
    if config.needs_queue:
        yield ("queue", "report_by"), config.queue.report_by


def _sendmail(config: Config) -> Findings:
    if config.sendmail is not None:
        yield from config.sendmail.findings(config.listeners)


def _status(config: Config) -> Findings:
    if config.status is not None:
        yield from config.status.findings()


def _cases(config: Config) -> Findings:
    listeners = (listener.name for listener in config.listeners)
    return case_findings(config.tests, listeners, config.deliver_to, config.relays)


def _control(config: Config) -> Findings:
    if config.control is None:
        return
    yield from config.control.findings()
    for loc, address in _addresses(config):
        if isinstance(address, UnixAddress) and address.path == config.control.socket:
            listener = config.listeners[int(loc[1])].name
            line = _line(config, *loc)
            yield Finding(("control", "socket"), f"listener '{listener}' has this socket already{line}")


def _unused_relays(config: Config) -> Findings:
    used = {target for _, target in targets_of_relays(config)}
    for name in config.relays:
        if name not in used:
            yield Finding(("relays", name), f"nothing is sent to '{name}'", "warning", of_key=True)


def _secrets_of_relays(config: Config) -> Findings:
    """Agents read a secret when they need it; who reads the configuration is told at once where they could not."""
    for name, relay in config.relays.items():
        for key in SECRET_FILES:
            path = getattr(relay, key, "")
            try:
                if path:
                    read_secret_file(path)
            except ValueError as error:
                yield Finding(("relays", name, key), str(error))


def _socket_folders(config: Config) -> Findings:
    """A listener's Unix socket is made in a folder that is there: unlike a store's, nobody makes it."""
    for loc, address in _addresses(config):
        if isinstance(address, UnixAddress):
            folder = os.path.dirname(address.path)
            number = errno.EACCES if os.path.isdir(folder) else errno.ENOENT
            if number == errno.ENOENT or not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
                yield Finding(loc, f"{folder}: {os.strerror(number)}", "warning")


def _accounts(config: Config) -> Findings:
    yield from _account(("user",), config.user, _user, "user")
    yield from _account(("group",), _unless_number(config.group), grp.getgrnam, "group")
    for number, listener in enumerate(config.listeners):
        owner, group = _unless_number(listener.socket_owner), _unless_number(listener.socket_group)
        yield from _account(("listeners", number, "socket_owner"), owner, pwd.getpwnam, "user")
        yield from _account(("listeners", number, "socket_group"), group, grp.getgrnam, "group")
    if config.control is not None:
        yield from _account(("control", "group"), _unless_number(config.control.group), grp.getgrnam, "group")


def _user(name: str) -> object:
    """A number will do, but not without an account, which has the groups that go with it."""
    return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)


def _unless_number(name: str | None) -> str | None:
    return None if name is None or name.isdecimal() else name


def _account(loc: Loc, name: str | None, find: Callable[[str], object], what: str) -> Findings:
    try:
        if name is not None:
            find(name)
    except KeyError:
        yield Finding(loc, f"this machine has no {what} '{name}'", "warning")


_CHECKS: Sequence[Callable[[Config], Findings]] = (
    _listener_names,
    _listen_addresses,
    _unix_options,
    _lmtp,
    _trusted_proxies,
    _proxy_protocol,
    _accepts_something,
    _stores,
    _unused_stores,
    _circles,
    _aliases,
    _catch_alls,
    _postmaster,
    _hidden_mailboxes,
    _rule_names,
    _rule_listeners,
    _local_recipients,
    _unreachable_rules,
    _relaying,
    _sendmail,
    _status,
    _cases,
    _control,
    _unused_relays,
    _secrets_of_relays,
    open_relays,
    rules_for_nobody,
    doors_in_clear,
    unwritable_paths,
    unmade_sockets,
    _socket_folders,
    _accounts,
    *SIGNING_IN_CHECKS,
    tls_listeners,
    tls_files,
    tls_rights,
)
#: Sections of which a check must know every name, because it concludes something from those that are not there.
_NEEDS: Mapping[Callable[[Config], Findings], Sequence[str]] = {
    _stores: ("deliver_to",),
    _aliases: ("local_domains",),
    _catch_alls: ("local_domains",),
    _circles: ("local_domains",),
    _postmaster: ("local_domains",),
    _rule_listeners: ("listeners",),
    _relaying: ("relays",),
    _sendmail: ("listeners",),
    _cases: ("listeners", "deliver_to", "relays"),
    _control: ("listeners",),
    **dict.fromkeys(SIGNING_IN_CHECKS, ("accounts",)),
    tls_listeners: ("tls",),
    open_relays: ("tls",),
    rules_for_nobody: ("tls", "listeners"),
}
