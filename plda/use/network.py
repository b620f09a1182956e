"""A trained segmentation network, ready to label photos of any size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from plda.compute.device import inference_dtype, named_device
from plda.data.transforms import resize
from plda.masks.estimate import expected_iou_of_sums
from plda.masks.probabilities import USUAL, Chain, probabilities, refined_probabilities
from plda.masks.windows import enlarged, in_windows
from plda.models.inference import Inference
from plda.models.saved import read_network
from plda.models.segmenters import SEGMENTER
from plda.params import Precision

LongSide = int | Literal["trained", "full"]
READING_GAP = 4  # a photo is read at this many times the size at which the network sees it, at least
WINDOW = 768  # pixels; 6000 x 4000 pixels of 21 classes then take 2.2 GB at full size, with 1024 2.8 GB


@dataclass(frozen=True)
class Found:
    """A class that occurs in a photo.

    Attributes:
        id: its place in the list of classes.
        name: of the class.
        share: of the photo's pixels, in (0, 1].
        confidence: mean over its pixels of the probability that the network gives it, in (0, 1]. A network
            tends to be surer than it is right.
    """

    id: int
    name: str
    share: float
    confidence: float


@dataclass(frozen=True)
class Labelled:
    """What a network says of a photo.

    Attributes:
        ids: (H, W) uint8, each pixel's class.
        confidence: (H, W) float32, the probability of that class, in (0, 1]; None unless asked for.
        found: the classes that occur, the largest share first.
        expected_iou: of the ids, in percent: an estimate without a true mask, see `plda.masks.estimate`.
    """

    ids: np.ndarray
    confidence: np.ndarray | None
    found: tuple[Found, ...]
    expected_iou: float


class TrainedNetwork:
    """A segmentation network from its file, and the way it looks at photos.

    Args:
        path: what the stage train_segmenter or `python -m plda export` wrote.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "mps".
        long_side: a photo's long side as the network sees it, pixels; "trained": as the images that it learnt
            from; "full", or where the file does not say: the photo's own.
        scales: factors of that; the probabilities are averaged.
        flip: whether the mirrored photo is averaged in.
        precision: of its numbers: "auto" (the fast one of the device), "32", "bf16" or "16".
        window: the most pixels, along either side, that are looked at together; see `in_windows`.
        refinement: of the probabilities, see `plda.masks.probabilities`; {}: none, which is faster.

    Attributes:
        classes: class names, background first.
        device: where it runs.

    Raises:
        InputError: no segmentation network, or no such device.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        device: str = "auto",
        long_side: LongSide = "trained",
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        precision: Precision = "auto",
        window: int = WINDOW,
        refinement: Chain = USUAL,
    ) -> None:
        architecture, network = read_network(Path(path), SEGMENTER)
        self.classes = architecture.classes
        self.device = named_device(device, "device")
        self._network = Inference(network, self.device, inference_dtype(precision, self.device))
        self._long_side = architecture.long_side if long_side == "trained" else long_side
        self._scales, self._flip, self._window = scales, flip, window
        self._refinement = refinement

    @property
    def reading_side(self) -> int | None:
        """The `long_side` with which `read_image` may read a photo: the network sees no difference.

        None: it sees photos at their own size.
        """
        if not isinstance(self._long_side, int):
            return None
        return math.ceil(READING_GAP * self._long_side * max(self._scales))

    @torch.no_grad()
    def label(
        self, photo: Image.Image, *, size: tuple[int, int] | None = None, confidence: bool = True
    ) -> Labelled:
        """Label every pixel of a photo.

        Args:
            photo: upright RGB, see `plda.data.images.read_image`.
            size: (width, height) of what comes out; None: the photo's. For a photo that was read smaller.
            confidence: whether each pixel's confidence is kept, which takes four times the memory of the ids.
        """
        image = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
        width, height = size or photo.size
        seen = self._fitted(image)
        bands = in_windows(self._look, seen, self._window)
        if seen.shape[1:] != (height, width):
            bands = enlarged(torch.cat(list(bands), dim=1), height, width)
        ids = np.empty((height, width), np.uint8)
        sure = np.empty((height, width), np.float32) if confidence else None
        pixels, hits, total = np.zeros((3, len(self.classes)))
        top = 0
        for band in bands:  # (C, rows, W)
            most, which = (part.cpu().numpy() for part in band.max(dim=0))
            rows = slice(top, top + len(which))
            ids[rows] = which
            if sure is not None:
                sure[rows] = most
            pixels += np.bincount(which.ravel(), minlength=len(pixels))
            hits += np.bincount(which.ravel(), weights=most.ravel(), minlength=len(pixels))
            total += band.sum(dim=(1, 2)).cpu().numpy()
            top = rows.stop
        found = (
            Found(int(i), self.classes[i], float(pixels[i] / ids.size), float(hits[i] / pixels[i]))
            for i in np.argsort(-pixels, kind="stable")
            if pixels[i]
        )
        expected = expected_iou_of_sums(*map(torch.from_numpy, (hits, pixels, total)))
        return Labelled(ids, sure, tuple(found), float(expected))

    def _fitted(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 at the size that the network is to see."""
        height, width = image.shape[1:]
        if not isinstance(self._long_side, int) or self._long_side == max(height, width):
            return image
        factor = self._long_side / max(height, width)
        size = [max(1, round(height * factor)), max(1, round(width * factor))]
        return resize(image[None], size)[0]  # as in training

    def _look(self, part: Tensor) -> Tensor:
        """Probabilities (C, h, w) of (3, h, w) uint8 RGB."""
        look = partial(probabilities, self._network, scales=self._scales, flip=self._flip)
        return refined_probabilities(look, part[None].to(self.device), self._refinement)[0]
