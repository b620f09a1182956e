"""Measures speed and memory of every stage: in several source trees, or with increasing numbers of images.

    python benchmarks/stages.py costs [--folder PHOTOS] [--share 0.1] [--images 400] [--weights FILE]
                                      [--trees DIR ...] [--threads 2]
    python benchmarks/stages.py growth [--images 200] [--factors 1 4 16] [--stages NAME ...] [--photos]

costs runs the stages in order, with the preset photos (EfficientNet-Lite2, random weights unless a file is
given), on evenly spaced photos of a folder, the same share of its train and val images; or on drawn photos
with a long side of 320 pixels and masks, `--images` for training and a quarter as many for validation. Each
tree runs its own code, preset and commands (dvc.yaml); the trees take turns at every stage. `predict` runs
last, on the same photos. The scores show whether the trees agree; on drawn photos they are meaningless.

growth runs stages on drawn scenes of 128 pixels (preset creatures; index_data draws them) with several
numbers of images. Trainers run one epoch, at the first size only unless they are among the stages, and their
networks are used at every size. growth in the table: seconds per additional image between the last two sizes,
divided by those between the first two, so start-up is excluded; 1 is linear. With --photos the images are
drawn photos of many sizes, with the preset photos: this shows memory that grows with each new image size.

Seconds and CPU seconds include start-up. MB largest: peak memory of the largest process, including mapped
files. MB all: peak memory of all processes of a stage together; memory that they share counts once, memory
that other programs map too counts in part. It is sampled every 0.2 s, or less often, so that sampling takes
at most a fiftieth of a core: for a stage with one process, MB largest is more exact. Linux only.
All files are written into a temporary folder (TMPDIR) that is deleted at the end.
"""

import csv
import json
import os
import shlex
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from subprocess import Popen, check_output
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from plda.data.table import read_table  # noqa: E402
from plda.use.preset import FOLDER, preset_text  # noqa: E402
from workflow.stages import fill_stages, upstream  # noqa: E402

LONG_SIDE, SHORT_SIDES = 320, (180, 320)
COLUMNS = ("image", "split", "tags", "mask")
HEAD = "{:18}{:18}   seconds{:>10}     CPU s  MB largest      MB all{:>13}"
PERIOD, PACE = 0.2, 50  # minimum interval of memory samples: in seconds, and in durations of one sample
TRAINERS = ("train_cam", "train_boundary", "relabel_masks", "train_segmenter")
GROWING = ("index_data", "infer_cams", "make_masks", "evaluate_cams", "predict_masks", "evaluate", "report")
PREDICT = "python -m plda predict {photos}/images --network {segmenter} --out predict"
FROM_TREE = (
    "import torchvision, compileall as c, plda; [p] = plda.__path__; c.compile_dir(p, quiet=1); print(p)"
)


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as temporary:
        options.call(options, Path(temporary))


def parse() -> Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    add = commands.add_parser("costs").add_argument
    add("--folder", type=Path, metavar="PHOTOS", help="folder with tags.csv and classes.txt")
    add("--share", type=float, default=0.1, help="fraction of its train and val images")
    add("--images", type=int, default=400, help="photos to draw for training, if no folder is given")
    add("--weights", type=Path, help="file of MobileNetV2's weights, as published by torchvision")
    add("--trees", type=Path, nargs="+", default=[ROOT], metavar="DIR", help="source trees")
    add = commands.add_parser("growth").add_argument
    add("--images", type=int, default=200, help="training images at factor 1")
    add("--factors", type=int, nargs="+", default=[1, 4, 16])
    add("--stages", nargs="+", default=GROWING, metavar="NAME", help="stages; with --photos also `predict`")
    add("--photos", action="store_true", help="draw photos of many sizes instead of scenes of one size")
    for name, command in commands.choices.items():
        command.set_defaults(call={"costs": costs, "growth": growth}[name])
        command.add_argument("--threads", type=int, default=2, help="OpenMP threads")
    return parser.parse_args()


