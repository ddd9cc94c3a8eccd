"""Default deny: every route names its permission or is on the short public list, and each refuses whom it should (T22)."""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from httpx import Response

from app import db
from app.errors import NotFound
from app.main import ROUTERS
from app.models import Cohort, DemonstrationOrigin, Project, Purpose, QuestionKind, Role, RunKind
from app.permissions import GRANTS, Permission
from app.schemas.judgements import WhySkipped
from app.services import accounts, checkpoints, demonstrations, notices, people, questions, runs
from app.web.csrf import FIELD, SAFE_METHODS
from app.web.deps import find_access, get_current_user
from tests.app import queue, registry, school, uploads
from tests.app.visitor import Visitor, make_visitor

PUBLIC = {
    "GET /healthz",
    "GET /login",
    "POST /login",
    "GET /enter/{token}",
    "POST /enter/{token}",
    "GET /invite/{token}",
    "POST /invite/{token}",
}
"""What a visitor may reach. Add to it only what has to work before anybody is signed in."""

SIGNED_IN = {
    "POST /logout",
    "GET /account",
    "POST /account/profile",
    "POST /account/password",
    "POST /account/keys",
    "GET /",
    "GET /projects",
    "POST /projects",
}
"""What belongs to a person rather than to a project: one's own account, the list of one's projects."""


FIELDS = {
    "reason": WhySkipped.UNCLEAR.value,
    "text": "A robin.",
    "idempotency_key": str(uuid.uuid4()),
    "of_revision": "1",
}
"""Fields without which a form is refused before its row is looked for."""


@dataclass(frozen=True)
class Route:
    """One method of one path, with the permission it demands, if any."""

    method: str
    path: str
    permission: Permission | None
    needs_sign_in: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def at(self, slug: str, uid: uuid.UUID) -> str:
        """The address for a project and a row."""
        return self.path.format(slug=slug, uid=uid, version=1, token="x", name="x")


def _routes() -> Iterator[Route]:
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute), f"{route} is no plain route; teach this test what it is"
            calls = set(_calls(route.dependant))
            permissions = [call.permission for call in calls if hasattr(call, "permission")]
            assert len(permissions) <= 1, f"{route.path} demands several permissions; one names the act"
            for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"}):
                yield Route(method, route.path, permissions[0] if permissions else None, get_current_user in calls)


def _calls(dependant: Dependant) -> Iterator[object]:
    for part in dependant.dependencies:
        yield part.call
        yield from _calls(part)


ROUTES = tuple(_routes())
IN_PROJECT = tuple(route for route in ROUTES if route.permission is not None)
WITH_ROW = tuple(route for route in IN_PROJECT if "{uid}" in route.path)


def test_every_route_names_its_permission_or_is_listed() -> None:
    bare = {str(route) for route in ROUTES if route.permission is None}
    assert bare == PUBLIC | SIGNED_IN
    assert all(route.needs_sign_in for route in ROUTES if str(route) in SIGNED_IN)


def test_every_project_page_is_below_the_project() -> None:
    assert all(route.path.startswith("/p/{slug}/") for route in IN_PROJECT)
    assert all(route.permission for route in ROUTES if "{slug}" in route.path)


@dataclass(frozen=True)
class World:
    """Two projects with rows of every kind that has a page, and a visitor per role of the first."""

    client: TestClient
    here: Project
    elsewhere: Project
    rows_elsewhere: dict[str, uuid.UUID]
    visitors: dict[Role, Visitor]
    stranger: Visitor
    row_here: uuid.UUID

    def send(self, route: Route, visitor: Visitor | None, uid: uuid.UUID | None = None) -> Response:
        """Ask for the route in the first project; without a visitor, as anybody with a valid visitor's form."""
        path = route.at(self.here.slug, uid or uuid.uuid4())
        if visitor is not None:
            return visitor.get(path) if route.method in SAFE_METHODS else visitor.post(path, **FIELDS)
        self.client.cookies.clear()
        form = self.client.get("/login").text
        token = re.search(r'name="csrf_token" value="([^"]+)"', form)
        assert token is not None
        return self.client.request(route.method, path, data=None if route.method == "GET" else {FIELD: token[1]})


