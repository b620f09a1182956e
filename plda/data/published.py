"""The table of published archives: from where, what is right, and how to have them.

The table is workflow/archives.yaml, so that whoever finds a dead link mends it in one place.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from plda.data.download import fetch
from plda.data.extract import extract
from plda.data.progress import in_words, say
from plda.errors import InputError
from plda.files import need_space
from plda.params import Count, DownloadData, Section, check
from plda.yaml_file import read_yaml

MB = 1_000_000


class Unpack(Section):
    """What is unpacked of an archive that cannot be read by name.

    Attributes:
        only: files and folders within.
        megabytes: the most that they may take on the disk; an archive with more is refused.
    """

    only: Annotated[list[str], Field(min_length=1)]
    megabytes: Count


class PublishedArchive(Section):
    """A published archive.

    Attributes:
        file: its name.
        megabytes: about how large it is.
        checksum: `md5:` or `sha256:` and its digits.
        mirrors: http(s) URLs, in the order in which they are tried.
        unpack: null where it is read as it is.
    """

    file: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]
    megabytes: Count
    checksum: Annotated[str, Field(pattern="^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")]
    mirrors: list[str]
    unpack: Unpack | None = None


class PublishedSet(Section):
    """A data set: its archives by name, and how many images (or classes) each of its lists has."""

    archives: dict[str, PublishedArchive]
    counts: dict[str, Count]


class Table(Section):
    """The whole table; a field's name is a source's."""

    voc2012: PublishedSet
    coco2014: PublishedSet


def read_table(path: Path) -> Table:
    """Read and check the table.

    Raises:
        InputError: it is missing or no YAML, or names every field that is unknown, missing or wrong.
    """
    return check(Table, read_yaml(path), path)


def obtain(published: PublishedSet, settings: DownloadData, without: Collection[str] = ()) -> dict[str, Path]:
    """Have the archives of a data set, but for those named in `without`.

    Returns:
        By name the archive, or the folder that holds the same.

    Raises:
        InputError: `settings.have` names what is none of them, is not there or is not right; the disk is too
            small; or, as Unavailable, no mirror has one: it says what to put where.
    """
    for name, path in settings.have.items():
        if name not in published.archives:
            raise InputError(
                f"params: download_data.have: {name!r} is none of {', '.join(published.archives)}"
            )
        if not Path(path).exists():
            raise InputError(f"params: download_data.have.{name}: there is no {path}")
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
    """What an earlier try has brought."""
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
