"""Stage index_data."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from plda.data.archive import pack
from plda.data.checks import Checker
from plda.data.index import Entry, write_index
from plda.data.sources import open_source
from plda.files import need_space, write_text
from plda.params import IndexData


def index_data(folder: Path, classes: Path, index: Path, images: Path, *, index_data: IndexData) -> None:
    """Check a data set and pack it into one archive and one table.

    Args:
        folder: the user's photos with tags.csv and classes.txt (source `folder`).
        classes: written: class names, background first, one a line.
        index: written: the table, see plda.data.index.
        images: written: the archive of images, masks and parts.
        index_data: its section of the params.
    """
    source = open_source(index_data, folder)
    need_space(images, source.size)
    checker = Checker(source, index_data.long_side)
    entries: list[Entry] = []

    def files() -> Iterator[tuple[str, bytes]]:
        for row in tqdm(source.rows, unit="image", disable=not sys.stderr.isatty()):
            checked = checker.check(row)
            if checked:
                entries.append(checked[0])
                yield from checked[1].items()
        checker.finish()  # refuses a bad data set before the archive gets its name

    pack(images, files())
    write_index(index, entries)
    write_text(classes, "\n".join(source.classes) + "\n")
    print(f"{len(entries)} images, {len(source.classes) - 1} classes", file=sys.stderr)
