"""The pipeline page: the picture's figures, why nothing happens in words, runs, answers side by side, the history."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import db
from app.install import Progress, write_progress
from app.markup import render_markdown
from app.models import Checkpoint, CheckpointKind, JobState, Project, Role, RunKind, Sample, SampleOrigin, Split
from app.schemas.projects import AutomationSettings, SamplingSettings
from app.services import checkpoints, counters, jobs, runs, samplers, sampling
from app.services.runs import Report
from app.settings import get_settings
from tests.app.registry import make_checkpoint, make_project, make_prompt, make_rank_task
from tests.app.visitor import Visitor, make_visitor


@pytest.fixture
def project(client: TestClient, tmp_path: Path) -> Project:
    """A project whose first SFT model answers the prompts; a reward model needs 40 rankings."""
    with db.transaction() as session:
        made, base = make_project(session, tmp_path)
        made.automation = AutomationSettings(judgements_per_reward_model=40).model_dump()
        sft = make_checkpoint(session, made, tmp_path, CheckpointKind.SFT, init=base)
        checkpoints.promote(session, None, made, sft)
        counters.add(session, made.id, counters.DEMONSTRATIONS, 300)
        counters.add(session, made.id, counters.JUDGEMENTS, 28)
        for _ in range(3):
            make_rank_task(session, made, make_prompt(session, made))
        return made


@pytest.fixture
def admin(client: TestClient, project: Project) -> Visitor:
    """Somebody who may promote."""
    return make_visitor(client, project, Role.ADMIN)


def read(visitor: Visitor, project: Project) -> str:
    page = visitor.get(f"/p/{project.slug}/pipeline")
    assert page.status_code == 200
    return " ".join(page.text.split())


def install(progress: Progress, **processes: str) -> None:
    """What the supervisor writes down."""
    folder = get_settings().home / "run"
    folder.mkdir(parents=True, exist_ok=True)
    entries = {name.replace("_", "-"): {"pid": 1, "state": state} for name, state in processes.items()}
    (folder / "status.json").write_text(json.dumps({"state": "running", "processes": entries}))
    write_progress(get_settings().home, progress)


class TestShow:
    def test_the_picture_has_the_figures(self, project: Project, admin: Visitor) -> None:
        page = read(admin, project)
        for words in ("Round 2", "28 <small>of 40", "ranking tasks ready, drawn from", "300 so far"):
            assert words in page

    def test_says_how_many_rankings_are_missing(self, project: Project, admin: Visitor) -> None:
        assert "The reward model starts at 40 rankings: 12 to go." in read(admin, project)

    def test_says_which_reward_model_a_policy_waits_for(self, project: Project, admin: Visitor, tmp_path: Path) -> None:
        with db.transaction() as session:
            sft = checkpoints.active_policy(session, project.id)
            reward = make_checkpoint(session, project, tmp_path, CheckpointKind.REWARD, init=sft)
            checkpoints.activate_reward(session, project, reward)
        assert "until a reward model fitted from" not in read(admin, project)
        with db.transaction() as session:
            make_checkpoint(session, project, tmp_path, CheckpointKind.SFT, init=sft)
        assert "until a reward model fitted from SFT 2 is active; R 1 was fitted from another model." in read(
            admin, project
        )

    def test_says_that_automation_is_off(self, project: Project, admin: Visitor) -> None:
        with db.transaction() as session:
            session.get_one(Project, project.id).automation = AutomationSettings(is_on=False).model_dump()
        page = read(admin, project)
        assert "Automation is off" in page
        for promise in ("The reward model starts at", "A policy is trained when"):
            assert promise not in page

    def test_says_how_many_prompts_are_passed_over(self, project: Project, admin: Visitor) -> None:
        with db.transaction() as session:
            round_id = checkpoints.open_round(session, project.id).id
            job = sampling.request_tasks(session, project)
            outputs = project.outputs_per_task
            job.state, job.result = JobState.SUCCEEDED, {"round": round_id, "outputs": outputs, "passed_over": 2}
        page = read(admin, project)
        assert "2 prompts are passed over in this round" in page
        assert "fewer answers per task brings them back" in page

    def test_counts_the_prompts_that_may_be_sampled(self, project: Project, admin: Visitor) -> None:
        assert '<p class="station-figure">3</p> <p class="station-words">what people may ask' in read(admin, project)
        with db.transaction() as session:
            make_prompt(session, project, "Kept for the last test.", Split.TEST)
            make_prompt(session, project, "Too long.").problem = "It has 900 tokens."
            make_prompt(session, project, "Held out.", Split.VALID)
        assert '<p class="station-figure">4</p> <p class="station-words">what people may ask' in read(admin, project)

    def test_says_how_far_the_worker_half_is_installed(self, project: Project, admin: Visitor) -> None:
        install(
            Progress("downloading", package="torch", percent=43, message="Downloading torch (200 MB)"),
            install="running",
        )
        page = read(admin, project)
        assert "The worker half is installing" in page
        assert "torch: 43 %" in page

    def test_says_why_the_installation_failed(self, project: Project, admin: Visitor) -> None:
        install(Progress("failed", message="No space left on device."), install="waiting")
        assert "No space left on device." in read(admin, project)

    def test_names_the_workers_that_are_down(self, project: Project, admin: Visitor) -> None:
        install(Progress("done", percent=100), worker_sample="running", worker_train="waiting", beat="running")
        assert "Not running just now: worker-train." in read(admin, project)

    def test_says_that_workers_were_switched_off(self, project: Project, admin: Visitor) -> None:
        install(Progress("done", percent=100), web="running")
        page = read(admin, project)
        assert "started with --no-workers" in page
        assert "Not running just now" not in page

    def test_a_candidate_is_offered_for_promotion(self, project: Project, admin: Visitor, tmp_path: Path) -> None:
        with db.transaction() as session:
            sft = session.get_one(Checkpoint, checkpoints.active_policy(session, project.id).id)
            make_checkpoint(
                session, project, tmp_path, CheckpointKind.POLICY, init=sft, metrics={"heldout_kl": 3.21, "score": 1.5}
            )
        page = read(admin, project)
        assert "Promote P 1" in page
        assert "3.21 nats" in page

    def test_the_first_sft_model_is_not_offered_since_it_takes_over_by_itself(
        self, client: TestClient, tmp_path: Path
    ) -> None:
        with db.transaction() as session:
            young, base = make_project(session, tmp_path)
            make_checkpoint(session, young, tmp_path, CheckpointKind.SFT, init=base)
        assert "Promote SFT 1" not in read(make_visitor(client, young, Role.ADMIN), young)
        with db.transaction() as session:
            session.get_one(Project, young.id).automation = AutomationSettings(is_on=False).model_dump()
        assert "Promote SFT 1" in read(make_visitor(client, young, Role.ADMIN), young)

    def test_who_may_not_promote_sees_no_button(self, client: TestClient, project: Project, tmp_path: Path) -> None:
        with db.transaction() as session:
            sft = session.get_one(Checkpoint, checkpoints.active_policy(session, project.id).id)
            make_checkpoint(session, project, tmp_path, CheckpointKind.POLICY, init=sft)
        page = read(make_visitor(client, project, Role.RESEARCHER), project)
        assert "P 1" in page
        assert "Promote P 1" not in page

    def test_a_run_under_way_shows_progress_and_curves(self, project: Project, admin: Visitor) -> None:
        with db.transaction() as session:
            run = runs.request_run(session, project, kind=RunKind.REWARD, reason="28 new judgements.")
        with db.transaction() as session:
            claim = jobs.claim(session, run.job_id)
            assert claim is not None
            runs.save_report(session, claim, run.id, Report(metrics={1: {"loss": 0.7}}, step=1, total=4, eta_seconds=9))
        page = read(admin, project)
        for words in ("28 new judgements.", "Step 1 of 4", "about 9 s left", "training now · 25 %", "metrics.json"):
            assert words in page

    def test_a_failed_run_is_told_with_its_error(self, project: Project, admin: Visitor) -> None:
        with db.transaction() as session:
            run = runs.request_run(session, project, kind=RunKind.REWARD, reason="")
        with db.transaction() as session:
            claim = jobs.claim(session, run.job_id)
            assert claim is not None
            jobs.fail(session, claim, "The loss is not a number.")
        assert "The loss is not a number." in read(admin, project)

    def test_answers_stand_side_by_side_and_are_escaped(self, project: Project, admin: Visitor) -> None:
        with db.transaction() as session:
            prompt = make_prompt(session, project, "Name a <bird>.", split=Split.VALID)
            for model, text in (
                (checkpoints.latest(session, project.id, CheckpointKind.BASE), "a hen and a"),
                (checkpoints.latest(session, project.id, CheckpointKind.SFT), "A <script>hen</script>."),
            ):
                assert model is not None
                sampler = samplers.ensure_sampler(session, project, model, SamplingSettings())
                session.add(
                    Sample(
                        project_id=project.id,
                        prompt_id=prompt.id,
                        origin=SampleOrigin.MODEL,
                        sampler_id=sampler.id,
                        text=text,
                        html=render_markdown(text),
                        finish_reason="length" if model.kind == "base" else "stop",
                    )
                )
        page = read(admin, project)
        for words in ("Name a &lt;bird&gt;.", "a hen and a", "Cut off at the length limit."):
            assert words in page
        assert "<script>hen" not in page

    def test_the_history_has_every_round(self, project: Project, admin: Visitor) -> None:
        history = read(admin, project).split("Round by round")[1]
        assert history.index("SFT 1") < history.index("Base")

    @pytest.mark.parametrize("block", ["live", "record"])
    def test_htmx_gets_a_block_that_asks_again(self, project: Project, admin: Visitor, block: str) -> None:
        text = admin.get(f"/p/{project.slug}/pipeline?block={block}", **{"HX-Request": "true"}).text
        assert text.lstrip().startswith(f'<div id="{block}"')
        assert f'pipeline?block={block}" hx-trigger="every' in text
        assert "<html" not in text

    def test_an_unknown_block_is_refused(self, project: Project, admin: Visitor) -> None:
        assert admin.get(f"/p/{project.slug}/pipeline?block=title").status_code == 422

    def test_a_visitor_is_sent_to_sign_in_and_a_labeller_refused(self, client: TestClient, project: Project) -> None:
        assert client.get(f"/p/{project.slug}/pipeline").status_code == 303
        assert make_visitor(client, project, Role.LABELLER).get(f"/p/{project.slug}/pipeline").status_code == 403
