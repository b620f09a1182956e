"""Writes docs/params.md: `python -m docs.params` after changes of params.yaml, plda/params.py or a preset."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from plda.params import Params
from plda.report.facts import flat, written
from plda.yaml_file import read_yaml
from workflow.ablations import ABLATIONS
from workflow.runs import read_runs
from workflow.stages import DECLARATION, MAIN, PARAMS

PAGE, PRESETS = Path("docs/params.md"), Path("workflow/presets")
HEAD = """# Every value of params.yaml

Written by `python -m docs.params` from the types in `plda/params.py`, the words in `params.yaml`
and the presets; not edited by hand.

A params file holds all of these, for nothing has a hidden default. Unknown and missing keys, wrong
types and values out of range are refused before the first job, by name of file and field. A change
reruns the stages that obey the value's section, and what comes after them. In `ablations.yaml`, and
after `dvc exp run -S`, a value is named with its sections: `train_cam.adaptation.enabled`.
"""


def page() -> str:
    """Return the whole page in Markdown."""
    text = PARAMS.read_text(encoding="utf-8")
    values, words, schema = yaml.safe_load(text), comments(text), Params.model_json_schema()
    # a value without a comment gets that of the first value with its name, if possible in a section so named
    alike = {key: said for name, said in reversed(words.items()) for key in _names(name)}
    presets = {p.stem: flat(read_yaml(p)) for p in sorted(PRESETS.glob("*.yaml"))}
    obeyed = {name: stage.settings for name, stage in read_runs(DECLARATION, PARAMS, ABLATIONS)[MAIN].items()}

    def row(name: str, value: Any) -> str:
        about = words.get(name) or next((alike[key] for key in _names(name) if key in alike), "")
        kind = in_words(find(schema, name))
        others = [
            f"{preset} `{written(v[name])}`" for preset, v in presets.items() if v.get(name, value) != value
        ]
        shown = f"`{written(value)}`" if written(value) else "empty"
        return f"| `{name}` | {kind} | {shown} | {about} | {', '.join(others)} |"

    lines = [HEAD]
    for section, value in values.items():
        stages = [
            f"`{name}`" for name, settings in obeyed.items() if section in settings and name != "report"
        ]
        lines += [f"## {section}", ""]
        if isinstance(value, dict) and section in words:
            lines += [words[section], ""]
        lines += [f"Obeyed by {', '.join(stages)}; shown by `report`.", ""] if stages else []
        lines += [
            "| value | may be | `params.yaml` | what it is | presets that differ |",
            "|---|---|---|---|---|",
        ]
        for name, leaf in walk({section: value}):
            if not isinstance(leaf, dict) or not leaf:
                lines.append(row(name, leaf))
            elif name in words and name != section:
                lines.append(f"| `{name}` | section | | {words[name]} | |")
        lines.append("")
    return "\n".join(lines)


def comments(text: str) -> dict[str, str]:
    """Return the comments after the keys of a YAML file, by dotted name of the key."""
    lines, found = text.splitlines(), {}

    def look(node: yaml.MappingNode, prefix: str) -> None:
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            inner = isinstance(value, yaml.MappingNode) and not value.flow_style
            mark = key.end_mark if inner else value.end_mark
            if "#" in (rest := lines[mark.line][mark.column :]):
                found[name] = rest.split("#", 1)[1].strip()
            if inner:
                look(value, f"{name}.")

    look(yaml.compose(text), "")
    return found


def _names(name: str) -> list[str]:
    """Return the last two parts of a dotted name, and the last part."""
    parts = name.split(".")
    return [".".join(parts[-2:]), parts[-1]]


def walk(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value and section by dotted name, in order, a section before its content."""
    for key, value in node.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from walk(value, f"{prefix}{key}.")


def find(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the part of a JSON schema that describes the value of a dotted name."""
    node = schema
    for part in name.split("."):
        node = resolved(node["properties"][part], schema)
    return node


def resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `node`, or the definition that it refers to; for an optional section, the section."""
    node = node["anyOf"][0] if "$ref" in node.get("anyOf", [{}])[0] else node
    return schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def in_words(node: Mapping[str, Any]) -> str:
    """Describe in words the values that a JSON schema allows."""
    match node:
        case {"enum": options}:
            return ", ".join(f"`{option}`" for option in options)
        case {"const": only}:
            return f"`{only}`"
        case {"anyOf": kinds}:
            return " or ".join(map(in_words, kinds))
        case {"prefixItems": items}:
            return f"list of {len(items)}: each a {in_words(items[0])}"
        case {"type": "array", "items": item}:
            return f"list of: {in_words(item)}"
        case {"type": "object", "additionalProperties": dict(item)}:
            return f"names, each with a {in_words(item)}"
        case {"type": "boolean"}:
            return "`true`, `false`"
        case {"type": "null"}:
            return "`null`"
        case {"pattern": pattern}:
            return f"text like `{pattern}`"
        case {"type": "string"}:
            return "text"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {node[key]:g}" for key, sign in bounds.items() if key in node]
    return " ".join(
        [{"integer": "whole number", "number": "number"}[node["type"]], ", ".join(limits)]
    ).strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
