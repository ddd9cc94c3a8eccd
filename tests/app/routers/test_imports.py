"""The imports' pages: upload, first rows, settings, progress, what was refused, and what each may not do."""

import json
from pathlib import Path
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import select

from app import db, storage
from app.models import Import, Job, JobState, Project, Prompt, Role
from app.settings import get_settings
from app.web.csrf import FIELD
from app.web.deps import SESSION_COOKIE
from tests.app.registry import make_project
from tests.app.visitor import Visitor, make_visitor
from workers.tasks.imports import import_file


@pytest.fixture
def project(client: TestClient, tmp_path: Path) -> Project:
    with db.transaction() as session:
        return make_project(session, tmp_path)[0]


@pytest.fixture
def admin(client: TestClient, project: Project) -> Visitor:
    return make_visitor(client, project, Role.ADMIN)


def send(visitor: Visitor, project: Project, data: bytes, kind: str = "prompts", name: str = "rows.jsonl") -> Response:
    return visitor.client.post(
        f"/p/{project.slug}/imports",
        data={FIELD: visitor.csrf_token, "kind": kind},
        files={"file": (name, data)},
        headers={"Cookie": f"{SESSION_COOKIE}={visitor.token}"},
    )


def jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def run_jobs() -> None:
    with db.transaction() as session:
        waiting = session.scalars(select(Job.id).where(Job.state == JobState.QUEUED)).all()
    for job_id in waiting:
        import_file(job_id)


class TestUpload:
    def test_shows_the_first_rows_and_stores_nothing(self, project: Project, admin: Visitor) -> None:
        answer = send(admin, project, jsonl({"prompt": "Name <b>birds</b>.", "category": "chat"}, {"prompt": ""}))
        assert answer.status_code == 303
        page = admin.get(answer.headers["location"]).text
        assert "Name &lt;b&gt;birds&lt;/b&gt;." in page
        assert "1 cannot be read so." in page
        assert '<option value="preferable" selected>' in page
        assert 'value="rows"' in page, "the pool is called like the file"
        with db.transaction() as session:
            assert session.scalar(select(Prompt.id)) is None

    @pytest.mark.parametrize(
        ("data", "kind", "name", "message"),
        [
            (b"", "prompts", "a.jsonl", "empty"),
            (b"PK\x03\x04aaaaaaaaaaaaaaaaaaaa", "prompts", "a.zip", "zip"),
            (b"x", "birds", "a.jsonl", "Say what the file holds"),
            (b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>", "prompts", "a.svg", ""),
        ],
    )
    def test_what_is_no_file_of_rows_is_refused(
        self, project: Project, admin: Visitor, data: bytes, kind: str, name: str, message: str
    ) -> None:
        answer = send(admin, project, data, kind, name)
        assert answer.status_code == 422
        assert "Nothing was uploaded." in answer.text
        assert message in answer.text
        assert "<svg xmlns" not in answer.text
        with db.transaction() as session:
            assert session.scalar(select(Import.id)) is None

    def test_a_form_without_a_file_is_refused(self, project: Project, admin: Visitor) -> None:
        assert "Choose a file." in admin.post(f"/p/{project.slug}/imports", kind="prompts").text

    def test_a_name_never_leaves_the_store(self, project: Project, admin: Visitor) -> None:
        """T10, T19."""
        answer = send(admin, project, jsonl({"prompt": "One?"}), name="../../../../etc/passwd.jsonl")
        uid = UUID(answer.headers["location"].rpartition("/")[2])
        assert storage.import_file(get_settings(), uid).read_bytes() == jsonl({"prompt": "One?"})
        assert list((get_settings().store / "imports").iterdir()) == [get_settings().store / "imports" / str(uid)]

    def test_a_large_body_of_a_visitor_is_not_even_read(self, client: TestClient, project: Project) -> None:
        read = 0

        def endless() -> object:
            nonlocal read
            while True:
                read += 1
                yield b"x" * 65536

        client.cookies.clear()
        headers = {"Content-Type": "multipart/form-data; boundary=b", "Cookie": f"{SESSION_COOKIE}=forged"}
        answer = client.post(f"/p/{project.slug}/imports", content=endless_of(endless, 40), headers=headers)
        assert (answer.status_code, answer.headers["location"][:6]) == (303, "/login")

    @pytest.mark.parametrize("role", [Role.RESEARCHER, Role.LABELLER])
    def test_needs_the_right(self, client: TestClient, project: Project, role: Role) -> None:
        visitor = make_visitor(client, project, role)
        assert send(visitor, project, jsonl({"prompt": "One?"})).status_code == 403
        assert visitor.get(f"/p/{project.slug}/imports/new").status_code == 403
        assert not (get_settings().store / "imports").exists()


def endless_of(source: object, count: int) -> object:
    chunks = source()  # type: ignore[operator]
    return (next(chunks) for _ in range(count))


class TestDraft:
    @pytest.fixture
    def path(self, project: Project, admin: Visitor) -> str:
        rows = ({"frage": "Wo liegt Rom?", "wer": "w1"}, {"frage": "Wo liegt Oslo?", "wer": "w2"})
        return send(admin, project, jsonl(*rows)).headers["location"]

    def test_another_look_by_other_columns_is_kept(self, admin: Visitor, path: str) -> None:
        answer = admin.post(
            f"{path}/preview", shape="columns", pool="Fragen", **{"column-prompt": "frage", "column-source": "wer"}
        )
        assert answer.status_code == 200
        assert "each of them can be read" in answer.text
        page = admin.get(path).text
        assert 'value="Fragen"' in page
        assert "Wo liegt Rom?" in page

    def test_starts_and_is_done_by_a_worker(self, project: Project, admin: Visitor, path: str) -> None:
        fields = {"shape": "columns", "pool": "Fragen", "column-prompt": "frage", "column-source": "wer"}
        answer = admin.post(f"{path}/start", **fields)
        assert answer.headers["location"] == path
        assert "Waits for the worker" in admin.get(path).text
        run_jobs()
        page = " ".join(admin.get(path).text.split())
        assert "Done: 2 rows read." in page
        assert "prompts added" in page
        with db.transaction() as session:
            assert {row.source for row in session.scalars(select(Prompt))} == {"w1", "w2"}
        assert admin.post(f"{path}/start", **fields).status_code == 303, "a second click"
        assert admin.post(f"{path}/preview", **fields).status_code == 409
        listed = admin.get(f"/p/{project.slug}/imports").text
        assert "rows.jsonl" in listed

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"shape": "columns", "pool": "p"}, "no column is named for prompt"),
            ({"shape": "columns", "pool": "", "column-prompt": "frage"}, "Name the pool"),
            ({"shape": "nonsense", "pool": "p"}, "the shape is"),
            ({"shape": "preferable", "pool": "p", "most_per_source": "-1"}, "greater than or equal to 0"),
            ({"shape": "preferable", "pool": "p", "languages": "english"}, "match"),
            ({"shape": "preferable", "pool": "p", "judgements_wanted": "0"}, "greater than or equal to 1"),
        ],
    )
    def test_settings_that_do_not_hold_are_shown_with_what_is_wrong(
        self, admin: Visitor, path: str, fields: dict[str, str], message: str
    ) -> None:
        answer = admin.post(f"{path}/start", **fields)
        assert answer.status_code == 422
        assert message in answer.text
        with db.transaction() as session:
            assert session.scalars(select(Import.job_id)).one() is None

    def test_is_discarded_with_its_file(self, project: Project, admin: Visitor, path: str) -> None:
        admin.post(f"{path}/discard")
        assert admin.get(path).status_code == 404
        assert not list((get_settings().store / "imports").iterdir())


