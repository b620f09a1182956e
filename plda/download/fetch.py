"""HTTP download of large files from one of several mirrors, with resume and checksum.

Files beside a target `a.tar`: `a.tar.part`, the content received so far; `a.tar.part.json`, its origin;
`.a.tar.checked`, a note that saves a second computation of the checksum; `.a.tar.lock`. The target itself is
always complete. Written with urllib, without another dependency: only Range, If-Range and a timeout are
needed.
"""

import contextlib
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from plda import __version__
from plda.download.progress import Progress, in_words, say
from plda.errors import InputError
from plda.files import explaining, locked, need_space, read_note, write_json

CHUNK = 1 << 18  # bytes per read
ENOUGH = 1 << 20  # bytes received that reset the count of failed tries
HASHES = {"md5": "MD5", "sha256": "SHA-256"}
LATER = (408, 425, 429)  # status codes that are retried, as are all codes from 500


@dataclass(frozen=True)
class Patience:
    """Limits for each mirror.

    Attributes:
        timeout: seconds without data after which a connection counts as lost.
        tries: consecutive failed tries, almost without data, after which the next mirror is tried.
        pause: seconds before the second try; doubled before each further try.
    """

    timeout: float = 30.0
    tries: int = 5
    pause: float = 1.0


PATIENCE = Patience()


class Unavailable(InputError):
    """No mirror provides the file; `reasons` says why, by mirror."""

    def __init__(self, message: str, reasons: Mapping[str, str]) -> None:
        super().__init__(message)
        self.reasons = reasons


