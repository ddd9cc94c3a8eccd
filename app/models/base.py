"""What every table shares: naming, column types, and the project scope that composite foreign keys enforce."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    TIMESTAMP,
    BigInteger,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import SchemaItem

Json = dict[str, Any]


class Base(DeclarativeBase):
    """Declarative base: text without length, timestamps with zone, JSON as jsonb, predictable constraint names."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (declared by SQLAlchemy as a class attribute)
        str: Text,
        int: BigInteger,
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        list[dict[str, Any]]: JSONB,
        list[str]: ARRAY(Text),
        list[int]: ARRAY(BigInteger),
        uuid.UUID: Uuid,
    }


class HasId:
    """A bigint key for joins and a creation time."""

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class HasUid:
    """A uuid for URLs and exports, so that ids are never guessable or comparable across projects."""

    uid: Mapped[uuid.UUID] = mapped_column(default=uuid.uuid4, server_default=func.gen_random_uuid(), unique=True)


class InProject(HasId):
    """A row that belongs to one project. Use `scoped(...)` for its table arguments."""

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))


def scoped(*items: SchemaItem) -> tuple[SchemaItem, ...]:
    """Table arguments of a project's table: (project_id, id) is unique, so that others can refer to it."""
    return (UniqueConstraint("project_id", "id"), *items)


def refers(column: str, table: str, *, ondelete: str | None = None) -> ForeignKeyConstraint:
    """A foreign key inside the project: (project_id, column) -> table (project_id, id)."""
    return ForeignKeyConstraint(["project_id", column], [f"{table}.project_id", f"{table}.id"], ondelete=ondelete)


def enum_type(choices: type[StrEnum]) -> Enum:
    """Stored as text with a CHECK constraint: readable in SQL, and a new member is one migration."""
    return Enum(
        choices,
        native_enum=False,
        create_constraint=True,
        length=32,
        name=choices.__name__.lower(),
        values_callable=lambda members: [member.value for member in members],
    )
