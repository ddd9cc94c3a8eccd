"""Imports that are killed, stopped or broken off: they end in the same rows, and lose and double nothing."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app import db, snapshot, storage
from app.models import (
    ImportKind,
    Job,
    JobState,
    Prompt,
    PromptSegment,
    PromptSource,
    Role,
    Snapshot,
)
from app.permissions import Access
from app.services import imports, jobs
from app.settings import Settings, get_settings
from tests.app import registry
from tests.workers.tasks.importing import bring, count, jsonl, put, read, start, stored
from workers.tasks import imports as worker
from workers.tasks.imports import import_file


class TestInterruptions:
    ROWS = tuple(
        {
            "prompt": " ".join(f"w{(number % 40) * 40 + at}" for at in range(30)) + f" {number // 60}",
            "source": f"w{number % 4}",
        }
        for number in range(120)
    )

    def outcome(self, admin: Access) -> Any:
        """Everything that must not depend on how often the work was interrupted."""
        rows = stored(admin)
        numbers = {prompt.id: at for at, prompt in enumerate(rows)}
        with db.transaction() as session:
            sources = session.execute(select(PromptSource.name, PromptSource.prompts).order_by(PromptSource.name)).all()
            keyed = session.scalars(select(func.sum(PromptSegment.prompts))).one()
        return (
            [
                (
                    prompt.fingerprint,
                    prompt.status,
                    prompt.source,
                    prompt.split,
                    numbers.get(prompt.duplicate_of_id or 0),
                )
                for prompt in rows
            ],
            [tuple(row) for row in sources],
            keyed,
        )

    @pytest.fixture
    def small_batches(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.services.import_work.BATCH_ROWS", 7)

    def test_killed_after_any_batch_it_ends_in_the_same_rows(
        self, admin: Access, settings: Settings, tmp_path: Path, small_batches: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings_of = {"most_per_source": 4, "leaves_out_prefixes": False}
        whole, refusals = bring(admin, self.ROWS, **settings_of)
        expected = self.outcome(admin)
        assert whole.near
        assert whole.capped
        with db.transaction() as session:
            project = registry.make_project(session, tmp_path / "second")[0]
            other = registry.access_of(registry.make_user(session), project, Role.ADMIN)
            session.execute(Prompt.__table__.delete())
            session.execute(PromptSource.__table__.delete())
            session.execute(PromptSegment.__table__.delete())
        uid = put(other, jsonl(*self.ROWS))
        job_id = start(other, uid, **settings_of)
        store = worker.import_work.store
        calls = 0

        def dies(*arguments: Any) -> None:
            nonlocal calls
            calls += 1
            store(*arguments)
            if calls % 3 == 0:
                raise SystemExit("killed before the commit")

        monkeypatch.setattr(worker.import_work, "store", dies)
        deaths = 0
        while True:
            try:
                import_file(job_id)
                break
            except SystemExit:
                deaths += 1
                with db.transaction() as session:
                    jobs.requeue_dead(session, after_seconds=-1)
        assert deaths > 4
        _, counts, again = read(other, uid)
        assert counts == whole
        assert again == refusals
        assert self.outcome(other) == expected

    def test_cancelled_it_stops_and_goes_on_where_it_ended(
        self, admin: Access, small_batches: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uid = put(admin, jsonl(*self.ROWS))
        job_id = start(admin, uid, leaves_out_near=False, leaves_out_prefixes=False, most_per_source=0)
        store = worker.import_work.store

        def stops(*arguments: Any) -> None:
            with db.transaction() as session:
                imports.cancel(session, admin, uid)
            store(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(worker.import_work, "store", stops)
            import_file(job_id)
        row, counts, _ = read(admin, uid)
        assert row.job is not None
        assert (row.job.state, counts.rows) == (JobState.CANCELLED, 7)
        with db.transaction() as session:
            imports.retry(session, admin, uid)
        import_file(job_id)
        row, counts, _ = read(admin, uid)
        assert row.job is not None
        assert (row.job.state, counts.rows, counts.added) == (JobState.SUCCEEDED, 120, count(Prompt))

    def test_texts_written_beyond_the_last_commit_are_cut_off(
        self, admin: Access, small_batches: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [{"text": f"Document {number}."} for number in range(20)]
        uid = put(admin, jsonl(*rows), ImportKind.TEXT)
        job_id = start(admin, uid)
        store = worker.import_work.store

        def dies(*arguments: Any) -> None:
            store(*arguments)
            raise SystemExit

        with monkeypatch.context() as patched:
            patched.setattr(worker.import_work, "store", dies)
            with pytest.raises(SystemExit):
                import_file(job_id)
        with db.transaction() as session:
            jobs.requeue_dead(session, after_seconds=-1)
        import_file(job_id)
        with db.transaction() as session:
            made = session.scalars(select(Snapshot)).one()
            assert session.scalars(select(Job.attempt).where(Job.id == job_id)).one() == 2
        folder = storage.snapshot_folder(get_settings(), made.uid)
        assert list(snapshot.read_rows(folder, "text.jsonl")) == rows
