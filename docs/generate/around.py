"""What no model and no command says by itself: exit statuses, signals, the environment, files, how values are written.

Rows of (term, text) for both kinds of pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Rows = Sequence[tuple[str, str]]


def _rows(text: str) -> Rows:
    """A term at the beginning of a line, its text on the indented lines behind it."""
    rows: list[tuple[str, str]] = []
    for line in text.strip().splitlines():
        if line.startswith(" "):
            term, words = rows.pop()
            rows.append((term, f"{words} {line.strip()}".strip()))
        else:
            rows.append((line, ""))
    return rows


INTRODUCTION = (
    "The configuration is one YAML file. `smtpmaild check` shows its mistakes, each with file, line and column.",
    "Unknown keys, empty keys and keys that are there twice are mistakes. What is not required may be left out.",
)

COMMANDS_INTRODUCTION = (
    "`smtpmaild COMMAND --help` says the same in a terminal. Results go to standard output, complaints and the log to "
    "standard error. `--config FILE` may stand before the command or behind it."
)

#: How values are written.
VALUES = _rows("""
size
    `50 MB`, `25MiB`, `500 KB`, or a number of bytes. KB, MB, GB are decimal; KiB, MiB, GiB binary.
duration
    `30s`, `5m`, `1h30m`, `4d`, `2w`, or a number of seconds.
path
    A relative one starts at the directory of the configuration file.
path of a file with a secret
    The same; a name without a directory is first looked for in $CREDENTIALS_DIRECTORY. A file that everybody can read
    is a mistake.
network or address
    `192.0.2.0/24`, `2001:db8::/32`, or one address.
address
    To listen on: `0.0.0.0:25`, `[::]:25`, `/run/smtpmaild/smtp.sock`, or `systemd:NAME` for a socket of systemd.
domain
    `example.com`; `*.example.com` stands for its sub-domains at any depth. Unicode is welcome.
octal mode
    `"0660"`, as chmod(1) takes it, between quotes.
true or false
    These two words only: `yes`, `no`, `on` and `off` are texts, as in YAML 1.2.
${NAME}
    In any value: the environment variable NAME. `$$` is a dollar sign.
""")

EXIT_STATUSES = _rows("""
0
    It is done, or the answer is yes.
1
    There is something to look at (audit, reload --plan, replay), or an ID is not in the queue (queue).
64
    The command was typed wrongly (EX_USAGE).
65
    What was given as input is wrong (EX_DATAERR).
66
    There is no such input: a file, a message (EX_NOINPUT).
67
    There is no such account or recipient (EX_NOUSER).
69
    Nobody is there to answer, or it is not done (EX_UNAVAILABLE).
70
    A mistake in the program (EX_SOFTWARE).
73
    A file or a socket cannot be made (EX_CANTCREAT).
74
    Reading or writing failed (EX_IOERR).
75
    Not now, or no answer came; try again later (EX_TEMPFAIL).
77
    It is not allowed, or refused (EX_NOPERM).
78
    The configuration has mistakes (EX_CONFIG).
130
    Interrupted by Ctrl-C.
""")

SIGNALS = _rows("""
SIGTERM, SIGINT
    Drain: no more connections are taken, sessions end at their next command, messages on their way in are finished. A
    second one ends everything at once.
SIGHUP
    Read the configuration and the certificates again. One with mistakes is refused, each mistake is in the log, and the
    one in force stays.
SIGQUIT
    End at once. Nothing that was acknowledged is lost.
""")

ENVIRONMENT = _rows("""
SMTPMAILD_CONFIG
    The configuration, where no `--config` is given.
SMTPMAILD_SOCKET, SMTPMAILD_DROP
    For `smtpmaild sendmail` without a configuration: the socket of the daemon, and the directory for mail while it does
    not run.
NO_COLOR
    Not empty: no colours, even on a terminal. `TERM=dumb` does the same.
CREDENTIALS_DIRECTORY
    Set by systemd: where secret files are looked for first that are named without a directory.
NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS
    Set by systemd: readiness, watchdog and socket activation.
""")

FILES = _rows("""
/etc/smtpmaild/smtp.yaml
    The configuration, where the systemd unit and the container image look for it.
/var/spool/smtpmaild
    Mail: stores, and what programs dropped while the daemon did not run. The configuration says where.
/var/lib/smtpmaild
    What the daemon keeps for itself; the home directory of its user.
/run/smtpmaild
    Unix sockets.
""")

#: Section of the file -> the page that tells the rest.
PAGES: Mapping[str, str] = {
    "listeners": "roles.md",
    "accounts": "signing-in.md",
    "relay_rules": "roles.md#rules-for-clients-we-know",
    "relays": "relaying.md",
    "queue": "relaying.md",
    "sendmail": "sendmail.md",
    "tls": "tls.md",
    "tests": "changing.md",
    "control": "running.md",
    "status": "monitoring.md",
    "history": "trace.md",
}
