"""Reading JSON, XML and YAML files of other programs, and checked fields of them."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from xml.etree import ElementTree

import yaml

from plda.data.text import read_text
from plda.errors import InputError

T = TypeVar("T")
WORDS = {dict: "an object", list: "a list", str: "a string", int: "a whole number", type(None): "null"}


@cache
def read_json(path: Path) -> Any:
    """Return the value of a JSON file; it is parsed once.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(read_text(path), parse_constant=_no_number)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}: must be JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: must be JSON: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the object in a YAML file; its keys may be numbers, as in `names` of YOLO.

    Raises:
        InputError: the file cannot be read, or is not a YAML object.
    """
    try:
        value = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: must be YAML: {' '.join(str(error).split())}") from error
    return checked(value, dict, f"{path}: content")


def read_xml(path: Path) -> ElementTree.Element:
    """Return the root of an XML file. A document type is refused: its entities can expand without limit.

    Raises:
        InputError: the file cannot be read or is not XML.
    """
    try:
        return ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_Plain()))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"{path}: must be XML: {error}") from error


class _Plain(ElementTree.TreeBuilder):
    def doctype(self, name: str, *_: str | None) -> NoReturn:
        raise ValueError(f"must have no document type, got {name!r}")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def checked(value: Any, kind: type[T], where: str) -> T:
    """Return a value that must have a type.

    Raises:
        InputError: it has another type; begins with `where`, the file and the field.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise InputError(f"{where} must be {WORDS[kind]}, got {shown(value)}")
    return value


def get(record: Any, name: str, kind: type[T], where: str) -> T:
    """Return a field of an object, which must have a type; raises as `checked`."""
    return checked(checked(record, dict, f"{where}: content").get(name), kind, f"{where}: {name}")


def number(value: Any, where: str) -> float:
    """Return a finite number, which may be written as a string.

    Raises:
        InputError: it is not one; begins with `where`, the file and the field.
    """
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(f"{where} must be a number, got {shown(value)}")
    return found


def shown(value: Any) -> str:
    """Return the start of a value as JSON or Python writes it; a missing one is `nothing`."""
    return "nothing" if value is None else f"{value!r:.60}"
