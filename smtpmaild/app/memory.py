"""What is remembered of what happens, and under which names: the history and its pseudonyms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from smtpmaild.config.models import Config
from smtpmaild.facts import Log, Remember
from smtpmaild.history import Settings
from smtpmaild.history.recorder import History, Recorder
from smtpmaild.privacy.keys import Keys
from smtpmaild.privacy.log import Private, PrivateMemory
from smtpmaild.privacy.pseudonyms import Pseudonyms
from smtpmaild.sink.options import DiscardOptions


def build_history(config: Config, log: Log, before: History | None = None) -> History | None:
    """The memory of a configuration; that of before, where it is the same."""
    if config.history is None:
        return None
    settings = Settings(config.history.path, config.history.keep, config.history.size)
    return before if before is not None and before.settings == settings else History(settings, log)


def build_pseudonyms(config: Config, log: Log) -> Pseudonyms | None:
    """What takes the names out of facts, where the configuration wants it."""
    path = config.logging.privacy_file
    if not config.logging.privacy:
        return None
    stores = (options.path for options in config.deliver_to.values() if not isinstance(options, DiscardOptions))
    words = {step for template in stores for step in template.split("/")} | {*config.local_domains, "new", "cur", "tmp"}

    def tell(cause: str) -> None:
        log.error("privacy_key_unavailable", path=path, cause=cause, then="each process has a key of its own")

    return Pseudonyms(Keys(path, tell).today, words)


def remembering(log: Log, history: History | None, pseudonyms: Pseudonyms | None) -> tuple[Log, Remember | None]:
    """What everybody tells, and what is told more, where there is a history: it names nobody first, where that is
    wanted, and then is remembered."""
    record: Remember | None = None
    if history is not None:
        recorder = Recorder(log, history)
        log, record = recorder, recorder.record
    if pseudonyms is not None:
        log, record = Private(log, pseudonyms), None if record is None else PrivateMemory(record, pseudonyms)
    return log, record


@contextmanager
def remembered(config: Config, log: Log, troubles: Log) -> Iterator[Log]:
    """The same log for a command that does the work of a daemon that is down; at the end it is in the history.

    troubles: hears why the history or the key of the pseudonyms cannot be had.
    """
    history = build_history(config, troubles)
    whole, _ = remembering(log, history, build_pseudonyms(config, troubles))
    if history is None:
        yield whole
        return
    with history.collecting():
        yield whole
