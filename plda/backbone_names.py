"""The names that a backbone may have, known without importing timm."""

import difflib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pydantic_core import PydanticCustomError

OWN = ("resnet10", "resnet38d")  # networks of ours, plda/models/resnet10.py and resnet38d.py
REGISTERED = re.compile(r"^@register_model\s*\ndef (\w+)", re.MULTILINE)  # how timm's source says a name
# what torchvision calls networks of timm's
ALIASES = {"mobilenet_v2": "mobilenetv2_100", "mobilenet_v3_large": "mobilenetv3_large_100"}


@cache
def architectures() -> frozenset[str]:
    """Return every name of timm's registry, without the tags of weights, and ours.

    They are read from timm's source: importing it takes torch, and seconds, which a look at params has not.
    """
    spec = find_spec("timm")
    assert spec is not None and spec.submodule_search_locations
    files = Path(spec.submodule_search_locations[0], "models").glob("*.py")
    return frozenset(OWN).union(*(REGISTERED.findall(file.read_text(encoding="utf-8")) for file in files))


def known_name(name: str) -> str:
    """Return `name`, a network's with or without a tag of its weights: `resnet50`, `resnet50.a1_in1k`.

    Raises:
        PydanticCustomError: no network has it; near names are offered.
    """
    architecture = name.partition(".")[0]
    if architecture in architectures():
        return name
    near = [ALIASES[architecture]] if architecture in ALIASES else []
    near += difflib.get_close_matches(architecture, sorted(architectures()), cutoff=0.5)
    offered = f"such as {', '.join(near[:3])}" if near else "`plda backbones` lists them"
    raise PydanticCustomError("backbone", "{problem}", {"problem": f"must be a network of timm, {offered}"})
