"""The responses of a plan's tasks: each part of the mix draws its share, the best of several where it is told to, no text twice.

One model is in memory at a time. So a part is drawn for all prompts of a wave before the next, and where a reward model chooses,
everything is drawn first and scored after.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic

from app.models import Prompt
from app.schemas.plans import PartCounts
from app.services.endpoints import Target
from app.services.plan_work import Chosen, Drawn, Voice, Work
from app.services.tasks import NewSample, same_text
from workers.tasks import answering, outside

REDRAWS = 6
"""How often responses that repeat others of their task are drawn again, until the prompt is passed over."""

LOOK_SECONDS = 5.0
"""Between two looks whether somebody wants the work stopped."""

KeepGoing = Callable[[], None]


@dataclass(frozen=True)
class Text:
    """A response, from wherever it came."""

    text: str
    finish_reason: str
    tokens: int | None = None
    seed: int | None = None


@dataclass
class Wave:
    """What is there so far for prompts that are answered together."""

    prompts: Sequence[Prompt]
    samples: dict[int, list[NewSample]]
    """By prompt."""
    problems: dict[int, str] = field(default_factory=dict)
    """Why a prompt gets no task, by prompt."""

    def alive(self) -> list[Prompt]:
        """Prompts that may still get their task."""
        return [prompt for prompt in self.prompts if prompt.id not in self.problems]


def answer(work: Work, chosen: Sequence[Chosen], keep_going: KeepGoing) -> tuple[list[Drawn], list[PartCounts]]:
    """The responses of a task for each prompt, or why there is none; and what each part drew for them."""
    wave = Wave([one.prompt for one in chosen], {one.prompt.id: [] for one in chosen})
    parts = [_fill(voice, wave, keep_going) for voice in work.voices]
    drawn = [Drawn(one, tuple(wave.samples[one.prompt.id]), wave.problems.get(one.prompt.id)) for one in chosen]
    return drawn, parts


def _fill(voice: Voice, wave: Wave, keep_going: KeepGoing) -> PartCounts:
    """Add a part's responses to every prompt that may still get its task."""
    counts = PartCounts()
    wanted = {prompt.id: len(wave.samples[prompt.id]) + voice.part.responses for prompt in wave.alive()}
    for _ in range(REDRAWS + 1):
        short = [prompt for prompt in wave.alive() if len(wave.samples[prompt.id]) < wanted[prompt.id]]
        if not short:
            return counts
        keep_going()
        n = max(wanted[prompt.id] - len(wave.samples[prompt.id]) for prompt in short) * voice.part.best_of
        drawn = _draw(voice, short, n, counts, wave.problems, keep_going)
        ranked = _in_order(voice, short, drawn, wave.problems, keep_going)
        for prompt in short:
            _take(voice, wave.samples[prompt.id], ranked.get(prompt.id, ()), wanted[prompt.id])
    for prompt in wave.alive():
        if len(wave.samples[prompt.id]) < wanted[prompt.id]:
            wave.problems[prompt.id] = (
                f"Its responses repeat one another: {voice.part.responses} different ones were not found in {REDRAWS + 1} draws."
            )
    return counts


def _take(voice: Voice, samples: list[NewSample], groups: Sequence[Sequence[Text]], wanted: int) -> None:
    """Of each group the first text that the task does not have yet."""
    known = {same_text(sample.text) for sample in samples}
    for group in groups:
        if len(samples) == wanted:
            return
        fresh = next((text for text in group if same_text(text.text) not in known), None)
        if fresh is not None:
            known.add(same_text(fresh.text))
            samples.append(NewSample(fresh.text, voice.sampler.id, fresh.seed, fresh.tokens, fresh.finish_reason))


