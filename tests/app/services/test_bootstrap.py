"""The first start, and every start after it."""

import json
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import storage
from app.errors import BadInput
from app.models import Demonstration, Prompt, Sample, Task, TaskKind
from app.services import bases, bootstrap, checkpoints, counters, guidelines, projects
from app.settings import Settings
from app.starter import load_starter
from tests.app import registry


def count(session: Session, table: type) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def with_base(settings: Settings, base_model: object) -> Settings:
    return settings.model_copy(update={"base_model": str(base_model)})


def write_base(folder: Path, **config: object) -> Path:
    registry.write_model(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_positions": 256} | config))
    (folder / "tokenizer.json").write_text("{}")
    return folder


class TestStarter:
    def test_a_task_can_be_ranked_at_once(self, session: Session, settings: Settings) -> None:
        made = bootstrap.ensure(session, settings)
        project = made.starter
        assert made.owner.is_owner
        assert count(session, Prompt) == len(load_starter().prompts) >= 2000
        assert count(session, Demonstration) == counters.get(session, project.id, counters.DEMONSTRATIONS) >= 200
        ready = session.scalars(select(Task).where(Task.kind == TaskKind.RANK)).all()
        assert len(ready) >= bootstrap.STARTER_AUTOMATION.ready_tasks
        assert count(session, Sample) == len(ready) * project.outputs_per_task
        assert guidelines.current(session, project.id) is not None
        policy = checkpoints.active_policy(session, project.id)
        assert storage.checkpoint_folder(settings, policy.sha256).is_dir()

    def test_the_shipped_samples_are_of_the_shipped_model(self, session: Session, settings: Settings) -> None:
        made = bootstrap.ensure(session, settings)
        policy = checkpoints.active_policy(session, made.starter.id)
        assert {sample.checkpoint for sample in load_starter().samples} == {policy.sha256}

    def test_a_second_start_changes_nothing(self, session: Session, settings: Settings) -> None:
        first = bootstrap.ensure(session, settings)
        before = [count(session, table) for table in (Prompt, Demonstration, Task, Sample)]
        again = bootstrap.ensure(session, settings)
        assert (again.owner, again.starter) == (first.owner, first.starter)
        assert [count(session, table) for table in (Prompt, Demonstration, Task, Sample)] == before

    def test_it_is_quick(self, session: Session, settings: Settings) -> None:
        begun = time.process_time()
        bootstrap.ensure(session, settings)
        assert time.process_time() - begun < 3


class TestBaseModel:
    def test_a_folder_makes_a_project_of_its_own(self, session: Session, settings: Settings, tmp_path: Path) -> None:
        chosen = with_base(settings, write_base(tmp_path / "My Model"))
        project = bootstrap.ensure(session, chosen).base_project
        assert project is not None
        assert (project.slug, project.name) == ("my-model", "My Model")
        assert projects.find_sampling(project).max_new_tokens == 128
        assert bootstrap.ensure(session, chosen).base_project == project

    def test_what_is_no_part_of_a_model_stays_outside(self, settings: Settings, tmp_path: Path) -> None:
        folder = write_base(tmp_path / "model")
        (folder / "training_args.bin").write_bytes(b"\x80")
        (folder / "run.py").write_text("")
        stored = storage.checkpoint_folder(settings, bases.put_base(with_base(settings, folder)))
        assert sorted(path.name for path in stored.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]

    def test_a_pickle_is_refused(self, settings: Settings, tmp_path: Path) -> None:
        folder = write_base(tmp_path / "model")
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(BadInput, match="pickled weights"):
            bases.put_base(with_base(settings, folder))

    def test_code_is_refused(self, settings: Settings, tmp_path: Path) -> None:
        folder = write_base(tmp_path / "model", auto_map={"AutoModel": "model.Evil"})
        with pytest.raises(BadInput, match="auto_map"):
            bases.put_base(with_base(settings, folder))

    def test_a_classifier_is_refused(self, settings: Settings, tmp_path: Path) -> None:
        folder = write_base(tmp_path / "model", architectures=["GPT2ForSequenceClassification"])
        with pytest.raises(BadInput, match="causal language model"):
            bases.put_base(with_base(settings, folder))

    def test_no_tokenizer_is_said(self, settings: Settings, tmp_path: Path) -> None:
        folder = write_base(tmp_path / "model")
        (folder / "tokenizer.json").unlink()
        with pytest.raises(BadInput, match="tokenizer"):
            bases.put_base(with_base(settings, folder))

    @pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "a/b/c", "nowhere/"])
    def test_a_folder_that_is_not_there_is_said(self, session: Session, settings: Settings, name: str) -> None:
        with pytest.raises(BadInput, match="no such folder"):
            bootstrap.ensure(session, with_base(settings, name))

    def test_a_hub_name_waits_for_the_worker_half(self, session: Session, settings: Settings) -> None:
        made = bootstrap.ensure(session, with_base(settings, "some/model"))
        assert made.is_base_pending
        assert made.base_project is None
