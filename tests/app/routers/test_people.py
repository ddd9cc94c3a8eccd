"""The people page and the links it makes."""

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import db
from app.models import Project, Role
from app.web.deps import SESSION_COOKIE
from tests.app import registry
from tests.app.routers.test_accounts import submit
from tests.app.visitor import Visitor, make_visitor

INVITATION = re.compile(r"/invite/[\w-]+")


@pytest.fixture
def project(client: TestClient, tmp_path: Path) -> Project:
    with db.transaction() as session:
        return registry.make_project(session, tmp_path)[0]


@pytest.fixture
def owner(client: TestClient, project: Project) -> Visitor:
    return make_visitor(client, project, Role.OWNER)


def invite(owner: Visitor, project: Project, role: str = "labeller") -> str:
    page = owner.post(f"/p/{project.slug}/people/invite", roles=role, cohort="training").text
    found = INVITATION.search(page)
    assert found is not None
    return found[0]


class TestInvitation:
    def test_the_link_is_shown_once(self, owner: Visitor, project: Project) -> None:
        path = invite(owner, project)
        assert path not in owner.get(f"/p/{project.slug}/people").text

    def test_a_new_person_joins(self, client: TestClient, owner: Visitor, project: Project) -> None:
        path = invite(owner, project)
        assert project.name in client.get(path).text
        response = submit(client, path, name="Bo", email="bo@example.org", password="four words in a row")
        assert response.headers["location"] == f"/p/{project.slug}/"
        assert "Your work" in client.get(f"/p/{project.slug}/").text
        assert client.get(path).status_code == 404

    def test_what_was_typed_comes_back(self, client: TestClient, owner: Visitor, project: Project) -> None:
        path = invite(owner, project)
        response = submit(client, path, name="Bo", email="bo@example.org", password="short")
        assert response.status_code == 422
        assert 'value="bo@example.org"' in response.text
        assert client.get(path).status_code == 200

    def test_a_person_with_an_account_joins_as_such(
        self, client: TestClient, owner: Visitor, project: Project, tmp_path: Path
    ) -> None:
        with db.transaction() as session:
            other, _ = registry.make_project(session, tmp_path / "other")
        guest = make_visitor(client, other, Role.LABELLER)
        path = invite(owner, project)
        assert f"Join as <bdi>{guest.user.name}</bdi>" in guest.get(path).text
        response = guest.post(path)
        assert response.status_code == 303
        assert guest.get("/projects").status_code == 303, "the session before the new role is over"
        assert SESSION_COOKIE in response.headers["set-cookie"]

    def test_a_revoked_one_is_worthless(self, client: TestClient, owner: Visitor, project: Project) -> None:
        path = invite(owner, project)
        page = owner.get(f"/p/{project.slug}/people").text
        revoke = re.search(r'action="([^"]+/revoke)"', page)
        assert revoke is not None
        assert owner.post(revoke[1]).status_code == 303
        assert client.get(path).status_code == 404

    def test_without_a_role_it_is_refused(self, owner: Visitor, project: Project) -> None:
        response = owner.post(f"/p/{project.slug}/people/invite", cohort="training")
        assert response.status_code == 422
        assert "at least one role" in response.text


class TestMember:
    def test_a_changed_role_signs_the_person_out(self, client: TestClient, owner: Visitor, project: Project) -> None:
        member = make_visitor(client, project, Role.LABELLER)
        path = f"/p/{project.slug}/people/{member.user.uid}"
        assert owner.post(path, roles="researcher", cohort="held_out").status_code == 303
        assert member.get("/projects").status_code == 303
        assert "held out" in owner.get(f"/p/{project.slug}/people").text

    def test_the_last_owner_is_told_why_not(self, owner: Visitor, project: Project) -> None:
        response = owner.post(f"/p/{project.slug}/people/{owner.user.uid}", roles="admin", cohort="training")
        assert response.status_code == 409
        assert "last owner" in response.text

    def test_names_are_text(self, client: TestClient, owner: Visitor, project: Project) -> None:
        member = make_visitor(client, project, Role.LABELLER)
        member.post("/account/profile", name="<script>alert(1)</script>", theme="system")
        page = owner.get(f"/p/{project.slug}/people").text
        assert "<script>alert(1)" not in page
        assert "&lt;script&gt;alert(1)" in page


def test_skills_and_a_daily_cap_are_set_and_shown(client: TestClient, owner: Visitor, project: Project) -> None:
    ada = make_visitor(client, project, Role.LABELLER)
    path = f"/p/{project.slug}/people"
    answer = owner.post(
        f"{path}/{ada.user.uid}", roles="labeller", cohort="training", skills="math, law", daily_cap="40"
    )
    assert answer.status_code == 303
    page = owner.get(path).text
    assert 'value="math, law"' in page
    assert 'value="40"' in page
    refused = owner.post(f"{path}/{ada.user.uid}", roles="labeller", cohort="training", daily_cap="-3")
    assert refused.status_code == 422
    assert "write a number from 1 to 1,000" in refused.text
