"""The command review: its server, the decisions on disk, and masks from other programs."""

import json
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refusal, encoded
from PIL import Image
from reviewed import (
    CLASSES,
    HEIGHT,
    WIDTH,
    Server,
    draw_run,
    expected_of,
    ids_of,
    mask_file,
    name_of,
    reviewing,
)

from plda.__main__ import main
from plda.data.decisions import Decision, read_decisions, write_decisions
from plda.data.images import VOID, encode_mask, read_mask
from plda.errors import InputError
from plda.files import locked
from plda.reviewing.run import Run
from plda.reviewing.session import Session, version_of

COUNT = 40
ACCEPT, REJECT = Decision("accept"), Decision("reject")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "main"
    draw_run(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def _running(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    pytest.importorskip("fastapi")
    folder = tmp_path_factory.mktemp("served") / "review"
    with reviewing(results, folder) as server:
        assert read_decisions(folder, CLASSES) == {}  # the command creates the folder
        yield server, folder


@pytest.fixture
def server(_running: tuple[Server, Path]) -> Server:
    return _running[0]


@pytest.fixture
def folder(_running: tuple[Server, Path]) -> Path:
    """Return the folder of the server's review, without decisions."""
    shutil.rmtree(_running[1])
    write_decisions(_running[1], {})
    return _running[1]


@pytest.fixture
def session(results: Path, tmp_path: Path) -> Session:
    return Session(Run(results), tmp_path / "review")


def mask_path(folder: Path, number: int) -> Path:
    return folder / "masks" / Path(name_of(number)).with_suffix(".png")


# ---- the run


@pytest.mark.parametrize(
    "missing", ["index_data/data_set", "relabel_masks/masks", "relabel_masks/estimates.csv"]
)
def test_review_refuses_unfinished_run(tmp_path: Path, refused: Refusal, missing: str) -> None:
    draw_run(tmp_path / "main", 3)
    (tmp_path / "main" / missing).rename(tmp_path / "gone")
    said = refused(main, ["review", str(tmp_path / "main"), "--review", str(tmp_path / "review")])
    assert f"{tmp_path / 'main'}: RESULTS: must be the folder of a run with {missing}" in said
    assert "run `snakemake --cores all` first" in said
    assert not (tmp_path / "review").exists()


def test_review_refuses_missing_mask(tmp_path: Path, refused: Refusal) -> None:
    draw_run(tmp_path / "main", 3)
    mask = tmp_path / "main/relabel_masks/masks/photo 0.png"
    mask.unlink()
    said = refused(main, ["review", str(tmp_path / "main"), "--review", str(tmp_path / "review")])
    assert f"{mask}: must be the mask of images/photo 0.png, got no file" in said


def test_session_refuses_invalid_table(results: Path, tmp_path: Path) -> None:
    table = tmp_path / "decisions.csv"
    table.write_text("image,decision,tags\nphoto 0.png,perhaps,\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2: decision: must be one of accept, reject"):
        Session(Run(results), tmp_path)


def test_review_names_missing_package(
    results: Path, tmp_path: Path, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)  # type: ignore[arg-type]
    said = refused(main, ["review", str(results), "--review", str(tmp_path / "review")])
    assert "review needs the package fastapi: run `make web`" in said
    assert not (tmp_path / "review").exists()


def test_run_without_estimates_keeps_order_of_table(tmp_path: Path) -> None:
    names = draw_run(tmp_path / "main", 5, estimated=False)
    run = Run(tmp_path / "main")
    assert (list(run.entries), run.expected) == (names, {})


# ---- the server


def test_server_lists_training_images_worst_first(server: Server, folder: Path) -> None:
    write_decisions(folder, {name_of(1): Decision("tags", ("cat",))})
    listed = server.ask("/images").content
    numbers = sorted(range(COUNT), key=expected_of)
    assert [each["image"] for each in listed["images"]] == [name_of(number) for number in numbers]
    assert [each["expected"] for each in listed["images"]] == [expected_of(number) for number in numbers]
    assert listed["classes"]["1"] == ["cat", "#e69f00"]
    assert listed["decisions"] == {name_of(1): {"kind": "tags", "tags": ["cat"]}}


def test_server_writes_decision_before_it_answers(server: Server, folder: Path) -> None:
    kinds = {name_of(0): "accept", name_of(1): "reject", name_of(2): "wrong_class"}
    for image, kind in kinds.items():
        assert server.decide(image, kind).status == 200
    assert server.decide(name_of(3), "tags", tags=["dog", "cat"]).status == 200
    assert server.decide(name_of(1), None).status == 200
    text = (folder / "decisions.csv").read_text(encoding="utf-8")
    assert text.splitlines() == [
        "image,decision,tags",
        "photo 0.png,accept,",
        f"{name_of(2)},wrong_class,",
        "käfer/photo 3.png,tags,cat;dog",
    ]
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"decisions.csv", "masks/photo 0.png"}  # DVC hashes every file
    assert mask_path(folder, 0).read_bytes() == mask_file(0)


def test_server_keeps_rows_of_other_images(server: Server, folder: Path) -> None:
    write_decisions(folder, {"elsewhere.jpg": ACCEPT})
    assert server.decide(name_of(5), "reject").content == {name_of(5): {"kind": "reject", "tags": []}}
    assert read_decisions(folder, CLASSES) == {"elsewhere.jpg": ACCEPT, name_of(5): REJECT}


def test_server_refuses_mask_that_was_not_seen(server: Server, folder: Path) -> None:
    answer = server.decide(name_of(6), "accept", version=version_of(mask_file(7)))
    assert answer.status == 409 and "has changed since it was shown" in answer.content["detail"]
    assert read_decisions(folder, CLASSES) == {}
    assert not mask_path(folder, 6).exists()


@pytest.mark.parametrize("image", ["val.png", "unknown.png", "../index.csv", "/etc/passwd"])
def test_server_knows_only_training_images(server: Server, folder: Path, image: str) -> None:
    for path in ("photo", "thumbnail", "mask", "overlay"):
        assert server.ask(f"/{path}?image={image}&version=0").status == 404
    assert server.decide(image, "reject").status == 404
    assert read_decisions(folder, CLASSES) == {}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"kind": "perhaps"}, 422),
        ({"kind": "tags", "tags": ["bird"]}, 409),
        ({"kind": "tags", "tags": ["background"]}, 409),
        ({"kind": "reject", "tags": ["cat"]}, 409),
    ],
)
def test_server_refuses_other_decisions(
    server: Server, folder: Path, body: dict[str, Any], status: int
) -> None:
    assert server.ask("/decisions", {"image": name_of(0), **body}).status == status
    assert read_decisions(folder, CLASSES) == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80", "Origin": "http://evil.example:80"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "["},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
    ],
)
def test_server_refuses_other_sites(server: Server, folder: Path, headers: dict[str, str]) -> None:
    for path in ("/", "/images", "/photo?image=photo+0.png"):
        assert server.ask(path, headers=headers).status == 403
    assert server.ask("/decisions", {"image": name_of(0), "kind": "reject"}, headers).status == 403
    assert server.ask("/undo", {}, headers).status == 403
    assert read_decisions(folder, CLASSES) == {}


