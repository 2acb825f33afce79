import gzip

import numpy as np
import pandas as pd
import pytest

from medbolt.core.data.manifest import read_manifest
from medbolt.core.errors import UserError


@pytest.fixture
def written(tmp_path):
    def write(content: str | bytes, name: str = "a.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


def test_cells_stay_as_they_are_written(written):
    table = read_manifest(written('image,label,note\na.png,007,"one, two"\nb.png,None,NA\nc.png,1.0,"two\nlines"\n'))
    assert table.columns == ["image", "label", "note"]
    assert table.cells("label") == ["007", "None", "1.0"]
    assert table.cells("note") == ["one, two", "NA", "two\nlines"]


def test_blanks_around_cells_do_not_count(written, tmp_path):
    table = read_manifest(written("patient , label\np1, mel\n p1 ,mel \np2,  \n"))
    assert table.cells("patient") == ["p1", "p1", "p2"]
    assert table.cells("label") == ["mel", "mel", None]
    pd.DataFrame({"label": [" mel", "mel "]}).to_parquet(tmp_path / "a.parquet")
    assert read_manifest(tmp_path / "a.parquet").cells("label") == ["mel", "mel"]


@pytest.mark.parametrize(
    ("cells", "read"),
    [
        (["0", "1.0", "12.00", "nan"], ["0", "1", "12", None]),
        (["0.0", "0.5"], ["0.0", "0.5"]),
        (["1.0", "b"], ["1.0", "b"]),
        (["007", "7"], ["007", "7"]),
    ],
)
def test_whole_numbers_are_the_same_however_written(written, cells, read):
    assert read_manifest(written("\n".join(["grade,x", *(f"{cell},x" for cell in cells)]))).cells("grade") == read


def test_another_separator_is_told(written):
    with pytest.raises(UserError, match="line 2 of .* has 2 cells and the header 1; separate the columns by commas"):
        read_manifest(written("image;label;note\na;1;one, two\n"))


def test_rows_are_numbered_as_in_a_spreadsheet(written):
    table = read_manifest(written('image,note\na,"two\nlines"\n\nb,x\n'))
    assert table.places() == ["row 2 of a.csv", "row 4 of a.csv"]


@pytest.mark.parametrize("missing", ["", "nan", "NaN"])
def test_missing_cells_are_none_and_named(written, missing):
    table = read_manifest(written(f"image,label\na,1\nb,{missing}\n"))
    assert table.cells("label") == ["1", None]
    with pytest.raises(
        UserError, match=r"^row 3 of a.csv has no value in column 'label'; fill it in or remove the row.$"
    ):
        table.texts("label")


def test_a_byte_order_mark_is_no_part_of_the_header(written):
    assert read_manifest(written("\ufeffimage,label\na,1\n")).columns == ["image", "label"]


def test_tab_separated_and_packed_files(written):
    assert read_manifest(written("image\tlabel\na,b\t1\n", "a.tsv")).cells("image") == ["a,b"]
    assert read_manifest(written(gzip.compress(b"image,label\na,1\n"), "a.csv.gz")).cells("label") == ["1"]
    assert read_manifest(written(gzip.compress(b"image\tlabel\na\t1\n"), "a.tsv.gz")).cells("label") == ["1"]


def test_another_encoding_is_told(written):
    message = r"a.csv is not UTF-8 \(byte 0xe9\); save it anew with UTF-8 encoding.$"
    with pytest.raises(UserError, match=message):
        read_manifest(written("image,label\ncafé.png,1\n".encode("latin-1")))


@pytest.mark.parametrize(("row", "cells"), [("b", 1), ("b,1,2", 3)])
def test_ragged_rows_are_told_with_their_line(written, row, cells):
    with pytest.raises(UserError, match=rf"line 3 of .*a.csv has {cells} cells and the header 2; quote cells"):
        read_manifest(written(f"image,label\na,1\n{row}\nc,1\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows; add one an image"),
        ("image,label\n", "has no rows"),
        ("image,image\na,b\n", "has two columns named 'image'; rename one"),
        ('image,label\n"a"b,1\n', "is no valid CSV file .*; export it anew"),
        ('image,label\n"a,1\n', "is no valid CSV file"),
    ],
)
def test_files_that_are_no_tables(written, content, message):
    with pytest.raises(UserError, match=rf"a.csv {message}"):
        read_manifest(written(content))


def test_damaged_packed_files(written):
    with pytest.raises(UserError, match="a.csv.gz cannot be read"):
        read_manifest(written(b"image,label\n", "a.csv.gz"))


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UserError, match="is a folder; name the CSV or Parquet file in it"):
        read_manifest(tmp_path)


def test_parquet_cells_become_texts(tmp_path):
    frame = pd.DataFrame(
        {
            "label": [3, 1],
            "maybe": [2.0, np.nan],
            "share": [0.25, 1.5],
            "flag": [True, False],
            "name": pd.Categorical(["a", None]),
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    table = read_manifest(tmp_path / "a.parquet")
    assert table.cells("label") == ["3", "1"]
    assert table.cells("maybe") == ["2", None]
    assert table.cells("share") == ["0.25", "1.5"]
    assert table.cells("flag") == ["1", "0"]
    assert table.cells("name") == ["a", None]
    assert table.place(1) == "row 2 of a.parquet"


def test_damaged_parquet(written):
    with pytest.raises(UserError, match="is no readable Parquet file; write it anew"):
        read_manifest(written("no parquet", "a.parquet"))


def test_the_nearest_column_is_suggested(written):
    table = read_manifest(written("image,label\na,1\n"))
    with pytest.raises(
        UserError, match=r"^a.csv has no column 'lable' \(did you mean 'label'\?\); it has 'image', 'label'.$"
    ):
        table.cells("lable")


def test_patterns_over_columns(written):
    table = read_manifest(written("id,n\nx,1\ny,12\n"))
    assert table.references("id") == ["x", "y"]
    assert table.references("all.zip/{id}_{n:0>3}.png") == ["all.zip/x_001.png", "all.zip/y_012.png"]
    assert table.references("{{x}}.png") == ["{x}.png", "{x}.png"]
    with pytest.raises(UserError, match="has no column 'idd'"):
        table.references("{idd}.png")


@pytest.mark.parametrize("pattern", ["{}.png", "{id.png", "{id!z}.png", "{n:d}"])
def test_malformed_patterns(written, pattern):
    table = read_manifest(written("id,n\nx,1\n"))
    with pytest.raises(UserError, match="is no pattern of column names|has no column ''"):
        table.references(pattern)


def test_rows_are_kept_by_value(written):
    table = read_manifest(written("id,dx,site\nx,mel,a\ny,nv,b\nz,mel,b\n"))
    kept = table.where({"dx": ["mel"], "site": ["b", "a"]})
    assert kept.cells("id") == ["x", "z"]
    assert kept.place(1) == "row 4 of a.csv"
    assert table.where({"site": "a"}).cells("id") == ["x"]
    assert read_manifest(written("id,grade\nx,0\ny,1\n")).where({"grade": [1]}).cells("id") == ["y"]
    with pytest.raises(UserError, match=r"column 'dx' of a.csv has no value 'mell' to keep \(did you mean 'mel'\?\)"):
        table.where({"dx": ["mell"]})
