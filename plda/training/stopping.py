"""A polite end. Schedulers send SIGTERM, or SIGUSR1 if asked to, some time before they kill.

The first such signal is remembered, so that a training can keep its state at the next step and leave; the
second kills at once.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def listening() -> Iterator[Callable[[], bool]]:
    """Within, remember a signal; what is given says whether one has come. In a main thread only."""
    came: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    before = {each: signal.signal(each, remember) for each in SIGNALS}
    try:
        yield lambda: bool(came)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def leave_it_to_the_trainer(_worker: int) -> None:
    """Make a data loader's worker deaf: the signal reaches it too, and without it there is no next step."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