def test_server_answers_its_own_page(server: Server, folder: Path) -> None:
    address = server.url.removesuffix("/")
    own = {"Origin": address}
    assert server.ask("/decisions", {"image": name_of(0), "kind": "reject"}, own).status == 200
    local = {"Host": address.removeprefix("http://").replace("127.0.0.1", "localhost")}
    assert server.ask("/", headers=local).status == 200
    assert read_decisions(folder, CLASSES) == {name_of(0): REJECT}


def test_server_loses_no_decision_of_many_clients(server: Server, folder: Path) -> None:
    with ThreadPoolExecutor(8) as clients:
        answers = list(
            clients.map(lambda i: server.decide(name_of(i), ("accept", "reject")[i % 2]), range(COUNT))
        )
    assert [answer.status for answer in answers] == [200] * COUNT
    assert read_decisions(folder, CLASSES) == {name_of(i): (ACCEPT, REJECT)[i % 2] for i in range(COUNT)}


def test_server_waits_for_other_process(server: Server, folder: Path) -> None:
    with ThreadPoolExecutor(1) as client:
        with locked(folder):
            answer = client.submit(server.decide, name_of(1), "reject")
            time.sleep(0.3)
            assert not answer.done()
            write_decisions(folder, {name_of(0): REJECT})
        assert answer.result().status == 200
    assert read_decisions(folder, CLASSES) == {name_of(0): REJECT, name_of(1): REJECT}


