"""Statistics of tags, and classes that a classifier can hardly learn from them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from plda.data.index import Entry

SELDOM = 0.1  # fraction of a class's images without its companion; below it the two are hard to separate


class Occurrence(NamedTuple):
    """How often a class is tagged.

    Attributes:
        name: name of the class.
        images: number of images with the class.
        alone: number of images with the class and no other.
        companion: the class that occurs most often with it, "" if none does.
        together: number of images with both classes.
    """

    name: str
    images: int
    alone: int
    companion: str
    together: int


def occurrences(entries: Sequence[Entry], classes: Sequence[str]) -> list[Occurrence]:
    """Return how often each of `classes` is tagged; background, the first one, is left out."""
    found = []
    for name in classes[1:]:
        having = [entry.tags for entry in entries if name in entry.tags]
        others = Counter(tag for tags in having for tag in tags if tag != name)
        [(companion, together)] = others.most_common(1) or [("", 0)]
        found.append(Occurrence(name, len(having), sum(len(t) == 1 for t in having), companion, together))
    return found


def doubts(found: Iterable[Occurrence], images: int) -> list[str]:
    """Return a warning for each class that is hard to learn from the tags of `images` training images."""
    sentences = []
    for it in found:
        if it.images == 0:
            sentences.append(f"{it.name!r} is in no training image: it cannot be learnt")
        elif it.images == images:
            sentences.append(f"{it.name!r} is in every training image: its tag cannot show its position")
        elif it.images - it.together < SELDOM * it.images:
            sentences.append(
                f"training images with {it.name!r}: {it.images}, of these without {it.companion!r}: "
                f"{it.images - it.together}; the tags can hardly separate the two classes"
            )
    return sentences
