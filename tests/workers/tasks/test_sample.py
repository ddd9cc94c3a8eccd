"""The sample worker on a real (tiny) model: the queue is filled with answers that differ, and what cannot be answered is said."""

import math
import uuid
from collections import Counter

import pytest
from sqlalchemy import func, select

from app.db import transaction
from app.models import (
    Checkpoint,
    CheckpointKind,
    Evaluation,
    EvaluationState,
    Job,
    JobState,
    ParentRole,
    Project,
    Prompt,
    Purpose,
    Role,
    Sample,
    SampleOrigin,
    Split,
    Task,
    TaskKind,
    TaskOutput,
)
from app.schemas.projects import AutomationSettings, SamplingSettings
from app.services import checkpoints, evaluations, sampling
from tests.app import registry
from workers.tasks import answering
from workers.tasks.sample import compare, sample_tasks, showcase


def fill(project: Project) -> Job:
    with transaction() as session:
        job = sampling.request_tasks(session, project)
    sample_tasks(job.id)
    with transaction() as session:
        return session.get_one(Job, job.id)


def change(project: Project, **values: object) -> None:
    with transaction() as session:
        row = session.get_one(Project, project.id)
        for name, value in values.items():
            setattr(row, name, value)


def count_prompts(project: Project) -> int:
    with transaction() as session:
        statement = select(func.count()).where(Prompt.project_id == project.id, Prompt.split != Split.TEST)
        return session.scalar(statement) or 0


class TestSampleTasks:
    def test_fills_the_queue_with_different_answers_of_the_active_model(self, project: Project) -> None:
        job = fill(project)
        wanted = math.ceil(8 * sampling.SURPLUS)
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        assert job.result is not None and (job.result["made"], job.result["missing"]) == (wanted, 0)
        with transaction() as session:
            per_task = session.execute(
                select(Task.id, func.count(), func.count(func.trim(Sample.text).distinct()))
                .join(TaskOutput, TaskOutput.task_id == Task.id)
                .join(Sample, Sample.id == TaskOutput.sample_id)
                .group_by(Task.id)
            ).all()
            samples = session.scalars(select(Sample)).all()
        assert [(outputs, different) for _, outputs, different in per_task] == [(3, 3)] * wanted
        assert {sample.origin for sample in samples} == {SampleOrigin.MODEL}
        assert len({sample.seed for sample in samples}) == len(samples)
        assert all(sample.length_tokens and sample.length_tokens <= 12 for sample in samples)
        assert fill(project).result == job.result | {"made": 0}

    def test_sets_a_prompt_aside_that_is_longer_than_the_model_can_read(self, project: Project) -> None:
        with transaction() as session:
            long = session.scalars(select(Prompt).order_by(Prompt.id)).first()
            assert long is not None
            long.messages = [{"role": "user", "content": "bird " * 50}]
        change(project, automation=AutomationSettings(ready_tasks=24).model_dump())  # every prompt gets its turn
        assert fill(project).state == JobState.SUCCEEDED
        with transaction() as session:
            problem = session.get_one(Prompt, long.id).problem
            assert session.scalar(select(func.count()).where(Task.prompt_id == long.id)) == 0
        assert problem is not None and "with 12 for the answer that exceeds the model's context of 64" in problem

    def test_sets_a_prompt_aside_that_the_model_cannot_read(self, project: Project) -> None:
        with transaction() as session:
            odd = session.scalars(select(Prompt).order_by(Prompt.id)).first()
            assert odd is not None
            odd.messages = [{"role": "assistant", "content": "bird"}]
        change(project, automation=AutomationSettings(ready_tasks=24).model_dump())  # every prompt gets its turn
        assert fill(project).state == JobState.SUCCEEDED
        with transaction() as session:
            problem = session.get_one(Prompt, odd.id).problem
        assert problem is not None and problem.startswith("The model cannot read it: the conversation ends in")

    def test_counts_the_prompts_that_give_too_few_different_answers(self, project: Project) -> None:
        change(project, sampling=SamplingSettings(max_new_tokens=1, temperature=0.01).model_dump())
        result = fill(project).result
        assert result is not None and result["passed_over"] > 0
        assert result["passed_over"] + result["made"] == count_prompts(project)
        assert fill(project).result == result | {"made": 0}
        with transaction() as session:
            round_id = checkpoints.open_round(session, project.id).id
            assert sampling.count_passed_over(session, project, round_id) == result["passed_over"]
            assert sampling.count_passed_over(session, project, round_id + 1) == 0
        answering._loaded.clear()  # a worker that has just started knows of none
        assert fill(project).result == result | {"made": 0}

    def test_fewer_answers_a_task_bring_passed_over_prompts_back(self, project: Project) -> None:
        answering._loaded.clear()
        fill(project)
        with transaction() as session:
            prompts = session.scalars(select(Prompt.id)).all()
        (known,) = answering._loaded[0]._passed_over.values()
        known.update(prompts)
        change(project, automation=AutomationSettings(ready_tasks=24).model_dump())
        of_three = fill(project).result
        assert of_three is not None and (of_three["made"], of_three["passed_over"]) == (0, len(prompts))
        change(project, outputs_per_task=2)
        of_two = fill(project).result
        assert of_two is not None and of_two["made"] > 0 and of_two["passed_over"] < len(prompts)

    def test_fails_with_the_mend_where_no_prompt_could_ever_fit(self, project: Project) -> None:
        change(project, sampling=SamplingSettings(max_new_tokens=64).model_dump())
        job = fill(project)
        assert job.state == JobState.FAILED
        assert job.error is not None and "Lower it in the project's settings" in job.error

    def test_passes_over_prompts_that_cannot_be_answered_in_different_ways(self, project: Project) -> None:
        change(project, sampling=SamplingSettings(max_new_tokens=1, top_p=1e-6).model_dump())
        job = fill(project)
        assert job.state == JobState.SUCCEEDED
        assert job.result is not None and job.result["made"] == 0 and job.result["missing"] > 0

    def test_says_what_is_wrong_with_a_model_that_cannot_be_opened(self, project: Project) -> None:
        with transaction() as session:
            session.scalars(select(Checkpoint)).one().sha256 = "0" * 64
        with pytest.raises(Exception, match="0000"):
            fill(project)
        with transaction() as session:
            job = session.scalars(select(Job)).one()
        assert job.state == JobState.FAILED and job.error is not None and "0000" in job.error


