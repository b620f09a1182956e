"""The data sources by name, each brought to the one interface of `plda.data.source`."""

import json
from collections.abc import Iterator
from pathlib import Path

from plda.data import creatures
from plda.data.coco import read_coco
from plda.data.folder import read_folder
from plda.data.images import encode_image, encode_mask
from plda.data.packed import Packed
from plda.data.source import Row, Source
from plda.data.voc import read_voc
from plda.errors import InputError
from plda.params import Creatures, IndexData, Origin

FIRST_VAL = 1_000_000  # scene number: however many train scenes are drawn, the val scenes stay the same


def open_source(source: Origin, settings: IndexData, archives: Path) -> Source:
    """The data set that `source` names; rows are made as they are asked for.

    Args:
        source: of the images.
        settings: what the params say of it; `settings.folder` is read for source `folder`.
        archives: what stage download_data wrote.

    Raises:
        InputError: a table of the user's cannot be read, or an archive is gone, damaged or another one.
    """
    match source:
        case "creatures":
            return read_creatures(settings.creatures)
        case "folder":
            return read_folder(Path(settings.folder))
        case "voc2012":
            packed, counts = _downloaded(archives)
            return read_voc(packed["trainval"], packed["sbd"], packed.get("test"), counts)
        case "coco2014":
            packed, counts = _downloaded(archives)
            return read_coco(packed["train"], packed["val"], packed["annotations"], counts)


def _downloaded(archives: Path) -> tuple[dict[str, Packed], dict[str, int]]:
    found = json.loads(archives.read_text(encoding="utf-8"))
    for path in found["places"].values():
        if not Path(path).exists():
            raise InputError(f"{path}: is gone; `snakemake --forcerun download_data` has it again")
    return {name: Packed(Path(path)) for name, path in found["places"].items()}, found["counts"]


def read_creatures(settings: Creatures) -> Source:
    """Drawn scenes; see `plda.data.creatures`."""
    return Source(creatures.CLASSES, _scenes(settings), origin="params: index_data.creatures")


def _scenes(settings: Creatures) -> Iterator[Row]:
    for split, first, count in (("train", 0, settings.train), ("val", FIRST_VAL, settings.val)):
        for number in range(first, first + count):
            scene = creatures.draw(
                settings.seed,
                number,
                size=settings.size,
                body_cue=settings.body_cue,
                part_size=settings.part_size,
            )
            yield Row(
                origin=f"scene {number} of seed {settings.seed}",
                image=f"{split}/{number - first:05}.png",
                split=split,
                tags=scene.tags,
                content=encode_image(scene.image),
                mask=encode_mask(scene.mask),
                parts=encode_mask(scene.parts),
            )
