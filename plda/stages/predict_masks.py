"""Stage predict_masks."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.index import Entry, read_index
from plda.data.loading import load_image
from plda.files import replacing
from plda.masks.cams import multi_scale
from plda.masks.crf import most_likely, require
from plda.masks.folder import write_mask
from plda.models.saved import load_network
from plda.models.segmenters import SEGMENTER
from plda.params import Compute, PredictMasks
from plda.processes import in_processes
from plda.training.spread import spread


def predict_masks(
    index: Path,
    images: Path,
    classes: Path,
    segmenter: Path,
    predictions: Path,
    *,
    predict_masks: PredictMasks,
    compute: Compute,
) -> None:
    """Label every pixel of images that the network was not trained on; their tags are not looked at.

    Args:
        index: the table of the data set.
        images: its archive.
        classes: its class names.
        segmenter: the trained segmentation network.
        predictions: written: a folder of palette PNGs.
        predict_masks: its section of the params.
        compute: where it runs.
    """
    if predict_masks.crf.enabled:
        require("predict_masks.crf.enabled")
    names, entries = read_classes(classes), read_index(index, *predict_masks.splits)
    make = partial(_Prediction, segmenter, names, Archive(images), predict_masks)
    with spread(make, compute) as predicted, replacing(predictions) as folder:
        masks: Iterator[np.ndarray]
        if predict_masks.crf.enabled:
            refine = partial(most_likely, **predict_masks.crf.model_dump(exclude={"enabled"}))
            masks = in_processes(refine, predicted(entries), torch.get_num_threads())
        else:
            masks = (ids for _, ids in predicted(entries))
        progress = tqdm(entries, unit="image", disable=not sys.stderr.isatty())
        for entry, ids in zip(progress, masks, strict=True):
            write_mask(folder, entry, ids)


class _Prediction:
    """Labels one image after another."""

    def __init__(
        self, path: Path, names: Sequence[str], archive: Archive, settings: PredictMasks, device: torch.device
    ) -> None:
        """Load the network at `path` for the classes `names`."""
        network = load_network(path, SEGMENTER, names).to(device)
        self._network = network.to(memory_format=torch.channels_last)
        self._archive, self._settings, self._device = archive, settings, device

    def __call__(self, entry: Entry) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB, and (H, W) uint8 class ids; for a CRF its probabilities, (C, H, W) float32."""
        image = load_image(self._archive, entry)
        shares = multi_scale(
            lambda x: self._network(x).softmax(dim=1),
            image.to(self._device),
            (entry.height, entry.width),
            scales=self._settings.scales,
            flip=self._settings.flip,
        )
        if not self._settings.crf.enabled:
            shares = shares.argmax(dim=0).to(torch.uint8)
        return image.permute(1, 2, 0).numpy(), shares.cpu().numpy()
