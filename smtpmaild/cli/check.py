"""`smtpmaild check`: every mistake of a configuration, before it is used."""

from __future__ import annotations

import click

from smtpmaild.cli.options import config_option, read_config


@click.command(epilog="Example: smtpmaild check --config smtp.yaml")
@config_option
def check(path: str) -> None:
    """Print every mistake in the configuration.

    Exit status: 0 none, 78 at least one. Warnings are printed too and are no mistakes.
    """
    config = read_config(path)
    for warning in config.warnings:
        click.echo(warning.render(), err=True)
    warnings = len(config.warnings)
    click.echo(f"{path}: no mistakes, {warnings} warning{'' if warnings == 1 else 's'}")
