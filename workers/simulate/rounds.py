"""The simulation, read top to bottom: people join, and round by round they judge, the workers learn, the owner promotes."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from workers.simulate import measure
from workers.simulate.bench import Bench, Judged
from workers.simulate.browser import Browser
from workers.simulate.labellers import Labeller, Verdict, judge_together
from workers.simulate.models import Decoding
from workers.simulate.owner import LoopError, Model, Owner, TooLateError
from workers.simulate.report import RoundNumbers

PROJECT = "starter"
SFT_SECONDS, REWARD_SECONDS, PPO_SECONDS, TASK_SECONDS = 300.0, 600.0, 1200.0, 300.0
ACTIVATION_SECONDS = 30.0
"""Time for the automation to take a new reward model over; one that it leaves aside is the owner's decision."""
SAMPLES = 4
READY_TASKS = 100
"""These labellers are quick: the queue has to last from one look of the automation to the next."""


@dataclass(frozen=True)
class Options:
    """What a simulation is asked to do. `judgements` is per round, and the settings page's threshold for a reward model."""

    rounds: int
    labellers: int
    seed: int
    noise: float
    judgements: int
    outputs: int = 0
    """Answers per ranking task, K; 0 leaves the project's setting."""
    training_config: str = ""
    """TOML to put into the project's settings first; empty leaves them."""


@dataclass
class Clock:
    """Wall-clock seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to a phase."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun


def simulate(
    url: str, owner_link: str, options: Options, folder: Path, say: Callable[[str], None]
) -> Iterator[RoundNumbers]:
    """Run the loop through the pages at `url`; a round's numbers come as soon as they are known, before the promotion.

    `folder` keeps the models' files. Raises LoopError where the loop stands still, PageError where a page is not what a
    person would expect, ModelError where a model's files do not serve.
    """
    with ExitStack() as stack:
        owner = Owner(stack.enter_context(Browser(url)), PROJECT)
        owner.enter(owner_link)
        # 1. The owner sets the pace and invites the labellers.
        pace = {
            "automation-is_on": "true",
            "automation-ready_tasks": str(min(options.judgements, READY_TASKS)),
            "automation-judgements_per_reward_model": str(options.judgements),
        }
        chosen = {"outputs_per_task": str(options.outputs or ""), "training_config": options.training_config}
        owner.change_settings(**pace, **{name: value for name, value in chosen.items() if value})
        labellers = _invite(owner, options, stack)
        say(f"{len(labellers)} labellers have joined {url}/p/{PROJECT}/")
        # 2. The first SFT model is trained and promoted by itself.
        owner.wait("active SFT model", lambda: owner.active("SFT", "P"), seconds=SFT_SECONDS)
        bench = Bench(owner, _decoding(owner, options), folder)
        judged: list[Judged] = []
        for number in range(1, options.rounds + 1):
            numbers, policy = _round(number, owner, labellers, bench, options, judged, say)
            yield numbers
            # 7. The owner has read the numbers and promotes.
            owner.promote(policy)
            say(f"{policy.name} is promoted")


def _round(
    number: int,
    owner: Owner,
    labellers: Sequence[Labeller],
    bench: Bench,
    options: Options,
    judged: list[Judged],
    say: Callable[[str], None],
) -> tuple[RoundNumbers, Model]:
    """One round up to its numbers; the candidate they speak of comes with them. `judged` grows by the round's model."""
    clock = Clock()
    active = _require(owner.active("SFT", "P"), "active model")
    last_reward, last_policy = owner.newest("R"), owner.newest("P")
    # 3. People judge the active model's answers.
    with clock.phase("judging"):
        fresh = judge_together(labellers, options.judgements, patience_seconds=TASK_SECONDS)
    judged.append(Judged(active, fresh))
    say(f"round {number}: {len(fresh)} rankings of {active.name}'s answers")
    # 4. The automation trains a reward model on all of them.
    with clock.phase("reward model"):
        reward = _wait_for_newer(owner, "R", last_reward, REWARD_SECONDS)
        _activate(owner, reward, say)
    # 5. PPO follows it.
    with clock.phase("PPO"):
        policy = _wait_for_newer(owner, "P", last_policy, PPO_SECONDS)
    say(f"round {number}: {reward.name} and {policy.name} are trained")
    # 6. All models answer the same held-out prompts.
    base, sft = _require(owner.newest("Base"), "base model"), _require(owner.newest("SFT"), "SFT model")
    with clock.phase("measuring"):
        answers = {"base": bench.answers(base), "SFT": bench.answers(sft), "policy": bench.answers(policy, sft)}
        accuracy, newest_accuracy = bench.reward_numbers(reward, judged, _bystander(owner, options))
        verdicts = [verdict for one in judged for verdict in one.verdicts]
        numbers = RoundNumbers(
            number=number,
            policy=f"{policy.name}, trained against {reward.name} from rankings of {active.name}",
            judgements=len(fresh),
            judgements_so_far=len(verdicts),
            comparisons=_comparisons(fresh),
            comparisons_so_far=_comparisons(verdicts),
            prompts=len(bench.prompts),
            samples=SAMPLES,
            reward=accuracy,
            reward_on_newest=newest_accuracy,
            kl=measure.kl(answers["policy"]),
            models={name: measure.describe(given, bench.prompts) for name, given in answers.items()},
            wins={
                f"{one} over {other}": measure.win_rate(answers[one], answers[other])
                for one, other in (("policy", "SFT"), ("policy", "base"), ("SFT", "base"))
            },
            change_by_category=measure.change_by_category(answers["policy"], answers["SFT"], bench.prompts),
            trivial=bench.trivial(answers["policy"]),
            seconds=clock.seconds,
        )
    return numbers, policy


