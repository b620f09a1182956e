"""Shared fixtures and helpers: small params, a small drawn data set, an editable folder of photos."""

import copy
import io
from collections.abc import Callable, Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from PIL import Image
from server import Server, serving

from plda.__main__ import main
from plda.changes import with_changes
from plda.models.backbones import Network
from plda.models.baselines import CAM
from plda.models.boundary import BOUNDARY
from plda.models.saved import Architecture, Kind
from plda.models.segmenters import SEGMENTER
from plda.params import TrainCam

ROOT = Path(__file__).parents[1]
BASELINES = get_args(TrainCam.model_fields["baseline"].annotation)
KINDS: dict[str, Kind[Any]] = {kind.name: kind for kind in (CAM, BOUNDARY, SEGMENTER)}
TRAINER = {"epochs": 2, "batch_size": 4, "crop": 64}
TRAINERS = ("train_cam", "train_boundary", "relabel_masks", "train_segmenter")


SMALL = {
    "compute.device": "cpu",
    "compute.workers": 0,
    **{f"index_data.creatures.{name}": value for name, value in {"train": 12, "val": 4, "size": 64}.items()},
    **{f"{stage}.{name}": value for stage in TRAINERS for name, value in TRAINER.items()},
    "relabel_masks.epochs": 1,
    "train_boundary.enabled": True,
    "make_masks.refinement": ["pamr", "random_walk"],
    "train_cam.inspected": 4,
    "infer_cams.scales": [1.0],
    "report.gallery": 4,
    "report.worst": 2,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest test first: as the last one it would leave the other worker without work."""
    items.sort(key=lambda item: item.path.stem != "test_tutorial")


def small_params(**changes: Any) -> dict[str, Any]:
    """Return params.yaml with small values; a keyword `a__b` sets `a.b`, to a wrong value too."""
    params = with_changes(yaml.safe_load((ROOT / "params.yaml").read_text()), SMALL, "")
    for name, value in changes.items():
        *sections, last = name.split("__")
        reduce(getitem, sections, params)[last] = copy.deepcopy(value)
    return params


def write_params(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(small_params(**changes), sort_keys=False))
    return path


def run_stage(name: str, params: Path, **paths: Path) -> int:
    """Run one stage in this process through the command line entry point; return its exit status."""
    flags = [text for flag, path in paths.items() for text in (f"--{flag.replace('_', '-')}", str(path))]
    return main([name, "--params", str(params), *flags])


def build(architecture: Architecture) -> Network:
    """Return a network with freshly initialised weights."""
    network: Network = KINDS[architecture.kind].build(architecture)
    return network


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


class Photos:
    """A valid folder of photos for the source `folder`; a test may then corrupt it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = ["a.jpg,train,cat,a.png", "b.jpg,train,dog;cat,", "c.jpg,val,dog,"]
        folder.mkdir()
        for i, name in enumerate("abc"):
            (folder / f"{name}.jpg").write_bytes(encoded(photo(40, 30, i)))
        mask = np.zeros((30, 40), np.uint8)
        mask[5:20, 5:20], mask[0] = 1, 255
        (folder / "a.png").write_bytes(encoded(Image.fromarray(mask), "PNG"))
        (folder / "classes.txt").write_text("background\ncat\ndog\n")
        self.write()

    def write(self) -> None:
        (self.folder / "tags.csv").write_text("\n".join(["image,split,tags,mask", *self.rows]) + "\n")

    def index(self, out: Path, **changes: Any) -> int:
        """Run index_data on the folder, writing to `out`; return its exit status."""
        params = self.folder.parent / "params.yaml"
        if changes or not params.exists():
            write_params(params, source="folder", index_data__folder=str(self.folder), **changes)
        return run_stage(
            "index_data",
            params,
            archives=out / "archives.json",
            data_set=out / "data_set",
        )


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return Photos(tmp_path / "photos")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the small data set of drawn scenes, indexed, and the initial weights."""
    folder = tmp_path_factory.mktemp("drawn")
    params = write_params(folder / "params.yaml")
    assert (
        run_stage(
            "index_data",
            params,
            archives=folder / "archives.json",
            data_set=folder / "data_set",
        )
        == 0
    )
    assert (
        run_stage(
            "download_backbone",
            params,
            cam_backbone=folder / "cams.pt",
            segmenter_backbone=folder / "segmenter.pt",
            backbone_origins=folder / "origins.json",
        )
        == 0
    )
    return folder


Refusal = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Return a function that runs a call, expects exit status 2 and returns its stderr."""

    def call(run: Callable[..., int], *args: Any, **kwargs: Any) -> str:
        assert run(*args, **kwargs) == 2
        return capsys.readouterr().err

    return call


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield the system's Chromium."""
    from chromium import CHROMIUM, MISSING, launched  # most tests do not need playwright

    if CHROMIUM is None:
        pytest.skip(MISSING)
    with launched() as browser:
        yield browser


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running
