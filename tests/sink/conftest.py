"""Fixtures of the store tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import Faults, MakeStore, Store

from smtpmaild.sink.builtin import BUILTIN


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    started: list[Store] = []

    def make(
        kind: str = "maildir", *, threads: int = 2, memory: int = 1 << 26, root: Path = tmp_path, **options: object
    ) -> Store:
            path = options.pop("path", "{domain}/{mailbox}" if kind == "maildir" else "")
        checked = BUILTIN[kind].options.model_validate({"type": kind, "path": f"{root}/{path}".rstrip("/"), **options})
        store = Store(checked, root, threads=threads, memory=memory).start()
        started.append(store)
        return store

    yield make
    for store in started:
        store.sink.stop()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)
