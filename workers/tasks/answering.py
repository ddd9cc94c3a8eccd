"""The model that answers prompts in this worker: loaded once, kept while it is asked for, and asked for answers that differ."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app import storage
from app.models import Prompt, Sampler
from app.schemas.projects import SamplingSettings
from app.services.tasks import NewSample, same_text
from app.settings import Settings, get_settings

if TYPE_CHECKING:
    from workers.training.engine import Engine, Response

REDRAWS = 6
"""How often answers that repeat one another are drawn again, until the prompt is passed over."""


@dataclass
class Model:
    """A loaded checkpoint, and the prompts it was seen to give too few different answers to, by sampler and number of answers."""

    sha256: str
    engine: "Engine"
    _passed_over: dict[tuple[bytes, int], set[int]] = field(default_factory=dict)

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together that the model was built for."""
        return self.engine.context

    def passed_over(self, sampler: Sampler, count: int) -> set[int]:
        """Prompts that this sampler need not be asked again for so many different answers; add to it."""
        return self._passed_over.setdefault((sampler.fingerprint, count), set())

    def count_tokens(self, prompt: Prompt) -> int:
        """Length of a prompt as the model reads it."""
        from workers.training.conversation import encode_prompt

        return len(encode_prompt(self.engine.tokenizer, prompt.messages))  # type: ignore[arg-type]  # checked on import

    def answer(
        self,
        prompts: Sequence[Prompt],
        count: int,
        decoding: SamplingSettings,
        sampler_id: int,
        *,
        keep_going: Callable[[], None],
    ) -> list[tuple[NewSample, ...]]:
        """`count` different answers to each prompt; an empty tuple where the model keeps repeating itself.

        Every draw is fresh, with the order of draws kept: an answer that repeats an earlier one is left out and another is
        drawn. `keep_going` is called between draws, and may raise.
        """
        found: list[dict[str, NewSample]] = [{} for _ in prompts]
        for _ in range(REDRAWS + 1):
            short = [at for at, answers in enumerate(found) if len(answers) < count]
            if not short:
                break
            keep_going()
            drawn = self.engine.sample(
                [prompts[at].messages for at in short],  # type: ignore[misc]  # checked on import
                n=count,
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                max_new_tokens=decoding.max_new_tokens,
                seed=secrets.randbits(62),
            )
            for at, responses in zip(short, drawn, strict=True):
                for response in responses:
                    sample = _sample(response, sampler_id)
                    found[at].setdefault(same_text(sample.text), sample)
        return [tuple(answers.values())[:count] if len(answers) >= count else () for answers in found]


_loaded: list[Model] = []  # at most one: two models may not fit into memory


def load(sha256: str) -> Model:
    """The model with this identity; what was loaded before is let go first."""
    if not _loaded or _loaded[0].sha256 != sha256:
        _loaded.clear()
        _loaded.append(Model(sha256, _load_engine(sha256, get_settings())))
    return _loaded[0]


def _load_engine(sha256: str, settings: Settings) -> "Engine":
    from workers.training.process import pick_device, quiet

    quiet()
    import torch

    from workers.training.engine import Engine

    torch.set_num_threads(settings.sample_threads)
    return Engine.load(storage.checkpoint_folder(settings, sha256), pick_device(settings.device))


def _sample(response: "Response", sampler_id: int) -> NewSample:
    text = response.text.replace("\0", "\N{REPLACEMENT CHARACTER}")  # the one character PostgreSQL cannot store
    return NewSample(text, sampler_id, response.seed, len(response.token_ids), response.finish_reason)
