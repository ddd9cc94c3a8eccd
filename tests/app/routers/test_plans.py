"""Pages of sampling plans, as plain forms."""

import re
import uuid
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from app import db
from app.models import (
    AuditEntry,
    Job,
    PlanPrompt,
    Prompt,
    PromptStatus,
    Role,
    SamplingPlan,
    Stream,
    Task,
    TaskState,
)
from app.queries import endpoints
from app.routers import plans as router
from app.schemas.plans import PartCounts, PlanSettings
from app.services import checkpoints, jobs, plan_work
from app.services.tasks import NewSample
from tests.app import registry
from tests.app.queue import Queue, make_queue
from tests.app.ranking_page import take
from tests.app.visitor import Visitor, make_visitor
from workers.simulate.page import parse


@pytest.fixture
def queue(client: TestClient, tmp_path: Path) -> Queue:
    """A project without prompts."""
    with db.transaction() as session:
        return make_queue(session, tmp_path)


@pytest.fixture
def researcher(client: TestClient, queue: Queue) -> Visitor:
    return make_visitor(client, queue.project, Role.RESEARCHER)


def base(queue: Queue) -> str:
    with db.transaction() as session:
        return f"checkpoint:{checkpoints.active_policy(session, queue.project.id).uid}"


def form(queue: Queue, **others: str) -> dict[str, str]:
    sent = {"name": "More birds", "parts-0-source": base(queue), "parts-0-responses": "3", "tasks": "4"}
    return sent | {"order": "random", "control_share": "25", "valid_share": "0"} | others


def page(queue: Queue) -> str:
    return f"/p/{queue.project.slug}/sampling"


def drafted(queue: Queue, researcher: Visitor, **others: str) -> str:
    return researcher.post(page(queue), **form(queue, **others)).headers["location"]


def start(researcher: Visitor, address: str) -> int:
    """Start a draft as its page does; the status of the answer."""
    seen = parse(researcher.get(address).text).form("/start").values["seen"][0]
    return researcher.post(f"{address}/start", seen=seen).status_code


def give_prompts(queue: Queue, count: int = 6) -> None:
    with db.transaction() as session:
        for number in range(count):
            registry.make_prompt(session, queue.project, f"Bird {number}?")


def work_off(queue: Queue, *, tasks: int | None = None) -> None:
    """What a worker does, with responses of its own; up to so many tasks."""
    with db.transaction() as session:
        plan = session.scalars(select(SamplingPlan).order_by(SamplingPlan.id.desc())).first()
        assert plan is not None and plan.job_id is not None
        claim = jobs.claim(session, plan.job_id)
        assert claim is not None
        work = plan_work.load(session, claim)
        chosen = plan_work.next_prompts(session, claim, work, tasks or 100)
        sampler = work.voices[0].sampler.id
        drawn = [
            plan_work.Drawn(one, [NewSample(f"text {at}", sampler, at, 5, "stop") for at in range(3)]) for one in chosen
        ]
        plan_work.store(session, claim, work, drawn, [PartCounts(12, 60, 0, 2.0)], 3.0)
        if tasks is None:
            plan_work.finish(session, claim, work)


