"""A run's live metrics as curves with names and explanations."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.models import Run, RunMetric
from app.queries import runs as queries
from app.queries.jobs import LIVE
from app.schemas.runs import Curve, Curves
from app.web import glossary

MOST_STEPS = 400
"""More points than that are finer than a screen shows."""


def read_curves(session: Session, run: Run) -> Curves:
    """The run's numbers so far, the telling ones first."""
    rows = thin(queries.list_metrics(session, run.project_id, run.id))
    return Curves(
        state=run.job.state,
        is_live=run.job.state in LIVE,
        steps=[row.step for row in rows],
        curves=[_curve(name, rows) for name in glossary.sort_names(name for row in rows for name in row.values)],
    )


def thin(rows: Sequence[RunMetric]) -> list[RunMetric]:
    """At most `MOST_STEPS` rows, evenly chosen from the end."""
    stride = -(-len(rows) // MOST_STEPS) or 1
    return list(rows[::-1][::stride][::-1])


def _curve(name: str, rows: Sequence[RunMetric]) -> Curve:
    entry = glossary.metric(name)
    values = [row.values.get(name) for row in rows]
    last = next((value for value in reversed(values) if value is not None), None)
    return Curve(
        name=name,
        label=entry.label,
        explanation=entry.explanation,
        digits=entry.digits,
        unit=entry.unit,
        values=values,
        last=entry.show(last),
    )
