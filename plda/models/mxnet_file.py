"""The arrays of an MXNet `.params` file, read without MXNet.

What MXNet's `save` writes (NDArray::Save in its src/ndarray/ndarray.cc), little-endian:

    file     uint64 0x112, uint64 reserved, uint64 number of arrays, the arrays,
             uint64 number of names, the names in the same order
    name     uint64 length, that many bytes of UTF-8
    array    version 2: uint32 0xF993FAC9, int32 storage (0: dense), shape of int64, content
             version 1: uint32 0xF993FAC8, shape of int64, content
             version 0: shape of uint32, content
    shape    uint32 number of sides, the sides
    content  int32 device type, int32 device number, int32 value type, the values, last side fastest

The device is where the array was; it does not matter here. Weights are dense floating point numbers, so an
array that is sparse, empty or of another type is refused.
"""

import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from plda.errors import InputError

MAGIC = 0x112
VERSION1, VERSION2 = 0xF993FAC8, 0xF993FAC9
TYPES = {0: "<f4", 1: "<f8", 2: "<f2"}
SIDES = 32  # no array has more


def is_mxnet_file(path: Path) -> bool:
    """Whether a file begins as MXNet's do."""
    with path.open("rb") as stream:
        return stream.read(8) == struct.pack("<Q", MAGIC)


def read_mxnet_file(path: Path) -> dict[str, Tensor]:
    """All arrays by name, such as `arg:conv1a_weight`, as float32 tensors.

    Raises:
        InputError: it is no such file, ends early or late, or holds what is refused; the place is named.
    """
    with path.open("rb") as stream:
        file = _File(path, stream)
        if file.number("Q", "magic number") != MAGIC:
            raise file.error("magic number", "is not that of an MXNet file")
        file.number("Q", "reserved number")
        count = file.number("Q", "number of arrays")
        arrays = [_array(file, f"array {i + 1} of {count}") for i in range(count)]
        if file.number("Q", "number of names") != count:
            raise file.error("number of names", f"is not the number of arrays, {count}")
        names = [_name(file, f"name {i + 1} of {count}") for i in range(count)]
        if file.left:
            raise file.error("end", f"{file.left} bytes follow it")
    if len(set(names)) < count:
        raise file.error("names", "one stands twice")
    return dict(zip(names, arrays, strict=True))


class _File:
    """Reads on, and says where a file is wrong.

    Attributes:
        left: bytes not read yet.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.left = path.stat().st_size

    def take(self, size: int, field: str) -> bytes:
        if size > self.left:
            raise self.error(field, f"the file ends early: {size} bytes are needed, {self.left} are left")
        self.left -= size
        return self.stream.read(size)

    def number(self, kind: str, field: str) -> int:
        """One of `struct`'s kinds: i int32, I uint32, q int64, Q uint64."""
        value: int = struct.unpack(f"<{kind}", self.take(struct.calcsize(kind), field))[0]
        return value

    def error(self, field: str, problem: str) -> InputError:
        return InputError(f"{self.path}: {field}: {problem}")


def _array(file: _File, field: str) -> Tensor:
    sides, kind = file.number("I", f"{field}: header"), "I"
    if sides in (VERSION1, VERSION2):
        if sides == VERSION2 and (storage := file.number("i", f"{field}: storage type")) != 0:
            raise file.error(f"{field}: storage type", f"is {storage}; only dense arrays, 0, can be read")
        sides, kind = file.number("I", f"{field}: shape"), "q"
    if sides > SIDES:
        raise file.error(f"{field}: header", f"{sides:#x} is that of no known version")
    shape = [file.number(kind, f"{field}: shape") for _ in range(sides)]
    if min(shape, default=0) < 1:
        raise file.error(f"{field}: shape", f"is {shape}, which is empty")
    file.take(8, f"{field}: device")
    number = file.number("i", f"{field}: value type")
    if number not in TYPES:
        raise file.error(
            f"{field}: value type", f"is {number}; 0, 1, 2 (float32, float64, float16) are known"
        )
    dtype = np.dtype(TYPES[number])
    values = np.frombuffer(file.take(math.prod(shape) * dtype.itemsize, f"{field}: values"), dtype)
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def _name(file: _File, field: str) -> str:
    length = file.number("Q", field)
    try:
        return file.take(length, field).decode()
    except UnicodeDecodeError as error:
        raise file.error(field, "is not UTF-8") from error
