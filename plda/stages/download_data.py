"""Stage download_data."""

from pathlib import Path

from plda.data.published import Table, obtain, read_table
from plda.files import write_json
from plda.params import DownloadData, Origin


def download_data(table: Path, archives: Path, *, source: Origin, download_data: DownloadData) -> None:
    """Have the archives of a published data set: found, downloaded or resumed, and checked.

    They are kept in a folder of their own, which is no output of a stage: neither engine deletes what has
    come so far, and no cache holds 20 GB twice.

    Args:
        table: of published archives.
        archives: written: where each is, and what numbers of images its lists must have.
        source: of the images; one that is not downloaded has no archives.
        download_data: its section of the params.
    """
    if source not in Table.model_fields:
        write_json(archives, {"places": {}, "counts": {}})
        return
    published = getattr(read_table(table), source)
    places = obtain(published, download_data, without=() if download_data.test else ("test",))
    write_json(
        archives,
        {"places": {name: str(path) for name, path in places.items()}, "counts": published.counts},
    )
