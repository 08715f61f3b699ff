"""`smtpmaild check`: every mistake of a configuration, before it is used."""

from __future__ import annotations

import click

from smtpmaild.cli.options import config_option, read_config


@click.command(epilog="Example: smtpmaild check --config smtp.yaml")
@config_option
def check(path: str) -> None:
    """Read the configuration and print every mistake in it; exit status 78 if there is one."""
    config = read_config(path)
    for warning in config.warnings:
        click.echo(warning.render(), err=True)
    warnings = len(config.warnings)
    click.echo(f"{path}: no mistakes, {warnings} warning{'' if warnings == 1 else 's'}")
