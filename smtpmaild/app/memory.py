"""What is remembered of what happens, and under which names: the history and its pseudonyms."""

from __future__ import annotations

from smtpmaild.config.models import Config
from smtpmaild.facts import Log
from smtpmaild.history import Settings
from smtpmaild.history.recorder import History
from smtpmaild.privacy.keys import Keys
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
