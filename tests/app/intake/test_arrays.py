import gzip
import json
import random
import tracemalloc
from pathlib import Path

import pytest

from app.intake import arrays
from app.intake.containers import START, Container, Position, RawRow, open_rows, size
from app.intake.rows import END, LONGEST_ROW_BYTES


def read(path: Path, start: Position = START, *, rows: int = 1000) -> list[RawRow]:
    return [row for batch in read_batches(path, start, rows=rows) for row in batch.rows]


def read_batches(path: Path, start: Position = START, *, rows: int = 1000):
    return list(open_rows(path, Container.JSON, start, batch_rows=rows, batch_bytes=1 << 20))


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def make(chance: random.Random) -> object:
    letters = 'aé漢😀"\\[]{},:\n '
    text = "".join(chance.choice(letters) for _ in range(chance.randrange(40)))
    return chance.choice([text, {"a": text, "b": [text, {"c": -1.5e-7}]}, {}, 12345, -0.5, 1e300, None, True, [text]])


class TestReadArray:
    def test_gives_what_json_gives_whatever_the_blocks(self, tmp_path, monkeypatch):
        chance = random.Random(3)
        for number in range(150):
            monkeypatch.setattr(arrays, "_BLOCK_BYTES", chance.randrange(1, 60))
            values = [make(chance) for _ in range(chance.randrange(12))]
            text = json.dumps(values, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1]))
            path = write(
                tmp_path / f"{number}", chance.choice(["", "\ufeff", " \n"]) + text + chance.choice(["", "\n "])
            )
            rows = read(path)
            assert [row.line for row in rows] == list(range(1, len(values) + 1))
            for row, value in zip(rows, values, strict=True):
                if isinstance(value, dict | str):
                    assert row.value == value
                else:
                    assert row.error and "expected an object" in row.error
            for batch in read_batches(path, rows=1):
                assert read(path, Position.from_json(batch.end.to_json())) == rows[batch.end.row :]

    def test_goes_on_from_any_end_of_a_broken_file(self, tmp_path, monkeypatch):
        chance = random.Random(5)
        text = json.dumps([make(chance) for _ in range(9)], ensure_ascii=False).encode()
        for number in range(300):
            monkeypatch.setattr(arrays, "_BLOCK_BYTES", chance.randrange(1, 60))
            at = chance.randrange(1, len(text))
            spoilt = text[:at] + chance.choice([b"", b"\xff", b"]", b"}", b'"', b",", b"x"])
            path = write(tmp_path / f"{number}", spoilt + (text[at + 1 :] if number % 2 else b""))
            rows = read(path)
            for batch in read_batches(path, rows=1):
                assert read(path, batch.end) == rows[batch.end.row :]

    def test_a_place_is_the_byte_after_an_element(self, tmp_path):
        path = write(tmp_path / "x", '\ufeff[ "é" , {}\n]\n')
        assert [batch.end for batch in read_batches(path, rows=1)] == [Position(9, 1, 2), Position(END, 2, 3)]
        assert read_batches(path)[-1].end.read == size(path, Container.JSON)

    @pytest.mark.parametrize("text", ["[]", "[ ]", "\ufeff[\n]\n"])
    def test_without_elements(self, tmp_path, text):
        assert read(write(tmp_path / "x", text)) == []

    @pytest.mark.parametrize(
        ("data", "part"),
        [
            (b'["a", {oops}]', "Expecting property name enclosed in double quotes) at byte 8, near 'oops}]'"),
            (b'["a" "b"]', "expected a comma, or ] at the end of the array at byte 6, near '\"b\"]'"),
            (b'["a"', "expected a comma, or ] at the end of the array at byte 5, where the file ends"),
            (b'["a",', "where the file ends"),
            (b'["a", {"b": "c', "Unterminated string starting at) at byte 13"),
            (b'["a",]', "Expecting value) at byte 6"),
            (b'["a"] x', "the array has ended; expected nothing after it at byte 7, near 'x'"),
            (b'["a"]["b"]', "the array has ended"),
            (b'["a", "\xff"]', "byte 8 (0xff) of the file is not UTF-8; save it as UTF-8"),
            (b'["a", "\xc3', "byte 8 (0xc3) of the file is not UTF-8"),
            (b'["a", ' + b"[" * 100_000, "nested too deep"),
            (b'["a", ' + b"9" * 5000 + b"]", "too many digits"),
        ],
    )
    def test_where_its_syntax_breaks_the_reading_ends_with_an_error(self, tmp_path, data, part):
        first, second = read(write(tmp_path / "x", data))
        assert first == RawRow(1, "a")
        assert second.line == 2 and second.value is None
        assert part in second.error and second.error.endswith("what follows is not read")

    def test_many_elements_in_flat_memory(self, tmp_path):
        path = tmp_path / "x.gz"
        path.write_bytes(gzip.compress(b"[" + b"{}," * 50_000 + b"{}]"))
        tracemalloc.start()
        count = sum(len(batch.rows) for batch in open_rows(path, Container.JSON, batch_rows=100, batch_bytes=1 << 20))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 50_001
        assert peak < 1 << 20

    @pytest.mark.parametrize("length", [LONGEST_ROW_BYTES + 1, 3 * LONGEST_ROW_BYTES])
    @pytest.mark.parametrize("shape", ['"{}"', '{{"a": ["\\"]}}\\\\", "{}"]}}', '[{{"a": "{}"}}]'])
    def test_an_element_that_is_too_long_is_an_error_of_its_own(self, tmp_path, length, shape):
        path = write(tmp_path / "x", f'["a", {shape.format("x" * length)}, "b"]')
        first, second, third = read(path)
        assert (first, third) == (RawRow(1, "a"), RawRow(3, "b"))
        assert second == RawRow(2, None, "longer than 4 MB; a row must be shorter")

    def test_an_element_of_the_longest_length_is_read(self, tmp_path):
        path = write(tmp_path / "x", '["' + "é" * (LONGEST_ROW_BYTES // 2 - 1) + '"]')
        assert len(read(path)[0].value) == LONGEST_ROW_BYTES // 2 - 1

    def test_an_element_without_an_end_is_not_sought_for_ever(self, tmp_path, monkeypatch):
        monkeypatch.setattr(arrays, "LONGEST_SKIP_BYTES", 1 << 20)
        path = write(tmp_path / "x", b'["a", "' + b"x" * (7 << 20) + b'", "b"]')
        assert "has no end within 1 MB" in read(path)[1].error
        monkeypatch.setattr(arrays, "LONGEST_SKIP_BYTES", 64 << 20)
        path = write(tmp_path / "y", b'["a", "' + b"x" * (7 << 20))
        assert "the file ends within an element" in read(path)[1].error
