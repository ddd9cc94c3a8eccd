"""The job of a sampling plan: look at candidates where the plan chooses by disagreement, then draw and store wave by wave.

No transaction is open while anything is drawn, scored or asked.
"""

from collections.abc import Sequence
from time import monotonic

import structlog

from app.db import transaction
from app.services import plan_work
from app.services.jobs import Claim
from app.services.plan_work import CANDIDATE_TEXTS, Candidate, Work
from workers.celery_app import celery
from workers.tasks import mixing
from workers.tasks.mixing import Text
from workers.tasks.perform import StoppingError, check, perform

FEW_AT_ONCE, MANY_AT_ONCE = 8, 64
"""Prompts of a wave: many where models take turns in memory, so that each is loaded seldom."""

CANDIDATES_AT_ONCE = 256
"""Candidates that three models look at, one after another; what a killed worker has to do again at most."""

TURN_SECONDS = 60.0
"""A plan draws so long before it lets other work of its worker go first."""

CANDIDATE_TOKENS = 256
"""Longest response drawn for a candidate that has none yet."""

log = structlog.get_logger()


@celery.task(name="preferable.sample_plan")
def sample_plan(job_id: int) -> None:
    """Work a sampling plan off."""
    perform(job_id, _work_off)


def _work_off(claim: Claim) -> None:
    with transaction() as session:
        work = plan_work.load(session, claim)
    begun = monotonic()
    while _look_at_candidates(claim, work):
        _give_way(begun)
    models = {sha256 for voice in work.voices for sha256 in (voice.sha256, voice.reward_sha256) if sha256}
    at_once = MANY_AT_ONCE if len(models) > 1 else FEW_AT_ONCE
    while _draw(claim, work, at_once):
        _give_way(begun)
    with transaction() as session:
        plan_work.finish(session, claim, work)


def _give_way(begun: float) -> None:
    """Raise StoppingError where this plan has had its turn and others wait: the job is queued again behind them."""
    if monotonic() - begun > TURN_SECONDS:
        with transaction() as session:
            if plan_work.must_wait(session):
                raise StoppingError


def _draw(claim: Claim, work: Work, at_once: int) -> bool:
    """One wave: prompts are chosen, answered, and become tasks. Whether there was one."""
    with transaction() as session:
        chosen = plan_work.next_prompts(session, claim, work, at_once)
    if not chosen:
        return False
    begun = monotonic()
    drawn, parts = mixing.answer(work, chosen, lambda: check(claim))
    for one in drawn:
        if one.problem:
            log.warning("prompt passed over", prompt=str(one.chosen.prompt.uid), reason=one.problem)
    check(claim)
    with transaction() as session:
        plan_work.store(session, claim, work, drawn, parts, monotonic() - begun)
    return True


def _look_at_candidates(claim: Claim, work: Work) -> bool:
    """Measure how differently two reward models judge responses to some candidates. Whether there were any."""
    with transaction() as session:
        candidates = plan_work.next_candidates(session, claim, work, CANDIDATES_AT_ONCE)
    if not candidates or work.judges is None:
        return False
    from app import statistics

    problems: dict[int, str] = {}
    texts = _texts_of(claim, work, candidates, problems)
    prompts = [one.prompt for one in candidates if one.prompt.id in texts]
    scores = []
    for judge in work.judges:
        check(claim)
        scores.append(mixing.score(judge, prompts, [texts[prompt.id] for prompt in prompts], problems))
    first, second = scores
    found = {
        prompt_id: statistics.disagreement(values, second[prompt_id])
        for prompt_id, values in first.items()
        if prompt_id in second
    }
    check(claim)
    with transaction() as session:
        plan_work.store_disagreements(session, claim, work, found, problems)
    return True


def _texts_of(
    claim: Claim, work: Work, candidates: Sequence[Candidate], problems: dict[int, str]
) -> dict[int, list[Text]]:
    """Responses to each candidate: those there are, else fresh ones. One that gets fewer than two goes to `problems`."""
    found = {
        one.prompt.id: [Text(text, "stop" if has_ended else "length") for text, has_ended in one.texts]
        for one in candidates
        if one.texts
    }
    bare = [one.prompt for one in candidates if not one.texts]
    if bare and work.writer is not None:
        longest = min(CANDIDATE_TOKENS, *(voice.part.max_new_tokens for voice in work.voices))
        drawn = mixing.draw_from(
            work.writer,
            bare,
            CANDIDATE_TEXTS,
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=longest,
            problems=problems,
            keep_going=lambda: check(claim),
        )
        for prompt_id, texts in drawn.items():
            different = {text.text: text for text in texts}
            if len(different) > 1:
                found[prompt_id] = list(different.values())
            else:
                problems[prompt_id] = "All responses drawn to it are the same, so that nobody can disagree on them."
    return found
