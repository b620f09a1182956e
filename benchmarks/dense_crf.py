"""Measures a dense CRF on a segmentation network's probabilities: seconds of one core, and peak memory.

python benchmarks/dense_crf.py [--labels 21] [--size 500 375] PHOTO ...

Photos are cropped to the size, or padded by mirroring, never resized: resizing would smooth them, and the CRF
is faster on similar colours. Without photos, noise is used, the worst case. The probabilities are smooth and
random; the CRF's parameters are those of params.yaml.
"""

import argparse
import resource
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from plda.params import read_params
from plda.refinement.crf import most_likely

ROUNDS = 6  # on noise
COARSE = 8  # random probabilities per side, which are interpolated


def fitted(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop or mirror (h, w, 3) pixels to (height, width, 3)."""
    missing = [
        (0, max(0, wanted - side)) for wanted, side in zip((height, width), pixels.shape, strict=False)
    ]
    return np.pad(pixels, [*missing, (0, 0)], mode="symmetric")[:height, :width]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--labels", type=int, default=21)
    parser.add_argument("--size", type=int, nargs=2, default=(500, 375), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("photos", type=Path, nargs="*", metavar="PHOTO")
    options = parser.parse_args()
    width, height = options.size
    random = np.random.default_rng(0)
    images = [fitted(np.asarray(Image.open(p).convert("RGB")), height, width) for p in options.photos]
    images = images or list(random.integers(0, 256, (ROUNDS, height, width, 3), np.uint8))
    scale = (1, height / COARSE, width / COARSE)
    scores = ndimage.zoom(3 * random.standard_normal((options.labels, COARSE, COARSE)), scale, order=1)
    shares = np.exp(scores).astype(np.float32)
    shares /= shares.sum(axis=0)
    del scores
    settings = read_params(Path("params.yaml")).predict_masks.model_dump()["crf"]

    seconds = []
    for image in images:
        began = time.process_time()
        most_likely(image, shares, **settings)
        seconds.append(time.process_time() - began)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    median, least, most = statistics.median(seconds), min(seconds), max(seconds)
    print(f"{len(images)} images of {width} x {height}, {options.labels} labels")
    print(f"{median:.1f} s ({least:.1f} to {most:.1f}), {memory:.0f} MiB held by the process")


if __name__ == "__main__":
    main()
