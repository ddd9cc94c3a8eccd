"""Prompts, and the texts that answer them."""

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint
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
    PII = "pii"
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
        Index(None, "project_id", "status", "split", "id"),
        CheckConstraint("jsonb_array_length(messages) > 0", name="has_messages"),
    )

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
    """sha256 of the normalised messages; the same prompt is stored once per project."""
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
