"""Comparing, rating and labelling over HTTP: what every kind shares, and what each stores."""

import uuid
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app import db, storage
from app import snapshot as files
from app.models import (
    AuditEntry,
    Category,
    Checkpoint,
    Draft,
    Judgement,
    JudgementPair,
    JudgementRank,
    LabelSchema,
    Lease,
    LeaseState,
    Project,
    Prompt,
    PromptStatus,
    Purpose,
    Role,
    Sample,
    Sampler,
    SnapshotKind,
    Task,
    TaskKind,
    TaskOutput,
    TaskState,
)
from app.schemas import labels
from app.services import counters, datasets
from app.services.datasets import Filters
from app.settings import get_settings
from tests.app.kinds import PATHS, open_task
from tests.app.queue import Queue, make_queue
from tests.app.ranking_page import count
from tests.app.visitor import Visitor, make_visitor
from workers.simulate.page import Form, parse

KINDS = list(PATHS)


@pytest.fixture
def queue(client: TestClient, tmp_path: Path) -> Queue:
    """A project that asks the paper's questions, without a task."""
    with db.transaction() as session:
        made = make_queue(session, tmp_path)
        fields = [field.as_json() for field in labels.PAPERS]
        session.add(LabelSchema(project_id=made.project.id, version=1, fields=fields))
        return made


@pytest.fixture
def ada(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.LABELLER)


def add(queue: Queue, kind: TaskKind, number: int = 1, **others: int) -> None:
    with db.transaction() as session:
        for _ in range(number):
            open_task(session, queue, kind, **others)


def take(visitor: Visitor, queue: Queue, kind: TaskKind) -> tuple[str, Form]:
    """Lease the next task; the address of its page and its form."""
    path = visitor.post(f"/p/{queue.project.slug}/{PATHS[kind]}/next").headers["location"]
    return path, parse(visitor.get(path).text).form("/submit")


