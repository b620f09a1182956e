"""The table of published archives: mirrors, checksums and sizes, and their download.

The table is workflow/archives.yaml, so that a dead link needs a change in one place only.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from plda.download.extract import extract
from plda.download.fetch import fetch
from plda.download.progress import in_words, say
from plda.errors import InputError
from plda.files import need_space
from plda.params import Count, DownloadData, Section, check
from plda.yaml_file import read_yaml

MB = 1_000_000


class Unpack(Section):
    """The content to extract from an archive that has no access by name.

    Attributes:
        only: files and folders within the archive.
        megabytes: largest size of them on the disk; a larger archive is rejected.
    """

    only: Annotated[list[str], Field(min_length=1)]
    megabytes: Count


class PublishedArchive(Section):
    """A published archive.

    Attributes:
        file: file name.
        megabytes: approximate size.
        checksum: `md5:` or `sha256:` and its digits.
        mirrors: http(s) URLs, in the order in which they are tried.
        unpack: null if the archive is read without extraction.
    """

    file: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
    megabytes: Count
    checksum: Annotated[str, Field(pattern="^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")]
    mirrors: list[str]
    unpack: Unpack | None = None


class PublishedSet(Section):
    """A data set: its archives by name, and the number of images (or classes) of each of its lists."""

    archives: dict[str, PublishedArchive]
    counts: dict[str, Count]


class Table(Section):
    """The whole table; each field has the name of a source."""

    voc2012: PublishedSet
    coco2014: PublishedSet


def read_table(path: Path) -> Table:
    """Read and check the table.

    Raises:
        InputError: it is missing or not YAML, or fields are unknown, missing or wrong; names each one.
    """
    return check(Table, read_yaml(path), path)


def obtain(published: PublishedSet, settings: DownloadData, without: Collection[str] = ()) -> dict[str, Path]:
    """Return the archives of a data set, except those in `without`; download missing ones.

    Returns:
        The path of each archive, or of the folder with its content, by name.

    Raises:
        InputError: `settings.have` has an unknown name, a missing path or a wrong file; the disk is too
            small; or, as Unavailable, no mirror provides an archive: the message says which file to put
            where.
    """
    for name, path in settings.have.items():
        if name not in published.archives:
            raise InputError(
                f"params: download_data.have: unknown name {name!r}; expected {', '.join(published.archives)}"
            )
        if not Path(path).exists():
            raise InputError(f"params: download_data.have.{name}: {path} does not exist")
    wanted = {name: archive for name, archive in published.archives.items() if name not in without}
    _need_space_for(wanted, settings)
    return {name: _have(name, archive, settings) for name, archive in wanted.items()}


def _need_space_for(wanted: dict[str, PublishedArchive], settings: DownloadData) -> None:
    missing = {
        archive.file: archive.megabytes * MB
        for name, archive in wanted.items()
        if name not in settings.have and not (Path(settings.folder) / archive.file).exists()
    }
    if missing:
        sizes = ", ".join(f"{file} ({in_words(size)})" for file, size in missing.items())
        say(f"to download: {sizes}")
        here = (file.stat().st_size for file in _parts(missing, settings))
        need_space(Path(settings.folder) / "archives", sum(missing.values()) - sum(here))


def _parts(files: Collection[str], settings: DownloadData) -> Iterator[Path]:
    """Yield the partial files of earlier tries."""
    return (part for file in files if (part := Path(settings.folder) / f"{file}.part").exists())


def _have(name: str, archive: PublishedArchive, settings: DownloadData) -> Path:
    own = settings.have.get(name)
    if own is not None and Path(own).is_dir():
        return Path(own)
    mirrors = archive.mirrors if own is None else [own]
    place = fetch(Path(settings.folder) / archive.file, mirrors, checksum=archive.checksum)
    if archive.unpack is None:
        return place
    folder = Path(settings.folder) / name
    extract(place, folder, limit=archive.unpack.megabytes * MB, only=archive.unpack.only)
    return folder
