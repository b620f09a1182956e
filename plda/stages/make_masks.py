"""Stage make_masks."""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from plda.adaptation.pamr import pamr
from plda.data.archive import Archive
from plda.data.classes import class_ids, read_classes
from plda.data.index import Entry, read_index
from plda.data.loading import load_image
from plda.data.transforms import resize
from plda.files import replacing, write_json
from plda.masks.cams import Cams
from plda.masks.folder import write_mask
from plda.masks.seeds import pseudo_mask, strengths
from plda.params import Compute, MakeMasks
from plda.training.compute import find_device

SAMPLE = 500  # images on which an automatic background score is chosen: enough for a stable histogram


def make_masks(
    index: Path,
    images: Path,
    classes: Path,
    cams: Path,
    pseudo_masks: Path,
    background_scores: Path,
    *,
    make_masks: MakeMasks,
    compute: Compute,
) -> None:
    """Turn class activation maps into pseudo-masks: refine, threshold, leave close calls undecided.

    Args:
        index: the table of the data set.
        images: its archive.
        classes: its class names.
        cams: the maps of the training images.
        pseudo_masks: written: a folder of palette PNGs, VOID where undecided.
        background_scores: written: the scores that background was given, and how they were chosen.
        make_masks: its section of the params.
        compute: where it runs.
    """
    names = read_classes(classes)
    entries = read_index(index, "train")
    archive, maps = Archive(images), Cams(cams)
    device = find_device(compute)

    @torch.no_grad()
    def refined(entry: Entry) -> Tensor:
        raw = maps.read(entry.key).to(device)
        if make_masks.refinement == "none":
            return raw
        image = load_image(archive, entry).to(device)[None] / 255
        small = resize(image, raw.shape[-2:])
        return pamr(small, raw[None], iterations=make_masks.pamr_iterations)[0]

    if make_masks.background_score == "auto":
        sample = entries[:: math.ceil(len(entries) / SAMPLE)]
        for_seeds = strengths(maps.read(entry.key) for entry in sample).otsu()
        for_masks = strengths(map(refined, sample)).otsu()
        chosen_by = f"Otsu's threshold on the maps of {len(sample)} images, no pixel labels"
    else:
        for_seeds = for_masks = make_masks.background_score
        chosen_by = "params"
    with replacing(pseudo_masks) as folder:
        for entry in tqdm(entries, unit="image", disable=not sys.stderr.isatty()):
            mask = pseudo_mask(
                refined(entry),
                class_ids(entry.tags, names),
                for_masks,
                make_masks.undecided,
                (entry.height, entry.width),
            )
            write_mask(folder, entry, mask.cpu().numpy())
    scores = {"seeds": for_seeds, "pseudo_masks": for_masks, "chosen_by": chosen_by}
    write_json(background_scores, scores)
