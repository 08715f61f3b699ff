"""The kinds of targets that `type:` under `relays` can name. A new one is its file and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from smtpmaild.delivery import Agent
from smtpmaild.delivery.lmtp import LmtpAgent, LmtpOptions
from smtpmaild.delivery.pipe import PipeAgent, PipeOptions
from smtpmaild.delivery.shared import Shared
from smtpmaild.delivery.smtp import MxAgent, MxOptions, SmtpAgent, SmtpOptions
from smtpmaild.delivery.webhook import WebhookAgent, WebhookOptions

AgentOptions = SmtpOptions | MxOptions | LmtpOptions | PipeOptions | WebhookOptions
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Model]):
    """A kind of target.

    options: the model of what the YAML accepts.  build: makes the agent; touches nothing.  files: the options that are
    paths and absolute when an agent is built.  is_by_domain: mail goes elsewhere for each domain of recipients.
    """

    options: type[Model]
    build: Callable[[Model, Shared], Agent]
    files: tuple[str, ...] = ()
    is_by_domain: bool = False


#: "smtp" is what a relay without a type is.
DEFAULT_TYPE = "smtp"

BUILTIN: dict[str, Kind[Any]] = {
    "smtp": Kind(SmtpOptions, SmtpAgent, files=("password_file", "ca_file")),
    "mx": Kind(MxOptions, MxAgent, files=("password_file", "ca_file"), is_by_domain=True),
    "lmtp": Kind(LmtpOptions, LmtpAgent, files=("path", "password_file", "ca_file")),
    "pipe": Kind(PipeOptions, PipeAgent, files=("directory",)),
    "webhook": Kind(WebhookOptions, WebhookAgent, files=("secret_file", "ca_file")),
}


def build(options: AgentOptions, shared: Shared) -> Agent:
    """The agent that an entry of `relays` describes."""
    agent: Agent = BUILTIN[options.type].build(options, shared)
    return agent
