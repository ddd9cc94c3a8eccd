"""What endpoints are given: the transaction, the person, and the person's access to the project in the path."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.db import transaction
from app.errors import NotFound, NotSignedIn
from app.models import Project, Role, User, UserSession
from app.permissions import Access, Permission
from app.queries import accounts as account_queries
from app.services import accounts

SESSION_COOKIE = "preferable_session"


async def take_turn(request: Request) -> AsyncIterator[None]:
    """Wait, without a thread, until fewer requests are at the database than there are threads and connections.

    A request goes through several threads one after another and keeps its connection between them. If more had one than there
    are threads, those waiting for a connection would hold the threads that the others need to go on.
    """
    async with request.app.state.turns:
        yield


async def get_session(_turn: Annotated[None, Depends(take_turn, scope="function")]) -> AsyncIterator[Session]:
    """One transaction per request, committed before the response leaves.

    Only its end asks something, in a thread that no other work can keep from it: it holds locks that others wait for.
    """
    opened = transaction()
    session = opened.__enter__()
    try:
        yield session
    except BaseException as error:
        await to_thread.run_sync(opened.__exit__, type(error), error, error.__traceback__, limiter=CapacityLimiter(1))
        raise
    await to_thread.run_sync(opened.__exit__, None, None, None, limiter=CapacityLimiter(1))


SessionDep = Annotated[Session, Depends(get_session, scope="function")]


def find_sign_in(request: Request, session: SessionDep) -> UserSession | None:
    """The live sign-in behind the session cookie, None for a visitor. What it finds of the path's project is kept with it."""
    token = request.cookies.get(SESSION_COOKIE)
    found = accounts.find_sign_in(session, token, request.path_params.get("slug")) if token else None
    sign_in, request.state.place = found or (None, None)
    request.state.sign_in = sign_in
    request.state.kept_sign_in = _copy_sign_in(sign_in) if sign_in else None
    return sign_in


SignIn = Annotated[UserSession | None, Depends(find_sign_in)]


async def get_current_user(sign_in: SignIn) -> User:
    """The person signed in; raises NotSignedIn for a visitor."""
    if sign_in is None:
        raise NotSignedIn("Sign in to see this page.")
    return sign_in.user


CurrentUser = Annotated[User, Depends(get_current_user)]


def require(permission: Permission) -> Callable[..., Awaitable[Access]]:
    """A dependency: the person's access to the project named by `slug` in the path.

    Raises NotFound for a project that does not exist or that the person is no member of, Forbidden for a missing role.
    """

    async def get_access(slug: str, request: Request, user: CurrentUser) -> Access:
        access = find_access(user, slug, request.state.place)
        request.state.access = access
        request.state.kept_access = Access(
            user=request.state.kept_sign_in.user,
            project=Project(slug=access.project.slug, name=access.project.name),
            roles=access.roles,
            cohort=access.cohort,
        )
        access.demand(permission)
        return access

    get_access.permission = permission  # type: ignore[attr-defined]  # read by the route matrix test
    return get_access


def keep_after_rollback(request: Request) -> None:
    """For error pages: put copies in the place of rows, which cannot be read once their transaction is gone."""
    for name in ("sign_in", "access"):
        if hasattr(request.state, f"kept_{name}"):
            setattr(request.state, name, getattr(request.state, f"kept_{name}"))


def _copy_sign_in(sign_in: UserSession) -> UserSession:
    user = sign_in.user
    copy = User(uid=user.uid, email=user.email, name=user.name, is_owner=user.is_owner, preferences=user.preferences)
    return UserSession(csrf_token=sign_in.csrf_token, user=copy)


def find_access(user: User, slug: str, place: account_queries.Place) -> Access:
    """A person's access to the project of a path, before any permission is asked. Raises NotFound."""
    project, membership = place.project, place.membership
    is_member = user.is_owner or (membership is not None and bool(membership.roles))
    if project is None or not is_member:
        raise NotFound(f"There is no project {slug!r} that you are a member of.")
    roles = frozenset(Role) if user.is_owner or membership is None else frozenset(map(Role, membership.roles))
    cohort = membership.cohort if membership else accounts.DEFAULT_COHORT
    return Access(user, project, roles, cohort, membership, place.label_schema)
