"""`preferable sample`: prompts in, responses out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from app import snapshot
from workers.rlhf import kl
from workers.training import checkpoints, conversation, data, engine, models, scoring
from workers.training.bulk import Output
from workers.training.data import Pair
from workers.training.engine import Decoding, Engine
from workers.training.scoring import Judge, Scored
from workers.training.vllm_engine import VLLMEngine

RESPONSES_AT_ONCE = 1024
"""Responses that are drawn and written together: several times the rows of a batch, so that it stays full for most of them."""


@dataclass(frozen=True)
class Question:
    """A prompt to sample for, and the row it came from."""

    id: str
    prompt: list[conversation.Message]


@dataclass(frozen=True)
class Helpers:
    """Checkpoints that have a say beside the sampled one."""

    reference: Path | None = None
    """What each response's divergence is measured from."""
    reward: Path | None = None
    """What chooses the best of `best_of` responses drawn."""
    best_of: int = 1


def sample(
    model_folder: Path,
    source: Path,
    out: Path,
    decoding: Decoding,
    *,
    split: str | None = None,
    helpers: Helpers = Helpers(),
    check_prompts: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    vllm: str | None = None,
) -> dict[str, Any]:
    """Answer every prompt of a snapshot or JSONL file and write a row {id, prompt, responses} for each; summary metrics.

    With a reference each response carries `kl`, the sum over its tokens of log pi - log pi_ref, and the metrics their mean; with
    a reward model likewise `score`, and `best_of_kl`, the nats between the best of several and a single response: `kl` is of the
    policy that drew. `equal_alone` is the share of responses to the first `check_prompts` prompts that come out the same drawn
    together and prompt by prompt. `vllm` is the address of a server that draws instead.

    Interrupted, the same call goes on where it was, to the same bytes on the same machine. Raises ValueError without prompts,
    naming a prompt that leaves no room for the response, and for an `out` of other settings.
    """
    questions = list(read_questions(source, split))
    if not questions:
        raise ValueError(f"{source} has no prompts" + (f" in split {split!r}" if split else ""))
    if (helpers.best_of > 1) != (helpers.reward is not None) or helpers.best_of < 1:
        raise ValueError("to take the best of several responses, give a reward model and a number above 1")
    for folder in (helpers.reference, helpers.reward):
        if folder is not None:
            checkpoints.require_same_format(model_folder, folder)
    sampler = (
        VLLMEngine.connect(vllm, model_folder, device, dtype) if vllm else Engine.load(model_folder, device, dtype)
    )
    prompts = [conversation.encode_prompt(sampler.tokenizer, question.prompt) for question in questions]
    sampler.check_room(prompts, decoding.max_new_tokens)
    reference = None if helpers.reference is None else _load_reference(helpers.reference, sampler)
    judge = None if helpers.reward is None else Judge.load(helpers.reward, device)
    chosen = {"split": split, "dtype": str(dtype), "vllm": bool(vllm), "best_of": helpers.best_of, **asdict(decoding)}
    output = Output.open(out, {"command": "sample", **_hashes(model_folder, source, helpers), **chosen})
    firsts = engine.number(prompts, decoding.n * helpers.best_of)
    at_once = max(1, RESPONSES_AT_ONCE // (decoding.n * helpers.best_of))
    for chunk in output.chunks(len(questions), at_once):
        asked, places = [prompts[at] for at in chunk], [firsts[at] for at in chunk]
        if judge is None:
            drawn = sampler.sample_ids(asked, decoding, places)
            answers = [[Scored(answer, None) for answer in of_prompt] for of_prompt in drawn]
        else:
            answers = scoring.best_of(sampler, judge, asked, decoding, helpers.best_of, places)
        responses = [_row(answer) for of_prompt in answers for answer in of_prompt]
        if reference is not None:
            for response, divergence in zip(responses, _divergences(reference, asked, answers, decoding), strict=True):
                response["kl"] = divergence
        taken = iter(responses)
        output.write(
            chunk,
            [
                {"id": questions[at].id, "prompt": questions[at].prompt, "responses": [next(taken) for _ in of_prompt]}
                for at, of_prompt in zip(chunk, answers, strict=True)
            ],
        )
    metrics = _summarise(output.rows())
    if helpers.best_of > 1:
        metrics["best_of_kl"] = kl.best_of_n_kl(helpers.best_of)
    if check_prompts:
        metrics["equal_alone"] = share_equal_alone(sampler, prompts[:check_prompts], decoding)
    return metrics


def share_equal_alone(sampler: Engine, prompts: Sequence[list[int]], decoding: Decoding) -> float:
    """Share of responses that are the same drawn in one batch and prompt by prompt: 1 in float64, the rest is rounding."""
    firsts = engine.number(prompts, decoding.n)
    together = sampler.sample_ids(prompts, decoding, firsts)
    alone = [sampler.sample_ids([ids], decoding, [first])[0] for ids, first in zip(prompts, firsts, strict=True)]
    return engine.share_equal(together, alone)


def read_questions(source: Path, split: str | None = None) -> Iterator[Question]:
    """The prompts of a snapshot, or of a JSONL file of {id?, prompt} with a list of messages or plain text."""
    if source.is_dir():
        snapshot.read_manifest(source)
        rows = snapshot.read_rows(source, "prompts.jsonl")
    elif source.is_file():
        rows = snapshot.read_rows(source.parent, source.name)
    else:
        raise FileNotFoundError(f"{source} is neither a snapshot folder nor a JSONL file")
    for number, row in enumerate(rows, start=1):
        if "prompt" not in row:
            raise ValueError(f"{source}, row {number}: no `prompt`; found {', '.join(sorted(row)) or 'nothing'}")
        if split is None or row.get("split") == split:
            yield Question(str(row.get("id", number)), scoring.messages(row["prompt"]))


def _hashes(model: Path, source: Path, helpers: Helpers) -> dict[str, str | None]:
    """Of the files that the rows depend on."""
    folders = {"model": model, "reference": helpers.reference, "reward": helpers.reward}
    data_sha256 = snapshot.read_manifest(source).sha256 if source.is_dir() else snapshot.file_sha256(source)
    return {"data": data_sha256} | {
        name: None if folder is None else snapshot.folder_sha256(folder) for name, folder in folders.items()
    }


def _row(answer: Scored) -> dict[str, Any]:
    response = answer.response
    row: dict[str, Any] = {
        "text": response.text,
        "finish_reason": response.finish_reason,
        "token_count": len(response.token_ids),
        "logprob": sum(response.logprobs),
        "seed": response.seed,
    }
    return row if answer.score is None else row | {"score": answer.score}


def _summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over all responses; `distinct` is how many texts of a prompt differ, over how many it has."""
    of_prompts = [row["responses"] for row in rows]
    responses = [response for of_prompt in of_prompts for response in of_prompt]
    count = len(responses)
    metrics = {
        "prompts": len(of_prompts),
        "responses": count,
        "length": sum(response["token_count"] for response in responses) / count,
        "ended": sum(response["finish_reason"] == "stop" for response in responses) / count,
        "distinct": sum(len({response["text"] for response in of_prompt}) for of_prompt in of_prompts) / count,
    }
    for name in ("kl", "score"):
        if name in responses[0]:
            metrics[name] = sum(response[name] for response in responses) / count
    return metrics


def _load_reference(folder: Path, sampler: Engine) -> PreTrainedModel:
    reference = checkpoints.load_language_model(folder).to(sampler.model.device)
    checkpoints.prepare(reference, checkpoints.load_tokenizer(folder))
    return reference


def _divergences(
    reference: PreTrainedModel, prompts: Sequence[list[int]], answers: Sequence[Sequence[Scored]], decoding: Decoding
) -> list[float]:
    """For each answer the sum over its tokens of log pi - log pi_ref, in nats, both at the sampling temperature."""
    rows = [
        Pair(ids, answer.response.token_ids)
        for ids, of_prompt in zip(prompts, answers, strict=True)
        for answer in of_prompt
    ]
    totals = [sum(answer.response.logprobs) for of_prompt in answers for answer in of_prompt]
    with models.evaluation(reference):
        for chunk in data.micro_batches(range(len(rows)), [len(row) for row in rows], 8192):
            batch = data.collate([rows[at] for at in chunk], reference.config.pad_token_id, reference.device)
            logprobs = models.response_logprobs(reference, batch, decoding.temperature or 1.0) * batch.response_mask
            for at, total in zip(chunk, logprobs.double().sum(1).tolist(), strict=True):
                totals[at] -= total
    return totals
