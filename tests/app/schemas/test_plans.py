"""What a plan is told: shares that come out, and what counts survive being stored."""

import uuid
from typing import Any

import pytest
from pydantic import ValidationError

from app.models import Split, Stream
from app.schemas.plans import EndpointForm, Lane, PartCounts, PlanCounts, PlanSettings, read_plan


def told(**others: Any) -> PlanSettings:
    part = {"kind": "checkpoint", "source": uuid.uuid4(), "responses": 2}
    return PlanSettings.model_validate({"parts": [part]} | others)


def judged(**others: Any) -> PlanSettings:
    return told(order="disagreement", first_judge=uuid.uuid4(), second_judge=uuid.uuid4(), **others)


class TestLanes:
    @pytest.mark.parametrize("tasks", [1, 2, 3, 7, 10, 99, 1000])
    @pytest.mark.parametrize("control", [0, 0.05, 0.2, 0.5, 1])
    @pytest.mark.parametrize("valid", [0, 0.2, 0.5, 1])
    def test_add_up_to_the_tasks_in_the_shares(self, tasks: int, control: float, valid: float) -> None:
        lanes = told(tasks=tasks, control_share=control, valid_share=valid).lanes()
        assert sum(lanes.values()) == tasks and all(count > 0 for count in lanes.values())
        held_out = lanes.get(Lane(Stream.CONTROL, Split.VALID), 0)
        controls = lanes.get(Lane(Stream.CONTROL, Split.TRAIN), 0)
        assert abs(held_out - valid * tasks) <= 0.5
        assert 0 <= controls - control * (tasks - held_out) < 1
        assert Lane(Stream.CHOSEN, Split.VALID) not in lanes, (
            "reward accuracy would move to the prompts that were chosen"
        )
        assert not any(lane.split == Split.TEST for lane in lanes)

    def test_a_small_share_is_never_none(self) -> None:
        lanes = told(tasks=10, order="never_ranked", control_share=0.05, valid_share=0).lanes()
        assert lanes[Lane(Stream.CONTROL, Split.TRAIN)] == 1
        assert told(tasks=100, control_share=0.05, valid_share=0).lanes()[Lane(Stream.CONTROL, Split.TRAIN)] == 5

    def test_disagreement_always_has_its_control_and_something_to_compare(self) -> None:
        assert judged(tasks=5, control_share=0.05, valid_share=0).lanes() == {
            Lane(Stream.CONTROL, Split.TRAIN): 1,
            Lane(Stream.CHOSEN, Split.TRAIN): 4,
        }
        assert judged(tasks=2, control_share=1, valid_share=0).lanes()[Lane(Stream.CHOSEN, Split.TRAIN)] == 1

    def test_disagreement_without_a_control_stream_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="at least 5%"):
            judged(tasks=100, control_share=0.04)
        with pytest.raises(ValidationError, match="at least 5%"):
            told(tasks=100, control_share=0, order="never_ranked")
        with pytest.raises(ValidationError, match="not held out"):
            judged(tasks=5, valid_share=0.8)
        with pytest.raises(ValidationError, match="2 tasks at least"):
            judged(tasks=1)
        judge = uuid.uuid4()
        with pytest.raises(ValidationError, match="two different reward models"):
            told(order="disagreement", first_judge=judge, second_judge=judge)


class TestPaid:
    def test_an_endpoint_is_asked_no_more_often_than_its_worker_can_wait_for(self) -> None:
        part = {"kind": "endpoint", "source": uuid.uuid4(), "responses": 5, "best_of": 13, "reward": uuid.uuid4()}
        with pytest.raises(ValidationError, match="65 requests for one task"):
            PlanSettings.model_validate({"parts": [part]})
        PlanSettings.model_validate({"parts": [part | {"kind": "checkpoint"}]})

    @pytest.mark.parametrize(("tasks", "most"), [(1, 6), (2, 8), (100, 300)])
    def test_repetitions_and_failures_are_within_what_is_shown(self, tasks: int, most: int) -> None:
        part = {"kind": "endpoint", "source": uuid.uuid4(), "responses": 2}
        plan = PlanSettings.model_validate({"parts": [part], "tasks": tasks})
        assert plan.most_responses(plan.parts[0]) == most

    def test_the_fingerprint_is_of_everything_told(self) -> None:
        plan = told(tasks=3)
        again = PlanSettings.model_validate(plan.model_dump(mode="json"))
        assert plan.fingerprint == again.fingerprint != plan.model_copy(update={"tasks": 4}).fingerprint


class TestReadPlan:
    def test_a_form_becomes_a_plan_and_empty_parts_are_left_out(self) -> None:
        model, outside, reward, pool = (str(uuid.uuid4()) for _ in range(4))
        read = read_plan(
            {
                "parts-0-source": [f"checkpoint:{model}"],
                "parts-0-responses": ["2"],
                "parts-0-best_of": ["4"],
                "parts-0-reward": [reward],
                "parts-1-source": [""],
                "parts-1-responses": ["1"],
                "parts-3-source": [f"endpoint:{outside}"],
                "parts-3-responses": ["1"],
                "parts-3-prefix": [" Say:\r\n"],
                "tasks": ["12"],
                "valid_share": ["12.5"],
                "control_share": [""],
                "pools": [pool],
                "categories": ["open_qa", "chat"],
            }
        )
        assert read.problems == {} and read.settings is not None
        settings = read.settings
        assert [(str(part.source), part.kind, part.responses) for part in settings.parts] == [
            (model, "checkpoint", 2),
            (outside, "endpoint", 1),
        ]
        assert settings.parts[1].prefix == " Say:\n" and str(settings.parts[0].reward) == reward
        assert (settings.outputs, settings.tasks, settings.valid_share, settings.control_share) == (3, 12, 0.125, 0.2)
        assert PlanSettings.model_validate(settings.model_dump(mode="json")) == settings

    def test_a_reward_model_that_chooses_among_one_is_no_part_of_the_sampler(self) -> None:
        part = {"kind": "checkpoint", "source": uuid.uuid4(), "responses": 2, "reward": uuid.uuid4()}
        assert PlanSettings.model_validate({"parts": [part]}).parts[0].reward is None

    def test_nothing_at_all_is_said_to_be_so(self) -> None:
        assert read_plan({}).problems == {"parts": "Choose at least one model that answers."}


class TestPlanCounts:
    def test_come_back_as_they_were_stored(self) -> None:
        counts = PlanCounts({"control/train": 2, "chosen/valid": 3}, 3, 2, 9.5, 4, 2.5, [PartCounts(1, 2, 3, 0.5, 6)])
        again = PlanCounts.from_json(counts.to_json())
        assert again == counts and again.tasks == 5 and again.of_stream("chosen") == 3
        assert PlanCounts.from_json({}) == PlanCounts()


def test_a_key_is_not_shown_by_what_holds_it() -> None:
    form = EndpointForm(name="Big", url="https://x.example/v1", model="m", key="sk-secret")
    assert "sk-secret" not in repr(form)
