"""What people say about outputs: checked against the task, stored once, counted in the same transaction.

A submit is never refused for coming late: it takes its slot if that is free, another if one is, and is kept as surplus
otherwise. Whoever says the same again with the same key gets the same answer.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import combinations

from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from app.errors import BadInput, Conflict, NotFound
from app.models import (
    LESSONS,
    ORDERING,
    SCHOOL,
    Cohort,
    Guideline,
    Judgement,
    JudgementStatus,
    LabelSchema,
    LeaseState,
    Purpose,
    Task,
    TaskKind,
)
from app.permissions import Access
from app.queries import judgements as queries
from app.queries import leases as lease_queries
from app.schemas import labels
from app.schemas.judgements import UNRANKABLE, Choice, Pair, Place, Preference, Ranking, RankingForm
from app.schemas.labels import Answer, Field, Scope
from app.services import agreements, content, counters, guidelines, qualifications, tasks


class InvalidRanking(BadInput):
    """A ranking that does not fit its task; `problems` says what to mend, by form field. Nothing was stored."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(" ".join(dict.fromkeys(problems.values())), field=next(iter(problems)))
        self.problems = problems


def submit_ranking(
    session: Session,
    access: Access,
    uid: uuid.UUID,
    ranking: Ranking,
    *,
    kind: TaskKind = TaskKind.RANK,
    guideline: Guideline | None = None,
) -> Judgement:
    """Store a person's answer to a task of that kind they were lent; the same key again gives the judgement stored before.

    `guideline` is the version they work by, which is looked up where it is not given.

    Raises NotFound for a task that was not lent to them, InvalidRanking where the places do not fit the outputs, Conflict
    where they answered it already in another way.
    """
    work = tasks.lock_work(session, access, uid, kind=kind)
    task, lease = work.task, work.lease
    is_lesson = task.purpose in LESSONS  # those are done again
    is_answered = lease.state == LeaseState.SUBMITTED
    if (is_answered or is_lesson) and (stored := _find_repeated(session, work, ranking.idempotency_key)):
        return stored
    if is_answered:
        raise Conflict(
            "You have already submitted this task, perhaps in another tab. That answer is kept; this one is not."
        )
    content.check_opened(work)
    judgement = _insert(
        session, access, work, ranking, former=_find_former(session, work) if is_lesson else None, guideline=guideline
    )
    tasks.settle(session, task, lease)
    if task.purpose == Purpose.QUALIFY:
        qualifications.take_answer(session, access, task, judgement)
    count(session, access, task, [place.tier for place in ranking.places], round_number=work.round_number)
    set_committed_value(judgement, "task", task)
    return judgement


def revise(
    session: Session,
    access: Access,
    uid: uuid.UUID,
    ranking: Ranking,
    *,
    of_revision: int,
    kind: TaskKind = TaskKind.RANK,
) -> Judgement:
    """Store a new version of a person's own judgement; the one before is kept and marked superseded.

    Raises NotFound as `submit_ranking`, and where nothing was submitted; InvalidRanking; Conflict where `of_revision` is no
    longer the newest, or the judgement was excluded.
    """
    work = tasks.lock_work(session, access, uid, kind=kind)
    task = work.task
    if stored := _find_repeated(session, work, ranking.idempotency_key):
        return stored
    if task.purpose in LESSONS:
        raise Conflict("An answer of practice or of a test stands as it is. Practice can be done again.")
    former = _find_former(session, work)
    if former is None:
        raise NotFound("There is no answer of yours to this task that could be revised.")
    if former.revision != of_revision:
        raise Conflict(
            f"You revised version {of_revision}, but version {former.revision} is the newest. Look at it first."
        )
    before = [rank.tier for rank in queries.list_places(session, former.id)]
    judgement = _insert(session, access, work, ranking, former=former)
    if task.purpose == Purpose.TRAIN and task.kind in ORDERING and access.cohort == Cohort.TRAINING:
        change = count_comparisons([place.tier for place in ranking.places]) - count_comparisons(before)
        counters.add(session, access.project.id, counters.COMPARISONS, change)
    return judgement


