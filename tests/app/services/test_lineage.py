"""The lineage while models are being registered."""

from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.models import CheckpointKind
from app.queries import checkpoints as queries
from app.services import lineage
from tests.app import registry


def test_leaves_out_a_model_registered_while_it_reads(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, base = registry.make_project(session, tmp_path)
    sft = registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
    seen = queries.list_checkpoints(session, project.id)
    registry.make_checkpoint(session, project, tmp_path, CheckpointKind.REWARD, init=sft)
    monkeypatch.setattr(queries, "list_checkpoints", lambda *_: seen)
    assert [node.checkpoint.name for node in lineage.lineage(session, project.id)] == ["Base", "SFT 1"]
