"""Stage predict_masks."""

import sys
from pathlib import Path

import torch
from tqdm import tqdm

from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.index import read_index
from plda.data.loading import load_image
from plda.files import replacing
from plda.masks.cams import multi_scale
from plda.masks.folder import write_mask
from plda.models.saved import load_network
from plda.params import Compute, PredictMasks
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
    device = find_device(compute)
    network = load_network(segmenter, "segmenter", read_classes(classes)).to(device)
    network = network.to(memory_format=torch.channels_last)
    archive = Archive(images)
    entries = read_index(index, *predict_masks.splits)
    with replacing(predictions) as folder:
        for entry in tqdm(entries, unit="image", disable=not sys.stderr.isatty()):
            probabilities = multi_scale(
                lambda x: network(x).softmax(dim=1),
                load_image(archive, entry).to(device),
                (entry.height, entry.width),
                scales=predict_masks.scales,
                flip=predict_masks.flip,
            )
            ids = probabilities.argmax(dim=0).to(torch.uint8)
            write_mask(folder, entry, ids.cpu().numpy())
