"""Imports by a real Celery worker with a pool of processes, and a reading process of its own beside it for a long file."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app import db
from app.intake.containers import START, Container
from app.intake.preparing import Prepared, Recipe, UnreadableFile
from app.intake.shapes import Mapping, Shape
from app.models import ImportKind, JobState, Prompt, PromptStatus
from app.permissions import Access
from app.services import jobs
from tests.workers.tasks.importing import put, read, start
from tests.workers.tasks.tiny import start_worker, wait_for_end, wait_until
from workers.tasks import reading
from workers.tasks.reading import prepare_all

pytestmark = pytest.mark.timeout(300)

ROWS = 24_000
FILLER = " ".join(f"w{number}" for number in range(50))


def lines() -> bytes:
    """More than `reading.LONG_BYTES`; every seventh row is one of an earlier, every eleventh cannot be read."""
    rows = []
    for number in range(ROWS):
        words = f"{number // 7 if number % 7 == 0 else number} {FILLER}"
        rows.append("{broken" if number % 11 == 0 else json.dumps({"prompt": words, "source": f"s{number % 900}"}))
    return "\n".join(rows).encode()


def outcome() -> list[tuple[bytes, PromptStatus, str]]:
    with db.transaction() as session:
        rows = session.execute(select(Prompt.fingerprint, Prompt.status, Prompt.source).order_by(Prompt.id))
        return [(bytes(fingerprint), status, source) for fingerprint, status, source in rows]


def test_killed_with_everything_it_started_another_ends_in_the_same_rows(admin: Access, tmp_path: Path) -> None:
    plain = {"leaves_out_near": False, "leaves_out_prefixes": False, "most_per_source": 20, "looks_for_pii": False}
    data = lines()
    assert len(data) > reading.LONG_BYTES
    uid = put(admin, data)
    with start_worker("cpu", tmp_path, pool="prefork") as worker:
        job_id = start(admin, uid, **plain)
        wait_until(_count)
        family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
        for process in family:
            os.kill(process.pid, signal.SIGKILL)
        assert not psutil.wait_procs(family, timeout=20)[1]
    with db.transaction() as session:
        assert 0 < len(session.scalars(select(Prompt.id)).all()) < ROWS, "it was killed in the middle"
        assert jobs.requeue_dead(session, after_seconds=-1) == [job_id]
    with start_worker("cpu", tmp_path, pool="prefork"):
        job = wait_for_end(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2), job.error
    _, counts, _ = read(admin, uid)
    assert counts.rows == ROWS
    assert counts.refused == len(range(0, ROWS, 11))
    assert counts.added + counts.capped + counts.known == ROWS - counts.refused
    broken = outcome()
    with db.transaction() as session:
        for table in ("import_keys", "prompt_segments", "prompt_sources", "samples", "prompts"):
            session.execute(text(f"DELETE FROM {table}"))
    with start_worker("cpu", tmp_path, pool="prefork"):
        again = put(admin, data)
        assert wait_for_end(start(admin, again, **plain)).state == JobState.SUCCEEDED
    assert read(admin, again)[1] == counts
    assert outcome() == broken


def _count(session: Session) -> int:
    return session.scalars(select(func.count()).select_from(Prompt)).one()


class TestPrepareAll:
    @pytest.fixture
    def recipe(self, tmp_path: Path) -> Recipe:
        path = tmp_path / "upload"
        path.write_bytes(lines()[:400_000].rpartition(b"\n")[0])
        return Recipe(path, Container.JSONL, ImportKind.PROMPTS, Mapping(Shape.PREFERABLE))

    def read(self, recipe: Recipe, left: int) -> list[Prepared]:
        return list(prepare_all(recipe, START, left, rows=300, size=10**9))

    def test_another_process_prepares_what_this_one_would(self, recipe: Recipe) -> None:
        here, there = self.read(recipe, 0), self.read(recipe, reading.LONG_BYTES)
        assert len(here) > 3
        for one, other in zip(here, there, strict=True):
            assert (one.end, one.rows, one.refused, one.lines) == (other.end, other.rows, other.refused, other.lines)
            assert one.incoming == other.incoming
            assert one.keys is not None
            assert other.keys is not None
            assert (one.keys == other.keys).all()

    def test_what_ends_reading_there_is_told_here(self, recipe: Recipe, tmp_path: Path) -> None:
        batches = prepare_all(recipe, START, reading.LONG_BYTES, rows=300, size=10**9)
        first = next(batches)
        assert first.rows == 300
        batches.close()
        recipe.path.unlink()
        with pytest.raises(UnreadableFile):
            self.read(recipe, reading.LONG_BYTES)

    def test_leaves_no_process_when_it_is_given_up(self, recipe: Recipe) -> None:
        before = set(psutil.Process().children(recursive=True))
        batches = prepare_all(recipe, START, reading.LONG_BYTES, rows=300, size=10**9)
        next(batches)
        started = set(psutil.Process().children(recursive=True)) - before
        batches.close()
        assert not psutil.wait_procs(started, timeout=10)[1] or not any(
            "spawn_main" in " ".join(process.cmdline()) for process in started if process.is_running()
        )
