"""Reference answers: what can be one, its versions, and files of them."""

import io
import json
import uuid
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, Forbidden, NotFound
from app.models import (
    EVERYONE,
    AuditEntry,
    Prompt,
    PromptPool,
    PromptStatus,
    Purpose,
    Sample,
    Task,
    TaskReference,
    TaskState,
)
from app.queries import qualifications as qualification_queries
from app.queries import references as queries
from app.queries import tasks as task_queries
from app.schemas.references import ReferenceForm, read_row
from app.services import references
from app.services.prompts import RefusedFile
from tests.app import school
from tests.app.queue import Queue, make_queue

ROW = {"prompt": "Name a bird.", "responses": [{"text": "A robin.", "tier": 1}, {"text": "A cod.", "tier": 2}]}


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    return make_queue(session, tmp_path)


class TestCreateOfTask:
    def test_shows_the_same_texts_in_a_task_for_everybody(self, session: Session, queue: Queue) -> None:
        of = school.ranked(session, queue)
        form = school.form_of(session, of, ["2", "x", "3"])
        made = references.create_of_task(session, school.teacher(session, queue), of.uid, Purpose.GOLD, form)
        assert (made.purpose, made.state, made.judgements_wanted) == (Purpose.GOLD, TaskState.OPEN, EVERYONE)
        outputs = task_queries.list_outputs(session, made.id)
        assert [output.sample for output in outputs] == [
            output.sample for output in task_queries.list_outputs(session, of.id)
        ]
        reference = queries.find_reference(session, made.id)
        assert reference is not None
        assert (reference.version, reference.html) == (1, "<p>Because.</p>")
        places = queries.list_places(session, reference.id)
        assert [place.tier for place in places] == [1, None, 2]
        assert [place.output_id for place in places] == [output.output_id for output in outputs]
        assert places[0].html == "<p>It says <em>first</em>.</p>"

    @pytest.mark.parametrize("tiers", [["1", "2", ""], ["1", "2", "4"], ["1", "2", "0"], ["1", "2", "best"]])
    def test_refuses_an_order_with_a_hole(self, session: Session, queue: Queue, tiers: list[str]) -> None:
        of = school.ranked(session, queue)
        form = school.form_of(session, of, tiers)
        with pytest.raises(references.InvalidReference, match="from 1 to 3"):
            references.create_of_task(session, school.teacher(session, queue), of.uid, Purpose.GOLD, form)

    def test_refuses_what_orders_nothing_or_explains_without_end(self, session: Session, queue: Queue) -> None:
        of, teacher = school.ranked(session, queue), school.teacher(session, queue)
        with pytest.raises(references.InvalidReference, match="at least two"):
            references.create_of_task(
                session, teacher, of.uid, Purpose.GOLD, school.form_of(session, of, ["1", "x", "x"])
            )
        form = school.form_of(session, of, ["1", "2", "3"], explanation="a" * 20_001)
        with pytest.raises(references.InvalidReference, match="20,001") as caught:
            references.create_of_task(session, teacher, of.uid, Purpose.GOLD, form)
        assert list(caught.value.problems) == ["explanation"]

    def test_refuses_a_task_for_training_and_one_nobody_ranked(self, session: Session, queue: Queue) -> None:
        of, teacher = school.ranked(session, queue), school.teacher(session, queue)
        with pytest.raises(BadInput, match="what the task is for"):
            references.create_of_task(session, teacher, of.uid, Purpose.TRAIN, school.form_of(session, of, ["1"] * 3))
        with pytest.raises(NotFound):
            references.create_of_task(session, teacher, queue.task(session).uid, Purpose.GOLD, ReferenceForm())
        with pytest.raises(Forbidden):
            references.create_of_task(session, queue.person(session), of.uid, Purpose.GOLD, ReferenceForm())

    def test_refuses_the_same_responses_for_the_same_purpose(self, session: Session, queue: Queue) -> None:
        of, teacher = school.ranked(session, queue), school.teacher(session, queue)
        form = school.form_of(session, of, ["1", "2", "3"])
        made = references.create_of_task(session, teacher, of.uid, Purpose.QUALIFY, form)
        made.state = TaskState.RETIRED
        with pytest.raises(references.AlreadyMade) as caught:
            references.create_of_task(session, teacher, of.uid, Purpose.QUALIFY, form)
        assert caught.value.task.uid == made.uid
        assert references.create_of_task(session, teacher, of.uid, Purpose.PRACTICE, form).uid != made.uid