def find_problems(work: tasks.Work, places: Sequence[Place]) -> dict[str, str]:
    """What keeps places from being a ranking of this work's outputs: each placed exactly once, in a tier or with a reason."""
    letters = work.letters
    size = len(letters)
    problems: dict[str, str] = {}
    named = [place.sample for place in places]
    for place in places:
        field, name = f"tier-{place.sample}", letters.get(place.sample, "")
        if not name:
            problems[field] = f"There is no output {place.sample} in this task. Reload the page and rank what it shows."
        elif named.count(place.sample) > 1:
            problems[field] = f"Output {name} was placed {named.count(place.sample)} times; choose one tier for it."
        elif place.tier is None and place.reason is None:
            problems[f"reason-{place.sample}"] = f"Say why output {name} cannot be ranked."
        elif place.tier is not None and not 1 <= place.tier <= size:
            problems[field] = f"Output {name} has tier {place.tier}; choose 1 (best) to {size}."
        if name and place.quality is not None and not 1 <= place.quality <= 7:
            problems[f"quality-{place.sample}"] = f"Output {name} has quality {place.quality}; choose 1 to 7."
    for sample, name in letters.items():
        if sample not in named:
            problems[f"tier-{sample}"] = f"Output {name} has no place yet. Choose its tier, or say it is not rankable."
    return problems


def dense_tiers(places: Sequence[Place]) -> dict[uuid.UUID, int | None]:
    """Tiers without gaps: columns 1, 3, 3, 4 become 1, 2, 2, 3. Outputs that are not rankable have none."""
    columns = sorted({place.tier for place in places if place.tier is not None})
    dense = {column: tier for tier, column in enumerate(columns, start=1)}
    return {place.sample: None if place.tier is None else dense[place.tier] for place in places}


def standing_pairs(ranking: Ranking) -> list[Pair]:
    """The graded pairs that the ranking bears out: what was said before a mind was changed is said no more."""
    tiers = {place.sample: place.tier for place in ranking.places}
    graded = [(pair, tiers.get(pair.better), tiers.get(pair.worse)) for pair in ranking.pairs]
    return [pair for pair, better, worse in graded if better is not None and worse is not None and better < worse]


def count_comparisons(tiers: Sequence[int | None]) -> int:
    """Pairs of ranked outputs that are not tied; None is not rankable."""
    ranked = [tier for tier in tiers if tier is not None]
    return sum(first != second for first, second in combinations(ranked, 2))


def count(
    session: Session, access: Access, task: Task, tiers: Sequence[int | None], *, round_number: int | None
) -> None:
    """Count a person's first answer to a task that ranks, by what it is for; a tier of None is not rankable."""
    if task.purpose != Purpose.TRAIN or task.kind not in ORDERING or task.excluded_why is not None:
        return
    project_id = access.project.id
    if access.cohort == Cohort.HELD_OUT:
        counters.add(session, project_id, counters.HELD_OUT_JUDGEMENTS)
        return
    counted = {counters.JUDGEMENTS: 1, counters.COMPARISONS: count_comparisons(tiers)}
    if round_number is not None:
        counted[counters.judgements_of_round(round_number)] = 1
    counters.add_all(session, project_id, counted)


def _find_repeated(session: Session, work: tasks.Work, key: uuid.UUID) -> Judgement | None:
    """What was stored under this key before. Raises Conflict where that was for another task."""
    stored = queries.find_by_key(session, key)
    if stored is not None and stored.lease_id != work.lease.id:
        raise Conflict("This page was already used to submit another task. Reload it and submit again.")
    return stored


def find_stored(session: Session, work: tasks.Work) -> Judgement | None:
    """This person's current answer to the task."""
    return queries.find_current(session, work.task.id, work.lease.user_id)


def find_newest(session: Session, work: tasks.Work) -> Judgement | None:
    """The newest version of this person's answer to the task, also where it was excluded."""
    return queries.find_newest(session, work.task.id, work.lease.user_id)


def _find_former(session: Session, work: tasks.Work) -> Judgement | None:
    """What a new version takes the place of. Raises Conflict where that was excluded."""
    former = find_newest(session, work)
    if former is not None and former.status == JudgementStatus.EXCLUDED:
        raise Conflict(
            "An admin has taken your answer to this task out of training. It is kept as it is; this one is not."
        )
    return former


