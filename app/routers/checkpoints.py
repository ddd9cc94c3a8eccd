"""The registry's pages: the lineage, one model with its numbers and answers, promotion, and its files."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, StreamingResponse

from app import storage
from app.archive import stream_zip
from app.errors import NotFound
from app.models import Checkpoint, CheckpointKind
from app.permissions import Access, Permission
from app.queries import checkpoints as queries
from app.queries import pipeline as pipeline_queries
from app.services import checkpoints, lineage, pipeline
from app.settings import get_settings
from app.web import glossary
from app.web.deps import SessionDep, require
from app.web.redirects import local_path, see_other
from app.web.render import render

router = APIRouter(prefix="/p/{slug}/checkpoints")

CanRead = Annotated[Access, Depends(require(Permission.READ_PIPELINE))]
CanPromote = Annotated[Access, Depends(require(Permission.PROMOTE))]
CanReadData = Annotated[Access, Depends(require(Permission.READ_DATA))]


@router.get("")
def index(request: Request, access: CanRead, session: SessionDep) -> HTMLResponse:
    """All models as the tree of what was made from what."""
    return render(
        request,
        "checkpoints/index.html",
        nodes=lineage.lineage(session, access.project.id),
        glossary=glossary,
    )


@router.get("/{uid}")
def show(request: Request, uid: UUID, access: CanRead, session: SessionDep) -> HTMLResponse:
    """One model."""
    checkpoint = _find(session, access, uid)
    nodes = lineage.lineage(session, access.project.id)
    is_reward = checkpoint.kind == CheckpointKind.REWARD
    models = [] if is_reward else pipeline.compared_models(session, access.project.id, also=checkpoint)
    return render(
        request,
        "checkpoints/show.html",
        checkpoint=checkpoint,
        node=next(node for node in nodes if node.checkpoint.id == checkpoint.id),
        children=[node for node in nodes if checkpoint.id in {parent.checkpoint.id for parent in node.parents}],
        acts=pipeline_queries.list_acts(session, access.project.id, checkpoint.uid),
        active=checkpoints.active_policy(session, access.project.id),
        models=models,
        answers=pipeline.read_answers(session, access.project.id, models),
        promotable=checkpoints.PROMOTABLE,
        glossary=glossary,
    )


@router.post("/{uid}/promote")
def promote(
    uid: UUID, access: CanPromote, session: SessionDep, back: Annotated[str, Form(max_length=500)] = ""
) -> RedirectResponse:
    """Let a model answer the prompts, or a reward model score them, from now on."""
    checkpoint = _find(session, access, uid)
    if checkpoint.kind == CheckpointKind.REWARD:
        checkpoints.activate_reward(session, access.project, checkpoint, access)
    else:
        checkpoints.promote(session, access, access.project, checkpoint)
    return see_other(local_path(back, default=f"/p/{access.project.slug}/checkpoints/{uid}"))


@router.get("/{uid}/files.zip")
def download(uid: UUID, access: CanReadData, session: SessionDep) -> StreamingResponse:
    """The model's folder, which opens in plain transformers."""
    checkpoint = _find(session, access, uid)
    folder = storage.checkpoint_folder(get_settings(), checkpoint.sha256)
    if not folder.is_dir():
        raise NotFound(f"The files of {checkpoint.name} are gone from the store; restore them from a backup.")
    name = f"{access.project.slug}-{checkpoint.name.lower().replace(' ', '-')}"
    return StreamingResponse(
        stream_zip(folder, name=name),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{name}.zip"'},
    )


def _find(session: SessionDep, access: Access, uid: UUID) -> Checkpoint:
    checkpoint = queries.find_checkpoint(session, access.project.id, uid)
    if checkpoint is None:
        raise NotFound("There is no such checkpoint in this project.")
    return checkpoint
