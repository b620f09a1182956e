"""Stage relabel_masks."""

import math
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from plda.compute.device import find_device, inference_dtype, together_on
from plda.compute.parallel import parallel_map
from plda.data.data_set import DataSet
from plda.data.images import VOID
from plda.data.index import Entry, by_size, evenly_spread
from plda.files import replacing
from plda.masks.estimate import expected_iou_with_tags, write_estimates
from plda.masks.folder import Masks, write_mask
from plda.masks.review import Review
from plda.models.inference import Inference
from plda.models.saved import load_network
from plda.models.segmenters import SEGMENTER
from plda.params import Compute, Precision, RelabelMasks
from plda.refinement.probabilities import only_tagged, probabilities, refined_probabilities
from plda.training.checkpoints import Checkpoint, fingerprint
from plda.training.object_share import SAMPLE, lead, match_object_share
from plda.training.segmenter import fit_segmenter

Item = tuple[Sequence[Entry], float | None]
"""Images of one size, and the offset that lowers background's score; None: compute leads instead of masks."""


def relabel_masks(
    data_set: Path,
    pseudo_masks: Path,
    segmenter_backbone: Path,
    checkpoints: Path,
    training_masks: Path,
    training_estimates: Path,
    *,
    relabel_masks: RelabelMasks,
    seed: int,
    compute: Compute,
) -> None:
    """Relabel the training images with a first segmentation network; if disabled, copy the pseudo-masks.

    The network learns from many images, so it averages out the noise of single masks. The tags of a training
    image are known: its pixels may only get a tagged class or background. The decisions of a review stay:
    accepted masks are not relabelled, rejected images stay undecided, corrected tags are used.

    Args:
        data_set: folder of the data set, see `plda.data.data_set`.
        pseudo_masks: folder of pseudo-masks, VOID where undecided, and the decisions of the review.
        segmenter_backbone: first weights of the network's backbone.
        checkpoints: folder of the checkpoints from which an interrupted training resumes.
        training_masks: output: folder of palette PNGs, VOID where undecided.
        training_estimates: output: expected IoU of each training mask by the first network, in percent, low
            where mask, tags and network disagree. If disabled: no rows.
        relabel_masks: section `relabel_masks` of params.yaml.
        seed: random seed for weights, image order, augmentation and dropout.
        compute: device, precision and number of processes.
    """
    if not relabel_masks.enabled:
        print("relabel_masks.enabled is false: the pseudo-masks are copied", file=sys.stderr)
        with replacing(training_masks) as folder:
            shutil.copytree(pseudo_masks, folder, dirs_exist_ok=True)
        write_estimates(training_estimates, [])
        return
    data, mask_of = DataSet(data_set), Masks(pseudo_masks)
    review = Review(pseudo_masks, data)
    entries = [review.corrected(entry) for entry in data.training]
    key = fingerprint([relabel_masks.model_dump(), seed], [data_set, pseudo_masks, segmenter_backbone])
    network = checkpoints / f"relabel_masks-{key}.pt"
    if not network.exists():  # it exists if an earlier run was interrupted after the training
        fit_segmenter(
            network,
            data,
            mask_of,
            segmenter_backbone,
            settings=relabel_masks,
            seed=seed,
            compute=compute,
            checkpoint=Checkpoint(checkpoints / f"relabel_masks-{key}"),
            note=lambda _: None,
        )
    make = partial(_Relabelling, network, data, mask_of, review, relabel_masks, compute.precision)
    together = together_on(find_device(compute))
    with parallel_map(make, compute, len(entries)) as relabel, replacing(training_masks) as folder:
        leads = relabel((group, None) for group in by_size(evenly_spread(entries, SAMPLE), together))
        offset = match_object_share(chain.from_iterable(leads)).offset
        groups = list(by_size(entries, together))
        made = chain.from_iterable(relabel((group, offset) for group in groups))
        shown = tqdm(made, total=len(entries), unit="image", disable=not sys.stderr.isatty())
        expected = {}
        for entry, (mask, expected[entry.key]) in zip(chain.from_iterable(groups), shown, strict=True):
            write_mask(folder, entry, mask)
    write_estimates(training_estimates, ((entry, expected[entry.key]) for entry in entries))
    network.unlink()


class _Relabelling:
    """Relabels a group of training images of one size.

    Refinement shrinks objects where the network is not sure, so the share of object pixels is matched again
    after it. For this, the leads of a sample of images are computed first, with offset None, see
    `match_object_share`.
    """

    def __init__(
        self,
        path: Path,
        data: DataSet,
        mask_of: Masks,
        review: Review,
        settings: RelabelMasks,
        precision: Precision,
        device: torch.device,
    ) -> None:
        """Load the network at `path` for the classes of `data`."""
        dtype = inference_dtype(precision, device)
        self._network = Inference(load_network(path, SEGMENTER, data.classes), device, dtype)
        self._data, self._mask_of, self._review, self._device = data, mask_of, review, device
        self._chain = {step: settings.of(step) for step in settings.refinement}
        self._undecided = settings.undecided

    def load(self, item: Item) -> tuple[Sequence[Entry], float | None, Tensor]:
        """Read the images, (B, 3, H, W)."""
        entries, offset = item
        return entries, offset, self._data.images(entries)

    def __call__(self, loaded: tuple[Sequence[Entry], float | None, Tensor]) -> list[Any]:
        """Return each image's mask and its expected IoU in percent; without an offset, each image's lead.

        Masks are (H, W) uint8 class ids, VOID where the two largest probabilities are too close.
        """
        entries, offset, images = loaded
        ids = [self._data.ids(entry) for entry in entries]
        seen: Tensor = torch.empty(0)

        def look(images: Tensor, size: Sequence[int]) -> Tensor:
            """Return probabilities (B, C, *size) of the tagged classes and background, 0 for all others."""
            nonlocal seen
            seen = probabilities(self._network, images, size, scales=[1.0], flip=True)
            return only_tagged(seen, ids)

        shares = refined_probabilities(look, images.to(self._device), self._chain)
        if offset is None:
            return [lead(own, self._mask_of(entry)) for own, entry in zip(shares, entries, strict=True)]
        for each in (shares, seen):
            each[:, 0] *= math.exp(-offset)
            each /= each.sum(dim=1, keepdim=True)
        (first, second), (likeliest, _) = (part.unbind(dim=1) for part in shares.topk(2, dim=1))
        made = likeliest.to(torch.uint8).masked_fill(first - second < self._undecided, VOID).cpu().numpy()
        for own, entry in zip(made, entries, strict=True):
            if self._review.keeps(entry):
                own[:] = self._mask_of(entry)
        small = F.interpolate(torch.from_numpy(made)[:, None].to(seen), seen.shape[-2:])[:, 0]
        return list(zip(made, expected_iou_with_tags(seen, small, ids).tolist(), strict=True))
