"""The start page, the project's home, its settings, its guidelines and its audit log."""

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import db
from app.models import Phase, Project, Role
from app.services import accounts, audit, guidelines
from tests.app import queue, registry
from tests.app.visitor import Visitor, make_visitor


@pytest.fixture
def project(client: TestClient, tmp_path: Path) -> Project:
    with db.transaction() as session:
        made = queue.make_queue(session, tmp_path)
        made.task(session)
        guidelines.publish(session, made.project, body="Be *kind*.", phase=Phase.TRAIN, author=None)
        return made.project


@pytest.fixture
def owner(client: TestClient, project: Project) -> Visitor:
    return make_visitor(client, project, Role.OWNER)


def form_of(visitor: Visitor, project: Project) -> dict[str, str]:
    """The fields of the settings form, as the page offers them."""
    page = visitor.get(f"/p/{project.slug}/settings").text
    fields = dict(re.findall(r'<input id="[^"]+" name="([^"]+)" type="(?:number|text)"[^>]*?value="([^"]*)"', page))
    fields |= {
        name: "true" for name in re.findall(r'type="checkbox" id="[^"]+" name="([^"]+)" value="true" checked', page)
    }
    return {name: value for name, value in fields.items() if name != "csrf_token"}


class TestStart:
    def test_leads_to_the_only_project(self, owner: Visitor, project: Project) -> None:
        assert owner.get("/").headers["location"] == f"/p/{project.slug}/"

    def test_lists_several(self, client: TestClient, project: Project, tmp_path: Path) -> None:
        with db.transaction() as session:
            registry.make_project(session, tmp_path / "second")
            owner = accounts.ensure_owner(session)
            token = accounts.sign_in(session, owner)
        headers = {"Cookie": f"preferable_session={token}"}
        assert client.get("/", headers=headers).headers["location"] == "/projects"
        page = client.get("/projects", headers=headers).text
        assert project.name in page
        assert "Begin a project" in page


class TestHome:
    def test_guidelines_come_first(self, owner: Visitor, project: Project) -> None:
        page = owner.get(f"/p/{project.slug}/").text
        assert "Read the guidelines" in page
        assert f'class="button-primary" href="/p/{project.slug}/rank"' not in page
        owner.post(f"/p/{project.slug}/guidelines/1/acknowledge")
        page = owner.get(f"/p/{project.slug}/").text
        assert "Read the guidelines" not in page
        assert f'class="button-primary" href="/p/{project.slug}/rank"' in page

    def test_shows_each_role_its_own(self, client: TestClient, project: Project) -> None:
        researcher = make_visitor(client, project, Role.RESEARCHER).get(f"/p/{project.slug}/").text
        labeller = make_visitor(client, project, Role.LABELLER).get(f"/p/{project.slug}/").text
        assert ("Your work" in researcher, "The project" in researcher) == (False, True)
        assert ("Your work" in labeller, "The project" in labeller) == (True, False)

    def test_tells_a_labeller_no_models_name(self, client: TestClient, project: Project) -> None:
        pages = {role: make_visitor(client, project, role).get(f"/p/{project.slug}/").text for role in Role}
        assert {role for role, page in pages.items() if "answers by" in page} == set(Role) - {Role.LABELLER}


class TestSettings:
    def test_saving_what_is_shown_changes_nothing(self, owner: Visitor, project: Project) -> None:
        response = owner.post(f"/p/{project.slug}/settings", **form_of(owner, project))
        assert response.headers["location"] == f"/p/{project.slug}/settings?saved=0"

    def test_a_change_is_kept_and_audited(self, owner: Visitor, project: Project) -> None:
        fields = form_of(owner, project) | {"sampling-temperature": "0.8"}
        del fields["automation-train_policy"]  # a box not ticked is not sent
        assert owner.post(f"/p/{project.slug}/settings", **fields).headers["location"].endswith("saved=2")
        assert form_of(owner, project).get("sampling-temperature") == "0.8"
        entries = owner.get(f"/p/{project.slug}/audit?action=change+settings").text
        assert "temperature 0.8" in entries
        assert "train_policy False" in entries

    def test_a_wrong_value_stays_in_its_field(self, owner: Visitor, project: Project) -> None:
        fields = form_of(owner, project) | {"sampling-temperature": "-1", "training_config": "[sft"}
        response = owner.post(f"/p/{project.slug}/settings", **fields)
        assert response.status_code == 422
        assert 'id="sampling-temperature-problem"' in response.text
        assert 'value="-1"' in response.text
        assert form_of(owner, project)["sampling-temperature"] == "1.0"

    def test_fields_that_are_missing_are_said(self, owner: Visitor, project: Project) -> None:
        response = owner.post(f"/p/{project.slug}/settings")
        assert response.status_code == 422
        assert 'id="outputs_per_task-problem"' in response.text


class TestGuidelines:
    def test_acknowledging_leads_on_but_never_away(self, owner: Visitor, project: Project) -> None:
        path = f"/p/{project.slug}/guidelines/1/acknowledge"
        assert owner.post(path, next=f"/p/{project.slug}/rank").headers["location"] == f"/p/{project.slug}/rank"
        assert owner.post(path, next="//evil.example").headers["location"] == f"/p/{project.slug}/"

    def test_a_preview_publishes_nothing(self, owner: Visitor, project: Project) -> None:
        path = f"/p/{project.slug}/guidelines"
        page = owner.post(path, body="**New** <script>alert(1)</script>", act="preview").text
        assert "<strong>New</strong>" in page
        assert "<script>alert(1)" not in page
        assert "Version 1" in owner.get(path).text

    def test_a_new_version_replaces_the_old_and_keeps_it(self, owner: Visitor, project: Project) -> None:
        path = f"/p/{project.slug}/guidelines"
        assert owner.post(path, body="Be **kinder**.").status_code == 303
        assert "<strong>kinder</strong>" in owner.get(path).text
        assert "This is an earlier version" in owner.get(f"{path}?version=1").text
        assert owner.get(f"{path}?version=9").status_code == 404

    def test_the_same_text_is_refused(self, owner: Visitor, project: Project) -> None:
        response = owner.post(f"/p/{project.slug}/guidelines", body="Be *kind*.")
        assert response.status_code == 409
        assert "word for word" in response.text


class TestAudit:
    def test_pages_back_by_key(self, owner: Visitor, project: Project) -> None:
        with db.transaction() as session:
            for number in range(60):
                audit.record(
                    session, actor=owner.user, project=project, action="count", subject_kind="test", number=number
                )
        page = owner.get(f"/p/{project.slug}/audit").text
        older = re.search(r'href="([^"]+)" rel="next"', page)
        assert older is not None
        rest = owner.get(older[1].replace("&amp;", "&")).text
        assert page.count("<tr>") == 51
        assert 'rel="next"' not in rest

    def test_refuses_a_page_that_cannot_be(self, owner: Visitor, project: Project) -> None:
        assert owner.get(f"/p/{project.slug}/audit?before=x").status_code == 422
        assert owner.get(f"/p/{project.slug}/audit?before={2**63}").status_code == 422
