"""Fuzz every entry point with mutated inputs: no tracebacks, hangs, partial outputs or wrong content.

    python -m tests.fuzz --door all --inputs 1000 --seed 0 --seconds 600
    python -m tests.fuzz --door masks --seed 0 --only 17        reproduce one input

Each input is made from a valid one by a generator with the seed (seed, door, number), and passed to the
command line entry point, or to a library function where no command is specific enough. Failing inputs are
kept under --failures.
"""

import argparse
import contextlib
import faulthandler
import gzip
import io
import itertools
import os
import re
import resource
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import unicodedata
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from dvc.utils.serialize import loads_yaml
from PIL import ExifTags, Image, ImageOps

from plda.__main__ import main
from plda.changes import with_changes
from plda.data.archive import Archive
from plda.data.data_set import DataSet
from plda.data.images import read_image, read_mask
from plda.data.index import Entry
from plda.download.extract import NOTE, extract
from plda.download.packed import Packed
from plda.errors import InputError
from plda.models.saved import Architecture, save_network
from plda.models.segmenters import SEGMENTER
from plda.yaml_file import read_yaml
from workflow.ablations import main as write_run

ROOT = Path(__file__).parents[1]
HANG = 20  # seconds
MEMORY = 1_000_000  # kB; maximum growth of the process per input
CLASSES = ("background", "cat", "dog")
SIZE = (40, 30)  # of the valid photos
ODD = (
    "", " ", "\t", "\0", "\ufeff", "\u202e", "\u2028", "é", "e\u0301", "人", "🐈", '"', "'", ",", ";", "\\",
    "/", "..", "%s", "${x}", "{", "}", "$(touch x)", "`", "#", "a" * 300, "-1", "0", "1e308", "nan", "?",
)  # fmt: skip
VALUES = (
    "", "~", "0", "-1", "1", "1e-05", "5e-4", ".5e3", "1e3", "1e999", ".nan", "-.inf", "9" * 30, "9" * 5000,
    "010", "0o10", "0x1F", "1_0", "1:30", "yes", "on", "true", "''", "'1'", '"\\0"', '"\\ud800"', "[]",
    "[1, 2]", "[.inf]", "[[[[]]]]", "{}", "{a: 1}", "&x 1", "*x", "&x [*x]", "!!float 1", "!!python/name:x x",
    "2020-01-01", "2020-13-01", "|", "- 1", "<<", "=", "deeplabv3", "32", "1.5", "[pamr, crf]", "mps", "auto",
    "frozen", "seam",
)  # fmt: skip


SIZES = (
    (0, 30), (1, 1), (41, 30), (40, 31), (30, 40), (1000, 1000), (5000, 5000), (65_535, 30), (7, 65_535),
    (65_535, 65_535), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1),
)  # fmt: skip


class Wrong(Exception):
    """Forbidden behaviour of a case."""


# ------------------------------------------------------------------------------------------------ mutations


