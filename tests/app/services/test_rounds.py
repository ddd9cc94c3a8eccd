"""The history names, per round, the model judged, how much it was judged, and the reward model behind it."""

from pathlib import Path

from sqlalchemy.orm import Session

from app.models import CheckpointKind, Role
from app.services import checkpoints, counters, rounds
from tests.app.registry import access_of, make_checkpoint, make_project, make_user


def test_history_is_newest_first(session: Session, tmp_path: Path) -> None:
    project, base = make_project(session, tmp_path)
    sft = make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=base)
    reward = make_checkpoint(session, project, tmp_path, CheckpointKind.REWARD, init=sft)
    policy = make_checkpoint(session, project, tmp_path, CheckpointKind.POLICY, init=sft, reward=reward)
    access = access_of(make_user(session), project, Role.ADMIN)
    checkpoints.promote(session, access, project, sft)
    counters.add(session, project.id, counters.judgements_of_round(2), 40)
    checkpoints.promote(session, access, project, policy)

    reports = rounds.history(session, project.id)

    assert [(report.round.number, report.checkpoint.name, report.judgements) for report in reports] == [
        (3, "P 1", 0),
        (2, "SFT 1", 40),
        (1, "Base", 0),
    ]
    assert [report.reward for report in reports] == [reward, None, None]
