"""The decisions of a review about training masks, and how make_masks obeys them."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Refusal, run_stage, write_params

from plda.data.data_set import DataSet
from plda.data.decisions import MASKS, TABLE, Decision, read_decisions, write_decisions
from plda.data.images import VOID, encode_mask
from plda.data.index import Entry
from plda.errors import InputError
from plda.masks.cams import map_size, write_cams
from plda.masks.folder import Masks, mask_path, write_mask
from plda.masks.review import image_name
from workflow.given import fingerprint

CLASSES = ("background", "cat", "dog")


class MaskMaker:
    """The stage make_masks on the drawn scenes with random maps, and a review."""

    def __init__(self, drawn: Path, folder: Path) -> None:
        self.review = folder / "review"
        self.made = folder / "masks"
        self.data = DataSet(drawn / "data_set")
        self.params = write_params(
            folder / "params.yaml",
            make_masks__refinement=["pamr"],
            make_masks__review=str(self.review),
            make_masks__undecided=0.0,
        )
        self.paths = {
            "data_set": drawn / "data_set",
            "cams": folder / "cams.npz",
            "boundary_network": folder / "none.pt",
            "pseudo_masks": self.made,
            "refined_cams": folder / "refined.npz",
            "background_scores": folder / "scores.json",
        }
        random = torch.Generator().manual_seed(0)
        maps = (
            (entry.key, torch.rand(max(1, len(entry.tags)), *map_size(*entry.size), generator=random))
            for entry in self.data.training
        )
        write_cams(self.paths["cams"], maps)
        self.decide({})

    def decide(self, decisions: Mapping[Entry, Decision]) -> None:
        write_decisions(self.review, {image_name(entry): kind for entry, kind in decisions.items()})

    def run(self) -> int:
        return run_stage("make_masks", self.params, **self.paths)

    def masks(self) -> list[np.ndarray]:
        """Run the stage; return the pseudo-masks in the order of the training images."""
        assert self.run() == 0
        return [Masks(self.made)(entry) for entry in self.data.training]


@pytest.fixture
def maker(drawn: Path, tmp_path: Path) -> MaskMaker:
    return MaskMaker(drawn, tmp_path)


def test_make_masks_obeys_decisions(maker: MaskMaker) -> None:
    before = maker.masks()
    classes, entries = maker.data.classes, maker.data.training
    several = next(i for i, entry in enumerate(entries) if len(entry.tags) > 1)
    accepted, rejected, wrong, added, emptied = [i for i in range(len(entries)) if i != several][:5]
    own = np.full(entries[accepted].size, 1, np.uint8)
    own[0] = VOID
    write_mask(maker.review / MASKS, entries[accepted], own)
    maker.decide(
        {
            entries[accepted]: Decision("accept"),
            entries[rejected]: Decision("reject"),
            entries[wrong]: Decision("wrong_class"),
            entries[added]: Decision("tags", tuple(classes[1:])),
            entries[emptied]: Decision("tags"),
            entries[several]: Decision("tags", entries[several].tags[:1]),
        }
    )
    after = maker.masks()
    assert np.array_equal(after[accepted], own)
    for undecided in (rejected, wrong, added):
        assert (after[undecided] == VOID).all() and not (before[undecided] == VOID).any()
    assert not after[emptied].any() and before[emptied].any()
    kept, *removed = maker.data.ids(entries[several])
    assert np.isin(before[several], removed).any()
    assert {*np.unique(after[several])} == {0, kept}
    assert (after[several][before[several] == kept] == kept).all()
    decided = {accepted, rejected, wrong, added, emptied, several}
    for i in {*range(len(entries))} - decided:
        assert np.array_equal(after[i], before[i])
    assert read_decisions(maker.made, classes) == read_decisions(maker.review, classes)


def test_decisions_about_other_images_are_ignored(
    maker: MaskMaker, capsys: pytest.CaptureFixture[str]
) -> None:
    before = maker.masks()
    assert "review: no decisions\n" in capsys.readouterr().err
    write_decisions(maker.review, {"elsewhere/1.png": Decision("accept")})
    for mask, same in zip(maker.masks(), before, strict=True):
        assert np.array_equal(mask, same)
    assert f"Warning: {maker.review}: decisions about other images: 1\n" in capsys.readouterr().err
    assert read_decisions(maker.made, maker.data.classes) == {}


def uniform(side: int, value: int) -> bytes:
    return encode_mask(np.full((side, side), value, np.uint8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory; decisions.csv accepts this mask"),
        (b"\x89PNG broken", "not an image in one of the formats"),
        (uniform(8, 0), "size must be that of the image, 64 x 64, got 8 x 8"),
        (uniform(64, 99), "id must be 0 to 6 (classes) or 255 (undecided), got 99"),
    ],
)
def test_accepted_mask_must_fit_its_image(
    maker: MaskMaker, content: bytes | None, message: str, refused: Refusal
) -> None:
    entry = maker.data.training[0]
    maker.decide({entry: Decision("accept")})
    path = mask_path(maker.review / MASKS, entry)
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    said = refused(maker.run)
    assert str(path) in said and message in said
    assert not maker.made.exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.jpg,accept,\na.jpg,reject,", "line 3: image: must not occur twice, got 'a.jpg' again"),
        ("a.jpg,keep,", "line 2: decision: must be one of accept, reject, wrong_class, tags, got 'keep'"),
        ("a.jpg,accept,cat", "line 2: tags: must be empty with the decision accept, got 'cat'"),
        ("a.jpg,tags,cow", "line 2: tags: must be classes (cat, dog), got 'cow'"),
        ("a.jpg,tags,background", "line 2: tags: must be classes (cat, dog), got 'background'"),
    ],
)
def test_read_decisions_names_wrong_field(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / TABLE).write_text(f"image,decision,tags\n{rows}\n", encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / TABLE}: {message}")):
        read_decisions(tmp_path, CLASSES)


def test_missing_table_is_named(maker: MaskMaker, refused: Refusal) -> None:
    (maker.review / TABLE).unlink()
    assert f"{maker.review / TABLE}: no such file" in refused(maker.run)


def test_written_decisions_are_read_back(tmp_path: Path) -> None:
    decisions = {
        "a;b, c.jpg": Decision("accept"),
        'd"e.jpg': Decision("tags", ("cat", "dog")),
        "ü/f.jpg": Decision("tags"),
    }
    write_decisions(tmp_path, decisions)
    assert list(read_decisions(tmp_path, CLASSES).items()) == list(decisions.items())


def test_fingerprint_depends_on_decisions_and_accepted_masks(tmp_path: Path) -> None:
    def changed() -> str:
        fingerprint.cache_clear()
        return fingerprint(tmp_path)

    write_decisions(tmp_path, {})
    prints = [changed()]
    (tmp_path / "notes.txt").write_text("not part of it", encoding="utf-8")
    assert changed() == prints[0]
    write_decisions(tmp_path, {"a.jpg": Decision("accept")})
    prints.append(changed())
    mask = tmp_path / MASKS / "sub" / "a.png"
    mask.parent.mkdir(parents=True)
    for content in (b"1", b"22"):
        mask.write_bytes(content)
        prints.append(changed())
    assert len({*prints}) == 4
