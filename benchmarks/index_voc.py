"""Measures reading and checking VOC 2012 with SBD: seconds, and memory in addition to that of the imports.

    python benchmarks/index_voc.py [--images 20000] [--folder build]

Writes archives of that many images (500 x 375 pixels, about 100 kB) to a temporary folder in the given one,
with the published layout and proportions of the lists, and few contents under many names. Then lists the
archives' contents and reads all rows (read), or also checks each row as the stage index_data does (checked),
in a new process for each.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

CONTENTS = 8


def measure(form: str, folder: Path) -> dict[str, float]:
    """Return the seconds of each step, the CPU seconds of the rows, and MiB."""
    from plda.download.packed import Packed
    from plda.sources.checks import Checker
    from plda.sources.voc import read_voc

    before = held()
    times = [time.perf_counter()]
    devkit = Packed(folder / "voc.tar")
    times.append(time.perf_counter())
    extra = Packed(folder / "sbd")
    times.append(time.perf_counter())
    source = read_voc(devkit, extra, None, {})
    times.append(time.perf_counter())
    checker, images, before_rows = Checker(source, None), 0, time.process_time()
    for row in source.rows:
        images += 1
        assert form == "read" or checker.check(row) is not None
    if form == "checked":
        checker.finish()
    times.append(time.perf_counter())
    steps = [end - start for start, end in pairwise(times)]
    return dict(zip(("tar", "folder", "lists", "rows"), steps, strict=True)) | {
        "images": images,
        "cpu": time.process_time() - before_rows,
        "memory": held() - before,
    }


def held() -> float:
    """Return the peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def write_archives(folder: Path, images: int) -> None:
    """Write voc.tar and the folder sbd: 12 % of the images in VOC train, 12 % in VOC val, the rest in SBD."""
    import numpy as np

    photos, masks, mats = zip(*(contents(np.random.default_rng(k)) for k in range(CONTENTS)), strict=True)
    names = [f"{2007 + k % 6}_{k:06}" for k in range(images)]
    own, val = images * 12 // 100, images * 24 // 100
    half = (images + val) // 2

    def entries() -> Iterator[tuple[str, bytes]]:
        objects = "".join(f"<object><name>{name}</name></object>" for name in ("cat", "person"))
        for name in names:
            yield f"Annotations/{name}.xml", f"<annotation>{objects}</annotation>".encode()
        for k, name in enumerate(names):
            yield f"JPEGImages/{name}.jpg", photos[k % CONTENTS]
        for k, name in enumerate(names[:val]):
            yield f"SegmentationClass/{name}.png", masks[k % CONTENTS]
        for part, listed in (("train", names[:own]), ("val", names[own:val])):
            yield f"ImageSets/Segmentation/{part}.txt", "\n".join(listed).encode()

    with tarfile.open(folder / "voc.tar", "w") as tar:
        for name, content in entries():
            entry = tarfile.TarInfo(f"VOCdevkit/VOC2012/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    (folder / "sbd" / "cls").mkdir(parents=True)
    for part, listed in (("train", names[val:half]), ("val", names[half:])):
        (folder / "sbd" / f"{part}.txt").write_text("\n".join(listed))
    for k, name in enumerate(names[val:], val):
        (folder / "sbd" / "cls" / f"{name}.mat").write_bytes(mats[k % CONTENTS])


def contents(rng: Any) -> tuple[bytes, bytes, bytes]:
    """Return a photo, its mask in VOC's format, and its mask in SBD's format."""
    import numpy as np
    from PIL import Image
    from scipy.io import savemat
    from scipy.sparse import csc_matrix

    def noise(height: int, width: int) -> Any:
        coarse = Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8))
        return np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), float)

    photo, mask, mat = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pixels = 0.6 * noise(8, 10) + 0.3 * noise(75, 100) + 0.1 * noise(375, 500)
    Image.fromarray(pixels.astype(np.uint8)).save(photo, "JPEG", quality=95)
    ids = ((noise(4, 5)[..., 0] > 160) * 8 + (noise(4, 5)[..., 0] > 200) * 7).astype(np.uint8)  # cat, person
    Image.fromarray(ids).save(mask, "PNG")
    edges = np.empty((20, 1), object)
    for label in range(1, 21):
        inside = ids == label
        edges[label - 1, 0] = csc_matrix(inside ^ np.roll(inside, 1, 1))
    struct = {"Boundaries": edges, "Segmentation": ids, "CategoriesPresent": np.unique(ids[ids > 0])}
    savemat(mat, {"GTcls": struct}, do_compression=True)
    return photo.getvalue(), mask.getvalue(), mat.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path("build"))
    parser.add_argument("--form", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        print(json.dumps(measure(options.form, options.folder)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        write_archives(folder, options.images)
        size = (folder / "voc.tar").stat().st_size
        print(f"{options.images} images, a tar of {size / 1e9:.2f} GB", flush=True)
        for form in ("read", "checked"):
            command = [sys.executable, __file__, "--form", form, "--folder", str(folder)]
            environment = {**os.environ, "PYTHONPATH": "."}
            said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            f = json.loads(said)
            print(
                f"  {form:8} table of the tar {f['tar']:.1f} s, of the folder {f['folder']:.1f} s, "
                f"lists {f['lists']:.2f} s, {f['images']} rows {f['rows']:.1f} s, "
                f"of the CPU {f['cpu']:.1f} s ({1000 * f['cpu'] / f['images']:.1f} ms each), "
                f"{f['memory']:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
