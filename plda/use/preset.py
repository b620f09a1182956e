"""Command preset: writes a complete params file from a preset.

The preset `creatures` is a complete params file, the defaults. Each other preset holds the values that differ
from it, by dotted name, with their reasons as comments, which replace those of the defaults.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from plda.changes import with_changes
from plda.data.text import read_text
from plda.errors import InputError
from plda.files import write_text
from plda.params import Params, check
from plda.yaml_file import parse_yaml, value_spans

FOLDER, DEFAULTS = Path("workflow/presets"), "creatures"
TO_FILL_IN = "<-- "  # begins the comment of a value that every user must set or confirm


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.add_argument("name", metavar="NAME", help=f"a file of {FOLDER}, without .yaml")
    parser.add_argument(
        "--set",
        dest="changes",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="a value to change, by its dotted name: train_cam.epochs=6",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("params.yaml"), metavar="FILE", help="output file; params.yaml"
    )


def preset(name: str, changes: list[str], out: Path) -> None:
    """Write a preset as a complete, commented params file, with some values changed.

    plda preset photos --set index_data.folder=photos train_cam.epochs=6
    """
    pairs = dict(_divided(change) for change in changes)
    text = preset_text(name, pairs)
    write_text(out, text)
    print(f"{out}: preset {name}" + "".join(f", {key}: {value}" for key, value in pairs.items()))
    for number, line in enumerate(text.splitlines(), 1):
        if TO_FILL_IN in line:
            print(f"{out}: line {number}: check or fill in: {line.strip()}")


def preset_text(name: str, changes: Mapping[str, str] | None = None, folder: Path = FOLDER) -> str:
    """Return the text of a preset as a complete params file.

    Args:
        name: name of the preset.
        changes: values to change, as they are written in YAML, by dotted name.
        folder: folder of the presets.

    Raises:
        InputError: there is no such preset, a name is unknown, or the params are wrong.
    """
    path = folder / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise InputError(
            f"{path}: no such preset; "
            + (f"must be one of {known}" if known else "run the command in the root of the repository")
        )
    text = read_text(folder / f"{DEFAULTS}.yaml")
    values = parse_yaml(text, folder / f"{DEFAULTS}.yaml")
    if name != DEFAULTS:
        own = read_text(path)
        values = with_changes(values, parse_yaml(own, path), f"{path}: ")
        text = _header(own) + text.removeprefix(_header(text))
        lines = {key: (own[start:end], _rest(own, end)) for key, (start, end) in value_spans(own).items()}
        text = _replaced(text, lines)
    for key, value in (changes or {}).items():
        values = with_changes(values, {key: parse_yaml(value, Path(f"--set {key}"))}, "--set ")
        comment = _rest(text, value_spans(text)[key][1]).replace(TO_FILL_IN, "")
        text = _replaced(text, {key: (value, comment)})
    check(Params, values, f"preset {name}")
    if parse_yaml(text, path) != values:
        raise InputError(f"--set: a value must be YAML on one line, got {dict(changes or {})}")
    return text


def _divided(change: str) -> tuple[str, str]:
    key, equals, value = change.partition("=")
    if not equals:
        raise InputError(f"--set: must be KEY=VALUE, got {change!r}")
    return key, value


def _header(text: str) -> str:
    """Return the comment lines at the start of a file."""
    lines = text.splitlines(keepends=True)
    return "".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])


def _rest(text: str, start: int) -> str:
    """Return the text from `start` to the end of the line: a comment or nothing."""
    return text[start : text.index("\n", start)]


def _replaced(text: str, lines: Mapping[str, tuple[str, str]]) -> str:
    """Replace values in a YAML text, and their comments unless the new one is empty."""
    spans = value_spans(text)
    for key, (value, comment) in sorted(lines.items(), key=lambda line: -spans[line[0]][0]):
        start, end = spans[key]
        rest = _rest(text, end)
        text = text[:start] + value + (comment or rest) + text[end + len(rest) :]
    return text