def spoilt_bytes(random: Random, data: bytes) -> bytes:
    """Change a few bytes, or cut, copy, insert and delete some."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 5, 20))):
        at = random.randrange(len(changed) + 1)
        length = random.choice((1, 2, 4, 16, 200))
        match random.randrange(8):
            case 0 | 1 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case 2:
                changed[at : at + length] = random.randbytes(length)
            case 3:
                changed[at : at + length] = b""
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                number = random.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
                changed[at : at + 4] = number.to_bytes(4, random.choice(("big", "little")))
            case 6 if random.random() < 0.3:
                del changed[at:]
            case 7:
                changed[at:at] = random.randbytes(length)
        if not changed:
            return b""
    return bytes(changed)


def spoilt_text(random: Random, text: str) -> bytes:
    """Change lines, fields and characters; rarely bytes or the encoding."""
    lines = text.split("\n")
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(lines))
        line = lines[at]
        match random.randrange(9):
            case 0:
                lines.insert(at, random.choice(lines))
            case 1:
                del lines[at]
            case 2:
                other = random.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                fields = line.split(",")
                fields[random.randrange(len(fields))] = random.choice(ODD)
                lines[at] = ",".join(fields)
            case 4:
                fields = line.split(",")
                fields.insert(random.randrange(len(fields) + 1), random.choice(fields))
                lines[at] = ",".join(fields)
            case 5 | 6:
                place = random.randrange(len(line) + 1)
                lines[at] = line[:place] + random.choice(ODD) + line[place:]
            case 7:
                place = random.randrange(len(line) + 1)
                lines[at] = line[:place] + line[place + 1 :]
            case 8:
                lines.insert(at, random.choice(("", " ", ",,,", ";;;", '"', "#", "\r")))
        lines = lines or [""]
    changed = "\n".join(lines)
    if random.random() < 0.05:
        return changed.encode(random.choice(("utf-16", "latin-1", "utf-8-sig", "utf-32")), "replace")
    content = changed.encode()
    return spoilt_bytes(random, content) if random.random() < 0.1 else content


def spoilt_yaml(random: Random, text: str) -> bytes:
    """Change values, keys and indentation; sometimes any text."""
    if random.random() < 0.2:
        return spoilt_text(random, text)
    lines = text.split("\n")
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.choice([n for n, line in enumerate(lines) if ":" in line])
        line = lines[at]
        key = line.partition(":")[0]
        match random.randrange(12):
            case 0 | 1 | 2:
                lines[at] = f"{key}: {random.choice(VALUES)}"
            case 3 | 8 | 9 | 10 | 11:
                number = re.search(r": ([\d.]+)", line)
                factor = random.choice((1, 1, 2, 0.5, 10, 1e-5))
                if number and not random.randrange(3):
                    lines[at] = f"{key}: {float(number[1]) * factor:.3e}"
                elif number:
                    lines[at] = f"{key}: {round(float(number[1]) * factor)}"
            case 4:
                lines.insert(random.randrange(len(lines)), line)
            case 5:
                lines[at] = line.replace(key.strip(), random.choice((*ODD, "1", "null", "? x")), 1)
            case 6:
                lines[at] = random.choice(("", " ", "  ", "\t")) + random.choice((line, line.strip()))
            case 7 if len(lines) > 5:
                del lines[at]
    return "\n".join(lines).encode()


# --------------------------------------------------------------------------------------------------- inputs


def noise(random: Random, size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    small = np.frombuffer(random.randbytes(8 * 8 * 3), np.uint8).reshape(8, 8, 3)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def valid_photo(random: Random) -> tuple[str, bytes]:
    """Return a file extension and a photo in one of many formats."""
    image = noise(random)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = random.randrange(1, 9)
    exif[ExifTags.Base.Make] = "maker"
    kinds: list[Callable[[], tuple[str, bytes]]] = [
        lambda: ("jpg", encoded(image, "JPEG", exif=exif)),
        lambda: ("jpg", encoded(image.convert("L"), "JPEG")),
        lambda: ("jpg", encoded(image.convert("CMYK"), "JPEG", progressive=True)),
        lambda: ("jpg", encoded(image, "MPO", save_all=True, append_images=[noise(random)])),
        lambda: ("png", encoded(image, "PNG", exif=exif)),
        lambda: ("png", encoded(image.convert("P"), "PNG", transparency=3)),
        lambda: ("png", encoded(image.convert("LA"), "PNG")),
        lambda: ("png", encoded(image.convert("1"), "PNG")),
        lambda: (
            "png",
            encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8), "PNG"),
        ),
        lambda: ("tif", encoded(image, "TIFF", compression=random.choice((None, "tiff_lzw", "jpeg")))),
        lambda: ("tif", encoded(image.convert("F"), "TIFF")),
        lambda: ("tif", encoded(image.convert("I"), "TIFF")),
        lambda: ("webp", encoded(image, "WEBP", exif=exif)),
        lambda: ("gif", encoded(image, "GIF", save_all=True, append_images=[noise(random)])),
        lambda: ("bmp", encoded(image.convert(random.choice(("RGB", "P", "1"))), "BMP")),
    ]
    return random.choice(kinds)()


def valid_mask(random: Random) -> tuple[str, bytes]:
    ids = np.zeros(SIZE[::-1], np.uint8)
    ids[5:20, 5:20], ids[0] = random.randrange(1, 3), 255
    image = Image.fromarray(ids)
    palette = Image.fromarray(ids)
    palette.putpalette(random.randbytes(768))
    kinds: list[Callable[[], tuple[str, bytes]]] = [
        lambda: ("png", encoded(image, "PNG")),
        lambda: ("png", encoded(palette, "PNG")),
        lambda: ("png", encoded(palette.convert("RGB"), "PNG")),
        lambda: ("png", encoded(image.convert("RGBA"), "PNG")),
        lambda: ("tif", encoded(image.convert("I"), "TIFF")),
        lambda: ("png", encoded(image.resize((random.randrange(1, 90), 30)), "PNG")),
        lambda: ("png", encoded(image.point(lambda v: v * random.randrange(1, 256)), "PNG")),
        lambda: ("jpg", encoded(image, "JPEG")),
        lambda: ("tif", encoded(image, "TIFF")),
        lambda: ("gif", encoded(palette, "GIF")),
        lambda: ("bmp", encoded(image, "BMP")),
    ]
    return random.choice(kinds)()


def with_size(random: Random, content: bytes) -> bytes:
    """Return the image with another size in its header, with a valid checksum."""
    side, other = random.choice(SIZES)
    if content.startswith(b"\x89PNG"):
        head = b"IHDR" + struct.pack(">II", side, other) + content[24:29]
        return content[:12] + head + struct.pack(">I", zlib.crc32(head)) + content[33:]
    if content.startswith(b"BM"):
        return content[:18] + struct.pack("<ii", side, random.choice((-1, 1)) * other) + content[26:]
    if content.startswith(b"GIF8"):
        return content[:6] + struct.pack("<HH", side % 65536, other % 65536) + content[10:]
    at = next((content.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in content), -1)
    if content.startswith(b"\xff\xd8") and at > 0:
        return content[: at + 5] + struct.pack(">HH", side % 65536, other % 65536) + content[at + 9 :]
    return spoilt_bytes(random, content)


def spoilt_image(random: Random, content: bytes) -> bytes:
    match random.randrange(10):
        case 0:
            return content
        case 1 | 2:
            return with_size(random, content)
        case 3:
            return content[: random.randrange(len(content))]
        case 4 | 5:  # only the header
            return spoilt_bytes(random, content[:100]) + content[100:]
        case _:
            return spoilt_bytes(random, content)


# ----------------------------------------------------------------------------------------------------- doors


class Door:
    """An entry point under test: creates inputs, runs them and checks the results."""

    def __init__(self, folder: Path) -> None:
        """Prepare the files that all inputs share in `folder`, which is empty."""
        self.folder = folder

    def make(self, random: Random) -> tuple[str, bytes]:
        """Return the name and the content of an input."""
        raise NotImplementedError

    def feed(self, name: str, content: bytes) -> bool:
        """Run an input; return True if it was accepted.

        Raises:
            Wrong: the result is forbidden.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Run the checks that need several inputs together."""


def told(command: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command in this process; return its exit status and output."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = command(arguments)
    words = said.getvalue()
    if "Traceback" in words:
        raise Wrong(f"a traceback:\n{words}")
    if status not in (0, 2):
        raise Wrong(f"status {status}: {words}")
    if status == 2 and not words.strip():
        raise Wrong("refused without a word")
    return status, words


class Folder(Door):
    """A folder of photos, read by index_data."""

    ROWS = ("image,split,tags,mask", "a.jpg,train,cat,a.png", "b.jpg,train,cat;dog,", "c.jpg,val,dog,")
    TABLE = "\n".join((*ROWS, "d e.jpg,val,cat,\n"))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.photos, self.out = folder / "photos", folder / "out"
        self.photos.mkdir()
        for name in ("a", "b", "c", "d e"):
            (self.photos / f"{name}.jpg").write_bytes(encoded(noise(Random(name)), "JPEG"))
        mask = np.zeros(SIZE[::-1], np.uint8)
        mask[5:20, 5:20] = 1
        (self.photos / "a.png").write_bytes(encoded(Image.fromarray(mask), "PNG"))
        (self.photos / "classes.txt").write_text("\n".join(CLASSES) + "\n")
        (self.photos / "tags.csv").write_text(self.TABLE)
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params = with_changes(params, {"source": "folder", "index_data.folder": str(self.photos)}, "")
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        if not self.index():
            raise Wrong("the valid folder is refused")
        self.right = self.data().entries

    def index(self) -> bool:
        """Run the stage; return True if it accepted the folder. A refused folder must leave no output."""
        shutil.rmtree(self.out, ignore_errors=True)
        flags = {"params": self.folder / "params.yaml"}
        flags |= {"data-set": self.out / "data_set", "archives": self.out / "none.json"}
        status, words = told(main, ["index_data", *(t for n, p in flags.items() for t in (f"--{n}", str(p)))])
        left = sorted(p.name for p in self.out.rglob("*"))
        expected = ["classes.txt", "data_set", "images.zip", "index.csv"] if status == 0 else []
        if [name for name in left if not name.endswith(".lock")] != expected:
            raise Wrong(f"status {status}, and {left} in the folder: {words}")
        return status == 0

    def data(self) -> DataSet:
        return DataSet(self.out / "data_set")

    def entries(self) -> list[Entry]:
        """Return the entries of the index after checking each one."""
        data = self.data()
        for entry in data.entries:
            if not set(entry.tags) <= set(data.classes[1:]) or entry.split not in ("train", "val", "test"):
                raise Wrong(f"an unsound line: {entry}")
            if data.image(entry).shape[1:] != entry.size:
                raise Wrong(f"another size: {entry}")
            if entry.mask:
                ids = data.true_mask(entry)
                if ids.shape != entry.size:
                    raise Wrong(f"a mask of another size: {entry}")
                if not set(np.unique(ids)) <= {*range(len(data.classes)), 255}:
                    raise Wrong(f"ids that are no class: {np.unique(ids)}")
        return data.entries


class Tags(Folder):
    """tags.csv; half of the inputs are equivalent to the valid table."""

    def make(self, random: Random) -> tuple[str, bytes]:
        if random.random() < 0.5:
            return "spoilt", spoilt_text(random, self.TABLE)
        return "same", self._same(random)

    def _same(self, random: Random) -> bytes:
        """Return the valid table in another spreadsheet dialect."""
        rows = [line.split(",") for line in self.TABLE.splitlines()]
        delimiter = random.choice((",", ",", ";", "\t"))
        spaces, quotes = random.random() < 0.3, random.random() < 0.3
        if random.random() < 0.3:
            rows[0] = [random.choice((name, name.title(), name.upper())) for name in rows[0]]
        if random.random() < 0.3:
            rows = [[*row, ""] for row in rows]
        if random.random() < 0.2:
            order = random.sample(range(4), 4)
            rows = [[row[n] for n in order] + row[4:] for row in rows]
        lines = []
        for row in rows:
            if lines and random.random() < 0.15:
                lines.append(random.choice(("", delimiter * 3, "  ")))
            fields = [f'"{f}"' if quotes or delimiter in f else f for f in row]
            lines.append((f"{delimiter} " if spaces and not quotes else delimiter).join(fields))
        text = random.choice(("\n", "\r\n")).join(lines) + random.choice(("", "\n", "\n\n"))
        return random.choice((b"", b"\xef\xbb\xbf")) + text.encode()

    def feed(self, name: str, content: bytes) -> bool:
        (self.photos / "tags.csv").write_bytes(content)
        accepted = self.index()
        if accepted:
            entries = self.entries()
            if name == "same" and entries != self.right:
                raise Wrong(f"read otherwise: {entries}")
            if len(entries) > len(content.splitlines()):
                raise Wrong("more lines than the table has")
        return accepted


class Classes(Folder):
    """classes.txt, read by index_data."""

    def make(self, random: Random) -> tuple[str, bytes]:
        return "classes", spoilt_text(random, "background\ncat\ndog\nbird\n")

    def feed(self, name: str, content: bytes) -> bool:  # noqa: ARG002
        (self.photos / "classes.txt").write_bytes(content)
        accepted = self.index()
        if accepted:
            self.entries()
            ours = (self.out / "data_set/classes.txt").read_text(encoding="utf-8").split("\n")[:-1]
            text = unicodedata.normalize("NFC", content.decode("utf-8-sig")).replace("\ufeff", "")
            lines = [" ".join(line.split()) for line in re.split("\r\n|\r|\n", text)]
            first, *others = [line for line in lines if line]
            if ours != [first.lower(), *others]:
                raise Wrong(f"read as {ours}")
        return accepted


class Photos(Folder):
    """A photo read by index_data, and batches of photos read by predict."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.network = saved_network(folder / "network.pt")
        self.batch = folder / "batch"
        self._count = itertools.count()
        self.batch.mkdir()

    def make(self, random: Random) -> tuple[str, bytes]:
        ending, content = valid_photo(random)
        return f"x.{ending}", spoilt_image(random, content)

    def feed(self, name: str, content: bytes) -> bool:
        (self.photos / name).write_bytes(content)
        row = f"{name},train,cat,\n"
        (self.photos / "tags.csv").write_text(self.TABLE + row)
        accepted = self.index()
        if accepted:
            (entry,) = (e for e in self.entries() if e.key == "x")
            kept = read_image(Archive(self.out / "data_set/images.zip").read(entry.image))
            plain = plainly_decoded(content)
            if plain is not None and not alike(kept, plain):
                raise Wrong(f"other pixels: {kept.size} and {plain.size}")
        (self.batch / f"{next(self._count):03}{Path(name).suffix}").write_bytes(content)
        if len(list(self.batch.iterdir())) >= 25:
            self.finish()
        return accepted

    def finish(self) -> None:
        """Run predict on the collected photos; each must be either labelled or named in an error."""
        photos = sorted(self.batch.iterdir())
        if not photos:
            return
        out = self.folder / "labelled"
        flags = ["--network", str(self.network), "--out", str(out), "--device", "cpu"]
        status, words = told(main, ["predict", str(self.batch), *flags])
        named = 0
        for photo in photos:
            labelled = (out / f"labels/{photo.stem}.json").exists()
            named += not labelled
            if labelled == (f"error: {photo}: " in words):
                raise Wrong(f"{photo.name} is neither labelled nor named, or both: {words}")
            if labelled:
                Image.open(out / f"masks/{photo.stem}.png").load()
        if (status == 2) != (named > 0) or not (out / "summary.csv").exists():
            raise Wrong(f"status {status}: {words}")
        shutil.rmtree(out)
        for photo in photos:
            photo.unlink()


