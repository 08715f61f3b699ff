"""`smtpmaild reload`: has the running daemon read its configuration again, and says what came of it."""

from __future__ import annotations

import click

from smtpmaild.cli.shown import plain
from smtpmaild.cli.steering import EX_CONFIG, control_socket, socket_options, troubles


@click.command("reload", epilog="Example: smtpmaild reload --config smtp.yaml")
@socket_options
def reload_(config: str, socket: str | None) -> None:
    """Have the daemon read its configuration again.

    Waits until it serves by it, and prints what has changed. A configuration with mistakes is refused: they are
    printed, and the daemon goes on as it was. Sessions that are open end on the configuration they began with.

    Exit status: 0 it serves by the new one, 69 none is running, 75 its workers do not serve yet, 77 you may not, 78
    refused.
    """
    from smtpmaild.control.client import ControlError, answer

    path = control_socket(config, socket)
    with troubles():
        try:
            done = answer(path, "reload")
        except ControlError as error:
            if error.status != EX_CONFIG:
                raise
            click.echo(str(error), err=True)  # mistakes with their lines, as `check` prints them
            click.echo("refused; the daemon goes on as it was", err=True)
            raise SystemExit(EX_CONFIG) from None
    for line in done["changed"] or ["nothing in the file has changed"]:
        click.echo(plain(line))
    if done["restart"]:
        click.echo(f"only a restart changes: {', '.join(done['restart'])}", err=True)
