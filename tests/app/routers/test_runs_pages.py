"""Runs over HTTP: the list, a run in each state with its curves, and starting, cancelling and retrying by hand."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import db
from app.models import JobState, Project, Role, Run, RunKind
from app.queries import runs as queries
from app.services import counters, jobs, runs
from app.services.jobs import Claim
from app.services.runs import Report
from app.web.curves import MOST_STEPS
from tests.app.registry import make_project, put_model
from tests.app.visitor import Visitor, make_visitor


@pytest.fixture
def project(client: TestClient, tmp_path: Path) -> Project:
    """A project with demonstrations to learn from."""
    with db.transaction() as session:
        made, _ = make_project(session, tmp_path)
        counters.add(session, made.id, counters.DEMONSTRATIONS, 12)
        return made


@pytest.fixture
def researcher(client: TestClient, project: Project) -> Visitor:
    """Somebody who may train."""
    return make_visitor(client, project, Role.RESEARCHER)


def begin(project: Project, *, steps: int = 3) -> tuple[Run, Claim]:
    """A run that a worker has begun, with a few steps reported."""
    with db.transaction() as session:
        run = runs.request_run(session, project, kind=RunKind.SFT, reason="The first SFT model.")
    with db.transaction() as session:
        claim = jobs.claim(session, run.job_id)
        assert claim is not None
        metrics = {step: {"loss": 4.0 / step, "grad_norm": 1.0, "odd_number": None} for step in range(1, steps + 1)}
        report = Report(metrics=metrics, logs=["12 demonstrations"], step=steps, total=steps * 2, eta_seconds=65.0)
        runs.save_report(session, claim, run.id, report)
    return run, claim


def state_of(project: Project, run: Run) -> JobState:
    with db.transaction() as session:
        found = queries.find_run(session, project.id, run.uid)
        assert found is not None
        return found.job.state


class TestIndex:
    def test_says_what_will_be_here(self, project: Project, researcher: Visitor) -> None:
        page = researcher.get(f"/p/{project.slug}/runs")
        assert page.status_code == 200
        assert "No run yet" in page.text

    def test_lists_runs_with_their_state(self, project: Project, researcher: Visitor) -> None:
        begin(project)
        page = researcher.get(f"/p/{project.slug}/runs")
        assert "running" in page.text
        assert "The first SFT model." in page.text

    def test_a_labeller_may_not_look(self, client: TestClient, project: Project) -> None:
        assert make_visitor(client, project, Role.LABELLER).get(f"/p/{project.slug}/runs").status_code == 403


class TestStart:
    def test_starts_a_run_and_shows_it(self, project: Project, researcher: Visitor) -> None:
        answer = researcher.post(f"/p/{project.slug}/runs", kind="sft")
        assert answer.status_code == 303
        page = researcher.get(answer.headers["location"])
        assert "Waits for the training worker" in page.text
        assert f"{researcher.user.name} asked for it." in page.text

    def test_says_why_it_cannot_start(self, project: Project, researcher: Visitor) -> None:
        answer = researcher.post(f"/p/{project.slug}/runs", kind="ppo")
        assert answer.status_code == 409
        assert "starts from an SFT model" in answer.text

    def test_a_second_run_of_a_kind_is_refused(self, project: Project, researcher: Visitor) -> None:
        researcher.post(f"/p/{project.slug}/runs", kind="sft")
        answer = researcher.post(f"/p/{project.slug}/runs", kind="sft")
        assert answer.status_code == 409
        assert "is under way" in answer.text

    def test_an_unknown_kind_is_refused(self, project: Project, researcher: Visitor) -> None:
        assert researcher.post(f"/p/{project.slug}/runs", kind="dpo").status_code == 422

    def test_a_form_without_its_token_is_refused(self, client: TestClient, project: Project) -> None:
        person = make_visitor(client, project, Role.RESEARCHER)
        forged = Visitor(client, person.user, person.token, "")
        assert forged.post(f"/p/{project.slug}/runs", kind="sft").status_code == 403


class TestShow:
    def test_a_running_run_has_progress_numbers_and_words(self, project: Project, researcher: Visitor) -> None:
        run, _ = begin(project)
        page = researcher.get(f"/p/{project.slug}/runs/{run.uid}").text
        for words in ("Step 3 of 6", "about 1 min 5 s left", "12 demonstrations", "Training loss", "Cancel run"):
            assert words in page

    def test_htmx_gets_the_block_that_changes(self, project: Project, researcher: Visitor) -> None:
        run, _ = begin(project)
        block = researcher.get(f"/p/{project.slug}/runs/{run.uid}?block=live", **{"HX-Request": "true"}).text
        assert block.lstrip().startswith('<div id="run" hx-get=')
        assert "<html" not in block

    def test_a_failed_run_says_why_and_can_be_retried(self, project: Project, researcher: Visitor) -> None:
        run, claim = begin(project)
        with db.transaction() as session:
            jobs.fail(session, claim, "The machine ran out of <memory>.")
        page = researcher.get(f"/p/{project.slug}/runs/{run.uid}").text
        assert "The machine ran out of &lt;memory&gt;." in page
        assert "hx-trigger" not in page.split("<main", 1)[1]
        assert researcher.post(f"/p/{project.slug}/runs/{run.uid}/retry").status_code == 303
        assert state_of(project, run) == JobState.QUEUED

    def test_a_finished_run_links_the_model_it_made(
        self, project: Project, researcher: Visitor, tmp_path: Path
    ) -> None:
        run, claim = begin(project)
        with db.transaction() as session:
            made = runs.finish(session, claim, sha256=put_model(tmp_path / "made"), metrics={"valid_loss": 0.5})
        page = researcher.get(f"/p/{project.slug}/runs/{run.uid}").text
        assert f"/checkpoints/{made.uid}" in page
        assert "0.500 nats" in page

    def test_another_projects_run_is_not_found(self, project: Project, researcher: Visitor, tmp_path: Path) -> None:
        with db.transaction() as session:
            other, _ = make_project(session, tmp_path)
            counters.add(session, other.id, counters.DEMONSTRATIONS, 1)
        run, _ = begin(other)
        for path in ("", "/metrics.json"):
            assert researcher.get(f"/p/{project.slug}/runs/{run.uid}{path}").status_code == 404
        for act in ("cancel", "retry"):
            assert researcher.post(f"/p/{project.slug}/runs/{run.uid}/{act}").status_code == 404


class TestMetrics:
    def test_gives_curves_the_telling_ones_first(self, project: Project, researcher: Visitor) -> None:
        run, _ = begin(project)
        data = researcher.get(f"/p/{project.slug}/runs/{run.uid}/metrics.json").json()
        assert (data["is_live"], data["steps"]) == (True, [1, 2, 3])
        assert [curve["name"] for curve in data["curves"]] == ["loss", "odd_number", "grad_norm"]
        loss = data["curves"][0]
        assert loss["values"] == [4.0, 2.0, 4.0 / 3]
        assert (loss["label"], loss["last"]) == ("Training loss", "1.333")
        assert data["curves"][1]["values"] == [None, None, None]

    def test_long_runs_are_thinned_to_what_a_screen_shows(self, project: Project, researcher: Visitor) -> None:
        run, _ = begin(project, steps=1000)
        steps = researcher.get(f"/p/{project.slug}/runs/{run.uid}/metrics.json").json()["steps"]
        assert MOST_STEPS / 2 < len(steps) <= MOST_STEPS
        assert steps[-1] == 1000


class TestCancel:
    def test_a_running_run_is_asked_to_stop(self, project: Project, researcher: Visitor) -> None:
        run, _ = begin(project)
        answer = researcher.post(f"/p/{project.slug}/runs/{run.uid}/cancel", back=f"/p/{project.slug}/pipeline")
        assert answer.headers["location"] == f"/p/{project.slug}/pipeline"
        assert state_of(project, run) == JobState.CANCELLING
        assert "Stopping after the current step" in researcher.get(f"/p/{project.slug}/runs/{run.uid}").text

    def test_a_run_that_is_over_cannot_be_cancelled(self, project: Project, researcher: Visitor) -> None:
        run, claim = begin(project)
        with db.transaction() as session:
            jobs.fail(session, claim, "broken")
        assert researcher.post(f"/p/{project.slug}/runs/{run.uid}/cancel").status_code == 409

    def test_needs_the_right_to_train(self, client: TestClient, project: Project) -> None:
        run, _ = begin(project)
        labeller = make_visitor(client, project, Role.LABELLER)
        assert labeller.post(f"/p/{project.slug}/runs/{run.uid}/cancel").status_code == 403
        assert state_of(project, run) == JobState.RUNNING
