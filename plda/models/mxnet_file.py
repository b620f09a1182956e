"""Read the arrays of an MXNet `.params` file without MXNet.

The format of MXNet's `save` (NDArray::Save in its src/ndarray/ndarray.cc), little-endian:

    file     uint64 0x112, uint64 reserved, uint64 number of arrays, the arrays,
             uint64 number of names, the names in the same order
    name     uint64 length, that many bytes of UTF-8
    array    version 2: uint32 0xF993FAC9, int32 storage (0: dense), shape of int64, content
             version 1: uint32 0xF993FAC8, shape of int64, content
             version 0: shape of uint32, content
    shape    uint32 number of dimensions, the dimensions
    content  int32 device type, int32 device number, int32 value type, the values in row-major order

The device is where the array was stored; it is ignored. Weights are dense floating-point numbers, so an
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
SIDES = 32  # maximum number of dimensions of an array


def is_mxnet_file(path: Path) -> bool:
    """Return whether a file begins with MXNet's magic number."""
    with path.open("rb") as stream:
        return stream.read(8) == struct.pack("<Q", MAGIC)


def read_mxnet_file(path: Path) -> dict[str, Tensor]:
    """Read all arrays by name, such as `arg:conv1a_weight`, as float32 tensors.

    Raises:
        InputError: not an MXNet file, too short or too long, or with unsupported content; names the position.
    """
    with path.open("rb") as stream:
        file = _File(path, stream)
        if file.number("Q", "magic number") != MAGIC:
            raise file.error("magic number", "must be that of an MXNet file")
        file.number("Q", "reserved number")
        count = file.number("Q", "number of arrays")
        arrays = [_array(file, f"array {i + 1} of {count}") for i in range(count)]
        if file.number("Q", "number of names") != count:
            raise file.error("number of names", f"must be the number of arrays, {count}")
        names = [_name(file, f"name {i + 1} of {count}") for i in range(count)]
        if file.left:
            raise file.error("end", f"{file.left} more bytes follow")
    if len(set(names)) < count:
        raise file.error("names", "must be unique")
    return dict(zip(names, arrays, strict=True))


class _File:
    """Reads a file part by part and reports where it is wrong.

    Attributes:
        left: number of bytes that are not read yet.
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
        """Read a number of one of `struct`'s kinds: i int32, I uint32, q int64, Q uint64."""
        value: int = struct.unpack(f"<{kind}", self.take(struct.calcsize(kind), field))[0]
        return value

    def error(self, field: str, problem: str) -> InputError:
        return InputError(f"{self.path}: {field}: {problem}")


def _array(file: _File, field: str) -> Tensor:
    sides, kind = file.number("I", f"{field}: header"), "I"
    if sides in (VERSION1, VERSION2):
        if sides == VERSION2 and (storage := file.number("i", f"{field}: storage type")) != 0:
            raise file.error(f"{field}: storage type", f"must be 0 (dense), got {storage}")
        sides, kind = file.number("I", f"{field}: shape"), "q"
    if sides > SIDES:
        raise file.error(f"{field}: header", f"{sides:#x} is not a known version")
    shape = [file.number(kind, f"{field}: shape") for _ in range(sides)]
    if min(shape, default=0) < 1:
        raise file.error(f"{field}: shape", f"must not be empty, got {shape}")
    file.take(8, f"{field}: device")
    number = file.number("i", f"{field}: value type")
    if number not in TYPES:
        raise file.error(
            f"{field}: value type", f"must be 0, 1 or 2 (float32, float64, float16), got {number}"
        )
    dtype = np.dtype(TYPES[number])
    values = np.frombuffer(file.take(math.prod(shape) * dtype.itemsize, f"{field}: values"), dtype)
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def _name(file: _File, field: str) -> str:
    length = file.number("Q", field)
    try:
        return file.take(length, field).decode()
    except UnicodeDecodeError as error:
        raise file.error(field, "must be UTF-8") from error
