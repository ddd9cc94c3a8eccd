import csv
import gzip
import json
import random
import sys
import tracemalloc
from pathlib import Path

import pytest

from app.intake import lines, parquet
from app.intake.containers import START, Container, Position, RawRow, open_rows, size

pa = pytest.importorskip("pyarrow", reason="pyarrow comes with the worker extra")
import pyarrow.parquet as pq  # noqa: E402

JSONL_BYTES = b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n"b"\n   \n{oops\n{"c": "\xff"}\n[1]\n{"n": "x\x00"}\n{"last": 1}'
CSV_BYTES = (
    b'\xef\xbb\xbfprompt,response\r\n\r\n"two\r\nlines, quoted",x\r\nshort\r\na,b,c\r\n'
    b'"he said ""hi""",y\r\nbad \xff,z\r\nn\x00ul,q\r\n"broken" end,r\r\n\r\nlast,"a\n\n\nb"'
)
PLAIN_BYTES = (
    b"\xef\xbb\xbfFirst\r\nline\r\n\r\n\r\nSecond\n"
    + b"\n".join(b"word " * 300 + b"%d\n" % n for n in range(20))
    + b"bad \xff\nend"
)


def read(path: Path, container: Container, start: Position = START, *, rows: int = 1000, size_bytes: int = 1 << 30):
    return list(open_rows(path, container, start, batch_rows=rows, batch_bytes=size_bytes))


def flat(batches) -> list[RawRow]:
    return [row for batch in batches for row in batch.rows]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def write_parquet(path: Path, rows: list[dict], **options) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def sample(tmp_path: Path, container: Container, suffix: str = "") -> Path:
    path = tmp_path / f"file{suffix}"
    if container is Container.PARQUET:
        return write_parquet(
            path, [{"n": n, "m": [{"role": "user", "content": str(n)}]} for n in range(11)], row_group_size=4
        )
    data = {
        Container.JSONL: JSONL_BYTES,
        Container.JSON: json.dumps([{"a": 1}, "b", 3, None, {"é": [1, {"x": 2}]}]).encode(),
        Container.CSV: CSV_BYTES,
        Container.TSV: CSV_BYTES.replace(b",", b"\t"),
        Container.PLAIN: PLAIN_BYTES,
    }
    return write(path, data[container])


class TestResume:
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    @pytest.mark.parametrize("container", list(Container))
    def test_from_any_end_gives_the_rows_of_an_unbroken_reading(self, tmp_path, container, suffix):
        if container is Container.PARQUET and suffix:
            pytest.skip("Parquet is never read through gzip: sniff refuses it")
        path = sample(tmp_path, container, suffix)
        whole = flat(read(path, container))
        assert len(whole) >= 5
        for rows in (1, 2, 3):
            batches = read(path, container, rows=rows)
            assert flat(batches) == whole
            for batch in batches:
                end = Position.from_json(json.loads(json.dumps(batch.end.to_json())))
                assert flat(read(path, container, end, rows=rows)) == whole[end.row :]

    @pytest.mark.parametrize("container", [Container.JSONL, Container.CSV, Container.PLAIN])
    def test_holds_for_files_of_chance(self, tmp_path, container):
        chance = random.Random(7)
        parts = [
            b'"',
            b"\n",
            b"\r\n",
            b",",
            b"a",
            b'{"a": 1}',
            b"\xff",
            b"\x00",
            b"\n\n",
            b'"x\ny"',
            b"word " * 200,
            b"\xef\xbb\xbf",
        ]
        for number in range(60):
            data = b"h,i\n" + b"".join(chance.choice(parts) for _ in range(chance.randrange(60)))
            path = write(tmp_path / f"{number}", data)
            whole = flat(read(path, container))
            for batch in read(path, container, rows=1):
                assert flat(read(path, container, batch.end)) == whole[batch.end.row :]

    def test_lines_are_those_of_the_file(self, tmp_path):
        assert [row.line for row in flat(read(sample(tmp_path, Container.JSONL), Container.JSONL))] == [
            1,
            3,
            5,
            6,
            7,
            8,
            9,
        ]
        assert [row.line for row in flat(read(sample(tmp_path, Container.CSV), Container.CSV))] == [
            3,
            5,
            6,
            7,
            8,
            9,
            10,
            12,
        ]


class TestOpenRows:
    def test_bad_lines_are_told_and_passed(self, tmp_path):
        rows = flat(read(sample(tmp_path, Container.JSONL), Container.JSONL))
        assert [row.value for row in rows] == [{"prompt": "a"}, "b", None, None, None, None, {"last": 1}]
        assert [row.error for row in rows if row.error] == [
            "not JSON at character 2: Expecting property name enclosed in double quotes; expected one object a line",
            "byte 8 (0xff) is not UTF-8; save the file as UTF-8",
            'a list; expected an object such as {"prompt": "…"}',
            "holds a NUL character, which cannot be stored; remove it",
        ]

    def test_bad_cells_are_told_and_passed(self, tmp_path):
        rows = flat(read(sample(tmp_path, Container.CSV), Container.CSV))
        assert [row.value for row in rows if not row.error] == [
            {"prompt": "two\r\nlines, quoted", "response": "x"},
            {"prompt": "short"},
            {"prompt": 'he said "hi"', "response": "y"},
            {"prompt": "last", "response": "a\n\n\nb"},
        ]
        errors = [row.error for row in rows if row.error]
        assert errors[0].startswith("3 cells, but the header has 2")
        assert "(0xff) of line 8 is not UTF-8" in errors[1]
        assert "NUL" in errors[2]
        assert "marks inside it are doubled" in errors[3]

    @pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000, "null", "true", "1.5", '{"a": 1} x', '{"a"'])
    def test_hostile_values_are_errors_of_their_line(self, tmp_path, value):
        path = write(tmp_path / "x", f'{value}\n{{"a": 1}}\n'.encode())
        first, second = flat(read(path, Container.JSONL))
        assert first.error and first.value is None
        assert second == RawRow(2, {"a": 1})

    @pytest.mark.parametrize("suffix", ["", ".gz"])
    @pytest.mark.parametrize("container", [Container.JSONL, Container.CSV, Container.PLAIN])
    def test_a_line_of_any_length_is_passed_in_flat_memory(self, tmp_path, container, suffix):
        path = write(tmp_path / f"x{suffix}", b'a,b\n"s"\n\n' + b"x" * (20 << 20) + b'\n\n"t"\n')
        tracemalloc.start()
        rows = flat(read(path, container))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        bad = [row for row in rows if row.error and "longer than 4 MB" in row.error]
        assert [row.line for row in bad] == [4]
        assert not rows[-1].error and rows[-1].line == 6
        assert peak < 16 << 20

    def test_a_quotation_mark_never_closed_is_one_error(self, tmp_path):
        path = write(tmp_path / "x", b'a,b\n1,2\n"open,2\n' + b"3,4\n" * 10)
        good, bad = flat(read(path, Container.CSV))
        assert good.line == 2 and bad.line == 3
        assert "never closed" in bad.error

    def test_a_row_of_many_lines_may_not_grow_without_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lines, "LONGEST_ROW_BYTES", 1000)
        path = write(tmp_path / "x", b'a,b\n"open\n' + b"3,4\n" * 300)
        rows = flat(read(path, Container.CSV))
        assert "longer than" in rows[0].error and rows[0].line == 2
        assert rows[1].value == {"a": "3", "b": "4"}

    def test_long_cells_pass(self, tmp_path):
        csv.field_size_limit(131072)
        path = write(tmp_path / "x", b"a,b\n" + b"x" * 300_000 + b",y\n")
        assert len(flat(read(path, Container.CSV))[0].value["a"]) == 300_000

    @pytest.mark.parametrize("data", [b"a;b\n1,5;2\n", b"a\tb\n1,5\t2\n"])
    def test_csv_of_spreadsheets_in_other_countries(self, tmp_path, data):
        assert flat(read(write(tmp_path / "x", data), Container.CSV))[0].value == {"a": "1,5", "b": "2"}

    def test_empty_cells_beyond_the_header_and_columns_without_a_name(self, tmp_path):
        path = write(tmp_path / "x", b",a\n0,x,,\n")
        assert flat(read(path, Container.CSV)) == [RawRow(2, {"column 1": "0", "a": "x"})]

    @pytest.mark.parametrize(
        ("data", "part"), [(b"a,b,a\n1,2,3", "'a' twice"), (b'"a\n', "header"), (b"\n\n", "no header")]
    )
    def test_bad_header(self, tmp_path, data, part):
        with pytest.raises(ValueError, match=part):
            read(write(tmp_path / "x", data), Container.CSV)

    def test_batches_close_by_rows_and_by_bytes(self, tmp_path):
        path = write(tmp_path / "x", b'{"a": 1}\n' * 10)
        assert [len(batch.rows) for batch in read(path, Container.JSONL, rows=4)] == [4, 4, 2]
        assert [len(batch.rows) for batch in read(path, Container.JSONL, size_bytes=20)] == [3, 3, 3, 1]
        assert read(path, Container.JSONL, rows=4)[0].end == Position(36, 4, 5)

    def test_plain_text_keeps_paragraphs_together(self, tmp_path):
        path = write(tmp_path / "x", b"\n\n".join(b"%04d " % n * 100 for n in range(20)))
        texts = [row.value for row in flat(read(path, Container.PLAIN))]
        assert all(len(text) <= lines.DOCUMENT_LETTERS + 20 for text in texts)
        assert [text.count("\n\n") for text in texts] == [7, 7, 3]

    def test_plain_text_without_blank_lines_is_cut_at_a_line(self, tmp_path):
        path = write(tmp_path / "x", b"one line of text\n" * 10_000)
        texts = [row.value for row in flat(read(path, Container.PLAIN))]
        assert len(texts) == 4
        assert all(len(text) < lines.PARAGRAPH_LETTERS + 3000 for text in texts)
        assert sum(text.count("one line") for text in texts) == 10_000

    @pytest.mark.parametrize(
        ("data", "part"),
        [
            (b'{"a": [1]}', "one JSON value"),
            (b"", "one JSON value"),
        ],
    )
    def test_no_array(self, tmp_path, data, part):
        with pytest.raises(ValueError, match=part):
            read(write(tmp_path / "x", data), Container.JSON)

    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_a_line_without_an_end_ends_the_reading(self, tmp_path, monkeypatch, suffix):
        monkeypatch.setattr(lines, "LONGEST_SKIP_BYTES", 1 << 20)
        path = write(tmp_path / f"x{suffix}", b'a,b\n"c",d\n\n' + b"x" * (6 << 20) + b"\n")
        for container in (Container.JSONL, Container.CSV, Container.PLAIN):
            with pytest.raises(ValueError, match="line 4 is longer than 1 MB; break the file"):
                read(path, container)

    @pytest.mark.parametrize("container", [Container.JSONL, Container.JSON, Container.CSV, Container.PLAIN])
    def test_stops_after_the_most_bytes(self, tmp_path, container):
        start = {
            Container.JSONL: b'"a"\n',
            Container.JSON: b'["a",',
            Container.CSV: b"h\na\n",
            Container.PLAIN: b"a\n\n",
        }
        path = tmp_path / "x.gz"
        path.write_bytes(gzip.compress(start[container] * 3 + b'{"x": "' + b"y" * (40 << 20), 1))
        tracemalloc.start()
        batches = list(open_rows(path, container, batch_rows=1, batch_bytes=1, most_bytes=1 << 20))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert not [row for row in flat(batches) if row.error and row.line > 6]
        assert peak < 8 << 20

    def test_what_lies_before_the_most_bytes_is_given(self, tmp_path):
        path = write(tmp_path / "x", b'{"a": 1}\n' * 130_000)
        rows = flat(open_rows(path, Container.JSONL, batch_rows=7, batch_bytes=1 << 20, most_bytes=1 << 20))
        assert (1 << 20) - (1 << 16) * 2 < len(rows) * 9 <= 1 << 20
        assert not any(row.error for row in rows)

    @pytest.mark.parametrize("spoil", [lambda data: data[:-20], lambda data: data[:50] + b"\0\0\0\0" + data[54:]])
    def test_damaged_gzip(self, tmp_path, spoil):
        data = b"".join(b'{"a": "%d"}\n' % (n * n) for n in range(2000))
        path = tmp_path / "x"
        path.write_bytes(spoil(gzip.compress(data)))
        with pytest.raises(ValueError, match="gzip file is damaged"):
            read(path, Container.JSONL)


