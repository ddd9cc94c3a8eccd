"""People who visit pages in tests: signed in through the services, with the token their forms need."""

from dataclasses import dataclass

from fastapi.testclient import TestClient
from httpx import Response

from app import db
from app.models import Cohort, Membership, Project, Role, User
from app.services import accounts
from app.web.csrf import FIELD
from app.web.deps import SESSION_COOKIE
from tests.app.registry import make_user


@dataclass(frozen=True)
class Visitor:
    """One person's browser."""

    client: TestClient
    user: User
    token: str
    csrf_token: str

    def get(self, path: str, **headers: str) -> Response:
        """Load a page."""
        return self.client.get(path, headers={"Cookie": f"{SESSION_COOKIE}={self.token}", **headers})

    def post(self, path: str, **fields: str) -> Response:
        """Send a form of a page."""
        return self._send(path, fields)

    def swap(self, path: str, **fields: str) -> Response:
        """Send a form of a page as its script does, which puts the answer into the page."""
        return self._send(path, fields, {"HX-Request": "true"})

    def _send(self, path: str, fields: dict[str, str], headers: dict[str, str] | None = None) -> Response:
        cookie = {"Cookie": f"{SESSION_COOKIE}={self.token}"}
        return self.client.post(path, data={FIELD: self.csrf_token, **fields}, headers={**cookie, **(headers or {})})


def make_visitor(client: TestClient, project: Project, *roles: Role) -> Visitor:
    """A member of the project with these roles, signed in. Commits."""
    with db.transaction() as session:
        user = make_user(session)
        session.add(
            Membership(
                project_id=project.id, user_id=user.id, roles=[role.value for role in roles], cohort=Cohort.TRAINING
            )
        )
        token = accounts.sign_in(session, user)
        found = accounts.find_sign_in(session, token)
        assert found is not None
        return Visitor(client, user, token, found[0].csrf_token)