def plainly_decoded(content: bytes) -> Image.Image | None:
    """Return a photo as decoded by Pillow; None if Pillow fails or the pixels are ambiguous."""
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        if image.mode not in ("RGB", "L", "1", "CMYK") or image.has_transparency_data:
            return None
        return ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # any failure: no reference to compare with
        return None


def alike(kept: Image.Image, plain: Image.Image) -> bool:
    """Return True if the pixels are unchanged, or equal to those of a JPEG of quality 95."""
    buffer = io.BytesIO()
    plain.save(buffer, "JPEG", quality=95)
    return any(np.array_equal(kept, other) for other in (plain, Image.open(buffer)))


class Masks(Folder):
    """A mask, read by index_data."""

    def make(self, random: Random) -> tuple[str, bytes]:
        ending, content = valid_mask(random)
        return f"mask.{ending}", spoilt_image(random, content)

    def feed(self, name: str, content: bytes) -> bool:
        (self.photos / name).write_bytes(content)
        (self.photos / "tags.csv").write_text(self.TABLE.replace("a.png", name))
        accepted = self.index()
        if accepted:
            (entry,) = (e for e in self.entries() if e.mask)
            ids = self.data().true_mask(entry)
            image = Image.open(io.BytesIO(content))
            if image.mode in ("L", "P") and not np.array_equal(ids, np.asarray(image)):
                raise Wrong("other ids")
        return accepted


