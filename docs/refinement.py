"""Draws a picture of the masks of a run after each refinement step.

    python docs/refinement.py [--run results/main] [--images 12] sheet.png

There is one row for each of some training images: the image with its tags, its seeds, the masks after each
step of `make_masks.refinement` at the step's background score; if they exist, the pixels that the boundary
network was trained on, the predicted boundary, and the true mask.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from plda.data.archive import Archive
from plda.data.data_set import DataSet
from plda.data.images import colour, read_mask
from plda.data.index import Entry
from plda.masks.cams import Cams, map_size
from plda.masks.folder import mask_name
from plda.models.boundary import BOUNDARY
from plda.models.saved import load_network
from plda.refinement.chain import boundaries
from plda.scoring.masks import seed_masks


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("results/main"))
    parser.add_argument("--shared", type=Path, help="run that made the shared stages, if not --run")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("sheet", type=Path, help="output: the picture")
    options = parser.parse_args()
    run, shared = options.run, options.shared or options.run
    data = DataSet(shared / "index_data/data_set")
    entries = data.split("train")
    background = json.loads((run / "make_masks/background_scores.json").read_text())["scores"]
    raw, after = Cams(shared / "infer_cams/cams.npz"), Cams(run / "make_masks/cams.npz")
    sure = Archive(shared / "train_boundary/seeds.zip")
    network = None
    if sure.names():
        network = load_network(shared / "train_boundary/network.pt", BOUNDARY, data.classes)

    def pictures(entry: Entry) -> dict[str, np.ndarray]:
        image = data.image(entry)
        shown = {", ".join(entry.tags): image.permute(1, 2, 0).numpy()}
        for step, score in background.items():
            maps = raw.read(entry.key) if step == "seeds" else after.read(f"{step}/{entry.key}")
            shown[step] = colour(seed_masks(data, lambda _, maps=maps: maps, score)(entry))
        if network is not None:
            boundary = boundaries(network, image, map_size(*entry.size))[0]
            shown["sure pixels"] = colour(read_mask(sure.read(mask_name(entry))))
            shown["boundary"] = np.repeat(boundary.numpy()[..., None], 3, axis=2)
        if entry.mask:
            shown["truth"] = colour(data.true_mask(entry))
        return shown

    rows = [pictures(entries[i * len(entries) // options.images]) for i in range(options.images)]
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(1.8 * columns, 1.6 * len(rows)), layout="constrained")
    for axes, row in zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True):
        for place in axes:
            place.set_axis_off()
        for place, (title, picture) in zip(axes, row.items(), strict=False):
            place.imshow(picture)
            place.set_title(title, fontsize=8)
    figure.savefig(options.sheet, dpi=75)


if __name__ == "__main__":
    main()
