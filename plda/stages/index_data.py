"""Stage index_data."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from plda.data.data_set import write_data_set
from plda.data.index import Entry
from plda.data.tags import doubts, occurrences
from plda.files import need_space
from plda.params import IndexData, Origin
from plda.sources.checks import Checker, first_of
from plda.sources.open import open_source


def index_data(
    archives: Path, data_set: Path, *, source: Origin, index_data: IndexData, folder: Path | None = None
) -> None:
    """Check a data set and pack it into one folder.

    Args:
        archives: paths of the archives of a published data set.
        data_set: output: folder of the data set, see `plda.data.data_set`.
        source: source of the images.
        index_data: section `index_data` of params.yaml.
        folder: folder of photos to check instead of `index_data.folder`.
    """
    if folder is not None:
        index_data = index_data.model_copy(update={"folder": str(folder)})
    opened = open_source(source, index_data, archives)
    need_space(data_set, opened.size)
    checker = Checker(opened, index_data.long_side)

    def images() -> Iterator[tuple[Entry, dict[str, bytes]]]:
        for row in tqdm(opened.rows, unit="image", disable=not sys.stderr.isatty()):
            checked = checker.check(row)
            if checked:
                yield checked
        checker.finish()  # rejects a bad data set before the folder gets its final name

    entries = write_data_set(data_set, opened.classes, images())
    print(f"{len(entries)} images, {len(opened.classes) - 1} classes", file=sys.stderr)
    train = [entry for entry in entries if entry.teaches]
    unsure = doubts(occurrences(train, opened.classes), len(train))
    for warning in [*first_of(checker.warnings), *unsure]:
        print(f"Warning: {warning}", file=sys.stderr)