def form_of(session: Session, judgement: Judgement) -> RankingForm:
    """What a judgement says, as the form that would say it again."""
    places = queries.list_places(session, judgement.id)
    choices = {
        str(place.sample): Choice(
            tier=UNRANKABLE if place.raw_column is None else str(place.raw_column),
            reason=place.reason or "",
            quality="" if place.quality is None else str(place.quality),
        )
        for place in places
    }
    answers = dict(judgement.answers)
    if judgement.confidence is not None:
        answers["confidence"] = judgement.confidence
    answers |= {f"{key}-{place.sample}": answer for place in places for key, answer in place.answers.items()}
    sent = {name: "yes" if answer is True else str(answer) for name, answer in answers.items()}
    pair = queries.find_pair(session, judgement.id)
    preference = Preference(pair.left, pair.right, pair.p_left, pair.strength).value if pair else ""
    graded = [] if pair else queries.list_graded(session, judgement.id)
    pairs = " ".join(f"{one.better}>{one.worse}:{one.strength}" for one in graded)
    version = questions_of(session, judgement).version or None
    return RankingForm(choices, judgement.note or "", sent, version, pairs, preference)


def count_today(session: Session, access: Access) -> int:
    """Tasks this person has answered in the last 24 hours."""
    since = datetime.now(UTC) - timedelta(days=1)
    return lease_queries.count_answered(session, access.project.id, access.user.id, TaskKind.RANK, since)


@dataclass(frozen=True)
class Questions:
    """What a label schema asks, and which one it is."""

    version: int
    schema_id: int | None
    fields: tuple[Field, ...]

    def about(self, scope: Scope) -> list[Field]:
        """The fields of one scope."""
        return [field for field in self.fields if field.scope == scope]

    def for_kind(self, kind: TaskKind) -> "Questions":
        """Those of them that a kind of task asks. What it is for may not be left open."""
        scopes = ASKED[kind]
        fields = [field for field in self.fields if field.scope in scopes]
        if kind == TaskKind.COMPARE:  # how much better it is says how sure one is
            fields = [field for field in fields if field.key != "confidence"]
        if kind == TaskKind.LABEL_PROMPT:
            fields = [replace(field, required=field.required or field.key == "use_case") for field in fields]
        if kind == TaskKind.RATE:
            asked = next((field for field in fields if field.key == "quality"), labels.QUALITY)
            fields = [replace(asked, required=True), *(field for field in fields if field.key != "quality")]
        return Questions(self.version, self.schema_id, tuple(fields))


ASKED = {
    TaskKind.RANK: frozenset(Scope),
    TaskKind.DEMONSTRATE: frozenset[Scope](),
    TaskKind.COMPARE: frozenset(Scope),
    TaskKind.RATE: frozenset({Scope.PROMPT, Scope.OUTPUT}),
    TaskKind.LABEL_PROMPT: frozenset({Scope.PROMPT}),
}
"""What a kind of task asks about. Questions about an output may depend on one about the prompt."""


def find_questions(session: Session, access: Access, version: int | None = None) -> Questions:
    """The questions of a version of the project's label schema; those in force where it is None, or never was."""
    current, known = access.project.label_schema_version, access.label_schema
    for wanted in dict.fromkeys((current if version is None else version, current)):
        is_known = known is not None and known.version == wanted
        if schema := known if is_known else queries.find_label_schema(session, access.project.id, wanted):
            return _questions(schema)
    return Questions(current, None, ())


def questions_of(session: Session, judgement: Judgement) -> Questions:
    """Those that a judgement answered."""
    if judgement.label_schema_id is None:
        return Questions(0, None, ())
    return _questions(queries.get_label_schema(session, judgement.label_schema_id))


def _questions(schema: LabelSchema) -> Questions:
    return Questions(schema.version, schema.id, _read_schema(json.dumps(schema.fields)))


@lru_cache(maxsize=256)
def _read_schema(fields: str) -> tuple[Field, ...]:
    """The same questions are asked of every task."""
    return labels.read_schema(json.loads(fields))


@dataclass(frozen=True)
class Said:
    """What was answered besides the order."""

    about_prompt: Mapping[str, Answer]
    about_task: Mapping[str, Answer]
    about_outputs: Mapping[uuid.UUID, Mapping[str, Answer]]


