"""Improving the best output over HTTP, from the ranking's submit to the lines of a snapshot."""

import uuid
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app import db, storage
from app import snapshot as files
from app.models import (
    Demonstration,
    Judgement,
    JudgementStatus,
    LabelSchema,
    Project,
    Prompt,
    Purpose,
    Question,
    Role,
    Sample,
    SnapshotKind,
    Split,
    Task,
    TaskKind,
)
from app.queries import judgements as queries
from app.queries import leases, references
from app.schemas import labels
from app.services import counters, datasets, gold, judgements, progress, tasks
from app.settings import get_settings
from tests.app import registry
from tests.app.queue import Queue, make_queue
from tests.app.ranking_page import count, fill, open_page, submit, take
from tests.app.school import referenced
from tests.app.visitor import Visitor, make_visitor
from workers.simulate.page import parse


@pytest.fixture
def queue(client: TestClient, tmp_path: Path) -> Queue:
    """A project with two rank tasks that asks to improve what was put first."""
    with db.transaction() as session:
        made = make_queue(session, tmp_path)
        made.project.asks_to_edit_best = True
        fields = [field.as_json() for field in labels.PAPERS]
        session.add(LabelSchema(project_id=made.project.id, version=1, fields=fields))
        for texts in (("one", "two", "three"), ("four", "five", "six")):
            made.task(session, texts)
        return made


@pytest.fixture
def ada(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.LABELLER)


def improve(visitor: Visitor, page: str, text: str, **others: str) -> tuple[str, dict[str, str]]:
    """Send an improved text; where it leads and what was sent."""
    form = open_page(visitor, page).form("/improve")
    sent = {name: form.values[name][0] for name in ("idempotency_key", "improved")} | {"text": text, **others}
    return visitor.post(page, **sent).headers["location"], sent


