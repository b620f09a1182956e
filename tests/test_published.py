"""Archives of published data sets: from the mirrors in a table, or from the user's disk."""

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Refusal, run_stage, write_params
from server import CONTENT, Server

from plda.download.published import read_table

LIST = "benchmark_RELEASE/dataset/train.txt"
OTHER = CONTENT[::-1]


def tgz(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


SBD = tgz(**{LIST: b"2008_000001\n", "benchmark_RELEASE/README": b"not asked for"})
CONTENTS = {"trainval": CONTENT, "sbd": SBD, "test": OTHER}


class Published:
    """The project's table with this server's archives, and a folder to run the stage in."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.table: dict[str, Any] = yaml.safe_load((ROOT / "workflow/archives.yaml").read_text())
        self.archives = self.table["voc2012"]["archives"]
        for name, content in CONTENTS.items():
            self.archives[name] |= {
                "megabytes": 1,
                "checksum": "md5:" + hashlib.md5(content).hexdigest(),
                "mirrors": [server.url + f"/dead/{name}", server.add(f"/{name}", content=content)],
            }
        self.archives["sbd"]["unpack"]["only"] = [LIST]
        self.have: dict[str, str] = {}
        self.test = False
        self.source = "voc2012"

    def run(self) -> int:
        (self.folder / "archives.yaml").write_text(yaml.safe_dump(self.table, sort_keys=False))
        values = {"folder": str(self.folder / "downloads"), "have": self.have, "test": self.test}
        settings = {f"download_data__{key}": value for key, value in values.items()}
        return run_stage(
            "download_data",
            write_params(self.folder / "params.yaml", source=self.source, **settings),
            table=self.folder / "archives.yaml",
            archives=self.folder / "archives.json",
        )

    @property
    def result(self) -> Any:
        return json.loads((self.folder / "archives.json").read_text())

    def place(self, name: str) -> Path:
        return Path(self.result["places"][name])


@pytest.fixture
def published(tmp_path: Path, server: Server) -> Published:
    return Published(tmp_path, server)


def test_shipped_table_is_valid() -> None:
    table = read_table(ROOT / "workflow/archives.yaml")
    assert set(table.voc2012.archives) == {"trainval", "sbd", "test"}
    assert set(table.coco2014.archives) == {"train", "val", "annotations"}
    for archive in (*table.voc2012.archives.values(), *table.coco2014.archives.values()):
        assert archive.mirrors and all(m.startswith(("http://", "https://")) for m in archive.mirrors)


def test_archives_are_fetched_once_from_second_mirror(published: Published) -> None:
    assert published.run() == 0
    assert published.place("trainval").read_bytes() == CONTENT
    assert published.place("sbd").joinpath(LIST).read_text() == "2008_000001\n"
    assert {f.name for f in published.place("sbd").rglob("*") if f.is_file()} == {
        "train.txt",
        ".extracted.json",
    }
    assert "test" not in published.result["places"]
    assert published.result["counts"]["trainaug"] == 10582
    first = published.result, len(published.server.seen)
    assert published.run() == 0
    assert (published.result, len(published.server.seen)) == first


def test_test_archive_is_fetched_on_request(published: Published) -> None:
    published.test = True
    assert published.run() == 0
    assert published.place("test").read_bytes() == OTHER


def test_sizes_are_printed_before_download(published: Published, capsys: pytest.CaptureFixture[str]) -> None:
    assert published.run() == 0
    said = capsys.readouterr().err.splitlines()
    assert said[1] == "to download: VOCtrainval_11-May-2012.tar (1.0 MB), benchmark.tgz (1.0 MB)"


def test_small_disk_is_refused_before_download(published: Published, refused: Refusal) -> None:
    published.archives["sbd"]["megabytes"] = 10**9
    assert "downloads/archives: needs 1000000001.0 MB, only" in refused(published.run)
    assert not published.server.seen
    assert not (published.folder / "archives.json").exists()


def test_local_archive_is_used_in_place(published: Published, tmp_path: Path) -> None:
    own = tmp_path / "mine.tar"
    own.write_bytes(CONTENT)
    published.have = {"trainval": str(own)}
    assert published.run() == 0
    assert published.place("trainval") == own
    assert "/trainval" not in {path for path, *_ in published.server.seen}


def test_local_folder_is_used_in_place(published: Published, tmp_path: Path) -> None:
    (tmp_path / "VOCdevkit").mkdir()
    published.have = {name: str(tmp_path / "VOCdevkit") for name in ("trainval", "sbd")}
    assert published.run() == 0
    assert published.place("trainval") == published.place("sbd") == tmp_path / "VOCdevkit"
    assert not published.server.seen


def test_local_compressed_archive_is_unpacked(published: Published, tmp_path: Path) -> None:
    (tmp_path / "mine.tgz").write_bytes(SBD)
    published.have = {"sbd": str(tmp_path / "mine.tgz")}
    assert published.run() == 0
    assert published.place("sbd") == tmp_path / "downloads/sbd"
    assert published.place("sbd").joinpath(LIST).is_file()


@pytest.mark.parametrize(
    ("have", "said"),
    [
        ({"images": "x"}, "download_data.have: unknown name 'images'; expected trainval, sbd, test"),
        ({"sbd": "nowhere"}, "download_data.have.sbd: nowhere does not exist"),
        ({"sbd": str(ROOT / "params.yaml")}, f"{ROOT}/params.yaml: has MD5 "),
    ],
)
def test_invalid_local_archives_are_rejected(
    published: Published, refused: Refusal, have: dict[str, str], said: str
) -> None:
    published.have = have
    assert said in refused(published.run)
    assert not (published.folder / "archives.json").exists()


def test_dead_links_error_names_file_and_place(published: Published, refused: Refusal) -> None:
    del published.server.files["/trainval"]
    message = refused(published.run)
    assert "/dead/trainval: 404" in message and "/trainval: 404" in message
    assert f"put it at {published.folder}/downloads/VOCtrainval_11-May-2012.tar" in message
    (published.folder / "downloads/VOCtrainval_11-May-2012.tar").write_bytes(CONTENT)
    assert published.run() == 0


def test_wrong_file_on_every_mirror_leaves_nothing(published: Published, refused: Refusal) -> None:
    published.server.add("/trainval", content=OTHER)
    assert re.search(r"expected \w+; it is damaged or another file", refused(published.run))
    assert not (published.folder / "archives.json").exists()
    assert not [f for f in (published.folder / "downloads").iterdir() if f.name.startswith("VOC")]


@pytest.mark.parametrize("source", ["creatures", "folder"])
def test_other_sources_need_no_archive(published: Published, source: str) -> None:
    published.source = source
    assert published.run() == 0
    assert published.result == {"places": {}, "counts": {}}
    assert not published.server.seen


def test_only_voc_has_test_images(published: Published, refused: Refusal) -> None:
    published.source, published.test = "coco2014", True
    assert "download_data.test: only source voc2012" in refused(published.run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"checksum": "md5:123"}, "voc2012.archives.sbd.checksum: string should match"),
        ({"file": "../a.tgz"}, "voc2012.archives.sbd.file: string should match"),
        ({"url": "http://x"}, "voc2012.archives.sbd.url: unknown key"),
    ],
)
def test_table_rejects_invalid_fields(
    published: Published, refused: Refusal, change: dict[str, str], said: str
) -> None:
    published.archives["sbd"] |= change
    assert said in refused(published.run)
