"""classes.txt: the fixed class list of a data set. The id of a class is its position in the list."""

import re
from collections.abc import Sequence
from pathlib import Path

from plda.data.source import UNKNOWN, Colour
from plda.data.text import plain, read_text
from plda.errors import InputError

BACKGROUND = "background"
MOST = 255  # ids have 8 bits, and 255 is void
_COLOURED = re.compile(r"(.*?)[\s,;:]*(?:#([0-9a-fA-F]{6})|[\s,;:](\d{1,3}), ?(\d{1,3}), ?(\d{1,3}))")


def read_classes(path: Path) -> tuple[str, ...]:
    """Read the class names of a `classes.txt`, background first; see `read_class_list`."""
    return read_class_list(path)[0]


def read_class_list(path: Path) -> tuple[tuple[str, ...], tuple[Colour, ...] | None]:
    """Read a `classes.txt`: one class per line, background first. Blank lines are ignored.

    A name may be followed by the class's colour in colour masks, `#804000` or `128,64,0`. Either all classes
    have a colour or none.

    Returns:
        The class names, and their colours or None.

    Raises:
        InputError: the file is missing or not UTF-8; it has no class, more than 254, a duplicate name or
            colour, or colours for only some classes; or the first class is not `background`.
    """
    lines = {number: plain(text) for number, text in enumerate(_lines(read_text(path)), 1)}
    first: dict[str, int] = {}  # each name's line
    colours: dict[Colour, int] = {}  # each colour's line
    for number, text in lines.items():
        if not text:
            continue
        name, colour = _divided(text, f"{path}: line {number}")
        if not first:
            name = name.lower()
            if name != BACKGROUND:
                raise InputError(
                    f"{path}: line {number}: must be `background`, got {name!r}; then one class per line"
                )
        if name in first:
            raise InputError(f"{path}: line {number}: duplicate class {name!r}, first in line {first[name]}")
        if not is_name(name):
            raise InputError(
                f"{path}: line {number}: a class cannot have the name {name!r}: "
                "`;` separates tags, `?` means unknown, one colour may follow the name"
            )
        if colour in colours:
            raise InputError(
                f"{path}: line {number}: {name!r} has the same colour as the class in line {colours[colour]}"
            )
        first[name] = number
        if colour:
            colours[colour] = number
    if not first:
        raise InputError(f"{path}: is empty; line 1 must be `background`, then one class per line")
    if not 2 <= len(first) <= MOST:
        raise InputError(f"{path}: must have 1 to {MOST - 1} classes after background, got {len(first) - 1}")
    if colours and len(colours) < len(first):
        name = next(name for name, number in first.items() if number not in colours.values())
        raise InputError(f"{path}: line {first[name]}: {name!r} has no colour, but other classes have one")
    return tuple(first), tuple(colours) or None


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a class."""
    return bool(text) and ";" not in text and (text,) != UNKNOWN and not _COLOURED.fullmatch(text)


def class_ids(tags: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Return the id of each tag, its position in `classes`; without tags, the id of background, 0.

    These are the classes of an image's activation maps. An image without tags has one map, of zeros.
    """
    return [classes.index(tag) for tag in tags] or [0]


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _divided(text: str, where: str) -> tuple[str, Colour | None]:
    """Split a line into name and colour."""
    coloured = _COLOURED.fullmatch(text)
    if not coloured:
        return text, None
    name, code, *parts = coloured.groups()
    red, green, blue = bytes.fromhex(code) if code else map(int, parts)
    if max(red, green, blue) > 255:
        raise InputError(f"{where}: a colour's parts must be 0 to 255, got {text!r}")
    return plain(name), (red, green, blue)
