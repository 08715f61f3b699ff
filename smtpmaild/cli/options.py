"""What several commands share: the --config option and the way a configuration is read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from smtpmaild.config import Config

EX_CONFIG = 78
Command = TypeVar("Command", bound=Callable[..., Any])


def config_option(command: Command) -> Command:
    """`--config FILE` behind a command; it may stand before the command as well."""
    return _config_option(_needed_or_from_group)(command)


def optional_config_option(command: Command) -> Command:
    """The same for who may do without; "" then."""
    return _config_option(or_from_group)(command)


def _config_option(callback: Callable[..., str]) -> Callable[[Command], Command]:
    return click.option(
        "-c", "--config", "path", metavar="FILE", callback=callback, help="The configuration, a YAML file."
    )


def or_from_group(context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    """What stands behind the command, or before it, or in the environment; "" for nowhere."""
    return str(value or context.obj or "")


def _needed_or_from_group(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    return needed(or_from_group(context, parameter, value))


def needed(path: str) -> str:
    """The path of a configuration; ends the process with 64 where there is none."""
    if not path:
        raise click.UsageError("--config FILE is missing", click.get_current_context())
    return path


def read_config(path: str) -> Config:
    """The configuration; with mistakes in it they are all printed and the process ends with 78 (EX_CONFIG)."""
    from smtpmaild.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        click.echo(error.render(), err=True)
        sys.exit(EX_CONFIG)


def read_dangerous_config(path: str) -> Config:
    """The same for who asks what would happen: an open relay is printed, and asked all the same."""
    from smtpmaild.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        click.echo(error.render(), err=True)
        if error.dangerous is None:
            sys.exit(EX_CONFIG)
        return error.dangerous


def read_rehearsed_config(path: str) -> Config:
    """The same with its tests played: one that fails is a mistake like any other."""
    from smtpmaild import app
    from smtpmaild.config import ConfigError

    config = read_config(path)
    try:
        app.rehearse(config)
    except ConfigError as error:
        click.echo(error.render(), err=True)
        sys.exit(EX_CONFIG)
    return config
