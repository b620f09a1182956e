"""Stage predict_masks."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.index import read_index
from plda.data.loading import load_image
from plda.files import replacing
from plda.masks.cams import multi_scale
from plda.masks.crf import most_likely, require
from plda.masks.folder import write_mask
from plda.models.saved import load_network
from plda.params import Compute, PredictMasks
from plda.processes import in_processes
from plda.training.compute import find_device


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
    device = find_device(compute)
    network = load_network(segmenter, "segmenter", read_classes(classes)).to(device)
    network = network.to(memory_format=torch.channels_last)
    archive = Archive(images)
    entries = read_index(index, *predict_masks.splits)

    def predicted() -> Iterator[tuple[Tensor, Tensor]]:
        """Each image, (3, H, W) uint8 RGB, and its classes' probabilities, (C, H, W)."""
        for entry in entries:
            image = load_image(archive, entry)
            yield (
                image,
                multi_scale(
                    lambda x: network(x).softmax(dim=1),
                    image.to(device),
                    (entry.height, entry.width),
                    scales=predict_masks.scales,
                    flip=predict_masks.flip,
                ),
            )

    masks: Iterator[np.ndarray]
    if predict_masks.crf.enabled:
        masks = in_processes(
            partial(most_likely, **predict_masks.crf.model_dump(exclude={"enabled"})),
            ((image.permute(1, 2, 0).numpy(), shares.cpu().numpy()) for image, shares in predicted()),
            torch.get_num_threads(),
        )
    else:
        masks = (shares.argmax(dim=0).to(torch.uint8).cpu().numpy() for _, shares in predicted())
    with replacing(predictions) as folder:
        progress = tqdm(entries, unit="image", disable=not sys.stderr.isatty())
        for entry, ids in zip(progress, masks, strict=True):
            write_mask(folder, entry, ids)
