"""Tasks with a reference answer: made of a ranked task or of a file, revised in versions, retired.

They are the practice tasks, whose reference is shown and explained, those of the qualification test, and the gold tasks.
"""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, BinaryIO

from sqlalchemy.orm import Session

from app.errors import BadInput, Conflict, NotFound
from app.markup import render_markdown
from app.models import (
    EVERYONE,
    SCHOOL,
    Project,
    Prompt,
    Purpose,
    ReferencePlace,
    Sample,
    SampleOrigin,
    Task,
    TaskKind,
    TaskReference,
    TaskState,
    User,
)
from app.permissions import Access, Permission
from app.queries import prompts as prompt_queries
from app.queries import references as queries
from app.queries import tasks as task_queries
from app.schemas.prompts import LineError, ParsedPrompts
from app.schemas.references import EXPLANATION_LIMIT, PlaceIn, ReferenceForm, ReferenceRow, read_row
from app.services import audit, prompts
from app.services.prompts import RefusedFile
from app.services.tasks import letter

if TYPE_CHECKING:
    from app.statistics import Estimate

POOL = "Practice, test and gold"
"""Pool of the prompts that come with an imported file. It is off, so that no model answers them again."""

MOST_ROWS = 1_000
"""Tasks in one file."""

_ERRORS_KEPT = 50

_ROUNDING = 1e-9
"""A share that comes to the mark in fractions may miss it in the last digit."""


