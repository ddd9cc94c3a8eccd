"""The prompts' pages: the list with its filters, and imports that store everything or nothing."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import func, select

from app import db, storage
from app.models import AuditEntry, BaseCheckpoint, Category, Project, Prompt, PromptPool, Role, Split
from app.schemas.prompts import PromptIn
from app.services import prompts
from app.settings import get_settings
from app.web.csrf import FIELD
from app.web.deps import SESSION_COOKIE
from tests.app.registry import make_project
from tests.app.visitor import Visitor, make_visitor


@pytest.fixture
def project(client: TestClient, tmp_path: Path) -> Project:
    with db.transaction() as session:
        return make_project(session, tmp_path)[0]


@pytest.fixture
def admin(client: TestClient, project: Project) -> Visitor:
    return make_visitor(client, project, Role.ADMIN)


def upload(visitor: Visitor, project: Project, data: bytes, pool: str = "mine") -> Response:
    return visitor.client.post(
        f"/p/{project.slug}/prompts/import",
        data={FIELD: visitor.csrf_token, "pool": pool},
        files={"file": ("prompts.jsonl", data)},
        headers={"Cookie": f"{SESSION_COOKIE}={visitor.token}"},
    )


def count(table: type) -> int:
    with db.transaction() as session:
        return session.scalars(select(func.count()).select_from(table)).one()


def put(project: Project, *rows: PromptIn, pool: str = "pool") -> None:
    with db.transaction() as session:
        prompts.import_prompts(session, project, pool=pool, rows=rows)


def asked(text: str, category: Category | None = None, split: Split | None = None) -> PromptIn:
    return PromptIn(messages=({"role": "user", "content": text},), category=category, split=split)


class TestImport:
    def test_stores_the_file_and_says_how_much(self, project: Project, admin: Visitor) -> None:
        data = b'{"prompt": "One"}\n{"prompt": "Two", "category": "chat"}\n{"prompt": "One"}\n'
        answer = upload(admin, project, data)
        assert answer.status_code == 303
        page = admin.get(answer.headers["location"]).text
        assert "2 prompts added." in page
        assert "1 line was a prompt the project has already." in page
        assert count(Prompt) == 2
        with db.transaction() as session:
            entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "import prompts")).one()
            assert (entry.actor_id, entry.details["added"]) == (admin.user.id, 2)

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "The file is empty"),
            (b'{"prompt": "ok"}\n\xff\n', "byte 17 (line 2) is 0xff"),
            (b'{"prompt": "ok"}\n{"prompt": \n', "1 of 2 lines cannot be imported"),
            (b'{"messages": [{"role": "assistant", "content": "Hi"}]}', "the last turn is by &#39;assistant&#39;"),
            (json.dumps({"prompt": "x" * 2000}).encode(), "the prompt has 2,000 characters; the context of"),
        ],
        ids=["empty", "not UTF-8", "malformed", "ends with the assistant", "longer than the context"],
    )
    def test_a_refused_file_is_explained_and_stores_nothing(
        self, project: Project, admin: Visitor, data: bytes, message: str
    ) -> None:
        with db.transaction() as session:
            base = session.get_one(BaseCheckpoint, project.base_checkpoint_id)
            folder = storage.checkpoint_folder(get_settings(), base.sha256)
        (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 128}))
        answer = upload(admin, project, data)
        assert answer.status_code == 422
        assert message in answer.text
        assert "Nothing was imported from <bdi>prompts.jsonl</bdi>" in answer.text
        assert (count(Prompt), count(PromptPool)) == (0, 0)

    def test_names_the_lines_at_fault(self, project: Project, admin: Visitor) -> None:
        answer = upload(admin, project, b'{"prompt": "ok"}\nnonsense\n' + b"{}\n" * 60)
        assert "61 of 62 lines cannot be imported" in answer.text
        assert "The first 50 of 61 lines" in answer.text
        assert count(Prompt) == 0

    @pytest.mark.parametrize("pool", ["", " ", "p" * 81])
    def test_needs_a_name_for_the_pool(self, project: Project, admin: Visitor, pool: str) -> None:
        answer = upload(admin, project, b'{"prompt": "One"}', pool)
        assert answer.status_code == 422
        assert "Name the pool" in answer.text
        assert count(Prompt) == 0

    @pytest.mark.parametrize("role", [Role.RESEARCHER, Role.LABELLER])
    def test_needs_the_right(self, client: TestClient, project: Project, role: Role) -> None:
        visitor = make_visitor(client, project, role)
        assert upload(visitor, project, b'{"prompt": "One"}').status_code == 403
        assert visitor.get(f"/p/{project.slug}/prompts/import").status_code == 403


class TestList:
    def test_narrows_by_category_split_pool_and_words(self, project: Project, admin: Visitor) -> None:
        put(project, asked("Sing of 100% wool", Category.GENERATION, Split.TRAIN), pool="songs")
        put(project, asked("What is wool?", Category.OPEN_QA, Split.VALID), asked("Hello", Category.CHAT, Split.TEST))
        path = f"/p/{project.slug}/prompts"
        for query, found in [
            ("", {"Sing", "What", "Hello"}),
            ("?category=open_qa", {"What"}),
            ("?split=test", {"Hello"}),
            ("?pool=songs", {"Sing"}),
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
        assert "/prompts/import" not in text

    def test_a_labeller_may_not_look(self, client: TestClient, project: Project) -> None:
        assert make_visitor(client, project, Role.LABELLER).get(f"/p/{project.slug}/prompts").status_code == 403


def test_a_conversation_is_imported_turn_by_turn_where_that_is_chosen(project: Project, admin: Visitor) -> None:
    turns = [{"role": role, "content": f"{role} {n}"} for n in (1, 2) for role in ("user", "assistant")]
    answer = admin.client.post(
        f"/p/{project.slug}/prompts/import",
        data={FIELD: admin.csrf_token, "pool": "talks", "every_turn": "true"},
        files={"file": ("talks.jsonl", json.dumps({"messages": turns}).encode())},
        headers={"Cookie": f"{SESSION_COOKIE}={admin.token}"},
    )
    assert answer.headers["location"].endswith("/prompts?added=2&duplicates=0&samples=2&foreign=0")
    page = admin.get(answer.headers["location"]).text
    assert "2 prompts added." in page
    assert "2 answers were kept as samples." in page
