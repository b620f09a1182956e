"""A progress bar on a terminal. Without a terminal the bar is hidden, and its users write lines instead."""

import sys
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm


class Bar:
    """A progress bar on standard error; use it in a `with` statement, which closes it."""

    def __init__(self, *, disable: bool = False, **options: Any) -> None:
        """Create the bar. `options` are tqdm's; `disable` hides the bar on a terminal, too."""
        self._bar = tqdm(
            file=sys.stderr, dynamic_ncols=True, disable=disable or not sys.stderr.isatty(), **options
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
