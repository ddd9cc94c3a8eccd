"""Projects: how one begins, and what its admins may set."""

import re
import tomllib
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, Forbidden
from app.models import (
    BaseCheckpoint,
    CheckpointKind,
    LabelSchema,
    Membership,
    Project,
    Role,
    User,
)
from app.permissions import Access, Permission
from app.queries import projects as queries
from app.schemas import labels
from app.schemas.projects import AutomationSettings, ProjectForm, SamplingSettings, SchoolSettings
from app.services import accounts, audit, checkpoints, sampling

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def create_project(
    session: Session,
    *,
    slug: str,
    name: str,
    base: BaseCheckpoint,
    sampling: SamplingSettings,
    automation: AutomationSettings,
    outputs_per_task: int,
    training_config: str,
    actor: User | None,
) -> Project:
    """Begin a project on `base`, whose files lie in the store: its registry holds the base, and round 1 is open on it.

    Raises BadInput for a slug, name or configuration that cannot be, Conflict where the slug is taken.
    """
    if not SLUG.fullmatch(slug):
        raise BadInput(
            f"{slug[:80]!r} cannot be part of an address; expected lower-case letters, digits and dashes.", field="slug"
        )
    queries.claim_slug(session, slug)
    if queries.find_project(session, slug) is not None:
        raise Conflict(f"There is a project at /p/{slug}/ already. Choose another address.")
    project = Project(
        slug=slug,
        name=accounts.parse_name(name),
        base_checkpoint_id=base.id,
        outputs_per_task=outputs_per_task,
        sampling=sampling.model_dump(),
        automation=automation.model_dump(),
        training_config=parse_config(training_config),
    )
    session.add(project)
    session.flush()
    session.add(LabelSchema(project_id=project.id, version=1, fields=[field.as_json() for field in labels.PAPERS]))
    if actor is not None:
        session.add(Membership(project_id=project.id, user_id=actor.id, roles=[Role.OWNER.value]))
    root = checkpoints.register(session, project, kind=CheckpointKind.BASE, sha256=base.sha256, parents={}, metrics={})
    checkpoints.open_first_round(session, project, root)
    audit.record(
        session,
        actor=actor,
        project=project,
        action="create project",
        subject_kind="project",
        subject_uid=project.uid,
        slug=slug,
        base=base.name,
    )
    return project


def create_as_owner(session: Session, user: User, *, name: str, slug: str, base_uid: str) -> Project:
    """Begin a project with default settings on a registered base model. Raises Forbidden for anybody but an owner."""
    if not user.is_owner:
        raise Forbidden("Only an owner of this installation begins projects.")
    try:
        base = queries.find_base_by_uid(session, UUID(base_uid))
    except ValueError:
        base = None
    if base is None:
        raise BadInput("Choose one of the registered base models.", field="base")
    return create_project(
        session,
        slug=slug,
        name=name,
        base=base,
        sampling=SamplingSettings(),
        automation=AutomationSettings(),
        outputs_per_task=4,
        training_config="",
        actor=user,
    )


def change_settings(session: Session, access: Access, form: ProjectForm) -> list[str]:
    """Set what a project's admins may set, and return the names of what changed. Each change is in the audit log."""
    access.demand(Permission.MANAGE_SETTINGS)
    project = queries.find_project(session, access.project.slug, lock=True)
    if project is None:
        raise Conflict("The project is gone.")
    wanted: dict[str, object] = {
        "name": accounts.parse_name(form.name),
        "outputs_per_task": form.outputs_per_task,
        "asks_to_edit_best": form.asks_to_edit_best,
        "training_config": parse_config(form.training_config),
        "sampling": form.sampling.model_dump(),
        "automation": form.automation.model_dump(),
        "school": form.school.model_dump(),
    }
    stored = {field: getattr(project, field) for field in wanted} | {"school": find_school(project).model_dump()}
    changed = [field for field, value in wanted.items() if stored[field] != value]
    for field in changed:
        former, value = stored[field], wanted[field]
        setattr(project, field, value)
        audit.record(
            session,
            actor=access.user,
            project=project,
            action="change settings",
            subject_kind="project",
            subject_uid=project.uid,
            setting=field,
            **_difference(former, value),
        )
    if "sampling" in changed:
        sampling.reconsider_prompts(session, project)
    return changed


def find_sampling(project: Project) -> SamplingSettings:
    """How the project samples."""
    return SamplingSettings.model_validate(project.sampling)


def find_automation(project: Project) -> AutomationSettings:
    """What the project does by itself."""
    return AutomationSettings.model_validate(project.automation)


def find_school(project: Project) -> SchoolSettings:
    """How the project trains, qualifies and checks its labellers."""
    return SchoolSettings.model_validate(project.school)


def register_base(session: Session, *, name: str, source: str, sha256: str) -> BaseCheckpoint:
    """The row of a base model whose files lie in the store; the same files are one row. Raises BadInput for other files."""
    found = queries.find_base(session, sha256)
    if found is None:
        checkpoints.verify_files(sha256)
        found = BaseCheckpoint(name=name, source=source, sha256=sha256)
        session.add(found)
        session.flush()
    return found


def parse_config(text: str) -> str:
    """Training configuration as it is stored: valid TOML, whose only top-level entries are tables. Raises BadInput."""
    config = text.replace("\r\n", "\n").strip()
    try:
        parsed = tomllib.loads(config)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"The training configuration is not valid TOML: {error}.", field="training_config") from error
    tables = ("sft", "reward", "ppo", "sample")
    for key, value in parsed.items():
        if key not in tables or not isinstance(value, dict):
            raise BadInput(
                f"The training configuration has the entry {key!r}; expected only the tables "
                f"{', '.join(f'[{table}]' for table in tables)}.",
                field="training_config",
            )
    return config


def describe(error: ValidationError) -> dict[str, str]:
    """A sentence per field of a form that does not hold, by the field's name in the form."""
    return {"-".join(str(part) for part in item["loc"]): f"{item['msg']}." for item in error.errors()}


def _difference(former: object, value: object) -> dict[str, str]:
    if isinstance(former, dict) and isinstance(value, dict):
        keys = [key for key in value if former.get(key) != value[key]]
        return {
            "former": ", ".join(f"{key} {former.get(key)}" for key in keys),
            "value": ", ".join(f"{key} {value[key]}" for key in keys),
        }
    return {"former": str(former)[:500], "value": str(value)[:500]}
