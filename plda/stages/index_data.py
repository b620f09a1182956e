"""Stage index_data."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from plda.data.archive import pack
from plda.data.index import Entry, write_index
from plda.data.tags import doubts, occurrences
from plda.files import need_space, write_text
from plda.params import IndexData, Origin
from plda.sources.checks import Checker, first_of
from plda.sources.open import open_source


def index_data(
    archives: Path,
    classes: Path,
    index: Path,
    images: Path,
    *,
    source: Origin,
    index_data: IndexData,
    folder: Path | None = None,
) -> None:
    """Check a data set and pack it into one archive and one table.

    Args:
        archives: paths of the archives of a published data set.
        classes: output: class names, background first, one per line.
        index: output: table of the data set, see plda.data.index.
        images: output: archive of images, true masks and part masks.
        source: source of the images.
        index_data: section `index_data` of params.yaml.
        folder: folder of photos to check instead of `index_data.folder`.
    """
    if folder is not None:
        index_data = index_data.model_copy(update={"folder": str(folder)})
    data_set = open_source(source, index_data, archives)
    need_space(images, data_set.size)
    checker = Checker(data_set, index_data.long_side)
    entries: list[Entry] = []

    def files() -> Iterator[tuple[str, bytes]]:
        for row in tqdm(data_set.rows, unit="image", disable=not sys.stderr.isatty()):
            checked = checker.check(row)
            if checked:
                entries.append(checked[0])
                yield from checked[1].items()
        checker.finish()  # rejects a bad data set before the archive gets its final name

    pack(images, files())
    write_index(index, entries)
    write_text(classes, "\n".join(data_set.classes) + "\n")
    print(f"{len(entries)} images, {len(data_set.classes) - 1} classes", file=sys.stderr)
    train = [entry for entry in entries if entry.teaches]
    unsure = doubts(occurrences(train, data_set.classes), len(train))
    for warning in [*first_of(checker.warnings), *unsure]:
        print(f"Warning: {warning}", file=sys.stderr)
