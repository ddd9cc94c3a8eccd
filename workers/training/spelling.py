"""The text of a response while it grows: whole characters only, and where it ends for a stop string."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from workers.training import conversation

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What decoders write for the first bytes of a character whose others are still to come."""


class Spelling:
    """Text of a response, token by token.

    A token that ends within a character adds nothing until the character is whole. Tokens are decoded behind the few before
    them, since many tokenizers spell a token otherwise at the beginning of a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.text = ""
        self.is_cut = False
        """Whether a stop string was met; `text` is then what comes before it."""
        self._tokens: list[int] = []
        self._lengths: list[int] = []  # characters spelled by the first token, by the first two, ...
        self._behind, self._read = 0, 0  # tokens decoded again as context, and tokens spelled so far
        self._given = 0

    def add(self, token: int) -> None:
        """One more token, while no stop string was met."""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._behind : self._read])
        after = self._decode(self._tokens[self._behind :])
        if len(after) > len(before) and not after.endswith(UNFINISHED):
            self._behind, self._read = self._read, len(self._tokens)
            self._append(after[len(before) :])
        self._lengths.append(len(self.text))

    def take(self) -> str:
        """The text that was added since the last call and is no beginning of a stop string."""
        held = 0 if self.is_cut else max((_overlap(self.text, stop) for stop in self.stop), default=0)
        piece = self.text[self._given : len(self.text) - held]
        self._given += len(piece)
        return piece

    def finish(self, text: str) -> str:
        """What is left to give of the whole `text`."""
        return text[self._given :]

    def count_tokens(self) -> int:
        """The fewest tokens that spell `text` once it is cut."""
        return next(at for at, length in enumerate([0, *self._lengths]) if length >= len(self.text))

    def _append(self, piece: str) -> None:
        searched = max(0, len(self.text) - max(map(len, self.stop), default=1) + 1)
        self.text += piece
        places = [at for stop in self.stop if (at := self.text.find(stop, searched)) >= 0]
        if places:
            self.text, self.is_cut = self.text[: min(places)], True

    def _decode(self, tokens: list[int]) -> str:
        return conversation.decode_response(self.tokenizer, tokens)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest beginning of `stop` that `text` ends in."""
    return next(size for size in range(min(len(stop) - 1, len(text)), -1, -1) if text.endswith(stop[:size]))
