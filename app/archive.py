"""A folder as a ZIP file, streamed: never whole in memory, no temporary file, readable while it is written."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

_BLOCK_BYTES = 1 << 20


class _Outbox:
    """Collects what the ZIP writer writes, until it is taken away. Not seekable, so sizes follow each file's bytes."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Keep a block."""
        self._blocks.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits anywhere else."""

    def close(self) -> None:
        """Nothing to let go of."""

    def take(self) -> bytes:
        """Everything written since the last call."""
        blocks, self._blocks = self._blocks, []
        return b"".join(blocks)


def stream_zip(folder: Path, *, name: str) -> Iterator[bytes]:
    """Yield a ZIP of all files of `folder`, stored (weights do not compress), under a top folder called `name`."""
    outbox = _Outbox()
    with zipfile.ZipFile(outbox, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo.from_file(path, f"{name}/{path.relative_to(folder).as_posix()}")
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while block := source.read(_BLOCK_BYTES):
                    target.write(block)
                    yield outbox.take()
    yield outbox.take()
