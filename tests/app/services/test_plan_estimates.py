"""What a plan will cost, by what was measured so far, and what is not known is said so."""

import uuid
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import CheckpointKind, Job, JobState, Prompt, Role, Sample, SampleOrigin, Split
from app.permissions import Access
from app.schemas.plans import PartCounts, PlanCounts, PlanSettings
from app.services import checkpoints, judgements, plan_estimates, plans, samplers
from app.services.plan_estimates import Estimate, Short
from app.services.samplers import Recipe
from tests.app import registry
from tests.app.queue import Queue, make_queue, rank, take


@pytest.fixture
def queue(session: Session, tmp_path: Path) -> Queue:
    made = make_queue(session, tmp_path)
    for number in range(6):
        registry.make_prompt(session, made.project, f"Bird {number}?")
    return made


def settings(source: uuid.UUID, kind: str = "checkpoint", **others: object) -> PlanSettings:
    part = {"kind": kind, "source": source, "responses": 3, "max_new_tokens": 100}
    part |= {name: others.pop(name) for name in ("best_of", "reward", "prefix") if name in others}
    return PlanSettings.model_validate({"parts": [part], "tasks": 10, "valid_share": 0} | others)


def estimate(session: Session, queue: Queue, wanted: PlanSettings) -> Estimate:
    return plan_estimates.estimate(session, queue.project, wanted, plans.map_sources(session, queue.project))


def add_samples(session: Session, queue: Queue, sampler_id: int, *lengths: int) -> None:
    prompt = session.scalars(select(Prompt).where(Prompt.project_id == queue.project.id).limit(1)).one()
    session.add_all(
        Sample(
            project_id=queue.project.id,
            prompt_id=prompt.id,
            origin=SampleOrigin.MODEL,
            sampler_id=sampler_id,
            text="x",
            html="x",
            length_tokens=length,
        )
        for length in lengths
    )
    session.flush()


