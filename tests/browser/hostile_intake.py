"""Imports and the quarantine with hostile text: file names, columns, cells, refused rows, what was found in prompts."""

import json

from sqlalchemy.orm import Session

from app.models import ImportRefusal, PromptStatus
from app.permissions import Access
from app.schemas.imports import ImportSettings
from app.services import imports
from tests.app import registry, uploads
from tests.app.hostile import LINES, NAME, PAYLOADS


def plant(session: Session, access: Access) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The pages that show them, and those that show the beginning alone: a name is cut at 200 characters."""
    rows = [{"prompt": payload, NAME: payload, "source": NAME} for payload in PAYLOADS[:10]]
    table = "".join(json.dumps(row) + "\n" for row in rows).encode() + NAME.encode() + b"\n"
    draft = uploads.make_import(session, access, table, name=NAME)
    started = uploads.make_import(session, access, table, name=NAME)
    told = ImportSettings.model_validate(started.settings | {"pool": "birds"})
    imports.start(session, access, started.uid, told)
    session.add_all(
        ImportRefusal(project_id=access.project.id, import_id=started.id, line=number, reason=line)
        for number, line in enumerate(LINES)
    )
    prompt = registry.make_prompt(session, access.project)
    prompt.messages = [{"role": "user", "content": payload} for payload in PAYLOADS]
    prompt.status, prompt.is_private = PromptStatus.PII, True
    prompt.findings = [
        {"kind": "email", "turn": turn, "start": 0, "end": len(payload)} for turn, payload in enumerate(PAYLOADS)
    ]
    session.flush()
    home = f"/p/{access.project.slug}"
    begun = (f"{home}/imports", f"{home}/imports/{draft.uid}", f"{home}/imports/{started.uid}")
    return (f"{home}/prompts/pools",), (*begun, f"{home}/prompts/quarantine")
