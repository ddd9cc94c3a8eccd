"""Writing a demonstration over HTTP: take a prompt, write, submit; refused texts come back as they were written."""

import uuid
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app import db
from app.models import Demonstration, Lease, Membership, Role, Sample, SampleOrigin, Task
from tests.app import registry
from tests.app.queue import Queue, make_queue
from tests.app.visitor import Visitor, make_visitor
from workers.simulate.page import Form, parse


@pytest.fixture
def queue(client: TestClient, tmp_path: Path) -> Queue:
    """A project with two training prompts."""
    with db.transaction() as session:
        made = make_queue(session, tmp_path)
        for text in ("Name a <b>bird</b>.", "Name a fish."):
            registry.make_prompt(session, made.project, text)
        return made


@pytest.fixture
def ada(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.LABELLER)


def take(visitor: Visitor, queue: Queue) -> tuple[str, Form]:
    """Lease the next prompt; gives the address of its page and its form."""
    path = visitor.post(f"/p/{queue.project.slug}/demonstrate/next").headers["location"]
    return path, parse(visitor.get(path).text).form("/submit")


def texts() -> list[str]:
    with db.transaction() as session:
        return list(session.scalars(select(Demonstration.text).order_by(Demonstration.id)))


class TestQueuePage:
    def test_offers_a_prompt_and_opens_no_task(self, queue: Queue, ada: Visitor) -> None:
        page = parse(ada.get(f"/p/{queue.project.slug}/demonstrate").text)
        assert page.find_form("/demonstrate/next") is not None
        with db.transaction() as session:
            assert session.scalar(select(func.count()).select_from(Task)) == 0
            assert session.scalar(select(func.count()).select_from(Lease)) == 0

    def test_says_when_every_prompt_is_written_for(self, queue: Queue, ada: Visitor) -> None:
        for text in ("A wren.", "A cod."):
            path, form = take(ada, queue)
            answer = ada.post(f"{path}/submit", idempotency_key=form.values["idempotency_key"][0], text=text)
        assert answer.headers["location"] == f"/p/{queue.project.slug}/demonstrate"
        assert "No prompt waits" in ada.get(answer.headers["location"]).text

    def test_says_that_an_admin_has_paused_the_work(self, queue: Queue, ada: Visitor) -> None:
        with db.transaction() as session:
            session.execute(update(Membership).where(Membership.user_id == ada.user.id).values(is_paused=True))
        assert "An admin of the project has paused it" in ada.get(f"/p/{queue.project.slug}/demonstrate").text


class TestSubmit:
    def test_stores_the_text_and_shows_the_next_prompt(self, queue: Queue, ada: Visitor) -> None:
        path, form = take(ada, queue)
        sent = {"idempotency_key": form.values["idempotency_key"][0], "text": "A wren,\r\nor **two**."}
        first, again = (ada.post(f"{path}/submit", **sent) for _ in range(2))
        assert (first.status_code, again.status_code) == (303, 303)
        assert first.headers["location"] == again.headers["location"] != path
        assert texts() == ["A wren,\nor **two**."]
        assert "Your demonstration is stored" in ada.get(path).text

    @pytest.mark.parametrize(
        ("text", "message"), [(" ", "The response is empty"), ("x" * 20_001, "has 20,001 characters; shorten it")]
    )
    def test_a_refused_text_comes_back(self, queue: Queue, ada: Visitor, text: str, message: str) -> None:
        path, form = take(ada, queue)
        answer = ada.post(f"{path}/submit", idempotency_key=form.values["idempotency_key"][0], text=text)
        assert answer.status_code == 422
        assert message in answer.text
        assert parse(answer.text).form("/submit").values["text"] == (text,)
        assert texts() == []

    def test_a_second_tab_is_told(self, queue: Queue, ada: Visitor) -> None:
        path, form = take(ada, queue)
        ada.post(f"{path}/submit", idempotency_key=form.values["idempotency_key"][0], text="A wren.")
        answer = ada.post(f"{path}/submit", idempotency_key=str(uuid.uuid4()), text="An owl.")
        assert answer.status_code == 409
        assert "That text is kept" in answer.text
        assert texts() == ["A wren."]

    def test_a_prompt_held_by_another_is_not_found(self, client: TestClient, queue: Queue, ada: Visitor) -> None:
        path, _ = take(ada, queue)
        bob = make_visitor(client, queue.project, Role.LABELLER)
        assert bob.get(path).status_code == 404
        assert bob.post(f"{path}/submit", idempotency_key=str(uuid.uuid4()), text="x").status_code == 404
        assert bob.post(f"{path}/draft", text="x").status_code == 404


