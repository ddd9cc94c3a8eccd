"""A sampler is one row per distinct setting."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy.orm import Session

from app import db
from app.schemas.projects import SamplingSettings
from app.services.samplers import ensure_sampler
from app.settings import Settings
from tests.app.registry import make_project


def test_the_same_setting_is_the_same_row(session: Session, tmp_path: Path) -> None:
    project, base = make_project(session, tmp_path)
    first = ensure_sampler(session, project, base, SamplingSettings(temperature=0.7, max_new_tokens=64))
    again = ensure_sampler(
        session, project, base, SamplingSettings(temperature=0.7, max_new_tokens=64, judgements_wanted=3)
    )
    other = ensure_sampler(session, project, base, SamplingSettings(temperature=1.0, max_new_tokens=64))
    assert first.id == again.id != other.id
    assert first.checkpoint_id == base.id
    assert first.decoding == {"temperature": 0.7, "top_p": 1.0, "max_new_tokens": 64}


def test_workers_asking_at_the_same_moment_get_one_row(settings: Settings, tmp_path: Path) -> None:
    with db.transaction() as session:
        project, base = make_project(session, tmp_path)

    def ask(_: int) -> int:
        with db.transaction() as session:
            return ensure_sampler(session, project, base, SamplingSettings()).id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
