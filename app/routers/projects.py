"""The start page, the projects, and a project's settings."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse

from app.errors import BadInput, Conflict
from app.models import User
from app.permissions import Access, Permission
from app.queries import people as people_queries
from app.queries import projects as queries
from app.schemas.projects import AutomationSettings, ProjectForm, SamplingSettings, SchoolSettings
from app.services import projects
from app.web.deps import CurrentUser, SessionDep, require
from app.web.forms import Fields, FormRefused
from app.web.redirects import see_other
from app.web.render import render

router = APIRouter()

Text = Annotated[str, Form()]
Keeper = Annotated[Access, Depends(require(Permission.MANAGE_SETTINGS))]


@router.get("/")
def show_start(session: SessionDep, user: CurrentUser) -> RedirectResponse:
    """Straight to the project of a person who has one; else to the list."""
    mine = people_queries.list_projects_of(session, user)
    return RedirectResponse(f"/p/{mine[0].slug}/" if len(mine) == 1 else "/projects", status_code=303)


@router.get("/projects")
def list_projects(request: Request, session: SessionDep, user: CurrentUser) -> HTMLResponse:
    """The projects one is a member of; an owner can begin another."""
    return _list(request, session, user)


@router.post("/projects")
def create_project(
    request: Request, session: SessionDep, user: CurrentUser, name: Text = "", slug: Text = "", base: Text = ""
) -> RedirectResponse:
    """Begin a project on a registered base model."""
    try:
        project = projects.create_as_owner(session, user, name=name, slug=slug, base_uid=base)
    except (BadInput, Conflict) as error:
        page = _list(request, session, user, error=error, values={"name": name, "slug": slug, "base": base})
        raise FormRefused(page) from error
    return see_other(f"/p/{project.slug}/")


@router.get("/p/{slug}/settings")
def edit_settings(request: Request, session: SessionDep, access: Keeper, saved: str | None = None) -> HTMLResponse:
    """What an admin may set."""
    project = access.project
    values = {
        "name": project.name,
        "outputs_per_task": project.outputs_per_task,
        "asks_to_edit_best": project.asks_to_edit_best,
        "training_config": project.training_config,
    }
    values |= {f"sampling-{key}": value for key, value in projects.find_sampling(project).model_dump().items()}
    values |= {f"automation-{key}": value for key, value in projects.find_automation(project).model_dump().items()}
    values |= {f"school-{key}": value for key, value in projects.find_school(project).model_dump().items()}
    return _settings(request, session, access, values, saved=saved)


@router.post("/p/{slug}/settings")
def change_settings(request: Request, session: SessionDep, access: Keeper, fields: Fields) -> RedirectResponse:
    """Set it; every change is in the audit log."""
    given = dict.fromkeys(("name", "outputs_per_task", "training_config"), "")
    given |= {name: values[-1].strip() for name, values in fields.items()}
    try:
        form = ProjectForm.model_validate(
            {
                "name": given["name"],
                "outputs_per_task": given["outputs_per_task"],
                "asks_to_edit_best": given.get("asks_to_edit_best", "false"),
                "training_config": given["training_config"],
                "sampling": _group(given, "sampling-", SamplingSettings),
                "automation": _group(given, "automation-", AutomationSettings),
                "school": _group(given, "school-", SchoolSettings),
            }
        )
        changed = projects.change_settings(session, access, form)
    except ValidationError as error:
        raise FormRefused(_settings(request, session, access, given, problems=projects.describe(error))) from error
    except BadInput as error:
        problems = {error.field or "": error.message}
        raise FormRefused(_settings(request, session, access, given, problems=problems)) from error
    return see_other(f"/p/{access.project.slug}/settings?saved={len(changed)}")


def _group(
    given: dict[str, str], prefix: str, schema: type[SamplingSettings] | type[AutomationSettings] | type[SchoolSettings]
) -> dict[str, str]:
    """The fields of one group; a box that is not ticked is not sent, and means no."""
    off = {name: "false" for name, field in schema.model_fields.items() if field.annotation is bool}
    return off | {name: given[prefix + name] for name in schema.model_fields if prefix + name in given}


def _settings(
    request: Request,
    session: Session,
    access: Access,
    values: dict[str, str] | dict[str, object],
    *,
    saved: str | None = None,
    problems: dict[str, str] | None = None,
) -> HTMLResponse:
    return render(
        request,
        "settings/edit.html",
        422 if problems else 200,
        values=values,
        saved=saved,
        problems=problems or {},
        groups={
            "sampling": SamplingSettings.model_json_schema(),
            "automation": AutomationSettings.model_json_schema(),
            "school": SchoolSettings.model_json_schema(),
        },
        base=queries.get_base(session, access.project),
    )


def _list(
    request: Request,
    session: Session,
    user: User,
    *,
    error: BadInput | Conflict | None = None,
    values: dict[str, str] | None = None,
) -> HTMLResponse:
    return render(
        request,
        "projects/index.html",
        error.status if error else 200,
        projects=people_queries.list_projects_of(session, user),
        bases=queries.list_bases(session) if user.is_owner else [],
        error=error,
        values=values or {},
    )
