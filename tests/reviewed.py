"""A finished run with drawn masks, and `plda review` of it in another process."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np
from PIL import Image
from web_command import serving_page

from plda.data.data_set import write_data_set
from plda.data.images import VOID, encode_image, encode_mask
from plda.data.index import Entry
from plda.masks.estimate import write_estimates
from plda.masks.folder import write_mask

ROOT = Path(__file__).parents[1]
CLASSES = ("background", "cat", "dog")
TAGS = (("cat",), ("dog",), ("cat", "dog"), ())
WIDTH, HEIGHT = 64, 48
NASTY = "<script>alert('$x$')&.png"


def name_of(number: int) -> str:
    """Return the name of a training image; one is hard to escape, and every other one is in a folder."""
    return NASTY if number == 2 else f"{'käfer/' if number % 2 else ''}photo {number}.png"


def expected_of(number: int) -> float:
    """Return an expected IoU whose order is not that of the images."""
    return number * 37 % 101


def ids_of(number: int) -> np.ndarray:
    """Return a training mask, different for each of the first 1,000 images."""
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[10 : 20 + number % 25, number // 25 : 60] = 1 + number % 2
    ids[0] = VOID
    return ids


def draw_run(results: Path, count: int, *, estimated: bool = True) -> list[str]:
    """Write what `plda review` reads of a run; return the training images, worst first.

    Two more images have no training mask: one of split val, and one whose tags are unknown.
    """
    names = [name_of(number) for number in range(count)]
    training = [
        Entry(f"images/{names[i]}", "train", TAGS[i % 4], "", "", WIDTH, HEIGHT) for i in range(count)
    ]
    others = [
        Entry("images/val.png", "val", ("cat",), "", "", WIDTH, HEIGHT),
        Entry("images/unknown.png", "train", ("?",), "", "", WIDTH, HEIGHT),
    ]
    write_data_set(
        results / "index_data/data_set",
        CLASSES,
        ((entry, {entry.image: _photo(number)}) for number, entry in enumerate([*training, *others])),
    )
    for number, entry in enumerate(training):
        write_mask(results / "relabel_masks/masks", entry, ids_of(number))
    estimates = [(entry, expected_of(number)) for number, entry in enumerate(training)] if estimated else []
    write_estimates(results / "relabel_masks/estimates.csv", estimates)
    return sorted(names, key=lambda name: expected_of(names.index(name))) if estimated else names


def mask_file(number: int) -> bytes:
    """Return the file of a training mask."""
    return encode_mask(ids_of(number))


def _photo(number: int) -> bytes:
    noise = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
    return encode_image(np.asarray(Image.fromarray(noise).resize((WIDTH, HEIGHT))))


class Answer(NamedTuple):
    """The answer to a request; `content` is parsed JSON, or else bytes."""

    status: int
    content: Any


class Server(NamedTuple):
    """A running `plda review`."""

    url: str
    process: "subprocess.Popen[str]"

    def ask(self, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a GET request, or with a body a POST request."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            sent = {} if body is None else {"Content-Type": "application/json"}
            content = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, content, {**sent, **(headers or {})})
            answer = connection.getresponse()
            read = answer.read()
            is_json = answer.getheader("Content-Type") == "application/json"
            return Answer(answer.status, json.loads(read) if is_json else read)
        finally:
            connection.close()

    def decide(self, image: str, kind: str | None, **more: object) -> Answer:
        """Decide about an image; "accept": the mask that the server shows."""
        if kind == "accept" and "version" not in more:
            more["version"] = self.ask(f"/mask?{urlencode({'image': image})}").content["version"]
        return self.ask("/decisions", {"image": image, "kind": kind, **more})


@contextmanager
def reviewing(results: Path, review: Path) -> Iterator[Server]:
    """Run the command until the context ends."""
    with serving_page("review", str(results), "--review", str(review)) as (process, address):
        yield Server(address, process)
