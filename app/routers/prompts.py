"""The prompts of a project: the list with its filters and edits, their distribution, pools, and the quarantine."""

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse

from app.errors import BadInput
from app.intake.categories import suggest_category
from app.models import Category, Prompt, PromptEdit, PromptStatus, Split
from app.permissions import Access, Permission
from app.queries import pools as queries
from app.queries import prompts as prompt_queries
from app.queries.pools import PromptFilter
from app.schemas.values import read_uuid
from app.services import pools, prompt_labels
from app.services.pools import Act, Change
from app.web import paper
from app.web.deps import SessionDep, require
from app.web.forms import Fields
from app.web.redirects import see_other
from app.web.render import render

PAGE_SIZE = 50

router = APIRouter(prefix="/p/{slug}/prompts")

Reader = Annotated[Access, Depends(require(Permission.READ_DATA))]
Importer = Annotated[Access, Depends(require(Permission.MANAGE_PROMPTS))]

_Choice = TypeVar("_Choice", Category, Split, PromptStatus)
_NONE = "none"
FILTERS = ("q", "category", "split", "status", "pool", "language", "source", "import")
"""Names in the address that narrow the list; no other is looked at."""


def read_filter(values: Mapping[str, str]) -> PromptFilter:
    """The filter that an address or form names; what is no value of a field leaves it open."""
    language = values.get("language", "")
    return PromptFilter(
        category=_choice(values, "category", Category),
        is_uncategorised=values.get("category") == _NONE,
        split=_choice(values, "split", Split),
        status=_choice(values, "status", PromptStatus),
        pool=read_uuid(values.get("pool", "")),
        language=language if re.fullmatch(r"[a-z]{2,3}", language) else None,
        source=_text(values, "source"),
        of_import=read_uuid(values.get("import", "")),
        words=_text(values, "q"),
    )


def _choice(values: Mapping[str, str], name: str, choices: type[_Choice]) -> _Choice | None:
    return choices(values[name]) if values.get(name) in list(choices) else None


def _text(values: Mapping[str, str], name: str) -> str | None:
    return values.get(name, "").replace("\x00", "").strip() or None


def _address(values: Mapping[str, str]) -> str:
    """The filter of an address, to be put into another."""
    return urlencode({name: values[name] for name in FILTERS if values.get(name)})


@router.get("")
def list_prompts(
    request: Request,
    session: SessionDep,
    access: Reader,
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    edit: str = "",
    undone: int | None = None,
) -> HTMLResponse:
    """Prompts, newest first, narrowed by the filter that the address holds."""
    made_uid = read_uuid(edit)
    made = queries.find_edit(session, access.project.id, made_uid) if made_uid else None
    return _index(request, session, access, dict(request.query_params), before=before, made=made, undone=undone)


@router.post("/edit")
def edit_prompts(request: Request, session: SessionDep, access: Importer, fields: Fields) -> RedirectResponse:
    """Change the ticked prompts, or all that the filter lets through."""
    values = {name: texts[-1] for name, texts in fields.items()}
    act = values.get("act", "")
    if act not in list(Act):
        raise BadInput("Choose what is to be done with the prompts.", field="act")
    change = Change(Act(act), category=_choice(values, "to_category", Category), pool=values.get("to_pool", ""))
    uids = None
    if "all" not in values:
        uids = [uid for text in fields.get("prompt", []) if (uid := read_uuid(text)) is not None]
    made = pools.edit(session, access, read_filter(values), change, uids=uids)
    address = _address(values)
    return see_other(f"/p/{access.project.slug}/prompts?{address}{'&' if address else ''}edit={made.uid}")


@router.post("/edits/{uid}/undo")
def undo(session: SessionDep, access: Importer, uid: uuid.UUID, fields: Fields) -> RedirectResponse:
    """Make the prompts of an edit what they were."""
    count = pools.undo(session, access, uid)
    address = _address({name: texts[-1] for name, texts in fields.items()})
    return see_other(f"/p/{access.project.slug}/prompts?{address}{'&' if address else ''}undone={count}")


@router.get("/figures")
def figures(request: Request, session: SessionDep, access: Reader) -> HTMLResponse:
    """How the prompts of a filter are distributed, beside the paper's Table 1."""
    values = dict(request.query_params)
    wanted = read_filter(values)
    project_id = access.project.id
    return render(
        request,
        "prompts/figures.html",
        address=_address(values),
        wanted=wanted,
        counts={group: queries.count_by(session, project_id, wanted, group) for group in queries.GROUPS},
        lengths=queries.count_lengths(session, project_id, wanted),
        length_ends=queries.LENGTHS,
        categories=list(Category),
        paper=paper.TABLE_1,
    )


