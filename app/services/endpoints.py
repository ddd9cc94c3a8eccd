"""Models outside: described by an admin, tried by a worker, asked by plans. Their keys are never shown again, nor recorded."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app import fetch, security
from app import jobs as outbox
from app.errors import BadInput, Conflict, NotFound
from app.models import Endpoint, Job, Project
from app.permissions import Access, Permission
from app.queries import endpoints as queries
from app.queries import jobs as job_queries
from app.queries import plans as plan_queries
from app.schemas.plans import EndpointForm, PlanSettings
from app.services import audit, jobs
from app.services.jobs import Claim
from app.settings import get_settings

JOB = "test_endpoint"
_PATH = "/chat/completions"
_PURPOSE = "endpoint key"


@dataclass(frozen=True)
class Target:
    """What a worker needs to ask an endpoint."""

    name: str
    address: fetch.Address
    model: str
    key: str | None

    def __repr__(self) -> str:
        return f"Target({self.name!r}, {self.address.url!r}, {self.model!r})"


@dataclass(frozen=True)
class Listed:
    """An endpoint with the newest try of it."""

    endpoint: Endpoint
    test: Job | None
    plans: int
    """Plans that ask it still: drafts, and those that wait or run."""


def list_endpoints(session: Session, project: Project) -> Sequence[Endpoint]:
    """Those that may be asked, by name."""
    return queries.list_endpoints(session, project.id)


def list_with_tests(session: Session, project: Project) -> list[Listed]:
    """The same, each with how its newest try ended and how many plans ask it."""
    found = queries.list_endpoints(session, project.id)
    tests = queries.list_tests(session, project.id, [endpoint.id for endpoint in found])
    asked = Counter(
        uid
        for plan in plan_queries.list_to_come(session, project.id)
        for uid in {part.source for part in PlanSettings.model_validate(plan.settings).parts}
    )
    return [Listed(endpoint, tests.get(endpoint.id), asked[endpoint.uid]) for endpoint in found]


def add(session: Session, access: Access, form: EndpointForm) -> Endpoint:
    """Describe a model outside. Nothing is called yet. Raises BadInput for an address that may not be called, a name taken."""
    access.demand(Permission.MANAGE_SETTINGS)
    url = form.url.rstrip("/").removesuffix(_PATH)
    if "?" in url or "#" in url:
        raise BadInput(
            "Leave out what follows the ? or #: the address is shown to people; a key has its own field.",
            field="url",
        )
    try:
        _address(f"{url}{_PATH}")
    except fetch.AddressRefused as error:
        raise BadInput(error.message, field="url") from None
    queries.lock_naming(session, access.project.id)
    if queries.find_by_name(session, access.project.id, form.name):
        raise BadInput(f"There is an endpoint {form.name!r} already; choose another name.", field="name")
    key = security.secret_key(get_settings())
    endpoint = Endpoint(
        project_id=access.project.id,
        name=form.name,
        url=url,
        model=form.model,
        sealed_key=security.seal(form.key, purpose=_PURPOSE, key=key) if form.key else None,
        price_in=form.price_in,
        price_out=form.price_out,
        created_by_id=access.user.id,
    )
    queries.insert(session, endpoint)
    _record(session, access, "add endpoint", endpoint)
    return endpoint


def remove(session: Session, access: Access, uid: uuid.UUID) -> None:
    """Take an endpoint out of use and forget its key; a plan that still asks it fails and says so. Raises NotFound."""
    endpoint = find(session, access, uid)
    queries.remove(session, endpoint)
    _record(session, access, "remove endpoint", endpoint)


def request_test(session: Session, access: Access, uid: uuid.UUID) -> Job:
    """Have a worker ask it one short question; a request that waits already is enough. Raises NotFound."""
    endpoint = find(session, access, uid)
    key = queries.test_key(endpoint.id)
    live = job_queries.find_live(session, access.project.id, key)
    if live:
        return live
    _record(session, access, "test endpoint", endpoint)
    return outbox.enqueue(
        session,
        project_id=access.project.id,
        kind=JOB,
        arguments={"endpoint_id": endpoint.id},
        dedupe_key=key,
        requested_by_id=access.user.id,
    )


def find(session: Session, access: Access, uid: uuid.UUID) -> Endpoint:
    """An endpoint of this project that is in use. Raises NotFound."""
    access.demand(Permission.MANAGE_SETTINGS)
    endpoint = queries.find(session, access.project.id, uid)
    if endpoint is None:
        raise NotFound("There is no such endpoint in this project.")
    return endpoint


def load_test(session: Session, claim: Claim) -> Target:
    """What the job is to ask. Raises Conflict where it was removed meanwhile."""
    return open_target(queries.get(session, claim.project_id, claim.arguments["endpoint_id"]))


def finish_test(session: Session, claim: Claim, *, text: str, seconds: float) -> None:
    """It answered; the job has succeeded."""
    jobs.succeed(session, claim, {"text": text[:200], "seconds": round(seconds, 2)})


def open_target(endpoint: Endpoint) -> Target:
    """An endpoint with its key. Raises Conflict where it was removed or its key cannot be read, BadInput for its address."""
    if endpoint.removed_at is not None:
        raise Conflict(removed(endpoint.name))
    key = None
    if endpoint.sealed_key is not None:
        key = security.unseal(endpoint.sealed_key, purpose=_PURPOSE, key=security.secret_key(get_settings()))
        if key is None:
            raise Conflict(
                f"The key of the endpoint {endpoint.name} cannot be read: the installation's secret key has changed since. "
                "Remove the endpoint and add it again."
            )
    return Target(endpoint.name, _address(f"{endpoint.url}{_PATH}"), endpoint.model, key)


def removed(name: str) -> str:
    """What is said where an endpoint is needed that was removed."""
    return f"The endpoint {name} was removed. Add it again, and make the plan anew."


def _address(url: str) -> fetch.Address:
    return fetch.read_address(url, fetch.allowed_hosts(get_settings()))


def _record(session: Session, access: Access, action: str, endpoint: Endpoint) -> None:
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="endpoint",
        subject_uid=endpoint.uid,
        endpoint=endpoint.name,
        url=endpoint.url,
        model=endpoint.model,
    )
