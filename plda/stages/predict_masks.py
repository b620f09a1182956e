"""Stage predict_masks."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from plda.compute.device import find_device, inference_dtype, together_on
from plda.compute.parallel import parallel_map
from plda.data.data_set import DataSet
from plda.data.index import Entry, by_size
from plda.files import replacing
from plda.masks.estimate import expected_iou, write_estimates
from plda.masks.folder import write_mask
from plda.models.inference import Inference
from plda.models.saved import load_network
from plda.models.segmenters import SEGMENTER
from plda.params import Compute, Precision, PredictMasks
from plda.processes import in_processes
from plda.refinement.crf import most_likely, require
from plda.refinement.probabilities import probabilities, refined_probabilities


def predict_masks(
    data_set: Path,
    segmenter: Path,
    predictions: Path,
    estimates: Path,
    *,
    predict_masks: PredictMasks,
    compute: Compute,
) -> None:
    """Predict the class of every pixel of unseen images, without using their tags.

    The expected IoU of each mask is estimated from the network's own probabilities, before any CRF.

    Args:
        data_set: folder of the data set, see `plda.data.data_set`.
        segmenter: trained segmentation network.
        predictions: output: folder of palette PNGs.
        estimates: output: expected IoU of each predicted mask, in percent.
        predict_masks: section `predict_masks` of params.yaml.
        compute: device, precision and number of processes.
    """
    finish = "crf" in predict_masks.refinement
    if finish:
        require("predict_masks.refinement")
    data = DataSet(data_set)
    entries = data.split(*predict_masks.splits)
    make = partial(_Predictions, segmenter, data, predict_masks, compute.precision)
    groups = list(by_size(entries, together_on(find_device(compute))))
    with parallel_map(make, compute, len(entries)) as predict, replacing(predictions) as folder:
        expected: list[float] = []
        predicted = _noting(chain.from_iterable(predict(groups)), expected)
        masks: Iterator[np.ndarray]
        if finish:
            refine = partial(most_likely, **predict_masks.of("crf"))
            masks = in_processes(refine, predicted, torch.get_num_threads())
        else:
            masks = (ids for _, ids in predicted)
        shown = tqdm(masks, total=len(entries), unit="image", disable=not sys.stderr.isatty())
        for entry, ids in zip(chain.from_iterable(groups), shown, strict=True):
            write_mask(folder, entry, ids)
    found = dict(zip(chain.from_iterable(groups), expected, strict=True))
    write_estimates(estimates, ((entry, found[entry]) for entry in entries))


def _noting(
    predicted: Iterable[tuple[np.ndarray, np.ndarray, float]], expected: list[float]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the first two values of each item, as a CRF takes them; append the third to `expected`."""
    for image, shares, value in predicted:
        expected.append(value)
        yield image, shares


class _Predictions:
    """Predicts the masks of a group of images of one size."""

    def __init__(
        self, path: Path, data: DataSet, settings: PredictMasks, precision: Precision, device: torch.device
    ) -> None:
        """Load the network at `path` for the classes of `data`."""
        dtype = inference_dtype(precision, device)
        network = Inference(load_network(path, SEGMENTER, data.classes), device, dtype)
        self._look = partial(probabilities, network, scales=settings.scales, flip=settings.flip)
        self._data, self._device = data, device
        self._chain = {step: settings.of(step) for step in settings.refinement if step != "crf"}
        self._finish = "crf" in settings.refinement

    def load(self, entries: Sequence[Entry]) -> Tensor:
        """Read the images."""
        return self._data.images(entries)

    def __call__(self, images: Tensor) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """Return for each image: (H, W, 3) uint8 RGB, (H, W) uint8 class ids, expected IoU in percent.

        If a CRF follows, (C, H, W) float32 probabilities replace the ids.
        """
        shares = refined_probabilities(self._look, images.to(self._device), self._chain)
        ids = shares.argmax(dim=1)
        expected = expected_iou(shares, ids).tolist()
        made = shares if self._finish else ids.to(torch.uint8)
        return list(zip(images.permute(0, 2, 3, 1).numpy(), made.cpu().numpy(), expected, strict=True))