class TestReport:
    @pytest.fixture
    def path(self, project: Project, admin: Visitor) -> str:
        rows = b'{"prompt": "Good?"}\n=1+1\n' + b'{"prompt": ""}\n' * 150
        path = send(admin, project, rows).headers["location"]
        admin.post(f"{path}/start", shape="preferable", pool="p")
        run_jobs()
        return path

    def test_names_every_refused_row_page_by_page(self, admin: Visitor, path: str) -> None:
        first = admin.get(path).text
        assert "rows refused" in first
        assert first.count('<td class="number">') == 100
        following = first.split('href="')
        after = next(part.split('"')[0] for part in following if "?after=" in part.split('"')[0])
        assert admin.get(after).text.count('<td class="number">') == 51

    def test_leaves_as_a_table_without_formulas(self, admin: Visitor, path: str) -> None:
        """T20."""
        answer = admin.get(f"{path}/refused.csv")
        assert answer.headers["content-type"].startswith("text/csv")
        assert "attachment" in answer.headers["content-disposition"]
        lines = answer.text.splitlines()
        assert len(lines) == 152
        assert lines[1].startswith("2,not JSON")


class TestStop:
    def test_stops_what_waits_and_goes_on(self, project: Project, admin: Visitor) -> None:
        path = send(admin, project, jsonl({"prompt": "One?"})).headers["location"]
        assert admin.post(f"{path}/cancel").status_code == 409, "it was not started"
        admin.post(f"{path}/start", shape="preferable", pool="p")
        admin.post(f"{path}/cancel")
        assert "Stopped." in admin.get(path).text
        admin.post(f"{path}/retry")
        run_jobs()
        assert "Done: 1 row read." in " ".join(admin.get(path).text.split())
        assert admin.post(f"{path}/retry").status_code == 409

    def test_a_failure_says_why(self, project: Project, admin: Visitor) -> None:
        path = send(admin, project, jsonl({"prompt": "One?"})).headers["location"]
        admin.post(f"{path}/start", shape="preferable", pool="p")
        storage.import_file(get_settings(), UUID(path.rpartition("/")[2])).unlink()
        run_jobs()
        page = admin.get(path).text
        assert "The import failed." in page
        assert "no longer in the store" in page
