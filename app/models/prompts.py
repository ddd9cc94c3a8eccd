"""Prompts, and the texts that answer them."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, HasUid, InProject, Json, enum_type, refers, scoped


class Category(StrEnum):
    """The ten use cases of the paper's Table 1."""

    GENERATION = "generation"
    OPEN_QA = "open_qa"
    BRAINSTORMING = "brainstorming"
    CHAT = "chat"
    REWRITE = "rewrite"
    SUMMARIZATION = "summarization"
    CLASSIFICATION = "classification"
    OTHER = "other"
    CLOSED_QA = "closed_qa"
    EXTRACT = "extract"


class Split(StrEnum):
    """Chosen per source group, so that no writer is on both sides."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"


class PromptStatus(StrEnum):
    """Only active prompts are sampled; the others are kept for the record."""

    ACTIVE = "active"
    DUPLICATE = "duplicate"
    """It says nearly what another says, or begins like it at length; `duplicate_of_id` names that one."""
    CAPPED = "capped"
    """Its source has as many prompts here as one source may have."""
    LANGUAGE = "language"
    """In a language that its import was to leave out."""
    PII = "pii"
    """Patterns or a person found personal data in it; in no task, draw or snapshot until it is released."""
    RETIRED = "retired"


class SampleOrigin(StrEnum):
    """Where a text came from."""

    MODEL = "model"
    HUMAN = "human"
    EDITED = "edited"
    IMPORTED = "imported"


class PromptPool(InProject, HasUid, Base):
    """A named set of prompts that is imported and switched on or off as one."""

    __tablename__ = "prompt_pools"
    __table_args__ = scoped(UniqueConstraint("project_id", "name"))

    name: Mapped[str]
    is_active: Mapped[bool] = mapped_column(default=True, server_default="true")


class Prompt(InProject, HasUid, Base):
    """A conversation up to and including a user turn."""

    __tablename__ = "prompts"
    __table_args__ = scoped(
        UniqueConstraint("project_id", "fingerprint"),
        refers("pool_id", "prompt_pools", ondelete="CASCADE"),
        refers("parent_id", "prompts"),
        refers("duplicate_of_id", "prompts"),
        Index(None, "project_id", "status", "split", "id"),
        Index("ix_prompts_unindexed", "project_id", "id", postgresql_where=text("NOT is_indexed")),
        CheckConstraint("jsonb_array_length(messages) > 0", name="has_messages"),
        CheckConstraint("status <> 'pii' OR is_private", name="quarantined_is_private"),
    )

    project_id: Mapped[int] = mapped_column()
    """Held by the pool's foreign key: one of its own, and one of the import, would cost an import a quarter of its time."""
    pool_id: Mapped[int]
    messages: Mapped[list[Json]]
    """[{"role": "user" | "assistant" | "system", "content": str}, ...]; the last is the user's."""
    category: Mapped[Category | None] = mapped_column(enum_type(Category))
    is_category_labelled: Mapped[bool] = mapped_column(default=False, server_default="false")
    """Whether a labeller said so; then the newest label holds. An imported category stays."""
    source: Mapped[str]
    """User or organisation the prompt comes from, pseudonymous; split and cap go by it."""
    split: Mapped[Split] = mapped_column(enum_type(Split))
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    """sha256 of the normalised messages as they came, also of one that was masked since; a prompt is stored once per project."""
    status: Mapped[PromptStatus] = mapped_column(enum_type(PromptStatus), default=PromptStatus.ACTIVE)
    reference: Mapped[str | None]
    verifier: Mapped[str | None]
    parent_id: Mapped[int | None]
    """The earlier turn of the same conversation: same source, same split."""
    needs: Mapped[list[str]] = mapped_column(default=list, server_default="{}")
    """Tags (`app.schemas.needs`) that its tasks ask of a person."""
    licence: Mapped[str | None]
    consent: Mapped[str | None]
    problem: Mapped[str | None]
    """Why the sampler cannot answer it, in words (too long for the model); None where nothing stands against it."""
    import_id: Mapped[int | None]
    """The import that brought it first; found by the range of ids that the import notes, without an index of its own."""
    language: Mapped[str | None]
    """ISO 639-1 code, as detected; None where nobody looked or it cannot be told."""
    duplicate_of_id: Mapped[int | None]
    is_private: Mapped[bool] = mapped_column(default=False, server_default="false")
    """Whether personal data stands in it, as far as is known: then it is in no snapshot, whatever its status."""
    findings: Mapped[list[Json]] = mapped_column(default=list, server_default="[]")
    """Personal data that patterns found: [{"kind", "turn", "start", "end"}, ...], in characters of that turn."""
    is_indexed: Mapped[bool] = mapped_column(default=False, server_default="false")
    """Whether its keys are in a `PromptSegment`; the next import sees to it."""


class PromptEdit(InProject, HasUid, Base):
    """One change of many prompts at once, which can be taken back."""

    __tablename__ = "prompt_edits"
    __table_args__ = scoped()

    author_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    field: Mapped[str]
    """The column that was changed: status, category or pool_id."""
    value: Mapped[str | None]
    """What it was set to, as text."""
    prompts: Mapped[int]
    undone_at: Mapped[datetime | None]


class PromptEditRow(Base):
    """What one prompt of an edit was before."""

    __tablename__ = "prompt_edit_rows"
    __table_args__ = (
        refers("edit_id", "prompt_edits", ondelete="CASCADE"),
        refers("prompt_id", "prompts", ondelete="CASCADE"),
    )

    project_id: Mapped[int]
    edit_id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(primary_key=True)
    before: Mapped[str | None]
    after: Mapped[str | None]
    was_labelled: Mapped[bool] = mapped_column(default=False, server_default="false")
    """`Prompt.is_category_labelled` before."""


class Sample(InProject, HasUid, Base):
    """One text that answers a prompt; rendered once, when it is stored."""

    __tablename__ = "samples"
    __table_args__ = scoped(
        refers("prompt_id", "prompts", ondelete="CASCADE"),
        refers("sampler_id", "samplers"),
        refers("parent_id", "samples"),
        Index(None, "project_id", "prompt_id"),
        Index(None, "project_id", "sampler_id"),
    )

    prompt_id: Mapped[int]
    origin: Mapped[SampleOrigin] = mapped_column(enum_type(SampleOrigin))
    sampler_id: Mapped[int | None]
    parent_id: Mapped[int | None]
    """The text this one was edited from."""
    author_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    seed: Mapped[int | None]
    text: Mapped[str]
    html: Mapped[str]
    """`text` as sanitised HTML (`app.web.markup`)."""
    length_tokens: Mapped[int | None]
    finish_reason: Mapped[str | None]
