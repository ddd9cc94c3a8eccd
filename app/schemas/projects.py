"""Settings of a project that live in its row as JSON: how it samples, and what the automation does by itself."""

from pydantic import BaseModel, ConfigDict, Field


class SamplingSettings(BaseModel):
    """How the active model's answers are drawn for the ranking page. The paper samples at T = 1 without cuts."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: float = Field(1.0, gt=0, le=4, description="Sampling temperature T.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus probability; 1 keeps the whole vocabulary.")
    max_new_tokens: int = Field(512, ge=1, le=8192, description="Longest response, in tokens.")
    judgements_wanted: int = Field(1, ge=1, le=100, description="How many different people judge each task.")
    sensitive_tasks_a_day: int = Field(
        20,
        ge=0,
        le=1000,
        description="Tasks with sensitive content that one person is shown in 24 hours, if they agreed to see it.",
    )
    valid_share: float = Field(
        0.2,
        ge=0,
        le=0.9,
        description="Share of tasks on held-out prompts: they measure the reward model, never train it.",
    )


class AutomationSettings(BaseModel):
    """The rules of house.md §6. Promotion of a policy is always a person's click."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    is_on: bool = Field(True, description="Let the automation fill the queue and start training by the rules below.")
    ready_tasks: int = Field(40, ge=0, le=10_000, description="Rank tasks kept waiting that nobody has taken.")
    judgements_per_reward_model: int = Field(500, ge=1, description="New judgements until the next reward model.")
    hours_per_reward_model: float = Field(
        24.0, gt=0, le=87_600, description="Hours a new judgement waits at most for the next reward model."
    )
    demonstrations_growth: float = Field(
        0.25,
        gt=0,
        le=1000,
        description="Share by which demonstrations must grow until SFT is trained again, and all below it.",
    )
    train_policy: bool = Field(True, description="Start PPO when a better reward model becomes active.")


class SchoolSettings(BaseModel):
    """How labellers are trained, qualified and checked. By default nobody is kept from starting at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    requires_qualification: bool = Field(
        False, description="Give work only to people who have passed the qualification test."
    )
    test_tasks: int = Field(5, ge=1, le=100, description="Tasks in a qualification test.")
    pass_mark: float = Field(
        0.75,
        ge=0,
        le=1,
        description="Share of the references' pairs that must be ordered alike: in the test, and in a gold task. "
        "0.75 is the paper's.",
    )
    attempts: int = Field(2, ge=1, le=100, description="Attempts at the test; an admin can give more.")
    gold_rate: float = Field(
        0.0, ge=0, le=0.5, description="Share of a labeller's ranking tasks that are gold: their answer is known."
    )
    shows_gold_misses: bool = Field(
        False, description="Show labellers in their history which gold tasks they missed, and let them appeal."
    )


class ProjectForm(BaseModel):
    """What a project's admins may set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=100)
    outputs_per_task: int = Field(4, ge=2, le=9)
    asks_to_edit_best: bool = False
    sampling: SamplingSettings
    automation: AutomationSettings
    school: SchoolSettings = SchoolSettings()
    training_config: str = Field("", max_length=50_000)