class TestIndex:
    def test_says_what_will_be_here(self, queue: Queue, researcher: Visitor) -> None:
        assert "No plan yet" in researcher.get(page(queue)).text

    def test_a_labeller_sees_none_of_it(self, client: TestClient, queue: Queue) -> None:
        ada = make_visitor(client, queue.project, Role.LABELLER)
        assert ada.get(page(queue)).status_code == 403
        assert "/sampling" not in ada.get(f"/p/{queue.project.slug}/").text

    def test_pages_by_key(self, queue: Queue, researcher: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(router, "PAGE_SIZE", 2)
        give_prompts(queue)
        for number in range(3):
            drafted(queue, researcher, name=f"Plan {number}")
        first = researcher.get(page(queue)).text
        assert "Plan 2" in first and "Plan 0" not in first
        older = next(link for link in parse(first).root.all("a") if link.text() == "Older")
        assert "Plan 0" in researcher.get(older.attributes["href"]).text


class TestSave:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"name": " "}, "Give the plan a name of 1 to 80 characters"),
            ({"parts-0-source": ""}, "Choose at least one model that answers"),
            ({"parts-0-source": f"checkpoint:{uuid.uuid4()}"}, "Choose one of the project&#39;s models or endpoints"),
            ({"parts-0-source": "checkpoint:x"}, "valid UUID"),
            ({"parts-0-source": "file:x"}, "&#39;checkpoint&#39; or &#39;endpoint&#39;"),
            ({"parts-0-responses": "1"}, "draw 1 responses a task together; a task shows 2 to 9"),
            ({"parts-0-responses": "ten"}, "valid integer"),
            ({"parts-0-temperature": "0"}, "greater than 0"),
            ({"parts-0-temperature": "nan"}, "finite"),
            ({"parts-0-best_of": "4"}, "Say which reward model chooses the best"),
            ({"parts-0-best_of": "4", "parts-0-reward": str(uuid.uuid4())}, "one of the project&#39;s reward models"),
            ({"order": "disagreement"}, "Choose two different reward models"),
            ({"order": "best"}, "&#39;never_ranked&#39; or &#39;disagreement&#39;"),
            ({"tasks": "0"}, "greater than or equal to 1"),
            ({"tasks": "10001"}, "less than or equal to 10000"),
            ({"control_share": "half"}, "valid number"),
            ({"control_share": "101"}, "less than or equal to 1"),
            ({"pools": str(uuid.uuid4())}, "Choose among the project&#39;s pools"),
            ({"categories": "birds"}, "Input should be"),
            ({"priority": "11"}, "less than or equal to 10"),
        ],
    )
    def test_says_what_cannot_be(self, queue: Queue, researcher: Visitor, wrong: dict[str, str], message: str) -> None:
        give_prompts(queue)
        answered = researcher.post(page(queue), **form(queue) | wrong)
        assert answered.status_code == 422
        assert message in answered.text
        with db.transaction() as session:
            assert session.scalars(select(SamplingPlan)).all() == []

    def test_a_double_click_drafts_one_plan(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        sent = form(queue, idempotency_key=str(uuid.uuid4()))
        first, second = (researcher.post(page(queue), **sent).headers["location"] for _ in range(2))
        assert first == second != researcher.post(page(queue), **sent | {"tasks": "5"}).headers["location"]

    def test_keeps_what_was_typed(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        sent = form(queue, **{"tasks": "0", "parts-0-prefix": "\nSay:\n", "name": "A <b>plan</b>"})
        fields = parse(researcher.post(page(queue), **sent).text).form("/sampling").values
        assert fields["name"] == ("A <b>plan</b>",) and fields["parts-0-source"] == (base(queue),)
        assert fields["parts-0-prefix"] == ("\nSay:\n",)

    def test_the_parts_left_empty_keep_their_places_in_what_is_said(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        sent = form(queue, **{"parts-2-source": base(queue), "parts-2-top_p": "2"})
        shown = parse(researcher.post(page(queue), **sent).text)
        assert shown.root.first(id="parts-2-top_p-problem") and not shown.root.first(id="parts-1-top_p-problem")

    def test_no_prompt_that_matches_is_said(self, queue: Queue, researcher: Visitor) -> None:
        assert "No prompt matches" in researcher.post(page(queue), **form(queue)).text


class TestDraft:
    def test_shows_the_cost_and_starts_nothing(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        address = drafted(queue, researcher)
        text = researcher.get(address).text
        assert "Nothing is drawn before you start it" in text
        assert text.count("not known yet") == 3, "tokens, time, and people's time"
        assert f"{4 * 3 * 512:,}" in text
        with db.transaction() as session:
            assert session.scalars(select(Job)).all() == []

    def test_says_where_prompts_are_short(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue, 2)
        assert "Of the split train 2 prompts match and 4 are wanted" in researcher.get(drafted(queue, researcher)).text

    def test_is_changed_in_place(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        address = drafted(queue, researcher)
        uid = address.rpartition("/")[2]
        shown = parse(researcher.get(f"{page(queue)}/new?like={uid}").text).form("/sampling")
        assert shown.values["draft"] == (uid,) and shown.values["tasks"] == ("4",)
        assert shown.values["control_share"] == ("25",)
        assert researcher.post(page(queue), **form(queue, tasks="5", draft=uid)).headers["location"] == address
        with db.transaction() as session:
            (plan,) = session.scalars(select(SamplingPlan)).all()
        assert PlanSettings.model_validate(plan.settings).tasks == 5

    def test_is_discarded(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        address = drafted(queue, researcher)
        assert researcher.post(parse(researcher.get(address).text).form("/discard").action).status_code == 303
        assert researcher.get(address).status_code == 404


class TestRun:
    def test_from_a_click_to_the_report(self, queue: Queue, researcher: Visitor, client: TestClient) -> None:
        give_prompts(queue)
        address = drafted(queue, researcher)
        shown = parse(researcher.get(address).text).form("/start")
        for _ in "a double click":
            assert researcher.post(shown.action, seen=shown.values["seen"][0]).headers["location"] == address
        with db.transaction() as session:
            assert session.scalars(select(Job.kind)).all() == ["sample_plan"]
        assert "Waits for the worker" in researcher.get(address).text
        assert researcher.post(f"{address}/discard").status_code == 409
        work_off(queue)
        text = researcher.get(address).text
        assert "Done: 4 tasks are in the queue" in text
        assert "drawn at random from all prompts" in text
        assert "12" in text and "60" in text and "30" in text  # responses drawn, tokens, tokens a second
        assert researcher.get(f"{address}?block=live").text.lstrip().startswith('<div id="plan"')
        assert "4 of 4" in researcher.get(page(queue)).text
        with db.transaction() as session:
            acts = session.scalars(select(AuditEntry.action).where(AuditEntry.subject_kind == "plan")).all()
        assert acts == ["create plan", "start plan"]
        again = parse(researcher.get(f"{page(queue)}/new?like={address.rpartition('/')[2]}").text).form("/sampling")
        assert "draft" not in again.values

    def test_a_plan_that_was_changed_meanwhile_shows_its_new_cost_first(
        self, queue: Queue, researcher: Visitor
    ) -> None:
        give_prompts(queue)
        address = drafted(queue, researcher)
        shown = parse(researcher.get(address).text).form("/start")
        researcher.post(page(queue), **form(queue, tasks="5", draft=address.rpartition("/")[2]))
        for seen in (shown.values["seen"][0], ""):
            refused = researcher.post(shown.action, seen=seen)
            assert refused.status_code == 409
            assert "was changed since its cost was shown" in refused.text and f"{5 * 3 * 512:,}" in refused.text
        with db.transaction() as session:
            assert session.scalars(select(Job)).all() == []
            acts = session.scalars(select(AuditEntry.action).where(AuditEntry.subject_kind == "plan")).all()
        assert acts == ["create plan", "change plan"]
        now = parse(refused.text).form("/start")
        assert researcher.post(now.action, seen=now.values["seen"][0]).headers["location"] == address

    def test_half_way_it_shows_how_long_it_takes_still(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        address = drafted(queue, researcher)
        start(researcher, address)
        work_off(queue, tasks=2)
        assert "2 of 4 tasks · about 3 s left" in researcher.get(address).text

    def test_is_stopped_and_gone_on_with(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        address = drafted(queue, researcher)
        assert researcher.post(f"{address}/cancel").status_code == 409
        assert researcher.post(f"{address}/retry").status_code == 409
        start(researcher, address)
        assert (
            researcher.post(parse(researcher.get(address).text).form("/cancel").action).headers["location"] == address
        )
        assert "Stopped. The tasks made stay" in researcher.get(address).text
        assert researcher.post(f"{address}/cancel").status_code == 303, "it is stopped, as was wanted"
        again = parse(researcher.get(address).text).form("/retry").action
        assert [researcher.post(again).status_code for _ in range(2)] == [303] * 2
        work_off(queue)
        assert "Done: 4 tasks" in researcher.get(address).text

    def test_what_failed_says_why(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        address = drafted(queue, researcher)
        start(researcher, address)
        with db.transaction() as session:
            claim = jobs.claim(session, session.scalars(select(Job.id)).one())
            assert claim is not None
            jobs.fail(session, claim, "The files are gone.")
        text = researcher.get(address).text
        assert "The files are gone." in text and "makes none of them twice" in text

    def test_its_open_tasks_are_withdrawn(self, client: TestClient, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        address = drafted(queue, researcher)
        start(researcher, address)
        assert researcher.post(f"{address}/withdraw").status_code == 409
        work_off(queue)
        ada = make_visitor(client, queue.project, Role.LABELLER)
        ada.post(f"/p/{queue.project.slug}/rank/next")
        shown = parse(researcher.get(f"{address}?block=live").text)
        assert researcher.post(shown.form("/withdraw").action).status_code == 303
        with db.transaction() as session:
            assert set(session.scalars(select(Task.state))) == {TaskState.RETIRED}
        assert "A task you had begun was withdrawn" in ada.get(f"/p/{queue.project.slug}/").text
        assert parse(researcher.get(address).text).find_form("/withdraw") is None

    def test_a_model_that_is_gone_is_said_at_the_start(self, queue: Queue, researcher: Visitor) -> None:
        give_prompts(queue)
        with db.transaction() as session:
            endpoint = registry.make_endpoint(session, queue.project)
        address = drafted(queue, researcher, **{"parts-0-source": f"endpoint:{endpoint.uid}"})
        with db.transaction() as session:
            endpoints.remove(session, endpoints.get(session, queue.project.id, endpoint.id))
        assert start(researcher, address) == 422


class TestBlindness:
    def test_a_labeller_cannot_tell_stream_or_sampler(
        self, client: TestClient, queue: Queue, researcher: Visitor
    ) -> None:
        """Pages of control tasks and of chosen ones are the same to the last sign but for names, prompts and order."""
        give_prompts(queue)
        start(researcher, drafted(queue, researcher, control_share="50"))
        work_off(queue)
        ada = make_visitor(client, queue.project, Role.LABELLER)
        pages: dict[Stream, set[str]] = {stream: set() for stream in Stream}
        for _ in range(4):
            path = take(ada, queue)
            with db.transaction() as session:
                task = session.scalars(select(Task).where(Task.uid == uuid.UUID(path.rpartition("/")[2]))).one()
            assert task.stream is not None
            text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|Bird \d|text \d|\d+ ?%|\d+ of \d+", "#", ada.get(path).text)
            pages[task.stream].add(re.sub(r'value="\d{10,}[^"]*"', "#", text))
            assert ada.post(f"{path}/skip", reason="other").status_code == 303
        assert pages[Stream.CONTROL] == pages[Stream.CHOSEN] and len(pages[Stream.CHOSEN]) == 1


def test_prompts_taken_out_meanwhile_are_passed_over(queue: Queue, researcher: Visitor) -> None:
    give_prompts(queue)
    address = drafted(queue, researcher)
    start(researcher, address)
    with db.transaction() as session:
        claim = jobs.claim(session, session.scalars(select(Job.id)).one())
        assert claim is not None
        work = plan_work.load(session, claim)
        chosen = plan_work.next_prompts(session, claim, work, 2)
    with db.transaction() as session:
        session.get_one(Prompt, chosen[0].prompt.id).status = PromptStatus.RETIRED
    with db.transaction() as session:
        sampler = work.voices[0].sampler.id
        drawn = [
            plan_work.Drawn(one, [NewSample(f"text {at}", sampler, at, 5, "stop") for at in range(3)]) for one in chosen
        ]
        counts = plan_work.store(session, claim, work, drawn, [PartCounts()], 1.0)
        assert (counts.tasks, counts.passed) == (1, 1)
        assert session.scalar(select(func.count()).select_from(PlanPrompt).where(PlanPrompt.problem.is_not(None))) == 1
    text = researcher.get(f"{address}?block=live").text
    assert "It was taken out of the work meanwhile" in text
    assert chosen[0].prompt.messages[-1]["content"] not in text, "nobody is shown what was taken out"
