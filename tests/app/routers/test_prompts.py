"""The prompts' pages: the list with its filters, edits that can be undone, figures, pools, and the quarantine."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app import db
from app.intake.likeness import fingerprint
from app.models import (
    AuditEntry,
    Category,
    Lease,
    LeaseState,
    Notice,
    Project,
    Prompt,
    PromptPool,
    PromptStatus,
    Role,
    Split,
    TaskState,
)
from app.schemas.prompts import PromptIn
from app.services import prompts
from tests.app import registry
from tests.app.registry import make_project
from tests.app.visitor import Visitor, make_visitor


@pytest.fixture
def project(client: TestClient, tmp_path: Path) -> Project:
    with db.transaction() as session:
        return make_project(session, tmp_path)[0]


@pytest.fixture
def admin(client: TestClient, project: Project) -> Visitor:
    return make_visitor(client, project, Role.ADMIN)


def put(project: Project, *rows: PromptIn, pool: str = "pool") -> None:
    with db.transaction() as session:
        prompts.import_prompts(session, project, pool=pool, rows=rows)


def asked(text: str, category: Category | None = None, split: Split | None = None) -> PromptIn:
    return PromptIn(messages=({"role": "user", "content": text},), category=category, split=split)


def stored(project: Project) -> dict[str, Prompt]:
    with db.transaction() as session:
        rows = session.scalars(select(Prompt).where(Prompt.project_id == project.id))
        return {row.messages[-1]["content"]: row for row in rows}


class TestList:
    def test_narrows_by_category_split_pool_and_words(self, project: Project, admin: Visitor) -> None:
        put(project, asked("Sing of 100% wool", Category.GENERATION, Split.TRAIN), pool="songs")
        put(project, asked("What is wool?", Category.OPEN_QA, Split.VALID), asked("Hello", Category.CHAT, Split.TEST))
        with db.transaction() as session:
            songs = session.scalars(select(PromptPool).where(PromptPool.name == "songs")).one()
        path = f"/p/{project.slug}/prompts"
        for query, found in [
            ("", {"Sing", "What", "Hello"}),
            ("?category=open_qa", {"What"}),
            ("?split=test", {"Hello"}),
            (f"?pool={songs.uid}", {"Sing"}),
            ("?pool=songs", {"Sing", "What", "Hello"}),
            ("?q=WOOL", {"Sing", "What"}),
            ("?q=0%25", {"Sing"}),
            ("?q=%25", {"Sing"}),
            ("?category=nonsense&split=", {"Sing", "What", "Hello"}),
        ]:
            text = admin.get(path + query).text
            assert {word for word in ("Sing", "What", "Hello") if f">{word}" in text} == found, query
        assert "No prompt matches." in admin.get(f"{path}?q=silk").text

    def test_pages_by_key_and_keeps_the_filter(self, project: Project, admin: Visitor) -> None:
        put(project, *[asked(f"Number {n:03}", Category.CHAT) for n in range(120)])
        path, seen = f"/p/{project.slug}/prompts?category=chat", []
        while path:
            text = admin.get(path).text
            seen += [line.split("<")[0] for line in text.split(">Number ")[1:]]
            older = [part for part in text.split('"') if "before=" in part]
            path = older[0].replace("&amp;", "&") if older else ""
            assert not path or "category=chat" in path
        assert seen == [f"{n:03}" for n in reversed(range(120))]

    def test_says_how_to_begin_where_there_are_none(self, client: TestClient, project: Project) -> None:
        researcher = make_visitor(client, project, Role.RESEARCHER)
        text = researcher.get(f"/p/{project.slug}/prompts").text
        assert "No prompts yet." in text
        assert "/imports/new" not in text

    def test_a_labeller_may_not_look(self, client: TestClient, project: Project) -> None:
        assert make_visitor(client, project, Role.LABELLER).get(f"/p/{project.slug}/prompts").status_code == 403


class TestEdit:
    def test_changes_the_ticked_ones_and_undoes_it(self, project: Project, admin: Visitor) -> None:
        put(project, asked("One?"), asked("Two?"), asked("Three?"))
        path = f"/p/{project.slug}/prompts"
        answer = admin.post(f"{path}/edit", act="retire", prompt=str(stored(project)["One?"].uid))
        assert answer.status_code == 303
        page = admin.get(answer.headers["location"]).text
        assert "1 prompt was changed." in page
        assert [text for text, row in stored(project).items() if row.status == PromptStatus.RETIRED] == ["One?"]
        undo = page.split(f'action="{path}/edits/')[1].split('"')[0]
        again = admin.post(f"{path}/edits/{undo}")
        assert "1 prompt is as it was." in admin.get(again.headers["location"]).text
        assert {row.status for row in stored(project).values()} == {PromptStatus.ACTIVE}
        assert admin.post(f"{path}/edits/{undo}").status_code == 409
        with db.transaction() as session:
            acts = session.scalars(select(AuditEntry.action).order_by(AuditEntry.id)).all()
        assert acts[-2:] == ["edit prompts", "undo edit of prompts"]

    def test_changes_all_that_match_and_no_other(self, project: Project, admin: Visitor) -> None:
        put(project, *[asked(f"Bird {number}?", Category.CHAT) for number in range(60)], asked("Fish?"))
        answer = admin.post(f"/p/{project.slug}/prompts/edit", act="move", to_pool="fish", category="chat", all="true")
        assert "category=chat" in answer.headers["location"]
        with db.transaction() as session:
            moved = session.scalars(
                select(func.count()).select_from(Prompt).join(PromptPool).where(PromptPool.name == "fish")
            ).one()
        assert moved == 60

    def test_undoing_leaves_what_somebody_changed_since(self, project: Project, admin: Visitor) -> None:
        put(project, asked("One?"), asked("Two?"))
        path = f"/p/{project.slug}/prompts"
        first = admin.post(f"{path}/edit", act="categorise", to_category="chat", all="true").headers["location"]
        admin.post(f"{path}/edit", act="categorise", to_category="extract", prompt=str(stored(project)["One?"].uid))
        admin.post(f"{path}/edits/{first.rpartition('=')[2]}/undo")
        assert {text: row.category for text, row in stored(project).items()} == {"One?": Category.EXTRACT, "Two?": None}

    def test_accepts_suggestions_where_there_are_any(self, project: Project, admin: Visitor) -> None:
        put(
            project, asked("Summarize this text: a b c"), asked("Hm"), asked("Translate this sentence.", Category.OTHER)
        )
        path = f"/p/{project.slug}/prompts"
        assert "summarization?" in admin.get(path).text
        first = admin.post(f"{path}/edit", act="accept", all="true").headers["location"]
        assert [row.category for row in stored(project).values()] == [Category.SUMMARIZATION, None, Category.OTHER]
        admin.post(f"{path}/edits/{first.rpartition('=')[2]}/undo")
        assert [row.category for row in stored(project).values()] == [None, None, Category.OTHER]

    def test_undoing_accepted_suggestions_leaves_what_a_person_set_since(
        self, project: Project, admin: Visitor
    ) -> None:
        put(project, asked("Summarize this text: a b c"))
        path = f"/p/{project.slug}/prompts"
        first = admin.post(f"{path}/edit", act="accept", all="true").headers["location"]
        admin.post(f"{path}/edit", act="categorise", to_category="chat", all="true")
        admin.post(f"{path}/edits/{first.rpartition('=')[2]}/undo")
        assert [row.category for row in stored(project).values()] == [Category.CHAT]

    def test_too_many_at_once_are_refused_whole(
        self, project: Project, admin: Visitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.services.pools.MOST_EDITED", 2)
        put(project, *(asked(f"{number}?") for number in range(4)))
        answer = admin.post(f"/p/{project.slug}/prompts/edit", act="retire", all="true")
        assert "More than 2 prompts match" in answer.text
        assert {row.status for row in stored(project).values()} == {PromptStatus.ACTIVE}

    def test_does_not_let_a_quarantined_prompt_in(self, project: Project, admin: Visitor) -> None:
        put(project, asked("One?"))
        with db.transaction() as session:
            only = session.scalars(select(Prompt)).one()
            only.status, only.is_private = PromptStatus.PII, True
        answer = admin.post(f"/p/{project.slug}/prompts/edit", act="activate", all="true")
        assert answer.status_code == 422
        assert "wait in quarantine" in answer.text

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"act": "retire"}, "No prompt was chosen"),
            ({"act": "burn", "all": "true"}, "Choose what is to be done"),
            ({"act": "move", "all": "true"}, "Name the pool"),
            ({"act": "categorise", "all": "true"}, "Nothing would change"),
        ],
    )
    def test_refuses_what_it_cannot_do(
        self, project: Project, admin: Visitor, fields: dict[str, str], message: str
    ) -> None:
        put(project, asked("One?"))
        answer = admin.post(f"/p/{project.slug}/prompts/edit", **fields)
        assert answer.status_code == 422
        assert message in answer.text

    def test_retires_the_open_tasks_and_tells_who_holds_one(self, project: Project, admin: Visitor) -> None:
        with db.transaction() as session:
            prompt = registry.make_prompt(session, project)
            task = registry.make_rank_task(session, project, prompt)
            holder = registry.make_user(session)
            registry.hold(session, task, holder, until=func.now())
            assert session.scalars(select(Lease.state)).one() == LeaseState.HELD
        admin.post(f"/p/{project.slug}/prompts/edit", act="retire", all="true")
        with db.transaction() as session:
            session.add(task)
            session.refresh(task)
            assert task.state == TaskState.RETIRED
            assert session.scalars(select(Notice.user_id)).all() == [holder.id]


class TestFilter:
    def test_by_status_language_source_and_import(self, project: Project, admin: Visitor) -> None:
        put(project, asked("Sing"), asked("What"), asked("Hello"))
        with db.transaction() as session:
            rows = {row.messages[0]["content"]: row for row in session.scalars(select(Prompt))}
            rows["Sing"].status, rows["What"].language, rows["Hello"].source = PromptStatus.CAPPED, "de", "w 1"
        path = f"/p/{project.slug}/prompts"
        for query, found in [
            ("?status=capped", {"Sing"}),
            ("?language=de", {"What"}),
            ("?source=w+1", {"Hello"}),
            ("?category=none", {"Sing", "What", "Hello"}),
            ("?import=3e417873-7e6d-4287-9897-7239490243c1", set()),
            ("?status=nonsense&language=deutsch&import=x", {"Sing", "What", "Hello"}),
        ]:
            text = admin.get(path + query).text
            assert {word for word in ("Sing", "What", "Hello") if f">{word}" in text} == found, query

    @pytest.mark.parametrize("name", ["project_id", "prompt__pool__id", "messages->0", "password_hash", "id", "order"])
    def test_t02_a_field_that_is_not_on_the_list_narrows_nothing(
        self, project: Project, admin: Visitor, name: str
    ) -> None:
        put(project, asked("Sing"))
        assert ">Sing" in admin.get(f"/p/{project.slug}/prompts?{name}=1").text


class TestFigures:
    def test_stand_beside_the_papers(self, project: Project, admin: Visitor) -> None:
        put(
            project,
            asked("a", Category.CHAT),
            asked("b", Category.CHAT),
            asked("c", Category.EXTRACT),
            asked("d" * 300),
        )
        text = " ".join(admin.get(f"/p/{project.slug}/prompts/figures").text.split())
        assert "46 %" in text, "the paper's share of generation"
        assert "67 %" in text, "two of three with a category"
        assert "up to 500" in text
        assert "67 %" not in admin.get(f"/p/{project.slug}/prompts/figures?category=chat").text

    def test_of_no_prompt_at_all(self, project: Project, admin: Visitor) -> None:
        assert admin.get(f"/p/{project.slug}/prompts/figures").status_code == 200


class TestPools:
    def test_are_switched_off_and_on(self, project: Project, admin: Visitor) -> None:
        put(project, asked("One?"))
        with db.transaction() as session:
            pool = session.scalars(select(PromptPool)).one()
        path = f"/p/{project.slug}/prompts/pools"
        assert "Switch off" in admin.get(path).text
        for wanted in ("false", "true"):
            admin.post(f"{path}/{pool.uid}/switch", is_active=wanted)
            with db.transaction() as session:
                assert session.scalars(select(PromptPool.is_active)).one() is (wanted == "true")

    def test_a_researcher_only_reads(self, client: TestClient, project: Project) -> None:
        put(project, asked("One?"))
        researcher = make_visitor(client, project, Role.RESEARCHER)
        text = researcher.get(f"/p/{project.slug}/prompts/pools").text
        assert "Switch" not in text
        assert "Change several" not in researcher.get(f"/p/{project.slug}/prompts").text


class TestQuarantine:
    MAIL = "Write to bob@example.com, or to <b>eve@example.com</b>."

    @pytest.fixture
    def prompt(self, project: Project) -> Prompt:
        with db.transaction() as session:
            prompt = registry.make_prompt(session, project, self.MAIL)
            prompt.status, prompt.is_private = PromptStatus.PII, True
            prompt.findings = [
                {"kind": "email", "turn": 0, "start": self.MAIL.index(who), "end": self.MAIL.index(who) + 15}
                for who in ("bob@", "eve@")
            ]
            return prompt

    def test_marks_what_was_found(self, project: Project, admin: Visitor, prompt: Prompt) -> None:
        text = admin.get(f"/p/{project.slug}/prompts/quarantine").text
        assert "1 prompt waits for a look." in text
        assert text.count('<mark title="e-mail address">') == 2
        assert "<bdi>bob@example.com</bdi></mark>" in text
        assert "&lt;b&gt;" in text

    def test_releases(self, project: Project, admin: Visitor, prompt: Prompt) -> None:
        answer = admin.post(f"/p/{project.slug}/prompts/{prompt.uid}/release")
        assert "The prompt is released." in admin.get(answer.headers["location"]).text
        assert stored(project)[self.MAIL].status == PromptStatus.ACTIVE

    def test_masks(self, project: Project, admin: Visitor, prompt: Prompt) -> None:
        answer = admin.post(f"/p/{project.slug}/prompts/{prompt.uid}/mask")
        assert "masked" in admin.get(answer.headers["location"]).text
        row = stored(project)["Write to [e-mail], or to <b>[e-mail]</b>."]
        assert (row.status, row.findings) == (PromptStatus.ACTIVE, [])
        assert admin.post(f"/p/{project.slug}/prompts/{prompt.uid}/mask").status_code == 409

    def test_a_masked_prompt_that_is_here_already_is_its_duplicate(
        self, project: Project, admin: Visitor, prompt: Prompt
    ) -> None:
        masked = "Write to [e-mail], or to <b>[e-mail]</b>."
        put(project, asked(masked))
        admin.post(f"/p/{project.slug}/prompts/{prompt.uid}/mask")
        with db.transaction() as session:
            row = session.get_one(Prompt, prompt.id)
            assert (row.status, row.messages[0]["content"]) == (PromptStatus.DUPLICATE, masked)

    def test_the_same_text_again_does_not_bring_back_what_was_masked(
        self, project: Project, admin: Visitor, prompt: Prompt
    ) -> None:
        with db.transaction() as session:
            session.get_one(Prompt, prompt.id).fingerprint = fingerprint(prompt.messages)
        admin.post(f"/p/{project.slug}/prompts/{prompt.uid}/mask")
        put(project, asked(self.MAIL))
        assert list(stored(project)) == ["Write to [e-mail], or to <b>[e-mail]</b>."]

    def test_takes_out(self, project: Project, admin: Visitor, prompt: Prompt) -> None:
        admin.post(f"/p/{project.slug}/prompts/{prompt.uid}/retire")
        row = stored(project)[self.MAIL]
        assert (row.status, row.is_private) == (PromptStatus.RETIRED, True)
        answer = admin.post(f"/p/{project.slug}/prompts/edit", act="activate", all="true")
        assert answer.status_code == 422, "what is private is not let in unseen"
        assert "Nothing waits here." in admin.get(f"/p/{project.slug}/prompts/quarantine").text

    def test_one_that_a_labeller_found_cannot_be_masked(self, project: Project, admin: Visitor, prompt: Prompt) -> None:
        with db.transaction() as session:
            session.get_one(Prompt, prompt.id).findings = []
        page = admin.get(f"/p/{project.slug}/prompts/quarantine").text
        assert "A labeller said so." in page
        assert "/mask" not in page
        assert admin.post(f"/p/{project.slug}/prompts/{prompt.uid}/mask").status_code == 409

    def test_a_researcher_may_not_look(self, client: TestClient, project: Project) -> None:
        researcher = make_visitor(client, project, Role.RESEARCHER)
        assert researcher.get(f"/p/{project.slug}/prompts/quarantine").status_code == 403
