"""The job of a sampling plan: look at candidates where the plan chooses by disagreement, then draw and store wave by wave.

No transaction is open while anything is drawn, scored or asked.
"""

from collections.abc import Callable, Collection, Sequence
from time import monotonic

import structlog

from app.db import transaction
from app.schemas.plans import PartCounts
from app.services import plan_work
from app.services.jobs import Claim
from app.services.plan_work import CANDIDATE_TEXTS, CANDIDATE_TOKENS, Candidate, Work
from app.services.tasks import same_text
from workers.celery_app import celery
from workers.tasks import mixing
from workers.tasks.mixing import Text
from workers.tasks.outside import EndpointFailedError
from workers.tasks.perform import StoppingError, check, perform

FEW_AT_ONCE, MANY_AT_ONCE = 8, 64
"""Prompts of a wave at most: many where models take turns in memory, so that each is loaded seldom, or an endpoint is asked."""

RESPONSES_AT_ONCE = 64
"""Responses of the first wave, before it is known how long one takes."""

CANDIDATES_AT_ONCE = 256
"""Candidates at most that three models look at, one after another; what a killed worker has to do again."""

WAVE_SECONDS = 45.0
"""A wave is made so large that it takes about so long: what is stored then can be ranked, and other work may come in between."""

TURN_SECONDS = 60.0
"""A plan draws so long before it lets other work of its worker go first."""

log = structlog.get_logger()


@celery.task(name="preferable.sample_plan")
def sample_plan(job_id: int) -> None:
    """Work a sampling plan off."""
    perform(job_id, _work_off)


def _work_off(claim: Claim) -> None:
    with transaction() as session:
        work = plan_work.load(session, claim)
    begun = monotonic()
    _in_waves(lambda size: _look_at_candidates(claim, work, size), CANDIDATE_TEXTS, CANDIDATES_AT_ONCE, begun)
    models = {sha256 for voice in work.voices for sha256 in (voice.sha256, voice.reward_sha256) if sha256}
    is_many = len(models) > 1 or any(voice.target for voice in work.voices)
    each = sum(voice.part.drawn for voice in work.voices)
    _in_waves(lambda size: _draw(claim, work, size), each, MANY_AT_ONCE if is_many else FEW_AT_ONCE, begun)
    with transaction() as session:
        plan_work.finish(session, claim, work)


def _in_waves(wave: Callable[[int], int], responses_each: int, most: int, begun: float) -> None:
    """Do waves until one finds nothing, the first small, the others as large as fits into their time."""
    size = max(1, min(most, RESPONSES_AT_ONCE // responses_each))
    while True:
        started = monotonic()
        done = wave(size)
        if not done:
            return
        size = next_size(done, monotonic() - started, most)
        _give_way(begun)


def next_size(done: int, seconds: float, most: int) -> int:
    """Prompts of the next wave, after one of `done` that took so long: at most four times as many."""
    fitting = done * min(4.0, WAVE_SECONDS / max(seconds, 0.01))
    return max(1, min(most, int(fitting)))


def _give_way(begun: float) -> None:
    """Raise StoppingError where this plan has had its turn and others wait: the job is queued again behind them."""
    if monotonic() - begun > TURN_SECONDS:
        with transaction() as session:
            if plan_work.must_wait(session):
                raise StoppingError


def _draw(claim: Claim, work: Work, at_once: int) -> int:
    """One wave: prompts are chosen, answered, and become tasks. Of how many prompts.

    Raises EndpointFailedError where an endpoint gives no more, after what is complete was stored.
    """
    with transaction() as session:
        chosen = plan_work.next_prompts(session, claim, work, at_once)
        requests_left = plan_work.count_requests_left(session, work)
    if not chosen:
        return 0
    begun, parts = monotonic(), [PartCounts() for _ in work.voices]
    try:
        answered = mixing.answer(
            work,
            chosen,
            lambda: check(claim),
            find_fit=lambda prompt_ids: _find_fit(work, prompt_ids),
            requests_left=requests_left,
            parts=parts,
        )
    except Exception:
        with transaction() as session:  # a stop does not make what endpoints were asked for nothing
            plan_work.store(session, claim, work, [], parts, monotonic() - begun)
        raise
    for one in answered.drawn:
        if one.problem:
            log.warning("prompt passed over", prompt=str(one.chosen.prompt.uid), reason=one.problem)
    check(claim)
    with transaction() as session:
        plan_work.store(session, claim, work, answered.drawn, answered.parts, monotonic() - begun)
    if answered.failure:
        raise EndpointFailedError(answered.failure)
    return len(chosen)


def _find_fit(work: Work, prompt_ids: Collection[int]) -> set[int]:
    with transaction() as session:
        return plan_work.check_outside(session, work, prompt_ids)


def _look_at_candidates(claim: Claim, work: Work, at_once: int) -> int:
    """Measure how differently two reward models judge responses to some candidates. How many there were."""
    with transaction() as session:
        candidates = plan_work.next_candidates(session, claim, work, at_once)
    if not candidates or work.judges is None:
        return 0
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
    return len(candidates)


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
            different = {same_text(text.text): text for text in texts}
            if len(different) > 1:
                found[prompt_id] = list(different.values())
            else:
                problems[prompt_id] = "All responses drawn to it are the same, so that nobody can disagree on them."
    return found
