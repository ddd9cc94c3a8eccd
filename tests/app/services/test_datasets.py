"""Snapshots: what enters, what stays out, under which names, and that every row is what the schema says."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import snapshot as files
from app import storage
from app.db import transaction
from app.models import (
    Cohort,
    Demonstration,
    DemonstrationOrigin,
    Judge,
    JudgeKind,
    Judgement,
    JudgementStatus,
    LabelSchema,
    Membership,
    Prompt,
    PromptStatus,
    Purpose,
    Role,
    Snapshot,
    SnapshotDemonstration,
    SnapshotJudgement,
    SnapshotKind,
    Split,
    Task,
)
from app.permissions import Access
from app.schemas import labels
from app.services import datasets, demonstrations, judgements
from app.settings import Settings, get_settings
from app.snapshot import Row
from tests.app import registry
from tests.app.queue import Queue, make_queue, rank, take

SCHEMA = json.loads((Path(files.__file__).parent / "snapshot_schema.json").read_text(encoding="utf-8"))


@dataclass
class World:
    """A committed queue, and the folder of the last snapshot."""

    queue: Queue

    def member(self, session: Session, cohort: Cohort = Cohort.TRAINING) -> Access:
        person = self.queue.person(session, cohort=cohort)
        membership = Membership(
            project_id=self.queue.project.id, user_id=person.user.id, roles=[Role.LABELLER.value], cohort=cohort
        )
        session.add(membership)
        session.flush()
        return person

    def judge(self, person: Access, *, purpose: Purpose = Purpose.TRAIN) -> Judgement:
        with transaction() as session:
            self.queue.task(session, purpose=purpose)
            work = take(session, person)
            return judgements.submit_ranking(session, person, work.task.uid, rank(work, [1, 1, None], quality=6))

    def take(self, kind: SnapshotKind, **filters: tuple[object, ...]) -> Snapshot:
        with transaction(isolation="REPEATABLE READ") as session:
            return datasets.take_snapshot(session, self.queue.project, kind, datasets.Filters(**filters))  # type: ignore[arg-type]

    def rows(self, taken: Snapshot, kind: str) -> list[Row]:
        folder = storage.snapshot_folder(get_settings(), taken.uid)
        assert files.read_manifest(folder).sha256 == taken.sha256
        check = Draft202012Validator({**SCHEMA, "$ref": "#/$defs/manifest"})
        check.validate(json.loads((folder / "manifest.json").read_text()))
        rows = list(files.read_rows(folder, f"{kind}.jsonl"))
        for row in rows:
            Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{kind}"}).validate(row)
        return rows


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> Iterator[World]:
    with transaction() as session:
        queue = make_queue(session, tmp_path)
    yield World(queue)


@pytest.fixture
def ada(world: World) -> Access:
    with transaction() as session:
        return world.member(session)


class TestRankings:
    def test_a_row_holds_all_that_the_reward_model_needs(self, world: World, ada: Access) -> None:
        judgement = world.judge(ada)
        (row,) = world.rows(world.take(SnapshotKind.RANKINGS), "rankings")
        assert (row["id"], row["split"], row["round"], row["purpose"]) == (str(judgement.uid), "train", 1, "train")
        assert (row["judge"], row["weight"], row["group"], row["pairs"]) == ("human", 1.0, None, None)
        assert {response["text"] for response in row["responses"]} == {"first", "second", "third"}
        tiers = sorted((str(response["tier"]), response["quality"]) for response in row["responses"])
        assert [tier for tier, _ in tiers] == ["1", "1", "None"]
        refused = next(response for response in row["responses"] if response["tier"] is None)
        assert refused["flags"]["not_rankable"] == "broken"
        assert {response["finish_reason"] for response in row["responses"]} == {"stop"}

    def test_a_row_holds_the_answers_to_what_else_was_asked(self, world: World, ada: Access) -> None:
        with transaction() as session:
            fields = [field.as_json() for field in labels.PAPERS]
            session.add(LabelSchema(project_id=world.queue.project.id, version=1, fields=fields))
            world.queue.task(session)
            work = take(session, ada)
            first, *rest = rank(work).places
            places = (replace(first, answers={"hallucinates": "yes", "inappropriate": "not applicable"}), *rest)
            said = {"closed_domain": "yes", "use_case": "chat", "confidence": "4"}
            judgements.submit_ranking(session, ada, work.task.uid, replace(rank(work), places=places, answers=said))
        (row,) = world.rows(world.take(SnapshotKind.RANKINGS), "rankings")
        assert (row["confidence"], row["schema"]) == (4, 1)
        assert row["answers"] == {"closed_domain": True, "use_case": "chat"}
        flags = {response["sample"]: response["flags"] for response in row["responses"]}
        assert flags.pop(str(first.sample)) == {"hallucinates": True, "inappropriate": "not applicable"}
        assert list(flags.values()) == [{}, {}]

    def test_default_filter_is_training_current_human(self, world: World, ada: Access) -> None:
        with transaction() as session:
            held_out = world.member(session, Cohort.HELD_OUT)
        kept = world.judge(ada)
        world.judge(held_out)
        world.judge(ada, purpose=Purpose.EVALUATE)
        excluded, simulated, pii = world.judge(ada), world.judge(ada), world.judge(ada)
        with transaction() as session:
            row = session.get_one(Judgement, excluded.id)
            row.status, row.excluded_at, row.excluded_why = JudgementStatus.EXCLUDED, datetime.now(UTC), "careless"
            machine = Judge(project_id=world.queue.project.id, kind=JudgeKind.SIMULATED)
            session.add(machine)
            session.flush()
            session.get_one(Judgement, simulated.id).judge_id = machine.id
            task = session.get_one(Judgement, pii.id).task_id
            prompt = _prompt_of(session, task)
            prompt.status, prompt.is_private = PromptStatus.RETIRED, True  # quarantined, then taken out
        (row_kept,) = world.rows(world.take(SnapshotKind.RANKINGS), "rankings")
        assert row_kept["id"] == str(kept.uid)
        assert len(world.rows(world.take(SnapshotKind.RANKINGS, cohorts=(Cohort.HELD_OUT,)), "rankings")) == 1
        assert len(world.rows(world.take(SnapshotKind.RANKINGS, judges=(JudgeKind.SIMULATED,)), "rankings")) == 1
        assert len(world.rows(world.take(SnapshotKind.RANKINGS, purposes=(Purpose.EVALUATE,)), "rankings")) == 1

    def test_judgements_of_one_set_stay_rows_of_their_own(self, world: World, ada: Access) -> None:
        with transaction() as session:
            bob = world.member(session)
            world.queue.task(session, wanted=2)
            for person in (ada, bob):
                work = take(session, person)
                judgements.submit_ranking(session, person, work.task.uid, rank(work))
        first, second = world.rows(world.take(SnapshotKind.RANKINGS), "rankings")
        assert [output["sample"] for output in first["responses"]] == [
            output["sample"] for output in second["responses"]
        ]
        assert first["labeller"] != second["labeller"]

    def test_labellers_have_one_name_per_snapshot_and_another_in_the_next(self, world: World, ada: Access) -> None:
        world.judge(ada)
        world.judge(ada)
        names = [
            {row["labeller"] for row in world.rows(world.take(SnapshotKind.RANKINGS), "rankings")} for _ in range(2)
        ]
        assert [len(of_snapshot) for of_snapshot in names] == [1, 1]
        assert names[0] != names[1]
        assert str(ada.user.uid) not in names[0] | names[1]

    def test_notes_which_judgements_went_in(self, world: World, ada: Access) -> None:
        judgement = world.judge(ada)
        taken = world.take(SnapshotKind.RANKINGS)
        with transaction() as session:
            members = session.scalars(
                select(SnapshotJudgement.judgement_id).where(SnapshotJudgement.snapshot_id == taken.id)
            ).all()
        assert members == [judgement.id]


class TestDemonstrations:
    def test_lie_in_snapshots_of_demonstrations_and_of_rankings(self, world: World, ada: Access) -> None:
        with transaction() as session:
            prompt = registry.make_prompt(session, world.queue.project, split=Split.VALID)
            for author, origin in ((ada.user, DemonstrationOrigin.WRITTEN), (None, DemonstrationOrigin.IMPORTED)):
                demonstrations.add(
                    session, world.queue.project, prompt_id=prompt.id, text="A heron.", author=author, origin=origin
                )
        for kind in (SnapshotKind.DEMONSTRATIONS, SnapshotKind.RANKINGS):
            taken = world.take(kind)
            written, imported = world.rows(taken, "demonstrations")
            assert (written["response"], written["split"], written["origin"]) == ("A heron.", "valid", "written")
            assert written["labeller"] and imported["labeller"] is None
            with transaction() as session:
                count = select(func.count()).where(SnapshotDemonstration.snapshot_id == taken.id)
                assert session.scalar(count) == 2

    def test_leave_out_what_was_taken_back(self, world: World, ada: Access) -> None:
        with transaction() as session:
            prompt = registry.make_prompt(session, world.queue.project)
            gone = demonstrations.add(
                session,
                world.queue.project,
                prompt_id=prompt.id,
                text="A heron.",
                author=ada.user,
                origin=DemonstrationOrigin.WRITTEN,
            )
            session.get_one(Demonstration, gone.id).status = JudgementStatus.SUPERSEDED
        assert world.rows(world.take(SnapshotKind.DEMONSTRATIONS), "demonstrations") == []


class TestPrompts:
    def test_are_the_active_ones_outside_of_the_test_split(self, world: World) -> None:
        with transaction() as session:
            for split in Split:
                registry.make_prompt(session, world.queue.project, split=split)
            registry.make_prompt(session, world.queue.project).status = PromptStatus.RETIRED
        rows = world.rows(world.take(SnapshotKind.PROMPTS), "prompts")
        assert [row["split"] for row in rows] == ["train", "valid"]


class TestTakeSnapshot:
    def test_refuses_a_transaction_that_could_see_two_states(self, world: World) -> None:
        with transaction() as session, pytest.raises(ValueError, match="REPEATABLE READ"):
            datasets.take_snapshot(session, world.queue.project, SnapshotKind.RANKINGS)

    def test_sees_nothing_of_what_is_submitted_meanwhile(self, world: World, ada: Access) -> None:
        world.judge(ada)
        with transaction(isolation="REPEATABLE READ") as session:
            session.scalar(select(func.count()).select_from(Judgement))
            world.judge(ada)
            taken = datasets.take_snapshot(session, world.queue.project, SnapshotKind.RANKINGS)
        assert len(world.rows(taken, "rankings")) == 1

    def test_leaves_no_folder_behind_where_the_row_cannot_be_written(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("disk on fire")

        monkeypatch.setattr("app.queries.datasets.insert_members", fail)
        with pytest.raises(RuntimeError, match="on fire"):
            world.take(SnapshotKind.RANKINGS)
        assert list((get_settings().store / "snapshots").iterdir()) == []


def _prompt_of(session: Session, task_id: int) -> Prompt:
    return session.get_one(Prompt, session.get_one(Task, task_id).prompt_id)
