import gzip
import pickle

import pytest

from app.intake.containers import Container
from app.intake.sniffing import sniff


def write(tmp_path, data: bytes):
    path = tmp_path / "upload"
    path.write_bytes(data)
    return path


class TestSniff:
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    @pytest.mark.parametrize(
        ("name", "data", "container"),
        [
            ("a.jsonl", b'{"a": 1}\n', Container.JSONL),
            ("a.NDJSON", b'\xef\xbb\xbf{"a": 1}\n', Container.JSONL),
            ("a.json", b'{"a": 1}\n{"a": 2}\n', Container.JSONL),
            ("a.jsonl", b'"a prompt"\n', Container.JSONL),
            ("a.jsonl", b"{broken\n", Container.JSONL),
            ("a.json", b' \n[\n {"a": 1}]', Container.JSON),
            ("a.jsonl", b'[{"a": 1}]', Container.JSON),
            ("upload", b'[{"a": 1}]', Container.JSON),
            ("a.json", b"[]", Container.JSON),
            ("a.csv", b"a,b\n1,2", Container.CSV),
            ("a.tsv", b"a\tb\n1\t2", Container.TSV),
            ("a.txt", b"Once upon a time", Container.PLAIN),
            ("a.txt", b"[Enter HAMLET]", Container.PLAIN),
            ("README.md", b"# Once", Container.PLAIN),
            ("a.txt", b'{"a": 1}\n', Container.JSONL),
            ("a.data", b'{"a": 1}\n', Container.JSONL),
        ],
    )
    def test_known(self, tmp_path, name, data, container, pack):
        assert sniff(write(tmp_path, pack(data)), name) is container
        assert sniff(write(tmp_path, pack(data)), f"{name}.gz") is container

    def test_parquet_by_its_bytes(self, tmp_path):
        assert sniff(write(tmp_path, b"PAR1..."), "a.bin") is Container.PARQUET

    @pytest.mark.parametrize(
        ("name", "data", "part"),
        [
            ("a.csv", b"", "empty"),
            ("a.csv", b"\xef\xbb\xbf \n", "empty"),
            ("a.csv.gz", gzip.compress(b""), "empty"),
            ("a.xlsx", b"PK\x03\x04abc", "Excel workbook"),
            ("a.csv", b"PK\x03\x04abc", "zip archive"),
            ("a.xls", b"\xd0\xcf\x11\xe0abc", "old Excel"),
            ("a.pkl", pickle.dumps({"a": 1}), "pickle"),
            ("a.csv", "prompt,é".encode("utf-16"), "UTF-16"),
            ("a.csv", "prompt,source".encode("utf-16-le"), "UTF-16"),
            ("a.csv", "a".encode("utf-32"), "UTF-32"),
            ("a.jsonl", bytes(range(256)) * 4, "binary"),
            ("a.parquet", b"hello", "does not begin as Parquet"),
            ("a.parquet.gz", gzip.compress(b"PAR1abc"), "unpack it"),
            ("a.csv", b"a,b\r1,2\r3,4\r", "old Mac"),
            ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
            ("a.json", b"\n<!DOCTYPE html><html>", "web page"),
            ("a.json", b'{\n "data": []\n}', "one JSON object"),
            ("a.json", b'{"data": [\n{"a": 1}]}', "one JSON object"),
            ("a.jsonl.gz", gzip.compress(b"x" * 100)[:10], "damaged"),
            ("a.jsonl.gz", b"\x1f\x8bjunk", "damaged"),
            ("a.jsonl.bz2", b"BZh91AY", "bzip2"),
            ("a.tar", b"name".ljust(257, b"\0") + b"ustar", "tar archive"),
            ("a.xml", b"<rows/>", "not known"),
        ],
    )
    def test_says_what_else_it_is(self, tmp_path, name, data, part):
        with pytest.raises(ValueError, match=part):
            sniff(write(tmp_path, data), name)
