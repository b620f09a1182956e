"""A trained segmentation network that labels photos of any size."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from plda.compute.device import inference_dtype, named_device
from plda.data.classes import class_ids
from plda.data.transforms import resize
from plda.masks.estimate import expected_iou_of_sums
from plda.models.inference import Inference
from plda.models.saved import read_network
from plda.models.segmenters import SEGMENTER
from plda.params import Precision
from plda.refinement.probabilities import (
    USUAL,
    Chain,
    only_tagged,
    probabilities,
    refined_probabilities,
)
from plda.use.windows import enlarged, in_windows

LongSide = int | Literal["trained", "full"]
READING_GAP = 4  # a photo is decoded at this many times the network's input size, at least
WINDOW = 768  # pixels; 6000 x 4000 pixels at full size, 21 classes, take 2.2 GB; with 1024 they take 2.8 GB


@dataclass(frozen=True)
class Found:
    """A class that occurs in a photo.

    Attributes:
        id: the class id, its position in the class list.
        name: name of the class.
        share: fraction of the photo's pixels, in (0, 1].
        confidence: mean probability of this class over its pixels, in (0, 1]. Networks tend to be
            overconfident.
    """

    id: int
    name: str
    share: float
    confidence: float


@dataclass(frozen=True)
class Labelled:
    """The labels of a photo.

    Attributes:
        ids: (H, W) uint8, the class id of each pixel.
        confidence: (H, W) float32, the probability of that class, in (0, 1]; None unless requested.
        found: the classes that occur, the largest share first.
        expected_iou: estimated IoU of `ids` without a true mask, in percent; see `plda.masks.estimate`.
    """

    ids: np.ndarray
    confidence: np.ndarray | None
    found: tuple[Found, ...]
    expected_iou: float


class TrainedNetwork:
    """A segmentation network from a file, with its inference settings.

    Args:
        path: a file that the stage train_segmenter or `python -m plda export` wrote.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "mps".
        long_side: long side of the network's input, in pixels; "trained": as in the training images; "full",
            or "trained" if the file does not give it: the size of the photo.
        scales: factors of the input size; the probabilities are averaged over them.
        flip: whether to average with the probabilities of the mirrored photo.
        precision: number format: "auto" (the fast one on the device), "32", "bf16" or "16".
        window: largest side of the input, in pixels; larger inputs are cut into windows, see `in_windows`.
        refinement: refinement of the probabilities, see `plda.refinement.probabilities`; {}: none, which is
            faster.

    Attributes:
        classes: class names, background first.
        device: device of the network.

    Raises:
        InputError: the file holds no segmentation network, or the device does not exist.
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
        """Return the `long_side` at which `read_image` may read a photo without an effect on the result.

        None: photos are processed at full size.
        """
        if not isinstance(self._long_side, int):
            return None
        return math.ceil(READING_GAP * self._long_side * max(self._scales))

    @torch.no_grad()
    def label(
        self,
        photo: Image.Image,
        *,
        size: tuple[int, int] | None = None,
        confidence: bool = True,
        tags: Sequence[str] | None = None,
    ) -> Labelled:
        """Label every pixel of a photo.

        Args:
            photo: upright RGB, see `plda.data.images.read_image`.
            size: (width, height) of the result; None: the photo's size. Use it for a photo that was read
                smaller.
            confidence: whether to return the confidence of each pixel, which takes four times the memory of
                `ids`.
            tags: names of the classes that the photo may show beside background; None: any class.
        """
        bands = in_windows(lambda part: self._look([tags], part[None])[0], self._fitted(photo), self._window)
        return self._labelled(bands, photo, size, confidence)

    @torch.no_grad()
    def label_together(
        self,
        photos: Sequence[Image.Image],
        *,
        sizes: Sequence[tuple[int, int]],
        tags: Sequence[Sequence[str] | None],
    ) -> list[Labelled]:
        """Label photos of one input size, see `input_size`; the network processes them at once.

        Inputs that are larger than a window are processed one after another.

        Args:
            photos: as in `label`.
            sizes: (width, height) of each result.
            tags: tags of each photo, as in `label`.

        Returns:
            The labels of each photo, without confidence.
        """
        inputs = [self._fitted(photo) for photo in photos]
        if max(inputs[0].shape[1:]) > self._window:
            return [
                self.label(photo, size=size, confidence=False, tags=own)
                for photo, size, own in zip(photos, sizes, tags, strict=True)
            ]
        shares = self._look(tags, torch.stack(inputs))
        return [
            self._labelled(iter([own]), photo, size, confidence=False)
            for own, photo, size in zip(shares, photos, sizes, strict=True)
        ]

    def input_size(self, photo: Image.Image) -> tuple[int, int]:
        """Return the size (height, width) of the network's input for a photo."""
        side = self._long_side if isinstance(self._long_side, int) else max(photo.size)
        factor = side / max(photo.size)
        return max(1, round(photo.height * factor)), max(1, round(photo.width * factor))

    def _labelled(
        self,
        bands: Iterator[Tensor],
        photo: Image.Image,
        size: tuple[int, int] | None,
        confidence: bool,
    ) -> Labelled:
        """Return the labels for probabilities in bands (C, rows, W) of the input's size."""
        width, height = size or photo.size
        if self.input_size(photo) != (height, width):
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

    def _fitted(self, photo: Image.Image) -> Tensor:
        """Return the network's input, (3, h, w) uint8 RGB."""
        image = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
        size = self.input_size(photo)
        return image if image.shape[1:] == size else resize(image[None], size)[0]  # as in training

    def _look(self, tags: Sequence[Sequence[str] | None], images: Tensor) -> Tensor:
        """Return the probabilities (B, C, h, w) of (B, 3, h, w) uint8 RGB; `tags`: those of each photo."""

        def look(images: Tensor, size: Sequence[int]) -> Tensor:
            shares = probabilities(self._network, images, size, scales=self._scales, flip=self._flip)
            return torch.cat(
                [
                    one if own is None else only_tagged(one, [class_ids(own, self.classes)])
                    for one, own in zip(torch.split(shares, 1), tags, strict=True)
                ]
            )

        return refined_probabilities(look, images.to(self.device), self._refinement)
