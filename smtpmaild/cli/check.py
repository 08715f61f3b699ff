"""`smtpmaild check`: every mistake of a configuration, before it is used."""

from __future__ import annotations

from collections.abc import Mapping

import click

from smtpmaild.cli.options import config_option, read_rehearsed_config


@click.command(epilog="Example: smtpmaild check --config smtp.yaml")
@config_option
def check(path: str) -> None:
    """Print every mistake in the configuration, failed tests too.

    Without one it tells what the roles of the listeners bring. Warnings are printed too and are no mistakes.

    Exit status: 0 no mistake, 78 at least one.
    """
    config = read_rehearsed_config(path)
    for warning in config.warnings:
        click.echo(warning.render(), err=True)
    for listener in config.listeners:
        if keys := config.brought(listener):
            click.echo(f"listener {listener.name}: the role {listener.role} brings {_shown(keys)}")
    warnings, tests = len(config.warnings), len(config.tests)
    passed = f", {tests} test{'' if tests == 1 else 's'} passed" if tests else ""
    click.echo(f"{path}: no mistakes, {warnings} warning{'' if warnings == 1 else 's'}{passed}")


def _shown(keys: Mapping[str, object]) -> str:
    return ", ".join(f"{key}: {str(value).lower()}" for key, value in keys.items())