@pytest.fixture
def world(client: TestClient, tmp_path: Path) -> World:
    with db.transaction() as session:
        here, elsewhere = queue.make_queue(session, tmp_path / "a"), queue.make_queue(session, tmp_path / "b")
        task_here, task_elsewhere = here.task(session), elsewhere.task(session)
        owner = registry.make_user(session)
        access = registry.access_of(owner, elsewhere.project, Role.OWNER)
        invitation, _ = people.invite(session, access, email="", roles=["labeller"], cohort=access.cohort)
        demonstrations.add(
            session,
            elsewhere.project,
            prompt_id=registry.make_prompt(session, elsewhere.project).id,
            text="A robin.",
            author=owner,
            origin=DemonstrationOrigin.WRITTEN,
        )
        asker = elsewhere.person(session)
        queue.lease(session, asker)
        question = questions.ask(
            session, asker, task_elsewhere.uid, kind=QuestionKind.QUESTION, text="Why?", key=uuid.uuid4()
        )
        notices.tell(session, task_elsewhere, [owner.id], "It is retired.")
        told = notices.list_unread(session, access)[0].notice
        announcement = notices.announce(session, access, text="Hello.", last_day=str(datetime.now(UTC).date()))
        run = runs.request_run(session, elsewhere.project, kind=RunKind.SFT, reason="test", requested_by=owner)
        rows = {
            "checkpoints": checkpoints.active_policy(session, elsewhere.project.id).uid,
            "runs": run.uid,
            "tasks": task_elsewhere.uid,
            "demonstrate": task_elsewhere.uid,
            "invitations": invitation.uid,
            "from": school.ranked(session, elsewhere).uid,
            "practice": school.referenced(session, elsewhere, Purpose.PRACTICE).uid,
            "appeals": school.appealed(session, elsewhere).uid,
            "attempts": school.attempted(session, elsewhere).uid,
            "references": school.referenced(session, elsewhere).uid,
            "inbox": question.uid,
            "notices": told.uid,
            "announcements": announcement.uid,
            "compare": task_elsewhere.uid,
            "rate": task_elsewhere.uid,
            "label": task_elsewhere.uid,
            "prompts": registry.make_prompt(session, elsewhere.project).uid,
            "imports": uploads.make_import(session, access).uid,
            "pools": uploads.make_prompts(session, access, "Name a fish.").uid,
            "edits": uploads.make_edit(session, access).uid,
            "evaluations": registry.make_evaluation(session, elsewhere.project, elsewhere.sampler).uid,
            "sampling": registry.make_plan(
                session, elsewhere.project, checkpoints.active_policy(session, elsewhere.project.id)
            ).uid,
            "endpoints": registry.make_endpoint(session, elsewhere.project).uid,
        }
        queue.lease(session, here.person(session))
    stranger = make_visitor(client, elsewhere.project, Role.OWNER)
    return World(
        client=client,
        here=here.project,
        elsewhere=elsewhere.project,
        rows_elsewhere=rows | {"people": stranger.user.uid},
        visitors={role: make_visitor(client, here.project, role) for role in Role},
        stranger=stranger,
        row_here=task_here.uid,
    )


def test_a_visitor_is_sent_to_sign_in(world: World) -> None:
    for route in IN_PROJECT:
        response = world.send(route, None)
        assert (response.status_code, response.headers["location"][:6]) == (303, "/login"), str(route)


def test_a_member_without_the_role_is_refused(world: World) -> None:
    for route in IN_PROJECT:
        for role, visitor in world.visitors.items():
            if route.permission not in GRANTS[role]:
                assert world.send(route, visitor).status_code == 403, f"{route} as {role}"


def test_the_role_opens_the_page(world: World) -> None:
    for route in IN_PROJECT:
        if route.method == "GET" and "{uid}" not in route.path:
            for role, visitor in world.visitors.items():
                if route.permission in GRANTS[role]:
                    assert world.send(route, visitor).status_code in (200, 303), f"{route} as {role}"


def test_another_project_does_not_exist(world: World) -> None:
    for route in IN_PROJECT:
        assert world.send(route, world.stranger).status_code == 404, str(route)


def test_a_row_of_another_project_does_not_exist(world: World) -> None:
    owner = world.visitors[Role.OWNER]
    for route in WITH_ROW:
        kind = route.path.split("{uid}")[0].rstrip("/").rpartition("/")[2]
        assert world.send(route, owner, world.rows_elsewhere[kind]).status_code == 404, str(route)


def test_a_task_of_another_labeller_does_not_exist(world: World) -> None:
    for route in WITH_ROW:
        if route.permission == Permission.LABEL:
            for role in (Role.LABELLER, Role.OWNER):
                assert world.send(route, world.visitors[role], world.row_here).status_code == 404, f"{route} as {role}"


def test_every_unsafe_route_refuses_a_form_without_its_token(world: World) -> None:
    owner = world.visitors[Role.OWNER]
    for route in ROUTES:
        if route.method not in SAFE_METHODS:
            path = route.at(world.here.slug, uuid.uuid4())
            response = owner.client.request(route.method, path, headers={"Cookie": f"preferable_session={owner.token}"})
            assert response.status_code == 403, str(route)


def test_without_roles_a_project_does_not_exist(world: World) -> None:
    labeller = world.visitors[Role.LABELLER]
    owner = registry.access_of(world.visitors[Role.OWNER].user, world.here, Role.OWNER)
    with db.transaction() as session:
        people.change_member(session, owner, labeller.user.uid, roles=[], cohort=Cohort.TRAINING, is_paused=False)
        anew = accounts.sign_in(session, labeller.user)
    with db.transaction() as session:
        found = accounts.find_sign_in(session, anew, world.here.slug)
    assert found is not None
    with pytest.raises(NotFound):
        find_access(found[0].user, world.here.slug, found[1])
