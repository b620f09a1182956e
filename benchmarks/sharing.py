"""Measures DVC and Snakemake on a finished run with many files: seconds to commit, check, push and pull it.

    python benchmarks/sharing.py [--files 20000] [--folder build] [--remote ssh://host/folder] [--key FILE]

Clones this repository's last commit into a temporary folder in the given one, and adds a folder of that many
photos, tracked by `dvc add`, and the outputs of every stage: as many pseudo-masks as photos, a tenth as many
predictions. Nothing is trained; every file has random content. Then one clone commits the run and pushes it,
and another clone pulls it, through a folder on this disk and through the remote. The remote's folder should
be empty; its files are not deleted.
"""

import argparse
import io
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from plda.data.images import encode_mask
from workflow.stages import fill_stages

WIDTH, HEIGHT = 160, 120


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path("build"))
    parser.add_argument("--remote", help="DVC remote to use besides the folder on this disk")
    parser.add_argument("--key", type=Path, help="private key for the remote")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder.resolve()) as temporary:
        here = Path(temporary) / "here"
        run(Path(), "git", "clone", "--quiet", ".", str(here))
        draw(here, options.files)
        timed("dvc add photos", here)
        commit(here)
        timed("snakemake --touch --cores 1 --quiet all", here)
        timed("snakemake --dry-run", here, says="Nothing to be done")
        timed("make --old-file .venv/ready adopt-dvc", here)
        no_ops(here)
        commit(here)
        remotes = {"store": ""} | ({"far": "by SSH"} if options.remote else {})
        if options.remote:
            run(here, "dvc", "remote", "add", "far", options.remote)
            if options.key:
                run(here, "dvc", "remote", "modify", "far", "keyfile", str(options.key.resolve()))
            commit(here)
        for remote, how in remotes.items():
            there = Path(temporary) / f"there-{remote}"
            timed(f"dvc push -r {remote}", here, how)
            timed(f"dvc push -r {remote}", here, "again")
            run(Path(), "git", "clone", "--quiet", str(here), str(there))
            timed(f"dvc pull -r {remote}", there, how)
            timed("make --old-file .venv/ready adopt-snakemake", there)
            no_ops(there)
        changed = next((here / "results/main/make_masks/masks").iterdir())
        changed.write_bytes(changed.read_bytes() + b"\0")
        timed("dvc commit --force --quiet", here, "one mask changed")
        for remote in remotes:
            timed(f"dvc push -r {remote}", here, "one mask changed")


def no_ops(tree: Path) -> None:
    """Time both engines when everything is up to date."""
    timed("dvc status", tree, says="up to date")
    timed("dvc repro", tree, says="up to date")
    timed("snakemake --dry-run", tree, says="Nothing to be done")


def timed(command: str, tree: Path, note: str = "", says: str = "") -> None:
    """Run a command in `tree` and print its seconds; its output must contain `says`."""
    began = time.perf_counter()
    said = run(tree, *command.split())
    seconds = time.perf_counter() - began
    assert says in said, said
    print(f"{seconds:7.1f} s  {tree.name:12} {command}{note and f' ({note})'}", flush=True)


def run(tree: Path, *command: str) -> str:
    """Run a command in `tree`, which must succeed, and return its standard output and error."""
    done = subprocess.run(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": "."},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def commit(tree: Path) -> None:
    run(tree, "git", "add", "--all")
    who = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org")
    run(tree, "git", *who, "commit", "--quiet", "--message", "a run")


def draw(tree: Path, files: int) -> None:
    """Write the photos and the outputs of every stage."""
    params = yaml.safe_load((tree / "params.yaml").read_text())
    params["source"], params["index_data"]["folder"] = "folder", "photos"
    (tree / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    random, photos = np.random.default_rng(0), tree / "photos"
    photos.mkdir()
    names = [f"{k:06}" for k in range(files)]
    size = 0
    for name in names:
        photo = io.BytesIO()
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
        coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(photo, "JPEG")
        (photos / f"{name}.jpg").write_bytes(photo.getvalue())
        size += len(photo.getvalue())
    (photos / "classes.txt").write_text("background\nthing\n")
    (photos / "tags.csv").write_text("image,split,tags\n" + "".join(f"{n}.jpg,train,thing\n" for n in names))
    for stage in fill_stages(yaml.safe_load((tree / "dvc.yaml").read_text()), params).values():
        for output in stage.outputs:
            path = tree / output
            if path.suffix:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(random.bytes(size // 2 if path.suffix == ".zip" else 1000).hex())
            else:
                path.mkdir(parents=True)
                for name in names if stage.name == "make_masks" else names[::10]:
                    (path / f"{name}.png").write_bytes(mask(random))
    print(f"{files} photos of {WIDTH} x {HEIGHT}, {size / 1e6:.0f} MB, as many pseudo-masks", flush=True)


def mask(random: np.random.Generator) -> bytes:
    """Return a mask with an ellipse that has an undecided border."""
    x, y = random.uniform(0.2, 0.8, 2)
    columns, rows = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    distance = np.hypot(columns - x, rows - y) / random.uniform(0.1, 0.5)
    return encode_mask(np.where(distance < 0.9, 1, np.where(distance < 1, 255, 0)).astype(np.uint8))


if __name__ == "__main__":
    main()
