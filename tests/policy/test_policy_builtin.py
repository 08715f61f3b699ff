"""The table of built-in policies and what all of their options promise."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from smtpmaild.policy import Mode
from smtpmaild.policy.builtin import BUILTIN, Builtin, NobodyIsLocal, build_policies
from smtpmaild.policy.chain import STAGES
from smtpmaild.policy.mail_loop import MailLoopOptions

EVERY = pytest.mark.parametrize(("name", "builtin"), BUILTIN.items(), ids=BUILTIN)


@EVERY
def test_is_called_what_it_is_configured_as(name: str, builtin: Builtin) -> None:
    policy = builtin.build(builtin.options(), NobodyIsLocal())
    assert policy.name == name
    assert set(STAGES) & set(vars(type(policy))), "it is asked nothing"


@EVERY
def test_options_are_described_and_closed(name: str, builtin: Builtin) -> None:
    assert builtin.options.__doc__ and builtin.options.__doc__ != builtin.options.__mro__[1].__doc__
    assert all(field.description for field in builtin.options.model_fields.values())
    assert builtin.options.model_validate({"mode": "monitor"}).mode is Mode.MONITOR
    with pytest.raises(ValidationError, match="Extra inputs"):
        builtin.options.model_validate({"modus": "monitor"})
    with pytest.raises(ValidationError, match="enforce"):
        builtin.options.model_validate({"mode": "sometimes"})


def test_defaults_and_order() -> None:
    assert [(policy.name, mode) for policy, mode in build_policies({})] == [
        ("early_talker", Mode.ENFORCE),
        ("helo_syntax", Mode.ENFORCE),
        ("senders", Mode.OFF),
        ("messages_per_session", Mode.ENFORCE),
        ("mail_loop", Mode.ENFORCE),
    ]


def test_options_decide_the_mode() -> None:
    policies = build_policies({"mail_loop": MailLoopOptions(mode=Mode.MONITOR)})
    assert {policy.name: mode for policy, mode in policies}["mail_loop"] is Mode.MONITOR