class Cost(NamedTuple):
    """Cost of a command: seconds, CPU seconds, peak MB of the largest process, peak MB of all processes."""

    wall: float
    cpu: float
    largest: float
    everything: float


class Data(NamedTuple):
    """The numbers of images of a run, and their folder, which does not exist for drawn scenes."""

    train: int
    val: int
    photos: Path


class Run:
    """The stages of one source tree on one data set, in a separate folder."""

    def __init__(self, tree: Path, folder: Path, data: Data, params: dict[str, Any], threads: int) -> None:
        """Prepare the folder and check that its commands run the code of `tree`."""
        self.tree, self.folder, self.data, self.params = tree.resolve(), folder, data, params
        folder.mkdir()
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        if (self.tree / "review").exists():
            (folder / "review").symlink_to(self.tree / "review")
        (folder / "workflow").symlink_to(self.tree / "workflow")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "PYTHONPATH": str(self.tree), "OMP_NUM_THREADS": str(threads)}
        self.environment = os.environ | own
        ran = check_output(["python", "-c", FROM_TREE], cwd=folder, env=self.environment).decode().strip()
        assert ran == str(self.tree / "plda"), f"{ran} is not in {self.tree}"
        self.stages = fill_stages(yaml.safe_load((self.tree / "dvc.yaml").read_text()), params)
        self.commands = {name: stage.command for name, stage in self.stages.items()}
        if data.photos.exists():
            names = {"photos": data.photos, "segmenter": self.stages["train_segmenter"].outputs[0]}
            self.commands["predict"] = PREDICT.format_map(names)
        for output in (path for stage in self.stages.values() for path in stage.outputs):
            (folder / output).parent.mkdir(parents=True, exist_ok=True)

    def needed(self, names: Collection[str], made: Collection[str]) -> list[str]:
        """Return the commands `names` and those that they need, in order; `made` ones need no others."""
        assert set(names) <= set(self.commands), f"{names} must be among {list(self.commands)}"
        needed = set(names)
        for name in reversed(self.commands):
            if name in needed and name not in made:
                stage = self.stages.get(name)
                needed |= set(upstream(stage, self.stages) if stage else ["train_segmenter"])
        return [name for name in self.commands if name in needed]

    def images(self, name: str) -> int:
        """Return the number of images that a command processes, in all epochs; 0 if none."""
        train, val, _ = self.data
        if name in TRAINERS:
            section = self.params[name]
            return train * int(section["epochs"]) if section.get("enabled", True) else 0
        counts = dict.fromkeys(("infer_cams", "make_masks", "evaluate_cams"), train)
        counts |= {"predict_masks": val, "evaluate": val}
        return (counts | dict.fromkeys(("index_data", "report", "predict"), train + val)).get(name, 0)

    def scores(self) -> dict[str, float]:
        """Return the mIoU of seeds, pseudo-masks and predictions in percent; nan without true masks."""
        paths = [self.folder / path for stage in self.stages.values() for path in stage.metrics]
        told = {name: scores for path in paths for name, scores in json.loads(path.read_text()).items()}
        kinds = ("seeds", "pseudo_masks", "predictions")
        return {kind: told.get(kind, {}).get("miou", float("nan")) for kind in kinds}


