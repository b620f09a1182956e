"""Reading YAML files that users write, as DVC reads them: YAML 1.2, with ruamel.yaml.

So `1e-05` is a number and `no` is text, under both engines. Constructs that are easily misread are rejected:
duplicate keys, tags, control characters.
"""

import io
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.events import DocumentStartEvent, Event, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from plda.data.text import read_text
from plda.errors import InputError

DEEPEST = 20  # levels of nesting; the parser recurses
MOST_VALUES = 100_000
TEXT = "tag:yaml.org,2002:str"


def read_yaml(path: Path) -> Any:
    """Return the values of a YAML file.

    Raises:
        InputError: the file is missing, is not UTF-8 or not YAML, or holds a duplicate key, a key that is not
            text, a tag or a control character; names the file and the line.
    """
    return parse_yaml(read_text(path), path)


def parse_yaml(text: str, path: Path) -> Any:
    """Return the values of a YAML text, which is that of `path`; raises the same errors as `read_yaml`."""
    try:
        _check_events(path, _yaml().parse(text))
        root = _yaml().compose(text)
        if root is not None:
            _Checker(path).check(root)
        return _yaml().load(text)
    except MarkedYAMLError as error:
        place = _place(path, error.problem_mark or error.context_mark)
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(f"{place}: is not YAML: {reason}") from error
    except (YAMLError, ValueError) as error:  # ValueError: an impossible date, a number of too many digits
        raise InputError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error


def yaml_text(values: Any) -> str:
    """Return plain values as YAML, which `read_yaml` reads back to the same values."""
    yaml, buffer = _yaml(), io.StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump(values, buffer)
    return buffer.getvalue()


def value_spans(text: str) -> dict[str, tuple[int, int]]:
    """Return the start and end of every value in a YAML text, by dotted name; a section is no value."""
    spans: dict[str, tuple[int, int]] = {}

    def collect(section: MappingNode, prefix: str) -> None:
        for key, value in section.value:
            if isinstance(value, MappingNode) and not value.flow_style:
                collect(value, f"{prefix}{key.value}.")
            else:
                spans[f"{prefix}{key.value}"] = (value.start_mark.index, value.end_mark.index)

    collect(_yaml().compose(text), "")
    return spans


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)


def _check_events(path: Path, events: Iterable[Event]) -> None:
    """Reject deep nesting, other YAML versions and tags. Parsing events does not recurse."""
    depth = 0
    for event in events:
        kind = type(event).__name__
        depth += kind.endswith("StartEvent") - kind.endswith("EndEvent")
        if depth > DEEPEST:
            raise InputError(f"{_place(path, event.start_mark)}: is nested more than {DEEPEST} levels deep")
        if isinstance(event, DocumentStartEvent) and event.version not in (None, (1, 2)):
            raise InputError(f"{_place(path, event.start_mark)}: must be YAML 1.2; delete the line %YAML")
        if isinstance(event, NodeEvent) and (tag := getattr(event, "tag", None)):
            raise InputError(f"{_place(path, event.start_mark)}: {tag}: tags are not allowed")


class _Checker:
    """A check for duplicate keys, keys that are not text, control characters and endless aliases."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, 0

    def check(self, node: Node, name: str = "", depth: int = 0) -> None:
        """Check a node and its children; `name` is the node's dotted name, with a dot at the end."""
        place = _place(self._path, node.start_mark)
        self._seen += 1
        if depth > DEEPEST or self._seen > MOST_VALUES:  # through aliases: there were few events
            raise InputError(f"{place}: {name}: holds too many values, or itself; write it without aliases")
        match node:
            case MappingNode():
                self._check_keys(node, name)
                for key, value in node.value:
                    self.check(value, f"{name}{key.value}.", depth + 1)
            case SequenceNode():
                for value in node.value:
                    self.check(value, name, depth + 1)
            case ScalarNode():
                _check_text(place, node.value)

    def _check_keys(self, node: MappingNode, name: str) -> None:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            place, line = _place(self._path, key.start_mark), key.start_mark.line + 1
            if key.tag != TEXT:
                shown = key.value if isinstance(key, ScalarNode) else "a key"
                raise InputError(f"{place}: {name}{shown}: must be text; put the key in quotes")
            _check_text(place, key.value)
            if key.value in lines:
                first = lines[key.value]
                raise InputError(f"{place}: {name}{key.value}: duplicate key, first given in line {first}")
            lines[key.value] = line


def _check_text(place: str, text: str) -> None:
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n":
            raise InputError(f"{place}: holds the control character U+{ord(character):04X}")


def _place(path: Path, mark: StringMark | None) -> str:
    return f"{path}: line {mark.line + 1}" if mark else str(path)
