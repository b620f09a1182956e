"""One folder per class, such as `cat/1.jpg`, or per split and class, `train/cat/1.jpg` (ImageFolder)."""

from pathlib import Path

from plda.data.source import UNKNOWN
from plda.readers.found import SPLIT_NAMES, Files, Found


def recognises(source: Path) -> bool:
    """Return whether a folder has photos in sub-folders."""
    return source.is_dir() and any(path.parent != source for path in Files(source).paths)


def read(source: Path, images: Path | None) -> Found:
    """Read the folders; a test photo outside a class folder has unknown tags, others are left out."""
    found = Found(Files(images or source))
    inside = [(path, path.relative_to(found.files.folder).parts[:-1]) for path in found.files.paths]
    by_split = all(parts[0].lower() in SPLIT_NAMES for _, parts in inside if parts)
    for path, parts in inside:
        split = SPLIT_NAMES[parts[0].lower()] if by_split and parts else ""
        classes = parts[1:] if split else parts
        if classes:
            found.add(path, split, [classes[0]])
        elif split == "test":
            found.add(path, split, UNKNOWN)
        else:
            found.left_out["in no class folder"].append(found.files.name(path))
    found.notes.append("folders cannot say that a photo shows no class; a folder `background` can")
    return found