class TestEstimate:
    def test_before_anything_was_drawn_only_the_bounds_are_known(self, session: Session, queue: Queue) -> None:
        base = checkpoints.active_policy(session, queue.project.id)
        found = estimate(session, queue, settings(base.uid, judgements_wanted=2))
        assert (found.mean_tokens, found.seconds, found.hours) == (None, None, None)
        assert (found.most_tokens, found.judgements) == (10 * 3 * 100, 20)
        assert not found.is_paid
        assert found.short == [Short(Split.TRAIN, False, 6, 10)]

    def test_tokens_by_the_mean_length_and_time_by_the_speed_of_the_last_plan(
        self, session: Session, queue: Queue, tmp_path: Path
    ) -> None:
        base = checkpoints.active_policy(session, queue.project.id)
        reward = registry.make_checkpoint(session, queue.project, tmp_path, CheckpointKind.REWARD, init=base)
        add_samples(session, queue, queue.sampler.id, 10, 30)
        former = registry.make_plan(session, queue.project, base)
        job = Job(project_id=queue.project.id, kind="sample_plan", state=JobState.SUCCEEDED)
        session.add(job)
        session.flush()
        former.job_id, former.counts = job.id, PlanCounts(parts=[PartCounts(10, 500, 0, 10.0)]).to_json()
        session.flush()
        found = estimate(session, queue, settings(base.uid, best_of=4, reward=reward.uid))
        assert found.mean_tokens == 10 * 3 * 4 * 20
        assert found.most_tokens == 10 * 3 * 4 * 100
        assert found.seconds == pytest.approx(2400 / 50)

    def test_the_speed_is_else_that_of_the_prompts_every_model_answers(self, session: Session, queue: Queue) -> None:
        base = checkpoints.active_policy(session, queue.project.id)
        add_samples(session, queue, queue.sampler.id, 10)
        session.add(
            Job(
                project_id=queue.project.id,
                kind="showcase",
                state=JobState.SUCCEEDED,
                arguments={"checkpoint_id": base.id},
                result={"made": 6, "tokens": 300, "seconds": 3.0},
            )
        )
        session.flush()
        assert estimate(session, queue, settings(base.uid)).seconds == pytest.approx(300 / 100)

    def test_money_for_endpoints_by_their_prices(self, session: Session, queue: Queue) -> None:
        outside = registry.make_endpoint(session, queue.project)
        wanted = settings(outside.uid, "endpoint", prefix="x" * 400)
        found = estimate(session, queue, wanted)
        assert found.is_paid and (found.mean_money, found.most_money, found.seconds) == (None, None, None)
        outside.price_in, outside.price_out = 2.0, 10.0
        session.flush()
        found = estimate(session, queue, wanted)
        assert found.mean_money is None and found.most_money is not None
        assert found.most_tokens == 45 * 100, "half as many again: repetitions, refusals and failures are paid, too"
        for_prompts = found.most_money * 1e6 - 45 * 100 * 10
        assert 2.0 * 45 * 200 < for_prompts < 2.0 * 45 * 260, "the text before the prompt, and the prompt's own"
        sampler = samplers.ensure(session, queue.project, Recipe(outside, 1.0, 1.0, 100))
        add_samples(session, queue, sampler.id, 50)
        found = estimate(session, queue, wanted)
        assert found.mean_money is not None
        assert 2.0 * 30 * 100 < found.mean_money * 1e6 - 10 * 3 * 50 * 10 < 2.0 * 30 * 130

    def test_peoples_hours_by_the_median_of_their_rankings(self, session: Session, queue: Queue) -> None:
        base = checkpoints.active_policy(session, queue.project.id)
        person = queue.person(session)
        for active_ms in (10_000, 36_000, 500_000):
            queue.task(session)
            work = take(session, person)
            judgements.submit_ranking(session, person, work.task.uid, rank(work)).active_ms = active_ms
        session.flush()
        found = estimate(session, queue, settings(base.uid, judgements_wanted=10))
        assert found.median_seconds == 36 and found.hours == pytest.approx(1.0)

    def test_candidates_are_counted_where_two_reward_models_choose(
        self, session: Session, queue: Queue, tmp_path: Path
    ) -> None:
        base = checkpoints.active_policy(session, queue.project.id)
        judges = [
            registry.make_checkpoint(session, queue.project, tmp_path, CheckpointKind.REWARD, init=base).uid
            for _ in range(2)
        ]
        found = estimate(
            session,
            queue,
            settings(base.uid, order="disagreement", first_judge=judges[0], second_judge=judges[1], control_share=0.2),
        )
        assert (found.looks.prompts, found.looks.responses) == (4 * 8, 4 * 8 * 4)
        assert found.most_tokens == 10 * 3 * 100 + 4 * 8 * 4 * 100
        assert (found.mean_tokens, found.seconds) == (None, None)
        add_samples(session, queue, queue.sampler.id, 10)
        with_looks = estimate(
            session,
            queue,
            settings(base.uid, order="disagreement", first_judge=judges[0], second_judge=judges[1], control_share=0.2),
        )
        assert with_looks.mean_tokens == 10 * 3 * 10 + 4 * 8 * 4 * 10

    def test_prompts_that_were_never_ranked_are_counted_for_those_chosen(self, session: Session, queue: Queue) -> None:
        base = checkpoints.active_policy(session, queue.project.id)
        for _ in range(3):
            queue.task(session)
        found = estimate(session, queue, settings(base.uid, tasks=9, order="never_ranked", control_share=0.2))
        assert found.short == [Short(Split.TRAIN, True, 6, 7)], "of nine prompts three wait to be ranked"

    def test_looking_starts_nothing(self, session: Session, queue: Queue) -> None:
        access: Access = registry.access_of(registry.make_user(session), queue.project, Role.RESEARCHER)
        base = checkpoints.active_policy(session, queue.project.id)
        plan = plans.save_draft(session, access, "A plan", settings(base.uid))
        estimate(session, queue, PlanSettings.model_validate(plan.settings))
        assert plan.job_id is None and plan.counts == {}