def costs(options: Namespace, temporary: Path) -> None:
    """Print the cost of each stage in each tree, and the scores of its masks."""
    photos, runs = temporary / "photos", {}
    chosen = options.folder and choose(options.folder.resolve(), photos, options.share)
    data = chosen or draw(photos, options.images)
    for k, tree in enumerate(options.trees, 1):
        params = photo_params(tree, photos, options.weights)
        label = f"{k} {tree.resolve().name}"[:17]
        runs[label] = Run(tree, temporary / str(k), data, params, options.threads)
    print(f"{data.train} train and {data.val} val images, {options.threads} threads")
    print(HEAD.format("stage", "tree", "images/s", "times first"), flush=True)
    taken: dict[str, list[Cost]] = {label: [] for label in runs}
    for k, name in enumerate([*next(iter(runs.values())).commands, "all"]):
        for label in list(runs)[:: -1 if k % 2 else 1]:
            before = taken[label]
            before.append(total(before) if name == "all" else measure(runs[label], name))
        first, *_ = (costs[-1] for costs in taken.values())
        for label, run in runs.items():
            cost, count = taken[label][-1], run.images(name)
            speed = f"{count / cost.wall:.2f}" if count else "-"
            print_row(name, label, cost, speed, f"{cost.wall / first.wall:.3f}")
    print()
    for label, run in runs.items():
        print(f"{'mIoU':18}{label:18}", *(f"{name} {value:.2f}" for name, value in run.scores().items()))


def growth(options: Namespace, temporary: Path) -> None:
    """Print the cost of stages at each number of images, and its growth."""
    runs: list[Run] = []
    taken: dict[str, list[tuple[int, Cost]]] = {name: [] for name in options.stages}
    for factor in options.factors:
        runs.append(grown(options, factor, temporary))
        made = {"download_backbone", *TRAINERS} - set(taken) if len(runs) > 1 else set()
        for name in runs[-1].needed(taken, made):
            if name in made:
                for output in runs[0].stages[name].outputs:
                    (runs[-1].folder / output).symlink_to(runs[0].folder / output)
                continue
            cost = measure(runs[-1], name)
            print(f"x{factor} {name}: {cost.wall:.1f} s", file=sys.stderr, flush=True)
            if name in taken:
                taken[name].append((runs[-1].images(name), cost))
    print(f"{options.threads} threads")
    print(HEAD.format("stage", "images", "s/image", "growth"))
    for name, sizes in taken.items():
        for k, (count, cost) in enumerate(sizes):
            each = f"{cost.wall / count:.4f}" if count else "-"
            print_row(name, str(count), cost, each, slope_ratio(sizes) if k == len(sizes) - 1 else "")


