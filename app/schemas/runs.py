"""The curves of a run as JSON: what the charts draw, and what a program may read."""

from pydantic import BaseModel, ConfigDict, Field


class Curve(BaseModel):
    """One number over the steps of a run."""

    model_config = ConfigDict(frozen=True)

    name: str
    label: str
    explanation: str
    digits: int
    unit: str
    values: list[float | None] = Field(description="One per step of the run's `steps`; null where it was not reported.")
    last: str = Field(description="The last reported value, as pages print it.")


class Curves(BaseModel):
    """All numbers of a run, thinned to a few hundred steps; the last step is always among them."""

    model_config = ConfigDict(frozen=True)

    state: str
    is_live: bool
    steps: list[int]
    curves: list[Curve]
