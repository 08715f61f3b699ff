"""What a daemon does that may not write where its configuration says: without a history it serves, not without its
control socket."""

from __future__ import annotations

from pathlib import Path

import pytest
from whole_daemon import PATIENCE, WholeDaemon, until

CONFIG = """\
hostname: mx.example.com
listeners: [{name: mx, listen: ["127.0.0.1:0"]}]
local_domains: {local.example: {deliver: mail, mailboxes: [bob]}}
deliver_to: {mail: {type: spool, path: mail}}
logging: {format: json}
"""


@pytest.fixture
def in_the_way(tmp_path: Path) -> Path:
    """A file, where there should be a directory."""
    path = tmp_path / "file"
    path.touch()
    return path


def test_without_a_history_mail_goes_on(tmp_path: Path, in_the_way: Path) -> None:
    with WholeDaemon(tmp_path, CONFIG + "history: {path: file/history.sqlite}\n") as daemon:
        assert f"smtp.yaml:6:17: warning: {in_the_way}: Not a directory" in daemon.said
        queue_id = daemon.send("bob@local.example")
        assert (tmp_path / "mail" / f"{queue_id}.eml").exists()
        until(lambda: daemon.logged("history_failed"), "the log has it, too")


def test_without_its_control_socket_it_does_not_start(tmp_path: Path, in_the_way: Path) -> None:
    daemon = WholeDaemon(tmp_path, CONFIG + "control: {socket: file/control.sock}\n")
    assert daemon.process.wait(PATIENCE) == 73
    assert f"smtp.yaml:6:19: warning: {in_the_way}: Not a directory" in daemon.said
    (failed,) = daemon.logged("start_failed")
    assert "file/control.sock" in failed["cause"]
