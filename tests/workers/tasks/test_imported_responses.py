"""Responses that files bring: tasks to rank, rankings by annotators, demonstrations, texts; each once."""

import pytest
from sqlalchemy import select

from app import db, snapshot, storage
from app.models import (
    Demonstration,
    DemonstrationOrigin,
    ImportKind,
    Judge,
    JudgeKind,
    Judgement,
    JudgementRank,
    Prompt,
    PromptStatus,
    Sample,
    Snapshot,
    SnapshotKind,
    Task,
    TaskOutput,
    TaskState,
)
from app.permissions import Access
from app.queries.pools import PromptFilter
from app.services import pools, prompt_labels
from app.settings import get_settings
from tests.workers.tasks.importing import bring, count


class TestOutputs:
    ROWS = (
        {"prompt": "Name a bird.", "responses": [{"text": "A gull."}, {"text": "A **cat**."}, {"text": "A tern."}]},
    )

    def test_become_a_task_outside_of_rounds(self, admin: Access) -> None:
        counts, _ = bring(admin, self.ROWS, ImportKind.OUTPUTS, judgements_wanted=3)
        assert (counts.added, counts.samples, counts.tasks) == (1, 3, 1)
        with db.transaction() as session:
            task = session.scalars(select(Task)).one()
            texts = session.scalars(
                select(Sample.text)
                .join(TaskOutput, TaskOutput.sample_id == Sample.id)
                .where(TaskOutput.task_id == task.id)
                .order_by(TaskOutput.position)
            ).all()
        assert (task.state, task.judgements_wanted, task.round_id) == (TaskState.OPEN, 3, None)
        assert list(texts) == ["A gull.", "A **cat**.", "A tern."]

    def test_come_once(self, admin: Access) -> None:
        bring(admin, self.ROWS, ImportKind.OUTPUTS)
        counts, _ = bring(admin, [*self.ROWS, *self.ROWS], ImportKind.OUTPUTS)
        assert (counts.known, counts.samples, counts.tasks, counts.doubled) == (2, 0, 0, 2)
        other = {"prompt": "Name a bird.", "responses": [{"text": "A gull."}, {"text": "A tern."}]}
        assert bring(admin, [other], ImportKind.OUTPUTS)[0].tasks == 1
        assert count(Sample) == 3

    def test_wait_for_the_release_of_a_quarantined_prompt(self, admin: Access) -> None:
        rows = [{"prompt": "Mail to anna@example.com", "responses": [{"text": "a"}, {"text": "b"}]}]
        bring(admin, rows, ImportKind.OUTPUTS)
        with db.transaction() as session:
            assert session.scalars(select(Task.state)).one() == TaskState.WAITING
            prompt_labels.release(session, admin, session.scalars(select(Prompt.uid)).one())
        with db.transaction() as session:
            assert session.scalars(select(Task.state)).one() == TaskState.OPEN

    def test_open_when_the_prompt_is_masked_or_let_in(self, admin: Access) -> None:
        rows = [{"prompt": "Mail to anna@example.com", "responses": [{"text": "a"}, {"text": "b"}]}]
        bring(admin, rows, ImportKind.OUTPUTS)
        other = [{"prompt": f"Number {n}?", "source": "w", "responses": rows[0]["responses"]} for n in range(2)]
        bring(admin, other, ImportKind.OUTPUTS, most_per_source=1)
        assert count(Task, Task.state == TaskState.WAITING) == 2
        with db.transaction() as session:
            private = session.scalars(select(Prompt.uid).where(Prompt.is_private)).one()
            pools.mask(session, admin, private)
            pools.edit(session, admin, PromptFilter(status=PromptStatus.CAPPED), pools.Change(pools.Act.ACTIVATE))
        assert count(Task, Task.state == TaskState.OPEN) == 3

    def test_wait_again_when_letting_in_is_undone(self, admin: Access) -> None:
        rows = [
            {"prompt": f"Number {n}?", "source": "w", "responses": [{"text": "a"}, {"text": "b"}]} for n in range(2)
        ]
        bring(admin, rows, ImportKind.OUTPUTS, most_per_source=1)
        with db.transaction() as session:
            made = pools.edit(
                session, admin, PromptFilter(status=PromptStatus.CAPPED), pools.Change(pools.Act.ACTIVATE)
            )
        assert count(Task, Task.state == TaskState.OPEN) == 2
        with db.transaction() as session:
            assert pools.undo(session, admin, made.uid) == 1
        assert [count(Task, Task.state == state) for state in (TaskState.OPEN, TaskState.WAITING)] == [1, 1]

    def test_are_tasks_of_their_own_beside_rankings_of_the_same(self, admin: Access) -> None:
        ranked = {"prompt": "Name a bird.", "chosen": "A gull.", "rejected": "A cat."}
        bring(admin, [ranked], ImportKind.RANKINGS)
        assert bring(admin, [ranked], ImportKind.OUTPUTS)[0].tasks == 1
        assert bring(admin, [ranked], ImportKind.RANKINGS)[0].doubled == 1
        assert {count(Task, Task.state == state) for state in (TaskState.DONE, TaskState.OPEN)} == {1}

    def test_with_personal_data_in_a_response_are_refused(self, admin: Access) -> None:
        rows = [{"prompt": "Whose?", "responses": [{"text": "anna@example.com"}, {"text": "b"}]}]
        counts, refusals = bring(admin, rows, ImportKind.OUTPUTS)
        assert (counts.added, counts.tasks) == (0, 0)
        assert "a response holds personal data (email)" in refusals[0][1]

    def test_fewer_than_two_are_refused(self, admin: Access) -> None:
        _, refusals = bring(admin, [{"prompt": "Name a bird.", "responses": [{"text": "A gull."}]}], ImportKind.OUTPUTS)
        assert len(refusals) == 1


