"""Imports from the upload to the rows: what comes in, what is kept out and why; killed workers lose and double nothing."""

import csv
import gzip
import io
import json
from typing import Any

import pytest
from sqlalchemy import select

from app import db, storage
from app.errors import BadInput
from app.markup import render_markdown
from app.models import (
    Category,
    JobState,
    Prompt,
    PromptStatus,
    Sample,
    SampleOrigin,
    Split,
)
from app.permissions import Access
from app.settings import get_settings
from tests.app import registry
from tests.workers.tasks.importing import LONG, bring, count, jsonl, put, read, start, stored
from workers.tasks.imports import import_file


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


class TestPrompts:
    def test_come_in_with_everything_a_row_says(self, admin: Access) -> None:
        row = {
            "prompt": "Größe?",
            "category": "chat",
            "source": "w1",
            "split": "valid",
            "reference": "3 m",
            "licence": "CC0",
            "needs": ["skill:math"],
        }
        counts, refusals = bring(admin, [row, {"prompt": "Tell me of the sea."}], consent="asked")
        assert (counts.rows, counts.added, refusals) == (2, 2, [])
        first, second = stored(admin)
        assert first.messages == [user("Größe?")]
        assert (first.category, first.source, first.split, first.reference) == (Category.CHAT, "w1", Split.VALID, "3 m")
        assert (first.licence, first.needs, second.consent) == ("CC0", ["skill:math"], "asked")
        assert second.language == "en"
        assert first.import_id == second.import_id is not None

    def test_a_refused_row_keeps_the_others_in_and_is_named(self, admin: Access) -> None:
        rows = [
            {"prompt": "Good one?", "category": "open_qa"},
            "{not json",
            {"prompt": " "},
            {"prompt": "Another?", "category": "poetry"},
        ]
        counts, refusals = bring(admin, rows)
        assert (counts.rows, counts.added, counts.refused) == (4, 1, 3)
        assert [line for line, _ in refusals] == [2, 3, 4]
        assert "not JSON" in refusals[0][1]
        assert "poetry" in refusals[2][1]

    def test_a_prompt_beyond_the_context_is_refused(self, admin: Access) -> None:
        with db.transaction() as session:
            base = session.get_one(registry.BaseCheckpoint, admin.project.base_checkpoint_id)
        folder = storage.checkpoint_folder(get_settings(), base.sha256)
        (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 128}))
        counts, refusals = bring(admin, [{"prompt": "x" * 2000}, {"prompt": "short"}])
        assert counts.added == 1
        assert refusals[0][1].startswith("the prompt has 2,000 characters; the context of")

    def test_the_same_file_twice_adds_nothing(self, admin: Access) -> None:
        rows = [{"prompt": f"What is {number} and {number}?", "source": f"w{number % 3}"} for number in range(50)]
        assert bring(admin, rows)[0].added == 50
        before = [(prompt.id, prompt.status) for prompt in stored(admin)]
        counts, _ = bring(admin, rows, pool="another")
        assert (counts.added, counts.known) == (0, 50)
        assert [(prompt.id, prompt.status) for prompt in stored(admin)] == before

    def test_the_same_prompt_twice_in_a_file_is_one(self, admin: Access) -> None:
        counts, _ = bring(admin, [{"prompt": "One  two"}, {"prompt": "One two"}])
        assert (counts.added, counts.known) == (1, 1)


