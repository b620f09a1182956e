"""Stage download_data."""

from pathlib import Path

from plda.download.published import Table, obtain, read_table
from plda.files import write_json
from plda.params import DownloadData, Origin


def download_data(table: Path, archives: Path, *, source: Origin, download_data: DownloadData) -> None:
    """Find or download the archives of a published data set, and check them.

    The archives are in a folder that is not a stage output, so neither engine deletes a partial download
    and no cache stores 20 GB twice.

    Args:
        table: table of published archives, workflow/archives.yaml.
        archives: output: path of each archive, and the expected number of images in each list.
        source: source of the images; a source that is not downloaded has no archives.
        download_data: section `download_data` of params.yaml.
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