class TestSubmit:
    def test_reaches_the_snapshot_as_a_demonstration_and_as_a_ranking(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        shown = [name for name in open_page(ada, path).form("/submit").choices if name.startswith("tier-")]
        page = submit(ada, path, ["3", "1", "x"]).headers["location"]
        assert page == f"{path}/improve"
        form = open_page(ada, page).form("/improve")
        with db.transaction() as session:
            text_of = {f"tier-{sample.uid}": sample.text for sample in session.scalars(select(Sample))}
        third, best, broken = (text_of[name] for name in shown)
        assert form.values["text"] == (best,)
        following, sent = improve(ada, page, f"{best}, but **better**", active_ms="5000")
        assert following not in (path, page)
        assert ada.post(page, **sent).headers["location"] == following  # the same once more
        assert (count(Demonstration), count(Task)) == (1, 3)
        with db.transaction(isolation="REPEATABLE READ") as session:
            project = session.get_one(Project, queue.project.id)
            taken = datasets.take_snapshot(session, project, SnapshotKind.RANKINGS)
            assert counters.get(session, project.id, counters.JUDGEMENTS) == 2
            assert counters.get(session, project.id, counters.COMPARISONS) == 1 + 3
            assert counters.get(session, project.id, counters.DEMONSTRATIONS) == 1
        folder = storage.snapshot_folder(get_settings(), taken.uid)
        first, second = files.read_rows(folder, "rankings.jsonl")
        assert {row["text"]: row["tier"] for row in first["responses"]} == {best: 1, third: 2, broken: None}
        edited = f"{best}, but **better**"
        assert {row["text"]: row["tier"] for row in second["responses"]} == {edited: 1, best: 2, third: 3, broken: None}
        assert [row["sampler"] is None for row in second["responses"]].count(True) == 1
        assert first["labeller"] == second["labeller"]
        (written,) = files.read_rows(folder, "demonstrations.jsonl")
        assert (written["response"], written["origin"]) == (edited, "edited")
        with db.transaction() as session:
            demonstration = session.scalars(select(Demonstration)).one()
            assert session.get_one(Sample, demonstration.parent_id).text == best
            assert demonstration.active_ms == 5000

    def test_the_ranking_with_the_new_text_is_in_the_history_and_lent_to_nobody(
        self, client: TestClient, queue: Queue, ada: Visitor
    ) -> None:
        path = take(ada, queue)
        page = submit(ada, path, ["1", "2", "3"]).headers["location"]
        improve(ada, page, "Mine.")
        with db.transaction() as session:
            derived = session.scalars(select(Task).order_by(Task.id.desc())).first()
            assert derived is not None
        uid = f"/p/{queue.project.slug}/tasks/{derived.uid}"
        assert f'href="{uid}/revise"' in ada.get(f"/p/{queue.project.slug}/history").text
        assert ada.get(f"{uid}/improve").headers["location"] == uid
        assert "Improve response" not in ada.get(uid).text + ada.get(path).text
        bob = make_visitor(client, queue.project, Role.LABELLER)
        with db.transaction() as session:
            access = registry.access_of(bob.user, queue.project, Role.LABELLER)
            assert (
                tasks.lease_next(session, access, TaskKind.RANK) is None
            )  # Ada holds the other, and hers is for nobody
        assert bob.get(uid).status_code == bob.get(f"{uid}/improve").status_code == 404

    def test_a_text_that_is_one_of_the_outputs_is_refused_and_comes_back(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        page = submit(ada, path, ["1", "2", "3"]).headers["location"]
        form = open_page(ada, page).form("/improve")
        sent = {name: form.values[name][0] for name in ("idempotency_key", "improved")}
        for text, why in ((f" {form.values['text'][0]}\n", "unchanged"), ("", "is empty")):
            answer = ada.post(page, **sent, text=text)
            assert answer.status_code == 422
            assert why in answer.text
        assert count(Demonstration) == 0
        improve(ada, page, "Mine.")
        assert ada.post(page, idempotency_key=str(uuid.uuid4()), text="Mine again.").status_code == 409

    def test_the_draft_is_kept_and_the_preview_stores_nothing(self, queue: Queue, ada: Visitor) -> None:
        page = submit(ada, take(ada, queue), ["1", "2", "3"]).headers["location"]
        shown = open_page(ada, page).form("/improve").values["improved"][0]
        assert ada.post(f"{page}/draft", text="Half a", improved=shown).json()["saved_at"]
        assert open_page(ada, page).form("/improve").values["text"] == ("Half a",)
        asked = {"text": "Half a b", "improved": shown, "question": "Which?", "question_kind": "question"}
        answer = ada.post(f"{page.removesuffix('/improve')}/ask", idempotency_key=str(uuid.uuid4()), **asked)
        assert answer.headers["location"] == f"{page}#asked"
        assert open_page(ada, page).form("/improve").values["text"] == ("Half a b",)
        assert "<em>Half</em>" in ada.post(f"{page}/preview?block=preview", text="*Half* a").text
        improve(ada, page, "Mine.")
        assert ada.post(f"{page}/draft", text="late").json()["saved_at"] is None


class TestWhoIsAsked:
    def test_nobody_unless_the_project_asks_whatever_the_ranking_is_for(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        with db.transaction() as session:
            session.get_one(Project, queue.project.id).asks_to_edit_best = False
        assert "/improve" not in submit(ada, path, ["1", "2", "3"]).headers["location"]
        with db.transaction() as session:
            session.get_one(Project, queue.project.id).asks_to_edit_best = True
        assert "Improve response" in ada.get(path).text
        with db.transaction() as session:
            task = session.scalars(select(Task).where(Task.uid == uuid.UUID(path.rpartition("/")[2]))).one()
            session.get_one(Prompt, task.prompt_id).split = Split.VALID
        assert "Improve response" in ada.get(path).text
        improve(ada, f"{path}/improve", "Mine.")
        with db.transaction(isolation="REPEATABLE READ") as session:
            project = session.get_one(Project, queue.project.id)
            taken = datasets.take_snapshot(session, project, SnapshotKind.RANKINGS)
        folder = storage.snapshot_folder(get_settings(), taken.uid)
        for name in ("rankings.jsonl", "demonstrations.jsonl"):
            assert {row["split"] for row in files.read_rows(folder, name)} == {"valid"}

    def test_after_a_gold_task_as_after_any_other_and_the_ranking_with_the_new_text_is_gold_too(
        self, queue: Queue, ada: Visitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with db.transaction() as session:
            referenced(session, queue)
            project = session.get_one(Project, queue.project.id)
            project.school = project.school | {"gold_rate": 0.5}
        monkeypatch.setattr(gold, "draw", lambda key: 0.0)
        path = take(ada, queue)
        with db.transaction() as session:
            known = session.scalars(select(Task).where(Task.purpose == Purpose.GOLD)).one()
            assert path.endswith(str(known.uid))
        page = submit(ada, path, ["1", "2", "3"]).headers["location"]
        assert page == f"{path}/improve"
        improve(ada, page, "Mine.")
        with db.transaction(isolation="REPEATABLE READ") as session:
            project = session.get_one(Project, queue.project.id)
            taken = datasets.take_snapshot(session, project, SnapshotKind.RANKINGS)
            assert counters.get(session, project.id, counters.JUDGEMENTS) == 1  # that of the one it is made of
            assert counters.get(session, project.id, counters.DEMONSTRATIONS) == 0
        folder = storage.snapshot_folder(get_settings(), taken.uid)
        assert len(list(files.read_rows(folder, "rankings.jsonl"))) == 1
        assert not list(files.read_rows(folder, "demonstrations.jsonl"))

    def test_nobody_where_nothing_was_rankable(self, queue: Queue, ada: Visitor) -> None:
        answer = submit(ada, take(ada, queue), ["x", "x", "x"])
        assert "/improve" not in answer.headers["location"]


def said(status: JudgementStatus = JudgementStatus.CURRENT) -> list[dict[str, int | None]]:
    """Text and tier of the judgements of that status, the oldest first."""
    with db.transaction() as session:
        found = session.scalars(select(Judgement).where(Judgement.status == status).order_by(Judgement.task_id))
        texts = {sample.uid: sample.text for sample in session.scalars(select(Sample))}
        return [{texts[row.sample]: row.tier for row in queries.list_places(session, one.id)} for one in found]


def counted(queue: Queue) -> list[int]:
    with db.transaction() as session:
        names = (counters.JUDGEMENTS, counters.COMPARISONS, counters.DEMONSTRATIONS)
        return [counters.get(session, queue.project.id, name) for name in names]


def revise(visitor: Visitor, path: str, tiers: list[str]) -> None:
    form = open_page(visitor, f"{path}/revise").form("/revise")
    assert visitor.post(f"{path}/revise", **fill(form, tiers)).status_code == 303


class TestRankingMadeOfAnother:
    def test_follows_the_one_it_is_made_of_as_long_as_the_improved_output_is_the_best(
        self, queue: Queue, ada: Visitor
    ) -> None:
        path = take(ada, queue)
        page = submit(ada, path, ["1", "2", "3"]).headers["location"]
        improve(ada, page, "Mine.")
        revise(ada, path, ["1", "3", "2"])
        ranking, made_of_it = said()
        assert made_of_it == {text: tier + 1 for text, tier in ranking.items() if tier} | {"Mine.": 1}
        assert counted(queue) == [2, 3 + 6, 1]
        revise(ada, path, ["2", "1", "3"])
        assert len(said()) == 1
        assert counted(queue) == [1, 3, 1]
        revise(ada, path, ["1", "1", "2"])
        assert len(said()) == 2
        assert counted(queue) == [2, 2 + 5, 1]

    def test_is_no_work_and_no_task_for_a_reference(self, queue: Queue, ada: Visitor) -> None:
        page = submit(ada, take(ada, queue), ["1", "2", "3"]).headers["location"]
        improve(ada, page, "Mine.")
        with db.transaction() as session:
            access = registry.access_of(ada.user, queue.project, Role.LABELLER)
            done = progress.find_progress(session, access)
            assert (judgements.count_today(session, access), done.today, done.tasks, done.judgements) == (1, 1, 1, 1)
            place = (session, queue.project.id)
            assert leases.find_answered_at(*place, ada.user.id, nth=2) is None
            assert len(references.page_ranked(*place, words=None, before=None, limit=9)) == 1

    def test_is_not_made_of_a_page_that_shows_another_best(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        page = submit(ada, path, ["1", "2", "3"]).headers["location"]
        form = open_page(ada, page).form("/improve")
        sent = {name: form.values[name][0] for name in ("idempotency_key", "improved")} | {"text": "Mine."}
        ada.post(f"{page}/draft", **sent)
        revise(ada, path, ["2", "1", "3"])
        for answer in (ada.get(page), ada.post(page, **sent)):
            assert answer.status_code == 409
            assert "put another response first" in answer.text
            assert "Mine." in answer.text
        assert count(Demonstration) == 0
        again = parse(answer.text).form("/improve").values["improved"][0]
        assert ada.post(page, **sent | {"improved": again}).status_code == 303
        assert said()[1]["Mine."] == 1

    def test_is_excluded_with_the_task_it_is_made_of_as_is_what_comes_later(
        self, client: TestClient, queue: Queue, ada: Visitor
    ) -> None:
        with db.transaction() as session:
            session.execute(update(Task).values(judgements_wanted=2))
        path = take(ada, queue)
        page = submit(ada, path, ["1", "2", "3"]).headers["location"]
        improve(ada, page, "Mine.")
        bob, admin = (make_visitor(client, queue.project, role) for role in (Role.LABELLER, Role.ADMIN))
        assert take(bob, queue) == path
        key = str(uuid.uuid4())
        bob.post(f"{path}/ask", idempotency_key=key, question="It is cut.", question_kind="broken")
        with db.transaction() as session:
            question = f"/p/{queue.project.slug}/inbox/{session.scalars(select(Question.uid)).one()}"
        admin.post(f"{question}/retire")  # first without the box
        excluding = open_page(admin, question).form("/retire")
        shown = admin.post(excluding.action, excludes_answers="true").headers["location"]
        assert "3 answers were taken out of training" in admin.get(shown).text
        submit(bob, path, ["1", "2", "3"])
        assert counted(queue) == [0, 0, 0]
        assert (len(said()), len(said(JudgementStatus.EXCLUDED))) == (0, 3)
        with db.transaction() as session:
            assert session.scalars(select(Demonstration.status)).all() == [JudgementStatus.EXCLUDED]


class TestSetting:
    def test_is_off_until_an_admin_sets_it(self, client: TestClient, queue: Queue) -> None:
        admin = make_visitor(client, queue.project, Role.ADMIN)
        path = f"/p/{queue.project.slug}/settings"
        form = parse(admin.get(path).text).form("/settings")
        sent = {name: values[-1] for name, values in form.filled().items() if values}
        assert sent.pop("asks_to_edit_best") == "true"
        admin.post(path, **sent)
        with db.transaction() as session:
            assert not session.get_one(Project, queue.project.id).asks_to_edit_best
