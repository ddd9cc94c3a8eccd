"""A project on a model of a few thousand weights, and real workers over it: what the tests of background work share."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import storage
from app.db import transaction
from app.models import Category, Cohort, Job, JobState, Membership, Project, Role, Split, TaskKind
from app.permissions import Access
from app.processes import end
from app.schemas.projects import AutomationSettings, SamplingSettings
from app.schemas.prompts import PromptIn
from app.services import demonstrations, judgements, projects, prompts, tasks
from app.settings import get_settings
from tests.app import registry
from tests.app.queue import rank, take
from workers.tasks.trainer import CODE

CONTEXT = 64

CONFIG = """
[sft]
epochs = 2
batch_size = 8
lr = 1e-3
[reward]
batch_size = 4
lr = 1e-3
"""


def write_base(folder: Path) -> Path:
    """A Llama of two layers, width 32, with random weights and a byte-level tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from workers.training.base import train_tokenizer

    tokenizer = train_tokenizer(["Name a bird that swims.", "A duck, or a goose."], 270)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_project(
    session: Session,
    base: Path,
    *,
    automation: AutomationSettings | None = None,
    config: str = CONFIG,
    demonstrations_count: int = 12,
    prompts_count: int = 12,
) -> Project:
    """A project on the model in `base`: prompts, every fourth held out, and demonstrations of some."""
    sha256 = storage.put_checkpoint(get_settings(), base)
    project = projects.create_project(
        session,
        slug="tiny",
        name="Tiny",
        base=projects.register_base(session, name="tiny", source="test", sha256=sha256),
        sampling=SamplingSettings(max_new_tokens=12, valid_share=0.25),
        automation=automation or AutomationSettings(ready_tasks=8, judgements_per_reward_model=4),
        outputs_per_task=3,
        training_config=config,
        actor=None,
    )
    categories = list(Category)
    rows = [
        PromptIn(
            messages=({"role": "user", "content": f"Bird {number}?"},),
            category=categories[number % len(categories)],
            source=f"source {number}",
            split=Split.VALID if number % 4 == 3 else Split.TRAIN,
            key=str(number),
        )
        for number in range(prompts_count)
    ]
    ids = prompts.import_prompts(session, project, pool="birds", rows=rows).ids
    answers = (
        demonstrations.NewDemonstration(ids[str(number % prompts_count)], f"A duck, number {number}.")
        for number in range(demonstrations_count)
    )
    demonstrations.add_many(session, project, answers)
    return project


def labeller(session: Session, project: Project, name: str = "Ada", *, cohort: Cohort = Cohort.TRAINING) -> Access:
    """A member of the project who labels."""
    user = registry.make_user(session, name=name)
    roles = [Role.LABELLER.value, Role.ADMIN.value]
    session.add(Membership(project_id=project.id, user_id=user.id, roles=roles, cohort=cohort))
    session.flush()
    return Access(user=user, project=project, roles=frozenset(map(Role, roles)), cohort=cohort)


def judge(session: Session, access: Access, count: int) -> int:
    """Rank the next `count` tasks in the order shown; how many there were."""
    for done in range(count):
        if tasks.lease_next(session, access, TaskKind.RANK) is None:
            return done
        work = take(session, access)
        judgements.submit_ranking(session, access, work.task.uid, rank(work))
    return count


@dataclass(frozen=True)
class Worker:
    """A Celery worker in a process of its own."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def trainers(self) -> list[psutil.Process]:
        """The training processes it has started."""
        return [child for child in psutil.Process(self.pid).children() if "train" in child.cmdline()]


@contextlib.contextmanager
def start_worker(queue: str, folder: Path, *, pool: str = "solo") -> Iterator[Worker]:
    """A real worker over the settings in force, as `preferable up` starts it; ended with its trainers."""
    log = folder / f"worker-{queue}-{time.monotonic_ns()}.log"
    options = [
        "--queues",
        queue,
        "--pool",
        pool,
        "--concurrency",
        "1",
        "--hostname",
        f"{queue}@%h",
        "--loglevel",
        "INFO",
    ]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "--app", "workers.celery_app:celery", "worker", *options, *quiet],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=CODE,
            start_new_session=True,
        )
    try:
        yield Worker(process, log)
    except BaseException:
        print(log.read_text(errors="replace")[-4000:])  # noqa: T201 - shown by pytest where the test failed
        raise
    finally:
        end(process, signal.SIGTERM, deadline_seconds=12.0)


T = TypeVar("T")


def wait_until(find: Callable[[Session], T | None], *, seconds: float = 180.0) -> T:
    """The first thing that `find` gives, looked for in fresh transactions."""
    give_up = time.monotonic() + seconds
    while True:
        with transaction() as session:
            found = find(session)
        if found:
            return found
        if time.monotonic() > give_up:
            with transaction() as session:
                states = [(job.kind, job.state, job.error) for job in session.scalars(select(Job))]
            raise AssertionError(f"waited {seconds} s in vain; jobs: {states}")
        time.sleep(0.1)


def wait_for_end(job_id: int, *, seconds: float = 180.0) -> Job:
    """A job once it is over."""
    over = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
    return wait_until(
        lambda session: session.scalar(select(Job).where(Job.id == job_id, Job.state.in_(over))), seconds=seconds
    )
