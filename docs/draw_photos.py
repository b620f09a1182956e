"""Draws scenes into a folder with the layout of a user's photos, to try the tutorial without photos:
`python -m docs.draw_photos FOLDER`."""

import sys
from pathlib import Path

import pandas as pd

from plda.data.images import encode_image, encode_mask
from plda.sources.creatures import CLASSES, draw

TRAIN, VAL, SIZE = 60, 20, 320


def main(folder: Path) -> None:
    (folder / "masks").mkdir(parents=True)  # fails if the folder exists
    rows = []
    for number in range(TRAIN + VAL):
        scene = draw(7, number, size=SIZE, body_cue=0.9, part_size=0.18)
        image, mask = f"scene-{number:02}.png", ""
        (folder / image).write_bytes(encode_image(scene.image))
        if number >= TRAIN:  # for validation, with true masks
            mask = f"masks/scene-{number:02}.png"
            (folder / mask).write_bytes(encode_mask(scene.mask))
        split = "train" if number < TRAIN else "val"
        rows.append({"image": image, "split": split, "tags": ";".join(scene.tags), "mask": mask})
    pd.DataFrame(rows).to_csv(folder / "tags.csv", index=False)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
