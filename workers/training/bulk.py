"""A JSONL file that a long job writes as it goes, and that the same command continues after an interruption.

Beside `samples.jsonl` lies `samples.jsonl.job.json` with the settings that its rows depend on. A file of other settings, or one
that no job of ours wrote, is refused and never overwritten.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import snapshot


@dataclass
class Output:
    """The rows of one job. `count` are written; the work is cut into chunks that do not depend on where it was interrupted."""

    path: Path
    count: int

    @classmethod
    def open(cls, path: Path, settings: Mapping[str, Any]) -> "Output":
        """Begin a file, or take up the one that a job of these settings left; a last line that it cut short is dropped.

        Raises ValueError where the file is of other settings or of another origin.
        """
        noted = path.with_name(path.name + ".job.json")
        text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
        if path.exists():
            if not noted.is_file():
                raise ValueError(
                    f"{path} exists and no job of ours is noted beside it; choose another --out, or remove it"
                )
            if changed := _changed(json.loads(noted.read_text(encoding="utf-8")), json.loads(text)):
                raise ValueError(
                    f"{path} was written with other settings ({', '.join(changed)}); choose another --out, or remove it"
                )
            return cls(path, _mend(path))
        noted.write_text(text, encoding="utf-8")
        path.touch()
        return cls(path, 0)

    def chunks(self, total: int, size: int) -> Iterator[range]:
        """Runs of `size` of `total` rows, from the one on that is not whole yet.

        A run begun is worked through once more, so that numbers which depend on their batch in the last digit are the same.
        """
        for first in range(self.count // size * size, total, size):
            yield range(first, min(total, first + size))

    def write(self, chunk: range, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append the rows of a chunk, less those that are there, and have them on the disk."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[self.count - chunk.start :])
            stream.flush()
            os.fsync(stream.fileno())
        self.count = chunk.stop

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows written so far."""
        return snapshot.read_rows(self.path.parent, self.path.name)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _mend(path: Path) -> int:
    """Cut off what follows the last whole line; how many lines there are."""
    with path.open("rb+") as stream:
        whole = count = 0
        for line in stream:
            if line.endswith(b"\n"):
                whole, count = whole + len(line), count + 1
        stream.truncate(whole)
    return count
