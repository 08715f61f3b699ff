"""Certificates that change on disk: read again when they are whole, kept when they are not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from authority import issue

from smtpmaild.tls.certificates import Certificates
from smtpmaild.tls.settings import TlsError, TlsSettings

DAY = 86400.0


class Log:
    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, /, **facts: object) -> None:
        self.all.append((event, facts))

    warning = error = exception = info

    def taken(self) -> list[str]:
        events, self.all = [event for event, _ in self.all], []
        return events


class House:
    """A certificate on disk, and a clock that is set by hand."""

    def __init__(self, folder: Path, days: float = 90) -> None:
        self.folder = folder
        self.pair = issue(folder, days=days)
        self.log = Log()
        self.now = time.time()
        self.certificates = Certificates(TlsSettings((self.pair.files,)), ["none", "none"], self.log, lambda: self.now)

    def look(self, times: int = 1) -> list[str]:
        for _ in range(times):
            self.now += 5
            self.certificates.look()
        return self.log.taken()


def test_nothing_changes(tmp_path: Path) -> None:
    house = House(tmp_path)
    context = house.certificates.context("none")
    assert house.look(10) == []
    assert house.certificates.context("none") is context


def test_renewed_certificate_is_read_when_it_rests(tmp_path: Path) -> None:
    house = House(tmp_path)
    before = house.certificates.context("none")
    house.look()
    issue(tmp_path)
    assert house.look() == []  # it may still be written
    assert house.certificates.context("none") is before
    assert house.look() == ["certificates_reread"]
    assert house.certificates.context("none") is not before
    assert house.look(5) == []


def test_bad_new_one_keeps_the_old_and_says_why_once(tmp_path: Path) -> None:
    house = House(tmp_path)
    before = house.certificates.context("none")
    key = house.pair.key.read_text()
    issue(tmp_path)
    house.pair.key.write_text(key)
    house.look()
    house.certificates.look()
    ((event, facts),) = house.log.all
    assert event == "certificates_refused"
    assert "is not the key of the first certificate" in str(facts["cause"])
    house.log.taken()
    assert house.certificates.context("none") is before
    assert house.look(5) == []
    issue(tmp_path)
    assert house.look(2) == ["certificates_reread"]


def test_file_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    house = House(tmp_path)
    text = house.pair.key.read_text()
    house.pair.key.unlink()
    assert house.look(3) == ["certificates_refused"]
    house.pair.key.write_text(text)
    assert house.look(3) == ["certificates_reread"]


def test_another_file_of_the_same_size_and_time(tmp_path: Path) -> None:
    """A symbolic link that points elsewhere, as certbot has them."""
    house = House(tmp_path)
    other = issue(tmp_path, stem="other")
    for path, new in ((house.pair.certificate, other.certificate), (house.pair.key, other.key)):
        times = path.stat()
        os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
        path.unlink()
        path.symlink_to(new)
    assert house.look(3) == ["certificates_reread"]


def test_read_once_a_day_for_new_ticket_keys(tmp_path: Path) -> None:
    house = House(tmp_path)
    before = house.certificates.context("none")
    house.now += DAY
    assert house.look() == []
    assert house.certificates.context("none") is not before


def test_expiry_is_told_once_a_day(tmp_path: Path) -> None:
    house = House(tmp_path, days=10)
    house.look()
    assert house.look(100) == []
    house.now += DAY
    assert house.look() == ["certificate_expires"]


def test_expiry_is_told_at_the_beginning(tmp_path: Path) -> None:
    house = House(tmp_path, days=10)
    house.certificates.look()
    ((event, facts),) = house.log.all
    assert event == "certificate_expires"
    assert facts["names"] == ["mx.example.com"]
    assert str(facts["cause"]).startswith("expires on 20")


def test_expiry_of_a_new_one_is_told_at_once(tmp_path: Path) -> None:
    house = House(tmp_path, days=50)
    assert house.look() == []
    issue(tmp_path, days=3)
    assert house.look(3) == ["certificates_reread", "certificate_expires"]


def test_bad_one_at_the_beginning(tmp_path: Path) -> None:
    pair = issue(tmp_path)
    pair.key.write_text("")
    with pytest.raises(TlsError, match="there is no private key"):
        Certificates(TlsSettings((pair.files,)), ["none"], Log())
