"""Who may do what. Default deny: a route names the permission it needs, and a test walks every route to see that it does."""

from dataclasses import dataclass
from enum import StrEnum

from app.errors import Forbidden
from app.models import Cohort, LabelSchema, Membership, Project, Role, User


class Permission(StrEnum):
    """An act on a project. Each belongs to the roles in `GRANTS`; the owner holds all."""

    LABEL = "label"
    READ_GUIDELINES = "read guidelines"
    READ_PIPELINE = "read the pipeline"
    READ_DATA = "read data"
    MANAGE_PROMPTS = "manage prompts"
    MANAGE_GUIDELINES = "manage guidelines"
    MANAGE_PEOPLE = "manage people"
    MANAGE_SCHOOL = "manage qualification and gold"
    ANSWER = "answer questions"
    MANAGE_SETTINGS = "manage settings"
    TRAIN = "start and cancel runs and sampling plans"
    EVALUATE = "ask people to compare, rate and label"
    PROMOTE = "promote a checkpoint"
    READ_AUDIT = "read the audit log"


GRANTS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.ADMIN: frozenset(Permission) - {Permission.LABEL},
    Role.RESEARCHER: frozenset(
        {
            Permission.READ_GUIDELINES,
            Permission.READ_PIPELINE,
            Permission.READ_DATA,
            Permission.TRAIN,
            Permission.EVALUATE,
        }
    ),
    Role.LABELLER: frozenset({Permission.LABEL, Permission.READ_GUIDELINES}),
}


@dataclass(frozen=True)
class Access:
    """A person inside a project: what a service is given instead of a request."""

    user: User
    project: Project
    roles: frozenset[Role]
    cohort: Cohort
    membership: Membership | None = None
    """Their place in the project, where it was read on the way here."""
    label_schema: LabelSchema | None = None
    """The questions in force, likewise."""

    def may(self, permission: Permission) -> bool:
        """Whether any of the roles grants `permission`."""
        return any(permission in GRANTS[role] for role in self.roles)

    def demand(self, permission: Permission) -> None:
        """Raise Forbidden unless `may(permission)`."""
        if not self.may(permission):
            held = ", ".join(sorted(self.roles)) or "none"
            raise Forbidden(
                f"This needs the right to {permission}; your roles here are: {held}. Ask an admin of {self.project.name}."
            )
