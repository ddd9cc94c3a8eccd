"""The responses of a plan's tasks: each part of the mix draws its share, the best of several where it is told to, no text twice.

One model is in memory at a time. So a part is drawn for all prompts of a wave before the next, and where a reward model chooses,
everything is drawn first and scored after.
"""

import secrets
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic

from app.markup import render_markdown
from app.models import Prompt
from app.queries import plans as queries
from app.schemas.plans import PartCounts
from app.schemas.values import storable
from app.services.endpoints import Target
from app.services.plan_work import Chosen, Drawn, Voice, Work
from app.services.tasks import NewSample, same_text
from workers.tasks import answering, sending
from workers.tasks.outside import Line

LOOK_SECONDS = 5.0
"""Between two looks whether somebody wants the work stopped."""

WAVE_SECONDS = 60.0
"""After so long in a wave no further prompt is sent to an endpoint; those that were are finished."""

KeepGoing = Callable[[], None]

FindFit = Callable[[Collection[int]], set[int]]
"""Those of these prompts that may be sent outside now. May raise, where an endpoint was removed."""


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
    keep_going: KeepGoing
    find_fit: FindFit
    problems: dict[int, str] = field(default_factory=dict)
    """Why a prompt gets no task, by prompt."""
    left: set[int] = field(default_factory=set)
    """Prompts whose turn comes again: the time was over, or the endpoint failed."""
    failure: str | None = None
    """Why an endpoint gives no more."""

    def alive(self) -> list[Prompt]:
        """Prompts that may still get their task now."""
        return [prompt for prompt in self.prompts if prompt.id not in self.problems and prompt.id not in self.left]


@dataclass(frozen=True)
class Answered:
    """What came of a wave. Prompts that are not in it have their turn again."""

    drawn: Sequence[Drawn]
    parts: Sequence[PartCounts]
    """What each part drew, all that was paid for among it."""
    failure: str | None
    """Why an endpoint gives no more; what is complete is here even so."""


def answer(
    work: Work,
    chosen: Sequence[Chosen],
    keep_going: KeepGoing,
    *,
    find_fit: FindFit = set,
    requests_left: Sequence[int] = (),
    parts: Sequence[PartCounts] = (),
) -> Answered:
    """The responses of a task for each prompt, or why there is none; and what each part drew for them.

    `requests_left` says of each part how often an endpoint may still be asked. What is drawn is counted in `parts` as it comes,
    so that the caller knows what was paid where this raises.
    """
    wave = Wave([one.prompt for one in chosen], {one.prompt.id: [] for one in chosen}, keep_going, find_fit)
    most = requests_left or [sys.maxsize for _ in work.voices]
    parts = parts or [PartCounts() for _ in work.voices]
    for voice, left, counts in zip(work.voices, most, parts, strict=True):
        _fill(voice, wave, left, counts)
    drawn = [
        Drawn(one, _rendered(wave, one.prompt), wave.problems.get(one.prompt.id))
        for one in chosen
        if one.prompt.id not in wave.left
    ]
    return Answered(drawn, parts, wave.failure)


def _rendered(wave: Wave, prompt: Prompt) -> tuple[NewSample, ...]:
    """Responses as they are shown: a text may take long, and the transaction that stores it is to be short."""
    if prompt.id in wave.problems:
        return ()
    return tuple(replace(sample, html=render_markdown(sample.text)) for sample in wave.samples[prompt.id])


def _fill(voice: Voice, wave: Wave, most: int, counts: PartCounts) -> None:
    """Add a part's responses to every prompt that may still get its task, with up to so many requests to an endpoint.

    What repeats others is drawn again; an endpoint is paid for that, so that it has one draw to give something new.
    """
    wanted = {prompt.id: len(wave.samples[prompt.id]) + voice.part.responses for prompt in wave.alive()}
    for draw in range(answering.REDRAWS + 1):
        short = {
            prompt: (wanted[prompt.id] - len(wave.samples[prompt.id])) * voice.part.best_of
            for prompt in wave.alive()
            if len(wave.samples[prompt.id]) < wanted[prompt.id]
        }
        if not short:
            return
        wave.keep_going()
        drawn = _draw(voice, wave, short, counts, most - counts.requests)
        ranked = _in_order(voice, [prompt for prompt in short if prompt.id in drawn], drawn, wave)
        for prompt in wave.alive():
            if prompt in short:
                gained = _take(voice, wave.samples[prompt.id], ranked.get(prompt.id, ()), wanted[prompt.id])
                is_last = draw == answering.REDRAWS or (voice.target is not None and draw > 0 and not gained)
                if is_last and len(wave.samples[prompt.id]) < wanted[prompt.id]:
                    wave.problems[prompt.id] = (
                        f"Its responses repeat one another: {voice.part.responses} different ones were not found in "
                        f"{draw + 1} draws."
                    )


