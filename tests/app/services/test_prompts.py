"""Prompts that come in as a whole: each once, each source on one side of the splits, or none of them."""

import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import db, storage
from app.errors import BadInput
from app.models import BaseCheckpoint, Project, Prompt, Split
from app.schemas.prompts import PromptIn, read_prompt
from app.services import prompts
from app.services.splits import split_of
from app.settings import Settings, get_settings
from tests.app import registry


@pytest.fixture
def project(session: Session, tmp_path: Path) -> Project:
    return registry.make_project(session, tmp_path)[0]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


class TestImportPrompts:
    def test_counts_what_the_project_has_in_any_pool(self, session: Session, project: Project) -> None:
        rows = [PromptIn(messages=(user(text),)) for text in ("One  two", "One two", "Three")]
        first = prompts.import_prompts(session, project, pool="a", rows=rows)
        second = prompts.import_prompts(session, project, pool="b", rows=rows)
        assert (first.added, first.duplicates) == (2, 1)
        assert (second.added, second.duplicates) == (0, 3)
        assert session.scalar(select(func.count()).select_from(Prompt)) == 2

    def test_keeps_every_turn_of_a_conversation_on_one_side(self, session: Session, project: Project) -> None:
        rows = [
            PromptIn(messages=(user("Later"),), key="b", parent_key="a"),
            PromptIn(messages=(user("First"),), key="a"),
        ]
        report = prompts.import_prompts(session, project, pool="p", rows=rows)
        stored = {prompt.id: prompt for prompt in session.scalars(select(Prompt))}
        later, first = stored[report.ids["b"]], stored[report.ids["a"]]
        assert later.parent_id == first.id
        assert (later.source, later.split) == (first.source, first.split)

    def test_leaves_the_parent_of_a_stored_prompt_as_it_is(self, session: Session, project: Project) -> None:
        child = PromptIn(messages=(user("Later"),), key="b", parent_key="a")
        for parent in ("First", "Other"):
            rows = [PromptIn(messages=(user(parent),), key="a", source="one"), child]
            report = prompts.import_prompts(session, project, pool="p", rows=rows)
        session.expire_all()
        kept = session.get_one(Prompt, session.get_one(Prompt, report.ids["b"]).parent_id)
        assert kept.messages == [user("First")]

    def test_puts_a_source_on_the_side_it_has_already(self, session: Session, project: Project) -> None:
        source = next(f"w{n}" for n in range(100) if split_of(f"w{n}") == Split.TRAIN)
        rows = [PromptIn(messages=(user("a"),), source=source, split=Split.TEST)]
        prompts.import_prompts(session, project, pool="p", rows=rows)
        prompts.import_prompts(session, project, pool="p", rows=[PromptIn(messages=(user("b"),), source=source)])
        assert set(session.scalars(select(Prompt.split))) == {Split.TEST}

    def test_keeps_what_a_prompt_needs(self, session: Session, project: Project) -> None:
        row = read_prompt({"prompt": "2 + 2?", "needs": ["skill:math", "content:violence", "skill:math"]})
        prompts.import_prompts(session, project, pool="needy", rows=[row])
        stored = session.scalars(select(Prompt).where(Prompt.project_id == project.id)).one()
        assert stored.needs == ["skill:math", "content:violence"]

    def test_refuses_a_source_on_two_sides(self, session: Session, project: Project) -> None:
        rows = [
            PromptIn(messages=(user("a"),), source="w", split=Split.TRAIN),
            PromptIn(messages=(user("b"),), source="w", split=Split.VALID),
        ]
        with pytest.raises(BadInput, match="'w' is in train already and a row puts it into valid"):
            prompts.import_prompts(session, project, pool="p", rows=rows)
        assert session.scalar(select(func.count()).select_from(Prompt)) == 0

    def test_two_imports_at_once_keep_a_source_on_one_side(self, settings: Settings, tmp_path: Path) -> None:
        with db.transaction() as session:
            shared = registry.make_project(session, tmp_path / "shared")[0]

        def import_one(split: Split, during: Callable[[], None] = lambda: None) -> None:
            with db.transaction() as session:
                rows = [PromptIn(messages=(user(split),), source="w", split=split)]
                prompts.import_prompts(session, shared, pool="p", rows=rows)
                during()

        with ThreadPoolExecutor() as pool:
            second: list[Future[None]] = []

            def begin_the_second() -> None:
                second.append(pool.submit(import_one, Split.VALID))
                wait(second, timeout=0.5)

            import_one(Split.TRAIN, begin_the_second)
            with pytest.raises(BadInput, match="'w' is in train already"):
                second[0].result()

    def test_refuses_a_parent_that_is_not_there(self, session: Session, project: Project) -> None:
        rows = [PromptIn(messages=(user("a"),), parent_key="gone")]
        with pytest.raises(BadInput, match="'gone'"):
            prompts.import_prompts(session, project, pool="p", rows=rows)

    def test_splits_sources_by_hash_in_known_shares(self) -> None:
        found = [split_of(f"source {n}") for n in range(4000)]
        assert 0.08 < found.count(Split.VALID) / 4000 < 0.12
        assert 0.08 < found.count(Split.TEST) / 4000 < 0.12


class TestLongestCharacters:
    def test_follows_the_context_in_the_base_models_config(self, session: Session, project: Project) -> None:
        base = session.get_one(BaseCheckpoint, project.base_checkpoint_id)
        assert prompts.longest_characters(get_settings(), base) is None
        config = storage.checkpoint_folder(get_settings(), base.sha256) / "config.json"
        config.write_text(json.dumps({"max_position_embeddings": 128}))
        assert prompts.longest_characters(get_settings(), base) == 128 * prompts.CHARACTERS_PER_TOKEN
