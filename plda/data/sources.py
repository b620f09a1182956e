"""The data sources by name, each brought to the one interface of `plda.data.source`."""

from collections.abc import Iterator
from pathlib import Path

from plda.data import creatures
from plda.data.folder import read_folder
from plda.data.images import encode_image, encode_mask
from plda.data.source import Row, Source
from plda.params import Creatures, IndexData

FIRST_VAL = 1_000_000  # scene number: however many train scenes are drawn, the val scenes stay the same


def open_source(settings: IndexData, folder: Path) -> Source:
    """The data set that `settings` names; rows are made as they are asked for.

    Raises:
        InputError: a table of the user's cannot be read.
    """
    if settings.source == "creatures":
        return read_creatures(settings.creatures)
    return read_folder(folder)


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