class Params(Door):
    """params.yaml, read by the command that writes a run's params."""

    NAME = "params.yaml"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.text = (ROOT / self.NAME).read_text(encoding="utf-8")
        for name in ("params.yaml", "ablations.yaml"):
            shutil.copy(ROOT / name, folder)
        runs = {"common": {}, "runs": {"cam": {}}, "repeats": {"s0": {}}}
        values = yaml.safe_load((folder / "ablations.yaml").read_text())
        if self.NAME == "params.yaml":
            (folder / "ablations.yaml").write_text(yaml.safe_dump({**values, **runs}))

    def make(self, random: Random) -> tuple[str, bytes]:
        return self.NAME, spoilt_yaml(random, self.text)

    def feed(self, name: str, content: bytes) -> bool:
        (self.folder / name).write_bytes(content)
        out = self.folder / "run.yaml"
        out.unlink(missing_ok=True)
        with contextlib.chdir(self.folder):
            status, words = told(write_run, ["cam-s0", "--params", "run.yaml"])
        if out.exists() != (status == 0):
            raise Wrong(f"status {status}, and the file is there or not: {words}")
        if status == 0 and repr(read_yaml(out)) != repr(self.expected()):
            raise Wrong("the run has other values")
        return status == 0

    def expected(self) -> Any:
        """Return the expected values, as read by DVC."""
        return loads_yaml((self.folder / "params.yaml").read_text(encoding="utf-8-sig"))


