"""Imports, pools and edits of prompts for tests, made the way the services make them."""

import io

from sqlalchemy.orm import Session

from app.models import Import, ImportKind, Prompt, PromptEdit, PromptPool
from app.permissions import Access
from app.queries.pools import PromptFilter
from app.schemas.prompts import PromptIn
from app.services import imports, pools, prompts
from app.services.pools import Act, Change


def make_import(
    session: Session,
    access: Access,
    data: bytes = b'{"prompt": "Name a bird."}\n',
    *,
    name: str = "rows.jsonl",
    kind: ImportKind = ImportKind.PROMPTS,
) -> Import:
    """A file that was uploaded."""
    return imports.upload(session, access, kind=kind, name=name, data=io.BytesIO(data))


def make_prompts(session: Session, access: Access, *texts: str, pool: str = "birds") -> PromptPool:
    """Prompts in a pool."""
    rows = [PromptIn(messages=({"role": "user", "content": text},)) for text in texts]
    prompts.import_prompts(session, access.project, pool=pool, rows=rows)
    return session.query(PromptPool).filter_by(project_id=access.project.id, name=pool).one()


def make_edit(session: Session, access: Access) -> PromptEdit:
    """A prompt that was taken out of the work."""
    make_prompts(session, access, "Name a bird that is retired.")
    prompt = session.query(Prompt).filter_by(project_id=access.project.id).order_by(Prompt.id.desc()).first()
    assert prompt is not None
    return pools.edit(session, access, PromptFilter(), Change(Act.RETIRE), uids=[prompt.uid])
