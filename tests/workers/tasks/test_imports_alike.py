"""Imports beside what is stored already: parents, keys of alike prompts, and two imports at once in one project."""

from typing import Any

import pytest
from sqlalchemy import select

from app import db
from app.models import Import, Prompt, PromptSegment
from app.permissions import Access
from app.schemas.prompts import PromptIn
from app.services import imports, prompts
from app.settings import get_settings
from tests.workers.tasks.importing import LONG, bring, count, jsonl, put, read, start, stored
from workers.tasks import imports as worker
from workers.tasks.imports import import_file


class TestParents:
    def chain(self, admin: Access) -> dict[str, str | None]:
        rows = stored(admin)
        texts = {row.id: row.messages[-1]["content"] for row in rows}
        return {texts[row.id]: texts.get(row.parent_id or 0) for row in rows}

    @pytest.fixture(params=[1, 10], autouse=True)
    def batch(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.services.import_work.BATCH_ROWS", request.param)

    def test_never_come_round_however_often_the_rows_come(self, admin: Access) -> None:
        rows = [
            {"prompt": "X?", "key": "a"},
            {"prompt": "Y?", "key": "b", "parent": "a"},
            {"prompt": "X?", "parent": "b"},
        ]
        for _ in range(2):
            bring(admin, rows)
            assert self.chain(admin) == {"X?": None, "Y?": "X?"}

    def test_a_prompt_that_was_there_gets_the_parent_it_lacks(self, admin: Access) -> None:
        rows = [{"prompt": "P?", "key": "p", "source": "s"}, {"prompt": "X?", "source": "s"}]
        bring(admin, [*rows, {"prompt": "X?", "source": "s", "parent": "p"}])
        assert self.chain(admin) == {"P?": None, "X?": "P?"}

    def test_a_second_row_of_one_key_is_refused(self, admin: Access) -> None:
        rows = [{"prompt": "P?", "key": "p"}, {"prompt": "Q?", "key": "p"}, {"prompt": "X?", "parent": "p"}]
        _, refusals = bring(admin, rows)
        assert [line for line, _ in refusals] == [2]
        assert self.chain(admin) == {"P?": None, "X?": "P?"}


class TestAlike:
    def test_what_is_private_is_quarantined_though_it_is_also_near(self, admin: Access) -> None:
        counts, _ = bring(admin, [{"prompt": LONG}, {"prompt": f"{LONG} anna@example.com"}])
        assert (counts.near, counts.pii) == (0, 1)

    def test_what_is_out_of_the_work_keeps_nothing_out(self, admin: Access) -> None:
        bring(admin, [{"prompt": f"{LONG} anna@example.com"}])
        assert bring(admin, [{"prompt": LONG}])[0].added == 1

    def test_prompts_that_came_otherwise_are_found(self, admin: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.services.alike._CATCH_UP", 2)
        with db.transaction() as session:
            texts = (LONG, "One?", "Two?", "Three?", "Four?")
            rows = [PromptIn(messages=({"role": "user", "content": text},)) for text in texts]
            prompts.import_prompts(session, admin.project, pool="p", rows=rows)
        assert bring(admin, [{"prompt": LONG.replace("bad.", "wet.")}])[0].near == 1
        assert count(Prompt, ~Prompt.is_indexed) == 0

    def test_many_segments_become_one_and_find_the_same(self, admin: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.services.import_work.BATCH_ROWS", 1)
        bring(admin, [{"prompt": f"4 {LONG}" if number == 4 else f"Number {number}?"} for number in range(12)])
        assert count(PromptSegment) == 1
        assert bring(admin, [{"prompt": LONG}])[0].near == 1

    def test_another_import_that_packs_meanwhile_changes_nothing(
        self, admin: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.services.import_work.BATCH_ROWS", 1)
        uid = put(admin, jsonl(*({"prompt": f"Mine {number}?"} for number in range(3)), {"prompt": LONG}))
        job_id = start(admin, uid)
        store = worker.import_work.store
        calls: list[int] = []

        def store_after_another(*arguments: Any) -> None:
            calls.append(1)
            if len(calls) == 2:
                monkeypatch.setattr(worker.import_work, "store", store)
                bring(admin, [*({"prompt": f"Theirs {number}?"} for number in range(12)), {"prompt": f"{LONG} So."}])
            store(*arguments)

        monkeypatch.setattr(worker.import_work, "store", store_after_another)
        import_file(job_id)
        assert read(admin, uid)[1].near == 1


class TestUploads:
    def test_that_nobody_asks_for_are_removed_in_time(self, admin: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        draft, stopped = put(admin, jsonl({"prompt": "One?"})), put(admin, jsonl({"prompt": "Two?"}))
        start(admin, stopped)
        with db.transaction() as session:
            imports.cancel(session, admin, stopped)
            assert imports.sweep(session) == 0
        monkeypatch.setattr(imports, "KEPT_DAYS", -1)
        with db.transaction() as session:
            assert imports.sweep(session) == 2
        with db.transaction() as session:
            assert session.scalars(select(Import.uid)).all() == [stopped], f"the draft {draft} is gone"
            assert imports.sweep(session) == 0
        assert not list((get_settings().store / "imports").iterdir())

    def test_a_name_that_cannot_be_stored_is_mended(self, admin: Access) -> None:
        uid = put(admin, jsonl({"prompt": "One?"}), name="a\0b\ud800.jsonl")
        assert read(admin, uid)[0].name == "a\ufffdb?.jsonl"
