"""Progress of a long transfer: a bar on a terminal, a line now and then in a log file."""

import sys
import time

from plda.bar import Bar

SECONDS_BETWEEN_LINES = 30.0


class Progress(Bar):
    """A display of bytes done, total and speed on standard error."""

    def __init__(self, what: str, total: int | None, done: int = 0) -> None:
        """Start at `done` of `total` bytes (None if unknown); `what` is the name shown."""
        self._what, self._total, self._done, self._before = what, total, done, done
        self._began = self._shown = time.monotonic()
        super().__init__(desc=what, total=total, initial=done, unit="B", unit_scale=True)

    def add(self, count: int) -> None:
        """Add `count` bytes."""
        self._done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and now - self._shown > SECONDS_BETWEEN_LINES:
            self._shown = now
            speed = (self._done - self._before) / (now - self._began)
            of = f" of {in_words(self._total)}" if self._total is not None else ""
            say(f"{self._what}: {in_words(self._done)}{of}, {in_words(speed)}/s")


def say(text: str) -> None:
    """Print a line on standard error, at once."""
    print(text, file=sys.stderr, flush=True)


def in_words(count: float) -> str:
    """Return a human-readable size."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"
