"""The data sources by name, each with the interface of `plda.data.source`."""

import json
from collections.abc import Iterator
from pathlib import Path

from plda.data.images import encode_image, encode_mask
from plda.data.source import Row, Source
from plda.download.packed import Packed
from plda.errors import InputError
from plda.params import Creatures, IndexData, Origin
from plda.sources import creatures
from plda.sources.coco import read_coco
from plda.sources.folder import read_folder
from plda.sources.voc import read_voc

FIRST_VAL = 1_000_000  # scene number: the val scenes do not depend on the number of train scenes


def open_source(source: Origin, settings: IndexData, archives: Path) -> Source:
    """Return the data set that `source` names; rows are read when needed.

    Args:
        source: name of the data source.
        settings: params of the source; `settings.folder` is read for source `folder`.
        archives: the output of stage download_data.

    Raises:
        InputError: a table of the user cannot be read, or an archive is missing, damaged or a wrong one.
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
            raise InputError(f"{path}: no longer exists; run `snakemake --forcerun download_data`")
    return {name: Packed(Path(path)) for name, path in found["places"].items()}, found["counts"]


def read_creatures(settings: Creatures) -> Source:
    """Return the synthetic scenes; see `plda.sources.creatures`."""
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
