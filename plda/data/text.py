"""Reading text files as UTF-8; other encodings are rejected by name."""

import unicodedata
from pathlib import Path

from plda.errors import InputError

_MARKS = {  # byte order marks; UTF-32's begins with UTF-16's
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark; line ends are kept.

    Raises:
        InputError: the file is missing, unreadable, or in another encoding, which is named.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return decode(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def decode(content: bytes) -> str:
    """Decode UTF-8 bytes, without a byte order mark.

    Raises:
        InputError: the bytes are in another encoding, which is named.
    """
    name = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    if name is None and b"\0" in content:
        even, odd = content[::2].count(0), content[1::2].count(0)
        name = "UTF-16" if max(even, odd) > len(content) // 4 else "a binary file (it has NUL bytes)"
    if name is not None:
        raise InputError(f"must be UTF-8 text, got {name}; save it as UTF-8 (in a spreadsheet: CSV UTF-8)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = content.splitlines()[line - 1].decode("cp1252", errors="replace")
        raise InputError(
            f"line {line}: must be UTF-8 text, got Windows-1252 or another 8-bit encoding "
            f"(byte 0x{content[error.start]:02X}; read as Windows-1252 the line is {wrong[:80]!r}); "
            "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
        ) from error


def plain(text: str) -> str:
    """Return text in the form for comparisons: composed Unicode (NFC), any white space as single spaces.

    Invisible zero-width marks, which editors leave, are removed.
    """
    return " ".join(unicodedata.normalize("NFC", text).replace("\ufeff", "").replace("\u200b", "").split())
