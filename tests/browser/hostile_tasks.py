"""Hostile text in the tasks beside ranking, in lessons and gold tasks, in what people ask, and in evaluations."""

import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.markup import render_markdown
from app.models import (
    Appeal,
    AppealState,
    EvaluationState,
    Job,
    JobState,
    Judgement,
    Notice,
    PlanPrompt,
    Prompt,
    Purpose,
    Qualification,
    QualificationState,
    QualificationTask,
    Question,
    QuestionKind,
    QuestionState,
    ReferencePlace,
    Role,
    Sample,
    Split,
    Stream,
    Task,
    TaskKind,
    TaskOutput,
    TaskReference,
    User,
)
from app.permissions import Access
from app.queries import endpoints as endpoint_queries
from app.queries import evaluations as evaluation_queries
from app.schemas.projects import SamplingSettings, SchoolSettings
from app.services import answers, checkpoints, judgements, samplers, tasks
from tests.app import kinds, registry, school
from tests.app.hostile import NAME, PAYLOADS
from tests.app.queue import Queue, rank

TEXTS = tuple("\n\n".join(PAYLOADS[start::3]) for start in range(3))
"""All payloads as three responses."""

CONVERSATION = [
    {"role": "user", "content": NAME},
    {"role": "assistant", "content": "\n\n".join(PAYLOADS)},
    {"role": "user", "content": NAME},
    {"role": "assistant", "content": "\n\n".join(PAYLOADS)},
    {"role": "user", "content": NAME},
]
"""What the pages about prompts do to a conversation of every turn there is, they do to this one: a turn folded, one open."""


def plant(session: Session, access: Access) -> tuple[str, ...]:
    """Tasks, lessons, questions and an evaluation for the person of `access`; the paths of the pages that show them."""
    project = access.project
    base = checkpoints.active_policy(session, project.id)
    sampler = samplers.ensure_sampler(session, project, base, SamplingSettings())
    queue = Queue(project, checkpoints.open_round(session, project.id), sampler)
    project.school = SchoolSettings(shows_gold_misses=True, gold_rate=0).model_dump()
    project.asks_to_edit_best = True
    paths = (
        *(path for kind in kinds.PATHS for path in of_kind(session, queue, access, kind)),
        *lessons(session, queue, access),
        *inbox(session, queue, access),
        improved(session, queue, access),
        evaluation(session, queue),
        *plans(session, queue, access),
    )
    session.add(Notice(project_id=project.id, text=NAME, author_id=access.user.id, ends_at=now() + timedelta(days=1)))
    return tuple(f"/p/{project.slug}/{path}" for path in paths)


def now() -> datetime:
    return datetime.now(UTC)


def spoil(session: Session, task: Task) -> Task:
    """Put hostile texts in the place of those of a task."""
    prompt = session.get_one(Prompt, task.prompt_id)
    prompt.messages, prompt.source = CONVERSATION, NAME
    shown = select(Sample).join(TaskOutput, TaskOutput.sample_id == Sample.id).where(TaskOutput.task_id == task.id)
    for sample, text in zip(session.scalars(shown.order_by(TaskOutput.position)), TEXTS, strict=False):
        sample.text, sample.html = text, render_markdown(text)
    return task


def hold(session: Session, task: Task, user: User) -> Task:
    """Put a task into somebody's hands, its outputs in the order stored."""
    count = len(session.scalars(select(TaskOutput.id).where(TaskOutput.task_id == task.id)).all())
    registry.hold(session, task, user, until=now() + timedelta(days=1)).shown_order = list(range(count))
    return task


def ranked(session: Session, person: Access, task: Task, tiers: list[int | None]) -> Judgement:
    """A person's hostile answer to a task they hold."""
    work = tasks.find_work(session, person, task.uid)
    judgement = judgements.submit_ranking(session, person, task.uid, rank(work, tiers))
    judgement.note = NAME
    return judgement


