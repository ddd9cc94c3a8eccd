"""The registry's rules: identity, promotion and roll-back, the takeover of reward models, models from outside."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import db, storage
from app.errors import BadInput, Conflict, Forbidden
from app.models import (
    AuditEntry,
    Checkpoint,
    CheckpointKind,
    CheckpointState,
    Draft,
    Lease,
    LeaseState,
    ParentRole,
    Role,
    Round,
    Task,
    TaskKind,
    TaskState,
)
from app.queries.tasks import lock_task
from app.services import checkpoints, lineage, rounds, tasks
from app.services.checkpoints import is_no_worse
from app.settings import Settings, get_settings
from tests.app.registry import (
    access_of,
    hold,
    make_checkpoint,
    make_project,
    make_prompt,
    make_rank_task,
    make_user,
    write_model,
)


class TestRegister:
    def test_numbers_count_per_kind(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        made = [
            make_checkpoint(session, project, tmp_path, kind, init=base)
            for kind in (CheckpointKind.SFT, CheckpointKind.REWARD, CheckpointKind.REWARD)
        ]
        assert [checkpoint.name for checkpoint in made] == ["SFT 1", "R 1", "R 2"]
        assert {checkpoint.state for checkpoint in made} == {CheckpointState.CANDIDATE}

    def test_refuses_an_identity_without_files(self, session: Session, tmp_path: Path) -> None:
        project, _ = make_project(session, tmp_path)
        with pytest.raises(BadInput, match="holds no checkpoint aaaa"):
            checkpoints.register(session, project, kind=CheckpointKind.SFT, sha256="a" * 64, parents={}, metrics={})

    @pytest.mark.parametrize("identity", ["", "../../etc", "A" * 64, "a" * 63])
    def test_refuses_what_is_no_identity(self, session: Session, tmp_path: Path, identity: str) -> None:
        project, _ = make_project(session, tmp_path)
        with pytest.raises(BadInput, match="64 hexadecimal digits"):
            checkpoints.register(session, project, kind=CheckpointKind.SFT, sha256=identity, parents={}, metrics={})

    def test_refuses_a_parent_of_another_project(self, session: Session, tmp_path: Path) -> None:
        project, _ = make_project(session, tmp_path)
        _, stranger = make_project(session, tmp_path)
        with pytest.raises(BadInput, match="another project"):
            make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=stranger)

    def test_keeps_metrics_that_are_not_finite_as_null(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        metrics = {"accuracy": float("nan"), "valid_loss": 0.5}
        made = make_checkpoint(session, project, tmp_path, CheckpointKind.REWARD, init=base, metrics=metrics)
        session.refresh(made)
        assert made.metrics == {"accuracy": None, "valid_loss": 0.5}


class TestPickle:
    """T12: a pickle runs code when it is opened, so it never enters the store."""

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "optimizer.pkl"])
    def test_a_folder_with_a_pickle_is_refused_unopened(self, tmp_path: Path, name: str) -> None:
        folder, trap = write_model(tmp_path / "model", weights=name.encode()), tmp_path / "opened"

        class Hostile:
            def __reduce__(self) -> tuple[object, ...]:
                return (open, (str(trap), "w"))

        (folder / name).write_bytes(pickle.dumps(Hostile()))
        store = get_settings().store / "checkpoints"
        before = sorted(store.iterdir()) if store.exists() else []

        with pytest.raises(BadInput, match="pickled weights"):
            storage.put_checkpoint(get_settings(), folder)

        assert not trap.exists()
        assert (sorted(store.iterdir()) if store.exists() else []) == before


class TestPromote:
    def test_opens_a_round_and_retires_the_former_model(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        admin = make_user(session)

        opened = checkpoints.promote(session, access_of(admin, project, Role.ADMIN), project, sft)

        assert (opened.number, opened.checkpoint_id) == (2, sft.id)
        assert (base.state, sft.state) == (CheckpointState.RETIRED, CheckpointState.ACTIVE)
        assert checkpoints.active_policy(session, project.id) is sft
        first, second = session.scalars(select(Round).where(Round.project_id == project.id).order_by(Round.number))
        assert first.closed_at is not None and second.closed_at is None
        entry = session.scalars(select(AuditEntry).where(AuditEntry.project_id == project.id)).one()
        assert (entry.actor_id, entry.action, entry.subject_uid) == (admin.id, "promote checkpoint", sft.uid)
        assert entry.details == {"name": "SFT 1", "former": "Base", "round": 2, "retired_tasks": 0}

    def test_an_earlier_model_can_be_promoted_again(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        access = access_of(make_user(session), project, Role.ADMIN)
        sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        policy = make_checkpoint(session, project, tmp_path, CheckpointKind.POLICY, init=sft)
        for checkpoint in (sft, policy, sft):
            opened = checkpoints.promote(session, access, project, checkpoint)
        assert opened.number == 4
        assert (sft.state, policy.state) == (CheckpointState.ACTIVE, CheckpointState.RETIRED)

    def test_a_second_click_changes_nothing(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        access = access_of(make_user(session), project, Role.ADMIN)
        sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        first = checkpoints.promote(session, access, project, sft)
        assert checkpoints.promote(session, access, project, sft) is first
        assert len(session.scalars(select(AuditEntry).where(AuditEntry.project_id == project.id)).all()) == 1

    def test_clicks_at_the_same_moment_open_one_round(self, settings: Settings, tmp_path: Path) -> None:
        with db.transaction() as session:
            project, base = make_project(session, tmp_path)
            sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
            admin = make_user(session)

        def click(_: int) -> int:
            with db.transaction() as session:
                checkpoint = session.get_one(Checkpoint, sft.id)
                access = access_of(admin, project, Role.ADMIN)
                return checkpoints.promote(session, access, project, checkpoint).number

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(click, range(8))) == [2] * 8
        with db.transaction() as session:
            assert session.scalars(select(Round.number).order_by(Round.number)).all() == [1, 2]

    def test_two_candidates_at_the_same_moment_follow_one_another(self, settings: Settings, tmp_path: Path) -> None:
        with db.transaction() as session:
            project, base = make_project(session, tmp_path)
            made = [make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base) for _ in range(4)]
            admin = make_user(session)

        def click(id_: int) -> int:
            with db.transaction() as session:
                checkpoint = session.get_one(Checkpoint, id_)
                return checkpoints.promote(session, access_of(admin, project, Role.ADMIN), project, checkpoint).number

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(click, [checkpoint.id for checkpoint in made])) == [2, 3, 4, 5]
        with db.transaction() as session:
            states = session.scalars(select(Checkpoint.state).where(Checkpoint.kind == CheckpointKind.SFT)).all()
            assert sorted(states) == ["active", "retired", "retired", "retired"]

    def test_unheld_tasks_retire_and_held_leases_finish(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        free, held, expired = (make_rank_task(session, project, make_prompt(session, project)) for _ in range(3))
        now = datetime.now(UTC)
        lease = hold(session, held, make_user(session), until=now + timedelta(hours=1))
        hold(session, expired, make_user(session), until=now - timedelta(hours=1))

        checkpoints.promote(session, access_of(make_user(session), project, Role.ADMIN), project, sft)

        for task in (free, held, expired):
            session.refresh(task)
        assert [task.state for task in (free, held, expired)] == [TaskState.RETIRED, TaskState.OPEN, TaskState.RETIRED]

        session.get_one(Lease, lease.id).state = LeaseState.SKIPPED
        assert rounds.retire_leftovers(session, project) == 1
        session.refresh(held)
        assert held.state == TaskState.RETIRED

    def test_work_that_was_begun_keeps_its_task_until_it_is_a_week_old(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        begun, left, passed_on = (make_rank_task(session, project, make_prompt(session, project)) for _ in range(3))
        person, now = make_user(session), datetime.now(UTC)
        for task, state in ((begun, "expired"), (left, "expired"), (passed_on, "skipped")):
            hold(session, task, person, until=now - timedelta(hours=1)).state = LeaseState(state)
            age = timedelta(days=8 if task is left else 6)
            session.add(
                Draft(project_id=project.id, task_id=task.id, user_id=person.id, content={}, updated_at=now - age)
            )
        session.flush()

        checkpoints.promote(session, access_of(make_user(session), project, Role.ADMIN), project, sft)

        for task in (begun, left, passed_on):
            session.refresh(task)
        assert [task.state for task in (begun, left, passed_on)] == ["open", "retired", "retired"]
        found = tasks.lease_next(session, access_of(person, project, Role.LABELLER), TaskKind.RANK)
        assert found is not None
        assert found.task_id == begun.id

    def test_a_task_that_is_being_leased_at_that_moment_is_left_to_its_labeller(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        with db.transaction() as session:
            project, base = make_project(session, tmp_path)
            sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
            task = make_rank_task(session, project, make_prompt(session, project))
            labeller, admin = make_user(session), make_user(session)

        def promote() -> None:
            with db.transaction() as session:
                access = access_of(admin, project, Role.ADMIN)
                checkpoints.promote(session, access, project, session.get_one(Checkpoint, sft.id))

        with ThreadPoolExecutor(1) as pool:
            with db.transaction() as session:
                lock_task(session, task.id)
                promotion = pool.submit(promote)
                with pytest.raises(TimeoutError):
                    promotion.result(timeout=0.5)
                hold(session, task, labeller, until=datetime.now(UTC) + timedelta(hours=1))
            promotion.result(timeout=10)
        with db.transaction() as session:
            assert session.get_one(Task, task.id).state == TaskState.OPEN

    def test_needs_the_right(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        with pytest.raises(Forbidden):
            checkpoints.promote(session, access_of(make_user(session), project, Role.RESEARCHER), project, sft)

    def test_by_itself_only_an_sft_model_is_promoted(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        policy = make_checkpoint(session, project, tmp_path, CheckpointKind.POLICY, init=sft)
        checkpoints.promote(session, None, project, sft)
        with pytest.raises(Conflict, match="person's click"):
            checkpoints.promote(session, None, project, policy)
        assert checkpoints.active_policy(session, project.id) is sft

    def test_a_reward_model_cannot_answer_prompts(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        reward = make_checkpoint(session, project, tmp_path, CheckpointKind.REWARD, init=base)
        with pytest.raises(BadInput, match="cannot answer prompts"):
            checkpoints.promote(session, access_of(make_user(session), project, Role.ADMIN), project, reward)

    def test_a_model_whose_files_are_gone_is_refused(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        storage.checkpoint_folder(get_settings(), sft.sha256).rename(tmp_path / "away")
        with pytest.raises(Conflict, match="gone from the store"):
            checkpoints.promote(session, access_of(make_user(session), project, Role.ADMIN), project, sft)
        assert checkpoints.active_policy(session, project.id) is base


class TestIsNoWorse:
    """House rule: not lower by more than the interval."""

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            ({"accuracy": 0.70}, {"accuracy": 0.72, "accuracy_high": 0.78}, True),
            ({"accuracy": 0.70}, {"accuracy": 0.66, "accuracy_high": 0.71}, True),
            ({"accuracy": 0.70}, {"accuracy": 0.60, "accuracy_high": 0.66}, False),
            ({"accuracy": 0.70}, {"accuracy": 0.69}, False),
            ({"accuracy": None}, {"accuracy": 0.40, "accuracy_high": 0.50}, True),
            ({"accuracy": 0.70}, {}, True),
            ({"accuracy": 0.90}, {"accuracy": 0.70, "accuracy_high": 0.74, "incumbent_accuracy": 0.72}, True),
            ({"accuracy": 0.60}, {"accuracy": 0.70, "accuracy_high": 0.74, "incumbent_accuracy": 0.76}, False),
        ],
    )
    def test_compares_with_the_upper_end(self, old: dict[str, object], new: dict[str, object], expected: bool) -> None:
        assert is_no_worse(old, new) is expected


class TestActivateReward:
    def test_the_first_becomes_active(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        reward = make_checkpoint(session, project, tmp_path, CheckpointKind.REWARD, init=base)
        assert checkpoints.activate_reward(session, project, reward)
        assert checkpoints.active_reward(session, project.id) is reward

    def test_a_worse_one_stays_a_candidate_until_a_person_chooses_it(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        kind = CheckpointKind.REWARD
        good = make_checkpoint(session, project, tmp_path, kind, init=base, metrics={"accuracy": 0.8})
        bad = {"accuracy": 0.6, "accuracy_high": 0.7}
        worse = make_checkpoint(session, project, tmp_path, kind, init=base, metrics=bad)
        checkpoints.activate_reward(session, project, good)

        assert not checkpoints.activate_reward(session, project, worse)
        assert (good.state, worse.state) == (CheckpointState.ACTIVE, CheckpointState.CANDIDATE)

        assert checkpoints.activate_reward(
            session, project, worse, access=access_of(make_user(session), project, Role.ADMIN)
        )
        assert (good.state, worse.state) == (CheckpointState.RETIRED, CheckpointState.ACTIVE)

    def test_refuses_a_model_of_another_kind(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        with pytest.raises(BadInput, match="not a reward model"):
            checkpoints.activate_reward(session, project, base)


class TestVerifyFiles:
    def test_refuses_files_that_do_not_match_the_identity(self, session: Session, tmp_path: Path) -> None:
        """T13: nobody passes other weights off as a known model; `runs.finish` and `register_base` ask here too."""
        project, _ = make_project(session, tmp_path)
        folder = write_model(tmp_path / "model", weights=b"before")
        sha256 = storage.put_checkpoint(get_settings(), folder)
        checkpoints.verify_files(sha256)
        (storage.checkpoint_folder(get_settings(), sha256) / "model.safetensors").write_bytes(b"after")
        with pytest.raises(BadInput, match="changed or damaged"):
            checkpoints.verify_files(sha256)
        with pytest.raises(BadInput, match="changed or damaged"):
            checkpoints.register_folder(session, project, folder, kind=CheckpointKind.SFT, actor=None)
        assert checkpoints.latest(session, project.id, CheckpointKind.SFT) is None


class TestRegisterFolder:
    def test_joins_as_a_candidate_below_the_parents_it_names(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        folder = write_model(tmp_path / "elsewhere", weights=b"trained elsewhere")
        (folder / "preferable.json").write_text(f'{{"parents": {{"base": "{base.sha256}", "uncle": "x"}}}}')

        made = checkpoints.register_folder(session, project, folder, kind=CheckpointKind.SFT, actor=None)

        assert (made.name, made.state) == ("SFT 1", CheckpointState.CANDIDATE)
        assert storage.checkpoint_folder(get_settings(), made.sha256).is_dir()
        (node,) = (node for node in lineage.lineage(session, project.id) if node.checkpoint is made)
        assert [(parent.role, parent.checkpoint.id) for parent in node.parents] == [(ParentRole.INIT, base.id)]

    def test_the_same_files_join_once(self, session: Session, tmp_path: Path) -> None:
        project, _ = make_project(session, tmp_path)
        folder = write_model(tmp_path / "elsewhere", weights=b"twice")
        checkpoints.register_folder(session, project, folder, kind=CheckpointKind.SFT, actor=None)
        with pytest.raises(Conflict, match="as SFT 1"):
            checkpoints.register_folder(session, project, folder, kind=CheckpointKind.SFT, actor=None)

    @pytest.mark.parametrize(
        ("config", "kind", "message"),
        [
            (None, CheckpointKind.SFT, "no readable config.json"),
            ("not json", CheckpointKind.SFT, "no readable config.json"),
            ('{"architectures": ["GPT2LMHeadModel"]}', CheckpointKind.REWARD, "holds a language model"),
            ('{"architectures": ["GPT2ForSequenceClassification"]}', CheckpointKind.REWARD, "no reward_mean"),
            ('{"architectures": ["GPT2ForSequenceClassification"]}', CheckpointKind.SFT, "sequence classifier"),
            ('{"architectures": ["X"], "auto_map": {}}', CheckpointKind.SFT, "code of its own"),
            ('{"architectures": ["GPT2LMHeadModel"]}', CheckpointKind.BASE, "never changes its base"),
        ],
    )
    def test_refuses_a_folder_that_is_no_safe_model_of_the_kind(
        self, session: Session, tmp_path: Path, config: str | None, kind: CheckpointKind, message: str
    ) -> None:
        project, _ = make_project(session, tmp_path)
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
        if config is not None:
            (folder / "config.json").write_text(config)
        with pytest.raises(BadInput, match=message):
            checkpoints.register_folder(session, project, folder, kind=kind, actor=None)


class TestLineage:
    def test_is_a_tree_by_initialisation(self, session: Session, tmp_path: Path) -> None:
        project, base = make_project(session, tmp_path)
        first = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        second = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
        reward = make_checkpoint(session, project, tmp_path, CheckpointKind.REWARD, init=first)
        policy = make_checkpoint(session, project, tmp_path, CheckpointKind.POLICY, init=first, reward=reward)

        nodes = lineage.lineage(session, project.id)

        assert [(node.checkpoint.name, node.depth) for node in nodes] == [
            ("Base", 0), ("SFT 1", 1), ("R 1", 2), ("P 1", 2), ("SFT 2", 1),
        ]  # fmt: skip
        assert nodes[3].parent(ParentRole.REWARD) is reward
        assert nodes[3].checkpoint is policy
        assert nodes[4].checkpoint is second