def test_killed_server_loses_no_acknowledged_decision(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    acknowledged: dict[str, str] = {}
    left = [name_of(number) for number in range(COUNT)]

    def decide_until_refused(server: Server) -> None:
        while left:
            kind = ("accept", "reject")[len(left) % 2]
            try:
                answer = server.decide(left[-1], kind)
            except OSError:
                return
            assert answer.status == 200
            acknowledged[left.pop()] = kind

    for delay in (0.0, 0.02, random.uniform(0, 0.1)):
        with reviewing(results, tmp_path) as server:
            before = len(acknowledged)
            client = threading.Thread(target=decide_until_refused, args=[server])
            client.start()
            while len(acknowledged) == before and client.is_alive():
                time.sleep(0.001)
            time.sleep(delay)
            server.process.kill()
            client.join()
        assert len(acknowledged) > before
        decided = read_decisions(tmp_path, CLASSES)  # a half table could not be read
        assert {image: kind for image, (kind, _) in decided.items() if image in acknowledged} == acknowledged
        masks = [mask_path(tmp_path, n) for n in range(COUNT) if decided.get(name_of(n)) == ACCEPT]
        assert all(path.exists() for path in masks)


# ---- decisions


def accept(session: Session, number: int) -> None:
    entry = session.run.entries[name_of(number)]
    session.decide(entry, ACCEPT, version_of(session.mask(entry)))


def test_undo_goes_back_several_decisions(session: Session) -> None:
    images = [session.run.entries[name_of(number)] for number in range(3)]
    for image in images:
        session.decide(image, REJECT)
    session.decide(images[0], Decision("tags", ("dog",)))
    session.decide(images[1], None)
    seen = []
    for _ in range(4):
        undone = session.undo()
        seen.append((images.index(undone), session.decisions().get(undone.image.removeprefix("images/"))))
    assert seen == [(1, REJECT), (0, REJECT), (2, None), (1, None)]
    assert session.decisions() == {name_of(0): REJECT}


def test_undo_removes_mask_that_was_not_there(session: Session, tmp_path: Path) -> None:
    accept(session, 4)
    assert mask_path(tmp_path / "review", 4).read_bytes() == mask_file(4)
    session.undo()
    assert not mask_path(tmp_path / "review", 4).exists()


def test_reject_keeps_accepted_mask_for_undo(session: Session, tmp_path: Path) -> None:
    entry = session.run.entries[name_of(4)]
    session.accept_all([(entry, mask_file(5))])
    assert session.mask(entry) == mask_file(5)
    session.decide(entry, REJECT)
    assert session.mask(entry) == mask_file(4)
    accept(session, 4)  # replaces the corrected mask
    assert mask_path(tmp_path / "review", 4).read_bytes() == mask_file(4)
    for _ in range(2):
        session.undo()
    assert session.decisions() == {name_of(4): ACCEPT}
    assert session.mask(entry) == mask_file(5)


def test_undo_leaves_decision_of_other_program(session: Session, tmp_path: Path) -> None:
    entry = session.run.entries[name_of(4)]
    accept(session, 4)
    Session(session.run, tmp_path / "review").accept_all([(entry, mask_file(5))])
    with pytest.raises(InputError, match="another program has changed"):
        session.undo()
    assert session.mask(entry) == mask_file(5)
    with pytest.raises(InputError, match="no decision is left to undo"):
        session.undo()


def test_accept_of_same_mask_keeps_time_of_file(session: Session, tmp_path: Path) -> None:
    accept(session, 4)
    path = mask_path(tmp_path / "review", 4)
    before = path.stat().st_mtime_ns
    time.sleep(0.02)
    accept(session, 4)
    assert path.stat().st_mtime_ns == before  # a new time would rerun make_masks


def test_accepted_mask_of_other_size_is_refused(session: Session, tmp_path: Path) -> None:
    accept(session, 4)
    mask_path(tmp_path / "review", 4).write_bytes(encode_mask(np.zeros((3, 4), np.uint8)))
    with pytest.raises(InputError, match="size must be that of the image, 64 x 48, got 4 x 3"):
        session.mask(session.run.entries[name_of(4)])


# ---- masks of other programs


def test_masks_of_folder_are_accepted(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, review = tmp_path / "given", tmp_path / "review"
    write_decisions(review, {name_of(0): REJECT, "elsewhere.jpg": REJECT})
    for number in (0, 1):
        path = given / Path(name_of(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(ids_of(number + 10)), "PNG"))  # grey, without a palette
    assert main(["review", str(results), "--review", str(review), "--masks", str(given)]) == 0
    assert capsys.readouterr().out == f"2 masks copied to {review / 'masks'} and accepted\n"
    assert read_decisions(review, CLASSES) == {
        name_of(0): ACCEPT,
        "elsewhere.jpg": REJECT,
        name_of(1): ACCEPT,
    }
    for number in (0, 1):
        assert (read_mask(mask_path(review, number).read_bytes()) == ids_of(number + 10)).all()


BOX = [8, 4, 24, 4, 24, 20, 8, 20]
COCO: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": name_of(0), "width": WIDTH, "height": HEIGHT},
        {"id": 8, "file_name": name_of(1), "width": WIDTH, "height": HEIGHT},
        {"id": 9, "file_name": name_of(3), "width": WIDTH, "height": HEIGHT},
    ],
    "categories": [{"id": 30, "name": "dog"}, {"id": 20, "name": "cat"}, {"id": 10, "name": "bird"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 30, "segmentation": [BOX]},
        {"id": 2, "image_id": 8, "category_id": 20, "segmentation": [BOX]},
        {
            "id": 3,
            "image_id": 8,
            "category_id": 20,
            "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT, HEIGHT * (WIDTH - 1)]},
        },
    ],
}