def of_kind(session: Session, queue: Queue, access: Access, kind: TaskKind) -> list[str]:
    """A task of that kind in hand and one that is answered."""
    waiting, answered = (
        hold(session, spoil(session, kinds.open_task(session, queue, kind)), access.user) for _ in range(2)
    )
    samples = [output.sample for output in tasks.find_work(session, access, answered.uid).outputs]
    fields = [("idempotency_key", str(uuid.uuid4()))]
    if kind == TaskKind.COMPARE:
        fields.append(("preference", f"{samples[0]}:2"))
    if kind == TaskKind.RATE:
        fields.append((f"quality-{samples[0]}", "3"))
    judgement = answers.submit(session, access, kind, answered.uid, fields)
    judgement.note, judgement.answers = NAME, {"prompt_text": NAME, "prompt_choice": NAME, NAME: NAME}
    home = kinds.PATHS[kind]
    return [f"{home}/{waiting.uid}", f"{home}/{answered.uid}", f"{home}/{answered.uid}/revise"]


def referenced(
    session: Session, queue: Queue, purpose: Purpose, person: Access
) -> tuple[Task, TaskReference, Judgement]:
    """A task with a hostile reference, and that person's ranking the other way round."""
    task = spoil(session, school.referenced(session, queue, purpose))
    reference = session.scalars(select(TaskReference).where(TaskReference.task_id == task.id)).one()
    reference.explanation, reference.html = NAME, render_markdown("\n\n".join(PAYLOADS))
    for place in session.scalars(select(ReferencePlace).where(ReferencePlace.reference_id == reference.id)):
        place.explanation, place.html = NAME, render_markdown(NAME)
    return task, reference, ranked(session, person, hold(session, task, person.user), [3, 2, 1])


def lessons(session: Session, queue: Queue, access: Access) -> list[str]:
    """Practice that is done, a test that is failed, and gold tasks that are missed, with an appeal about each."""
    practised, _, _ = referenced(session, queue, Purpose.PRACTICE, access)
    attempt = failed_test(session, queue, access)
    appeals = [appealed(session, queue, access, state) for state in (AppealState.OPEN, AppealState.DECLINED)]
    chosen = spoil(session, school.ranked(session, queue))
    return [
        f"qualification/practice/{practised.uid}",
        f"qualification/attempts/{attempt.uid}",
        *(f"tasks/{gold.uid}/miss" for gold, _ in appeals),
        *(f"school/appeals/{appeal.uid}" for _, appeal in appeals),
        f"school/references/{appeals[0][0].uid}",
        f"school/from/{chosen.uid}",
        "school/people",
    ]


def failed_test(session: Session, queue: Queue, access: Access) -> Qualification:
    """An attempt of one task."""
    task, reference, judgement = referenced(session, queue, Purpose.QUALIFY, access)
    attempt = Qualification(
        project_id=queue.project.id,
        user_id=access.user.id,
        attempt=1,
        state=QualificationState.FAILED,
        pass_mark=0.75,
        score=0.0,
        ended_at=now(),
    )
    session.add(attempt)
    session.flush()
    row = QualificationTask(
        project_id=queue.project.id,
        qualification_id=attempt.id,
        position=1,
        task_id=task.id,
        judgement_id=judgement.id,
        reference_id=reference.id,
    )
    session.add(row)
    return attempt


def appealed(session: Session, queue: Queue, access: Access, state: AppealState) -> tuple[Task, Appeal]:
    """A missed gold task and the appeal about it."""
    task, _, _ = referenced(session, queue, Purpose.GOLD, access)
    appeal = Appeal(project_id=queue.project.id, task_id=task.id, user_id=access.user.id, body=NAME, state=state)
    if state != AppealState.OPEN:
        appeal.reply, appeal.decided_by_id, appeal.decided_at = NAME, access.user.id, now()
    session.add(appeal)
    session.flush()
    return task, appeal


