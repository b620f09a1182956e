"""Stage train_segmenter."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from plda.compute.device import find_device, inference_dtype
from plda.data.archive import Archive
from plda.data.classes import read_classes
from plda.data.datasets import MaskedCrops
from plda.data.index import Entry, read_training_entries
from plda.data.loading import load_true_mask
from plda.errors import InputError
from plda.files import write_json
from plda.masks.folder import load_mask
from plda.models.inference import Inference
from plda.models.saved import Architecture, load, save_network
from plda.models.segmenters import SEGMENTER, MaskLearner
from plda.params import Compute, TrainSegmenter
from plda.training.checkpoints import Checkpoint, fingerprint
from plda.training.compute import describe
from plda.training.loop import Weights, train, write_history
from plda.training.object_share import match_object_share


def train_segmenter(
    index: Path,
    images: Path,
    classes: Path,
    pseudo_masks: Path,
    segmenter_backbone: Path,
    checkpoints: Path,
    segmenter: Path,
    segmenter_history: Path,
    segmenter_machine: Path,
    *,
    train_segmenter: TrainSegmenter,
    seed: int,
    compute: Compute,
) -> None:
    """Train a segmentation network on pseudo-masks, or on true ones, to see what those would give.

    Args:
        index: the table of the data set.
        images: its archive, with the true masks.
        classes: its class names.
        pseudo_masks: the masks that tags alone have led to, VOID where undecided.
        segmenter_backbone: the weights to start from.
        checkpoints: folder for what a killed training resumes from.
        segmenter: written: the trained network.
        segmenter_history: written: losses and learning rate by epoch.
        segmenter_machine: written: what the training ran on.
        train_segmenter: its section of the params.
        seed: of weights, order, augmentation and dropout.
        compute: where it runs.

    Raises:
        InputError: it is to learn from true masks, and an image has none.
    """
    names, archive = read_classes(classes), Archive(images)
    entries, masks = read_training_entries(index), partial(load_mask, pseudo_masks)
    if train_segmenter.supervision == "masks":
        _need_masks(entries, index)
        masks = partial(_true_mask, archive)
    backbone = load(segmenter_backbone)
    architecture = Architecture(
        kind=SEGMENTER.name,
        backbone=backbone["name"],
        output_stride=train_segmenter.output_stride,
        batch_norm=train_segmenter.batch_norm,
        head=train_segmenter.head,
        classes=names,
        long_side=round(train_segmenter.crop * sum(train_segmenter.scale) / 2),
    )
    network = SEGMENTER.start(architecture, backbone["weights"], seed, train_segmenter.freeze)
    data = MaskedCrops(entries, archive, masks, train_segmenter, seed)

    def write(weights: Weights, history: pd.DataFrame) -> None:
        about = {"first_weights": backbone["origin"]}
        if train_segmenter.object_share == "matched":
            weights, about["object_share"] = _matched(weights, architecture, entries, archive, masks, compute)
        save_network(segmenter, architecture, weights, about)
        write_history(segmenter_history, history)
        write_json(segmenter_machine, describe(compute))

    key = fingerprint(
        [train_segmenter.model_dump(), seed],
        [index, images, classes, pseudo_masks, segmenter_backbone],
    )
    train(
        MaskLearner(network),
        data,
        settings=train_segmenter,
        seed=seed,
        compute=compute,
        checkpoint=Checkpoint(checkpoints / f"train_segmenter-{key}"),
        write=write,
    )


def _matched(
    weights: Weights,
    architecture: Architecture,
    entries: Sequence[Entry],
    archive: Archive,
    masks: Callable[[Entry], np.ndarray],
    compute: Compute,
) -> tuple[Weights, dict[str, float]]:
    """Lower the background's bias as `plda.training.object_share` says; the weights, and what was found."""
    network = SEGMENTER.build(architecture)
    network.load_state_dict(weights)
    (bias,) = (name for name, parameter in network.named_parameters() if parameter is network.bias)
    device = find_device(compute)
    see = Inference(network, device, inference_dtype(compute.precision, device))
    found = match_object_share(see, entries, archive, masks, device)
    print(
        f"object_share: {100 * found.masks:.1f} % of the training pixels are object in the masks, "
        f"{100 * found.network:.1f} % in the network's; matched by {found.offset:.3f} less for background",
        file=sys.stderr,
    )
    lowered = weights[bias].clone()
    lowered[0] -= found.offset
    return weights | {bias: lowered}, {name: round(value, 4) for name, value in found._asdict().items()}


def _need_masks(entries: Sequence[Entry], index: Path) -> None:
    """Refuse a training set of which an image with tags has no true mask.

    Raises:
        InputError: names the first such image of `index`.
    """
    without = [entry.image for entry in entries if entry.tags and not entry.mask]
    if without:
        raise InputError(
            f"{index}: field mask: {without[0]} has no true mask ({len(without)} of {len(entries)} training "
            "images have none); train_segmenter.supervision: masks needs them"
        )


def _true_mask(archive: Archive, entry: Entry) -> np.ndarray:
    """(H, W) uint8 class ids, VOID where unknown; without a mask and tags, background."""
    if not entry.mask:
        return np.zeros((entry.height, entry.width), np.uint8)
    return load_true_mask(archive, entry.mask)
