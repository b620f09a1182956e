"""Stage make_masks."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain as joined
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from plda.compute.parallel import parallel_map
from plda.data.archive import packing
from plda.data.data_set import DataSet
from plda.data.images import VOID
from plda.data.index import Entry
from plda.files import replacing, write_json
from plda.masks.cams import Cams, encode_maps, maps_name
from plda.masks.folder import write_mask
from plda.masks.review import Review, accepted_masks
from plda.masks.seeds import pseudo_mask
from plda.models.boundary import BOUNDARY
from plda.models.inference import Inference
from plda.models.saved import load_network
from plda.params import Compute, MakeMasks
from plda.refinement.chain import (
    DECIDED,
    Group,
    Refined,
    Step,
    background_scores_of,
    colour_step,
    groups,
    load_group,
    refined,
    walk_step,
    with_crf,
)
from plda.refinement.crf import require
from plda.refinement.regions import regions


def make_masks(
    data_set: Path,
    cams: Path,
    boundary_network: Path,
    pseudo_masks: Path,
    refined_cams: Path,
    background_scores: Path,
    *,
    make_masks: MakeMasks,
    compute: Compute,
) -> None:
    """Make pseudo-masks from class activation maps: refine, threshold, mark unclear pixels as undecided.

    The decisions of a review replace masks and tags, see `plda.masks.review`. The stage relabel_masks reads
    them from the folder of pseudo-masks.

    Args:
        data_set: folder of the data set, see `plda.data.data_set`.
        cams: class activation maps (CAMs) of the training images.
        boundary_network: trained boundary network, used by the random walk.
        pseudo_masks: output: folder of palette PNGs, VOID where undecided, and the decisions of the review.
        refined_cams: output: maps after each refinement step.
        background_scores: output: background score of each set of masks, and how the scores were chosen.
        make_masks: section `make_masks` of params.yaml.
        compute: device, precision and number of processes.
    """
    data = DataSet(data_set)
    entries, folder_of_review = data.training, Path(make_masks.review)
    review = Review(folder_of_review, data)
    accepted = accepted_masks(folder_of_review, filter(review.accepts, entries), len(data.classes))
    print(f"review: {review}", file=sys.stderr)
    if review.ignored:
        print(
            f"Warning: {make_masks.review}: decisions about other images: {review.ignored}", file=sys.stderr
        )
    settings, finish = make_masks, "crf" in make_masks.refinement
    if finish:
        require("make_masks.refinement")
    make = partial(_Refinement, boundary_network, data, Cams(cams), settings)
    with parallel_map(make, compute, len(entries)) as refine:

        def chain(entries: Sequence[Entry]) -> Iterator[Refined]:
            return joined.from_iterable(refine(groups(entries)))

        steps = [step for step in settings.refinement if step != "crf"]
        scores, chosen_by = background_scores_of(chain, entries, ["seeds", *steps], settings.background_score)
        *_, background = scores.values()
        decided = chain(entries)
        if finish:
            decided = with_crf(decided, background, settings.of("crf"), torch.get_num_threads())
            scores["crf"] = background = DECIDED
        with replacing(pseudo_masks) as folder, packing(refined_cams, compressed=True) as add:
            for image in tqdm(decided, total=len(entries), unit="image", disable=not sys.stderr.isatty()):
                if review.accepts(image.entry):
                    mask = accepted(image.entry)
                else:
                    mask = _mask(image, data, review, background, settings.undecided)
                write_mask(folder, image.entry, mask)
                for step, after in image.maps.items():
                    add(maps_name(f"{step}/{image.entry.key}"), encode_maps(after))
            review.write(folder)
    write_json(background_scores, {"scores": scores, "chosen_by": chosen_by})


def _mask(image: Refined, data: DataSet, review: Review, background: float, undecided: float) -> np.ndarray:
    """Return the pseudo-mask for the corrected tags, (H, W) uint8 class ids, VOID where undecided.

    Rejected images are undecided, and so are images with an added tag: its class has no map.
    """
    entry, corrected = image.entry, review.corrected(image.entry)
    if review.rejects(entry) or not {*corrected.tags} <= {*entry.tags}:
        return np.full(entry.size, VOID, np.uint8)
    maps = image.last[[entry.tags.index(tag) for tag in corrected.tags] or [0]]
    return pseudo_mask(maps, data.ids(corrected), background, undecided, entry.size).numpy()


class _Refinement:
    """Applies all refinement steps except the CRF to the maps of a group of images of one size."""

    def __init__(
        self, boundary_network: Path, data: DataSet, cams: Cams, settings: MakeMasks, device: torch.device
    ) -> None:
        """Create the steps; load the boundary network, for the classes of `data`, if a step needs it."""
        self._data, self._cams, self._device = data, cams, device
        self._steps: dict[str, Step] = {}
        for name in settings.refinement:
            match name:
                case "random_walk":
                    network = load_network(boundary_network, BOUNDARY, data.classes)
                    see = Inference(network, device, torch.float32)
                    self._steps[name] = walk_step(see, **settings.of(name))
                case "regions":
                    self._steps[name] = partial(regions, **settings.of(name))
                case "crf":  # runs last, outside this class, on the results of all other steps
                    pass
                case _:
                    self._steps[name] = colour_step(name, settings.of(name))

    def load(self, together: Sequence[Entry]) -> Group:
        """Read the images and their maps."""
        return load_group(self._data, self._cams, together)

    def __call__(self, group: Group) -> list[Refined]:
        """Refine the maps of a group."""
        return refined(group, self._steps, self._device)
