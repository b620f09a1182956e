"""The decisions of a review: read from its folder, changed there, and undone."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from plda.data.decisions import MASKS, TABLE, Decision, read_decisions, write_decisions
from plda.data.index import Entry
from plda.errors import InputError
from plda.files import locked, write_bytes
from plda.masks.folder import mask_path
from plda.masks.review import accepted_masks, image_name
from plda.reviewing.run import Run, read_file_of

UNDO = 1000  # most decisions that can be undone


class State(NamedTuple):
    """What a review holds about an image: the decision, and the file in the folder of accepted masks."""

    decision: Decision | None
    mask: bytes | None


class Change(NamedTuple):
    """A change of a review."""

    entry: Entry
    before: State
    after: State


class Session:
    """A review of a run. The folder is the only state: other programs may change it at any time.

    Every method may be called by several threads at once. A method that changes the review returns after the
    change is written. Rows of images that are not in the run are kept.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        """Open a review; create it if it is missing.

        Raises:
            InputError: the table is invalid, or cannot be written.
        """
        self.run = run
        self._folder = folder
        self._lock = Lock()
        self._changes: deque[Change] = deque(maxlen=UNDO)
        with self._changing() as decided:
            if not (folder / TABLE).exists():
                write_decisions(folder, decided)

    def decisions(self) -> dict[str, Decision]:
        """Return the decisions by image.

        Raises:
            InputError: the table is invalid.
        """
        exists = (self._folder / TABLE).exists()
        return read_decisions(self._folder, self.run.data.classes) if exists else {}

    def mask(self, entry: Entry) -> bytes:
        """Return the file of an image's mask: the accepted one, or else that of the run.

        Raises:
            InputError: it cannot be read; or it is accepted and has another size than its image, or unknown
                ids.
        """
        return self._mask(entry, self.decisions())

    def decide(self, entry: Entry, decision: Decision | None, version: str = "") -> None:
        """Change the decision about an image; None: it gets undecided.

        Args:
            entry: the image.
            decision: the decision.
            version: for "accept": `version_of` the mask that the person saw.

        Raises:
            InputError: the mask is another one by now, or the folder cannot be written. Nothing is changed.
        """
        with self._changing() as decided:
            before = self._state(entry, decided)
            mask = before.mask
            if decision and decision.kind == "accept":
                mask = self._mask(entry, decided)
                if version_of(mask) != version:
                    raise InputError(
                        f"{image_name(entry)}: the mask has changed since it was shown; look again"
                    )
            after = State(decision, mask)
            self._set(entry, decided, after)
            self._changes.append(Change(entry, before, after))

    def undo(self) -> Entry:
        """Undo the last decision of this session that is not undone; return its image.

        Raises:
            InputError: there is none, or another program has changed the decision, which then stays.
        """
        with self._changing() as decided:
            if not self._changes:
                raise InputError("no decision is left to undo")
            entry, before, after = self._changes.pop()
            if self._state(entry, decided) != after:
                raise InputError(f"{image_name(entry)}: another program has changed the decision; it stays")
            self._set(entry, decided, before)
            return entry

    def accept_all(self, masks: Iterable[tuple[Entry, bytes]]) -> None:
        """Accept masks, each the file of a checked mask.

        Raises:
            InputError: the folder cannot be written.
        """
        with self._changing() as decided:
            for entry, mask in masks:
                self._write_mask(entry, mask)
                decided[image_name(entry)] = Decision("accept")
            write_decisions(self._folder, decided)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Decision]]:
        """Yield the decisions; no other thread and no other process changes them within the context.

        The lock file is beside the folder: DVC hashes all files in it.
        """
        with self._lock, locked(self._folder.resolve()):
            yield self.decisions()

    def _mask(self, entry: Entry, decided: dict[str, Decision]) -> bytes:
        decision = decided.get(image_name(entry))
        if not decision or decision.kind != "accept":
            return self.run.mask(entry)
        accepted_masks(self._folder, [entry], len(self.run.data.classes))  # a check
        return read_file_of(self._path(entry))

    def _state(self, entry: Entry, decided: dict[str, Decision]) -> State:
        path = self._path(entry)
        return State(decided.get(image_name(entry)), read_file_of(path) if path.exists() else None)

    def _set(self, entry: Entry, decided: dict[str, Decision], state: State) -> None:
        """Write the mask first and delete it last: no row ever accepts a missing mask."""
        if state.mask is not None:
            self._write_mask(entry, state.mask)
        if state.decision:
            decided[image_name(entry)] = state.decision
        else:
            decided.pop(image_name(entry), None)
        write_decisions(self._folder, decided)
        if state.mask is None:
            self._path(entry).unlink(missing_ok=True)

    def _write_mask(self, entry: Entry, mask: bytes) -> None:
        """Write a mask, if it is new: a new time of the file would rerun make_masks."""
        path = self._path(entry)
        if not path.exists() or path.read_bytes() != mask:
            write_bytes(path, mask)

    def _path(self, entry: Entry) -> Path:
        return mask_path(self._folder / MASKS, entry)


def version_of(mask: bytes) -> str:
    """Return a checksum of a mask's file."""
    return hashlib.sha256(mask).hexdigest()
