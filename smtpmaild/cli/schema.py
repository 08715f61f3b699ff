"""`smtpmaild schema`: what editors need to check and complete the configuration."""

from __future__ import annotations

import click


@click.command(epilog="Example: smtpmaild schema > smtpmaild.schema.json")
def schema() -> None:
    """Print the JSON Schema of the configuration."""
    from smtpmaild.config.schema import schema_text

    click.echo(schema_text(), nl=False)
