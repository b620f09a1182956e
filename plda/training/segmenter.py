"""Training of a segmentation network on masks, from initial weights to the matched object share."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from plda.compute.device import find_device, inference_dtype
from plda.data.data_set import DataSet
from plda.data.datasets import MaskedCrops
from plda.data.index import Entry, evenly_spread
from plda.models.inference import Inference
from plda.models.saved import Architecture, load, save_network
from plda.models.segmenters import SEGMENTER, MaskLearner
from plda.models.tagger import read_tagger
from plda.params import Compute, SegmenterTraining
from plda.refinement.probabilities import USUAL, probabilities, refined_probabilities
from plda.training.checkpoints import Checkpoint
from plda.training.loop import Weights, train
from plda.training.object_share import SAMPLE, lead, match_object_share


def fit_segmenter(
    path: Path,
    data: DataSet,
    mask_of: Callable[[Entry], np.ndarray],
    first_weights: Path,
    tagger: Path | None = None,
    *,
    settings: SegmenterTraining,
    seed: int,
    compute: Compute,
    checkpoint: Checkpoint,
    note: Callable[[pd.DataFrame], None],
) -> None:
    """Train a segmentation network and write it.

    Args:
        path: output file, the trained network.
        data: the training images are used.
        mask_of: returns an entry's (H, W) uint8 class ids, VOID where undecided.
        first_weights: initial weights of the backbone, a file of the stage download_backbone.
        tagger: network file of a classifier that becomes part of the network, see `plda.models.tagger`; it
            does not take part in the training. None: none.
        settings: a trainer's section of the params.
        seed: seed of weights, order, augmentation and dropout.
        compute: device settings.
        checkpoint: stores the state.
        note: receives the history after `path` is written, see `plda.training.loop.train`.
    """
    backbone = load(first_weights)
    architecture = Architecture(
        kind=SEGMENTER.name,
        backbone=backbone["name"],
        output_stride=settings.output_stride,
        batch_norm=settings.batch_norm,
        head=settings.head,
        classes=data.classes,
        long_side=round(settings.crop * sum(settings.scale) / 2),
    )

    whole, added = architecture, {}
    if tagger:  # read now: a bad file must not be found after the training
        part, own = read_tagger(tagger, data.classes)
        whole = replace(architecture, tagger=part)
        added = {f"tagger.{name}": value for name, value in own.items()}

    def write(weights: Weights, history: pd.DataFrame) -> None:
        about: dict[str, Any] = {"first_weights": backbone["origin"]}
        weights = {**weights, **added}
        if settings.object_share == "matched":
            weights, about["object_share"] = _matched(weights, whole, data, mask_of, compute)
        save_network(path, whole, weights, about)
        note(history)

    train(
        MaskLearner(SEGMENTER.start(architecture, backbone["weights"], seed, settings.freeze)),
        MaskedCrops(data, mask_of, settings, seed),
        settings=settings,
        seed=seed,
        compute=compute,
        checkpoint=checkpoint,
        write=write,
    )


def _matched(
    weights: Weights,
    architecture: Architecture,
    data: DataSet,
    mask_of: Callable[[Entry], np.ndarray],
    compute: Compute,
) -> tuple[Weights, Mapping[str, float]]:
    """Lower the background's bias, see `plda.training.object_share`; return the weights and the match.

    The fractions are of masks with the usual refinement, which removes object pixels where the network is not
    sure. The bias acts before the refinement, so the remaining difference is matched a second time.
    """
    network = SEGMENTER.build(architecture)
    network.load_state_dict(weights)
    (bias,) = (name for name, parameter in network.named_parameters() if parameter is network.bias)
    device = find_device(compute)
    see = Inference(network, device, inference_dtype(compute.precision, device))
    lower = torch.zeros(len(architecture.classes), 1, 1, device=device)

    look = partial(probabilities, lambda x: see(x) - lower, scales=[1.0], flip=False)

    def leads() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for entry in evenly_spread(data.training, SAMPLE):
            shares = refined_probabilities(look, data.image(entry)[None].to(device), USUAL)
            yield lead(shares[0], mask_of(entry))

    first = match_object_share(leads())
    lower[0] = first.offset
    lower[0] += match_object_share(leads()).offset
    found = first._replace(offset=float(lower[0]))
    print(
        f"object_share: {100 * found.masks:.1f} % of the training pixels are object in the masks, "
        f"{100 * found.network:.1f} % in the network's; background score lowered by {found.offset:.3f}",
        file=sys.stderr,
    )
    lowered = weights[bias].clone()
    lowered[0] -= found.offset
    return {**weights, bias: lowered}, {name: round(value, 4) for name, value in found._asdict().items()}
