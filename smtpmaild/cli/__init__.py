"""The commands: one file each. They parse, call and print; what they call holds the logic.

Only click is imported here and at the top of the commands' files: `smtpmaild --version` must not wait for pydantic.
Exit codes are those of sysexits.h.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from smtpmaild import __version__
from smtpmaild.cli.audit import audit
from smtpmaild.cli.check import check
from smtpmaild.cli.completion import completion
from smtpmaild.cli.dev import dev
from smtpmaild.cli.drain import drain
from smtpmaild.cli.healthcheck import healthcheck
from smtpmaild.cli.queue import queue
from smtpmaild.cli.record import record
from smtpmaild.cli.reload import reload_
from smtpmaild.cli.replay import replay
from smtpmaild.cli.schema import schema
from smtpmaild.cli.sendmail import NAMES, sendmail
from smtpmaild.cli.serve import serve
from smtpmaild.cli.status import status
from smtpmaild.cli.top import top
from smtpmaild.cli.trace import trace
from smtpmaild.cli.try_ import try_
from smtpmaild.cli.user import user
from smtpmaild.cli.version import version

EX_OK, EX_USAGE, EX_SOFTWARE, EX_CONFIG = 0, 64, 70, 78


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: smtpmaild --config smtp.yaml",
)
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    envvar="SMTPMAILD_CONFIG",
    show_envvar=True,
    help="The configuration, a YAML file.",
)
@click.option(
    "--stdin", is_flag=True, help="Serve one session on standard input and output, for inetd; lines end in CRLF."
)
@click.option("--listener", metavar="NAME", help="With --stdin: whose rules apply; the first listener's by default.")
@click.option("--allow-root", is_flag=True, help="Serve as root where the configuration names no user.")
@click.version_option(__version__, "-V", "--version", prog_name="smtpmaild", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, config: str | None, stdin: bool, listener: str | None, allow_root: bool) -> None:
    """An SMTP daemon: receives mail and keeps every message it acknowledges safely on disk.

    Without a command it serves in the foreground, by the configuration given with --config.
    """
    context.obj = config
    if context.invoked_subcommand is None:
        if config is None:
            click.echo(context.get_help())
            raise click.UsageError("--config FILE is missing")
        if listener and not stdin:
            raise click.UsageError("--listener goes with --stdin; a daemon serves all of them")
        sys.exit(serve(config, stdin=stdin, listener=listener, allow_root=allow_root))


for command in (
    audit,
    check,
    completion,
    dev,
    drain,
    healthcheck,
    queue,
    record,
    reload_,
    replay,
    schema,
    sendmail,
    status,
    top,
    trace,
    try_,
    user,
    version,
):
    cli.add_command(command)


def _with_hint(complaint: str, words: Sequence[str]) -> str:
    """The complaint; where a configuration stands there without its option, the commonest slip, it says so."""
    files = [word for word in words if word.endswith((".yaml", ".yml"))]
    if not files or any(word.startswith(("-c", "--config")) for word in words):
        return complaint
    return f"{complaint.rstrip('.')}; did you mean --config {files[0]}?"


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Never returns. Under another name it is the command of that name."""
    name = sys.argv[0].rpartition("/")[2]
    if arguments is None and name in NAMES:
        arguments = ["sendmail", *NAMES[name], *sys.argv[1:]]
    try:
        sys.exit(cli.main(arguments, prog_name="smtpmaild", standalone_mode=False) or EX_OK)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.UsageError as error:
        complaint = _with_hint(error.message, sys.argv[1:] if arguments is None else arguments)
        (error if complaint == error.message else click.UsageError(complaint, error.ctx)).show()
        sys.exit(EX_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(EX_SOFTWARE)
