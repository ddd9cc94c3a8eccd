"""The job of a sampling plan on real (tiny) models: streams in their shares, the best of n, mixes, and no task twice."""

import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app import storage
from app.db import transaction
from app.models import (
    Checkpoint,
    CheckpointKind,
    Job,
    JobState,
    ParentRole,
    PlanPrompt,
    Project,
    Prompt,
    PromptPool,
    Role,
    Sample,
    Sampler,
    SamplingPlan,
    Split,
    Stream,
    Task,
    TaskKind,
    TaskOutput,
    TaskState,
)
from app.permissions import Access
from app.schemas.plans import PlanCounts, PlanSettings
from app.services import checkpoints, jobs, plan_work, plans, sampling
from app.settings import get_settings
from tests.app import registry
from tests.workers.tasks import tiny
from workers.tasks import answering, mixing
from workers.tasks import plans as plan_tasks
from workers.tasks.plans import sample_plan


@pytest.fixture(scope="session")
def rewards(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two tiny reward models that agree on little."""
    from workers.training.checkpoints import load_tokenizer, prepare, reward_model_from, save

    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("rewards") / f"reward-{seed}"
        model, tokenizer = reward_model_from(base, seed), load_tokenizer(base)
        prepare(model, tokenizer)
        model.score.weight.data *= 40  # far apart, so that which is better is no matter of rounding
        model.config.reward_mean = 0.25
        save(folder, model, tokenizer, "reward", {"sft": base})
        folders.append(folder)
    return folders[0], folders[1]


@pytest.fixture
def access(project: Project) -> Access:
    with transaction() as session:
        return registry.access_of(registry.make_user(session), project, Role.RESEARCHER)


def register_rewards(project: Project, folders: Sequence[Path]) -> list[uuid.UUID]:
    with transaction() as session:
        base = session.scalars(select(Checkpoint).where(Checkpoint.kind == CheckpointKind.BASE)).one()
        return [
            checkpoints.register(
                session,
                session.get_one(Project, project.id),
                kind=CheckpointKind.REWARD,
                sha256=storage.put_checkpoint(get_settings(), folder),
                parents={ParentRole.INIT: base},
                metrics={},
            ).uid
            for folder in folders
        ]


def base_uid() -> uuid.UUID:
    with transaction() as session:
        return session.scalars(select(Checkpoint.uid).where(Checkpoint.kind == CheckpointKind.BASE)).one()


def part(**others: Any) -> dict[str, Any]:
    return {"kind": "checkpoint", "source": base_uid(), "responses": 2, "max_new_tokens": 12} | others


def draft(access: Access, parts: Sequence[Mapping[str, Any]] | None = None, **others: Any) -> SamplingPlan:
    values = {"parts": parts or [part()], "tasks": 6, "valid_share": 0} | others
    with transaction() as session:
        plan = plans.save_draft(session, access, "A plan", PlanSettings.model_validate(values))
        return plans.start(session, access, plan.uid)


def run(plan: SamplingPlan) -> Job:
    assert plan.job_id is not None
    sample_plan(plan.job_id)
    with transaction() as session:
        return session.get_one(Job, plan.job_id)


def order(access: Access, parts: Sequence[Mapping[str, Any]] | None = None, **others: Any) -> tuple[SamplingPlan, Job]:
    plan = draft(access, parts, **others)
    return plan, run(plan)


def made(plan: SamplingPlan) -> list[tuple[Task, Split, list[Sample]]]:
    """Tasks of a plan with their split and their responses."""
    with transaction() as session:
        rows = session.execute(
            select(Task, Prompt.split, Sample)
            .join(Prompt, Prompt.id == Task.prompt_id)
            .join(TaskOutput, TaskOutput.task_id == Task.id)
            .join(Sample, Sample.id == TaskOutput.sample_id)
            .where(Task.plan_id == plan.id)
            .order_by(Task.id, TaskOutput.position)
        ).all()
    found: dict[int, tuple[Task, Split, list[Sample]]] = {}
    for task, split, sample in rows:
        found.setdefault(task.id, (task, split, []))[2].append(sample)
    return list(found.values())


def counts_of(plan: SamplingPlan) -> PlanCounts:
    with transaction() as session:
        return PlanCounts.from_json(session.get_one(SamplingPlan, plan.id).counts)


class TestStreams:
    def test_random_prompts_in_the_shares_ordered(self, access: Access) -> None:
        plan, job = order(access, tasks=8, valid_share=0.25, control_share=0.25, judgements_wanted=3, priority=2)
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        tasks = made(plan)
        assert Counter((task.stream, split) for task, split, _ in tasks) == {
            (Stream.CONTROL, Split.VALID): 2,
            (Stream.CONTROL, Split.TRAIN): 2,  # a quarter of the six others is one and a half
            (Stream.CHOSEN, Split.TRAIN): 4,
        }
        assert {(task.round_id, task.judgements_wanted, task.priority, task.state) for task, _, _ in tasks} == {
            (None, 3, 2, TaskState.OPEN)
        }
        assert all(len({sample.text.strip() for sample in samples}) == 2 for _, _, samples in tasks)
        assert job.result is not None
        assert (job.result["made"], job.result["missing"], job.progress, job.total) == (8, 0, 8, 8)
        counts = counts_of(plan)
        assert counts.tasks == 8 and counts.parts[0].responses >= 16 and counts.seconds > 0

    def test_never_ranked_leaves_out_what_is_ranked_or_waits_and_control_does_not(
        self, access: Access, project: Project
    ) -> None:
        first, _ = order(access, tasks=5, control_share=0)
        ranked = {task.prompt_id for task, _, _ in made(first)}
        plan, job = order(access, tasks=8, order="never_ranked", control_share=0.5)
        chosen = [task.prompt_id for task, _, _ in made(plan) if task.stream == Stream.CHOSEN]
        assert job.result is not None and ranked.isdisjoint(chosen)
        with transaction() as session:
            train = session.scalar(select(func.count()).where(Prompt.split == Split.TRAIN)) or 0
        control = [task.prompt_id for task, _, _ in made(plan) if task.stream == Stream.CONTROL]
        assert len(control) == 4
        left = train - len(ranked | set(control))
        assert len(chosen) == min(4, left)
        assert job.result["missing"] == 4 - len(chosen)

    def test_pools_and_categories_bound_it(self, access: Access, project: Project) -> None:
        with transaction() as session:
            other = PromptPool(project_id=project.id, name="other")
            session.add(other)
            session.flush()
            moved = session.scalars(
                select(Prompt).where(Prompt.split == Split.TRAIN).order_by(Prompt.id).limit(4)
            ).all()
            for prompt in moved:
                prompt.pool_id = other.id
            category = moved[0].category
        plan, job = order(access, tasks=3, pools=[other.uid], categories=[category])
        assert [task.prompt_id for task, _, _ in made(plan)] == [moved[0].id]
        assert job.result is not None and job.result["missing"] == 2

    def test_disagreement_takes_the_prompts_on_which_two_reward_models_differ_most(
        self, access: Access, project: Project, rewards: tuple[Path, Path]
    ) -> None:
        first, second = register_rewards(project, rewards)
        plan, job = order(
            access, tasks=3, order="disagreement", first_judge=first, second_judge=second, control_share=0.33
        )
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        tasks = made(plan)
        assert Counter(task.stream for task, _, _ in tasks) == {Stream.CONTROL: 1, Stream.CHOSEN: 2}
        with transaction() as session:
            rows = session.scalars(select(PlanPrompt).where(PlanPrompt.plan_id == plan.id)).all()
        looked_at = {row.prompt_id: row.disagreement for row in rows if row.disagreement is not None}
        assert len(looked_at) == 8  # four for each of two, of the nine there are less the control's
        assert all(0 <= value <= 1 for value in looked_at.values()) and len(set(looked_at.values())) > 1
        best = sorted(looked_at, key=lambda prompt: -looked_at[prompt])[:2]
        assert {task.prompt_id for task, _, _ in tasks if task.stream == Stream.CHOSEN} == set(best)
        assert counts_of(plan).looked_at == 8

    def test_control_is_drawn_while_every_prompt_is_still_to_be_had(
        self, access: Access, project: Project, rewards: tuple[Path, Path]
    ) -> None:
        """Of nine prompts two are drawn at random first; the eight candidates wanted are seven then."""
        first, second = register_rewards(project, rewards)
        plan = draft(access, tasks=4, order="disagreement", first_judge=first, second_judge=second, control_share=0.5)
        with transaction() as session:
            claim = jobs.claim(session, plan.job_id or 0)
            assert claim is not None
            candidates = plan_work.next_candidates(session, claim, plan_work.load(session, claim), 100)
            streams = Counter(session.scalars(select(PlanPrompt.stream).where(PlanPrompt.plan_id == plan.id)))
        assert streams == {Stream.CONTROL: 2, Stream.CHOSEN: 7} and len(candidates) == 7

    def test_a_control_prompt_that_is_passed_over_is_replaced_from_those_drawn_before_the_choice(
        self, access: Access, project: Project
    ) -> None:
        """Of nine prompts none is ranked; three are wanted, and the control stream has one to spare."""
        plan = draft(access, tasks=3, order="never_ranked", control_share=0.05)
        with transaction() as session:
            claim = jobs.claim(session, plan.job_id or 0)
            assert claim is not None
            work = plan_work.load(session, claim)
            plan_work.next_prompts(session, claim, work, 9)
            streams = Counter(session.scalars(select(PlanPrompt.stream).where(PlanPrompt.plan_id == plan.id)))
        assert streams == {Stream.CONTROL: 2, Stream.CHOSEN: 2}

    def test_what_is_ranked_while_it_waits_is_never_ranked_no_more(self, access: Access, project: Project) -> None:
        plan = draft(access, tasks=5, order="never_ranked", control_share=0.05)
        with transaction() as session:
            claim = jobs.claim(session, plan.job_id or 0)
            assert claim is not None
            work = plan_work.load(session, claim)
            first = plan_work.next_prompts(session, claim, work, 9)
        ranked = next(one.prompt.id for one in first if one.lane.stream == Stream.CHOSEN)
        with transaction() as session:
            session.add(Task(project_id=project.id, kind=TaskKind.RANK, prompt_id=ranked))
            session.flush()
            again = plan_work.next_prompts(session, claim, work, 9)
        assert len(again) == 5 and ranked not in {one.prompt.id for one in again}

    def test_waves_mix_the_streams(self, access: Access) -> None:
        """After any part of the plan its shares hold, so that neither the queue's order nor a stop tells them apart."""
        plan = draft(access, tasks=8, control_share=0.5)
        with transaction() as session:
            claim = jobs.claim(session, plan.job_id or 0)
            assert claim is not None
            chosen = plan_work.next_prompts(session, claim, plan_work.load(session, claim), 8)
        streams = [one.lane.stream for one in chosen]
        assert all(abs(streams[:at].count(Stream.CONTROL) - at / 2) <= 1 for at in range(9))

    def test_disagreement_scores_the_responses_there_are(
        self, access: Access, project: Project, rewards: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order(access, tasks=9, control_share=0)
        first, second = register_rewards(project, rewards)
        plan = draft(access, tasks=2, order="disagreement", first_judge=first, second_judge=second)
        asked: list[int] = []
        draw = mixing.draw_from

        def watched(sha256: str, prompts: Sequence[Prompt], n: int, **others: Any) -> Any:
            asked.append(n)
            return draw(sha256, prompts, n, **others)

        monkeypatch.setattr(mixing, "draw_from", watched)
        assert run(plan).state == JobState.SUCCEEDED
        assert set(asked) == {2}, "the two responses of a task, and none for candidates"


class TestBestOf:
    def test_gives_the_one_of_n_that_the_reward_model_scores_highest(
        self, access: Access, project: Project, rewards: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reward, _ = register_rewards(project, rewards)
        groups: dict[int, list[list[str]]] = defaultdict(list)
        draw = mixing.draw_from

        def watched(sha256: str, prompts: Sequence[Prompt], n: int, **others: Any) -> Any:
            found = draw(sha256, prompts, n, **others)
            for prompt_id, texts in found.items():
                groups[prompt_id] += [texts[at : at + 5] for at in range(0, len(texts), 5)]
            return found

        monkeypatch.setattr(mixing, "draw_from", watched)
        plan, job = order(access, [part(best_of=5, reward=reward)], tasks=4)
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        tasks = made(plan)
        assert len(tasks) == 4
        with transaction() as session:
            sha256 = session.scalars(select(Checkpoint.sha256).where(Checkpoint.uid == reward)).one()
            sampler = session.scalars(select(Sampler).where(Sampler.best_of == 5)).one()
            prompts = {prompt.id: prompt for prompt in session.scalars(select(Prompt))}
        assert sampler.reward_id is not None
        for task, _, samples in tasks:
            assert {sample.sampler_id for sample in samples} == {sampler.id}
            drawn = groups[task.prompt_id]
            assert len(drawn) == 2
            best = []
            for group in drawn:
                scores = mixing.score(sha256, [prompts[task.prompt_id]], [group], {})[task.prompt_id]
                best.append(max(zip(scores, group, strict=True), key=lambda one: one[0])[1].text)
            assert {sample.text for sample in samples} == set(best)

    def test_the_same_recipe_is_one_sampler_and_another_reward_model_another(
        self, access: Access, project: Project, rewards: tuple[Path, Path]
    ) -> None:
        first, second = register_rewards(project, rewards)
        for reward in (first, first, second):
            order(access, [part(best_of=2, reward=reward)], tasks=1)
        with transaction() as session:
            assert session.scalar(select(func.count()).select_from(Sampler).where(Sampler.best_of == 2)) == 2

    def test_one_model_is_in_memory_at_a_time(
        self, access: Access, project: Project, rewards: tuple[Path, Path]
    ) -> None:
        reward, _ = register_rewards(project, rewards)
        order(access, [part(best_of=2, reward=reward)], tasks=2)
        assert len(answering._loaded) + len(answering._judges) == 1


class TestMix:
    def test_each_task_has_the_responses_that_each_part_owes(self, access: Access) -> None:
        parts = [part(responses=1), part(responses=2, temperature=0.8), part(responses=1, prefix="Say: ")]
        plan, job = order(access, parts, tasks=4)
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        with transaction() as session:
            samplers = {row.id: row for row in session.scalars(select(Sampler))}
        places = set()
        for _, _, samples in made(plan):
            told = Counter(
                (samplers[one.sampler_id or 0].decoding["temperature"], samplers[one.sampler_id or 0].prefix)
                for one in samples
            )
            assert told == {(1.0, ""): 1, (0.8, ""): 2, (1.0, "Say: "): 1}
            places.add(tuple(sample.sampler_id for sample in samples))
        assert len(places) > 1, "no place among the outputs tells a sampler"

    def test_a_prefix_is_read_by_the_model_and_counts_as_its_tokens(self, access: Access) -> None:
        plan, job = order(access, [part(prefix="bird " * 60)], tasks=2)
        assert job.state == JobState.SUCCEEDED and job.result is not None and job.result["made"] == 0
        with transaction() as session:
            problem = session.scalars(select(PlanPrompt.problem).where(PlanPrompt.plan_id == plan.id)).first()
            assert session.scalars(select(Prompt.problem).where(Prompt.problem.is_not(None))).all() == []
        assert problem is not None and "exceeds the model's context of 64" in problem

    def test_prompts_that_cannot_be_answered_in_different_ways_are_passed_over(self, access: Access) -> None:
        plan, job = order(access, [part(responses=9, top_p=1e-6)], tasks=2)
        assert job.state == JobState.SUCCEEDED and job.result is not None
        assert (job.result["made"], job.result["missing"]) == (0, 2)
        assert counts_of(plan).passed == job.result["passed_over"] > 2
        with transaction() as session:
            problems = set(session.scalars(select(PlanPrompt.problem).where(PlanPrompt.plan_id == plan.id)))
        assert any("repeat one another" in (problem or "") for problem in problems)


class TestNextSize:
    @pytest.mark.parametrize(
        ("done", "seconds", "size"),
        [(8, 45.0, 8), (8, 90.0, 4), (1, 3600.0, 1), (4, 1.0, 16), (60, 1.0, 64), (8, 0.0, 32)],
    )
    def test_fits_into_the_time_of_a_wave_and_grows_by_degrees(self, done: int, seconds: float, size: int) -> None:
        assert plan_tasks.next_size(done, seconds, most=64) == size


class TestGoingOn:
    def test_a_killed_job_goes_on_without_making_a_task_twice(
        self, access: Access, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan_tasks, "FEW_AT_ONCE", 2)
        plan = draft(access, tasks=7)
        answer, waves = mixing.answer, []

        def killed(*args: Any, **others: Any) -> Any:
            waves.append(1)
            if len(waves) == 3:
                raise KeyboardInterrupt
            return answer(*args, **others)

        monkeypatch.setattr(mixing, "answer", killed)
        with pytest.raises(KeyboardInterrupt):
            run(plan)
        before = made(plan)
        assert len(before) == 4 and counts_of(plan).tasks == 4
        with transaction() as session:
            assert jobs.requeue_dead(session, after_seconds=-1) == [plan.job_id]
        job = run(plan)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
        after = made(plan)
        assert len(after) == 7 == len({task.prompt_id for task, _, _ in after})
        assert {task.id for task, _, _ in before} < {task.id for task, _, _ in after}
        with transaction() as session:
            assert session.scalar(select(func.count()).select_from(Sample)) == 14

    def test_a_worker_given_up_for_dead_changes_nothing_when_it_comes_back(self, access: Access) -> None:
        plan = draft(access, tasks=4)
        with transaction() as session:
            stale = jobs.claim(session, plan.job_id or 0)
            assert stale is not None
            work = plan_work.load(session, stale)
            chosen = plan_work.next_prompts(session, stale, work, 4)
            jobs.requeue_dead(session, after_seconds=-1)
        assert run(plan).state == JobState.SUCCEEDED
        answered = mixing.answer(work, chosen, lambda: None)
        with pytest.raises(Exception, match="superseded"), transaction() as session:
            plan_work.store(session, stale, work, answered.drawn, answered.parts, 1.0)
        assert len(made(plan)) == 4 == counts_of(plan).tasks

    def test_a_stopped_plan_is_gone_on_with(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plan_tasks, "FEW_AT_ONCE", 2)
        plan = draft(access, tasks=6)
        store = plan_work.store

        def stop(*args: Any) -> Any:
            counts = store(*args)
            if counts.tasks == 2:
                plans.cancel(args[0], access, plan.uid)
            return counts

        monkeypatch.setattr(plan_work, "store", stop)
        assert run(plan).state == JobState.CANCELLED
        assert len(made(plan)) == 2
        with transaction() as session:
            plans.retry(session, access, plan.uid)
        assert run(plan).state == JobState.SUCCEEDED
        assert len(made(plan)) == 6

    def test_lets_the_filling_of_the_queue_go_first(
        self, access: Access, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan_tasks, "FEW_AT_ONCE", 2)
        monkeypatch.setattr(plan_tasks, "TURN_SECONDS", -1)
        plan = draft(access, tasks=4)
        with transaction() as session:
            waiting = sampling.request_tasks(session, session.get_one(Project, project.id))
        job = run(plan)
        assert (job.state, job.handed_back, len(made(plan))) == (JobState.QUEUED, 1, 2)
        with transaction() as session:
            session.get_one(Job, waiting.id).state = JobState.SUCCEEDED
        assert run(plan).state == JobState.SUCCEEDED
        assert len(made(plan)) == 4

    def test_two_plans_take_turns(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plan_tasks, "FEW_AT_ONCE", 2)
        monkeypatch.setattr(plan_tasks, "TURN_SECONDS", -1)
        first, second = draft(access, tasks=4), draft(access, tasks=3)
        assert (run(first).state, len(made(first))) == (JobState.QUEUED, 2)
        assert (run(second).state, len(made(second))) == (JobState.QUEUED, 2)

    def test_a_promotion_retires_none_of_its_tasks(self, access: Access, project: Project) -> None:
        plan, _ = order(access, tasks=3)
        with transaction() as session:
            row = session.get_one(Project, project.id)
            base = session.scalars(select(Checkpoint)).one()
            sft = checkpoints.register(
                session, row, kind=CheckpointKind.SFT, sha256=base.sha256, parents={ParentRole.INIT: base}, metrics={}
            )
            admin = registry.access_of(access.user, row, Role.ADMIN)
            checkpoints.promote(session, admin, row, sft)
        assert {task.state for task, _, _ in made(plan)} == {TaskState.OPEN}

    def test_its_tasks_are_ranked_like_any_other(self, access: Access, project: Project) -> None:
        plan, _ = order(access, [part(responses=3)], tasks=2)
        with transaction() as session:
            person = tiny.labeller(session, session.get_one(Project, project.id))
            assert tiny.judge(session, person, 2) == 2
        assert {task.state for task, _, _ in made(plan)} == {TaskState.DONE}