class TestShowcase:
    def test_answers_the_held_out_prompts_once_each(self, project: Project) -> None:
        with transaction() as session:
            job = sampling.request_showcase(session, session.scalars(select(Checkpoint)).one())
        showcase(job.id)
        with transaction() as session:
            samples = session.scalars(select(Sample)).all()
            assert session.get_one(Job, job.id).state == JobState.SUCCEEDED
            assert session.scalar(select(func.count()).select_from(Task)) == 0
        assert set(Counter(sample.prompt_id for sample in samples).values()) == {1}
        assert len(samples) == 3, "the held-out prompts of twelve"


class TestModel:
    def test_is_loaded_once_and_let_go_for_another(self, project: Project) -> None:
        fill(project)
        with transaction() as session:
            sha256 = session.scalars(select(Checkpoint)).one().sha256
        first = answering.load(sha256)
        assert answering.load(sha256) is first
        with pytest.raises(Exception, match="0000"):
            answering.load("0" * 64)
        assert answering.load(sha256) is not first

    def test_a_text_with_nul_becomes_one_that_postgres_stores(self) -> None:
        from workers.training.engine import Response

        sample = answering._sample(Response("a\0b", [1, 2], [0.0, 0.0], "stop", 7), sampler_id=1)
        assert (sample.text, sample.length_tokens, sample.seed) == ("a\ufffdb", 2, 7)


class TestCompare:
    def test_two_models_answer_the_same_prompts_and_the_tasks_open(self, project: Project) -> None:
        with transaction() as session:
            base = session.scalars(select(Checkpoint)).one()
            row = session.get_one(Project, project.id)
            sft = checkpoints.register(
                session,
                row,
                kind=CheckpointKind.SFT,
                sha256=base.sha256,
                parents={ParentRole.INIT: base},
                metrics={},
            )
            access = registry.access_of(registry.make_user(session), row, Role.ADMIN)
            evaluation = evaluations.begin(
                session,
                access,
                left=str(sft.uid),
                right=str(base.uid),
                split=Split.TRAIN,
                prompts=5,
                judgements_wanted=3,
                key=uuid.uuid4(),
            )
            job_id = session.scalars(select(Job.id).where(Job.kind == "compare")).one()
        compare(job_id)
        with transaction() as session:
            job = session.get_one(Job, job_id)
            assert (job.state, job.error) == (JobState.SUCCEEDED, None)
            stored = session.get_one(Evaluation, evaluation.id)
            found = session.scalars(select(Task).where(Task.evaluation_id == evaluation.id)).all()
            assert stored.state == EvaluationState.OPEN and stored.result is not None
            assert len(found) + sum(stored.result.values()) == 5 and found
            assert {(task.kind, task.purpose, task.judgements_wanted) for task in found} == {
                (TaskKind.COMPARE, Purpose.EVALUATE, 3)
            }
            sides = session.execute(
                select(TaskOutput.position, Sample.sampler_id).join(Sample, Sample.id == TaskOutput.sample_id)
            ).all()
            assert set(map(tuple, sides)) == {(0, stored.left_id), (1, stored.right_id)}
