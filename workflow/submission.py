"""Packs predictions for the PASCAL VOC 2012 test set in the format of the evaluation server.

Only the server has the masks of the test set. It accepts an archive with one palette PNG per image, which has
the image's size and a class id (never void) for every pixel, in a folder named after the competition: comp5
for methods that use VOC data only, comp6 for all others, such as networks that start from ImageNet weights.
The archive is a .tar.gz: a plain .tar is reportedly rejected (zhanghang1989/PyTorch-Encoding, issue 225).

    snakemake --cores all submission
"""

import argparse
import gzip
import io
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from plda.data.data_set import DataSet
from plda.data.index import Entry
from plda.errors import InputError
from plda.files import replacing
from plda.masks.folder import Masks, mask_path
from plda.params import read_params
from plda.sources.voc import CLASSES
from workflow.stages import PARAMS

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"  # in the archive
LONGEST = 500  # pixels: maximum long side of VOC's images
IMAGES = 1456  # in the test set


def check_data(data: DataSet, params: Path) -> None:
    """Check that the server can compare the masks.

    Raises:
        InputError: the classes are not VOC's, or the images were shrunk.
    """
    if data.classes != CLASSES:
        raise InputError(
            f"{data.folder}/classes.txt: must be VOC's classes, in this order: {', '.join(CLASSES)}"
        )
    long_side = read_params(params).index_data.long_side
    if long_side is not None and long_side < LONGEST:
        raise InputError(f"{params}: index_data.long_side: must be null: masks need the images' own size")


def server_files(data: DataSet, predictions: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file in the archive.

    Raises:
        InputError: no image has split test, or an image has no mask or a mask with invalid ids.
    """
    entries = data.split("test")
    if not entries:
        raise InputError(f"{data.folder}/index.csv: field split: no image has split 'test'")
    for entry in entries:
        yield f"{FOLDER}/{PurePosixPath(entry.key).name}.png", encode(_ids(predictions, entry))


def encode(ids: np.ndarray) -> bytes:
    """Encode class ids, (H, W) uint8, as a palette PNG with VOC's colours."""
    image = Image.fromarray(ids)
    image.putpalette(colour_map().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def colour_map() -> np.ndarray:
    """Return VOC's colours, (256, 3) uint8 RGB: a channel is every third bit of the id, in reverse order."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    channels = np.pad(bits, [(0, 0), (0, 1)]).reshape(256, 3, 3)  # (id, place, RGB)
    return np.packbits(channels, axis=1)[:, 0]


def pack(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write `files`, pairs of name and content, to a .tar.gz; the same files give the same bytes."""
    with (
        replacing(path) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as zipped,  # no name and no time, for equal bytes
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _ids(predictions: Path, entry: Entry) -> np.ndarray:
    path = mask_path(predictions, entry)
    if not path.exists():
        raise InputError(f"{path}: is missing; {PARAMS}: predict_masks.splits must contain test")
    ids = Masks(predictions)(entry)
    if ids.max() >= len(CLASSES):
        raise InputError(f"{path}: class ids: got {ids.max()}, must be 0 to {len(CLASSES) - 1}")
    return ids


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the archive; return the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m workflow.submission", description="Pack predictions for VOC's evaluation server."
    )
    parser.add_argument("--data-set", type=Path, required=True, metavar="FOLDER", help="data set")
    parser.add_argument("--predictions", type=Path, required=True, metavar="FOLDER", help="predicted masks")
    parser.add_argument("--submission", type=Path, required=True, metavar="TAR.GZ", help="output archive")
    options = parser.parse_args(arguments)
    try:
        data = DataSet(options.data_set)
        check_data(data, PARAMS)
        files = list(server_files(data, options.predictions))
        pack(options.submission, files)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.submission}: {len(files)} masks; VOC 2012's test set has {IMAGES} images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