class TestRevise:
    def test_keeps_the_version_before(self, session: Session, queue: Queue) -> None:
        task, teacher = school.referenced(session, queue), school.teacher(session, queue)
        form = school.form_of(session, task, ["1", "1", "2"], explanation="The first two are alike.")
        assert references.revise(session, teacher, task.uid, form, of_version=1).version == 2
        assert references.find_referenced(session, teacher, task.uid).form == form
        assert session.scalars(select(func.count()).select_from(TaskReference)).one() == 2

    def test_refuses_to_overwrite_what_one_has_not_seen(self, session: Session, queue: Queue) -> None:
        task, teacher = school.referenced(session, queue), school.teacher(session, queue)
        form = school.form_of(session, task, ["1", "1", "2"])
        references.revise(session, teacher, task.uid, form, of_version=1)
        with pytest.raises(Conflict, match="newer one"):
            references.revise(session, teacher, task.uid, form, of_version=1)

    def test_knows_only_tasks_with_a_reference(self, session: Session, queue: Queue) -> None:
        with pytest.raises(NotFound):
            references.revise(
                session, school.teacher(session, queue), queue.task(session).uid, ReferenceForm(), of_version=1
            )


class TestSetUse:
    def test_retires_and_takes_back(self, session: Session, queue: Queue) -> None:
        task, teacher = school.referenced(session, queue), school.teacher(session, queue)
        for is_used, state in ((False, TaskState.RETIRED), (False, TaskState.RETIRED), (True, TaskState.OPEN)):
            references.set_use(session, teacher, task.uid, is_used=is_used)
            assert task.state == state
        actions = session.scalars(select(AuditEntry.action).where(AuditEntry.actor_id == teacher.user.id))
        assert sorted(actions) == ["reopen reference", "retire reference"]


def test_none_is_made_or_used_of_a_prompt_that_was_quarantined(session: Session, queue: Queue) -> None:
    of, teacher = school.ranked(session, queue), school.teacher(session, queue)
    task = school.referenced(session, queue)
    references.set_use(session, teacher, task.uid, is_used=False)
    assert TestImportFile().load(session, queue, ROW) == 1
    for prompt in session.scalars(select(Prompt)):
        prompt.status, prompt.is_private = PromptStatus.PII, True
    session.flush()
    with pytest.raises(Conflict, match="Release it"):
        references.set_use(session, teacher, task.uid, is_used=True)
    form = school.form_of(session, of, ["1", "2", "3"])
    with pytest.raises(Conflict, match="Release it"):
        references.create_of_task(session, teacher, of.uid, Purpose.GOLD, form)
    with pytest.raises(BadInput, match="line 1 of the file"):
        TestImportFile().load(session, queue, ROW)
    assert not queries.page_ranked(session, queue.project.id, words=None, before=None, limit=9)


