"""The flags of sendmail: those that mean something, those that are passed for nothing, and mistakes."""

from __future__ import annotations

import pytest

from smtpmaild.sendmail.flags import Mode, Orders, UsageError, parse


@pytest.mark.parametrize(
    ("words", "orders"),
    [
        ("", Orders()),
        ("a b@x", Orders(recipients=("a", "b@x"))),
        ("-t", Orders(reads_header=True)),
        ("-ti", Orders(reads_header=True, ends_at_dot=False)),
        ("-oi -t", Orders(reads_header=True, ends_at_dot=False)),
        ("-o i", Orders(ends_at_dot=False)),
        ("-f a@x b", Orders(sender="a@x", recipients=("b",))),
        ("-fa@x b", Orders(sender="a@x", recipients=("b",))),
        ("-r a@x", Orders(sender="a@x")),
        ("-if a@x", Orders(sender="a@x", ends_at_dot=False)),
        ("-FMe -t", Orders(full_name="Me", reads_header=True)),
        ("-- -t", Orders(recipients=("-t",))),
        ("-", Orders(recipients=("-",))),
        ("-bm a", Orders(recipients=("a",))),
        ("-bs", Orders(mode=Mode.SMTP)),
        ("-bp", Orders(mode=Mode.LIST)),
        ("-bi", Orders(mode=Mode.ALIASES)),
        ("-q", Orders(mode=Mode.RUN)),
        ("-q30m", Orders(mode=Mode.RUN)),
        ("-N success,delay -R full -V id", Orders(notify="SUCCESS,DELAY", ret="FULL", envelope_id="id")),
        ("-Nnever -Rhdrs", Orders(notify="NEVER", ret="HDRS")),
        # What cron, PHP, mailx, mutt, git and sudo pass along
        ("-FCronDaemon -i -B8BITMIME -oem a", Orders(full_name="CronDaemon", ends_at_dot=False, recipients=("a",))),
        ("-oMr x -oQ/tmp -odb -oee -em a", Orders(recipients=("x", "a"))),
        ("-Am -O DeliveryMode=b -h 3 -L tag -p smtp -X log -d0.1 -Umnv -G -C cf a", Orders(recipients=("a",))),
    ],
)
def test_flags(words: str, orders: Orders) -> None:
    assert parse(words.split()) == orders


def test_values_may_be_empty() -> None:
    assert parse(["-f", "", "a"]) == Orders(sender="", recipients=("a",))


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        ("-f", "-f needs a value"),
        ("-tf", "-f needs a value"),
        ("-Z", "unknown flag -Z"),
        ("-bd", "-bd is for the server, which is `smtpmaild --config FILE`"),
        ("-N sometimes", "-N takes never, or some of success, failure and delay, not 'sometimes'"),
        ("-N never,delay", "-N takes never, or some of success, failure and delay, not 'never,delay'"),
        ("-R all", "-R takes full or hdrs, not 'all'"),
        ("-V \u00fc", "-V takes up to 100 printable characters of ASCII"),
    ],
)
def test_mistakes(words: str, mistake: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words.split())
    assert str(caught.value) == mistake
