"""Drawn VOC 2012 with SBD and drawn COCO 2014 in the published layout, downloaded by Snakemake."""

import hashlib
import tarfile
from pathlib import Path

import yaml
from conftest import ROOT
from drawn_coco import draw_coco
from drawn_voc import draw_voc
from server import Server
from test_engines import Tree

from plda.data.data_set import DataSet

DATA_SET = "results/main/index_data/data_set"


def publish(
    tree: Tree, server: Server, source: str, archives: dict[str, Path], counts: dict[str, int]
) -> None:
    """List the server's archives in the tree's table, each after a dead mirror, and set the source."""
    path = tree.folder / "workflow/archives.yaml"
    table = yaml.safe_load(path.read_text())
    table[source]["counts"] = counts
    for name, file in archives.items():
        content = file.read_bytes()
        table[source]["archives"][name] |= {
            "file": file.name,
            "megabytes": 1,
            "checksum": "sha256:" + hashlib.sha256(content).hexdigest(),
            "mirrors": [server.url + f"/gone/{file.name}", server.add(f"/{file.name}", content=content)],
        }
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    for name, value in {
        "source": source,
        "train_boundary.enabled": False,
        "make_masks.refinement": ["pamr"],
        "relabel_masks.enabled": False,
        "train_cam.epochs": 1,
        "train_segmenter.epochs": 1,
    }.items():
        tree.set(name, value)


def split(tree: Tree, name: str) -> list[str]:
    return [entry.key for entry in DataSet(tree.folder / DATA_SET).split(name)]


def test_voc_runs_from_download_to_submission(tmp_path: Path, server: Server) -> None:
    (tmp_path / "tree").mkdir()
    tree, drawn = Tree(tmp_path / "tree"), draw_voc(tmp_path / "originals")
    archives = {"trainval": drawn.devkit, "sbd": drawn.extra, "test": drawn.test}
    publish(tree, server, "voc2012", archives, drawn.counts)
    tree.set("download_data.test", True)
    tree.set("predict_masks.splits", ["val", "test"])
    server.files[f"/{drawn.devkit.name}"].cut = [0.4]

    tree.run("snakemake", "--cores", "1", "all", "submission")

    assert server.ranges(f"/gone/{drawn.devkit.name}") == [None]
    size = drawn.devkit.stat().st_size
    assert server.ranges(f"/{drawn.devkit.name}") == [None, f"bytes={int(size * 0.4)}-"]
    assert (tree.folder / "downloads" / drawn.devkit.name).read_bytes() == drawn.devkit.read_bytes()
    assert split(tree, "train") == drawn.lists["trainaug"]
    assert split(tree, "val") == drawn.lists["voc_val"]
    assert split(tree, "test") == drawn.lists["test"]
    assert 0 <= tree.metrics()["predictions"]["miou"] <= 100
    with tarfile.open(tree.folder / "results/main/submission/VOC2012_comp6.tar.gz") as packed:
        names = [name for name in packed.getnames() if name.endswith(".png")]
    assert names == [f"results/VOC2012/Segmentation/comp6_test_cls/{i}.png" for i in drawn.lists["test"]]
    assert "Nothing to be done" in tree.run("snakemake", "--cores", "1", "all", "submission")
    asked = len(server.seen)

    # a deleted archive is downloaded again only when a stage needs it
    (tree.folder / "downloads" / drawn.devkit.name).unlink()
    assert "Nothing to be done" in tree.run("snakemake", "--cores", "1", "all", "submission")
    tree.set("index_data.long_side", 40)
    said = tree.run("snakemake", "--cores", "1", "--until", "index_data", ok=False)
    assert f"{drawn.devkit.name}: no longer exists; run `snakemake --forcerun download_data`" in said
    tree.run("snakemake", "--cores", "1", "--until", "index_data", "--forcerun", "download_data")
    assert len(server.seen) == asked + 2
    assert max(e.width for e in DataSet(tree.folder / DATA_SET).entries) == 40


def test_coco_runs_from_download_to_data_set(tmp_path: Path, server: Server) -> None:
    """The later stages read the same kind of data set whatever its source; above they run with VOC."""
    (tmp_path / "tree").mkdir()
    tree, drawn = Tree(tmp_path / "tree"), draw_coco(tmp_path / "originals")
    archives = {"train": drawn.train, "val": drawn.val, "annotations": drawn.annotations}
    publish(tree, server, "coco2014", archives, drawn.counts)

    tree.run("snakemake", "--cores", "1", "--until", "index_data")

    assert len(server.ranges(f"/{drawn.train.name}")) == 1
    data = DataSet(tree.folder / DATA_SET)
    assert {Path(e.image).name: e.tags for e in data.entries} == drawn.tags
    for name in ("train", "val"):
        assert [Path(e.image).name for e in data.split(name)] == drawn.images[name]
    for entry in data.entries:
        assert data.true_mask(entry).shape == entry.size


def test_presets_give_complete_plans(tmp_path: Path) -> None:
    """Each preset gives valid params, and Snakemake can plan with them."""
    tree = Tree(tmp_path)
    presets = sorted((ROOT / "workflow/presets").glob("*.yaml"))
    assert len(presets) >= 5
    for preset in presets:
        tree.run("python", "-m", "plda", "preset", preset.stem)
        plan = tree.snakemake_plan()
        assert plan[:2] == ["download_data", "index_data"] and plan[-1] == "report", preset
