"""Checkpoints: a killed training run continues exactly where it stopped.

They are outside every declared output (both engines delete outputs before a retry), in a folder named by a
hash of everything that determines the training: its params, its input files, and the loaded code. So weights
of another training are never resumed. A lock keeps a second process out while the first one runs.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from plda.errors import InputError
from plda.files import explaining
from plda.models.saved import load, save


def fingerprint(settings: Any, inputs: Iterable[Path]) -> str:
    """Return a hash of `settings` (JSON values), the content of `inputs`, and the loaded code of plda."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in [*inputs, *_code()]:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not file.name.startswith("."):
                digest.update(str(file.relative_to(path)).encode())
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _code() -> list[Path]:
    modules = [m for name, m in sorted(sys.modules.items()) if name.split(".")[0] == "plda"]
    return [Path(m.__file__) for m in modules if getattr(m, "__file__", None)]  # type: ignore[arg-type]


class Checkpoint:
    """The last state of one training run, in its own folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "last.pt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for this process.

        Raises:
            InputError: another process trains with this folder, or the folder is not writable.
        """
        lock = FileLock(self._folder.with_suffix(".lock"))
        try:
            with explaining(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"{self._folder}: another process is training this very network; wait for it or stop it"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def load(self) -> dict[str, Any] | None:
        """Return the last state, or None if no state is saved."""
        return load(self._path) if self._path.exists() else None  # type: ignore[no-any-return]

    def save(self, state: dict[str, Any]) -> None:
        """Replace the last state, atomically."""
        save(self._path, state)

    def delete(self) -> None:
        """Delete the folder, after the outputs of the training are written."""
        shutil.rmtree(self._folder)
