"""Copies of photos in a data set: upright RGB, JPEG or PNG, which every program opens alike."""

from pathlib import Path

from plda.data.images import keep_image, read_file
from plda.errors import InputError
from plda.writers.pieces import Picture

JPEG = b"\xff\xd8"  # first bytes of a file


def copy_photo(picture: Picture, folder: Path) -> str:
    """Copy the photo of a picture, if it is known, and return the name of the copy in `folder`.

    The copy is named as the mask. A photo with EXIF rotation or another format is encoded again.

    Raises:
        InputError: the photo cannot be read.
    """
    if picture.photo is None:
        return picture.file
    try:
        content, _, _ = keep_image(read_file(picture.photo), None)
    except InputError as error:
        raise InputError(f"{picture.photo}: {error}") from error
    name = picture.name + (".jpg" if content.startswith(JPEG) else ".png")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return name