def _in_order(
    voice: Voice,
    prompts: Sequence[Prompt],
    drawn: Mapping[int, Sequence[Text]],
    problems: dict[int, str],
    keep_going: KeepGoing,
) -> dict[int, list[list[Text]]]:
    """Each prompt's responses in groups of `best_of`, within a group the highest score first; of equals the one drawn first."""
    size = voice.part.best_of
    groups = {
        prompt_id: [list(texts[at : at + size]) for at in range(0, len(texts) // size * size, size)]
        for prompt_id, texts in drawn.items()
    }
    if voice.reward_sha256 is None or not groups:
        return groups
    keep_going()
    asked = [prompt for prompt in prompts if prompt.id in groups]
    scores = score(voice.reward_sha256, asked, [drawn[prompt.id] for prompt in asked], problems)
    for prompt in asked:
        if prompt.id in scores:
            worth = {id(text): value for text, value in zip(drawn[prompt.id], scores[prompt.id], strict=True)}
            groups[prompt.id] = [sorted(group, key=lambda text: -worth[id(text)]) for group in groups[prompt.id]]
    return groups


def score(
    sha256: str, prompts: Sequence[Prompt], texts: Sequence[Sequence[Text]], problems: dict[int, str]
) -> dict[int, list[float]]:
    """Scores of each prompt's responses by a reward model, read as people see them. What it cannot read goes to `problems`."""
    judge = answering.load_judge(sha256)
    from workers.training import conversation
    from workers.training.data import Pair

    sets, scored = [], []
    for prompt, of_prompt in zip(prompts, texts, strict=True):
        try:
            ids = conversation.encode_prompt(judge.tokenizer, prompt.messages)  # type: ignore[arg-type]  # checked on import
        except ValueError as error:
            problems[prompt.id] = f"The reward model cannot read it: {error}."
            continue
        if len(ids) >= judge.context:
            problems[prompt.id] = (
                f"It has {len(ids)} tokens; the reward model reads {judge.context}, a response included."
            )
            continue
        pairs = []
        for text in of_prompt:
            response = conversation.encode_response(judge.tokenizer, text.text, ended=text.finish_reason == "stop")
            pairs.append(Pair(ids, response[: judge.context - len(ids)]))
        sets.append(pairs)
        scored.append(prompt.id)
    return dict(zip(scored, judge.score(sets), strict=True)) if sets else {}


def _draw(
    voice: Voice,
    prompts: Sequence[Prompt],
    n: int,
    counts: PartCounts,
    problems: dict[int, str],
    keep_going: KeepGoing,
) -> dict[int, list[Text]]:
    """`n` responses to each prompt, repetitions and all; a prompt that gets none is in `problems`."""
    if voice.target is not None:
        return _ask(voice.target, voice, prompts, n, counts, problems, keep_going)
    return draw_from(
        voice.sha256 or "",
        prompts,
        n,
        temperature=voice.part.temperature,
        top_p=voice.part.top_p,
        max_new_tokens=voice.part.max_new_tokens,
        prefix=voice.part.prefix,
        problems=problems,
        keep_going=keep_going,
        counts=counts,
    )


def draw_from(
    sha256: str,
    prompts: Sequence[Prompt],
    n: int,
    *,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    prefix: str = "",
    problems: dict[int, str],
    keep_going: KeepGoing,
    counts: PartCounts | None = None,
) -> dict[int, list[Text]]:
    """Responses of a model of the registry. What it cannot read goes to `problems`, what was drawn and how fast to `counts`."""
    model = answering.load(sha256)
    from workers.training.conversation import encode_prompt
    from workers.training.draws import Decoding

    ids, fitting = [], []
    for prompt in prompts:
        try:
            tokens = encode_prompt(model.engine.tokenizer, prefixed(prompt, prefix))  # type: ignore[arg-type]  # checked on import
        except ValueError as error:
            problems[prompt.id] = f"The model cannot read it: {error}."
            continue
        if len(tokens) + max_new_tokens > model.context:
            problems[prompt.id] = (
                f"It has {len(tokens)} tokens as the model reads it; with {max_new_tokens} for the response that exceeds the "
                f"model's context of {model.context}."
            )
            continue
        ids.append(tokens)
        fitting.append(prompt)
    if not fitting:
        return {}
    decoding = Decoding(n, temperature, top_p, max_new_tokens, secrets.randbits(62), 0, ())
    begun = monotonic()
    with _looking(model, keep_going):
        drawn = model.engine.sample_ids(ids, decoding)
    if counts is not None:
        tokens_drawn = sum(len(response.token_ids) for responses in drawn for response in responses)
        counts.add(PartCounts(len(drawn) * n, tokens_drawn, 0, monotonic() - begun))
    return {
        prompt.id: [
            Text(
                response.text.replace("\0", "\N{REPLACEMENT CHARACTER}"),
                response.finish_reason,
                len(response.token_ids),
                response.seed,
            )
            for response in responses
        ]
        for prompt, responses in zip(fitting, drawn, strict=True)
    }


@contextmanager
def _looking(model: answering.Model, keep_going: KeepGoing) -> Iterator[None]:
    """Inside, a draw ends soon after somebody asked for it."""
    last = monotonic()

    def look() -> None:
        nonlocal last
        if monotonic() - last > LOOK_SECONDS:
            keep_going()
            last = monotonic()

    model.engine.look = look
    try:
        yield
    finally:
        model.engine.look = None


def _ask(
    target: Target,
    voice: Voice,
    prompts: Sequence[Prompt],
    n: int,
    counts: PartCounts,
    problems: dict[int, str],
    keep_going: KeepGoing,
) -> dict[int, list[Text]]:
    begun = monotonic()
    answers = outside.ask_all(
        target,
        [prefixed(prompt, voice.part.prefix) for prompt in prompts],
        n,
        voice.part,
        keep_going=keep_going,
    )
    counts.seconds += monotonic() - begun
    found = {}
    for prompt, given in zip(prompts, answers, strict=True):
        if isinstance(given, str):
            problems[prompt.id] = given
            continue
        found[prompt.id] = [Text(one.text, one.finish_reason, one.tokens) for one in given]
        counts.responses += len(given)
        counts.tokens += sum(one.tokens or 0 for one in given)
        counts.tokens_in += sum(one.tokens_in or 0 for one in given)
    return found


def prefixed(prompt: Prompt, prefix: str) -> list[dict[str, str]]:
    """A conversation with a text before its last turn, the user's: what a base model without a template reads alone."""
    turns = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in prompt.messages]
    turns[-1]["content"] = prefix + turns[-1]["content"]
    return turns