def inbox(session: Session, queue: Queue, access: Access) -> list[str]:
    """Two questions about one task, one that waits, one answered; and one that is answered, of the one who reads."""
    asker = registry.access_of(registry.make_user(session, name="Eva"), queue.project, Role.LABELLER)
    asker.user.name = NAME
    theirs, own = (hold(session, spoil(session, queue.task(session, TEXTS)), person.user) for person in (asker, access))
    asked = [
        ask(session, theirs, asker),
        ask(session, theirs, asker, answered_by=access),
        ask(session, own, access, answered_by=access),
    ]
    session.flush()
    paths = [f"inbox/{question.uid}" for question in asked]
    return [*paths, f"tasks/{own.uid}", "inbox?state=answered", f"guidelines/edit?example={asked[1].uid}"]


def ask(session: Session, task: Task, person: Access, *, answered_by: Access | None = None) -> Question:
    """A hostile report about a task."""
    question = Question(
        project_id=task.project_id,
        task_id=task.id,
        asker_id=person.user.id,
        kind=QuestionKind.BROKEN,
        text=NAME,
        idempotency_key=uuid.uuid4(),
    )
    if answered_by is not None:
        question.state, question.answer = QuestionState.ANSWERED, NAME
        question.settled_by_id, question.settled_at = answered_by.user.id, now()
    session.add(question)
    return question


def improved(session: Session, queue: Queue, access: Access) -> str:
    """A ranked task whose best response is to be improved."""
    task = hold(session, spoil(session, queue.task(session, TEXTS)), access.user)
    ranked(session, access, task, [1, 2, 3])
    return f"tasks/{task.uid}/improve"


def evaluation(session: Session, queue: Queue) -> str:
    """An evaluation for which no model could answer."""
    made = registry.make_evaluation(session, queue.project, queue.sampler)
    made.state = EvaluationState.SAMPLING
    key = evaluation_queries.job_key(made.id)
    session.add(
        Job(
            project_id=queue.project.id,
            kind="compare",
            dedupe_key=key,
            state=JobState.FAILED,
            error=NAME,
            finished_at=now(),
        )
    )
    return "evaluations"


def plans(session: Session, queue: Queue, access: Access) -> list[str]:
    """A draft and a plan that failed, an endpoint that was tried in vain and one that answered, all hostile in what they say."""
    project = queue.project
    outside = registry.make_endpoint(session, project, NAME)
    outside.url = outside.model = NAME
    draft, failed = (registry.make_plan(session, project, outside) for _ in range(2))
    draft.name = failed.name = NAME
    jobs = {
        "sample_plan": Job(project_id=project.id, kind="sample_plan", state=JobState.FAILED, error=NAME),
        "test_endpoint": Job(
            project_id=project.id,
            kind="test_endpoint",
            dedupe_key=endpoint_queries.test_key(outside.id),
            state=JobState.FAILED,
            error=NAME,
            finished_at=now(),
        ),
    }
    session.add_all(jobs.values())
    session.flush()
    failed.job_id = jobs["sample_plan"].id
    prompt = registry.make_prompt(session, project)
    prompt.messages = CONVERSATION
    session.add(
        PlanPrompt(
            project_id=project.id,
            plan_id=failed.id,
            prompt_id=prompt.id,
            stream=Stream.CONTROL,
            split=Split.TRAIN,
            position=1,
            is_over=True,
            problem=NAME,
        )
    )
    told = registry.make_endpoint(session, project)
    answer = Job(
        project_id=project.id,
        kind="test_endpoint",
        dedupe_key=endpoint_queries.test_key(told.id),
        state=JobState.SUCCEEDED,
        result={"text": NAME, "seconds": 0.5},
        finished_at=now(),
    )
    session.add(answer)
    return [
        "sampling",
        "sampling/new",
        f"sampling/new?like={draft.uid}",
        f"sampling/{draft.uid}",
        f"sampling/{failed.uid}",
        "endpoints",
    ]
