"""`smtpmaild drain`: ends the running daemon in good order, and waits for it."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Mapping
from typing import Any

import click

from smtpmaild.cli.shown import counted
from smtpmaild.cli.steering import control_socket, socket_options, troubles

#: For the supervisor, when the workers have ended.
_LAST_MOMENT = 10.0


@click.command(epilog="Example: smtpmaild drain --config smtp.yaml")
@click.option(
    "--now", is_flag=True, help="Do not wait for sessions: each is told 421, what is being stored is finished."
)
@socket_options
def drain(config: str, socket: str | None, now: bool) -> None:
    """End the daemon in good order, and wait for it.

    It accepts no more, lets each session end at its next command, for which they have `timeouts.drain`, and stops. On
    a terminal it is shown who is left. Interrupting the command does not call the daemon back.

    Exit status: 0 it has ended, 69 none was running, 75 it does not answer, 77 you may not.
    """
    from smtpmaild.control.client import answer

    path = control_socket(config, socket)
    is_shown = sys.stderr.isatty()

    def show(row: Mapping[str, Any]) -> None:
        left = f"{counted(row['sessions'], 'session')} in {counted(row['workers'], 'worker')} left"
        click.echo(f"\r\x1b[K{left}", nl=False, err=True)

    with troubles():
        done = answer(path, "drain", {"now": now}, each=show if is_shown else lambda _: None)
    _wait_for_the_end(done["pid"])
    if is_shown:
        click.echo("\r\x1b[K", nl=False, err=True)
    click.echo("the daemon has ended")


def _wait_for_the_end(pid: int) -> None:
    """Its workers have ended; until it has too. In another container we cannot see it: then that must do."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        end = select.poll()
        end.register(process, select.POLLIN)
        end.poll(1000 * _LAST_MOMENT)
    finally:
        os.close(process)
