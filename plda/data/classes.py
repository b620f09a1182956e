"""classes.txt: the fixed list of classes of a data set; a class's id is its place in it."""

from collections.abc import Sequence
from pathlib import Path

from plda.errors import InputError


def read_classes(path: Path) -> tuple[str, ...]:
    """The class names of a `classes.txt`, background first.

    Raises:
        InputError: missing, no class, more than 254, a name twice, or the first is not `background`.
    """
    try:
        names = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    classes = tuple(name.strip() for name in names if name.strip())
    if not classes or classes[0] != "background":
        raise InputError(f"{path}: line 1: must be `background`, one class a line follows")
    if not 2 <= len(classes) <= 255:
        raise InputError(f"{path}: needs 1 to 254 classes after background, has {len(classes) - 1}")
    for name in classes:
        if classes.count(name) > 1:
            raise InputError(f"{path}: class {name!r} stands there twice")
        if ";" in name:
            raise InputError(f"{path}: class {name!r}: `;` separates tags, so no name may hold it")
    return classes


def class_ids(tags: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The id of each tag: its place in `classes`, where background is 0."""
    return [classes.index(tag) for tag in tags]
