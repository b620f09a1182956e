"""Changes of params: values by their dotted names, such as `train_cam.adaptation.enabled: false`."""

import copy
from collections.abc import Mapping
from typing import Any

from plda.errors import InputError


def with_changes(params: Mapping[str, Any], changes: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return a copy of `params` with some values changed.

    Args:
        params: plain values in nested sections, as read from a params file.
        changes: new values by dotted name.
        place: beginning of error messages, before the name: where the changes come from.

    Raises:
        InputError: a name is unknown, or is that of a section.
    """
    changed = copy.deepcopy(dict(params))
    for name, value in changes.items():
        *_, last = parts = name.split(".")
        node: Any = changed
        for part in parts:
            parent = node
            if not isinstance(parent, dict) or part not in parent:
                raise InputError(f"{place}{name}: no such value in params.yaml")
            node = parent[part]
        if isinstance(node, dict) and node:
            raise InputError(f"{place}{name}: must be a value, got a section; set its values one by one")
        parent[last] = copy.deepcopy(value)
    return changed


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by their dotted names; an empty section counts as a value."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        nested = isinstance(value, dict) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found
