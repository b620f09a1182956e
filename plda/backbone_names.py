"""The valid names of backbones, found without importing timm."""

import difflib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pydantic_core import PydanticCustomError

OWN = ("resnet10", "resnet38d")  # defined in plda/models/resnet10.py and resnet38d.py
REGISTERED = re.compile(r"^@register_model\s*\ndef (\w+)", re.MULTILINE)  # a registration in timm's source
# torchvision's name to timm's name
ALIASES = {"mobilenet_v2": "mobilenetv2_100", "mobilenet_v3_large": "mobilenetv3_large_100"}


@cache
def architectures() -> frozenset[str]:
    """Return every name of timm's registry, without the tags of weights, and the names in OWN.

    The names are read from timm's source files: importing timm takes torch and several seconds, too slow for
    a check of params.
    """
    spec = find_spec("timm")
    assert spec is not None and spec.submodule_search_locations
    files = Path(spec.submodule_search_locations[0], "models").glob("*.py")
    return frozenset(OWN).union(*(REGISTERED.findall(file.read_text(encoding="utf-8")) for file in files))


def known_name(name: str) -> str:
    """Return `name` if it names a network, with or without a tag of weights: `resnet50`, `resnet50.a1_in1k`.

    Raises:
        PydanticCustomError: no network has this name; the message offers similar names.
    """
    architecture = name.partition(".")[0]
    if architecture in architectures():
        return name
    near = [ALIASES[architecture]] if architecture in ALIASES else []
    near += difflib.get_close_matches(architecture, sorted(architectures()), cutoff=0.5)
    offered = f"such as {', '.join(near[:3])}" if near else "see `plda backbones`"
    raise PydanticCustomError("backbone", "{problem}", {"problem": f"must be a network of timm, {offered}"})
