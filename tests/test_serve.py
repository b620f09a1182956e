"""The command serve: a real server, asked over HTTP and in the system's Chromium."""

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refusal, encoded, photo
from PIL import Image
from pycocotools.coco import COCO
from test_predict import CLASSES, predict, saved
from web_command import serving_page

from plda.__main__ import main
from plda.data.images import read_mask

pytest.importorskip("fastapi", reason="needs the extra web: make web")

from plda.use.batches import Batches, Waiting
from plda.use.network import TrainedNetwork

FLOAT = ("--precision", "32")  # batches differ least from single photos
CUT = encoded(photo(300, 200))[:3000]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        (message,) = json.loads(self.body).values()
        return str(message)


@dataclass(frozen=True)
class Served:
    """A server that runs, and its network."""

    process: "subprocess.Popen[str]"
    port: int
    network: Path

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = Answer(
            answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read()
        )
        connection.close()
        return found

    def predict(self, body: Any, query: str = "", **headers: str) -> Answer:
        return self.ask("POST", f"/predict{query}", body, **headers)

    def metric(self, name: str) -> float:
        text = self.ask("GET", "/metrics").body.decode()
        found = re.search(rf"^plda_{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait_for_queue(self, length: int) -> None:
        end = time.monotonic() + 60
        while self.metric("queue_length") != length:
            assert time.monotonic() < end
            time.sleep(0.01)

    def memory(self, name: str) -> float:
        """Return a line of /proc/PID/status in MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1000


@contextmanager
def serving(network: Path, *flags: str) -> Iterator[Served]:
    with serving_page("serve", "--network", str(network), "--device", "cpu", *flags) as (process, address):
        yield Served(process, int(address.rstrip("/").rpartition(":")[2]), network)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("network") / "network.pt")


@pytest.fixture(scope="module")
def served(network: Path) -> Iterator[Served]:
    with serving(network, "--queue", "128", "--max-pixels", "2000000", *FLOAT) as running:
        yield running


def masks_of(photos: Sequence[bytes], network: Path, folder: Path, *flags: str) -> list[bytes]:
    """Return the masks that `plda predict` writes."""
    folder.mkdir()
    for number, content in enumerate(photos):
        (folder / f"{number}.jpg").write_bytes(content)
    out = folder.with_name(f"{folder.name}-out")
    assert predict(folder, network=network, out=out, flags=("--device", "cpu", *flags)) == 0
    return [(out / f"masks/{number}.png").read_bytes() for number in range(len(photos))]


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, exif=exif)


def test_serve_gives_the_masks_of_predict(served: Served, tmp_path: Path) -> None:
    photos = [
        encoded(photo(90, 60)),
        turned(photo(300, 200, 1)),
        encoded(photo(61, 64, 2), "PNG"),
        encoded(photo(1, 1, 3)),
    ]
    for content, mask in zip(photos, masks_of(photos, served.network, tmp_path / "a", *FLOAT), strict=True):
        answer = served.predict(content)
        assert (answer.status, answer.body) == (200, mask)
        assert answer.headers["content-type"] == "image/png"


def test_serve_looks_at_photos_as_predict_does_with_its_flags(network: Path, tmp_path: Path) -> None:
    flags = ("--no-refinement", "--scales", "0.75,1", "--flip", "--long-side", "80", "--window", "48")
    content = encoded(photo(90, 60))
    (mask,) = masks_of([content], network, tmp_path / "a", *flags)
    with serving(network, *flags, "--batch", "1") as running:
        assert running.predict(content).body == mask
    assert mask not in masks_of([content], network, tmp_path / "b")


def test_serve_describes_the_mask_in_headers(served: Served, tmp_path: Path) -> None:
    content = encoded(photo(90, 60))
    masks_of([content], served.network, tmp_path / "a", *FLOAT)
    about = json.loads((tmp_path / "a-out/labels/0.json").read_text(encoding="utf-8"))
    headers = served.predict(content).headers
    assert json.loads(headers["x-classes"]) == about["classes"]
    assert float(headers["x-expected-iou"]) == about["expected_iou"]


def test_serve_gives_coco_json_of_the_mask(served: Served, tmp_path: Path) -> None:
    content = encoded(photo(90, 60, 1))
    ids = read_mask(served.predict(content).body)
    answer = served.predict(content, "?format=coco")
    assert answer.headers["content-type"] == "application/json"
    (tmp_path / "coco.json").write_bytes(answer.body)
    with redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "coco.json")
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == list(CLASSES[1:])
    assert (coco.imgs[1]["width"], coco.imgs[1]["height"]) == (90, 60)
    drawn = np.zeros_like(ids)
    for each in coco.loadAnns(coco.getAnnIds()):
        drawn[coco.annToMask(each) > 0] = each["category_id"]
    different = drawn != ids
    assert different.mean() < 0.01  # pieces below 0.1 % of the photo are left out
    assert not drawn[different].any()


def test_serve_allows_only_given_tags(served: Served) -> None:
    content = encoded(photo(90, 60))
    any_class, dog, none = (read_mask(served.predict(content, q).body) for q in ("", "?tags=dog", "?tags="))
    assert 1 in any_class and set(np.unique(dog)) == {0, 2} and set(np.unique(none)) == {0}
    assert served.predict(content, "?tags=dog;cat").body != served.predict(content, "?tags=dog").body


@pytest.mark.parametrize(
    ("query", "message"),
    {
        "?tags=cow": "tags: must be classes of the network (cat, dog), got 'cow'",
        "?tags=background": "tags: must be classes of the network (cat, dog), got 'background'",
        "?format=xml": "format: must be 'png' or 'coco', got 'xml'",
    }.items(),
)
def test_serve_refuses_a_wrong_query(served: Served, query: str, message: str) -> None:
    answer = served.predict(encoded(photo(90, 60)), query)
    assert (answer.status, answer.error) == (422, message)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 422, "photo: must be the content of an image file, got 0 bytes"),
        (b"no photo", 415, "photo: cannot be decoded: not an image in one of the formats "),
        (CUT, 422, "photo: cannot be decoded: image file is truncated"),
        (
            encoded(Image.new("1", (3000, 3000)), "PNG"), 413,
            "photo: must have at most 2000000 pixels, got 3000x3000",
        ),
    ],
)  # fmt: skip
def test_serve_refuses_a_wrong_photo(served: Served, content: bytes, status: int, message: str) -> None:
    answer = served.predict(content)
    assert answer.status == status
    assert answer.error.startswith(message)
    assert served.predict(encoded(photo(90, 60))).status == 200


def test_serve_answers_other_addresses(served: Served) -> None:
    classes = json.loads(served.ask("GET", "/classes").body)
    assert [(each["id"], each["name"]) for each in classes] == list(enumerate(CLASSES))
    assert served.ask("GET", "/healthz").status == 200
    assert served.ask("GET", "/docs").error == "address: must be POST /predict, or see /, got GET /docs"
    assert (served.ask("GET", "/docs").status, served.ask("GET", "/predict").status) == (404, 405)


def test_serve_loses_no_request_among_many(served: Served, tmp_path: Path) -> None:
    """100 good and 20 broken photos at once, twice: each is answered, counted, and memory stays bounded."""
    good = [encoded(photo(1000, 800, seed)) for seed in range(3)] + [encoded(photo(800, 1000, 3))]
    masks = masks_of(good, served.network, tmp_path / "a", *FLOAT)
    bodies = (good * 25 + [b"no photo", CUT] * 10) * 2
    before = {status: served.metric(f'requests_total{{status="{status}"}}') for status in (200, 415, 422)}
    batches = served.metric("batch_size_sum")
    together = threading.Barrier(120)

    def ask(body: bytes) -> Answer:
        together.wait()
        return served.predict(body)

    at_start = served.memory("VmRSS")
    with ThreadPoolExecutor(120) as clients:
        answers = list(clients.map(ask, bodies))
    statuses = Counter(answer.status for answer in answers)
    assert statuses == {200: 200, 415: 20, 422: 20}
    expected = dict(zip(good, masks, strict=True))
    for answer, body in zip(answers, bodies, strict=True):
        if answer.status == 200:
            different = read_mask(answer.body) != read_mask(expected[body])
            assert different.mean() < 1e-4  # a batch's probabilities differ in the last digits
    for status, count in statuses.items():
        assert served.metric(f'requests_total{{status="{status}"}}') - before[status] == count
    assert served.metric("batch_size_sum") - batches == 200
    assert served.metric("queue_length") == 0
    assert served.memory("VmHWM") - at_start < 250  # MB; the decoded photos take 480, their masks 160


def test_serve_refuses_large_bodies_and_a_full_queue(network: Path) -> None:
    with serving(network, "--max-bytes", "20000", "--queue", "2") as running:
        at_start = running.memory("VmRSS")
        sent = bytes(50_000_000)
        assert running.predict(sent).error == "photo: must have at most 20000 bytes, got 50000000 or more"
        answer = running.predict(sent[:1_000_000] for _ in range(50))  # the length is not stated
        assert answer.status == 413
        assert re.fullmatch(r"photo: must have at most 20000 bytes, got \d{5,7} or more", answer.error)
        assert running.memory("VmHWM") - at_start < 30
        content = encoded(photo(90, 60))
        slow = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(2)]
        for each in slow:
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n\r\n"
            each.sendall(head.encode() + content[:100])
        running.wait_for_queue(2)
        full = running.predict(content)
        assert (full.status, full.error) == (503, "queue: must have fewer than 2 requests, got 2")
        assert int(full.headers["retry-after"]) > 0
        slow[0].close()  # a client that is gone leaves its place
        running.wait_for_queue(1)
        assert running.predict(content).status == 200
        slow[1].sendall(content[100:])
        assert slow[1].recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        slow[1].close()


def test_serve_answers_in_time(network: Path) -> None:
    """Photos that take seconds: those in work and those that wait get different errors, then it goes on."""
    flags = ("--long-side", "full", "--scales", "0.75,1,1.5", "--timeout", "0.4", "--batch", "1")
    with serving(network, *flags) as running:
        large = encoded(photo(600, 600))
        with ThreadPoolExecutor(7) as clients:
            answers = list(clients.map(running.predict, [large] * 7))
        assert Counter(answer.status for answer in answers) == {504: 2, 503: 5}
        assert {answer.error for answer in answers if answer.status == 504} == {
            "time: waiting and labelling must take at most 0.4 seconds, got more"
        }
        late = [answer for answer in answers if answer.status == 503]
        assert {answer.error for answer in late} == {"time: waiting must take at most 0.4 seconds, got more"}
        assert all("retry-after" in answer.headers for answer in late)
        with socket.create_connection(("127.0.0.1", running.port)) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
        end = time.monotonic() + 60
        while running.predict(encoded(photo(40, 32))).status != 200:
            assert time.monotonic() < end


@pytest.mark.parametrize(
    ("sign", "host", "status"), [(signal.SIGTERM, "127.0.0.1", -15), (signal.SIGINT, "0.0.0.0", 130)]
)
def test_serve_answers_before_it_stops(network: Path, sign: signal.Signals, host: str, status: int) -> None:
    with serving(network, "--long-side", "full", "--host", host) as running:
        with ThreadPoolExecutor(1) as client:
            answer = client.submit(running.predict, encoded(photo(500, 500)))
            running.wait_for_queue(1)
            running.process.send_signal(sign)
            assert answer.result().status == 200
        assert running.process.wait(timeout=60) == status
        words = running.process.stderr.read()
        assert words == ("plda serve: stopped by Ctrl-C\n" if sign == signal.SIGINT else "")
        with pytest.raises(ConnectionRefusedError):
            running.ask("GET", "/healthz")


def test_serve_warns_of_an_address_that_others_reach(
    network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--network", str(network), "--host", "0.0.0.0", "--port", port]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning == (
        "plda serve: Warning: --host 0.0.0.0: other machines may reach this port; no one has to log in"
    )
    assert error.startswith(f"plda serve: error: --port: 0.0.0.0:{port} cannot be opened: ")


def test_serve_refuses_a_missing_network(tmp_path: Path, refused: Refusal) -> None:
    assert "none.pt: " in refused(main, ["serve", "--network", str(tmp_path / "none.pt")])


@pytest.mark.parametrize("flag", ["--queue=0", "--timeout=0", "--max-bytes=x", "--port=65536", "--batch=0"])
def test_serve_reports_invalid_flag_as_usage_error(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["serve", "--network", "network.pt", flag])
    assert stop.value.code == 2
    assert f"argument {flag.partition('=')[0]}: must be a " in capsys.readouterr().err


def test_batches_group_photos_by_size_and_pass_over_errors(network: Path) -> None:
    sizes: list[int] = []
    go = threading.Event()

    def note(size: int) -> None:
        sizes.append(size)
        assert go.wait(60)

    labeller = TrainedNetwork(network, device="cpu", precision="32")
    batches = Batches(labeller, 3, note)
    first = Waiting(photo(64, 64), (64, 64), None)
    batches.add(first)
    while not sizes:  # the thread is held in the first batch
        time.sleep(0.001)
    wide = [Waiting(photo(90, 60, seed), (90, 60), None) for seed in range(4)]
    square = [Waiting(photo(50, 50, 9), (50, 50), tags) for tags in (None, ("cow",))]  # cow: no class
    gone = Waiting(photo(90, 60), (90, 60), None)
    gone.late.set()
    for one in (*wide[:2], *square, gone, *wide[2:]):
        batches.add(one)
    go.set()
    for one in (first, *wide, square[0]):
        alone = labeller.label(one.photo, size=one.size, confidence=False)
        assert np.array_equal(one.result.result(60).ids, alone.ids)
    with pytest.raises(ValueError):
        square[1].result.result(60)
    assert gone.result.cancelled()
    assert sizes == [1, 2, 2, 2, 1, 1]  # wide without the one that is gone; square together, then one by one


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    """Yield the page; errors in scripts and requests to other servers fail the test."""
    said: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    home = f"http://127.0.0.1:{served.port}/"
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith((home, "blob:", "data:")) else said.append(request.url)
        ),
    )
    page.goto(home)
    page.get_by_label("dog").wait_for()
    yield page
    page.close()
    known = ("status of 415", "Canvas2D: Multiple readback")  # a broken photo; this test reads pixels
    assert [text for text in said if not any(each in text for each in known)] == []


def files(**named: bytes) -> list[dict[str, Any]]:
    return [{"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": body} for name, body in named.items()]


def pixel(page: Any, x: int, y: int) -> list[int]:
    script = (
        f"Object.values(document.querySelector('canvas').getContext('2d').getImageData({x}, {y}, 1, 1).data)"
    )
    return list(page.evaluate(script))


def test_page_shows_mask_over_photo(page: Any, served: Served) -> None:
    image = Image.new("RGB", (90, 60), (10, 200, 30))
    content = encoded(image, "PNG")
    ids = read_mask(served.predict(content).body)
    page.get_by_label("Choose photos").set_input_files(files(one=content, broken=b"no photo"))
    page.get_by_text("1 labelled, 1 failed.").wait_for()
    page.get_by_text("Error: photo: cannot be decoded: not an image").wait_for()
    y, x = (int(side[0]) for side in np.nonzero(ids))
    colour = {each["id"]: each["colour"] for each in json.loads(served.ask("GET", "/classes").body)}[
        ids[y, x]
    ]
    slider = page.get_by_label("Opacity of the mask")
    slider.focus()
    page.keyboard.press("End")
    assert pixel(page, x, y) == [*colour, 255]
    page.keyboard.press("Home")
    assert pixel(page, x, y) == [10, 200, 30, 255]
    names = page.locator("tbody th").all_inner_texts()
    assert names == [each["class"] for each in json.loads(served.predict(content).headers["x-classes"])]
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the mask").click()
    assert download.value.suggested_filename == "one.png"
    assert Path(download.value.path()).read_bytes() == served.predict(content).body


def test_page_works_by_keyboard_with_tags(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "photos"
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # dog, the second class
    page.get_by_label("Choose photos").set_input_files(files(one=encoded(photo(90, 60))))
    page.get_by_text("1 labelled.").wait_for()
    assert set(page.locator("tbody th").all_inner_texts()) == {"background", "dog"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_passes_accessibility_check(page: Any, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    page.get_by_label("Choose photos").set_input_files(
        files(one=encoded(photo(900, 600)), broken=b"no photo")
    )
    page.get_by_text("1 labelled, 1 failed.").wait_for()
    found = Axe().run(page).response["violations"]
    assert [(rule["id"], rule["impact"], rule["nodes"][0]["html"]) for rule in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