class TestKeptOut:
    def test_a_near_duplicate_is_stored_beside_its_original(self, admin: Access) -> None:
        other = LONG.replace("bad.", "wet.")
        counts, _ = bring(admin, [{"prompt": LONG}, {"prompt": other}])
        assert (counts.added, counts.near) == (1, 1)
        first, second = stored(admin)
        assert (second.status, second.duplicate_of_id) == (PromptStatus.DUPLICATE, first.id)

    def test_it_is_found_across_imports_and_among_prompts_that_came_otherwise(self, admin: Access) -> None:
        registry_row = {"prompt": LONG}
        bring(admin, [registry_row])
        assert bring(admin, [{"prompt": LONG.replace("bad.", "wet.")}])[0].near == 1

    def test_a_duplicate_is_no_original(self, admin: Access) -> None:
        """B is near A; C is near B, and not near A: C comes in."""
        words = LONG.split()
        second = " ".join([*words[:-3], "x", "y", "z"])
        third = " ".join([*words[3:-3], "x", "y", "z", "u", "v", "w"])
        counts, _ = bring(admin, [{"prompt": LONG}, {"prompt": second}, {"prompt": third}])
        assert (counts.added, counts.near) == (2, 1)

    def test_a_long_common_prefix_is_one(self, admin: Access) -> None:
        rows = [{"prompt": f"{LONG} {ending}"} for ending in ("How many? " * 30, "Which of them is the eldest? " * 30)]
        assert bring(admin, rows)[0].prefix == 1

    def test_neither_is_looked_for_where_that_is_not_wanted(self, admin: Access) -> None:
        rows = [{"prompt": LONG}, {"prompt": LONG.replace("bad.", "wet.")}]
        assert bring(admin, rows, leaves_out_near=False, leaves_out_prefixes=False)[0].added == 2

    def test_a_source_has_as_many_as_the_cap(self, admin: Access) -> None:
        rows = [{"prompt": f"Question number {number}?", "source": "w"} for number in range(7)]
        counts, _ = bring(admin, rows, most_per_source=3)
        assert (counts.added, counts.capped) == (3, 4)
        assert bring(admin, [{"prompt": "One more?", "source": "w"}], most_per_source=3)[0].capped == 1
        assert bring(admin, [{"prompt": "And one?", "source": "w"}], most_per_source=0)[0].added == 1
        assert [prompt.status for prompt in stored(admin)].count(PromptStatus.CAPPED) == 5

    def test_prompts_without_a_source_are_not_counted_together(self, admin: Access) -> None:
        rows = [{"prompt": f"Question number {number}?"} for number in range(7)]
        assert bring(admin, rows, most_per_source=2)[0].added == 7

    def test_personal_data_is_quarantined_with_its_places(self, admin: Access) -> None:
        text = "Write to anna.kowalski@example.com about the flat."
        counts, _ = bring(admin, [{"prompt": text}, {"prompt": "Write about the flat by the river."}])
        assert (counts.added, counts.pii) == (1, 1)
        first, _ = stored(admin)
        assert first.status == PromptStatus.PII
        (found,) = first.findings
        assert (found["kind"], text[found["start"] : found["end"]]) == ("email", "anna.kowalski@example.com")
        assert bring(admin, [{"prompt": "Is bob@example.com his?"}], looks_for_pii=False)[0].added == 1

    def test_another_language_is_kept_out_and_what_cannot_be_told_let_in(self, admin: Access) -> None:
        german = "Welche Vögel leben an der Küste, und was fressen sie dort im Winter?"
        rows = [{"prompt": german}, {"prompt": "Which birds live at the coast in the winter?"}, {"prompt": "7 * 6"}]
        counts, _ = bring(admin, rows, languages="EN, fr")
        assert (counts.added, counts.language) == (2, 1)
        assert {prompt.language for prompt in stored(admin)} == {"de", "en", None}


