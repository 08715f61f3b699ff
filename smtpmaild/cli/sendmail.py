"""`smtpmaild sendmail`: the command that cron and scripts call; also under the names sendmail, mailq and newaliases.

Its flags are not ours to choose, so click does not read them. Which daemon: that of --config or SMTPMAILD_CONFIG, where
there is one; else SMTPMAILD_SOCKET and SMTPMAILD_DROP, else the places of a system service.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from smtpmaild.cli.queue import queue

if TYPE_CHECKING:
    from smtpmaild.sendmail.command import Surroundings

EX_USAGE, EX_UNAVAILABLE = 64, 69
#: Names that we are called by -> what comes before the arguments.
NAMES: Mapping[str, Sequence[str]] = {"sendmail": (), "mailq": ("-bp",), "newaliases": ("-bi",)}


class _Untouched(click.Command):
    """Leaves its arguments as they are, but for --help."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args in (["--help"], ["-h"]):  # the -h of Sendmail has a value
            return super().parse_args(context, args)
        context.args = args
        return []


@click.command(
    cls=_Untouched,
    options_metavar="[-t] [-i] [-f SENDER] [-F NAME] [RECIPIENT]...",
    epilog="Example: smtpmaild sendmail -t < message.eml",
)
@click.pass_context
def sendmail(context: click.Context) -> None:
    """Hand in a message, as cron and scripts do.

    From standard input to the running daemon; while it does not run, into a directory from which it takes the message
    later.

    \b
    -t          to those in To, Cc and Bcc, besides RECIPIENTs
    -f SENDER   the reverse-path; "" for the null sender
    -F NAME     the full name for From
    -i, -oi     a line of a single dot does not end the message
    -N, -R, -V  which reports are wanted (never, or success,failure,delay), full or hdrs, and an envelope id
    -bs         speak SMTP on standard input and output
    -bp, -q     list the queue, or try it now

    Other flags of sendmail are taken and ignored. Exit status: 0 when it is safe with us; 64 for a mistake in the
    flags, 65 in the message, 67 for an unknown recipient, 77 if you may not send it, 69 if it is refused otherwise, 75
    if it can be neither sent nor kept now.
    """
    from smtpmaild.sendmail.command import run
    from smtpmaild.sendmail.flags import Mode, UsageError, parse

    try:
        orders = parse(context.args)
    except UsageError as error:
        click.echo(f"sendmail: {error}", err=True)
        sys.exit(EX_USAGE)
    if orders.mode in (Mode.LIST, Mode.RUN):
        sys.exit(_queue(context, ["list"] if orders.mode is Mode.LIST else ["retry", "--all"]))
    sys.exit(run(orders, _surroundings(context.obj), sys.stdin.buffer, os.environ))


def _surroundings(config: str | None) -> Surroundings:
    from smtpmaild.sendmail import DROP, SOCKET
    from smtpmaild.sendmail.command import Surroundings

    if config:
        from smtpmaild.cli.options import read_config

        found = read_config(config)
        section = found.sendmail
        if section is not None:
            return Surroundings(section.socket_of(found.listeners), section.drop, found.hostname)
    return Surroundings(os.environ.get("SMTPMAILD_SOCKET", SOCKET), os.environ.get("SMTPMAILD_DROP", DROP))


def _queue(context: click.Context, arguments: list[str]) -> int:
    """What `smtpmaild queue` does."""
    if not context.obj:
        click.echo(f"sendmail: `smtpmaild --config FILE queue {' '.join(arguments)}` does this", err=True)
        return EX_UNAVAILABLE
    with queue.make_context("queue", arguments, parent=context.parent) as inner:
        queue.invoke(inner)
    return 0
