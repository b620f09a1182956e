"""Training progress: a bar on a terminal, a line per epoch in a log file."""

import sys
import time

from torch import Tensor

from plda.bar import Bar

SECONDS_BETWEEN_LOSSES = 1.0  # reading a loss waits for the GPU, so it is not read at every step


class Progress(Bar):
    """Shows loss, learning rate, speed and time left on standard error."""

    def __init__(self, *, steps: int, start: int, epochs: int, batch_size: int, silent: bool) -> None:
        self._steps, self._start, self._epochs, self._batch_size = steps, start, epochs, batch_size
        self._silent = silent
        self._began = self._shown = time.monotonic()
        super().__init__(disable=silent, total=steps, initial=start, unit="step")

    def step(self, loss: Tensor) -> None:
        """Count one more step."""
        self._bar.update()
        if not self._bar.disable and time.monotonic() - self._shown > SECONDS_BETWEEN_LOSSES:
            self._shown = time.monotonic()
            self._bar.set_postfix(loss=f"{float(loss):.4f}")

    def epoch(self, row: dict[str, float]) -> None:
        """Report one more epoch; `row` is its row of the history."""
        if self._silent:
            return
        seconds = time.monotonic() - self._began
        done = int(row["step"]) - self._start
        left = seconds / done * (self._steps - row["step"])
        text = (
            f"epoch {int(row['epoch'])}/{self._epochs}  loss {row['loss']:.4f}  lr {row['lr']:.2e}  "
            f"{done * self._batch_size / seconds:.1f} images/s  {_clock(left)} left"
        )
        if self._bar.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.write(text, file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
