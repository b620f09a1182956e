"""Draws docs/picture.png from the run `main`: `python docs/picture.py` after `make`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from plda.data.data_set import DataSet
from plda.data.images import colour
from plda.masks.cams import Cams
from plda.masks.folder import Masks

RUN = Path("results/main")
TRAIN, VAL = (3, 25, 40, 77), (2, 9, 21, 30)  # chosen for variety, before their masks were seen


def main() -> None:
    data, cams = DataSet(RUN / "index_data/data_set"), Cams(RUN / "infer_cams/cams.npz")
    relabelled, predicted = Masks(RUN / "relabel_masks/masks"), Masks(RUN / "predict_masks/masks")
    train, val = ([data.split(s)[i] for i in rows] for s, rows in (("train", TRAIN), ("val", VAL)))
    figure = Figure(figsize=(11, 8.4), layout="constrained")
    left, right = figure.subfigures(1, 2, wspace=0.06)
    left.suptitle("Training: photos and tags", fontsize=14)
    right.suptitle("The network, on photos it has not seen", fontsize=14)
    for row, entry in zip(left.subplots(4, 3), train, strict=True):
        row[0].imshow(data.image(entry).permute(1, 2, 0))
        row[1].imshow(cams.read(entry.key).amax(dim=0), cmap="inferno", vmin=0, vmax=1)
        row[2].imshow(colour(relabelled(entry)))
        label(row, ", ".join(entry.tags), "activation map", "mask made of them")
    for row, entry in zip(right.subplots(4, 3), val, strict=True):
        row[0].imshow(data.image(entry).permute(1, 2, 0))
        row[1].imshow(colour(predicted(entry)))
        row[2].imshow(colour(data.true_mask(entry)))
        label(row, "photo", "prediction", "truth")
    colours = colour(np.arange(len(data.classes), dtype=np.uint8)) / 255
    handles = [
        figure.axes[0].scatter([], [], color=[c], marker="s", s=80, label=name)
        for name, c in zip(data.classes[1:], colours[1:], strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(Path(__file__).with_name("picture.png"), dpi=80)


def label(row: Sequence[Axes], *titles: str) -> None:
    for axes, title in zip(row, titles, strict=True):
        axes.set_axis_off()
        axes.set_title(title, fontsize=10)


if __name__ == "__main__":
    main()
