"""Files that are brought in: what each is, how far it is, which rows of it were refused, and keys to find alike prompts by."""

from enum import StrEnum

from sqlalchemy import ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.models.base import Base, HasUid, InProject, Json, enum_type, refers, scoped
from app.models.prompts import Split
from app.models.runs import Job


class ImportKind(StrEnum):
    """What an import brings."""

    PROMPTS = "prompts"
    """Prompts, and, where conversations hold them, the answers given, as samples."""
    OUTPUTS = "outputs"
    """Prompts with two to nine responses that people are to rank."""
    RANKINGS = "rankings"
    """Finished comparisons and K-wise rankings."""
    DEMONSTRATIONS = "demonstrations"
    """Prompts with the response that was wanted."""
    TEXT = "text"
    """Plain text for the pretraining mix."""


class Import(InProject, HasUid, Base):
    """One file on its way in. Without a job it is a draft: uploaded, its columns still to be said."""

    __tablename__ = "imports"
    __table_args__ = scoped(
        refers("job_id", "jobs"),
        UniqueConstraint("job_id"),
    )

    kind: Mapped[ImportKind] = mapped_column(enum_type(ImportKind))
    name: Mapped[str]
    """The file's name as it came; shown, never used as a path."""
    container: Mapped[str]
    """`app.intake.containers.Container`."""
    size_bytes: Mapped[int]
    sha256: Mapped[str]
    settings: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """`app.schemas.imports.ImportSettings`."""
    position: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """Where to read on, as `app.intake.containers.Position`; written with what was stored up to there."""
    counts: Mapped[Json] = mapped_column(default=dict, server_default="{}")
    """`app.schemas.imports.Counts`, likewise."""
    has_upload: Mapped[bool] = mapped_column(default=True, server_default="true")
    """Whether the file is in the store; it leaves when the import has come to its end, or was left alone for a week."""
    first_prompt_id: Mapped[int | None]
    """The prompts it brought have ids from here"""
    last_prompt_id: Mapped[int | None]
    """to here, and others may lie between."""
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    job_id: Mapped[int | None]

    job: Mapped[Job | None] = relationship(primaryjoin="foreign(Import.job_id) == Job.id", viewonly=True)


class ImportRefusal(InProject, Base):
    """A row of a file that was not imported, and why."""

    __tablename__ = "import_refusals"
    __table_args__ = scoped(refers("import_id", "imports", ondelete="CASCADE"), Index(None, "import_id", "id"))

    import_id: Mapped[int]
    line: Mapped[int]
    reason: Mapped[str]


class ImportKey(InProject, Base):
    """The prompt behind a name that a file gave to a row, for the rows that call it their parent."""

    __tablename__ = "import_keys"
    __table_args__ = scoped(
        refers("import_id", "imports", ondelete="CASCADE"),
        refers("prompt_id", "prompts", ondelete="CASCADE"),
        UniqueConstraint("import_id", "key"),
    )

    import_id: Mapped[int]
    key: Mapped[str]
    prompt_id: Mapped[int]


class PromptSource(InProject, Base):
    """A user or organisation that prompts come from: which split all of them are in, and how many are kept."""

    __tablename__ = "prompt_sources"
    __table_args__ = scoped(UniqueConstraint("project_id", "name"))

    name: Mapped[str]
    split: Mapped[Split] = mapped_column(enum_type(Split))
    prompts: Mapped[int] = mapped_column(default=0, server_default="0")
    """Those that count against the cap: duplicates and what lies beyond the cap do not."""


class PromptSegment(InProject, Base):
    """Keys of many prompts by which alike ones are found (`app.intake.likeness`), packed and sorted.

    Derived from the prompts, and loaded as a whole by an import; a key a row in a table would cost seven index entries a prompt.
    """

    __tablename__ = "prompt_segments"
    __table_args__ = scoped()

    keys: Mapped[bytes] = mapped_column(LargeBinary)
    ids: Mapped[bytes] = mapped_column(LargeBinary)
    prompts: Mapped[int]