class Ablations(Params):
    """ablations.yaml, read by the command that writes a run's params."""

    NAME = "ablations.yaml"

    def expected(self) -> Any:
        values = super().expected()
        said = loads_yaml((self.folder / "ablations.yaml").read_text(encoding="utf-8-sig"))
        for changes in (said["common"], said["runs"]["cam"], said["repeats"]["s0"]):
            for name, value in changes.items():
                *sections, last = name.split(".")
                node = values
                for section in sections:
                    node = node[section]
                node[last] = value
        return values


def saved_network(path: Path) -> Path:
    torch.manual_seed(0)
    architecture = Architecture("segmenter", "resnet10", 16, "frozen", "deeplabv2", CLASSES, 32)
    save_network(path, architecture, SEGMENTER.build(architecture).state_dict())
    return path


class Network(Door):
    """network.pt, read by predict."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.valid = saved_network(folder / "valid.pt").read_bytes()
        (folder / "a.png").write_bytes(encoded(noise(Random(0), (16, 12)), "PNG"))

    def make(self, random: Random) -> tuple[str, bytes]:
        match random.randrange(4):
            case 0:
                return "bytes", spoilt_bytes(random, self.valid)
            case 1:  # the structure is at the start and at the end
                head, tail = self.valid[:3000], self.valid[-3000:]
                body = self.valid[3000:-3000]
                return "ends", spoilt_bytes(random, head) + body + spoilt_bytes(random, tail)
            case 2:
                return "cut", self.valid[: random.randrange(len(self.valid))]
            case _:
                return "values", self._other_values(random)

    def _other_values(self, random: Random) -> bytes:
        content = torch.load(io.BytesIO(self.valid), weights_only=True)
        odd = (
            None,
            0,
            -1,
            2.5,
            10**12,
            "",
            "x",
            [],
            {},
            True,
            float("nan"),
            ["a", "a"],
            list("abc"),
            [1, 2, 3],
        )
        described, weights = content["architecture"], content["weights"]
        match random.randrange(6):
            case 0 | 1 | 2:
                described[random.choice([*described, "more"])] = random.choice(odd)
            case 3:
                del described[random.choice(list(described))]
            case 4:
                name = random.choice(list(weights))
                changes = [
                    lambda w: w.flatten()[:0], lambda w: w * float("nan"), lambda w: w.to(torch.int8),
                    lambda w: w[None], lambda w: w.to(torch.complex64), lambda _: "x",
                    lambda w: w.to_sparse() if w.dim() else w,
                ]  # fmt: skip
                weights[name] = random.choice(changes)(weights[name])
            case 5:
                content[random.choice(("architecture", "weights", "about"))] = random.choice(odd)
        buffer = io.BytesIO()
        torch.save(random.choice((content, content, content, random.choice(odd))), buffer)
        return buffer.getvalue()

    def feed(self, name: str, content: bytes) -> bool:  # noqa: ARG002
        (self.folder / "network.pt").write_bytes(content)
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        flags = ["--network", str(self.folder / "network.pt"), "--out", str(out), "--device", "cpu"]
        status, words = told(main, ["predict", str(self.folder / "a.png"), *flags])
        if status == 2 and out.exists() and list(out.rglob("*.png")):
            raise Wrong(f"refused, and masks are there: {words}")
        if status == 0:
            ids = read_mask((out / "masks/a.png").read_bytes())
            names = (out / "classes.txt").read_text(encoding="utf-8").splitlines()
            if ids.shape != (12, 16) or ids.max() >= len(names):
                raise Wrong(f"a mask of {ids.shape} with ids up to {ids.max()}")
        return status == 0


class Archives(Door):
    """A zip, tar or tar.gz, read by name and extracted."""

    def make(self, random: Random) -> tuple[str, bytes]:
        files = {"a/1.txt": b"one" * 200, "a/b/2.bin": random.randbytes(3000), "ä.txt": b"", "z": bytes(9000)}
        buffer, kind = io.BytesIO(), random.choice(("zip", "tar", "tar.gz"))
        names = random.choice(
            ("a/1.txt", "../x", "/x", "a", "a/1.txt/x", "x\\y", "C:x", "x" * 300, "a//1.txt", ".")
        )
        if random.random() < 0.2:
            files[names] = b"odd"
        if kind == "zip":
            with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", random.choice((0, 8))) as packed:
                warnings.simplefilter("ignore")
                for name, content in files.items():
                    packed.writestr(name, content)
        else:
            style = random.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))
            with (
                contextlib.suppress(ValueError),
                tarfile.open(fileobj=buffer, mode="w", format=style) as packed,
            ):
                for name, content in files.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    if random.random() < 0.05:
                        member.type, member.linkname = random.choice(
                            (
                                (tarfile.SYMTYPE, "/etc/passwd"),
                                (tarfile.LNKTYPE, "a/1.txt"),
                                (tarfile.CHRTYPE, ""),
                            )
                        )
                    packed.addfile(member, io.BytesIO(content))
        data = buffer.getvalue()
        if kind == "tar.gz":
            if random.random() < 0.5:
                data = spoilt_bytes(random, data)
            data = gzip.compress(data, mtime=0)
        return f"x.{kind}", data if random.random() < 0.15 else spoilt_bytes(random, data)

    def feed(self, name: str, content: bytes) -> bool:
        archive, folder = self.folder / name, self.folder / "unpacked"
        archive.write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        accepted = True
        read: dict[str, bytes] = {}
        if not name.endswith("gz"):
            try:
                packed = Packed(archive)
                for each in packed.names():
                    read[each] = packed.read(each)
            except InputError:
                accepted = False
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                extract(archive, folder, limit=10_000_000)
        except InputError:
            if folder.exists() or list(self.folder.glob(".unpacked*.tmp")):
                raise Wrong("refused, and something is unpacked") from None
            return False
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.name != NOTE}
        if any(p.is_symlink() or not (p.is_file() or p.is_dir()) for p in files.values()):
            raise Wrong("a link or a device is unpacked")
        unpacked = {name: p.read_bytes() for name, p in files.items() if p.is_file()}
        if accepted and not name.endswith("gz") and unpacked != read:
            raise Wrong(f"unpacked {sorted(unpacked)} and read {sorted(read)} differ")
        return True


DOORS: dict[str, type[Door]] = {
    "tags": Tags,
    "classes": Classes,
    "params": Params,
    "ablations": Ablations,
    "photos": Photos,
    "masks": Masks,
    "network": Network,
    "archives": Archives,
}


# ------------------------------------------------------------------------------------------------------- runs


def cases(door: Door, name: str, seed: int, numbers: Sequence[int]) -> Iterator[tuple[int, str, bytes]]:
    """Yield the number, name and content of each input."""
    for number in numbers:
        yield number, *door.make(Random(f"{seed} {name} {number}"))


def try_door(name: str, seed: int, numbers: Sequence[int], seconds: float, failures: Path) -> "Counter[str]":
    """Run inputs until all are done or time is up; count the accepted, refused and wrong inputs."""
    counts: Counter[str] = Counter(accepted=0, refused=0, wrong=0)
    with tempfile.TemporaryDirectory() as folder:
        door = DOORS[name](Path(folder))
        end = time.monotonic() + seconds
        number, label, content = -1, "finish", b""
        try:
            for number, label, content in cases(door, name, seed, numbers):
                counts[_tried(lambda: door.feed(label, content), name, number, label, content, failures)] += 1  # noqa: B023
                if time.monotonic() > end:
                    break
        finally:
            faulthandler.cancel_dump_traceback_later()
        last = _tried(lambda: door.finish() is None, name, number, label, content, failures)
        counts["wrong"] += last == "wrong"
    return counts


def _tried(
    run: Callable[[], bool], door: str, number: int, label: str, content: bytes, failures: Path
) -> str:
    """Run a case: an exception or too much memory makes it wrong, a hang ends this process."""
    place = failures / f"{door}-{number}-{Path(label).name}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)  # kept if a hang ends this process
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faulthandler.dump_traceback_later(HANG, exit=True)
    try:
        accepted = run()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if grown > MEMORY:
            raise Wrong(f"takes {grown / 1000:.0f} MB")
    except Exception:  # any exception is a finding
        print(f"{door} {number}: see {place}\n{traceback.format_exc()[-3000:]}", file=sys.stderr, flush=True)
        return "wrong"
    finally:
        faulthandler.cancel_dump_traceback_later()
    place.unlink()
    return "accepted" if accepted else "refused"


def fuzz(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the chosen doors; print one line for each; return 1 if any input was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--door", default="all", choices=("all", *DOORS))
    parser.add_argument("--inputs", type=int, default=1000, help="of each door")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600, help="of each door, at most")
    parser.add_argument("--only", type=int, help="the input of this number alone")
    parser.add_argument("--failures", type=Path, default=Path(tempfile.gettempdir(), "plda-fuzz"))
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    os.environ["PYTHONWARNINGS"] = "ignore"
    torch.set_num_threads(1)
    numbers = range(options.inputs) if options.only is None else [options.only]
    wrong = 0
    for name in DOORS if options.door == "all" else [options.door]:
        began = time.monotonic()
        counts = try_door(name, options.seed, numbers, options.seconds, options.failures)
        wrong += counts["wrong"]
        said = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        print(f"{name}: {said}, in {time.monotonic() - began:.0f} s", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(fuzz())
