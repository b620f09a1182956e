"""PASCAL VOC 2012 with SBD, from the published archives: the lists, tags and masks of the literature.

VOC: Everingham et al., the VOC 2012 challenge. SBD: Hariharan et al., *Semantic contours from inverse
detectors*, ICCV 2011; it has masks for many more of VOC's photos. Split train is trainaug in papers: every
image with a mask in VOC or SBD, except VOC's val. Split val is VOC's val. The masks of test are not
published.
"""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from scipy.io import loadmat

from plda.data.images import encode_mask
from plda.data.source import Row, Source
from plda.download.packed import Packed
from plda.errors import InputError

CLASSES = (
    "background",
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
SETS = "ImageSets/Segmentation"
COMPRESSED = 15  # type of compressed elements in MATLAB files
NOT_PUBLISHED = "this is not the published archive, or it is damaged"


def read_voc(devkit: Packed, extra: Packed, test: Packed | None, counts: Mapping[str, int]) -> Source:
    """Read and count the lists now; read images, tags and masks later, with each row.

    Args:
        devkit: VOCtrainval_11-May-2012.tar, or a folder VOCdevkit or VOC2012.
        extra: SBD's benchmark.tgz, unpacked, or its folder `dataset`.
        test: VOC2012test.tar, or a folder as for `devkit`; None for no test split.
        counts: expected number of images in each list: voc_train, voc_val, sbd_train, sbd_val, test, and
            trainaug for the resulting train split. A list without an entry may have any number.

    Returns:
        Rows by split, sorted by name within each. Train and val have tags (of all objects with a box in VOC,
        difficult ones included) and masks (VOC's masks, with void, if they exist, else SBD's). Test has
        neither.

    Raises:
        InputError: a list is missing or has a duplicate image or another count; from the rows: a file is
            missing or cannot be read, or a class is unknown. Names the archive, the file and the field.
    """
    voc = _find(devkit, "VOC2012", f"{SETS}/train.txt")
    sbd = _find(extra, "dataset", "train.txt")
    train, val = (voc.names(f"{SETS}/{part}.txt", counts.get(f"voc_{part}")) for part in ("train", "val"))
    more = (sbd.names(f"{part}.txt", counts.get(f"sbd_{part}")) for part in ("train", "val"))
    trainaug = set(train).union(*more) - set(val)
    if len(trainaug) != counts.get("trainaug", len(trainaug)):
        raise InputError(
            f"{devkit.path}, {extra.path}: the lists together have {len(trainaug)} training images, "
            f"expected {counts['trainaug']}: {NOT_PUBLISHED}"
        )
    splits = [(voc, "train", sorted(trainaug)), (voc, "val", sorted(val))]
    if test is not None:
        photos = _find(test, "VOC2012", f"{SETS}/test.txt")
        splits.append((photos, "test", sorted(photos.names(f"{SETS}/test.txt", counts.get("test")))))
    own = {*train, *val}

    def mask(name: str) -> bytes:
        return voc.read(f"SegmentationClass/{name}.png") if name in own else _sbd_mask(sbd, name)

    def rows() -> Iterator[Row]:
        for tree, split, names in splits:
            for name in names:
                yield Row(
                    origin=f"{tree.packed.path.name}: {name}",
                    image=f"{name}.jpg",
                    split=split,
                    tags=_tags(voc, name) if split != "test" else (),
                    content=tree.read(f"JPEGImages/{name}.jpg"),
                    mask=mask(name) if split != "test" else None,
                )

    return Source(CLASSES, rows(), origin=f"{devkit.path}, {extra.path}")


@dataclass(frozen=True)
class _Tree:
    """The files below one folder of an archive: `root` is its name with a slash at the end, or ""."""

    packed: Packed
    root: str

    def read(self, file: str) -> bytes:
        try:
            return self.packed.read(self.root + file)
        except KeyError as error:
            raise InputError(f"{self.packed.path}: holds no {self.root}{file}: {NOT_PUBLISHED}") from error
        except OSError as error:
            raise self.fault(file, f"cannot be read: {error.strerror}") from error

    def names(self, file: str, expected: int | None) -> list[str]:
        """Return the images that a list names, one per line."""
        try:
            lines = self.read(file).decode().splitlines()
        except UnicodeDecodeError as error:
            raise self.fault(file, f"is not a list of images: {error}") from error
        names = [line.strip() for line in lines if line.strip()]
        for name, count in Counter(names).items():
            if count > 1:
                raise self.fault(file, f"duplicate image {name}, listed {count} times")
        if expected not in (None, len(names)):
            raise self.fault(file, f"lists {len(names)} images, expected {expected}: {NOT_PUBLISHED}")
        return names

    def fault(self, file: str, words: str) -> InputError:
        return InputError(f"{self.packed.path}: {self.root}{file}: {words}")


def _find(packed: Packed, home: str, file: str) -> _Tree:
    """Return the folder with `file`: of several the one named `home`, or the one that the user named."""
    found = [name for name in packed.names() if f"/{name}".endswith(f"/{file}")]
    # the demo in SBD's archive has other lists, and a VOCdevkit may have other years
    found = [name for name in found if name == file or f"/{name}".endswith(f"/{home}/{file}")] or found
    if not found:
        raise InputError(f"{packed.path}: holds no {file}: {NOT_PUBLISHED}")
    if len(found) > 1:
        raise InputError(f"{packed.path}: holds {' and '.join(found)}; give the folder of one of them")
    return _Tree(packed, found[0].removesuffix(file))


def _tags(voc: _Tree, name: str) -> tuple[str, ...]:
    """Return the classes of an annotation's objects, each once, without the names of their parts."""
    file = f"Annotations/{name}.xml"
    content = voc.read(file)
    try:
        if b"<!DOCTYPE" in content.replace(b"\0", b""):  # also in UTF-16; entities can expand without limit
            raise ValueError("document types are not allowed")
        objects = ElementTree.fromstring(content).findall("object")
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise voc.fault(file, f"is not an annotation: {error}") from error
    tags = tuple(dict.fromkeys((thing.findtext("name") or "").strip() for thing in objects))
    if not tags:
        raise voc.fault(file, "field object: is missing")
    for tag in tags:
        if tag not in CLASSES[1:]:
            raise voc.fault(file, f"field object/name: {tag!r} is not a class of VOC")
    return tags


def _sbd_mask(sbd: _Tree, name: str) -> bytes:
    """Return SBD's mask as a PNG: VOC's class ids, without void."""
    file = f"cls/{name}.mat"
    content = sbd.read(file)
    try:
        _check_compressed(content)
        ids = loadmat(io.BytesIO(content), variable_names=["GTcls"])["GTcls"][0, 0]["Segmentation"]
        small = np.asarray(ids, np.uint8)
    except Exception as error:  # SciPy raises many kinds of errors on damaged files
        raise sbd.fault(file, f"field GTcls.Segmentation: cannot be read: {error!r}") from error
    if small.ndim != 2 or not small.size or not np.array_equal(small, ids):
        raise sbd.fault(file, f"field GTcls.Segmentation: must hold class ids, (H, W), got {small.shape}")
    return encode_mask(small)


def _check_compressed(content: bytes) -> None:
    """Check that the compressed elements of a MATLAB file are complete; SciPy can crash before its check."""
    place = 128
    while place < len(content):
        kind, size = struct.unpack_from("<II", content, place)
        place += 8 + size
        if kind == COMPRESSED:
            zlib.decompress(content[place - size : place])
