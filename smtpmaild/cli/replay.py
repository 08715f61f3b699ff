"""`smtpmaild replay`: sessions on record, played against a configuration or a running server."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smtpmaild.cli.options import needed, optional_config_option, read_dangerous_config
from smtpmaild.cli.shown import plain

if TYPE_CHECKING:
    from smtpmaild.config.listeners import Listener
    from smtpmaild.config.models import Config
    from smtpmaild.transcripts import Transcript
    from smtpmaild.transcripts.playing import Difference

EX_DIFFERENT, EX_DATAERR, EX_UNAVAILABLE = 1, 65, 69


@click.command(epilog="Example: smtpmaild replay -c other.yaml recordings/*.smtp")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False), metavar="FILE...")
@optional_config_option
@click.option("--server", metavar="HOST:PORT", help="Play against this running server; or the path of a Unix socket.")
@click.option("--listener", metavar="NAME", help="Which listener to play to; by default the one that the file names.")
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False),
    help="With --server: the password of whoever signs in, in the first line.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replay(
    files: tuple[str, ...],
    path: str,
    server: str | None,
    listener: str | None,
    password_file: str | None,
    as_json: bool,
) -> None:
    """Play recorded sessions, and show the first difference.

    Against the configuration they are played in this process: the client has its recorded address, nothing is stored,
    nothing travels, no network is asked. With --server they are played against a server that is running, from this
    machine; what it accepts it will deliver, so let it be one for that. --config is needed for --listener alone then.
    Bodies and passwords that are not on record are replaced: by a message of the same length, and by --password-file.
    To a listener that --listener names the client speaks as that listener begins: within TLS, or not yet. Certificates
    are not looked at.

    Exit status: 0 all said the same, 1 at least one did not, 65 a file is no transcript, 69 no server there.
    """
    from smtpmaild.transcripts.playing import NotPlayedError
    from smtpmaild.transcripts.reading import read

    if not server or listener:
        needed(path)
    try:
        transcripts = [read(Path(file).read_text(), file) for file in files]
    except (ValueError, OSError) as error:
        click.echo(plain(str(error)), err=True)
        sys.exit(EX_DATAERR)
    password = Path(password_file).read_text().partition("\n")[0] if password_file else ""
    try:
        if server:
            found = _against_server(transcripts, server, password, _begins_with_tls(path, listener))
        else:
            found = _rehearsed(transcripts, path, listener)
    except NotPlayedError as error:
        click.echo(plain(str(error)), err=True)
        sys.exit(EX_DATAERR)
    except OSError as error:
        click.echo(f"{server}: {error.strerror or error}", err=True)
        sys.exit(EX_UNAVAILABLE)
    click.echo(_as_json(transcripts, found) if as_json else _as_text(transcripts, found))
    sys.exit(EX_DIFFERENT if any(found) else 0)


def _rehearsed(transcripts: Sequence[Transcript], path: str, listener: str | None) -> list[Difference | None]:
    import asyncio

    from smtpmaild import app
    from smtpmaild.envelope import Peer
    from smtpmaild.transcripts.playing import begins_otherwise, rehearse

    stage = app.stage(read_dangerous_config(path))

    async def play_one(one: Transcript) -> Difference | None:
        its = _listener(stage.config, listener or one.listener or None, f"{one.name}: ")
        is_implicit = its.tls == "implicit"
        otherwise = None if listener else begins_otherwise(one, is_implicit)
        return otherwise or await rehearse(one, stage.service(its.name, Peer(one.client)), is_implicit)

    async def play_all() -> list[Difference | None]:
        return [await play_one(one) for one in transcripts]

    return asyncio.run(play_all())


def _listener(config: Config, name: str | None, whose: str = "") -> Listener:
    from smtpmaild.rehearsal import QuestionError, listener_of

    try:
        return listener_of(config, name)
    except QuestionError as error:
        raise click.BadParameter(f"{whose}{error}", param_hint="--listener") from None


def _begins_with_tls(path: str, listener: str | None) -> bool | None:
    """As the listener of that name does; None: as each session did on record."""
    return _listener(read_dangerous_config(path), listener).tls == "implicit" if listener else None


def _against_server(
    transcripts: Sequence[Transcript], server: str, password: str, is_implicit: bool | None
) -> list[Difference | None]:
    import asyncio

    from smtpmaild.transcripts.playing import play

    host, colon, port = ("", "", "0") if server.startswith("/") else server.rpartition(":")
    if not (colon or server.startswith("/")) or not port.isdecimal():
        raise click.BadParameter(f"{server!r} is neither HOST:PORT nor a path", param_hint="--server")

    async def play_all() -> list[Difference | None]:
        return [await play(one, host.strip("[]") or server, int(port), password, is_implicit) for one in transcripts]

    return asyncio.run(play_all())


def _as_json(transcripts: Sequence[Transcript], found: Sequence[Difference | None]) -> str:
    from dataclasses import asdict

    rows = [
        {"file": transcript.name, "same": one is None, "difference": asdict(one) if one else None}
        for transcript, one in zip(transcripts, found, strict=True)
    ]
    return json.dumps(rows, indent=2)


def _as_text(transcripts: Sequence[Transcript], found: Sequence[Difference | None]) -> str:
    from smtpmaild.config.mistakes import visible

    same = sum(one is None for one in found)
    shown = [line for one in found if one is not None for line in one.render().split("\n")]
    return "\n".join([*map(visible, shown), f"{same} of {len(transcripts)} sessions are answered as recorded"])
