"""How alike the current judgements of one task order its outputs, counted as they arrive."""

from sqlalchemy import CheckConstraint, Index, UniqueConstraint
from sqlalchemy.orm import Mapped

from app.models.base import Base, InProject, refers, scoped


class Agreement(InProject, Base):
    """Two current judgements of a task by different judges, the older first: the numbers of `app.statistics.PairCounts`."""

    __tablename__ = "agreements"
    __table_args__ = scoped(
        refers("task_id", "tasks", ondelete="CASCADE"),
        refers("first_id", "judgements", ondelete="CASCADE"),
        refers("second_id", "judgements", ondelete="CASCADE"),
        refers("first_judge_id", "judges"),
        refers("second_judge_id", "judges"),
        UniqueConstraint("first_id", "second_id"),
        Index(None, "second_id"),
        Index(None, "project_id", "first_judge_id", "id"),
        Index(None, "project_id", "second_judge_id", "id"),
        CheckConstraint("first_id < second_id AND first_judge_id <> second_judge_id", name="two_judgements"),
        CheckConstraint("alike >= both_tied AND alike + one_tied <= pairs", name="counts_fit"),
    )

    task_id: Mapped[int]
    first_id: Mapped[int]
    second_id: Mapped[int]
    first_judge_id: Mapped[int]
    second_judge_id: Mapped[int]
    pairs: Mapped[int]
    alike: Mapped[int]
    one_tied: Mapped[int]
    both_tied: Mapped[int]
