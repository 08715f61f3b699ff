"""What the commands share that talk to a running daemon: where its socket is, and what goes wrong on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from smtpmaild.cli.options import needed, or_from_group

if TYPE_CHECKING:
    from smtpmaild.config.places import Places

EX_UNAVAILABLE, EX_CONFIG = 69, 78
_NO_SECTION = (
    "{path} has no section control, so the daemon has no socket to ask it by; add `control: {{}}` and restart it"
)
Command = TypeVar("Command", bound=Callable[..., Any])


def socket_options(command: Command) -> Command:
    """`--config FILE`, in which the control socket stands, or `--socket PATH`, which needs no file."""
    options = (
        click.option(
            "-c", "--config", "config", metavar="FILE", callback=or_from_group, help="The configuration, a YAML file."
        ),
        click.option(
            "--socket",
            "socket",
            metavar="PATH",
            envvar="SMTPMAILD_CONTROL",
            show_envvar=True,
            help="The control socket; by default the one that the configuration names.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def control_socket(config: str, socket: str | None) -> str:
    """The path to talk to; ends the process with 78 where there is none."""
    if socket:
        return socket
    found = read_places(config).control
    if not found:
        fail(EX_CONFIG, _NO_SECTION.format(path=config))
    return found


def read_places(config: str) -> Places:
    """Where things are; ends the process with 78 where the file cannot be read, with 64 where none is named."""
    from smtpmaild.config.mistakes import ConfigError
    from smtpmaild.config.places import places

    try:
        return places(needed(config))
    except ConfigError as error:
        click.echo(error.render(), err=True)
        sys.exit(EX_CONFIG)


@contextmanager
def troubles() -> Iterator[None]:
    """What the daemon refuses ends the process with its words and its exit status."""
    from smtpmaild.control.client import ControlError

    try:
        yield
    except ControlError as error:
        fail(error.status, str(error))


def fail(status: int, message: str) -> NoReturn:
    """Say what is wrong and end with this exit status."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(status)
