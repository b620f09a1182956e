"""What tags tell of classes, and where they tell little: of one that never changes, or never comes alone."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from plda.data.index import Entry

SELDOM = 0.1  # share of a class's images without its companion, below which the two are hard to tell apart


class Occurrence(NamedTuple):
    """How often a class is tagged.

    Attributes:
        name: of the class.
        images: how many have it.
        alone: how many have it and no other.
        companion: the class that is most often with it, "" where none ever is.
        together: how many images have both.
    """

    name: str
    images: int
    alone: int
    companion: str
    together: int


def occurrences(entries: Sequence[Entry], classes: Sequence[str]) -> list[Occurrence]:
    """How often each of `classes` but background, which comes first, is tagged in some images."""
    found = []
    for name in classes[1:]:
        having = [entry.tags for entry in entries if name in entry.tags]
        others = Counter(tag for tags in having for tag in tags if tag != name)
        [(companion, together)] = others.most_common(1) or [("", 0)]
        found.append(Occurrence(name, len(having), sum(len(t) == 1 for t in having), companion, together))
    return found


def doubts(found: Iterable[Occurrence], images: int) -> list[str]:
    """What a classifier can hardly learn from the tags of so many training images, a sentence for a class."""
    sentences = []
    for it in found:
        if it.images == 0:
            sentences.append(f"{it.name!r} is in no training image: nothing can be learnt of it")
        elif it.images == images:
            sentences.append(f"{it.name!r} is in every training image: its tag does not tell where it is")
        elif it.images - it.together < SELDOM * it.images:
            sentences.append(
                f"training images with {it.name!r}: {it.images}, of which without {it.companion!r}: "
                f"{it.images - it.together}; the tags hardly tell which of the two is where"
            )
    return sentences
