"""A person's review of the masks of training images (docs/review.md).

A review is a folder with a table, see `plda.data.decisions`, and the accepted masks in masks/.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from plda.data.data_set import DataSet
from plda.data.decisions import MASKS, TABLE, Kind, read_decisions, write_decisions
from plda.data.index import Entry
from plda.errors import InputError
from plda.masks.folder import Masks, check_mask, mask_path


class Review:
    """The decisions of a review about the training images of a data set.

    Attributes:
        ignored: number of decisions about other images.
    """

    def __init__(self, folder: Path, data: DataSet) -> None:
        """Read the table.

        Raises:
            InputError: the table is missing or invalid.
        """
        training = {image_name(entry) for entry in data.training}
        decided = read_decisions(folder, data.classes)
        self._decided = {image: decision for image, decision in decided.items() if image in training}
        self.ignored = len(decided) - len(self._decided)

    def __str__(self) -> str:
        """Return the number of decisions of each kind, as "1 accept, 2 tags"."""
        kinds = Counter(decision.kind for decision in self._decided.values())
        return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no decisions"

    def accepts(self, entry: Entry) -> bool:
        """Return whether the accepted mask of an image is to be used as it is."""
        return self._kind(entry) == "accept"

    def rejects(self, entry: Entry) -> bool:
        """Return whether an image teaches the segmentation network nothing."""
        return self._kind(entry) in ("reject", "wrong_class")

    def keeps(self, entry: Entry) -> bool:
        """Return whether the pseudo-mask of an image is final."""
        return self.accepts(entry) or self.rejects(entry)

    def corrected(self, entry: Entry) -> Entry:
        """Return the entry with its corrected tags, if it has any."""
        decision = self._decided.get(image_name(entry))
        return entry._replace(tags=decision.tags) if decision and decision.kind == "tags" else entry

    def write(self, folder: Path) -> None:
        """Write the decisions as the table of `folder`."""
        write_decisions(folder, self._decided)

    def _kind(self, entry: Entry) -> Kind | None:
        decision = self._decided.get(image_name(entry))
        return decision and decision.kind


def image_name(entry: Entry) -> str:
    """Return the name of an image in the table."""
    return entry.image.removeprefix("images/")


def accepted_masks(folder: Path, entries: Iterable[Entry], classes: int) -> Masks:
    """Return a reader of the accepted masks of a review, after a check of those of `entries`.

    Raises:
        InputError: a mask is missing or unreadable, has another size than its image, or unknown ids.
    """
    masks = Masks(folder / MASKS)
    for entry in entries:
        path = mask_path(folder / MASKS, entry)
        try:
            check_mask(masks(entry), entry, classes)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read: {error.strerror}; {TABLE} accepts this mask"
            ) from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return masks