def whole(form: Form, kind: TaskKind) -> dict[str, str]:
    """A form filled with an answer that can be stored."""
    sent = {name: form.values[name][0] for name in ("idempotency_key", "schema")}
    if kind == TaskKind.COMPARE:
        return sent | {"preference": "tie"}
    if kind == TaskKind.RATE:
        return sent | {next(name for name in form.choices if name.startswith("quality-")): "5"}
    return sent | {"ask-use_case": "open question"}


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_says_when_there_is_nothing_and_offers_a_task_when_there_is(
        self, queue: Queue, ada: Visitor, kind: TaskKind
    ) -> None:
        page, home = f"/p/{queue.project.slug}/{PATHS[kind]}", f"/p/{queue.project.slug}/"
        assert "No task of this kind is open" in ada.get(page).text
        assert f'href="{page}"' not in ada.get(home).text
        add(queue, kind)
        assert parse(ada.get(page).text).find_form("/next") is not None
        shown = ada.get(home).text
        assert f'href="{page}"' in shown
        assert "One is open" in shown
        assert count(Lease) == 0
        path, _ = take(ada, queue, kind)
        assert ada.get(page).headers["location"] == path

    def test_stores_an_answer_once_and_goes_on(self, queue: Queue, ada: Visitor, kind: TaskKind) -> None:
        add(queue, kind, 2)
        path, form = take(ada, queue, kind)
        sent = whole(form, kind) | {"note": "Sure.", "active_ms": "1200"}
        first, again = (ada.post(f"{path}/submit", **sent) for _ in range(2))
        assert (first.status_code, first.headers["location"]) == (303, again.headers["location"])
        assert first.headers["location"] != path
        with db.transaction() as session:
            judgement = session.scalars(select(Judgement)).one()
            assert (judgement.note, judgement.active_ms, judgement.revision) == ("Sure.", 1200, 1)
            assert session.get_one(Task, judgement.task_id).state == TaskState.DONE
            assert counters.get(session, queue.project.id, counters.JUDGEMENTS) == 0
            assert counters.get(session, queue.project.id, counters.COMPARISONS) == 0
        assert "Sure." in ada.get(path).text

    def test_a_draft_is_kept_and_shown_again(self, queue: Queue, ada: Visitor, kind: TaskKind) -> None:
        add(queue, kind)
        path, form = take(ada, queue, kind)
        sent = whole(form, kind) | {"note": "so far"}
        assert ada.post(f"{path}/draft", **sent).json()["saved_at"]
        shown = parse(ada.get(path).text).form("/submit")
        for name in set(sent) - {"idempotency_key"}:
            assert shown.values[name] == (sent[name],), name
        ada.post(f"{path}/submit", **sent)
        assert ada.post(f"{path}/draft", **sent).json()["saved_at"] is None
        assert count(Draft) == 0

    def test_an_answer_that_is_not_whole_comes_back(self, queue: Queue, ada: Visitor, kind: TaskKind) -> None:
        add(queue, kind)
        path, form = take(ada, queue, kind)
        sent = {"idempotency_key": form.values["idempotency_key"][0], "note": "half"}
        for wrong in ({}, {"preference": f"{uuid.uuid4()}:2", "ask-use_case": "poetry"}):
            answer = ada.post(f"{path}/submit", **sent | wrong)
            assert answer.status_code == 422
            assert "Not stored yet" in answer.text
            assert parse(answer.text).form("/submit").values["note"] == ("half",)
        assert count(Judgement) == 0

    def test_a_second_tab_is_shown_both(self, queue: Queue, ada: Visitor, kind: TaskKind) -> None:
        add(queue, kind)
        path, form = take(ada, queue, kind)
        ada.post(f"{path}/submit", **whole(form, kind) | {"note": "the first"})
        sent = whole(form, kind) | {"note": "the second", "idempotency_key": str(uuid.uuid4())}
        answer = ada.post(f"{path}/submit", **sent)
        assert answer.status_code == 409
        assert "the first" in answer.text and "the second" in answer.text
        assert count(Judgement) == 1

    def test_is_revised_from_the_history(self, queue: Queue, ada: Visitor, kind: TaskKind) -> None:
        add(queue, kind)
        path, form = take(ada, queue, kind)
        assert ada.get(f"{path}/revise").headers["location"] == path
        sent = whole(form, kind)
        ada.post(f"{path}/submit", **sent)
        assert f'href="{path}/revise"' in ada.get(f"/p/{queue.project.slug}/history").text
        offered = parse(ada.get(f"{path}/revise").text).form("/revise")
        for name in set(sent) - {"idempotency_key"}:
            assert offered.values[name] == (sent[name],), name
        again = whole(offered, kind) | {"of_revision": offered.values["of_revision"][0], "note": "better"}
        assert ada.post(f"{path}/revise", **again).headers["location"].endswith("/history")
        assert ada.post(f"{path}/revise", **again).status_code == 303
        late = ada.post(f"{path}/revise", **again | {"idempotency_key": str(uuid.uuid4())})
        assert late.status_code == 409
        with db.transaction() as session:
            rows = session.scalars(select(Judgement).order_by(Judgement.revision)).all()
            assert [(row.revision, row.status, row.note) for row in rows] == [
                (1, "superseded", None),
                (2, "current", "better"),
            ]

    def test_is_skipped_with_a_reason_and_given_back(self, queue: Queue, ada: Visitor, kind: TaskKind) -> None:
        add(queue, kind, 2)
        path, _ = take(ada, queue, kind)
        answer = ada.post(path.replace(PATHS[kind], "tasks") + "/skip", reason="unclear")
        page = answer.headers["location"]
        assert page.startswith(f"/p/{queue.project.slug}/{PATHS[kind]}?skipped=")
        assert "Go back to it after all" in ada.get(page).text
        assert ada.get(path.replace(PATHS[kind], "tasks")).headers["location"] == path
        second, _ = take(ada, queue, kind)
        left = ada.post(second.replace(PATHS[kind], "tasks") + "/release")
        assert left.headers["location"] == f"/p/{queue.project.slug}/{PATHS[kind]}"
        with db.transaction() as session:
            states = set(session.scalars(select(Lease.state)))
        assert states == {LeaseState.SKIPPED, LeaseState.RELEASED}

    def test_of_another_person_or_of_another_kind_is_not_found(
        self, client: TestClient, queue: Queue, ada: Visitor, kind: TaskKind
    ) -> None:
        add(queue, kind)
        path, form = take(ada, queue, kind)
        bob = make_visitor(client, queue.project, Role.LABELLER)
        assert bob.get(path).status_code == bob.get(f"{path}/revise").status_code == 404
        assert bob.post(f"{path}/submit", **whole(form, kind)).status_code == 404
        for other in set(KINDS) - {kind}:
            assert ada.get(path.replace(f"/{PATHS[kind]}/", f"/{PATHS[other]}/")).status_code == 404


