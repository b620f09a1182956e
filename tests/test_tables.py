"""tags.csv and classes.txt as written by spreadsheets and other systems."""

import unicodedata
from pathlib import Path

import pytest
from conftest import Photos, Refusal, encoded, photo

from plda.data.classes import read_class_list, read_classes
from plda.data.data_set import DataSet
from plda.data.table import read_table
from plda.errors import InputError
from plda.sources.folder import read_tags

HEADER = "image,split,tags,mask\n"
ROWS = "a.jpg,train,cat,a.png\nb.jpg,train,dog;cat,\nc.jpg,val,dog,\n"
SEMICOLONS = 'image;split;tags;mask\na.jpg;train;cat;a.png\nb.jpg;train;"dog;cat";\nc.jpg;val;dog;\n'


def rows_of(photos: Photos, table: str | bytes) -> list[tuple[str, ...]]:
    """Run index_data with a tags.csv; return the rows of its index."""
    content = table if isinstance(table, bytes) else table.encode()
    (photos.folder / "tags.csv").write_bytes(content)
    out = photos.folder.parent / "out"
    assert photos.index(out) == 0
    return [(e.image, e.split, e.tags, e.mask) for e in DataSet(out / "data_set").entries]


@pytest.fixture
def plain_rows(photos: Photos) -> list[tuple[str, ...]]:
    return rows_of(photos, HEADER + ROWS)


