"""What researchers and admins ask people for besides rankings: comparisons of two models, ratings, labels of prompts."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse

from app.errors import BadInput
from app.models import Split
from app.permissions import Access, Permission
from app.services import evaluations
from app.web.deps import SessionDep, require
from app.web.forms import FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/evaluations")

Reader = Annotated[Access, Depends(require(Permission.READ_PIPELINE))]
Asker = Annotated[Access, Depends(require(Permission.EVALUATE))]
Text = Annotated[str, Form()]
Key = Annotated[uuid.UUID, Form()]


@router.get("")
def list_evaluations(
    request: Request, session: SessionDep, access: Reader, begun: bool = False, asked: int | None = None
) -> HTMLResponse:
    """Every evaluation with its win rate so far, and the forms to ask for more."""
    return _show(request, session, access, begun=begun, asked=asked)


@router.post("")
def begin(
    request: Request,
    session: SessionDep,
    access: Asker,
    idempotency_key: Key,
    left: Text = "",
    right: Text = "",
    split: Text = "",
    prompts: Text = "",
    judgements_wanted: Text = "",
) -> RedirectResponse:
    """Have two models answer the same prompts, and people compare what they answered."""
    try:
        evaluations.begin(
            session,
            access,
            left=left,
            right=right,
            split=_split(split),
            prompts=_number(prompts, "prompts"),
            judgements_wanted=_number(judgements_wanted, "judgements_wanted"),
            key=idempotency_key,
        )
    except BadInput as error:
        raise FormRefused(_show(request, session, access, error=error, of="compare")) from error
    return see_other(f"/p/{access.project.slug}/evaluations?begun=true")


@router.post("/{uid}/close")
def close(session: SessionDep, access: Asker, uid: uuid.UUID) -> RedirectResponse:
    """Ask for no more of an evaluation."""
    evaluations.close(session, access, uid)
    return see_other(f"/p/{access.project.slug}/evaluations")


@router.post("/{uid}/retry")
def retry(session: SessionDep, access: Asker, uid: uuid.UUID) -> RedirectResponse:
    """Have the models answer once more, where that failed."""
    evaluations.retry(session, access, uid)
    return see_other(f"/p/{access.project.slug}/evaluations")


@router.post("/ratings")
def ask_ratings(
    request: Request,
    session: SessionDep,
    access: Asker,
    idempotency_key: Key,
    model: Text = "",
    split: Text = "",
    prompts: Text = "",
    judgements_wanted: Text = "",
) -> RedirectResponse:
    """Ask people to rate answers that a model has given."""
    try:
        count = evaluations.ask_ratings(
            session,
            access,
            model=model,
            split=_split(split),
            prompts=_number(prompts, "prompts"),
            judgements_wanted=_number(judgements_wanted, "judgements_wanted"),
            key=idempotency_key,
        )
    except BadInput as error:
        raise FormRefused(_show(request, session, access, error=error, of="rate")) from error
    return see_other(f"/p/{access.project.slug}/evaluations?asked={count}")


@router.post("/labels")
def ask_labels(
    request: Request,
    session: SessionDep,
    access: Asker,
    idempotency_key: Key,
    split: Text = "",
    prompts: Text = "",
    judgements_wanted: Text = "",
) -> RedirectResponse:
    """Ask people to label prompts."""
    try:
        count = evaluations.ask_labels(
            session,
            access,
            split=_split(split),
            prompts=_number(prompts, "prompts"),
            judgements_wanted=_number(judgements_wanted, "judgements_wanted"),
            key=idempotency_key,
        )
    except BadInput as error:
        raise FormRefused(_show(request, session, access, error=error, of="label")) from error
    return see_other(f"/p/{access.project.slug}/evaluations?asked={count}")


def _split(value: str) -> Split:
    try:
        return Split(value)
    except ValueError:
        raise BadInput(f"The split is {value[:20]!r}; choose one of {', '.join(Split)}.", field="split") from None


def _number(value: str, field: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise BadInput(f"{value[:20]!r} is no whole number.", field=field)
    return int(value)


def _show(
    request: Request,
    session: Session,
    access: Access,
    *,
    begun: bool = False,
    asked: int | None = None,
    error: BadInput | None = None,
    of: str = "",
) -> HTMLResponse:
    return render(
        request,
        "evaluations/index.html",
        error.status if error else 200,
        reports=evaluations.list_reports(session, access.project),
        models=evaluations.list_models(session, access.project),
        splits=list(Split),
        most=evaluations.MOST_PROMPTS,
        idempotency_key=uuid.uuid4(),
        begun=begun,
        asked=asked,
        error=error,
        of=of,
    )
