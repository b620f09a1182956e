"""Memory and speed of infer_cams, train_segmenter and predict on photos of many sizes.

    python benchmarks/memory.py [--photos 400] [--folder build]

Draws photos with a long side of 320 pixels and masks for them, into a folder that is deleted at the end, and
runs each command with workflow/presets/photos.yaml (MobileNetV2, random weights), first on 100 of the photos,
then on all. Prints the most memory that its largest process held in either run (mapped files count), and
images per second and CPU time per image from the difference of the two runs, so without the start.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from PIL import Image

FEW = 100
LONG_SIDE, SHORT_SIDES = 320, (180, 320)
COMMANDS = ("infer_cams", "train_segmenter", "predict")
WEIGHTS = "import sys, torch, torchvision as t; torch.save(t.models.mobilenet_v2().state_dict(), sys.argv[1])"


class Cost(NamedTuple):
    """What a command took: MB at most, seconds, seconds of CPU."""

    memory: float
    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--folder", type=Path, default=Path("build"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder.resolve()) as temporary:
        few, many = Path(temporary) / "few", Path(temporary) / "many"
        for folder, count in ((few, FEW), (many, options.photos)):
            prepare(folder, count)
        flags = ("cam_backbone", "checkpoints", "cam_network", "cam_history", "cam_machine")
        run("train_cam", few, *DATA, *flags)
        (many / "cam_network").symlink_to(few / "cam_network")
        (many / "network").symlink_to(few / "segmenter")
        (few / "network").symlink_to(few / "segmenter")
        print(f"{'':16}MB at {FEW}  MB at {options.photos}  images/s  CPU s/image")
        for name in COMMANDS:
            first, last = measure(name, few), measure(name, many)
            images = options.photos - FEW
            print(
                f"{name:16}{first.memory:9.0f}{last.memory:11.0f}{images / (last.wall - first.wall):10.1f}"
                f"{(last.cpu - first.cpu) / images:13.3f}",
                flush=True,
            )


DATA = ("index", "images", "classes")


def measure(name: str, folder: Path) -> Cost:
    """Run one of COMMANDS on the photos in `folder`."""
    match name:
        case "infer_cams":
            return run(name, folder, *DATA, "cam_network", "cams")
        case "train_segmenter":
            written = ("checkpoints", "segmenter", "segmenter_history", "segmenter_machine")
            return run(name, folder, *DATA, "pseudo_masks", "segmenter_backbone", *written)
        case _:
            flags = ("--network", folder / "network", "--out", folder / "out")
            return run_command("predict", folder / "photos/images", *flags)


def run(stage: str, folder: Path, *paths: str) -> Cost:
    """Run a stage whose flags `paths` name files of `folder`."""
    flags = [text for path in paths for text in ("--" + path.replace("_", "-"), folder / path)]
    return run_command(stage, "--params", folder / "params.yaml", *flags)


def run_command(*arguments: str | Path) -> Cost:
    """Run a command of plda, which must succeed. This process stays small: a child begins with its memory."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, "-m", "plda", *arguments], stderr=said, stdout=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        assert process.returncode == 0, said.read().decode()
    seconds = time.perf_counter() - began
    return Cost(usage.ru_maxrss * 1024 / 1e6, seconds, usage.ru_utime + usage.ru_stime)


def prepare(folder: Path, count: int) -> None:
    """The photos, their index and the first weights."""
    photos = folder / "photos"
    draw(photos, count)
    preset = Path(__file__).parent.parent / "workflow/presets/photos.yaml"
    params = yaml.safe_load(preset.read_text())
    params["index_data"]["folder"] = str(photos)
    for network in ("cams", "segmenter"):
        params["download_backbone"][network]["weights"] = str(folder / "weights.pt")
    params["train_cam"] |= {"epochs": 1, "inspected": 0}
    params["train_segmenter"] |= {"epochs": 1, "supervision": "masks"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run([sys.executable, "-c", WEIGHTS, folder / "weights.pt"], check=True)
    (folder / "archives").mkdir()
    (folder / "pseudo_masks").mkdir()
    run_command(
        *("index_data", "--params", folder / "params.yaml", "--folder", photos),
        *("--archives", folder / "archives"),
        *(text for name in DATA for text in (f"--{name}", folder / name)),
    )
    run("download_backbone", folder, "cam_backbone", "segmenter_backbone")


def draw(folder: Path, count: int) -> None:
    """Photos of many sizes, each with a mask of one ellipse: `count` for training, and one for validation."""
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    lines = ["image,split,tags,mask"]
    for k in range(count + 1):
        size = (LONG_SIDE, int(random.integers(*SHORT_SIDES)))[:: random.choice((1, -1))]
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"images/{k:05}.jpg")
        x, y = (np.linspace(-1, 1, side) for side in size)
        inside = np.hypot(*np.meshgrid(x, y)) < random.uniform(0.3, 0.9)
        Image.fromarray(inside.astype(np.uint8)).save(folder / f"masks/{k:05}.png")
        lines.append(f"images/{k:05}.jpg,{'train' if k else 'val'},{'ab'[k % 2]},masks/{k:05}.png")
    (folder / "tags.csv").write_text("\n".join([*lines, ""]))
    (folder / "classes.txt").write_text("background\na\nb\n")


if __name__ == "__main__":
    main()