class TestSplits:
    def test_a_source_stays_on_its_side_and_a_row_that_disagrees_is_refused(self, admin: Access) -> None:
        bring(admin, [{"prompt": "a?", "source": "w", "split": "test"}])
        counts, refusals = bring(
            admin, [{"prompt": "b?", "source": "w"}, {"prompt": "c?", "source": "w", "split": "train"}]
        )
        assert counts.added == 1
        assert {prompt.split for prompt in stored(admin)} == {Split.TEST}
        assert refusals[0][0] == 2
        assert "'w' is in test already and a row puts it into train" in refusals[0][1]

    def test_a_parent_gives_source_and_split(self, admin: Access) -> None:
        rows = [
            {"prompt": "Later?", "key": "b", "parent": "a"},
            {"prompt": "First?", "key": "a", "split": "valid"},
            {"prompt": "Lost?", "parent": "gone"},
            {"prompt": "Round?", "key": "x", "parent": "y"},
            {"prompt": "And round?", "key": "y", "parent": "x"},
        ]
        counts, refusals = bring(admin, rows)
        by_text = {prompt.messages[-1]["content"]: prompt for prompt in stored(admin)}
        assert by_text["Later?"].parent_id == by_text["First?"].id
        assert (by_text["Later?"].source, by_text["Later?"].split) == (by_text["First?"].source, Split.VALID)
        assert [line for line, _ in refusals] == [3, 4, 5]
        assert counts.added == 2

    def test_a_parent_may_be_batches_before(self, admin: Access, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.services.import_work.BATCH_ROWS", 2)
        rows = [{"prompt": f"Turn {number}?", "key": f"k{number}"} for number in range(7)]
        for number in range(1, 7):
            rows[number]["parent"] = f"k{number - 1}"
        bring(admin, rows)
        chain = stored(admin)
        assert [prompt.parent_id for prompt in chain] == [None, *[prompt.id for prompt in chain[:-1]]]
        assert len({(prompt.source, prompt.split) for prompt in chain}) == 1


class TestEveryTurn:
    """A conversation of several turns as one prompt for each turn of its user."""

    TALK = (user("One?"), assistant("1."), user("Two?"), assistant("2."), user("Three?"))

    def bring(self, admin: Access, *rows: object) -> Any:
        with_turns = {"shape": "preferable", "columns": {}, "every_turn": True}
        return bring(admin, list(rows), mapping=with_turns)

    def test_each_is_a_prompt_whose_parent_is_the_one_before(self, admin: Access) -> None:
        counts, _ = self.bring(admin, {"messages": self.TALK, "category": "chat", "reference": "3.", "licence": "MIT"})
        assert (counts.added, counts.samples) == (3, 2)
        first, second, third = stored(admin)
        assert [prompt.messages for prompt in (first, second, third)] == [list(self.TALK[:end]) for end in (1, 3, 5)]
        assert (first.parent_id, second.parent_id, third.parent_id) == (None, first.id, second.id)
        assert len({(prompt.source, prompt.split) for prompt in (first, second, third)}) == 1
        assert [(prompt.category, prompt.reference, prompt.licence) for prompt in (second, third)] == [
            (None, None, "MIT"),
            (Category.CHAT, "3.", "MIT"),
        ]

    def test_the_answers_given_are_samples_of_their_prompts(self, admin: Access) -> None:
        self.bring(admin, {"messages": [*self.TALK, assistant("**3.**")]})
        with db.transaction() as session:
            rows = session.execute(select(Prompt.messages, Sample).join(Sample, Sample.prompt_id == Prompt.id)).all()
        kept = {(messages[-1]["content"], sample.text, sample.origin, sample.html) for messages, sample in rows}
        origin = SampleOrigin.IMPORTED
        assert kept == {
            ("One?", "1.", origin, render_markdown("1.")),
            ("Two?", "2.", origin, render_markdown("2.")),
            ("Three?", "**3.**", origin, "<p><strong>3.</strong></p>"),
        }

    def test_conversations_that_begin_alike_share_their_beginning(self, admin: Access) -> None:
        other = [*self.TALK[:1], assistant("Eins."), user("Zwei?")]
        for added in (4, 0):
            counts, _ = self.bring(admin, {"messages": self.TALK}, {"messages": other})
            assert (counts.added, counts.known) == (added, 5 - added)
            assert counts.samples == (3 if added else 0), "1., 2. and Eins.; none twice"
        parents = [prompt.parent_id for prompt in stored(admin) if prompt.messages != [user("One?")]]
        assert parents.count(stored(admin)[0].id) == 2
        assert len({prompt.split for prompt in stored(admin)}) == 1

    def test_another_source_s_prompt_is_no_part_of_a_conversation(self, admin: Access) -> None:
        other = {"messages": [*self.TALK[:1], assistant("Eins."), user("Zwei?")], "source": "b", "split": "test"}
        counts, _ = self.bring(admin, {"messages": self.TALK, "source": "a", "split": "train"}, other)
        assert (counts.added, counts.known, counts.samples, counts.foreign) == (4, 1, 2, 1)
        by_text = {prompt.messages[-1]["content"]: prompt for prompt in stored(admin)}
        assert (by_text["Zwei?"].split, by_text["Zwei?"].parent_id) == (Split.TEST, None)
        assert by_text["Two?"].parent_id == by_text["One?"].id


class TestFiles:
    def test_csv_by_columns(self, admin: Access) -> None:
        out = io.StringIO()
        csv.writer(out).writerows([["frage", "wer"], ["Wo liegt\nRom?", "w1"], ["Wo liegt Oslo?", "w2"]])
        mapping = {"shape": "columns", "columns": {"prompt": "frage", "source": "wer"}}
        counts, _ = bring(admin, out.getvalue().encode(), name="fragen.csv", mapping=mapping)
        assert counts.added == 2
        assert [(prompt.messages[0]["content"], prompt.source) for prompt in stored(admin)] == [
            ("Wo liegt\nRom?", "w1"),
            ("Wo liegt Oslo?", "w2"),
        ]

    def test_gzip(self, admin: Access) -> None:
        assert bring(admin, gzip.compress(jsonl({"prompt": "One?"})), name="a.jsonl.gz")[0].added == 1

    def test_parquet(self, admin: Access) -> None:
        import pyarrow
        from pyarrow import parquet

        out = io.BytesIO()
        parquet.write_table(pyarrow.table({"prompt": ["One?", "Two?"], "source": ["a", "b"]}), out)
        assert bring(admin, out.getvalue(), name="a.parquet")[0].added == 2

    @pytest.mark.parametrize(
        ("name", "data"),
        [("empty.jsonl", b""), ("a.zip", b"PK\x03\x04" + b"\0" * 50), ("a.pkl", b"\x80\x04\x95" + b"\0" * 50)],
    )
    def test_what_is_none_is_refused_and_leaves_nothing(self, admin: Access, name: str, data: bytes) -> None:
        with pytest.raises(BadInput):
            put(admin, data, name=name)
        folder = get_settings().store / "imports"
        assert not folder.exists() or not list(folder.iterdir())

    def test_a_damaged_archive_says_so_and_keeps_what_came_before(self, admin: Access) -> None:
        whole = gzip.compress(jsonl(*({"prompt": f"Number {number}?"} for number in range(20_000))))
        uid = put(admin, whole[: len(whole) // 2], name="a.jsonl.gz")
        import_file(start(admin, uid))
        row, counts, _ = read(admin, uid)
        assert row.job is not None
        assert row.job.state == JobState.FAILED
        assert "cannot be read on" in (row.job.error or "")
        assert counts.added == count(Prompt)

    def test_the_upload_is_removed_at_the_end(self, admin: Access) -> None:
        uid = put(admin, jsonl({"prompt": "One?"}))
        folder = storage.import_file(get_settings(), uid).parent
        assert folder.exists()
        import_file(start(admin, uid))
        assert not folder.exists()
