"""`smtpmaild drain`: ends the running daemon in good order, and waits for it."""

from __future__ import annotations

import sys

import click

from smtpmaild.cli.shown import counted
from smtpmaild.cli.steering import control_socket, socket_options, troubles


@click.command(epilog="Example: smtpmaild drain --config smtp.yaml")
@click.option(
    "--now", is_flag=True, help="Do not wait for sessions: each is told 421, what is being stored is finished."
)
@socket_options
def drain(config: str, socket: str | None, now: bool) -> None:
    """End the daemon in good order, and wait for it.

    It accepts no more, lets each session end at its next command, for which they have `timeouts.drain`, and stops. On
    a terminal it is shown who is left. Interrupting the command does not call the daemon back.

    Exit status: 0 it has ended, 69 none was running, 77 you may not.
    """
    from smtpmaild.control.client import ask

    path = control_socket(config, socket)
    is_shown = sys.stderr.isatty()
    with troubles():
        for row in ask(path, "drain", {"now": now}):
            if is_shown:
                left = f"{counted(row['sessions'], 'session')} in {counted(row['workers'], 'worker')} left"
                click.echo(f"\r\x1b[K{left}", nl=False, err=True)
    if is_shown:
        click.echo("\r\x1b[K", nl=False, err=True)
    click.echo("the daemon has ended")