@router.get("/pools")
def list_pools(request: Request, session: SessionDep, access: Reader) -> HTMLResponse:
    """The pools, what is in each, and the switch."""
    return render(request, "prompts/pools.html", rows=queries.list_pool_rows(session, access.project.id))


@router.post("/pools/{uid}/switch")
def switch_pool(session: SessionDep, access: Importer, uid: uuid.UUID, fields: Fields) -> RedirectResponse:
    """Switch a pool on or off."""
    pools.switch_pool(session, access, uid, is_active=fields.get("is_active", [""])[-1] == "true")
    return see_other(f"/p/{access.project.slug}/prompts/pools")


@router.get("/quarantine")
def quarantine(
    request: Request,
    session: SessionDep,
    access: Importer,
    before: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    done: str = "",
) -> HTMLResponse:
    """Prompts in which personal data was found, with what was found marked."""
    of_import = read_uuid(request.query_params.get("import", ""))
    rows = queries.page_quarantine(session, access.project.id, of_import=of_import, before=before, limit=PAGE_SIZE + 1)
    return render(
        request,
        "prompts/quarantine.html",
        rows=rows[:PAGE_SIZE],
        marked={row.prompt.id: mark(row.prompt) for row in rows},
        next_before=rows[PAGE_SIZE - 1].prompt.id if len(rows) > PAGE_SIZE else None,
        is_first=before is None,
        of_import=of_import,
        count=queries.count_prompts(
            session, access.project.id, PromptFilter(status=PromptStatus.PII, of_import=of_import)
        ),
        done=done,
    )


def mark(prompt: Prompt) -> list[tuple[str, list[tuple[str, str]]]]:
    """The turns of a prompt as (role, pieces), each piece a text with the kind of what was found in it, or none."""
    turns = []
    for number, turn in enumerate(prompt.messages):
        text, at = turn["content"], 0
        pieces: list[tuple[str, str]] = []
        for found in sorted((one for one in prompt.findings if one["turn"] == number), key=lambda one: one["start"]):
            start = max(at, found["start"])
            pieces += [(text[at:start], ""), (text[start : found["end"]], found["kind"])]
            at = max(at, found["end"])
        turns.append((turn["role"], [piece for piece in [*pieces, (text[at:], "")] if piece[0]]))
    return turns


@router.post("/{uid}/release")
def release(session: SessionDep, access: Importer, uid: uuid.UUID, fields: Fields) -> RedirectResponse:
    """Make a prompt that was said to hold personal data active again."""
    prompt_labels.release(session, access, uid)
    return _back(access, fields, "released")


@router.post("/{uid}/mask")
def mask_prompt(session: SessionDep, access: Importer, uid: uuid.UUID, fields: Fields) -> RedirectResponse:
    """Mask what was found, and let the prompt in."""
    pools.mask(session, access, uid)
    return _back(access, fields, "masked")


@router.post("/{uid}/retire")
def retire(session: SessionDep, access: Importer, uid: uuid.UUID, fields: Fields) -> RedirectResponse:
    """Take a quarantined prompt out for good."""
    pools.discard(session, access, uid)
    return _back(access, fields, "retired")


def _back(access: Access, fields: Mapping[str, Sequence[str]], done: str) -> RedirectResponse:
    """To the quarantine's page the decision came from."""
    of_import = read_uuid(fields.get("import", [""])[-1])
    before = fields.get("before", [""])[-1]
    address = {"done": done} | ({"import": str(of_import)} if of_import else {})
    address |= {"before": before} if before.isdecimal() else {}
    return see_other(f"/p/{access.project.slug}/prompts/quarantine?{urlencode(address)}")


def _index(
    request: Request,
    session: Session,
    access: Access,
    values: Mapping[str, str],
    *,
    before: int | None,
    made: PromptEdit | None,
    undone: int | None,
) -> HTMLResponse:
    wanted = read_filter(values)
    project_id = access.project.id
    rows = queries.page_prompts(session, project_id, wanted, before=before, limit=PAGE_SIZE + 1)
    return render(
        request,
        "prompts/index.html",
        rows=rows[:PAGE_SIZE],
        next_before=rows[PAGE_SIZE - 1].prompt.id if len(rows) > PAGE_SIZE else None,
        wanted=wanted,
        address=_address(values),
        given={name: values.get(name, "") for name in FILTERS},
        is_first=before is None,
        counts=prompt_queries.count_by_split(session, project_id),
        pools=prompt_queries.list_pools(session, project_id),
        categories=list(Category),
        splits=list(Split),
        statuses=list(PromptStatus),
        made=made,
        undone=undone,
        suggest=suggest_category,
    )
