"""The streamed ZIP opens with an ordinary reader and holds every byte."""

import io
import zipfile
from pathlib import Path

from app.archive import stream_zip


def test_holds_every_file_unchanged(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    files = {"config.json": b"{}", "tokenizer/vocab.json": "ü".encode(), "model.safetensors": bytes(range(256)) * 9000}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    data = b"".join(stream_zip(tmp_path, name="P-7"))

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(f"P-7/{name}") for name in files} == files
        assert len(archive.namelist()) == len(files)


def test_yields_large_files_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\0" * (5 << 20))

    assert max(len(piece) for piece in stream_zip(tmp_path, name="m")) < 2 << 20
