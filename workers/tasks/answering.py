"""The model that answers prompts in this worker: loaded once, kept while it is asked for, and asked for answers that differ."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app import storage
from app.models import Prompt, Sampler
from app.schemas.projects import SamplingSettings
from app.schemas.values import storable
from app.services.tasks import NewSample, same_text
from app.settings import Settings, get_settings

if TYPE_CHECKING:
    from workers.training.engine import Engine, Response
    from workers.training.scoring import Judge

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


_loaded: list[Model] = []  # at most one here and in `_judges` together: two models may not fit into memory
_judges: list[tuple[str, "Judge"]] = []


def load(sha256: str) -> Model:
    """The model with this identity; what was loaded before is let go first."""
    if not _loaded or _loaded[0].sha256 != sha256:
        _let_go()
        _loaded.append(Model(sha256, _load_engine(sha256, get_settings())))
    return _loaded[0]


def load_judge(sha256: str) -> "Judge":
    """The reward model with this identity; what was loaded before is let go first."""
    if not _judges or _judges[0][0] != sha256:
        _let_go()
        settings = get_settings()
        device = _prepare(settings)
        from workers.training.scoring import Judge

        _judges.append((sha256, Judge.load(storage.checkpoint_folder(settings, sha256), device)))
    return _judges[0][1]


def _let_go() -> None:
    _loaded.clear()
    _judges.clear()


def _load_engine(sha256: str, settings: Settings) -> "Engine":
    device = _prepare(settings)
    from workers.training.engine import Engine

    return Engine.load(storage.checkpoint_folder(settings, sha256), device)


def _prepare(settings: Settings) -> str:
    """Load torch with this worker's share of the machine; the device to use."""
    from workers.training.process import pick_device, quiet

    quiet()
    import torch

    torch.set_num_threads(settings.sample_threads)
    return pick_device(settings.device)


def _sample(response: "Response", sampler_id: int) -> NewSample:
    return NewSample(
        storable(response.text), sampler_id, response.seed, len(response.token_ids), response.finish_reason
    )
