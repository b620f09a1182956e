"""Stage train_boundary."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from plda.compute.device import find_device
from plda.data.archive import Archive, pack, packing
from plda.data.data_set import DataSet
from plda.data.datasets import MaskedCrops
from plda.data.images import encode_mask, read_mask
from plda.data.index import Entry
from plda.masks.cams import Cams
from plda.masks.folder import mask_name
from plda.models.baselines import CAM
from plda.models.boundary import BOUNDARY
from plda.models.saved import read_network, save, save_network
from plda.params import BoundarySeeds, Compute, TrainBoundary
from plda.randomness import derive_seed
from plda.refinement.boundary import BoundaryLearner, confident_masks
from plda.refinement.chain import (
    Refined,
    Step,
    background_scores_of,
    colour_step,
    groups,
    load_group,
    refined,
    with_crf,
)
from plda.refinement.crf import require
from plda.training.checkpoints import Checkpoint, fingerprint
from plda.training.loop import Weights, train, write_history


def train_boundary(
    data_set: Path,
    cams: Path,
    cam_network: Path,
    checkpoints: Path,
    boundary_network: Path,
    boundary_seeds: Path,
    boundary_history: Path,
    *,
    train_boundary: TrainBoundary,
    seed: int,
    compute: Compute,
) -> None:
    """Train the boundary network, which the random walk uses; if disabled, write empty files.

    Args:
        data_set: folder of the data set, see `plda.data.data_set`.
        cams: class activation maps (CAMs) of the training images.
        cam_network: trained CAM network; the boundary network uses its backbone.
        checkpoints: folder of the checkpoints from which an interrupted training resumes.
        boundary_network: output: trained network.
        boundary_seeds: output: archive of the masks that the network was trained on: palette PNGs, a quarter
            of the image's side, VOID where not confident.
        boundary_history: output: losses and learning rate by epoch.
        train_boundary: section `train_boundary` of params.yaml.
        seed: random seed for weights, image order, augmentation and dropout.
        compute: device, precision and number of processes.
    """
    if not train_boundary.enabled:
        print("train_boundary.enabled is false: nothing to train", file=sys.stderr)
        save(boundary_network, {})
        pack(boundary_seeds, [])
        write_history(boundary_history, pd.DataFrame(columns=["epoch", "step", "lr", "loss"]))
        return
    data = DataSet(data_set)
    cam_architecture, cam = read_network(cam_network, CAM, data.classes)
    architecture = replace(cam_architecture, kind=BOUNDARY.name, batch_norm="frozen", head="")
    torch.manual_seed(derive_seed(seed, 1))
    network = BOUNDARY.build(architecture)
    network.backbone.load_state_dict(cam.backbone.state_dict())

    _write_seeds(boundary_seeds, data, Cams(cams), train_boundary.seeds, find_device(compute))
    masks = Archive(boundary_seeds)

    def mask_of(entry: Entry) -> np.ndarray:
        return read_mask(masks.read(mask_name(entry)))

    def write(weights: Weights, history: pd.DataFrame) -> None:
        save_network(boundary_network, architecture, weights)
        write_history(boundary_history, history)

    key = fingerprint([train_boundary.model_dump(), seed], [data_set, cams, cam_network])
    train(
        BoundaryLearner(network, train_boundary.radius),
        MaskedCrops(data, mask_of, train_boundary, seed),
        settings=train_boundary,
        seed=seed,
        compute=compute,
        checkpoint=Checkpoint(checkpoints / f"train_boundary-{key}"),
        write=write,
    )


def _write_seeds(
    path: Path, data: DataSet, cams: Cams, settings: BoundarySeeds, device: torch.device
) -> None:
    entries = data.training
    before = [name for name in settings.refinement if name != "crf"]
    steps: dict[str, Step] = {name: colour_step(name, settings.of(name)) for name in before}

    def chain(entries: Sequence[Entry]) -> Iterator[Refined]:
        for together in groups(entries):
            yield from refined(load_group(data, cams, together), steps, device)

    decide = None
    if "crf" in settings.refinement:
        require("train_boundary.seeds.refinement")
        decide = partial(with_crf, settings=settings.of("crf"), processes=torch.get_num_threads())
    scores, _ = background_scores_of(chain, entries, ["seeds", *steps], settings.background_score)
    *_, background = scores.values()
    sure = confident_masks(
        chain(entries),
        data.ids,
        foreground=background + settings.margin,
        background=background - settings.margin,
        with_crf=decide,
    )
    with packing(path) as add:
        for entry, mask in tqdm(sure, "seeds", len(entries), unit="image", disable=not sys.stderr.isatty()):
            add(mask_name(entry), encode_mask(mask.numpy()))
