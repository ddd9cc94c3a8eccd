"""The texts of the pictures, read from small files in the data's form; the data themselves are no part of the project."""

import json
from pathlib import Path
from typing import Any

from studies.ranking_screens import read_conversation, read_story


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_story_has_its_nine_longest_summaries(tmp_path: Path) -> None:
    told = [{"response_text": "s" * length} for length in range(1, 13)]
    rows = [
        {"document": "a longer story", "questions": []},
        {"document": "short", "questions": [{"responses": told[:6]}, {"responses": told[6:]}]},
    ]
    task = read_story(write(tmp_path / "dev.jsonl", rows))
    assert task.messages == [{"role": "user", "content": "Summarise this story.\n\nshort"}]
    assert [len(text) for text in task.responses] == list(range(4, 13))


def turn(role: str, text: str, *replies: dict[str, Any]) -> dict[str, Any]:
    return {"role": role, "text": text, "replies": list(replies)}


def test_a_conversation_ends_where_most_replied(tmp_path: Path) -> None:
    deep = turn("prompter", "And then?", *(turn("assistant", "x" * length) for length in range(1, 11)))
    rows = [
        {"prompt": turn("prompter", "Alone?", turn("assistant", "Yes."))},
        {"prompt": turn("prompter", "First?", turn("assistant", "Second.", deep), turn("assistant", "Third."))},
    ]
    task = read_conversation(write(tmp_path / "trees.jsonl", rows))
    assert task.messages == [
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "Second."},
        {"role": "user", "content": "And then?"},
    ]
    assert [len(text) for text in task.responses] == list(range(2, 11))
