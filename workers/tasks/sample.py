"""Jobs of the sample worker: fill the queue with rank tasks of the active model, draw every new model's showcase, compare two.

No transaction is open while the model draws; what it drew is stored a few prompts at a time, and only for the round it was
drawn for.
"""

from collections.abc import Sequence
from time import monotonic

import structlog

from app.db import transaction
from app.models import Prompt
from app.services import evaluations, sampling
from app.services.jobs import Claim
from app.services.sampling import Drawn, Order
from app.services.tasks import NewSample
from workers.celery_app import celery
from workers.tasks import answering
from workers.tasks.perform import check, perform

FEWEST_AT_ONCE, MOST_AT_ONCE = 2, 8
"""Prompts answered together and stored in one transaction: few at first, since people may be waiting, then more."""

log = structlog.get_logger()


@celery.task(name="preferable.sample_tasks")
def sample_tasks(job_id: int) -> None:
    """Fill a project's queue."""
    perform(job_id, _fill)


@celery.task(name="preferable.showcase")
def showcase(job_id: int) -> None:
    """Have a model answer the showcase prompts once each."""
    perform(job_id, _show)


@celery.task(name="preferable.compare")
def compare(job_id: int) -> None:
    """Have two models answer the prompts of an evaluation, and open its tasks."""
    perform(job_id, _compare)


def _fill(claim: Claim) -> None:
    with transaction() as session:
        order = sampling.load_order(session, claim)
        missing = sampling.count_missing(session, order)
    outputs = order.project.outputs_per_task
    made, at_once, model = 0, FEWEST_AT_ONCE, None
    while missing:
        model = model or _open(order)
        with transaction() as session:
            prompts = sampling.choose_prompts(
                session, order, min(missing, at_once), excluded=model.passed_over(order.sampler, outputs)
            )
        if not prompts:
            break
        drawn = _draw(claim, order, model, prompts, outputs)
        check(claim, progress=made, total=made + missing)
        with transaction() as session:
            made += sampling.store_tasks(session, claim, order, drawn)
            missing = sampling.count_missing(session, order)
        at_once = min(2 * at_once, MOST_AT_ONCE)
    with transaction() as session:
        passed_over = model.passed_over(order.sampler, outputs) if model else ()
        sampling.finish_tasks(session, claim, order, made=made, missing=missing, passed_over=passed_over)


def _show(claim: Claim) -> None:
    with transaction() as session:
        order, prompts = sampling.load_showcase(session, claim)
    model, begun = (_open(order) if prompts else None), monotonic()
    drawn = _draw(claim, order, model, prompts, 1) if model else []
    with transaction() as session:
        sampling.store_showcase(session, claim, order, drawn, monotonic() - begun)


def _compare(claim: Claim) -> None:
    with transaction() as session:
        orders, prompts = evaluations.load(session, claim)
    answers: list[dict[int, NewSample]] = []
    for order in orders:
        found: dict[int, NewSample] = {}
        for at in range(0, len(prompts), MOST_AT_ONCE):
            check(claim, progress=len(answers) * len(prompts) + at, total=2 * len(prompts))
            drawn = _draw(claim, order, _open(order), prompts[at : at + MOST_AT_ONCE], 1)
            found |= {one.prompt_id: one.samples[0] for one in drawn}
        answers.append(found)
    with transaction() as session:
        evaluations.store(session, claim, prompts, answers)


def _open(order: Order) -> answering.Model:
    model = answering.load(order.checkpoint.sha256)
    sampling.check_room(order.decoding, model.context)
    return model


def _draw(claim: Claim, order: Order, model: answering.Model, prompts: Sequence[Prompt], count: int) -> list[Drawn]:
    """`count` different answers to each prompt. What cannot be read or is too monotonous is set aside, and said so."""
    fitting = []
    for prompt in prompts:
        if (problem := _problem(order, model, prompt)) is None:
            fitting.append(prompt)
            continue
        with transaction() as session:
            sampling.set_aside(session, order, prompt, problem)
        log.warning("prompt set aside", prompt=str(prompt.uid), reason=problem)
    answers = model.answer(fitting, count, order.decoding, order.sampler.id, keep_going=lambda: check(claim))
    for prompt, samples in zip(fitting, answers, strict=True):
        if not samples:
            model.passed_over(order.sampler, count).add(prompt.id)
            log.warning("prompt passed over: too few different answers", prompt=str(prompt.uid), wanted=count)
    return [Drawn(prompt.id, samples) for prompt, samples in zip(fitting, answers, strict=True) if samples]


def _problem(order: Order, model: answering.Model, prompt: Prompt) -> str | None:
    try:
        tokens = model.count_tokens(prompt)
    except ValueError as error:  # its chat template knows no such turn
        return f"The model cannot read it: {error}."
    return sampling.find_length_problem(order, tokens=tokens, context=model.context)