def _take(voice: Voice, samples: list[NewSample], groups: Sequence[Sequence[Text]], wanted: int) -> int:
    """Of each group the first text that the task does not have yet; how many."""
    known = {same_text(sample.text) for sample in samples}
    before = len(samples)
    for group in groups:
        if len(samples) == wanted:
            break
        fresh = next((text for text in group if same_text(text.text) not in known), None)
        if fresh is not None:
            known.add(same_text(fresh.text))
            samples.append(NewSample(fresh.text, voice.sampler.id, fresh.seed, fresh.tokens, fresh.finish_reason))
    return len(samples) - before


def _in_order(
    voice: Voice, prompts: Sequence[Prompt], drawn: Mapping[int, Sequence[Text]], wave: Wave
) -> dict[int, list[list[Text]]]:
    """Each prompt's responses in groups of `best_of`, within a group the highest score first; of equals the one drawn first."""
    size = voice.part.best_of
    groups = {
        prompt_id: [list(texts[at : at + size]) for at in range(0, len(texts) // size * size, size)]
        for prompt_id, texts in drawn.items()
    }
    if voice.reward_sha256 is None or not groups:
        return groups
    wave.keep_going()
    scores = score(voice.reward_sha256, prompts, [drawn[prompt.id] for prompt in prompts], wave.problems)
    for prompt in prompts:
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
    voice: Voice, wave: Wave, wanted: Mapping[Prompt, int], counts: PartCounts, most: int
) -> dict[int, list[Text]]:
    """So many responses to each prompt, repetitions and all; a prompt that gets none is among the wave's problems, or left."""
    if voice.target is not None:
        return _ask(voice.target, voice, wave, wanted, counts, most)
    return draw_from(
        voice.sha256 or "",
        list(wanted),
        max(wanted.values()),
        temperature=voice.part.temperature,
        top_p=voice.part.top_p,
        max_new_tokens=voice.part.max_new_tokens,
        prefix=voice.part.prefix,
        problems=wave.problems,
        keep_going=wave.keep_going,
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
                storable(response.text),
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
    target: Target, voice: Voice, wave: Wave, wanted: Mapping[Prompt, int], counts: PartCounts, most: int
) -> dict[int, list[Text]]:
    fit = wave.find_fit([prompt.id for prompt in wanted])
    prompts = []
    for prompt, count in wanted.items():
        if prompt.id not in fit:
            wave.problems[prompt.id] = queries.TAKEN_OUT
        elif count > most or wave.failure:
            wave.left.add(prompt.id)
        else:
            most -= count
            prompts.append(prompt)
    if not prompts:
        return {}
    begun, line = monotonic(), Line(sending.SIDE_BY_SIDE)
    try:
        asked = sending.ask_all(
            target,
            [prefixed(prompt, voice.part.prefix) for prompt in prompts],
            [wanted[prompt] for prompt in prompts],
            voice.part,
            keep_going=wave.keep_going,
            seconds=WAVE_SECONDS,
            line=line,
        )
    finally:
        counts.requests += line.charged
    received = [one for of_prompt in asked.answers for one in of_prompt]
    tokens, tokens_in = (sum(one.tokens or 0 for one in received), sum(one.tokens_in or 0 for one in received))
    counts.add(PartCounts(len(received), tokens, tokens_in, monotonic() - begun))
    wave.failure = asked.failure
    found = {}
    for at, prompt in enumerate(prompts):
        if at in asked.refused:
            wave.problems[prompt.id] = asked.refused[at]
        elif len(asked.answers[at]) < wanted[prompt]:
            wave.left.add(prompt.id)
        else:
            found[prompt.id] = [Text(one.text, one.finish_reason, one.tokens) for one in asked.answers[at]]
    return found


def prefixed(prompt: Prompt, prefix: str) -> list[dict[str, str]]:
    """A conversation with a text before its last turn, the user's: what a base model without a template reads alone."""
    turns = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in prompt.messages]
    turns[-1]["content"] = prefix + turns[-1]["content"]
    return turns