class InvalidReference(BadInput):
    """A reference that does not fit its task; `problems` says what to mend, by form field. Nothing was stored."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(" ".join(dict.fromkeys(problems.values())), field=next(iter(problems)))
        self.problems = problems


class AlreadyMade(Conflict):
    """There is `task` for the same purpose over the same responses. Nothing was stored."""

    def __init__(self, task: Task) -> None:
        super().__init__(
            "There is a task for this purpose with these responses. Change its reference, or take it back into use."
        )
        self.task = task


@dataclass(frozen=True)
class Referenced:
    """A task with its prompt and outputs, and the reference that holds; the outputs by position."""

    task: Task
    prompt: Prompt
    outputs: Sequence[task_queries.OutputRow]
    reference: TaskReference | None = None
    places: Sequence[queries.PlaceRow] = ()

    @property
    def letters(self) -> dict[uuid.UUID, str]:
        """A for the output stored first; labellers see an order of their own."""
        return {output.sample: letter(index) for index, output in enumerate(self.outputs)}

    @property
    def form(self) -> ReferenceForm:
        """The reference as the form that would say it again."""
        return ReferenceForm(
            tiers={str(place.sample): "x" if place.tier is None else str(place.tier) for place in self.places},
            whys={str(place.sample): place.explanation for place in self.places},
            explanation=self.reference.explanation if self.reference else "",
        )


def find_ranked(session: Session, access: Access, uid: uuid.UUID) -> Referenced:
    """A task with all its judgements, of which a reference may be made. Raises NotFound."""
    access.demand(Permission.MANAGE_SCHOOL)
    task = task_queries.find_task(session, access.project.id, uid)
    is_ranked = task is not None and task.kind == TaskKind.RANK and task.state == TaskState.DONE
    if task is None or not is_ranked or task.purpose in SCHOOL or task.derived_from_id is not None:
        raise NotFound("There is no ranked task of that address. Choose one from the list.")
    return _load(session, task)


def find_referenced(session: Session, access: Access, uid: uuid.UUID) -> Referenced:
    """A task with its reference. Raises NotFound for a task that has none."""
    access.demand(Permission.MANAGE_SCHOOL)
    task = task_queries.find_task(session, access.project.id, uid)
    reference = queries.find_reference(session, task.id) if task and task.purpose in SCHOOL else None
    if task is None or reference is None:
        raise NotFound("There is no task with a reference answer at that address.")
    return _load(session, task, reference)


def create_of_task(session: Session, access: Access, uid: uuid.UUID, purpose: Purpose, form: ReferenceForm) -> Task:
    """A task for `purpose` over the outputs of a ranked one. Raises NotFound, BadInput, InvalidReference, Conflict."""
    of = find_ranked(session, access, uid)
    _check_purpose(purpose)
    places = read_form(of, form)
    queries.lock_references(session, access.project.id)
    _check_active(session, of.prompt.id)
    samples = queries.list_samples(session, of.task.id)
    if same := queries.find_same(session, access.project.id, purpose, samples):
        raise AlreadyMade(same)
    task = _insert_task(session, access.project, purpose, of.prompt, samples)
    _insert_version(session, task, access.user, 1, places, form.explanation)
    _record(session, access, "create reference", task, purpose=purpose.value)
    return task


def revise(session: Session, access: Access, uid: uuid.UUID, form: ReferenceForm, *, of_version: int) -> TaskReference:
    """Store the next version; the earlier ones are kept. What is counted by the reference is counted by this one from now on.

    Raises NotFound, InvalidReference, and Conflict where `of_version` is no longer the newest.
    """
    found = find_referenced(session, access, uid)
    task_queries.lock_task(session, found.task.id)
    newest = queries.find_reference(session, found.task.id)
    if newest is None or newest.version != of_version:
        raise Conflict(
            f"You changed version {of_version} of this reference, and there is a newer one. Look at it, then change that."
        )
    places = read_form(found, form)
    reference = _insert_version(session, found.task, access.user, newest.version + 1, places, form.explanation)
    _record(session, access, "revise reference", found.task, version=reference.version)
    return reference


def set_use(session: Session, access: Access, uid: uuid.UUID, *, is_used: bool) -> None:
    """Retire a task with a reference, or use it again. Answers given before stay and count. Raises NotFound, Conflict."""
    task = find_referenced(session, access, uid).task
    state = TaskState.OPEN if is_used else TaskState.RETIRED
    if is_used:
        _check_active(session, task.prompt_id)
    if task.state != state:
        task.state = state
        _record(session, access, "reopen reference" if is_used else "retire reference", task)


def import_file(session: Session, access: Access, *, purpose: Purpose, data: BinaryIO) -> int:
    """Make tasks of a JSONL file, and count them. Raises BadInput, or RefusedFile with its lines; then nothing is stored.

    A text that a file gave for the same prompt before is the same response, so that nobody is tested by what practice explained.
    """
    access.demand(Permission.MANAGE_SCHOOL)
    _check_purpose(purpose)
    rows = _parse(data)
    project = access.project
    queries.lock_references(session, project.id)
    keyed = [replace(row.prompt, key=str(number)) for number, row in rows.items()]
    ids = prompts.import_prompts(session, project, pool=POOL, rows=keyed).ids
    prompt_queries.get_or_insert_pool(session, project.id, POOL).is_active = False
    active = prompt_queries.lock_active(session, list(ids.values()))
    if taken_out := [number for number in rows if ids[str(number)] not in active]:
        raise BadInput(
            f"The prompt of line {taken_out[0]} of the file is in the project already and was taken out of the work, as one "
            f"with personal data is. Leave it out ({len(taken_out):,} such in the file), or release it on the page Prompts.",
            field="file",
        )
    errors: list[LineError] = []
    for number, row in rows.items():
        prompt = task_queries.get_prompt(session, ids[str(number)])
        texts = [text for text, _ in row.responses]
        known = queries.map_imported(session, project.id, prompt.id, texts)
        samples = [known.get(text) or _imported_sample(project, prompt.id, text) for text in texts]
        if len(known) == len(texts) and queries.find_same(session, project.id, purpose, samples):
            errors.append(
                LineError(number, "there is a task for the same purpose with this prompt and these responses")
            )
            continue
        task = _insert_task(session, project, purpose, prompt, samples)
        places = {sample.uid: place for sample, (_, place) in zip(samples, row.responses, strict=True)}
        _insert_version(session, task, access.user, 1, places, row.explanation)
    _refuse(errors, len(rows))
    _record(session, access, "import references", None, purpose=purpose.value, tasks=len(rows))
    return len(rows)


def read_form(of: Referenced, form: ReferenceForm) -> dict[uuid.UUID, PlaceIn]:
    """The places a form gives to the outputs, by their samples. Raises InvalidReference."""
    letters = of.letters
    places, problems = form.places(letters)
    if not problems and sum(place.tier is not None for place in places.values()) < 2:
        problems[f"tier-{next(iter(letters))}"] = "Give at least two responses a tier: one alone makes no order."
    texts = {"explanation": form.explanation} | {f"why-{sample}": form.whys.get(str(sample), "") for sample in letters}
    problems |= {
        name: f"This explanation has {len(text):,} characters; shorten it to {EXPLANATION_LIMIT:,}."
        for name, text in texts.items()
        if len(text) > EXPLANATION_LIMIT
    }
    if problems:
        raise InvalidReference(problems)
    return places


def tiers_of(places: Mapping[uuid.UUID, PlaceIn]) -> dict[uuid.UUID, int | None]:
    """The tiers of places without gaps, as they are stored."""
    columns = sorted({place.tier for place in places.values() if place.tier is not None})
    dense = {column: tier for tier, column in enumerate(columns, start=1)}
    return {sample: None if place.tier is None else dense[place.tier] for sample, place in places.items()}


def _load(session: Session, task: Task, reference: TaskReference | None = None) -> Referenced:
    return Referenced(
        task=task,
        prompt=task_queries.get_prompt(session, task.prompt_id),
        outputs=task_queries.list_outputs(session, task.id),
        reference=reference,
        places=queries.list_places(session, reference.id) if reference else (),
    )


def _check_active(session: Session, prompt_id: int) -> None:
    if not prompt_queries.lock_active(session, [prompt_id]):
        raise Conflict(
            "The prompt of this task was taken out of the work, as one with personal data is. "
            "Release it on the page Prompts first."
        )


def _check_purpose(purpose: Purpose) -> None:
    if purpose not in SCHOOL:
        raise BadInput("Say what the task is for: practice, the qualification test, or gold.", field="purpose")


def _insert_task(
    session: Session, project: Project, purpose: Purpose, prompt: Prompt, samples: Sequence[Sample]
) -> Task:
    task = Task(
        project_id=project.id,
        kind=TaskKind.RANK,
        purpose=purpose,
        prompt_id=prompt.id,
        judgements_wanted=EVERYONE,
        needs=prompt.needs,
    )
    task_queries.insert_task(session, task, samples)
    return task


def _imported_sample(project: Project, prompt_id: int, text: str) -> Sample:
    """A text of a file. It counts as finished, so that nothing on a gold task's page tells it from a model's."""
    return Sample(
        project_id=project.id,
        prompt_id=prompt_id,
        origin=SampleOrigin.IMPORTED,
        text=text,
        html=render_markdown(text),
        finish_reason="stop",
    )


def _insert_version(
    session: Session, task: Task, author: User, version: int, places: Mapping[uuid.UUID, PlaceIn], explanation: str
) -> TaskReference:
    reference = TaskReference(
        project_id=task.project_id,
        task_id=task.id,
        version=version,
        explanation=explanation,
        html=render_markdown(explanation),
        author_id=author.id,
    )
    tiers = tiers_of(places)
    rows = [
        ReferencePlace(
            project_id=task.project_id,
            output_id=output.output_id,
            tier=tiers[output.sample],
            explanation=places[output.sample].explanation,
            html=render_markdown(places[output.sample].explanation),
        )
        for output in task_queries.list_outputs(session, task.id)
    ]
    queries.insert_reference(session, reference, rows)
    return reference


def _parse(data: BinaryIO) -> dict[int, ReferenceRow]:
    """The rows of a file by line number."""
    rows: dict[int, ReferenceRow] = {}
    errors: list[LineError] = []
    for number, line in prompts.read_lines(data):
        try:
            rows[number] = read_row(prompts.read_json(line))
        except ValueError as error:
            errors.append(LineError(number, str(error)))
        if len(rows) + len(errors) > MOST_ROWS:
            raise BadInput(f"The file has more than {MOST_ROWS:,} tasks. Split it and import the parts.", field="file")
    _refuse(errors, len(errors) + len(rows))
    if not rows:
        raise BadInput("The file is empty. Each line should hold one task with its reference.", field="file")
    return rows


def _refuse(errors: Sequence[LineError], lines: int) -> None:
    if errors:
        raise RefusedFile(
            f"{len(errors):,} of {lines:,} lines cannot be imported, so none was. "
            "Mend the lines below and import the file again.",
            ParsedPrompts(errors=errors[:_ERRORS_KEPT], error_count=len(errors)),
        )


def _record(session: Session, access: Access, action: str, task: Task | None, **details: str | int) -> None:
    audit.record(
        session,
        actor=access.user,
        project=access.project,
        action=action,
        subject_kind="task",
        subject_uid=task.uid if task else None,
        **details,
    )


@dataclass(frozen=True)
class Pair:
    """How a person and the reference order two outputs: -1 the first is better, 1 the second, 0 a tie.

    `given` is None where the person found one of the two not rankable. What the reference found so makes no pair.
    """

    first: uuid.UUID
    second: uuid.UUID
    reference: int
    given: int | None

    @property
    def is_alike(self) -> bool:
        """Whether both say the same; a tie is an order of its own."""
        return self.reference == self.given


def compare(reference: Mapping[uuid.UUID, int | None], given: Mapping[uuid.UUID, int | None]) -> tuple[Pair, ...]:
    """Every pair the reference orders, by the tiers of both, in the order of `given`."""
    pairs = combinations([sample for sample in given if reference[sample] is not None], 2)
    return tuple(
        Pair(first, second, _order(reference[first], reference[second]) or 0, _order(given[first], given[second]))
        for first, second in pairs
    )


def measure(pairs: Iterable[tuple[str, Sequence[Pair]]]) -> "Estimate":
    """Share of the references' pairs ordered alike, by prompt: `statistics.agreement` with ties as strict.

    A pair with an output that only the person found not rankable is unlike, so that nobody gains by passing on what is hard.
    """
    from app import statistics  # it loads numpy, which the pages do without

    values: dict[str, list[float]] = {}
    for prompt, of_task in pairs:
        values.setdefault(prompt, []).extend(float(pair.is_alike) for pair in of_task)
    return statistics.mean_over_prompts(values)


def meets(share: float, mark: float) -> bool:
    """Whether a share of pairs ordered alike comes to the mark."""
    return share >= mark - _ROUNDING


def _order(first: int | None, second: int | None) -> int | None:
    """-1 where the first tier is the better, 1 where the second is, 0 where they tie; None where one has none."""
    return None if first is None or second is None else (first > second) - (first < second)