def test_masks_of_coco_are_drawn_by_class_name(results: Path, tmp_path: Path) -> None:
    given, review = tmp_path / "given.json", tmp_path / "review"
    given.write_text(json.dumps(COCO), encoding="utf-8")
    assert main(["review", str(results), "--review", str(review), "--masks", str(given)]) == 0
    # the image without annotations stays undecided
    assert read_decisions(review, CLASSES) == {name_of(0): ACCEPT, name_of(1): ACCEPT}
    for number, class_id, void in ((0, 2, False), (1, 1, True)):
        ids = read_mask(mask_path(review, number).read_bytes())
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        expected[4:20, 8:24] = class_id
        expected[:, 0] = VOID if void else 0
        assert (ids == expected).all()


def coco(change: Callable[[Any], None]) -> Callable[[Path], Path]:
    """Return what writes a changed COCO file into a folder."""

    def write(folder: Path) -> Path:
        content = json.loads(json.dumps(COCO))
        change(content)
        (folder / "given.json").write_text(json.dumps(content), encoding="utf-8")
        return folder / "given.json"

    return write


def png(name: str, content: bytes) -> Callable[[Path], Path]:
    """Return what writes a folder with a correct mask and another file."""

    def write(folder: Path) -> Path:
        (folder / "given").mkdir()
        (folder / "given" / name_of(0)).write_bytes(mask_file(0))
        (folder / "given" / name).write_bytes(content)
        return folder / "given"

    return write


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (png("other.png", mask_file(1)), "other.png: name must be that of a training image"),
        (png("val.png", mask_file(1)), "val.png: name must be that of a training image"),
        (png(name_of(4), encode_mask(np.zeros((HEIGHT, 9), np.uint8))), "got 9 x 48"),
        (
            png(name_of(4), encode_mask(ids_of(4) + 2)),
            "photo 4.png: id must be 0 to 2 (classes) or 255 (undecided)",
        ),
        (png(name_of(4), encoded(Image.new("RGB", (WIDTH, HEIGHT)), "PNG")), "one 8-bit class id per pixel"),
        (png(name_of(4), b"text"), "photo 4.png: cannot be decoded"),
        (lambda folder: folder, "--masks: must hold masks, got none"),
        (lambda folder: folder / "none", "--masks: must be a folder of PNG files or a COCO JSON file"),
        (lambda folder: folder / "none.json", "none.json: no such file"),
        (coco(lambda it: it.pop("images")), "must be a folder of PNG files or a COCO JSON file"),
        (coco(lambda it: it["annotations"].clear()), "--masks: must hold masks, got none"),
        (coco(lambda it: it["images"][0].update(file_name="x.png")), "got 'x.png': no such file"),
        (coco(lambda it: it["images"][0].update(width=9)), "must be 9x48 as in the labels, got 64x48"),
        (
            coco(lambda it: it["annotations"][0].update(category_id=10)),
            "photo 0.png: category: must be a class (background, cat, dog), got 'bird'",
        ),
        (coco(lambda it: it["annotations"][0].update(category_id=99)), "a class without a name"),
        (
            coco(lambda it: it["annotations"][0].pop("segmentation")),
            "photo 0.png: segmentation: every object must have an outline",
        ),
    ],
)
def test_masks_are_refused_before_anything_is_written(
    results: Path, tmp_path: Path, refused: Refusal, given: Callable[[Path], Path], message: str
) -> None:
    review = tmp_path / "review"
    source = given(tmp_path)
    said = refused(main, ["review", str(results), "--review", str(review), "--masks", str(source)])
    assert message in said
    assert not review.exists()
