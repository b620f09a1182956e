"""Text files are UTF-8 in any locale; names that a terminal cannot print do not stop a command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Photos, encoded, photo
from test_predict import saved

from plda.data.data_set import DataSet

LATIN = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
WITHOUT_ENCODING = (
    r"\.read_text\((?!encoding=)",
    r"\.write_text\((?!.*encoding=)",
    r"(?<!Image)(?<!tarfile)(?<!os)\.open\((?!.*(b\"|encoding=)|\)|archive\))",
    r"[^.\w]open\((?!.*(b\"|encoding=))",
    r"text=True",
    r"universal_newlines",
)


def run(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[bytes]":
    environment = {**LATIN, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True)


@pytest.mark.parametrize("folder", ["plda", "workflow"])
def test_source_opens_text_files_with_encoding(folder: str) -> None:
    lines = [
        f"{path}: {line.strip()}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    wrong = [line for line in lines if any(re.search(pattern, line) for pattern in WITHOUT_ENCODING)]
    assert wrong == []
    assert len(lines) > 1000


def test_stages_read_utf_8_in_any_locale(photos: Photos, tmp_path: Path) -> None:
    (photos.folder / "a.jpg").rename(photos.folder / "Käfer ß.jpg")
    (photos.folder / "classes.txt").write_text("background\nKätzchen\ndog\n", encoding="utf-8")
    rows = ["image,split,tags,mask", "Käfer ß.jpg,train,Kätzchen,", "b.jpg,train,dog,", "c.jpg,val,dog,"]
    (photos.folder / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    photos.index(tmp_path / "utf8")
    params = tmp_path / "params.yaml"
    params.write_text("# für\n" + params.read_text(encoding="utf-8"), encoding="utf-8")
    out = {name: f"out ä/{name}" for name in ("archives", "data-set")}
    flags = [text for name, path in out.items() for text in (f"--{name}", path)]
    done = run("-m", "plda", "index_data", "--params", "params.yaml", *flags, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (first, *_) = DataSet(tmp_path / out["data-set"]).entries
    assert (first.image, first.tags) == ("images/Käfer ß.jpg", ("Kätzchen",))
    for name in ("index.csv", "classes.txt"):
        ours, theirs = (tmp_path / folder / name for folder in (out["data-set"], "utf8/data_set"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_predict_accepts_any_file_name_in_any_locale(tmp_path: Path) -> None:
    network, folder = saved(tmp_path / "network.pt", ("background", "Kätzchen", "dog")), tmp_path / "photos"
    folder.mkdir()
    names = ["ä.jpg".encode(), b"\xe4 latin.jpg", "人.jpg".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(encoded(photo(50, 40)))
    (folder / "brökn.jpg").write_bytes(b"no photo")
    done = run(
        "-m", "plda", "predict", str(folder), "--network", str(network), "--out", "out", "--device", "cpu",
        folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"1 of 4 photos" in done.stderr
    masks = {os.fsencode(path.name) for path in (tmp_path / "out/masks").iterdir()}
    assert masks == {name.replace(b".jpg", b".png") for name in names}
    assert "Kätzchen" in (tmp_path / "out/classes.txt").read_text(encoding="utf-8")
    assert "Kätzchen".encode() in (tmp_path / "out/summary.csv").read_bytes()


def test_ablations_are_read_as_utf_8_in_any_locale(tmp_path: Path) -> None:
    for name in ("params.yaml", "ablations.yaml", "plda", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("folder: data", "folder: Fotos ä")
    (tmp_path / "params.yaml").unlink()
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    done = run("-m", "workflow.ablations", "cam-s1", "--params", "out/params.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Fotos ä" in (tmp_path / "out/params.yaml").read_text(encoding="utf-8")
