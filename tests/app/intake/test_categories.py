"""The guess at a prompt's use case, against rows of real sets labelled by hand."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from app.intake.categories import suggest_category
from app.models import Category

ROWS = [json.loads(line) for line in Path(__file__).with_name("categories.jsonl").read_text().splitlines()]


def suggest(text: str) -> Category | None:
    return suggest_category([{"role": "user", "content": text}])


class TestSuggestCategory:
    @pytest.mark.parametrize(
        ("text", "category"),
        [
            ("Summarize this for a second-grade student:\n\nJupiter is the fifth planet.", Category.SUMMARIZATION),
            ("tl;dr: I went home and slept.", Category.SUMMARIZATION),
            ("Translate this sentence to Spanish: I am late.", Category.REWRITE),
            ("Can you fix the grammar in my email?", Category.REWRITE),
            ("Is this tweet's sentiment positive, neutral, or negative? 'I loved it'", Category.CLASSIFICATION),
            ("Extract all place names from the article below.\n\nBoise is a town.", Category.EXTRACT),
            ("List all names in the following text:\n\nAda met Bo.", Category.EXTRACT),
            ("According to the passage below, who won?\n\nThe reds did.", Category.CLOSED_QA),
            ("Who won?\n\n" + "The match began at noon and went on for long. " * 20, Category.CLOSED_QA),
            ("List five ideas for how to regain enthusiasm for my career", Category.BRAINSTORMING),
            ("What are some things to see in Rome?", Category.BRAINSTORMING),
            ("Write a short story where a brown bear goes to the beach.", Category.GENERATION),
            ("Who built the statue of liberty?", Category.OPEN_QA),
            ("Define the term 'mitosis'.", Category.OPEN_QA),
            ("User: hi\nBot: hello\nUser: how are you?\nBot:", Category.CHAT),
            ("start over", None),
            ("asdf qwer", None),
            ("", None),
        ],
    )
    def test_reads_the_use_cases_of_the_paper(self, text, category):
        assert suggest(text) is category

    def test_reads_the_last_turn_of_the_user(self):
        turns = [
            ("user", "Write a poem."),
            ("assistant", "Roses."),
            ("user", "Translate it into French."),
            ("assistant", "Des roses."),
        ]
        assert suggest_category([{"role": role, "content": content} for role, content in turns]) is Category.REWRITE

    def test_without_a_user_there_is_no_guess(self):
        assert suggest_category([]) is None
        assert suggest_category([{"role": "system", "content": "Write a poem."}]) is None

    def test_is_mostly_right_on_real_rows(self):
        wrong = Counter(
            (row["category"], str(suggest(row["text"]))) for row in ROWS if suggest(row["text"]) != row["category"]
        )
        share = 1 - sum(wrong.values()) / len(ROWS)
        assert share >= 0.9, f"{share:.1%} of {len(ROWS)} right; wrong: {dict(wrong)}"

    @pytest.mark.parametrize("unit", ["write ", "a: b\n", "\n", "? ", "list the ", "x"])
    def test_of_a_megabyte_only_the_beginning_is_read(self, unit):
        began = time.process_time()
        suggest(unit * (1_000_000 // len(unit)))
        assert time.process_time() - began < 0.5
