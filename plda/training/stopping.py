"""Clean stop of a training run: at SIGTERM or SIGUSR1, which schedulers send before they kill, and at Ctrl-C.

The first such signal is recorded, so that training can save its state at the next step and exit; the second
one kills at once.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@contextmanager
def listening() -> Iterator[Callable[[], int]]:
    """Record signals in this context; yield a function that returns the first signal's number, or 0.

    Only in the main thread. Ctrl-C stays ignored if it was ignored before, as in a shell's background jobs.
    """
    came: list[int] = []
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    heard = [each for each in SIGNALS if not (each == signal.SIGINT and ignored)]

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        for each in heard:
            signal.signal(each, signal.SIG_DFL)

    before = {each: signal.signal(each, remember) for each in heard}
    try:
        yield lambda: came[0] if came else 0
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def leave_it_to_the_trainer(_worker: int) -> None:
    """Ignore signals in a data loader's worker: it receives them too, but the next step needs it."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
