"""Does a reward model on a small language model know more of harmlessness than words do? HH harmless-base, 5-fold by prompt.

    python -m studies.hh_harmless --model FOLDER [--data FOLDER] [--json FILE|-] [--choose]

Of each pair of answers people said which is the less harmful one. Five times a reward model learns from four fifths of the
prompts and is asked about the last; what its lower blocks put out is computed once for all five. Beside it, on the same folds:
tf-idf of words and pairs of words under a Bradley-Terry model, and the rule that the longer answer wins. The difference to tf-idf
is given with its interval: a paired bootstrap over prompts. With `--choose` the candidates for `SETTINGS` are compared instead,
on a part of the first fold's training prompts.

The data are offensive. Nothing of them is printed.
"""

import gzip
import json
import random
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks import report
from workers.rlhf import schedules
from workers.training import checkpoints, data, frozen, lora, optimisers, precision, reward
from workers.training.conversation import Message
from workers.training.kwise import SetScorer
from workers.training.rankings import Judgement, RankedSet
from workers.training.reward import RewardConfig

FOLDS = 5
RESAMPLES = 10_000
SETTINGS = RewardConfig(epochs=2, lr=1e-4, batch_size=32, frozen_blocks=26, micro_batch_tokens=2048, compute="bfloat16")
"""Of the reward model in every fold. The learning rate is the best of `--choose`."""
CANDIDATES = [replace(SETTINGS, lr=lr) for lr in (3e-5, 1e-4, 3e-4)]
REGULARISATION = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Candidates for the inverse strength of tf-idf's penalty; chosen in each fold, on its training prompts."""
TURN = re.compile(r"\n\n(Human|Assistant): ?")
ROLES = {"Human": "user", "Assistant": "assistant"}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """Two answers to a conversation, and which of them people took."""

    prompt: list[Message]
    chosen: str
    rejected: str

    @property
    def group(self) -> str:
        """What all choices of one conversation share."""
        return json.dumps(self.prompt)


def read(path: Path) -> list[Choice]:
    """The choices of a file of pairs; turns of one speaker in a row become one.

    Raises ValueError, naming the line, where two answers are not to one conversation that ends in a user's turn.
    """
    choices = []
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            chosen, rejected = _turns(row["chosen"]), _turns(row["rejected"])
            roles = [turn["role"] for turn in chosen[-2:]]
            if chosen[:-1] != rejected[:-1] or roles != ["user", "assistant"] or rejected[-1]["role"] != "assistant":
                raise ValueError(f"{path}, line {number}: expected two answers to one conversation")
            choices.append(Choice(chosen[:-1], chosen[-1]["content"], rejected[-1]["content"]))
    return choices


def _turns(text: str) -> list[Message]:
    _, *parts = TURN.split(text)
    turns: list[Message] = []
    for role, said in zip(parts[::2], parts[1::2], strict=True):
        if turns and turns[-1]["role"] == ROLES[role]:
            turns[-1]["content"] += "\n\n" + said.strip()
        else:
            turns.append({"role": ROLES[role], "content": said.strip()})
    return turns


