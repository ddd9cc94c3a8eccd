"""Trees of messages with ranked replies, as OpenAssistant exports them."""

import itertools
from collections.abc import Iterator
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass

from app.intake.drafts import RANKED, Answer, Draft
from app.intake.mapping import MOST_RESPONSES, Mapping
from app.intake.turns import kind_of
from app.models import ImportKind
from app.schemas.prompts import Message

Node = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Place:
    """A prompter's message in its tree."""

    node: Node
    before: tuple[Message, ...]
    parent: str | None
    """Id of the prompter's message one exchange earlier."""


def is_tree(value: ReadOnly[str, object]) -> bool:
    """Whether a row is a tree: a prompt with replies under "prompt", or that prompt itself."""
    return _find_root(value) is not None


def read_tree(value: ReadOnly[str, object], kind: ImportKind, mapping: Mapping) -> list[Draft]:
    """A draft for each prompter's message that has replies enough for the kind; all are of one source, so of one split.

    Prompts and demonstrations are taken from the root alone, unless the mapping asks for every turn; a demonstration is
    the best reply. Of replies with the same text the better counts, of more than nine the best nine.
    Raises ValueError for what is no tree or has none.
    """
    root = _find_root(value)
    if root is None:
        raise ValueError('expected a tree: an object with "text" and "replies", or one that holds it as "prompt"')
    places = _walk(root)
    if kind not in RANKED and not mapping.every_turn:
        places = itertools.islice(places, 1)
    tree = value.get("message_tree_id") or root.get("message_id")
    least = {ImportKind.PROMPTS: 0, ImportKind.DEMONSTRATIONS: 1}.get(kind, 2)
    drafts = [
        _draft(place, replies, str(tree) if tree else None, kind)
        for place in places
        if len(replies := _rank(place.node)) >= least
    ]
    if not drafts:
        raise ValueError(f"no prompt of this tree has {least} or more replies; leave the tree out")
    return drafts


def _find_root(value: ReadOnly[str, object]) -> Node | None:
    held = value.get("prompt")
    root = held if isinstance(held, dict) else dict(value)
    return root if isinstance(root.get("replies"), list) and "text" in root else None


def _walk(root: Node) -> Iterator[_Place]:
    """The prompter's messages, parents first."""
    places = [_Place(root, (), None)]
    while places:
        place = places.pop()
        yield place
        said: tuple[Message, ...] = (*place.before, _turn(place.node, "user"))
        key = _id(place.node)
        for reply in reversed(_replies(place.node)):
            answered = (*said, _turn(reply, "assistant"))
            places += [_Place(node, answered, key) for node in reversed(_replies(reply))]


def _replies(node: Node) -> list[Node]:
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise ValueError(f"the replies of a message are {kind_of(replies)}; expected a list of messages")
    return [reply for reply in replies if not reply.get("deleted")]


def _rank(node: Node) -> list[tuple[int, Node]]:
    """The replies with their ranks, the best first; where a rank is missing, their order in the file ranks them."""
    replies = [reply for reply in _replies(node) if isinstance(text := reply.get("text"), str) and text.strip()]
    ranks = [reply.get("rank") for reply in replies]
    if not all(type(rank) is int for rank in ranks):
        ranks = list(range(len(replies)))
    ranked = sorted(
        ((int(str(rank)), reply) for rank, reply in zip(ranks, replies, strict=True)), key=lambda pair: pair[0]
    )
    first = {str(reply["text"]): (rank, reply) for rank, reply in reversed(ranked)}
    return sorted(first.values(), key=lambda pair: pair[0])[:MOST_RESPONSES]


def _draft(place: _Place, replies: list[tuple[int, Node]], tree: str | None, kind: ImportKind) -> Draft:
    row: dict[str, object] = {"messages": [*place.before, _turn(place.node, "user")], "source": tree}
    if kind is ImportKind.PROMPTS:
        row |= {"key": _id(place.node), "parent": place.parent}
    if kind is ImportKind.DEMONSTRATIONS:
        replies = replies[:1]
    answers = tuple(
        Answer(reply["text"], f"reply {number}", rank, _sampler(reply))
        for number, (rank, reply) in enumerate(replies, start=1)
    )
    return Draft(row, answers)


def _turn(node: Node, role: str) -> Message:
    text = node.get("text")
    if not isinstance(text, str):
        raise ValueError(f"a message of the tree has a text that is {kind_of(text)}; expected text")
    return {"role": role, "content": text}


def _id(node: Node) -> str | None:
    name = node.get("message_id")
    return name if isinstance(name, str) else None


def _sampler(reply: Node) -> str | None:
    name = reply.get("model_name")
    return name if reply.get("synthetic") and isinstance(name, str) else None
