"""Projects: how one begins and what may be set."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app import db, storage
from app.errors import BadInput, Conflict, Forbidden
from app.models import AuditEntry, BaseCheckpoint, CheckpointKind, LabelSchema, Project, Role
from app.schemas import labels
from app.schemas.projects import AutomationSettings, ProjectForm, SamplingSettings
from app.services import accounts, checkpoints, projects
from app.settings import Settings
from tests.app import registry


@pytest.fixture
def base(session: Session, settings: Settings, tmp_path: Path) -> BaseCheckpoint:
    return projects.register_base(session, name="tiny", source="test", sha256=registry.put_model(tmp_path / "base"))


def create(session: Session, base: BaseCheckpoint, slug: str = "loop", config: str = "") -> Project:
    return projects.create_project(
        session,
        slug=slug,
        name="Loop",
        base=base,
        sampling=SamplingSettings(),
        automation=AutomationSettings(),
        outputs_per_task=4,
        training_config=config,
        actor=accounts.ensure_owner(session),
    )


def form_of(project: Project, **changes: object) -> ProjectForm:
    values = {
        "name": project.name,
        "outputs_per_task": project.outputs_per_task,
        "sampling": project.sampling,
        "automation": project.automation,
        "training_config": project.training_config,
    }
    return ProjectForm.model_validate(values | changes)


class TestCreate:
    def test_it_is_whole_from_the_start(self, session: Session, base: BaseCheckpoint) -> None:
        project = create(session, base)
        policy = checkpoints.active_policy(session, project.id)
        assert (policy.kind, policy.sha256) == (CheckpointKind.BASE, base.sha256)
        assert checkpoints.open_round(session, project.id).number == 1
        schema = session.scalars(select(LabelSchema).where(LabelSchema.project_id == project.id)).one()
        assert labels.read_schema(schema.fields) == labels.PAPERS

    def test_a_slug_is_taken_once(self, session: Session, base: BaseCheckpoint) -> None:
        create(session, base)
        with pytest.raises(Conflict, match="/p/loop/"):
            create(session, base)

    def test_two_at_the_same_moment_make_one(self, settings: Settings, tmp_path: Path) -> None:
        sha256 = registry.put_model(tmp_path / "base")
        with db.transaction() as session:
            base = projects.register_base(session, name="tiny", source="test", sha256=sha256)
            owner = accounts.ensure_owner(session)

        def begin(session: Session) -> None:
            projects.create_as_owner(session, owner, name="Loop", slug="loop", base_uid=str(base.uid))

        def begin_second() -> None:
            with db.transaction() as session:
                begin(session)

        with ThreadPoolExecutor(1) as pool:
            with db.transaction() as session:
                begin(session)
                second = pool.submit(begin_second)
                while not session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                    time.sleep(0.01)
            with pytest.raises(Conflict, match="/p/loop/"):
                second.result(timeout=60)

    @pytest.mark.parametrize("slug", ["", "Loop", "-loop", "a/b", "a b", "ä", "a" * 64, "../x"])
    def test_a_slug_fits_an_address(self, session: Session, base: BaseCheckpoint, slug: str) -> None:
        with pytest.raises(BadInput):
            create(session, base, slug)

    @pytest.mark.parametrize("config", ["[sft", "lr = 1", "[sfd]\nlr = 1", "sft = 1"])
    def test_a_configuration_has_known_tables_only(self, session: Session, base: BaseCheckpoint, config: str) -> None:
        with pytest.raises(BadInput, match="training configuration"):
            create(session, base, config=config)

    def test_only_an_owner_of_the_installation_begins_one(self, session: Session, base: BaseCheckpoint) -> None:
        user = registry.make_user(session)
        with pytest.raises(Forbidden):
            projects.create_as_owner(session, user, name="x", slug="x", base_uid=str(base.uid))
        owner = accounts.ensure_owner(session)
        with pytest.raises(BadInput, match="base models"):
            projects.create_as_owner(session, owner, name="x", slug="x", base_uid="nonsense")
        assert projects.create_as_owner(session, owner, name="x", slug="x", base_uid=str(base.uid)).slug == "x"


class TestRegisterBase:
    def test_the_same_files_are_one_row(self, session: Session, base: BaseCheckpoint) -> None:
        again = projects.register_base(session, name="other", source="other", sha256=base.sha256)
        assert again == base

    def test_files_come_before_the_row(self, session: Session, settings: Settings) -> None:
        with pytest.raises(BadInput, match="holds no checkpoint"):
            projects.register_base(session, name="x", source="x", sha256="0" * 64)

    def test_refuses_damaged_files(self, session: Session, settings: Settings, tmp_path: Path) -> None:
        sha256 = registry.put_model(tmp_path / "other", weights=b"sound")
        (storage.checkpoint_folder(settings, sha256) / "model.safetensors").write_bytes(b"damaged")
        with pytest.raises(BadInput, match="changed or damaged"):
            projects.register_base(session, name="x", source="x", sha256=sha256)


class TestAutomationSettings:
    @pytest.mark.parametrize("name", ["hours_per_reward_model", "demonstrations_growth"])
    @pytest.mark.parametrize("value", [0, -1, 1e12, float("inf"), float("nan")])
    def test_numbers_that_no_rule_can_count_with_are_refused(self, name: str, value: float) -> None:
        """1e12 hours are no date: the tick failed, and the project's automation with it."""
        with pytest.raises(ValidationError):
            AutomationSettings.model_validate({name: value})


class TestChangeSettings:
    def test_every_change_is_in_the_audit_log(self, session: Session, base: BaseCheckpoint) -> None:
        project = create(session, base)
        access = registry.access_of(registry.make_user(session), project, Role.ADMIN)
        sampling = SamplingSettings(temperature=0.7).model_dump()
        changed = projects.change_settings(session, access, form_of(project, sampling=sampling, outputs_per_task=6))
        assert changed == ["outputs_per_task", "sampling"]
        assert (project.outputs_per_task, projects.find_sampling(project).temperature) == (6, 0.7)
        entries = session.scalars(select(AuditEntry).where(AuditEntry.action == "change settings").order_by("id")).all()
        assert entries[1].details == {"setting": "sampling", "former": "temperature 1.0", "value": "temperature 0.7"}

    def test_saving_the_same_changes_nothing(self, session: Session, base: BaseCheckpoint) -> None:
        project = create(session, base)
        access = registry.access_of(registry.make_user(session), project, Role.ADMIN)
        assert projects.change_settings(session, access, form_of(project)) == []

    def test_a_labeller_may_not(self, session: Session, base: BaseCheckpoint) -> None:
        project = create(session, base)
        with pytest.raises(Forbidden):
            access = registry.access_of(registry.make_user(session), project, Role.LABELLER)
            projects.change_settings(session, access, form_of(project))

    @pytest.mark.parametrize(
        "change",
        [
            {"outputs_per_task": 1},
            {"outputs_per_task": 10},
            {"sampling": {"temperature": 0}},
            {"sampling": {"unknown": 1}},
            {"automation": {"judgements_per_reward_model": 0}},
        ],
    )
    def test_refuses_what_cannot_be(self, session: Session, base: BaseCheckpoint, change: dict[str, object]) -> None:
        project = create(session, base)
        with pytest.raises(ValidationError):
            form_of(project, **change)
