"""What tags can tell: counts, and the sentences about classes of which they tell little."""

import pytest
from conftest import Photos

from plda.data.index import Entry
from plda.data.tags import Occurrence, doubts, occurrences

CLASSES = ("background", "cat", "dog", "rider", "horse", "newt")


def entries(*tags: str) -> list[Entry]:
    return [Entry(f"images/{i}.png", "train", tuple(t.split()), "", "", 8, 8) for i, t in enumerate(tags)]


def test_occurrences_are_counted() -> None:
    found = occurrences(entries("cat", "cat dog", "dog rider horse", "rider horse", "horse"), CLASSES)
    assert found == [
        Occurrence("cat", 2, 1, "dog", 1),
        Occurrence("dog", 2, 0, "cat", 1),
        Occurrence("rider", 2, 0, "horse", 2),
        Occurrence("horse", 3, 1, "rider", 2),
        Occurrence("newt", 0, 0, "", 0),
    ]


def test_who_never_comes_alone_is_doubted_and_so_is_who_is_never_or_always_there() -> None:
    tags = entries("dog rider horse", "rider horse", "horse", "horse cat")
    said = doubts(occurrences(tags, CLASSES), len(tags))
    assert [sentence.split("'")[1] for sentence in said] == ["cat", "dog", "rider", "horse", "newt"]
    assert "without 'horse': 0" in said[2]
    assert "every training image" in said[3]
    assert "no training image" in said[4]


@pytest.mark.parametrize(("alone", "doubted"), [(0, True), (1, True), (2, True), (3, False), (20, False)])
def test_a_tenth_of_its_images_without_the_other_is_enough(alone: int, doubted: bool) -> None:
    tags = entries(*["rider horse"] * 20, *["rider"] * alone, "horse", *["cat"] * 30)
    said = doubts(occurrences(tags, CLASSES), len(tags))
    assert any("'rider'" in sentence.split(":")[0] for sentence in said) == doubted


def test_the_user_is_told_before_anything_is_trained(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    assert photos.index(photos.folder.parent / "out") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning: ")]
    assert len(said) == 2
    assert "'cat' is in every training image" in said[0]
    assert "without 'cat': 0" in said[1]
