"""`smtpmaild --config FILE`: serves in the foreground until it is told to stop."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import click

from smtpmaild.cli.options import read_config, read_rehearsed_config

if TYPE_CHECKING:
    from smtpmaild.config import Config
    from smtpmaild.facts import Log
    from smtpmaild.log import LogStream

EX_CANTCREAT, EX_NOPERM = 73, 77


def serve(path: str, *, stdin: bool = False, listener: str | None = None, allow_root: bool = False) -> int:
    """Serve by the configuration in this file; the exit status."""
    _open_standard_files()
    if stdin:
        _keep_facts_from_the_peer()
    config = read_config(path) if stdin else read_rehearsed_config(path)  # of one session: not each time
    for warning in config.warnings:
        click.echo(warning.render(), err=True)

    from smtpmaild import log as logging
    from smtpmaild.server.privileges import PrivilegeError
    from smtpmaild.server.sockets import SocketError

    stream, log = logging.to_stderr(config.logging.level, config.logging.format)
    try:
        return _one_session(config, log, listener, allow_root) if stdin else _daemon(config, stream, log, allow_root)
    except (SocketError, PrivilegeError) as error:
        log.error("start_failed", cause=str(error))
        return EX_NOPERM if isinstance(error, PrivilegeError) else EX_CANTCREAT
    except OSError as error:  # told without its number: "Permission denied: /var/mail"
        words = (error.strerror or str(error), error.filename)
        log.error("start_failed", cause=": ".join(str(word) for word in words if word))
        return EX_CANTCREAT


def _open_standard_files() -> None:
    """Whoever started us with `2>&-` must not find our log in a message: the next file we open would get number 2."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _keep_facts_from_the_peer() -> None:
    """inetd makes one socket standard input, output and error: what we log and warn of is nothing for the peer."""
    if stat.S_ISSOCK(os.fstat(1).st_mode) and os.path.sameopenfile(1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _daemon(config: Config, stream: LogStream, log: Log, allow_root: bool) -> int:
    from smtpmaild import app
    from smtpmaild.server.daemon import run

    app.log_domains(config, log)
    return run(app.plan(config, stream, log, allow_root=allow_root))


def _one_session(config: Config, log: Log, listener: str | None, allow_root: bool) -> int:
    import asyncio
    import concurrent.futures.thread  # noqa: F401  asyncio.to_thread wants it, when we may not be able to read it

    from smtpmaild import app
    from smtpmaild.server import privileges
    from smtpmaild.server.stream_session import serve_standard_io

    built = app.build(config, log, history=app.build_history(config, log), pseudonyms=app.build_pseudonyms(config, log))
    name = listener or config.listeners[0].name
    if name not in built.doors:
        raise click.BadParameter(
            f"there is no listener {name!r}, only {', '.join(built.doors)}", param_hint="--listener"
        )

    door = built.doors[name]

    # As the daemon does: what root stores in a mailbox, the user of the config could not touch.
    identity = privileges.settle(config.user or "", config.group or "", allow_root=config.allow_root or allow_root)
    privileges.prepare_process()
    if identity is not None:
        identity.assume(os.environ)

    async def session() -> None:
        loop = asyncio.get_running_loop()
        for sink in built.sinks.values():
            sink.prepare()
            sink.start(loop.call_soon_threadsafe)
        for companion in built.companions:
            companion.start(loop)
        try:
            await serve_standard_io(
                door.service,
                door.timeouts.command,
                None if door.tls is None else door.tls.context,
                is_implicit=door.tls is not None and door.tls.is_implicit,
            )
        finally:
            for companion in built.companions:
                await companion.stop()
            for sink in built.sinks.values():
                await asyncio.to_thread(sink.stop)

    asyncio.run(session())
    return 0
