"""`smtpmaild record`: sessions of the running daemon, kept as transcripts."""

from __future__ import annotations

import json
import os
import sys

import click

from smtpmaild.cli.shown import plain
from smtpmaild.cli.steering import control_socket, socket_options, troubles

EX_CANTCREAT = 73


@click.command(epilog="Example: smtpmaild record -c smtp.yaml --client 192.0.2.7 --to recordings")
@socket_options
@click.option("--client", default="", metavar="NET", help="Sessions of clients in this network, or of this address.")
@click.option("--listener", default="", metavar="NAME", help="Sessions at this listener.")
@click.option("--rule", default="", metavar="NAME", help="Sessions in which this rule or policy has decided anything.")
@click.option("--for", "duration", default="10m", show_default=True, metavar="DURATION", help="How long: 30s, 10m, 1h.")
@click.option("--to", "directory", required=True, metavar="DIR", help="Where the files go; made if it is not there.")
@click.option("--sessions", type=click.IntRange(1), default=1000, show_default=True, help="So many at most.")
@click.option("--bodies", is_flag=True, help="Keep what messages say, not only how long they are.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each session.")
def record(
    config: str,
    socket: str | None,
    client: str,
    listener: str,
    rule: str,
    duration: str,
    directory: str,
    sessions: int,
    bodies: bool,
    as_json: bool,
) -> None:
    """Keep sessions of the running daemon as transcripts.

    Of one client, listener or rule; sessions that begin from now on and end before the time is up, each a file that
    `smtpmaild replay` plays. Passwords are left out, and so is what messages say unless --bodies is given; addresses
    stay. Ctrl-C ends it earlier. The daemon is told by its control socket.

    Exit status: 0 done, 69 none is running, 73 a file cannot be written, 75 the recording was cut off by a reload, or
    the daemon does not answer.
    """
    from smtpmaild.config.units import parse_duration
    from smtpmaild.control.client import ask

    if not (client or listener or rule):
        raise click.UsageError("say of whom: --client, --listener or --rule")
    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--for") from None
    wish = {
        "client": client,
        "listener": listener,
        "rule": rule,
        "seconds": seconds,
        "most": sessions,
        "bodies": bodies,
    }
    path = control_socket(config, socket)
    kept = 0
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with troubles():
            for row in ask(path, "record", wish):
                if row["name"]:
                    kept += 1
                    file = _keep(directory, row["name"], row["text"])
                    click.echo(json.dumps({"file": file}) if as_json else plain(file))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        click.echo(f"{error.filename}: {error.strerror}", err=True)
        sys.exit(EX_CANTCREAT)
    click.echo(f"{kept} session{'' if kept == 1 else 's'} in {directory}", err=True)


def _keep(directory: str, name: str, text: str) -> str:
    """The name comes from another process: of a path only its end counts."""
    path = os.path.join(directory, os.path.basename(name))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path
