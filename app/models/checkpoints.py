"""The registry: models with their lineage and identity, and the samplers that draw from them."""

from enum import StrEnum

from sqlalchemy import CheckConstraint, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, HasId, HasUid, InProject, Json, enum_type, refers, scoped


class CheckpointKind(StrEnum):
    """The four models of the paper."""

    BASE = "base"
    SFT = "sft"
    REWARD = "reward"
    POLICY = "policy"


class CheckpointState(StrEnum):
    """A candidate waits for a person; at most one reward model and one of base, SFT and policy is active."""

    CANDIDATE = "candidate"
    ACTIVE = "active"
    RETIRED = "retired"


class ParentRole(StrEnum):
    """What a parent was to the run that made the child."""

    INIT = "init"
    REFERENCE = "reference"
    REWARD = "reward"


class BaseCheckpoint(HasId, HasUid, Base):
    """A pretrained model that projects begin from; shared by the installation."""

    __tablename__ = "base_checkpoints"

    name: Mapped[str]
    source: Mapped[str]
    """Where it came from: `starter`, a folder, or a hub name with its revision."""
    sha256: Mapped[str] = mapped_column(unique=True)


class Checkpoint(InProject, HasUid, Base):
    """One model of a project. Its files lie in the store, `checkpoints/<sha256>`, before this row says candidate."""

    __tablename__ = "checkpoints"
    __table_args__ = scoped(
        UniqueConstraint("project_id", "kind", "number"),
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
        Index(
            "uq_checkpoints_active_reward",
            "project_id",
            unique=True,
            postgresql_where=text("state = 'active' AND kind = 'reward'"),
        ),
        Index(
            "uq_checkpoints_active_policy",
            "project_id",
            unique=True,
            postgresql_where=text("state = 'active' AND kind <> 'reward'"),
        ),
    )

    kind: Mapped[CheckpointKind] = mapped_column(enum_type(CheckpointKind))
    number: Mapped[int]
    """Counts per project and kind from 1: SFT 1, R 3, P 7."""
    state: Mapped[CheckpointState] = mapped_column(enum_type(CheckpointState), default=CheckpointState.CANDIDATE)
    sha256: Mapped[str]
    """Identity: hash over the sorted (path, sha256) of all files but preferable.json."""
    metrics: Mapped[Json] = mapped_column(default=dict, server_default="{}")

    @property
    def name(self) -> str:
        """Short name shown to people: `Base`, `SFT 1`, `R 3`, `P 7`."""
        prefix = {"base": "Base", "sft": "SFT", "reward": "R", "policy": "P"}[self.kind]
        return prefix if self.kind == CheckpointKind.BASE else f"{prefix} {self.number}"


class CheckpointParent(InProject, Base):
    """An edge of the lineage."""

    __tablename__ = "checkpoint_parents"
    __table_args__ = scoped(
        refers("checkpoint_id", "checkpoints", ondelete="CASCADE"),
        refers("parent_id", "checkpoints"),
        UniqueConstraint("checkpoint_id", "parent_id", "role"),
    )

    checkpoint_id: Mapped[int]
    parent_id: Mapped[int]
    role: Mapped[ParentRole] = mapped_column(enum_type(ParentRole))


class Sampler(InProject, HasUid, Base):
    """What answers a prompt: a checkpoint or an outside endpoint, with how it is prompted and how it decodes."""

    __tablename__ = "samplers"
    __table_args__ = scoped(
        refers("checkpoint_id", "checkpoints"),
        refers("endpoint_id", "endpoints"),
        refers("reward_id", "checkpoints"),
        UniqueConstraint("project_id", "fingerprint"),
        CheckConstraint("(checkpoint_id IS NULL) <> (endpoint_id IS NULL)", name="checkpoint_or_endpoint"),
        CheckConstraint("reward_id IS NULL OR best_of > 1", name="reward_of_best"),
    )

    checkpoint_id: Mapped[int | None]
    endpoint_id: Mapped[int | None]
    prefix: Mapped[str] = mapped_column(default="", server_default="")
    """Text put before the prompt (the paper's prompted GPT-3)."""
    decoding: Mapped[Json]
    """temperature, top_p, max_new_tokens."""
    best_of: Mapped[int] = mapped_column(default=1, server_default="1")
    """Responses drawn of which the one that `reward_id` scores highest is given. Old ones do not say who chose."""
    reward_id: Mapped[int | None]
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    """sha256 of everything above, so that the same sampler is one row."""