def _invite(owner: Owner, options: Options, stack: ExitStack) -> list[Labeller]:
    """Invite the labellers, each of whom joins in a browser of their own. A second simulation invites others."""
    begun = int(time.time())
    labellers = []
    for number in range(1, options.labellers + 1):
        browser = stack.enter_context(Browser(owner.browser.url))
        email = f"labeller-{number}-{begun}@example.org"
        labellers.append(Labeller(browser, owner.project, email, secrets.token_urlsafe(), options.seed, options.noise))
        labellers[-1].join(owner.invite())
    return labellers


def _bystander(owner: Owner, options: Options) -> Labeller:
    """A labeller who ranks outside of the project, with slips of their own."""
    return Labeller(owner.browser, owner.project, "bystander", "", options.seed, options.noise)


def _decoding(owner: Owner, options: Options) -> Decoding:
    """The project's own decoding, so that what is measured is what people see."""
    temperature, longest = (owner.setting(f"sampling-{name}") for name in ("temperature", "max_new_tokens"))
    return Decoding(SAMPLES, float(temperature), int(longest), options.seed)


def _wait_for_newer(owner: Owner, kind: str, last: Model | None, seconds: float) -> Model:
    """The first model of a kind with a higher number than the last."""

    def look() -> Model | None:
        newest = owner.newest(kind)
        return newest if newest and (last is None or newest.number > last.number) else None

    return owner.wait(f"new {kind} model", look, seconds=seconds)


def _activate(owner: Owner, reward: Model, say: Callable[[str], None]) -> None:
    """Wait until the automation takes the new reward model over; where it does not, the owner clicks."""

    def look() -> Model | None:
        active = owner.active("R")
        return active if active and active.name == reward.name else None

    try:
        owner.wait(f"active {reward.name}", look, seconds=ACTIVATION_SECONDS)
    except TooLateError:
        say(f"{reward.name} is not taken over by rule; the owner chooses it, since it has seen the newest answers")
        owner.promote(reward)


def _comparisons(verdicts: Sequence[Verdict]) -> int:
    return sum(measure.comparisons(verdict.tiers) for verdict in verdicts)


def _require(model: Model | None, what: str) -> Model:
    if model is None:
        raise LoopError(f"the checkpoints page shows no {what}")
    return model
