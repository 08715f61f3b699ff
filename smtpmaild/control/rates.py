"""How fast numbers grow: samples of the last minutes, taken every few seconds. Pure: the time is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

#: Between two samples, and how long they are kept.
SAMPLE_SECONDS = 5.0
_KEPT_SECONDS = 300.0


class Rates:
    """Of plain numbers; what is no number has no rate."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[str, float]]] = deque()

    def note(self, now: float, numbers: Mapping[str, Any]) -> None:
        """Take a sample."""
        plain = {name: value for name, value in numbers.items() if isinstance(value, int | float)}
        self._samples.append((now, plain))
        while self._samples[0][0] < now - _KEPT_SECONDS:
            self._samples.popleft()

    def per_second(self, seconds: float) -> dict[str, float]:
        """Over about so many last seconds; nothing before there are two samples."""
        if len(self._samples) < 2:
            return {}
        now, last = self._samples[-1]
        at, first = next(sample for sample in self._samples if sample[0] >= now - seconds - 0.5 * SAMPLE_SECONDS)
        if at >= now:
            return {}
        return {name: (value - first.get(name, 0)) / (now - at) for name, value in last.items()}
