"""The queue's supply: which prompts come next, and that what was drawn is stored for its own round only."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import Conflict, StaleAttempt
from app.models import (
    Category,
    CheckpointKind,
    Job,
    Project,
    Prompt,
    PromptPool,
    PromptStatus,
    Sample,
    Sampler,
    Split,
    Task,
    TaskOutput,
    TaskState,
)
from app.schemas.judgements import WhySkipped
from app.schemas.projects import AutomationSettings, ProjectForm, SamplingSettings
from app.services import checkpoints, jobs, judgements, projects, sampling, tasks
from app.services.sampling import Drawn, Order
from app.services.tasks import NewSample
from app.settings import Settings
from tests.app import registry
from tests.app.queue import Queue, lease, rank, take


@pytest.fixture
def project(session: Session, settings: Settings, tmp_path: Path) -> Project:
    project = registry.make_project(session, tmp_path)[0]
    project.automation = AutomationSettings(ready_tasks=10).model_dump()
    project.sampling = SamplingSettings(valid_share=0.25, judgements_wanted=2).model_dump()
    return project


@pytest.fixture
def claim(session: Session, project: Project) -> jobs.Claim:
    claim = jobs.claim(session, sampling.request_tasks(session, project).id)
    assert claim is not None
    return claim


@pytest.fixture
def order(session: Session, claim: jobs.Claim) -> Order:
    return sampling.load_order(session, claim)


def drawn_for(order: Order, prompt: Prompt, *texts: str) -> Drawn:
    return Drawn(prompt.id, tuple(NewSample(text, order.sampler.id, 1, 3, "stop") for text in texts or ("a", "b")))


class TestRequestTasks:
    def test_one_waiting_request_is_enough(self, session: Session, project: Project) -> None:
        assert sampling.request_tasks(session, project).id == sampling.request_tasks(session, project).id


class TestChoosePrompts:
    def test_keeps_the_held_out_share_on_average(self, session: Session, project: Project, order: Order) -> None:
        for split in [Split.TRAIN, Split.VALID] * 20:
            registry.make_prompt(session, project, split=split)
        chosen = [sampling.choose_prompts(session, order, 3, excluded=()) for _ in range(60)]
        assert {len(prompts) for prompts in chosen} == {3}
        assert {prompt.split for prompts in chosen for prompt in prompts} == {Split.TRAIN, Split.VALID}
        held_out = sum(prompt.split == Split.VALID for prompts in chosen for prompt in prompts)
        assert 20 < held_out < 70  # 45 of 180 expected; the chance to miss this range is below 1e-6

    def test_takes_those_with_the_fewest_tasks_first(
        self, session: Session, project: Project, order: Order, claim: jobs.Claim
    ) -> None:
        often, rarely = (registry.make_prompt(session, project) for _ in range(2))
        sampling.store_tasks(session, claim, order, [drawn_for(order, often)])
        assert sampling.choose_prompts(session, order, 1, excluded=()) == [rarely]
        assert sampling.choose_prompts(session, order, 1, excluded=[rarely.id]) == [often]

    def test_leaves_out_what_may_not_be_sampled(self, session: Session, project: Project, order: Order) -> None:
        retired, paused, too_long, test = (registry.make_prompt(session, project) for _ in range(4))
        retired.status, test.split = PromptStatus.RETIRED, Split.TEST
        session.get_one(PromptPool, paused.pool_id).is_active = False
        sampling.set_aside(session, order, too_long, "It is too long.")
        session.flush()
        assert sampling.choose_prompts(session, order, 9, excluded=()) == []

    def test_makes_do_with_one_split_where_the_other_is_empty(
        self, session: Session, project: Project, order: Order
    ) -> None:
        for _ in range(4):
            registry.make_prompt(session, project, split=Split.VALID)
        assert len(sampling.choose_prompts(session, order, 3, excluded=())) == 3


class TestStoreTasks:
    def test_opens_a_task_with_its_samples(
        self, session: Session, project: Project, order: Order, claim: jobs.Claim
    ) -> None:
        prompt = registry.make_prompt(session, project)
        assert sampling.count_missing(session, order) == 13, "ten, and a quarter more"
        assert sampling.store_tasks(session, claim, order, [drawn_for(order, prompt, "one", "two", "three")]) == 1
        task = session.scalars(select(Task)).one()
        assert (task.state, task.judgements_wanted, task.round_id) == (TaskState.OPEN, 2, order.round_id)
        texts = session.scalars(select(Sample.text).join(TaskOutput).where(TaskOutput.task_id == task.id))
        assert sorted(texts) == ["one", "three", "two"]
        assert sampling.count_missing(session, order) == 12

    def test_a_task_somebody_answered_skipped_or_holds_is_missing_again(
        self, session: Session, project: Project, order: Order
    ) -> None:
        queue = Queue(project, checkpoints.open_round(session, project.id), order.sampler)
        ada = queue.person(session)
        for _ in range(5):
            queue.task(session, wanted=2)
        assert sampling.count_missing(session, order) == 8
        work = take(session, ada)
        judgements.submit_ranking(session, ada, work.task.uid, rank(work))
        assert sampling.count_missing(session, order) == 9, "it wants another person, who may never come"
        tasks.skip(session, ada, take(session, ada).task.uid, reason=WhySkipped.OTHER)
        tasks.release(session, ada, take(session, ada).task.uid)
        assert sampling.count_missing(session, order) == 10, "what was given back may be taken again"
        held = lease(session, ada)
        assert sampling.count_missing(session, order) == 11
        held.expires_at = datetime(2026, 1, 1, tzinfo=UTC)
        session.flush()
        assert sampling.count_missing(session, order) == 10

    def test_drops_what_was_drawn_for_a_round_that_is_over(
        self, session: Session, project: Project, order: Order, claim: jobs.Claim, tmp_path: Path
    ) -> None:
        prompt = registry.make_prompt(session, project)
        sft = registry.make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=order.checkpoint)
        checkpoints.promote(session, None, project, sft)
        assert sampling.store_tasks(session, claim, order, [drawn_for(order, prompt)]) == 0
        assert sampling.count_missing(session, order) == 0
        assert session.scalar(select(func.count()).select_from(Task)) == 0

    def test_drops_what_was_drawn_for_a_prompt_that_was_quarantined_meanwhile(
        self, session: Session, project: Project, order: Order, claim: jobs.Claim
    ) -> None:
        kept, taken_out = (registry.make_prompt(session, project) for _ in range(2))
        drawn = [drawn_for(order, prompt) for prompt in (kept, taken_out)]
        taken_out.status, taken_out.is_private = PromptStatus.PII, True
        assert sampling.store_tasks(session, claim, order, drawn) == 1
        assert session.scalars(select(Task.prompt_id)).all() == [kept.id]

    def test_refuses_an_older_attempt(
        self, session: Session, project: Project, order: Order, claim: jobs.Claim
    ) -> None:
        jobs.hand_back(session, claim)
        jobs.claim(session, claim.job_id)
        with pytest.raises(StaleAttempt):
            sampling.store_tasks(session, claim, order, [drawn_for(order, registry.make_prompt(session, project))])


class TestSetAside:
    def test_says_why_until_the_settings_change(self, session: Session, project: Project, order: Order) -> None:
        prompt = registry.make_prompt(session, project)
        problem = sampling.find_length_problem(order, tokens=600, context=1024)
        assert problem is not None
        assert problem.startswith(
            "It has 600 tokens; with 512 for the answer that exceeds the model's context of 1024."
        )
        assert sampling.find_length_problem(order, tokens=512, context=1024) is None
        sampling.set_aside(session, order, prompt, problem)
        session.refresh(prompt)
        assert prompt.problem == problem
        access = registry.access_of(registry.make_user(session), project, *registry.Role)
        form = ProjectForm(
            name=project.name,
            outputs_per_task=4,
            training_config="",
            sampling=SamplingSettings(max_new_tokens=64),
            automation=AutomationSettings(),
        )
        projects.change_settings(session, access, form)
        session.refresh(prompt)
        assert prompt.problem is None

    def test_an_answer_that_fills_the_context_is_the_projects_mistake(self) -> None:
        with pytest.raises(Conflict, match="leaves no room for a prompt in the model's context of 256"):
            sampling.check_room(SamplingSettings(max_new_tokens=512), 256)


class TestShowcase:
    def test_prompts_are_held_out_of_many_categories_and_stay_the_same(
        self, session: Session, project: Project
    ) -> None:
        for category in [*Category, *Category]:
            registry.make_prompt(session, project, split=Split.VALID).category = category
            registry.make_prompt(session, project).category = category
        session.flush()
        job = sampling.request_showcase(session, checkpoints.active_policy(session, project.id))
        claim = jobs.claim(session, job.id)
        assert claim is not None
        order, prompts = sampling.load_showcase(session, claim)
        assert [prompt.category for prompt in prompts] == list(Category)[: sampling.SHOWCASE_PROMPTS]
        assert {prompt.split for prompt in prompts} == {Split.VALID}

        registry.make_prompt(session, project, split=Split.VALID).category = Category.GENERATION
        session.flush()
        assert sampling.load_showcase(session, claim)[1] == prompts

        drawn = [drawn_for(order, prompt, "one") for prompt in prompts]
        sampling.store_showcase(session, claim, order, drawn, 1.5)
        stored = session.execute(select(Sample.prompt_id, Sampler.checkpoint_id).join(Sampler)).all()
        assert Counter(checkpoint for _, checkpoint in stored) == {order.checkpoint.id: sampling.SHOWCASE_PROMPTS}
        assert session.get_one(Job, job.id, populate_existing=True).result == {
            "made": sampling.SHOWCASE_PROMPTS,
            "tokens": 3 * sampling.SHOWCASE_PROMPTS,
            "seconds": 1.5,
        }