def split(choices: Sequence[Choice], parts: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """The part that each choice falls into, all of one conversation into one."""
    groups = sorted({choice.group for choice in choices})
    random.Random(seed).shuffle(groups)
    part = {group: at % parts for at, group in enumerate(groups)}
    return np.array([part[choice.group] for choice in choices])


def right(margins: Floats) -> Floats:
    """1 where the chosen answer has more, 0 where it has less, 1/2 where both have the same."""
    return np.heaviside(margins, 0.5)


def words(train: Sequence[Choice], test: Sequence[Choice]) -> tuple[Floats, dict[str, Any]]:
    """Margins of `test` by tf-idf of the answers under Bradley-Terry, learned from `train`, and what was chosen there."""
    part = split(train, seed=1)
    found = {}
    for penalty in REGULARISATION:
        hits = 0.0
        for held_out in range(FOLDS):
            inner = [choice for choice, at in zip(train, part, strict=True) if at != held_out]
            asked = [choice for choice, at in zip(train, part, strict=True) if at == held_out]
            hits += right(_bradley_terry(inner, asked, penalty)).sum()
        found[penalty] = hits / len(train)
    best = max(found, key=lambda penalty: found[penalty])
    return _bradley_terry(train, test, best), {"C": best, "inner_accuracy": round(found[best], 4)}


def _bradley_terry(train: Sequence[Choice], test: Sequence[Choice], penalty: float) -> Floats:
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    vectors.fit([text for choice in train for text in (choice.chosen, choice.rejected)])

    def differences(choices: Sequence[Choice]) -> csr_matrix:
        chosen, rejected = ([getattr(each, name) for each in choices] for name in ("chosen", "rejected"))
        return vectors.transform(chosen) - vectors.transform(rejected)

    of_train = differences(train)
    model = LogisticRegression(C=penalty, fit_intercept=False, max_iter=1000)
    model.fit(vstack([of_train, -of_train]), np.repeat([1, 0], len(train)))
    margins: Floats = differences(test) @ model.coef_[0]
    return margins


@dataclass(frozen=True)
class RewardModels:
    """A reward model that begins anew for every fold, its frozen blocks' output kept for all."""

    scorer: SetScorer
    sets: list[RankedSet]
    """The choices, the chosen answer first."""
    start: dict[str, torch.Tensor]
    """What learns, as it begins."""

    @classmethod
    def load(cls, folder: Path, choices: Sequence[Choice], config: RewardConfig) -> "RewardModels":
        """From a language model with a chat template."""
        tokenizer, model = checkpoints.load_tokenizer(folder), checkpoints.reward_model_from(folder, config.seed)
        checkpoints.prepare(model, tokenizer)
        sets = []
        preferred = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
        for number, choice in enumerate(choices):
            outputs = [data.encode_pair(tokenizer, choice.prompt, text) for text in (choice.chosen, choice.rejected)]
            sets.append(RankedSet(str(number), outputs, [Judgement(preferred, torch.zeros(2, 2))]))
        compute = precision.compute_dtype(config.compute, "cpu")
        scorer = SetScorer.choose(model, tokenizer, sets, config.micro_batch_tokens, compute)
        lower = frozen.freeze(model, config.frozen_blocks)
        began = time.perf_counter()
        scorer = scorer.freeze(lower, sets)
        print(f"{lower.sentence(model)} ({time.perf_counter() - began:.0f} s)", flush=True)
        return cls(scorer, sets, {name: value.clone() for name, value in lora.state(model).items()})

    def margins(self, config: RewardConfig, train: Sequence[int], test: Sequence[int], name: str) -> Floats:
        """Margins of the choices `test` under a reward model that learned from those of `train`: the loop of `reward.train`."""
        model = self.scorer.model
        lora.load_state(model, self.start)
        optimiser = optimisers.adamw(model, config.weight_decay)
        order = [batch for epoch in range(config.epochs) for batch in self._epoch(config, len(train), epoch)]
        for step, batch in enumerate(order):
            loss = reward.backward(self.scorer, [self.sets[train[at]] for at in batch])
            optimisers.update(optimiser, model, config.lr * schedules.cosine(step, len(order)), config.max_grad_norm)
            if (step + 1) % 10 == 0:
                print(f"{name}: step {step + 1} of {len(order)}, loss {loss:.3f}", flush=True)
        scores = np.array(self.scorer.score_all([self.sets[at] for at in test]))
        margins: Floats = scores[:, 0] - scores[:, 1]
        return margins

    def _epoch(self, config: RewardConfig, count: int, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        return data.shuffled_batches(count, config.batch_size, generator)


def bootstrap(ours: Floats, theirs: Floats, groups: Sequence[str], draws: int = RESAMPLES) -> dict[str, float]:
    """The difference of two accuracies on the same choices, a mean over prompts, with its 95 % interval by resampling prompts."""
    names = {group: at for at, group in enumerate(dict.fromkeys(groups))}
    at = np.array([names[group] for group in groups])
    of_prompt = np.bincount(at, ours - theirs) / np.bincount(at)
    generator = np.random.default_rng(0)
    means = [generator.choice(of_prompt, len(of_prompt)).mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"difference": float(of_prompt.mean()), "low": float(low), "high": float(high)}


def choose(models: RewardModels, choices: Sequence[Choice], candidates: Sequence[RewardConfig]) -> list[dict[str, Any]]:
    """Accuracy of candidates on a fifth of the first fold's training prompts, learned from the other four fifths of these."""
    known = np.flatnonzero(split(choices) != 0)
    part = split([choices[at] for at in known], seed=1)
    found = []
    for config in candidates:
        margins = models.margins(config, known[part != 0], known[part == 0], f"lr {config.lr}")
        found.append({"lr": config.lr, "epochs": config.epochs, "accuracy": round(right(margins).mean(), 4)})
        print(json.dumps(found[-1]), flush=True)
    return found


def compare(models: RewardModels, choices: Sequence[Choice], config: RewardConfig) -> dict[str, Any]:
    """Every choice asked about once by each of the three, by a model that did not learn from its prompt."""
    part = split(choices)
    ours, theirs = np.zeros(len(choices)), np.zeros(len(choices))
    folds = []
    for number in range(FOLDS):
        train, test = np.flatnonzero(part != number), np.flatnonzero(part == number)
        ours[test] = models.margins(config, train, test, f"fold {number}")
        theirs[test], chosen = words([choices[at] for at in train], [choices[at] for at in test])
        accuracies = {"reward_model": right(ours[test]).mean(), "tfidf": right(theirs[test]).mean()}
        folds.append(
            {"test": len(test)}
            | {name: round(value, 4) for name, value in accuracies.items()}
            | {"tfidf_chose": chosen}
        )
        print(json.dumps(folds[-1]), flush=True)
    lengths = np.array([[float(len(output.response)) for output in element.outputs] for element in models.sets])
    groups = [choice.group for choice in choices]
    return {
        "choices": len(choices),
        "prompts": len(set(groups)),
        "reward_model": right(ours).mean(),
        "tfidf": right(theirs).mean(),
        "longer_wins": right(lengths[:, 0] - lengths[:, 1]).mean(),
        "reward_model_less_tfidf": bootstrap(right(ours), right(theirs), groups),
        "reward_model_interval": bootstrap(right(ours), np.zeros(len(choices)), groups),
        "folds": folds,
    }


def main() -> None:
    """Run the study, or choose its settings, and print the report."""
    options = report.parser(__doc__ or "")
    options.add_argument(
        "--model", type=Path, required=True, metavar="FOLDER", help="a language model with a chat template"
    )
    options.add_argument("--data", type=Path, metavar="FOLDER", help="the folder with the data sets")
    options.add_argument("--choose", action="store_true", help="compare candidates for the settings instead")
    given = options.parse_args()
    choices = read(report.data_file(given.data, "hh_harmless", "pairs.jsonl.gz"))
    torch.set_num_threads(given.threads)
    began = time.perf_counter()
    models = RewardModels.load(given.model, choices, SETTINGS)
    found = {"candidates": choose(models, choices, CANDIDATES)} if given.choose else compare(models, choices, SETTINGS)
    about = report.machine(given.threads) | {
        "settings": asdict(SETTINGS),
        "seconds": round(time.perf_counter() - began),
    }
    report.publish(about | found, given.json)


if __name__ == "__main__":
    main()
