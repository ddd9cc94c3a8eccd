"""Sampling plans: what people order beside the automation's queue, the prompts a plan took, and models outside that answer."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, HasUid, InProject, Json, enum_type, refers, scoped
from app.models.prompts import Split
from app.models.runs import Job


class Stream(StrEnum):
    """How a plan came to a prompt."""

    CONTROL = "control"
    """Drawn at random from all prompts of the plan, whatever its order: what the chosen ones are compared with."""
    CHOSEN = "chosen"
    """Taken in the plan's order."""


class Endpoint(InProject, HasUid, Base):
    """A model outside that speaks the OpenAI chat protocol. Never changed, since samplers are told apart by it; only removed."""

    __tablename__ = "endpoints"
    __table_args__ = scoped(
        Index("uq_endpoints_name", "project_id", "name", unique=True, postgresql_where=text("removed_at IS NULL")),
        CheckConstraint("removed_at IS NULL OR sealed_key IS NULL", name="no_key_once_removed"),
    )

    name: Mapped[str]
    url: Mapped[str]
    """Where the protocol begins, as `https://models.example.org/v1`."""
    model: Mapped[str]
    """The model's name there."""
    sealed_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The API key under the installation's secret (`app.security.seal`); None where none is needed, and once it is removed."""
    price_in: Mapped[float | None]
    """Per million tokens of prompts, in whatever money the project counts."""
    price_out: Mapped[float | None]
    """Per million tokens of responses."""
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    removed_at: Mapped[datetime | None]

    @property
    def prices(self) -> tuple[float, float] | None:
        """Of a million tokens in and out, where both are known."""
        return None if self.price_in is None or self.price_out is None else (self.price_in, self.price_out)


class SamplingPlan(InProject, HasUid, Base):
    """An order to draw responses and open rank tasks on them. Without a job it is a draft: its cost is looked at."""

    __tablename__ = "sampling_plans"
    __table_args__ = scoped(refers("job_id", "jobs"), UniqueConstraint("job_id"))

    name: Mapped[str]
    settings: Mapped[Json]
    """`app.schemas.plans.PlanSettings`."""
    counts: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """`app.schemas.plans.PlanCounts`; written with the tasks it counts."""
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    job_id: Mapped[int | None]

    job: Mapped[Job | None] = relationship(primaryjoin="foreign(SamplingPlan.job_id) == Job.id", viewonly=True)


class PlanPrompt(Base):
    """A prompt that a plan has taken up, and what became of it."""

    __tablename__ = "plan_prompts"
    __table_args__ = (
        refers("plan_id", "sampling_plans", ondelete="CASCADE"),
        refers("prompt_id", "prompts", ondelete="CASCADE"),
        Index(
            "ix_plan_prompts_waiting", "plan_id", "stream", "split", "position", postgresql_where=text("NOT is_over")
        ),
    )

    project_id: Mapped[int]
    plan_id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(primary_key=True)
    stream: Mapped[Stream] = mapped_column(enum_type(Stream))
    split: Mapped[Split] = mapped_column(enum_type(Split))
    """The prompt's when it was taken up."""
    position: Mapped[int]
    """Its turn within stream and split, the lowest first."""
    is_over: Mapped[bool] = mapped_column(default=False, server_default="false")
    """Whether it has its task or was passed over."""
    problem: Mapped[str | None]
    """Why it was passed over, in words; None where it was not."""
    disagreement: Mapped[float | None]
    """How differently two reward models judge responses to it, 0 to 1; None where nobody looked."""
