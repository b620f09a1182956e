"""Tag counts, and warnings about classes that tags describe poorly."""

import pytest
from conftest import Photos

from plda.data.index import Entry
from plda.data.tags import Occurrence, doubts, occurrences

CLASSES = ("background", "cat", "dog", "rider", "horse", "newt")


def entries(*tags: str) -> list[Entry]:
    return [Entry(f"images/{i}.png", "train", tuple(t.split()), "", "", 8, 8) for i, t in enumerate(tags)]


def test_occurrences_count_tags() -> None:
    found = occurrences(entries("cat", "cat dog", "dog rider horse", "rider horse", "horse"), CLASSES)
    assert found == [
        Occurrence("cat", 2, 1, "dog", 1),
        Occurrence("dog", 2, 0, "cat", 1),
        Occurrence("rider", 2, 0, "horse", 2),
        Occurrence("horse", 3, 1, "rider", 2),
        Occurrence("newt", 0, 0, "", 0),
    ]


def test_tags_warn_about_ambiguous_classes() -> None:
    tags = entries("dog rider horse", "rider horse", "horse", "horse cat")
    said = doubts(occurrences(tags, CLASSES), len(tags))
    assert [sentence.split("'")[1] for sentence in said] == ["cat", "dog", "rider", "horse", "newt"]
    assert "without 'horse': 0" in said[2]
    assert "every training image" in said[3]
    assert "no training image" in said[4]


@pytest.mark.parametrize(("alone", "doubted"), [(0, True), (1, True), (2, True), (3, False), (20, False)])
def test_tags_warn_if_class_rarely_occurs_without_other(alone: int, doubted: bool) -> None:
    tags = entries(*["rider horse"] * 20, *["rider"] * alone, "horse", *["cat"] * 30)
    said = doubts(occurrences(tags, CLASSES), len(tags))
    assert any("'rider'" in sentence.split(":")[0] for sentence in said) == doubted


def test_index_data_prints_tag_warnings(photos: Photos, capsys: pytest.CaptureFixture[str]) -> None:
    assert photos.index(photos.folder.parent / "out") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning: ")]
    assert len(said) == 2
    assert "'cat' is in every training image" in said[0]
    assert "without 'cat': 0" in said[1]