class TestCompare:
    def test_is_stored_in_terms_of_outputs_wherever_they_were_shown(
        self, client: TestClient, queue: Queue, ada: Visitor
    ) -> None:
        """As many people as it takes for both orders to come up prefer the same output, and the rows say so."""
        add(queue, TaskKind.COMPARE, wanted=20)
        with db.transaction() as session:
            left, right = session.execute(
                select(Sample.uid, TaskOutput.id)
                .join(TaskOutput, TaskOutput.sample_id == Sample.id)
                .order_by("position")
            ).all()
        orders = set()
        for _ in range(20):
            person = make_visitor(client, queue.project, Role.LABELLER)
            path, form = take(person, queue, TaskKind.COMPARE)
            with db.transaction() as session:
                orders.add(tuple(session.scalars(select(Lease.shown_order).order_by(Lease.id.desc())).first() or ()))
            person.post(f"{path}/submit", **whole(form, TaskKind.COMPARE) | {"preference": f"{right.uid}:3"})
            if len(orders) == 2:
                break
        assert orders == {(0, 1), (1, 0)}
        with db.transaction() as session:
            pairs = session.scalars(select(JudgementPair)).all()
            assert {(pair.left_id, pair.right_id, pair.p_left, pair.strength) for pair in pairs} == {
                (left.id, right.id, 0.0, 3)
            }
            tiers = {(rank.output_id, rank.tier) for rank in session.scalars(select(JudgementRank))}
        assert tiers == {(left.id, 2), (right.id, 1)}

    def test_no_page_tells_whose_answer_is_whose(self, queue: Queue, ada: Visitor) -> None:
        add(queue, TaskKind.COMPARE)
        path, form = take(ada, queue, TaskKind.COMPARE)
        page = ada.get(path).text
        ada.post(f"{path}/submit", **whole(form, TaskKind.COMPARE))
        with db.transaction() as session:
            named = [*session.scalars(select(Sampler.uid)), *session.scalars(select(Checkpoint.uid))]
        for text in (page, ada.get(path).text):
            assert not any(str(uid) in text for uid in named)
            assert "tiny" not in text and "sampler" not in text

    def test_a_tie_and_flags_reach_the_snapshot_of_evaluations_and_not_that_of_training(
        self, queue: Queue, ada: Visitor
    ) -> None:
        add(queue, TaskKind.COMPARE)
        add(queue, TaskKind.RATE)
        path, form = take(ada, queue, TaskKind.COMPARE)
        flag = next(name for name in form.choices if name.startswith("ask-fails_task-"))
        ada.post(f"{path}/submit", **whole(form, TaskKind.COMPARE) | {flag: "yes"})
        rated, rating = take(ada, queue, TaskKind.RATE)
        ada.post(f"{rated}/submit", **whole(rating, TaskKind.RATE))
        rows = {}
        for name, filters in (("train", Filters()), ("evaluate", Filters(purposes=(Purpose.EVALUATE,)))):
            with db.transaction(isolation="REPEATABLE READ") as session:
                project = session.get_one(Project, queue.project.id)
                taken = datasets.take_snapshot(session, project, SnapshotKind.RANKINGS, filters)
            folder = storage.snapshot_folder(get_settings(), taken.uid)
            rows[name] = list(files.read_rows(folder, "rankings.jsonl"))
        assert rows["train"] == []
        (row,) = rows["evaluate"]  # the rating is no ranking
        samples = [response["sample"] for response in row["responses"]]
        assert row["pairs"] == [{"left": samples[0], "right": samples[1], "p_left": 0.5, "strength": None}]
        assert [response["tier"] for response in row["responses"]] == [1, 1]
        flagged = flag.removeprefix("ask-fails_task-")
        assert {r["sample"]: r["flags"] for r in row["responses"]}[flagged] == {"fails_task": True}