def fetch(
    target: Path,
    mirrors: Sequence[str],
    *,
    checksum: str = "",
    size: int | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Return `target`, downloading it from the first working mirror if needed.

    Args:
        target: path of the file. An existing file is kept if it is right or cannot be checked.
        mirrors: sources of this file, in order: http(s) URLs, or local files (`file://` or a path), which are
            checked and used in place.
        checksum: `md5:` or `sha256:` and all hexadecimal digits or the first eight or more; "" to accept any
            content.
        size: size in bytes, if known.
        patience: limits for each mirror.

    Returns:
        `target`, or the local file.

    Raises:
        Unavailable: no mirror provides the file; names each mirror with the reason.
        InputError: there is no space or no permission to write the file.
    """
    wanted = _Wanted(target, checksum, size)
    if not wanted.fault(target):
        return wanted.remember(target)
    with locked(target):
        fault = wanted.fault(target)
        if not fault:  # another process downloaded it
            return wanted.remember(target)
        reasons = {str(target): fault} if target.exists() else {}
        for mirror in mirrors:
            try:
                if re.match("https?://", mirror, re.IGNORECASE):
                    return _download(mirror, wanted, patience)
                return _local(mirror, wanted)
            except _Refused as error:
                reasons[mirror] = str(error)
                say(f"{mirror}: {error}")
    raise Unavailable(
        f"{target}: cannot be downloaded:\n"
        + "".join(f"{place}: {reason}\n" for place, reason in reasons.items())
        + f"get {wanted} by other means, put it at {target}, and run the same command again",
        reasons,
    )


class _Refused(Exception):
    """This mirror does not provide the file."""


class _Lost(Exception):
    """This try failed; another try may succeed."""


class _Silent(_Lost):
    """The server cannot be reached."""


class _Wanted:
    """The expected properties of a file, with a note on disk of the last successful check."""

    def __init__(self, target: Path, checksum: str, size: int | None) -> None:
        self.target, self.checksum, self.size = target, checksum, size
        self._hash, _, self._digits = checksum.partition(":")
        if checksum and not (self._hash in HASHES and re.fullmatch("[0-9a-f]{8,}", self._digits)):
            raise ValueError(f"checksum must be like md5:... or sha256:..., in lower case, got {checksum!r}")
        self._note = target.with_name(f".{target.name}.checked")

    def __str__(self) -> str:
        known = [in_words(self.size)] if self.size is not None else []
        known += [f"{HASHES[self._hash]} {self._digits}"] if self.checksum else []
        return self.target.name + (f" ({', '.join(known)})" if known else "")

    def fault(self, file: Path) -> str:
        """Return a description of what is wrong with `file`, "" if nothing is."""
        if not file.is_file():
            return "no such file"
        length = file.stat().st_size
        if self.size is not None and length != self.size:
            return f"has {length} bytes, expected {self.size}"
        if not self.checksum or self._remembers(file):
            return ""
        digest = _digest(file, self._hash)
        if digest.startswith(self._digits):
            return ""
        return f"has {HASHES[self._hash]} {digest}, expected {self._digits}; it is damaged or another file"

    def remember(self, file: Path) -> Path:
        """Note that `file` is right, so that its checksum is not computed again; return `file`."""
        if self.checksum and not self._remembers(file):
            with contextlib.suppress(InputError):  # a read-only folder: the file is checked again next time
                write_json(self._note, self._remark(file))
        return file

    def _remembers(self, file: Path) -> bool:
        return read_note(self._note) == self._remark(file)

    def _remark(self, file: Path) -> dict[str, object]:
        state = file.stat()
        return {
            "file": str(file),
            "size": state.st_size,
            "mtime_ns": state.st_mtime_ns,
            "checksum": self.checksum,
        }


@dataclass(frozen=True)
class _Origin:
    """The source of a partial file; `version` is the server's tag for this content, "" if it gives none."""

    url: str
    version: str
    size: int | None


class _Part:
    """The partial file and the note of its origin. Without the note the partial file cannot be used."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    @property
    def length(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def origin(self) -> _Origin:
        try:
            return _Origin(**read_note(self._note))
        except TypeError:
            return _Origin("", "", None)

    def usable(self, url: str, wanted: _Wanted) -> int:
        """Return how many bytes need no second download from `url`: same version, or checked at the end."""
        origin = self.origin
        certain = origin.url == url and origin.version
        return self.length if certain or (origin.url and wanted.checksum) else 0

    def begin(self, origin: _Origin) -> None:
        self.delete()
        write_json(self._note, asdict(origin))

    def finish(self) -> None:
        self.path.replace(self.target)
        self._note.unlink()

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _local(mirror: str, wanted: _Wanted) -> Path:
    by_url = mirror.lower().startswith("file:")
    file = Path(urllib.request.url2pathname(urllib.parse.urlsplit(mirror).path) if by_url else mirror)
    fault = wanted.fault(file)
    if fault:
        raise _Refused(fault)
    return wanted.remember(file)


def _download(url: str, wanted: _Wanted, patience: Patience) -> Path:
    """Download the target from `url`, with as many tries as `patience` allows."""
    part = _Part(wanted.target)
    tries, farthest, answered, doubted = 0, part.length, False, False
    while True:
        try:
            resumed = _transfer(url, part, wanted, patience.timeout)
        except _Lost as error:
            answered |= not isinstance(error, _Silent)
            tries = 1 if part.length >= farthest + ENOUGH else tries + 1
            farthest = max(farthest, part.length)
            if not answered:
                raise _Refused(str(error)) from error
            if tries >= patience.tries:
                raise _Refused(f"{error} (gave up after {tries} tries)") from error
            seconds = patience.pause * 2 ** (tries - 1)
            say(f"{url}: {error}; again in {seconds:.0f} s")
            time.sleep(seconds)
            continue
        fault = wanted.fault(part.path)
        if not fault:
            with explaining(wanted.target):
                part.finish()
            return wanted.remember(wanted.target)
        part.delete()  # else every run would resume it
        if not resumed or doubted:
            raise _Refused(fault)
        doubted = True  # perhaps the pieces are of different versions: once more without resuming
        say(f"{url}: {fault}; again from the start")


def _transfer(url: str, part: _Part, wanted: _Wanted, timeout: float) -> bool:
    """Download the missing rest of `part`; return whether a part of it existed before."""
    offset, origin = part.usable(url, wanted), part.origin
    if offset and offset == origin.size:
        return True  # the last run stopped just before the check
    headers = {"User-Agent": f"plda/{__version__}"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if origin.url == url and origin.version:
            headers["If-Range"] = origin.version
    with _answer(url, headers, timeout, part) as response:
        total = _total(response)
        if wanted.size is not None and total not in (None, wanted.size):
            raise _Refused(f"has {total} bytes, expected {wanted.size}")
        if response.status == 200:
            offset, total = 0, total or wanted.size
        elif _goes_on(response, origin, url, offset, total):
            total = total or origin.size
        else:
            part.delete()
            raise _Lost("does not match the partial file")
        need_space(part.target, (total or 0) - offset)
        if not offset:
            part.begin(_Origin(url, _version(response), total))
        size = "size unknown" if total is None else in_words(total)
        say(f"{url}: {size}" + (f", {in_words(offset)} already downloaded" if offset else ""))
        _receive(response, part, offset, total)
    return offset > 0


def _answer(url: str, headers: dict[str, str], timeout: float, part: _Part) -> http.client.HTTPResponse:
    """Return the server's response if it provides the file."""
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the server's file is shorter than the partial file
            part.delete()
        again = error.code >= 500 or error.code in LATER or (error.code == 416 and "Range" in headers)
        raise (_Lost if again else _Refused)(f"{error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _Silent(str(error.reason)) from error
    except (ValueError, http.client.InvalidURL) as error:
        raise _Refused(f"is not a valid URL: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Lost(_words(error)) from error
    if isinstance(response, http.client.HTTPResponse) and response.status in (200, 206):
        return response
    response.close()
    raise _Refused("the response is not a file")


def _total(response: http.client.HTTPResponse) -> int | None:
    """Return the size of the whole file, None if the server does not give it."""
    if response.status == 200:
        return response.length
    size = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(size) if size.isdecimal() else None


def _goes_on(
    response: http.client.HTTPResponse, origin: _Origin, url: str, offset: int, total: int | None
) -> bool:
    """Return whether the response is the rest of the partial file, as far as the headers show."""
    same_place = offset and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    same_size = None in (total, origin.size) or total == origin.size
    known = origin.version if origin.url == url else ""  # other mirrors have other version tags
    same_version = not known or _version(response) in ("", known)
    return bool(same_place and same_size and same_version)


def _receive(response: http.client.HTTPResponse, part: _Part, offset: int, total: int | None) -> None:
    with (
        Progress(part.target.name, total, offset) as progress,
        explaining(part.target),
        part.path.open("ab") as stream,
    ):
        done = offset
        while total is None or done < total:
            try:
                chunk = response.read1(CHUNK if total is None else min(CHUNK, total - done))
            except (OSError, http.client.HTTPException) as error:
                raise _Lost(f"{_words(error)} after {in_words(done)}") from error
            if not chunk:
                break
            stream.write(chunk)
            done += len(chunk)
            progress.add(len(chunk))
        stream.flush()
        os.fsync(stream.fileno())
    if total is not None and done < total:
        raise _Lost(f"connection lost after {in_words(done)} of {in_words(total)}")


def _version(response: http.client.HTTPResponse) -> str:
    """Return a value for If-Range: a strong ETag, else the time of the last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _digest(file: Path, name: str) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    with file.open("rb") as stream, Progress(f"checking {file.name}", file.stat().st_size) as progress:
        for chunk in iter(partial(stream.read, 1 << 20), b""):
            digest.update(chunk)
            progress.add(len(chunk))
    return digest.hexdigest()