def grown(options: Namespace, factor: int, temporary: Path) -> Run:
    """Return a run with `factor` times the images, and one epoch of each training."""
    train, photos = options.images * factor, temporary / f"photos-{factor}"
    if options.photos:
        data, params = draw(photos, train), photo_params(ROOT, photos, None)
    else:
        data = Data(train, max(1, train // 4), photos)
        params = yaml.safe_load(preset_text("creatures", folder=ROOT / FOLDER))
        params["index_data"]["creatures"] |= {"train": data.train, "val": data.val}
    for name in TRAINERS:
        params[name]["epochs"] = 1
    return Run(ROOT, temporary / f"x{factor}", data, params, options.threads)


def slope_ratio(sizes: Sequence[tuple[int, Cost]]) -> str:
    """Return seconds per additional image between the last two sizes, divided by those of the first two."""
    if len(sizes) < 3:
        return "-"
    slopes = [(last.wall - first.wall) / (more - few) for (few, first), (more, last) in pairwise(sizes)]
    return f"{slopes[-1] / slopes[0]:.2f}" if slopes[0] > 0 else "-"


def print_row(name: str, which: str, cost: Cost, speed: str, last: str) -> None:
    memory = f"{cost.largest:12.0f}{cost.everything:12.0f}"
    print(f"{name:18}{which:18}{cost.wall:10.2f}{speed:>10}{cost.cpu:10.2f}{memory}{last:>13}", flush=True)


def total(taken: Sequence[Cost]) -> Cost:
    """Return the total cost of consecutive commands: sum of the seconds, maximum of the memory."""
    wall, cpu, largest, everything = zip(*taken, strict=True)
    return Cost(sum(wall), sum(cpu), max(largest), max(everything))


def measure(run: Run, name: str) -> Cost:
    """Run a command, which must succeed. This process must be small: a child starts with its memory."""
    words, own = shlex.split(run.commands[name]), run.environment
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = Popen(words, stdout=said, stderr=said, cwd=run.folder, env=own, start_new_session=True)
        try:
            with watched(process.pid) as most:
                _, status, usage = os.wait4(process.pid, 0)
                seconds = time.perf_counter() - began
        except BaseException:
            process.kill()  # its workers end with it
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        assert process.returncode == 0, said.read().decode()
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, max(most))


@contextmanager
def watched(group: int) -> Iterator[list[float]]:
    """Yield a list to which a thread appends the memory of a process group, in MB."""
    looks, ended = [0.0], threading.Event()

    def look() -> None:
        took = 0.0
        while not ended.wait(max(PERIOD, PACE * took)):
            began = time.perf_counter()
            looks.append(held(group))
            took = time.perf_counter() - began

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield looks
    finally:
        ended.set()
        thread.join()


def held(group: int) -> float:
    """Return the memory of a process group in MB; memory shared by processes is divided among them."""
    kilobytes = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may have ended
            if os.getpgid(int(process.name)) == group:
                lines = (process / "smaps_rollup").read_text().splitlines()
                kilobytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes * 1024 / 1e6


def photo_params(tree: Path, photos: Path, weights: Path | None) -> dict[str, Any]:
    """Return the tree's preset for photos with its paths filled in."""
    params: dict[str, Any] = yaml.safe_load(preset_text("photos", folder=tree / FOLDER))
    params["index_data"]["folder"] = str(photos)
    for network in ("cams", "segmenter"):
        params["download_backbone"][network]["weights"] = str(weights.resolve()) if weights else "random"
    if not weights:
        params["make_masks"]["background_score"] = 0.5  # maps may be flat, without an automatic score
    return params


def choose(photos: Path, folder: Path, share: float) -> Data:
    """Fill a folder with links to a share of another's photos and masks; read all once, to cache them."""
    records = [record for _, record in read_table(photos / "tags.csv", COLUMNS[:3])]
    chosen, counts = [], []
    for split in ("train", "val"):
        those = [record for record in records if record["split"].lower() == split]
        counts.append(min(len(those), max(1, round(share * len(those)))))
        chosen += [those[k * len(those) // counts[-1]] for k in range(counts[-1])]
    for record in chosen:
        for kind in ("image", "mask"):
            if name := record.get(kind):
                record[kind] = f"{kind}s/{name}"
                link = folder / record[kind]
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(photos / name)
                link.read_bytes()
    write_tags(folder, [[record.get(column, "") for column in COLUMNS] for record in chosen])
    (folder / "classes.txt").write_bytes((photos / "classes.txt").read_bytes())
    return Data(counts[0], counts[1], folder)


def write_tags(folder: Path, rows: Sequence[Sequence[str]]) -> None:
    with (folder / "tags.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def draw(folder: Path, train: int) -> Data:
    """Draw photos of many sizes, each with a mask of one ellipse, and a quarter as many for validation."""
    val, random, rows = max(1, train // 4), np.random.default_rng(0), []
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for k in range(train + val):
        short = int(random.integers(*SHORT_SIDES))
        width, height = (LONG_SIDE, short) if random.random() < 0.5 else (short, LONG_SIDE)
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"images/{k:05}.jpg")
        x, y = (np.linspace(-1, 1, side) for side in (width, height))
        inside = np.hypot(*np.meshgrid(x, y)) < random.uniform(0.3, 0.9)
        Image.fromarray((inside * (1 + k % 2)).astype(np.uint8)).save(folder / f"masks/{k:05}.png")
        split = "train" if k < train else "val"
        rows.append((f"images/{k:05}.jpg", split, "ab"[k % 2], f"masks/{k:05}.png"))
    write_tags(folder, rows)
    (folder / "classes.txt").write_text("background\na\nb\n")
    return Data(train, val, folder)


if __name__ == "__main__":
    main()