class TestRate:
    def test_stores_the_quality_and_the_flags_of_the_output(self, queue: Queue, ada: Visitor) -> None:
        add(queue, TaskKind.RATE)
        path, form = take(ada, queue, TaskKind.RATE)
        uid = next(name for name in form.choices if name.startswith("quality-")).removeprefix("quality-")
        sent = whole(form, TaskKind.RATE) | {f"quality-{uid}": "7", f"ask-opinion-{uid}": "yes", "ask-has_pii": "yes"}
        for wrong in ("", "8"):
            assert ada.post(f"{path}/submit", **sent | {f"quality-{uid}": wrong}).status_code == 422
        ada.post(f"{path}/submit", **sent)
        with db.transaction() as session:
            rank = session.scalars(select(JudgementRank)).one()
            assert (rank.quality, rank.answers) == (7, {"opinion": True})
            assert session.scalars(select(Judgement.answers)).one() == {"has_pii": True}
        assert "Quality 7 of 7" in ada.get(path).text


class TestLabelPrompt:
    @pytest.mark.parametrize("imported", [None, Category.REWRITE])
    def test_the_newest_label_is_the_category_unless_one_was_imported(
        self, queue: Queue, ada: Visitor, imported: Category | None
    ) -> None:
        add(queue, TaskKind.LABEL_PROMPT)
        with db.transaction() as session:
            session.execute(update(Prompt).values(category=imported))
        path, form = take(ada, queue, TaskKind.LABEL_PROMPT)
        assert "badge" not in ada.get(path).text, "a category that is shown is copied"
        ada.post(f"{path}/submit", **whole(form, TaskKind.LABEL_PROMPT))
        revised = whole(parse(ada.get(f"{path}/revise").text).form("/revise"), TaskKind.LABEL_PROMPT)
        ada.post(f"{path}/revise", **revised | {"ask-use_case": "chat", "of_revision": "1"})
        with db.transaction() as session:
            prompt = session.scalars(select(Prompt)).one()
            assert (prompt.category, prompt.status) == (imported or Category.CHAT, PromptStatus.ACTIVE)
            assert session.scalars(select(Judgement.answers).order_by(Judgement.id.desc())).first() == {
                "use_case": "chat"
            }

    def test_one_with_personal_data_is_quarantined_until_an_admin_releases_it(
        self, client: TestClient, queue: Queue, ada: Visitor
    ) -> None:
        add(queue, TaskKind.LABEL_PROMPT, wanted=2)
        path, form = take(ada, queue, TaskKind.LABEL_PROMPT)
        said = whole(form, TaskKind.LABEL_PROMPT) | {"ask-has_pii": "yes"}
        ada.post(f"{path}/submit", **said)
        bob = make_visitor(client, queue.project, Role.LABELLER)
        assert bob.post(f"/p/{queue.project.slug}/label/next").headers["location"].endswith("/label")
        with db.transaction() as session:
            prompt = session.scalars(select(Prompt)).one()
            assert prompt.status == PromptStatus.PII
            assert session.scalars(select(Task.state)).one() == TaskState.RETIRED
        admin = make_visitor(client, queue.project, Role.ADMIN)
        page = f"/p/{queue.project.slug}/prompts"
        assert bob.post(f"{page}/{prompt.uid}/release").status_code == 403
        assert f'formaction="{page}/{prompt.uid}/release"' in admin.get(f"{page}/quarantine").text
        assert admin.post(f"{page}/{prompt.uid}/release").status_code == 303
        with db.transaction() as session:
            assert session.scalars(select(Prompt.status)).one() == PromptStatus.ACTIVE
        ada.post(f"{path}/submit", **said)
        revised = whole(parse(ada.get(f"{path}/revise").text).form("/revise"), TaskKind.LABEL_PROMPT)
        ada.post(f"{path}/revise", **revised | {"ask-has_pii": "yes", "ask-use_case": "chat", "of_revision": "1"})
        with db.transaction() as session:
            assert count(Judgement) == 2
            assert session.scalars(select(Prompt.status)).one() == PromptStatus.ACTIVE, "what was said before is known"
            acts = session.scalars(select(AuditEntry.action).where(AuditEntry.subject_uid == prompt.uid)).all()
        assert acts == ["quarantine prompt", "release prompt"]