class TestRankings:
    def test_are_judgements_of_their_annotators_on_one_task(self, admin: Access) -> None:
        places = [{"text": "A gull.", "tier": 1}, {"text": "A tern.", "tier": 1}, {"text": "A cat.", "tier": 2}]
        other = [{"text": "A cat.", "tier": 1}, {"text": "A tern.", "tier": 3}, {"text": "A gull.", "tier": None}]
        rows = [
            {"prompt": "Name a bird.", "responses": places, "annotator": "w1"},
            {"prompt": "Name a bird.", "responses": other, "annotator": "w2"},
        ]
        counts, refusals = bring(admin, rows, ImportKind.RANKINGS, pool="old")
        assert (counts.tasks, counts.judgements, refusals) == (1, 2, [])
        with db.transaction() as session:
            found = session.execute(
                select(Judge.version, Sample.text, JudgementRank.tier, JudgementRank.reason)
                .join(Judgement, Judgement.judge_id == Judge.id)
                .join(JudgementRank, JudgementRank.judgement_id == Judgement.id)
                .join(TaskOutput, TaskOutput.id == JudgementRank.output_id)
                .join(Sample, Sample.id == TaskOutput.sample_id)
                .where(Judge.kind == JudgeKind.IMPORTED)
            ).all()
            state = session.scalars(select(Task.state)).one()
        assert {(judge, text): tier for judge, text, tier, _ in found} == {
            ("old/w1", "A gull."): 1,
            ("old/w1", "A tern."): 1,
            ("old/w1", "A cat."): 2,
            ("old/w2", "A cat."): 1,
            ("old/w2", "A tern."): 2,
            ("old/w2", "A gull."): None,
        }
        assert state == TaskState.DONE

    def test_come_once_and_not_otherwise_by_the_same_annotator(self, admin: Access) -> None:
        pair = {"prompt": "Name a bird.", "chosen": "A gull.", "rejected": "A cat."}
        assert bring(admin, [pair, pair], ImportKind.RANKINGS, pool="old")[0].judgements == 1
        counts, refusals = bring(
            admin,
            [pair, {**pair, "chosen": "A cat.", "rejected": "A gull."}],
            ImportKind.RANKINGS,
            pool="old",
        )
        assert (counts.judgements, counts.doubled) == (0, 1)
        assert "in another order already" in refusals[0][1]

    def test_pairs_of_three_are_three_tasks(self, admin: Access) -> None:
        rows = [
            {"prompt": "Name a bird.", "chosen": better, "rejected": worse}
            for better, worse in (("a", "b"), ("b", "c"), ("a", "c"))
        ]
        counts, _ = bring(admin, rows, ImportKind.RANKINGS)
        assert (counts.tasks, counts.judgements, counts.samples) == (3, 3, 3)


class TestDemonstrations:
    def test_come_once(self, admin: Access) -> None:
        rows = [{"instruction": "Correct it.", "input": "teh bird", "output": "the bird"}]
        assert bring(admin, rows, ImportKind.DEMONSTRATIONS)[0].demonstrations == 1
        counts, _ = bring(admin, rows, ImportKind.DEMONSTRATIONS)
        assert (counts.demonstrations, counts.doubled) == (0, 1)
        with db.transaction() as session:
            one = session.scalars(select(Demonstration)).one()
        assert (one.text, one.origin) == ("the bird", DemonstrationOrigin.IMPORTED)


class TestForeign:
    def test_a_prompt_of_another_source_gets_the_responses_all_the_same(self, admin: Access) -> None:
        bring(admin, [{"prompt": "Name a bird.", "source": "a"}])
        row = {"prompt": "Name a bird.", "source": "b", "response": "A gull."}
        counts, _ = bring(admin, [row], ImportKind.DEMONSTRATIONS)
        assert (counts.known, counts.foreign, counts.demonstrations) == (1, 0, 1)


class TestText:
    def test_becomes_a_dataset(self, admin: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.services.import_work.BATCH_ROWS", 2)
        rows = [{"text": f"Document {number}."} for number in range(5)] + [{"text": "Mail: anna@example.com"}]
        counts, refusals = bring(admin, rows, ImportKind.TEXT)
        assert counts.texts == 5
        assert "personal data (email)" in refusals[0][1]
        with db.transaction() as session:
            made = session.scalars(select(Snapshot)).one()
        assert made.kind == SnapshotKind.TEXT
        folder = storage.snapshot_folder(get_settings(), made.uid)
        snapshot.read_manifest(folder)
        assert list(snapshot.read_rows(folder, "text.jsonl")) == rows[:5]
        bring(admin, rows, ImportKind.TEXT)
        assert count(Snapshot) == 1, "the same texts are the same dataset"
