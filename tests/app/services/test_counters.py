"""Counters: sums over shards, in the caller's transaction."""

from pathlib import Path

from sqlalchemy.orm import Session

from app.services import counters
from tests.app import registry


class TestCounters:
    def test_begin_at_zero_and_add_up(self, session: Session, tmp_path: Path) -> None:
        project, _ = registry.make_project(session, tmp_path)
        assert counters.get(session, project.id, "judgements") == 0
        for delta in (1, 5, 1, -2):
            counters.add(session, project.id, "judgements", delta)
        for _ in range(40):
            counters.add(session, project.id, "judgements")
        assert counters.get(session, project.id, "judgements") == 45

    def test_are_kept_per_project_and_name(self, session: Session, tmp_path: Path) -> None:
        first, _ = registry.make_project(session, tmp_path)
        second, _ = registry.make_project(session, tmp_path)
        counters.add(session, first.id, counters.judgements_of_round(1), 3)
        counters.add(session, first.id, counters.judgements_of_round(2), 4)
        counters.add(session, second.id, counters.judgements_of_round(1), 9)
        assert [counters.get(session, first.id, counters.judgements_of_round(n)) for n in (1, 2)] == [3, 4]
        assert counters.get(session, second.id, counters.judgements_of_round(1)) == 9
