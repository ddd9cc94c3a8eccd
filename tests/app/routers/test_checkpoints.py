"""The registry's pages over HTTP: who sees them, what they say, promotion and roll-back, the files."""

import io
import uuid
import zipfile
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app import db, storage
from app.models import AuditEntry, Checkpoint, CheckpointKind, CheckpointState, Project, Role, Round
from app.services import checkpoints
from app.settings import get_settings
from app.snapshot import folder_sha256
from tests.app.registry import make_checkpoint, make_project
from tests.app.visitor import make_visitor


@pytest.fixture
def project(client: TestClient, tmp_path: Path) -> Project:
    """A project with one model of each kind; the base is active."""
    with db.transaction() as session:
        made, base = make_project(session, tmp_path)
        sft = make_checkpoint(session, made, tmp_path, CheckpointKind.SFT, init=base, metrics={"valid_loss": 0.74})
        metrics = {"accuracy": 0.8, "calibration": {"error": 0.0123}}
        reward = make_checkpoint(session, made, tmp_path, CheckpointKind.REWARD, init=sft, metrics=metrics)
        make_checkpoint(session, made, tmp_path, CheckpointKind.POLICY, init=sft, reward=reward)
        return made


def find(project: Project, kind: CheckpointKind) -> Checkpoint:
    with db.transaction() as session:
        found = checkpoints.latest(session, project.id, kind)
        assert found is not None
        return found


class TestIndex:
    def test_lists_the_lineage_with_figures(self, client: TestClient, project: Project) -> None:
        page = make_visitor(client, project, Role.RESEARCHER).get(f"/p/{project.slug}/checkpoints")
        assert page.status_code == 200
        for words in ("Base", "SFT 1", "R 1", "P 1", "0.740 nats", "80.0 %"):
            assert words in page.text

    def test_a_visitor_is_sent_to_sign_in(self, client: TestClient, project: Project) -> None:
        page = client.get(f"/p/{project.slug}/checkpoints")
        assert (page.status_code, page.headers["location"].split("?")[0]) == (303, "/login")

    def test_a_labeller_may_not_look(self, client: TestClient, project: Project) -> None:
        assert make_visitor(client, project, Role.LABELLER).get(f"/p/{project.slug}/checkpoints").status_code == 403

    def test_a_stranger_finds_nothing(self, client: TestClient, project: Project, tmp_path: Path) -> None:
        with db.transaction() as session:
            other, _ = make_project(session, tmp_path)
        stranger = make_visitor(client, other, Role.OWNER)
        assert stranger.get(f"/p/{project.slug}/checkpoints").status_code == 404


class TestShow:
    @pytest.mark.parametrize("kind", list(CheckpointKind))
    def test_shows_every_kind(self, client: TestClient, project: Project, kind: CheckpointKind) -> None:
        checkpoint = find(project, kind)
        page = make_visitor(client, project, Role.ADMIN).get(f"/p/{project.slug}/checkpoints/{checkpoint.uid}")
        assert page.status_code == 200
        assert checkpoint.sha256 in page.text

    def test_explains_its_numbers(self, client: TestClient, project: Project) -> None:
        reward = find(project, CheckpointKind.REWARD)
        page = make_visitor(client, project, Role.RESEARCHER).get(f"/p/{project.slug}/checkpoints/{reward.uid}")
        assert "orders as they did" in page.text
        assert "0.0123" not in page.text  # a breakdown is no figure
        assert "promote" not in page.text.lower().replace("nobody has promoted", "")

    def test_another_projects_model_is_not_found(self, client: TestClient, project: Project, tmp_path: Path) -> None:
        with db.transaction() as session:
            other, foreign = make_project(session, tmp_path)
        admin = make_visitor(client, project, Role.ADMIN)
        assert admin.get(f"/p/{project.slug}/checkpoints/{foreign.uid}").status_code == 404
        assert admin.get(f"/p/{other.slug}/checkpoints/{foreign.uid}").status_code == 404
        assert admin.get(f"/p/{project.slug}/checkpoints/{uuid.uuid4()}").status_code == 404
        assert admin.get(f"/p/{project.slug}/checkpoints/no-uuid").status_code == 422


