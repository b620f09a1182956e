"""`plda tags`: every kind of labels, bad ones, splits, names, links, and what the pipeline makes of them."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Photos
from labelled import (
    WITH_MASKS,
    WITH_SPLITS,
    WRITERS,
    ids_of,
    rows_of,
    split_of,
    tags_of,
    write_photo,
)  # fmt: skip

from plda.__main__ import main
from plda.data.images import read_mask
from plda.readers.kinds import KINDS

COUNT = 12


def run(source: Path, out: Path, *flags: str) -> int:
    return main(["tags", str(source), "--out", str(out), *flags])


def test_every_kind_has_an_example() -> None:
    assert set(KINDS) == set(WRITERS)


@pytest.mark.parametrize("kind", WRITERS)
def test_tags_reads_kind(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = WRITERS[kind](tmp_path / "source", COUNT), tmp_path / "out"
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "source").rglob("*")}
    assert run(source, out) == 0
    assert f"kind: {kind}\n" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "source").rglob("*")} == before
    assert (out / "classes.txt").read_text() == "background\ncat\ndog\n"
    rows = rows_of(out)
    assert sorted(rows) == [f"p{i:02}" for i in range(COUNT)]
    for i in range(COUNT):
        row, tags = rows[f"p{i:02}"], tags_of(i)
        assert row["tags"] == ";".join(tags[:1] if kind == "folders" else tags)
        if kind in WITH_SPLITS:
            assert row["split"] == split_of(i)
        write_photo(tmp_path / "p.jpg", i)
        assert (out / row["image"]).read_bytes() == (tmp_path / "p.jpg").read_bytes()
        assert bool(row["mask"]) == (kind in WITH_MASKS)
        if row["mask"]:
            np.testing.assert_array_equal(read_mask((out / row["mask"]).read_bytes()), ids_of(i))
    assert {row["split"] for row in rows.values()} == {"train", "val"}


@pytest.mark.parametrize("kind", WRITERS)
def test_written_folder_is_accepted_by_index_data(kind: str, tmp_path: Path, capsys) -> None:
    photos = Photos(tmp_path / "photos")
    photos.folder = tmp_path / "out"
    assert run(WRITERS[kind](tmp_path / "source", COUNT), photos.folder) == 0
    assert photos.index(tmp_path / "indexed") == 0
    assert f"{COUNT} images, 2 classes" in capsys.readouterr().err
