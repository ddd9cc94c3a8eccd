"""The test bench: the same held-out prompts for every model, each model fetched and sampled once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.starter import load_starter
from workers.simulate import measure, models, trivial
from workers.simulate.labellers import Labeller, Shown, ShownTask, Verdict
from workers.simulate.measure import Answers, HeldOutPrompt, LabelledPair, Message, RewardNumbers, Said
from workers.simulate.models import Decoding, ToScore
from workers.simulate.owner import Model, Owner
from workers.simulate.report import Trivial

SPLIT = "test"
"""Prompts of this split are never sampled by the loop, so that nobody has judged, let alone trained on, any of them."""

FIXED_CANDIDATES = 400
"""Texts tried for the best fixed answer: all demonstrations, and this many of the policy's answers."""


@dataclass(frozen=True)
class Judged:
    """A model whose answers people ranked in a round, and their rankings."""

    model: Model
    verdicts: Sequence[Verdict]


@dataclass
class Bench:
    """Files and answers so far, by the model's name. `folder` must be empty at first."""

    owner: Owner
    decoding: Decoding
    folder: Path
    prompts: Sequence[HeldOutPrompt] = field(default_factory=lambda: held_out_prompts(SPLIT))
    _folders: dict[str, Path] = field(default_factory=dict)
    _answers: dict[str, Answers] = field(default_factory=dict)

    def files(self, model: Model) -> Path:
        """A model's folder, fetched once."""
        if model.name not in self._folders:
            target = self.folder / model.name.lower().replace(" ", "-")
            identity = self.owner.identity(model)
            self._folders[model.name] = models.fetch(self.owner.browser, model.page, target, identity)
        return self._folders[model.name]

    def answers(self, model: Model, reference: Model | None = None) -> Answers:
        """A model's answers, drawn once, with their KL to `reference` where that is given."""
        if model.name not in self._answers:
            files = self.files(model)
            said = models.sample(
                files,
                self.prompts,
                self.decoding,
                self.folder / f"{files.name}-answers",
                self.files(reference) if reference else None,
            )
            self._answers[model.name] = measure.judge(model.name, self.prompts, said)
        return self._answers[model.name]

    def reward_numbers(
        self, reward: Model, judged: Sequence[Judged], by: Labeller
    ) -> tuple[RewardNumbers, RewardNumbers]:
        """A reward model on held-out prompts: over the answers of every model judged so far, as it was trained on, and over those
        of the newest alone. They are the rounds' rankings of split `valid`, and the bench's answers of the models judged, ranked
        by one more labeller with the same noise.
        """
        pairs: list[LabelledPair] = []
        newest: list[LabelledPair] = []
        texts: list[ToScore] = []
        for of_model in judged:
            newest = []
            for prompt, verdict in self._held_out_rankings(of_model, by):
                outputs = [(output.text, output.finish_reason) for output in verdict.task.outputs]
                newest += measure.labelled_pairs(prompt.key, prompt.messages, outputs, verdict.tiers)
                texts += [ToScore(prompt.key, prompt.messages, output) for output in outputs]
            pairs += newest
        files = self.files(reward)
        scores = models.score(files, texts, self.folder / f"{files.name}-scores")

        def score(prompt: str, said: Said) -> float:
            return scores[prompt, said]

        return measure.reward_numbers(pairs, score), measure.reward_numbers(newest, score)

    def _held_out_rankings(self, judged: Judged, by: Labeller) -> list[tuple[HeldOutPrompt, Verdict]]:
        held_out = {_text(prompt.messages): prompt for prompt in held_out_prompts("valid")}
        ranked = [
            (held_out[key], verdict) for verdict in judged.verdicts if (key := _text(verdict.task.messages)) in held_out
        ]
        answers = self.answers(judged.model)
        return ranked + [(prompt, _rank(by, prompt, answers)) for prompt in self.prompts]

    def trivial(self, policy: Answers) -> tuple[Trivial, ...]:
        """The trivial policies against the policy."""
        said = sorted({answer.text for of_prompt in policy.by_prompt.values() for answer in of_prompt})
        step = max(1, len(said) // FIXED_CANDIDATES)
        texts = [demonstration.response for demonstration in load_starter().demonstrations] + said[::step]
        text, fixed = trivial.best_fixed(self.prompts, texts)
        return tuple(
            Trivial(answers.name, says, measure.gold_total(answers), measure.win_rate(answers, policy))
            for answers, says in (
                (trivial.empty(self.prompts), "(nothing)"),
                (fixed, text),
                (trivial.echo(self.prompts), "(the prompt)"),
            )
        )


def held_out_prompts(split: str) -> list[HeldOutPrompt]:
    """The starter's prompts of a split."""
    return [
        HeldOutPrompt(prompt.key, prompt.messages, prompt.category)
        for prompt in load_starter().prompts
        if prompt.split == split
    ]


def _rank(by: Labeller, prompt: HeldOutPrompt, judged: Answers) -> Verdict:
    """One more labeller's ranking of a model's answers to a prompt, each different text once."""
    said = {answer.text: answer.finish_reason for answer in judged.by_prompt[prompt.key]}
    task = ShownTask(prompt.messages, tuple(Shown(str(at), *output) for at, output in enumerate(said.items())))
    return Verdict(task, tuple(by.decide(task)[0]))


def _text(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], " ".join(message["content"].split())) for message in messages)