def read_answers(questions: Questions, work: tasks.Work, ranking: Ranking) -> tuple[Said, dict[str, str]]:
    """The answers of a ranking to the questions it was asked, and what is wrong with others, by form field."""
    fields = questions.fields
    keys = {scope: {field.key for field in questions.about(scope)} for scope in Scope}
    of_prompt = {key: value for key, value in ranking.answers.items() if key in keys[Scope.PROMPT]}
    prompt = labels.read_answers(fields, Scope.PROMPT, of_prompt)
    others = {key: value for key, value in ranking.answers.items() if key not in of_prompt}
    task = labels.read_answers(fields, Scope.TASK, others, prompt.given)
    problems = {f"ask-{key}": text for key, text in {**prompt.problems, **task.problems}.items()}
    outputs = {}
    for place in ranking.places:
        sent = dict(place.answers)
        if "quality" in keys[Scope.OUTPUT] and place.quality is not None:
            sent["quality"] = str(place.quality)
        found = labels.read_answers(fields, Scope.OUTPUT, sent, prompt.given)
        outputs[place.sample] = found.given
        name = work.letters.get(place.sample, "")
        for key, text in found.problems.items():
            field = f"quality-{place.sample}" if key == "quality" else f"ask-{key}-{place.sample}"
            problems[field] = f"Output {name}: {text}"
    return Said(prompt.given, task.given, outputs), problems


def _insert(
    session: Session,
    access: Access,
    work: tasks.Work,
    ranking: Ranking,
    *,
    former: Judgement | None = None,
    guideline: Guideline | None = None,
) -> Judgement:
    """Check a ranking and store it, `former` becoming superseded by it. Raises InvalidRanking, Conflict."""
    project = access.project
    guideline = guideline or guidelines.followed(session, access)
    questions = find_questions(session, access, ranking.schema).for_kind(work.task.kind)
    if ranking.schema not in (None, questions.version):
        wrong = f"There is no version {ranking.schema} of the questions. Reload the page and submit again."
        raise InvalidRanking({"schema": wrong})
    said, problems = read_answers(questions, work, ranking)
    if problems := problems | find_problems(work, ranking.places):
        raise InvalidRanking(problems)
    if former is not None:
        queries.supersede(session, former)
        agreements.forget(session, former)
    about_task = dict(said.about_task)
    confidence = about_task.pop("confidence", None)
    new = queries.NewJudgement(
        project_id=project.id,
        task_id=work.task.id,
        user_id=access.user.id,
        lease_id=work.lease.id,
        revision=former.revision + 1 if former else 1,
        idempotency_key=ranking.idempotency_key,
        status=JudgementStatus.CURRENT if work.task.excluded_why is None else JudgementStatus.EXCLUDED,
        excluded_by_id=work.task.excluded_by_id,
        excluded_why=work.task.excluded_why,
        excluded_at=None if work.task.excluded_why is None else datetime.now(UTC),
        guideline_id=guideline.id if guideline else None,
        label_schema_id=questions.schema_id,
        confidence=_number(confidence),
        answers={**said.about_prompt, **about_task},
        note=ranking.note,
        active_ms=ranking.active_ms,
        idle_ms=ranking.idle_ms,
        effort=dict(ranking.effort),
    )
    tiers = dense_tiers(ranking.places)
    outputs = {output.sample: output.output_id for output in work.outputs}
    ranks = [
        queries.NewRank(
            output_id=outputs[place.sample],
            tier=tiers[place.sample],
            raw_column=place.tier,
            reason=None if place.tier is not None else place.reason,
            quality=_number(said.about_outputs[place.sample].get("quality")) if questions.schema_id else place.quality,
            answers={key: value for key, value in said.about_outputs[place.sample].items() if key != "quality"},
        )
        for place in ranking.places
    ]
    judgement = queries.insert_judgement(session, new, ranks, _pairs(ranking, outputs))
    if judgement is None:
        raise Conflict("This page was already used to submit another task. Reload it and submit again.")
    if work.task.purpose not in SCHOOL:
        agreements.record(session, judgement)
    return judgement


def _pairs(ranking: Ranking, outputs: Mapping[uuid.UUID, int]) -> list[queries.NewPair]:
    """The direct comparisons a ranking was made by: the one of a compare task, or those graded on the way."""
    told: list[tuple[uuid.UUID, uuid.UUID, float, int | None]]
    told = [(pair.better, pair.worse, 1.0, pair.strength) for pair in standing_pairs(ranking)]
    if one := ranking.preference:
        told = [(one.left, one.right, one.p_left, one.strength)]
    return [
        queries.NewPair(left_id=outputs[left], right_id=outputs[right], p_left=p_left, strength=strength)
        for left, right, p_left, strength in told
    ]


def _number(answer: Answer | None) -> int | None:
    return answer if isinstance(answer, int) else None
