"""Photos of several requests, labelled in batches by one thread that owns the network."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby

from PIL import Image

from plda.use.network import Labelled, TrainedNetwork


@dataclass(frozen=True)
class Waiting:
    """A photo that waits for its labels.

    Attributes:
        photo: upright RGB, as `read_photo` returns it.
        size: (width, height) of the result.
        tags: names of the classes that it may show; None: any class.
        late: set if the result is not needed any more.
        result: its labels, or the error; cancelled if it was late before its turn.
    """

    photo: Image.Image
    size: tuple[int, int]
    tags: Sequence[str] | None
    late: threading.Event = field(default_factory=threading.Event)
    result: "Future[Labelled]" = field(default_factory=Future)

    def begins(self) -> bool:
        """Return whether the photo is to be labelled, and note that its turn has come."""
        if self.late.is_set():
            self.result.cancel()
        return self.result.running() or self.result.set_running_or_notify_cancel()


class Batches:
    """A thread that labels the photos that wait, those of one input size together.

    Args:
        network: the network; only the thread uses it.
        most: maximum number of photos that the network processes at once.
        note: called with the number of photos of each batch.
    """

    def __init__(self, network: TrainedNetwork, most: int, note: Callable[[int], None]) -> None:
        self._network, self._most, self._note = network, most, note
        self._waiting: queue.SimpleQueue[Waiting] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="labelling", daemon=True).start()

    def add(self, photo: Waiting) -> None:
        """Have a photo labelled; its `result` is set later."""
        self._waiting.put(photo)

    def _work(self) -> None:
        while True:
            self._label_waiting()

    def _label_waiting(self) -> None:
        waiting = [self._waiting.get()]
        while not self._waiting.empty():  # no other thread takes from it
            waiting.append(self._waiting.get())
        for group in self._groups(waiting):
            self._label(group)

    def _groups(self, waiting: Sequence[Waiting]) -> Iterator[list[Waiting]]:
        """Yield at most `most` photos of one input size at a time."""

        def size(one: Waiting) -> tuple[int, int]:
            return self._network.input_size(one.photo)

        for _, same in groupby(sorted(waiting, key=size), key=size):
            group = list(same)
            for first in range(0, len(group), self._most):
                yield group[first : first + self._most]

    def _label(self, group: Sequence[Waiting]) -> None:
        """Set the results; if a group fails, its photos are labelled one by one."""
        group = [one for one in group if one.begins()]
        if not group:
            return
        self._note(len(group))
        try:
            labelled = self._network.label_together(
                [one.photo for one in group],
                sizes=[one.size for one in group],
                tags=[one.tags for one in group],
            )
        except Exception as error:  # any error: the thread must go on
            if len(group) == 1:
                group[0].result.set_exception(error)
            else:
                for one in group:
                    self._label([one])
            return
        for one, labels in zip(group, labelled, strict=True):
            one.result.set_result(labels)
