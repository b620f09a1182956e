"""`plda preset`: complete params files made from presets, and values changed in them."""

from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from plda.__main__ import main
from plda.changes import flat, with_changes
from plda.errors import InputError
from plda.params import read_params
from plda.use.preset import FOLDER, TO_FILL_IN, preset_text

PRESETS = sorted(path.stem for path in (ROOT / FOLDER).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_defaults_are_params_yaml() -> None:
    assert preset_text("creatures") == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "creatures"])
def test_preset_is_defaults_with_its_changes(name: str, tmp_path: Path) -> None:
    out = tmp_path / "params.yaml"
    assert main(["preset", name, "--out", str(out)]) == 0
    read_params(out)
    text, own = out.read_text(), (FOLDER / f"{name}.yaml").read_text()
    changes = yaml.safe_load(own)
    assert flat(yaml.safe_load(text)) == flat(yaml.safe_load(preset_text("creatures"))) | changes
    assert text.split("\n\n")[0] == own.split("\n\n")[0]  # header
    for line in own.splitlines():
        if " # " in line:  # comments replace those of the defaults
            assert line.split(".")[-1] in text
    assert "  momentum: 0.9 # momentum of sgd" in text or "sgd" in str(changes["train_cam.optimizer"])


def test_set_changes_one_value_and_keeps_comments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, before = tmp_path / "params.yaml", preset_text("photos").splitlines()
    changes = ["index_data.folder=my photos", "infer_cams.scales=[1.0, 2.0]"]
    assert main(["preset", "photos", "--out", str(out), "--set", *changes]) == 0
    after = out.read_text().splitlines()
    assert [(old, new) for old, new in zip(before, after, strict=True) if old != new] == [
        (
            f"  folder: data # {TO_FILL_IN}the folder with your photos, tags.csv and classes.txt",
            "  folder: my photos # the folder with your photos, tags.csv and classes.txt",
        ),
        (
            "  scales: [0.75, 1.0, 1.5] # image scales; the maps of all scales are averaged",
            "  scales: [1.0, 2.0] # image scales; the maps of all scales are averaged",
        ),
    ]
    printed = capsys.readouterr().out
    assert f"line {1 + next(i for i, line in enumerate(after) if TO_FILL_IN in line)}: check" in printed
    assert "index_data.folder" in printed and "folder: data" not in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    {
        ("photo",): "no such preset; must be one of coco2014-cam-resnet50, creatures, photos",
        ("photos", "--set", "train_cam.epoch=3"): "--set train_cam.epoch: no such value",
        ("photos", "--set", "train_cam.adaptation=on"): "must be a value, got a section",
        ("photos", "--set", "seed"): "--set: must be KEY=VALUE, got 'seed'",
        ("photos", "--set", "seed=many"): "preset photos: seed: ",
        ("photos", "--set", "seed=0\nsource: voc2012"): "--set",
        ("photos", "--set", "index_data.folder=a\nseed: 7"): "--set",
        ("photos", "--set", "seed=["): "--set seed",
    }.items(),
)
def test_preset_rejects_bad_input(arguments: tuple[str, ...], words: str, tmp_path: Path, refused) -> None:
    out = tmp_path / "params.yaml"
    out.write_text("mine\n")
    assert words in refused(main, ["preset", *arguments, "--out", str(out)])
    assert out.read_text() == "mine\n"


def test_preset_outside_the_repository_says_where_to_run(tmp_path: Path, monkeypatch, refused) -> None:
    monkeypatch.chdir(tmp_path)
    assert "run the command in the root of the repository" in refused(main, ["preset", "photos"])


def test_with_changes_leaves_its_input_unchanged() -> None:
    params = {"a": {"b": [1], "c": {}}}
    changed = with_changes(params, {"a.b": [2], "a.c": {"d": 3}}, "")
    assert (params, changed) == ({"a": {"b": [1], "c": {}}}, {"a": {"b": [2], "c": {"d": 3}}})
    assert flat(changed) == {"a.b": [2], "a.c.d": 3}
    with pytest.raises(InputError, match=r"^here: a\.x: no such value"):
        with_changes(params, {"a.x": 1}, "here: ")
