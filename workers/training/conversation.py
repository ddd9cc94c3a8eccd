"""The one place where messages become token ids: supervised fine-tuning, reward model, PPO, sampler and scorer all render here.

One format per checkpoint. A tokenizer with a chat template keeps it. For one without, supervised fine-tuning writes ours into
the tokenizer (`write_template`); until then its checkpoint is a plain language model and reads the raw text of the last user
turn. A response is its text plus the end token. Prompt and response are tokenised separately and joined as ids, so that the
boundary between them is the same in every stage, whatever the merges of the tokenizer. The end token is what the chat template
puts behind an assistant's text (Gemma's <end_of_turn>), which need not be the tokenizer's `eos_token`; the sampler stops at both.
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from typing import Any, TypedDict
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")
PAD_TOKEN = "<|pad|>"  # noqa: S105 - a token of a vocabulary, no secret
TEMPLATE = (
    "{{ bos_token or '' }}"
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Our chat template: a role marker, the text, and after an assistant's text the end token; it ends in the assistant's header."""

ONE_DAY = (
    "{% macro strftime_now(format) %}{{ format.replace('%d', '26').replace('%b', 'Jul').replace('%B', 'July')"
    ".replace('%m', '07').replace('%Y', '2024') }}{% endmacro %}"
)
"""Put before a chat template, which may ask for the date (Llama 3's does): a checkpoint reads a prompt alike on every day."""

PROBE: "tuple[Message, ...]" = (
    {"role": "user", "content": "Hello, you."},
    {"role": "assistant", "content": "42"},
    {"role": "user", "content": "Why?"},
)
"""A conversation whose ids go into `format_sha256`, so that a changed vocabulary is noticed like a changed template."""


_known_ends: "WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, int]]" = WeakKeyDictionary()


class Message(TypedDict):
    """One turn of a conversation; `role` is one of `ROLES`."""

    role: str
    content: str


def write_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without chat template ours, its role markers as special tokens of their own."""
    if tokenizer.chat_template:
        return
    markers = [f"<|{role}|>" for role in ROLES]
    tokenizer.add_special_tokens({"additional_special_tokens": markers})
    tokenizer.chat_template = TEMPLATE


def end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that closes a response: the special token behind an assistant's text in the chat template, else `eos_token`."""
    state = (tokenizer.chat_template, tokenizer.eos_token, len(tokenizer))
    known = _known_ends.get(tokenizer)
    if known is None or known[0] != state:
        known = _known_ends[tokenizer] = (state, _find_end(tokenizer))
    return known[1]


def end_tokens(tokenizer: PreTrainedTokenizerBase, generation_config: Any = None) -> frozenset[int]:
    """Every token that ends a response: the one that closes it, `eos_token`, and those named by the model's generation config."""
    named = getattr(generation_config, "eos_token_id", None)
    named = named if isinstance(named, list | tuple) else [] if named is None else [named]
    return frozenset({end_token(tokenizer), tokenizer.eos_token_id, *named} - {None})


def ensure_pad(tokenizer: PreTrainedTokenizerBase, ends: Collection[int] = ()) -> None:
    """Make PAD a token that no text contains, adding one where it is missing or doubles as an end, begin or unknown token.

    `ends` are end tokens that the tokenizer does not know of. With PAD equal to the end token the end would be masked from the
    loss and the model would never learn to stop, and transformers' reward-model pooling, which looks for the last token that is
    not PAD, would read the wrong one.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end token (eos_token); set one, or the model can never end a response")
    taken = {*end_tokens(tokenizer), *ends, tokenizer.bos_token_id, tokenizer.unk_token_id}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in taken:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Render a conversation that ends in a user's turn to ids, up to where the response begins.

    Raises ValueError for an empty conversation, an unknown role, or a last turn that is not the user's.
    """
    _check(messages)
    if not tokenizer.chat_template:
        return _without_end(tokenizer, tokenizer(_defuse(tokenizer, messages[-1]["content"]))["input_ids"])
    turns = [Message(role=turn["role"], content=_defuse(tokenizer, turn["content"])) for turn in messages]
    try:
        text = _render(tokenizer, turns, add_generation_prompt=True)
    except TemplateError as error:
        raise ValueError(f"the model's chat template refuses this conversation: {error}") from error
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str, *, ended: bool = True) -> list[int]:
    """The ids of a response: its text and, unless it was cut at the length limit (`ended` False), the end token."""
    ids = list(tokenizer(_defuse(tokenizer, text), add_special_tokens=False)["input_ids"])
    return [*ids, end_token(tokenizer)] if ended else ids


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of a document of plain text, with the begin token if the tokenizer adds one, and the end token behind it."""
    ids = _without_end(tokenizer, tokenizer(_defuse(tokenizer, text))["input_ids"])
    return [*ids, tokenizer.eos_token_id]


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of a response, without the end token or any other special token."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


def format_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Identity of a format: template, begin and end token, and the ids of a probe conversation. PAD is no part of it."""
    template = tokenizer.chat_template or ""
    probe = encode_prompt(tokenizer, PROBE) + encode_response(tokenizer, PROBE[1]["content"])
    parts = [template, tokenizer.bos_token or "", tokenizer.eos_token, probe]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def show_mask(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], response: str) -> str:
    """The conversation as the model reads it, with the tokens that carry loss in brackets."""
    plain = tokenizer.decode(encode_prompt(tokenizer, messages), clean_up_tokenization_spaces=False)
    pieces = [
        tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in encode_response(tokenizer, response)
    ]
    return plain + "".join(f"[{piece}]" for piece in pieces)


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise ValueError("the conversation is empty; expected at least one user turn")
    if unknown := {turn["role"] for turn in messages} - set(ROLES):
        raise ValueError(f"unknown role {sorted(unknown)[0]!r}; expected one of {', '.join(ROLES)}")
    if messages[-1]["role"] != "user":
        raise ValueError(
            f"the conversation ends in a {messages[-1]['role']} turn; expected the user's, which the response answers"
        )


def _defuse(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Split the first character off special tokens spelled out in `text`: typed by a person they are text and forge no turn."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content in text:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text


def _render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Message], *, add_generation_prompt: bool) -> str:
    template = ONE_DAY + tokenizer.get_chat_template()
    return str(
        tokenizer.apply_chat_template(
            list(turns), chat_template=template, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    )


def _find_end(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.chat_template:
        try:
            text = _render(tokenizer, PROBE[:2], add_generation_prompt=False)
        except TemplateError:  # `encode_prompt` says so, of the prompt that is refused
            text = ""
        _, answered, behind = text.rpartition(PROBE[1]["content"])
        special = {token.content: at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
        found = [token for token in special if answered and behind.lstrip().startswith(token)]
        if found:
            return int(special[max(found, key=len)])
    return tokenizer.eos_token_id


def _without_end(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    ids = list(ids)
    return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids
