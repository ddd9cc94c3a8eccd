"""What a run of PPO learns from and is measured on: prompts, and pretraining text where there is some."""

from dataclasses import dataclass
from pathlib import Path

from app import snapshot
from workers.training import data, pretraining
from workers.training.starts import Models


@dataclass(frozen=True)
class Material:
    """Prompts by use, and text."""

    prompts: list[data.Prompt]
    heldout: list[data.Prompt]
    too_long: list[str]
    """Ids of prompts that leave no room for a response."""
    text: pretraining.Text | None
    snapshot: str
    """Identity of the snapshot that the prompts come from."""

    @classmethod
    def read(cls, parts: Models, folder: Path, max_new_tokens: int, text: Path | None, block_tokens: int) -> "Material":
        """The prompts of a snapshot that leave room for a response, the blocks of a text snapshot, at most the context long.

        Raises ValueError where no prompt is left to train on, or the text is too short.
        """
        manifest = snapshot.read_manifest(folder)
        context = data.context_length(parts.policy.config)
        prompts, too_long = data.read_prompts(folder, parts.tokenizer, context - max_new_tokens)
        chosen = [prompt for prompt in prompts if prompt.split == "train"]
        if not chosen:
            raise ValueError(
                f"{folder} has no prompt in split 'train' that leaves room for {max_new_tokens} tokens of response"
            )
        heldout = [prompt for prompt in prompts if prompt.split == "valid"]
        blocks = pretraining.Text.read(text, parts.tokenizer, min(block_tokens, context)) if text is not None else None
        return cls(chosen, heldout, too_long, blocks, manifest.sha256)

    def counts(self) -> dict[str, int]:
        """How much there is of each kind."""
        counts = {"prompts": len(self.prompts), "heldout_prompts": len(self.heldout), "dropped": len(self.too_long)}
        counts["prompt_tokens"] = sum(len(prompt.ids) for prompt in self.prompts)
        return counts | ({"text_blocks": len(self.text.train)} if self.text is not None else {})