class TestDraftAndSkip:
    def test_a_draft_is_restored(self, queue: Queue, ada: Visitor) -> None:
        path, _ = take(ada, queue)
        assert ada.post(f"{path}/draft", text="half a").json()["saved_at"]
        assert parse(ada.get(path).text).form("/submit").values["text"] == ("half a",)

    def test_a_skip_offers_the_way_back(self, queue: Queue, ada: Visitor) -> None:
        path, _ = take(ada, queue)
        uid = path.rpartition("/")[2]
        answer = ada.post(f"/p/{queue.project.slug}/tasks/{uid}/skip", reason="knowledge")
        assert answer.headers["location"] == f"/p/{queue.project.slug}/demonstrate?skipped={uid}"
        assert f"/tasks/{uid}" in ada.get(answer.headers["location"]).text
        assert take(ada, queue)[0] != path


class TestPreview:
    def test_shows_the_text_rendered_and_keeps_it(self, queue: Queue, ada: Visitor) -> None:
        path, _ = take(ada, queue)
        answer = ada.post(f"{path}/preview", text="Two **wrens** <script>alert(1)</script>")
        assert "Two <strong>wrens</strong> &lt;script&gt;" in answer.text
        assert parse(answer.text).form("/submit").values["text"] == ("Two **wrens** <script>alert(1)</script>",)
        assert texts() == []

    def test_gives_the_rendered_text_alone_to_a_script(self, queue: Queue, ada: Visitor) -> None:
        path, _ = take(ada, queue)
        answer = ada.post(f"{path}/preview?block=preview", text="$x^2$")
        assert answer.text.strip().startswith('<div class="prose" id="preview"')
        assert "<math" in answer.text

    def test_of_another_person_s_task_is_not_found(self, client: TestClient, queue: Queue, ada: Visitor) -> None:
        path, _ = take(ada, queue)
        assert make_visitor(client, queue.project, Role.LABELLER).post(f"{path}/preview", text="x").status_code == 404


class TestStart:
    def test_fills_the_form_with_a_model_s_response(self, queue: Queue, ada: Visitor) -> None:
        path, form = take(ada, queue)
        assert "Start from a response of the model" not in ada.get(path).text
        with db.transaction() as session:
            task = session.scalars(select(Task).where(Task.uid == uuid.UUID(path.rpartition("/")[2]))).one()
            sample = Sample(
                project_id=queue.project.id,
                prompt_id=task.prompt_id,
                origin=SampleOrigin.MODEL,
                sampler_id=queue.sampler.id,
                text="\nA wren, I think.",
                html="",
            )
            session.add(sample)
        filled = parse(ada.post(f"{path}/start", text=" ").text).form("/submit")
        assert (filled.values["text"], filled.values["parent"]) == (("\nA wren, I think.",), (str(sample.uid),))
        begun = ada.post(f"{path}/start", text="I began.")
        assert begun.status_code == 422
        assert parse(begun.text).form("/submit").values["text"] == ("I began.",)
        sent = {"idempotency_key": form.values["idempotency_key"][0], "parent": str(sample.uid)}
        ada.post(f"{path}/submit", text="A wren.", **sent)
        assert "begun as a response of the model" in ada.get(path).text

    def test_without_a_response_there_is_nothing_to_start_from(self, queue: Queue, ada: Visitor) -> None:
        path, _ = take(ada, queue)
        assert ada.post(f"{path}/start", text="").status_code == 422


class TestRevise:
    def test_stores_a_new_version_and_shows_both_where_another_was_stored_meanwhile(
        self, queue: Queue, ada: Visitor
    ) -> None:
        path, form = take(ada, queue)
        assert ada.get(f"{path}/revise").headers["location"] == path
        ada.post(f"{path}/submit", idempotency_key=form.values["idempotency_key"][0], text="A wren.")
        history = ada.get(f"/p/{queue.project.slug}/history").text
        assert f'href="{path}/revise"' in history
        offered = parse(ada.get(f"{path}/revise").text).form("/revise")
        assert offered.values["text"] == ("A wren.",)
        sent = {name: offered.values[name][0] for name in ("idempotency_key", "of_revision")}
        assert ada.post(f"{path}/revise", text=" ", **sent).status_code == 422
        assert ada.post(f"{path}/revise", text="An **owl**.", **sent).headers["location"].endswith("/history")
        assert "version 2" in ada.get(f"/p/{queue.project.slug}/history").text
        assert "An <strong>owl</strong>." in ada.get(path).text
        late = ada.post(f"{path}/revise", text="A cod.", idempotency_key=str(uuid.uuid4()), of_revision="1")
        assert late.status_code == 409
        assert "An <strong>owl</strong>." in late.text and "A cod." in late.text
        assert texts() == ["A wren.", "An **owl**."]