class TestPromote:
    def test_opens_a_round_and_goes_back_to_the_page_it_came_from(self, client: TestClient, project: Project) -> None:
        sft = find(project, CheckpointKind.SFT)
        admin = make_visitor(client, project, Role.ADMIN)
        answer = admin.post(f"/p/{project.slug}/checkpoints/{sft.uid}/promote", back=f"/p/{project.slug}/pipeline")
        assert (answer.status_code, answer.headers["location"]) == (303, f"/p/{project.slug}/pipeline")
        with db.transaction() as session:
            assert session.scalars(select(Round.number).where(Round.closed_at.is_(None))).one() == 2
            entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "promote checkpoint")).one()
            assert entry.actor_id == admin.user.id

    def test_a_former_model_can_be_rolled_back_to(self, client: TestClient, project: Project) -> None:
        sft, policy = find(project, CheckpointKind.SFT), find(project, CheckpointKind.POLICY)
        admin = make_visitor(client, project, Role.ADMIN)
        for checkpoint in (sft, policy):
            admin.post(f"/p/{project.slug}/checkpoints/{checkpoint.uid}/promote")
        page = admin.get(f"/p/{project.slug}/checkpoints/{sft.uid}")
        assert "Roll back to SFT 1" in page.text
        assert admin.user.name in page.text
        admin.post(f"/p/{project.slug}/checkpoints/{sft.uid}/promote")
        assert find(project, CheckpointKind.SFT).state == CheckpointState.ACTIVE

    def test_a_reward_model_is_chosen_by_a_person(self, client: TestClient, project: Project) -> None:
        reward = find(project, CheckpointKind.REWARD)
        admin = make_visitor(client, project, Role.ADMIN)
        assert admin.post(f"/p/{project.slug}/checkpoints/{reward.uid}/promote").status_code == 303
        assert find(project, CheckpointKind.REWARD).state == CheckpointState.ACTIVE

    def test_leads_to_no_other_site(self, client: TestClient, project: Project) -> None:
        sft = find(project, CheckpointKind.SFT)
        admin = make_visitor(client, project, Role.ADMIN)
        answer = admin.post(f"/p/{project.slug}/checkpoints/{sft.uid}/promote", back="//evil.example")
        assert answer.headers["location"] == f"/p/{project.slug}/checkpoints/{sft.uid}"

    @pytest.mark.parametrize("role", [Role.RESEARCHER, Role.LABELLER])
    def test_needs_the_right(self, client: TestClient, project: Project, role: Role) -> None:
        sft = find(project, CheckpointKind.SFT)
        person = make_visitor(client, project, role)
        assert person.post(f"/p/{project.slug}/checkpoints/{sft.uid}/promote").status_code == 403
        assert find(project, CheckpointKind.SFT).state == CheckpointState.CANDIDATE

    def test_the_base_is_refused(self, client: TestClient, project: Project) -> None:
        with db.transaction() as session:
            checkpoints.promote(
                session, None, project, session.get_one(Checkpoint, find(project, CheckpointKind.SFT).id)
            )
        base = find(project, CheckpointKind.BASE)
        answer = make_visitor(client, project, Role.ADMIN).post(f"/p/{project.slug}/checkpoints/{base.uid}/promote")
        assert answer.status_code == 422
        assert "cannot answer prompts in the loop" in answer.text


class TestDownload:
    def test_gives_the_very_files(self, client: TestClient, project: Project, tmp_path: Path) -> None:
        sft = find(project, CheckpointKind.SFT)
        answer = make_visitor(client, project, Role.RESEARCHER).get(
            f"/p/{project.slug}/checkpoints/{sft.uid}/files.zip"
        )
        assert answer.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            archive.extractall(tmp_path / "out")
        assert folder_sha256(tmp_path / "out" / f"{project.slug}-sft-1") == sft.sha256

    def test_says_that_the_files_are_gone(self, client: TestClient, project: Project, tmp_path: Path) -> None:
        sft = find(project, CheckpointKind.SFT)
        storage.checkpoint_folder(get_settings(), sft.sha256).rename(tmp_path / "away")
        person = make_visitor(client, project, Role.RESEARCHER)
        assert person.get(f"/p/{project.slug}/checkpoints/{sft.uid}/files.zip").status_code == 404

    def test_a_labeller_gets_nothing(self, client: TestClient, project: Project) -> None:
        sft = find(project, CheckpointKind.SFT)
        person = make_visitor(client, project, Role.LABELLER)
        assert person.get(f"/p/{project.slug}/checkpoints/{sft.uid}/files.zip").status_code == 403