class TestImportFile:
    def load(self, session: Session, queue: Queue, *rows: object, purpose: Purpose = Purpose.PRACTICE) -> int:
        lines = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        teacher = school.teacher(session, queue)
        return references.import_file(session, teacher, purpose=purpose, data=io.BytesIO(lines.encode()))

    def test_makes_a_task_of_each_row(self, session: Session, queue: Queue) -> None:
        why = {"text": "A cod.", "tier": None, "explanation": "A fish."}
        row = {**ROW, "responses": [*ROW["responses"][:1], {"text": "A gull.", "tier": 3}, why], "explanation": "So."}
        assert self.load(session, queue, ROW, row) == 2
        tasks = session.scalars(select(Task).where(Task.purpose == Purpose.PRACTICE).order_by(Task.id)).all()
        assert len({task.prompt_id for task in tasks}) == 1
        reference = queries.find_reference(session, tasks[1].id)
        assert reference is not None
        assert [(place.tier, place.explanation) for place in queries.list_places(session, reference.id)] == [
            (1, ""),
            (2, ""),
            (None, "A fish."),
        ]

    def test_its_prompts_are_never_answered_and_its_texts_look_like_a_model_s(
        self, session: Session, queue: Queue
    ) -> None:
        self.load(session, queue, ROW)
        pool = session.scalars(select(PromptPool).where(PromptPool.name == references.POOL)).one()
        assert not pool.is_active
        assert set(session.scalars(select(Sample.finish_reason))) == {"stop"}

    def test_refuses_what_is_there_and_knows_its_texts_again(self, session: Session, queue: Queue) -> None:
        turned = {**ROW, "responses": ROW["responses"][::-1]}
        with pytest.raises(RefusedFile, match="1 of 2 lines"), session.begin_nested():
            self.load(session, queue, ROW, turned)
        self.load(session, queue, ROW)
        with pytest.raises(RefusedFile) as caught:
            self.load(session, queue, "", turned)
        assert [error.line for error in caught.value.parsed.errors] == [2]
        self.load(session, queue, ROW, purpose=Purpose.QUALIFY)
        assert session.scalars(select(func.count()).select_from(Sample)).one() == 2
        assert qualification_queries.count_unexplained(session, queue.project.id) == 0

    def test_names_the_lines_at_fault_and_stores_nothing(self, session: Session, queue: Queue) -> None:
        one = {**ROW, "responses": ROW["responses"][:1]}
        with pytest.raises(RefusedFile, match="3 of 4 lines") as caught:
            self.load(session, queue, ROW, "{", one, {**ROW, "tier": 1})
        assert [error.line for error in caught.value.parsed.errors] == [2, 3, 4]
        assert session.scalars(select(func.count()).select_from(Task)).one() == 0

    def test_refuses_an_empty_file_and_one_too_long(
        self, session: Session, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(BadInput, match="empty"):
            self.load(session, queue)
        monkeypatch.setattr(references, "MOST_ROWS", 1)
        with pytest.raises(BadInput, match="more than 1 tasks"):
            self.load(session, queue, ROW, ROW)


class TestReadRow:
    @pytest.mark.parametrize(
        ("change", "complaint"),
        [
            ({"responses": None}, "found none"),
            ({"responses": [{"text": "a", "tier": 1}] * 10}, "found 10"),
            ({"responses": [{"text": "a", "tier": 1}, {"text": "a ", "tier": 2}]}, "identical"),
            ({"responses": [{"text": "a", "tier": 1}, {"text": "b", "tier": None}]}, "fewer than two"),
            ({"responses": [{"text": "a", "tier": 1}, {"text": "b", "tier": 3}]}, "has the tier 3"),
            ({"responses": [{"text": "a", "tier": True}, {"text": "b", "tier": 2}]}, "has the tier True"),
            ({"responses": [{"text": "a", "tier": 1}, {"text": "", "tier": 2}]}, "response 2 is empty"),
            ({"responses": [{"text": "a", "tier": 1}, {"text": "b", "score": 2}]}, "response 2 should be"),
            ({"explanation": 3}, "the explanation of the row is a number"),
            ({"explanation": "a" * 20_001}, "20,001 characters"),
            ({"prompt": ""}, "is empty"),
            ({"pool": "x"}, "unknown field 'pool'"),
        ],
    )
    def test_says_what_is_wrong(self, change: dict[str, object], complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            read_row({**ROW, **change})

    def test_is_about_an_object(self) -> None:
        with pytest.raises(ValueError, match="expected an object"):
            read_row([ROW])


class TestPageRanked:
    def test_lists_what_was_ranked_and_says_what_is_used(self, session: Session, queue: Queue) -> None:
        first, second = school.ranked(session, queue), school.ranked(session, queue, ["four", "five"])
        queue.task(session)
        teacher = school.teacher(session, queue)
        references.create_of_task(
            session, teacher, first.uid, Purpose.QUALIFY, school.form_of(session, first, ["1", "1", "2"])
        )
        rows = queries.page_ranked(session, queue.project.id, words=None, before=None, limit=9)
        assert [(row.uid, row.outputs, row.answers, row.is_used) for row in rows] == [
            (second.uid, 2, 1, False),
            (first.uid, 3, 1, True),
        ]
        older = queries.page_ranked(session, queue.project.id, words="bird", before=second.id, limit=9)
        assert [row.uid for row in older] == [first.uid]
        assert not queries.page_ranked(session, queue.project.id, words="fish", before=None, limit=9)


def test_a_task_of_nobody_s_is_not_found(session: Session, queue: Queue) -> None:
    with pytest.raises(NotFound):
        references.find_ranked(session, school.teacher(session, queue), uuid.uuid4())
