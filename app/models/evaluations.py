"""Evaluations: two samplers on the same frozen prompts, judged by one cohort under one phase of the guidelines."""

from enum import StrEnum

from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, HasUid, InProject, Json, enum_type, refers, scoped
from app.models.guidelines import Phase
from app.models.projects import Cohort


class EvaluationState(StrEnum):
    """Sampling fills the outputs, open takes judgements, closed has its result."""

    SAMPLING = "sampling"
    OPEN = "open"
    CLOSED = "closed"


class Evaluation(InProject, HasUid, Base):
    """A question put to people: is the left sampler better than the right one?"""

    __tablename__ = "evaluations"
    __table_args__ = scoped(refers("left_id", "samplers"), refers("right_id", "samplers"))

    left_id: Mapped[int]
    right_id: Mapped[int]
    cohort: Mapped[Cohort | None] = mapped_column(enum_type(Cohort))
    """Whose answers count; None for everybody's."""
    phase: Mapped[Phase] = mapped_column(enum_type(Phase))
    state: Mapped[EvaluationState] = mapped_column(enum_type(EvaluationState))
    result: Mapped[Json | None]
    """What became of the prompts: `identical` answers of both, which are ties, and prompts `unanswered` by one."""


class EvaluationPrompt(Base):
    """A prompt frozen into an evaluation."""

    __tablename__ = "evaluation_prompts"
    __table_args__ = (refers("evaluation_id", "evaluations", ondelete="CASCADE"), refers("prompt_id", "prompts"))

    project_id: Mapped[int]
    evaluation_id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(primary_key=True)
