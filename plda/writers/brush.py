"""Label Studio's run lengths of brush masks: bits, packed into bytes.

The bits: 32 for the number of values, 5 for their word size less one, four times 4 for the sizes of lengths
less one; then for each run 1, 2 for which of the four sizes, the length less one, the value. Values that are
no run (0 instead of 1) follow one by one. The values are those of an RGBA image, so a pixel has four.
https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack
"""

from collections.abc import Sequence

import numpy as np

SIZES = (3, 4, 8, 16)  # bits of a length
WORD, CHANNELS, ON = 8, 4, 255


def encode(pixels: np.ndarray) -> list[int]:
    """Return (H, W) bool pixels as bytes."""
    flat = pixels.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size) * CHANNELS
    parts = [f"{flat.size * CHANNELS:032b}{WORD - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = f"{ON * int(flat[start]):08b}"
        while length:
            which = next((i for i, size in enumerate(SIZES) if length <= 1 << size), len(SIZES) - 1)
            part = min(length, 1 << SIZES[which])
            parts.append(f"1{which:02b}{part - 1:0{SIZES[which]}b}{value}")
            length -= part
    bits = "".join(parts)
    return list(int(bits, 2).__lshift__(-len(bits) % 8).to_bytes(-(-len(bits) // 8), "big"))


def decode(content: Sequence[int], height: int, width: int) -> np.ndarray:
    """Return the (H, W) bool pixels whose alpha is not 0.

    Raises:
        ValueError: the bytes are no image of this size.
    """
    bits = "".join(f"{byte:08b}" for byte in content)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values, done = np.zeros(total, np.uint8), 0
    while done < total:
        is_run, length = take(1), take(sizes[take(2)]) + 1
        for part in [length] if is_run else [1] * length:
            values[done : done + part] = take(word)
            done += part
    return np.asarray(values.reshape(height, width, CHANNELS)[:, :, -1] > 0)