@pytest.mark.parametrize(
    "table",
    [
        HEADER + ROWS.replace("\n", ",\n"),
        HEADER + "\n" + ROWS.replace("\n", "\n\n"),
        HEADER + ROWS + ",,,\n , ,,\n",
        HEADER.replace("\n", ",,\n") + ROWS.replace("\n", ",,\n"),
        SEMICOLONS,
        SEMICOLONS.replace("\n", "\r\n"),
        "sep=;\r\n" + SEMICOLONS,
        SEMICOLONS.replace('"dog;cat"', "dog,cat"),
        (HEADER + ROWS).replace(",", "\t"),
        (HEADER + ROWS).replace(",", ", "),
        (HEADER + ROWS).replace(",", " , "),
        HEADER.replace("tags", "\ufeff Tags\u00a0").replace("image", "IMAGE") + ROWS,
        HEADER + ROWS.replace("train", "Train").replace("val", "VAL "),
        HEADER + ROWS.replace("dog;cat", " dog ; cat ;"),
        HEADER + ROWS.replace("dog;cat", '"dog,cat"'),
        HEADER + ROWS.replace("a.jpg", "./a.jpg"),
        HEADER + ROWS.replace("a.jpg", '"a.jpg"').replace("a.png", ".\\a.png"),
        (HEADER + ROWS).replace("\n", "\r"),
        "\ufeff" + HEADER + ROWS,
        "tags,mask,photographer,image,split\n"
        "cat,a.png,me,a.jpg,train\ndog;cat,,you,b.jpg,train\ndog,,,c.jpg,val\n",
    ],
    ids=[
        "field_too_many", "blank_lines", "empty_rows", "empty_columns", "semicolons", "windows_line_ends",
        "sep_line", "commas_between_tags", "tabs", "space_after_comma", "space_around_comma",
        "capitals_in_header", "capitals_in_split", "spaces_in_tags", "quoted_tags", "dot_slash",
        "quotes_and_backslash", "old_mac_line_ends", "byte_order_mark", "other_columns",
    ],
)  # fmt: skip
def test_tags_csv_accepts_spreadsheet_dialects(photos: Photos, plain_rows, table: str) -> None:
    assert rows_of(photos, table) == plain_rows


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (HEADER + "\n\na.jpg,train,horse,\n", ["line 4", "'horse'"]),
        (HEADER + 'a.jpg,train,"cat\n",\n\nc.jpg,val,horse,\n', ["line 5", "'horse'"]),
        (
            HEADER + "a.jpg,train,cat,a.png,dog\n",
            ["line 2", "5 fields", "4", "'a.jpg, train, cat, a.png, dog'"],
        ),
        ("sep=;\n" + SEMICOLONS.replace("val", "dev"), ["line 5", "'dev'"]),
        (SEMICOLONS.replace('"dog;cat"', "dog;cat"), ["line 3", "field mask", "cat"]),
        (HEADER + 'a.jpg,train,"cat,\nb.jpg,train,dog,\n', ["line 2", "quotation mark"]),
        ("image|split|tags\na.jpg|train|cat\n", ["header", "image, split, tags", "'image|split|tags'"]),
        ("image,split,tags,Tags\na.jpg,train,cat,dog\n", ["header", "'tags' occurs 2 times"]),
        (HEADER + ROWS.replace("dog;cat", "Dog"), ["line 3", "'Dog'", "did you mean 'dog'?"]),
        (HEADER + "a.jpg\n", ["line 2", "field split", "got ''"]),
        (HEADER + '"a\nb.jpg",train,cat,\n', ["line 2", "field image", "control characters"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else None,
)
def test_tags_csv_error_names_the_line(
    photos: Photos, tmp_path: Path, refused: Refusal, table: str, words: list[str]
) -> None:
    (photos.folder / "tags.csv").write_bytes(table.encode())
    message = refused(photos.index, tmp_path / "out")
    assert all(word in message for word in ["tags.csv", *words])


@pytest.mark.parametrize("name", ["tags.csv", "classes.txt"])
@pytest.mark.parametrize(
    ("encoding", "word"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("utf-32", "UTF-32"),
        ("cp1252", "Windows-1252"),
    ],
)
def test_table_error_names_the_encoding(
    photos: Photos, tmp_path: Path, refused: Refusal, name: str, encoding: str, word: str
) -> None:
    path = photos.folder / name
    path.write_bytes((path.read_text() + "Käfer\n").encode(encoding))
    message = refused(photos.index, tmp_path / "out")
    assert all(part in message for part in (name, "UTF-8", word))


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_index_data_finds_decomposed_unicode_names(photos: Photos, on_disk, in_table) -> None:
    folder, name, cat = photos.folder / unicodedata.normalize(on_disk, "grün"), "Käfer.jpg", "Kätzchen"
    folder.mkdir()
    (photos.folder / "a.jpg").rename(folder / unicodedata.normalize(on_disk, name))
    classes = unicodedata.normalize(on_disk, f"background\n{cat}\ndog\n")
    (photos.folder / "classes.txt").write_text(classes, encoding="utf-8")
    table = HEADER + ROWS.replace("a.jpg", f"grün/{name}").replace("cat", cat)
    rows = rows_of(photos, unicodedata.normalize(in_table, table))
    assert rows[0] == (f"images/grün/{name}", "train", (cat,), "masks/grün/Käfer.png")


def test_tags_csv_accepts_backslashes_in_paths(photos: Photos) -> None:
    (photos.folder / "garden").mkdir()
    (photos.folder / "a.jpg").rename(photos.folder / "garden" / "a.jpg")
    assert rows_of(photos, HEADER + ROWS.replace("a.jpg", "garden\\a.jpg"))[0][0] == "images/garden/a.jpg"


def test_read_table_counts_lines_in_quoted_fields(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text('a,b\n\n"x\ny",1\n\n z , "2, 3"\n')
    assert read_table(table, ["a"]) == [(3, {"a": "x\ny", "b": "1"}), (6, {"a": "z", "b": "2, 3"})]


def test_read_tags_keeps_classes_with_commas() -> None:
    classes = ("background", "dog, hot", "cat", "dog")
    assert read_tags("dog, hot;cat", classes) == ("dog, hot", "cat")
    assert read_tags("cat, dog", classes) == ("cat", "dog")
    assert read_tags("cat|dog", classes) == ("cat", "dog")
    assert read_tags("cat,bird", classes) == ("cat,bird",)


def test_classes_txt_accepts_output_of_other_editors(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffBackground \r\n\r\nhot\u00a0 dog\r\ncat\u200b\r\n".encode())
    assert read_classes(path) == ("background", "hot dog", "cat")


def test_classes_txt_accepts_colours(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("background #000000\nhot dog, #FF8000\ncat: 1, 2,3\n")
    assert read_class_list(path) == (("background", "hot dog", "cat"), ((0, 0, 0), (255, 128, 0), (1, 2, 3)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("background #000000\ncat\n", ["line 2", "'cat'", "no colour"]),
        ("background #000000\ncat #000000\n", ["line 2", "colour", "line 1"]),
        ("background 0,0,0\ncat 1,2,256\n", ["line 2", "0 to 255"]),
        ("background\n\ncat\ncat \n", ["line 4", "'cat'", "line 3"]),
        ("background\na;b\n", ["line 2", "'a;b'"]),
        ("background\n?\n", ["line 2", "'?'"]),
        ("\n\n", ["is empty"]),
    ],
)
def test_classes_txt_error_names_the_fault(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_classes(path)
    assert all(word in str(error.value) for word in ["classes.txt", *words])


def test_index_data_rejects_file_names_that_are_too_long(
    photos: Photos, tmp_path: Path, refused: Refusal
) -> None:
    photos.rows[0] = f"{'x' * 300}.jpg,train,cat,"
    photos.write()
    assert "line 2: field image" in refused(photos.index, tmp_path / "out")


def test_index_data_accepts_longest_file_names(photos: Photos) -> None:
    name = "x" * 251 + ".jpg"
    (photos.folder / name).write_bytes(encoded(photo(40, 30)))
    assert rows_of(photos, HEADER + ROWS + f"{name},train,cat,\n")[-1][0] == f"images/{name}"


def test_index_data_matches_similar_spaces(photos: Photos) -> None:
    (photos.folder / "a.jpg").rename(photos.folder / "Screenshot at 1.00\u202fPM.jpg")
    assert rows_of(photos, HEADER + ROWS.replace("a.jpg", "Screenshot at 1.00 PM.jpg"))[0][1] == "train"