class TestParquet:
    def test_large_rows_come_in_small_parts(self, tmp_path):
        path = write_parquet(tmp_path / "x", [{"t": chr(97 + n) * 1_000_000} for n in range(20)])
        assert [row.value["t"][0] for row in flat(read(path, Container.PARQUET))] == list("abcdefghijklmnopqrst")

    def test_a_text_that_is_not_utf8_or_too_long_spoils_no_other_row(self, tmp_path):
        cells = pa.array([b"good", b"\xff", b"x" * (5 << 20), b"fine"]).cast(pa.binary())
        text = pa.StringArray.from_buffers(4, cells.buffers()[1], cells.buffers()[2])
        pq.write_table(pa.table({"t": text}), tmp_path / "x")
        rows = flat(read(tmp_path / "x", Container.PARQUET))
        assert [(row.line, row.value and row.value["t"]) for row in rows] == [
            (1, "good"),
            (2, None),
            (3, None),
            (4, "fine"),
        ]
        assert "UTF-8" in rows[1].error and "longer" in rows[2].error

    @pytest.mark.parametrize("use_dictionary", [True, False])
    def test_cells_of_every_kind_are_measured(self, tmp_path, monkeypatch, use_dictionary):
        monkeypatch.setattr(parquet, "LONGEST_ROW_BYTES", 10_000)
        long = "é" * 5_001
        kinds = [
            pa.string(), pa.large_string(), pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.string(), 1),
            pa.struct([("a", pa.list_(pa.string()))]), pa.list_(pa.struct([("a", pa.string())])),
            pa.map_(pa.string(), pa.string()), pa.dictionary(pa.int8(), pa.string()),
        ]  # fmt: skip
        for number, kind in enumerate(kinds):
            frame = {2: [None], 3: [None], 4: [None], 5: {"a": [None]}, 6: [{"a": None}], 7: [("k", None)]}.get(number)
            fill = json.dumps(frame).replace
            cells = [
                json.loads(fill("null", json.dumps(text))) if frame else text for text in ("a", long, "b", long, "c")
            ]
            if number == 7:
                cells = [[tuple(pair) for pair in cell] for cell in cells]
            path = tmp_path / f"{number}"
            pq.write_table(pa.table({"x": pa.array([*cells, None], kind)}), path, use_dictionary=use_dictionary)
            rows = flat(read(path, Container.PARQUET))
            assert [row.error is None for row in rows] == [True, False, True, False, True, True], kind
            assert flat(read(path, Container.PARQUET, Position(3, 3, 4))) == rows[3:]
            assert rows[5].value == {"x": None}

    @pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.string()), pa.struct([("a", pa.string())])])
    def test_a_text_that_is_in_every_row_is_held_once(self, tmp_path, kind):
        text = "x" * (3 << 20)
        cell = {"string": text, "list": [text, text]}.get(str(kind).partition("<")[0], {"a": text})
        table = pa.table({"t": pa.array([cell], kind).take([0] * 60)})
        pq.write_table(table, tmp_path / "x", compression="zstd", dictionary_pagesize_limit=1 << 28)
        del table
        assert (tmp_path / "x").stat().st_size < 4000
        tracemalloc.start()
        before = pa.default_memory_pool().bytes_allocated()
        count = most = 0
        for batch in open_rows(tmp_path / "x", Container.PARQUET, batch_rows=1, batch_bytes=1):
            most = max(most, pa.default_memory_pool().bytes_allocated() - before)
            count += len(batch.rows)
            assert isinstance(cell, list) == (batch.rows[0].error is not None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 60
        assert peak < 64 << 20 and most < 64 << 20

    @pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
    def test_texts_that_share_their_beginnings_are_read_few_at_a_time(self, tmp_path, encoding):
        texts = ["x" * (1 << 20) + str(number) for number in range(40)]
        path = tmp_path / "x"
        pq.write_table(pa.table({"t": texts}), path, use_dictionary=False, column_encoding={"t": encoding})
        before, most, found = pa.default_memory_pool().bytes_allocated(), 0, []
        for batch in open_rows(path, Container.PARQUET, batch_rows=1, batch_bytes=1):
            most = max(most, pa.default_memory_pool().bytes_allocated() - before)
            found += [row.value["t"] for row in batch.rows]
        assert found == texts
        assert most < (64 << 20 if encoding == "DELTA_LENGTH_BYTE_ARRAY" else 24 << 20)

    def test_a_group_of_rows_that_is_too_large(self, tmp_path, monkeypatch):
        path = write_parquet(tmp_path / "x", [{"t": str(n)} for n in range(3)] + [{"t": "x" * 3000}], row_group_size=3)
        monkeypatch.setattr(parquet, "LARGEST_GROUP_BYTES", 2000)
        with pytest.raises(ValueError, match=r"row group 2 of .* smaller row groups"):
            read(path, Container.PARQUET)

    def test_damaged(self, tmp_path):
        path = write(tmp_path / "x", b"PAR1" + b"junk" * 100)
        with pytest.raises(ValueError, match="Parquet file is damaged"):
            read(path, Container.PARQUET)

    def test_without_pyarrow(self, tmp_path, monkeypatch):
        path = sample(tmp_path, Container.PARQUET)
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(ValueError, match="needs the worker half"):
            read(path, Container.PARQUET)
        with pytest.raises(ValueError, match="needs the worker half"):
            size(path, Container.PARQUET)


class TestSize:
    @pytest.mark.parametrize("container", list(Container))
    def test_the_last_end_has_read_it_all(self, tmp_path, container):
        path = sample(tmp_path, container)
        assert read(path, container, rows=2)[-1].end.read == size(path, container)

    def test_compressed_files_count_compressed_bytes(self, tmp_path):
        path = sample(tmp_path, Container.JSONL, ".gz")
        assert read(path, Container.JSONL)[-1].end.read == path.stat().st_size
