"""Prompt files: what is read, what is refused with its line, and that a refused file stores nothing."""

import io
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import db, storage
from app.errors import BadInput
from app.markup import render_markdown
from app.models import BaseCheckpoint, Category, Project, Prompt, PromptPool, Sample, SampleOrigin, Split
from app.schemas.prompts import ImportReport, PromptIn
from app.services import prompts
from app.services.prompts import RefusedFile
from app.settings import Settings, get_settings
from tests.app import registry


@pytest.fixture
def project(session: Session, tmp_path: Path) -> Project:
    return registry.make_project(session, tmp_path)[0]


def lines(*rows: object) -> bytes:
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


class TestParseJsonl:
    def test_reads_prompts_and_conversations(self) -> None:
        turns = [user("Hi"), {"role": "assistant", "content": "Hello."}, user("Name a bird.")]
        parsed = prompts.parse_jsonl(
            b"\xef\xbb\xbf"
            + lines(
                {"prompt": "Größe?"},
                "",
                {"messages": turns, "category": "chat", "split": "valid", "source": "w1", "licence": "CC0"},
            )
            + b"\n"
        )
        assert parsed.error_count == 0
        assert parsed.rows == [
            PromptIn(messages=(user("Größe?"),)),
            PromptIn(messages=tuple(turns), category=Category.CHAT, split=Split.VALID, source="w1", licence="CC0"),
        ]

    @pytest.mark.parametrize("data", [b"", b"\n \n"])
    def test_refuses_an_empty_file(self, data: bytes) -> None:
        with pytest.raises(BadInput, match="file is empty"):
            prompts.parse_jsonl(data)

    def test_names_the_byte_that_is_not_utf8(self) -> None:
        good = lines({"prompt": "ok"}) + b"\n"
        with pytest.raises(BadInput, match=rf"byte {len(good) + 12} \(line 2\) is 0xff"):
            prompts.parse_jsonl(good + b'{"prompt": "\xff"}\n')

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ("{not json", "not JSON: .* at character 2"),
            ('"text"', "expected an object .*, found a text"),
            ({}, 'give either "prompt"'),
            ({"prompt": "a", "messages": [user("a")]}, 'give either "prompt"'),
            ({"prompt": " "}, "expected text that is not empty"),
            ({"prompt": 3}, "is a number; expected text"),
            ({"prompt": "a", "catgory": "chat"}, "unknown field 'catgory'; known are"),
            ({"prompt": "a", "category": "poetry"}, "category is 'poetry'; expected one of generation"),
            ({"prompt": "a", "split": "dev"}, "split is 'dev'; expected one of train, valid, test"),
            ({"messages": []}, "at least one turn"),
            ({"messages": [user("a"), {"role": "assistant", "content": "b"}]}, "the last turn is by 'assistant'"),
            ({"messages": [user("a"), user("b")]}, "expected user and assistant in turn"),
            ({"messages": [{"role": "bot", "content": "a"}]}, "the role 'bot'"),
            ({"messages": [user("a"), {"role": "system", "content": "b"}, user("c")]}, "only the first may be"),
            ({"prompt": "a\x00b"}, "NUL"),
            ({"prompt": "a", "source": "b\x00"}, "source holds a NUL"),
            ({"prompt": "a\ud83d"}, r"half a character .\\ud83d alone"),
            ({"prompt": "a", "needs": "skill:math"}, "needs is a text; expected a list of tags"),
            ({"prompt": "a", "needs": ["math"]}, "needs: 'math' is no tag; expected skill:name or content:name"),
            ("[" * 100_000, "not JSON|nested too deeply"),
        ],
    )
    def test_names_the_line_and_what_is_wrong(self, row: object, message: str) -> None:
        parsed = prompts.parse_jsonl(lines({"prompt": "fine"}, row))
        assert (parsed.error_count, parsed.errors[0].line) == (1, 2)
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(parsed.errors[0].message)

    def test_refuses_a_prompt_longer_than_the_context(self) -> None:
        parsed = prompts.parse_jsonl(lines({"prompt": "x" * 101}), longest_characters=100)
        assert parsed.errors[0].message.startswith("the prompt has 101 characters; the context")

    def test_keeps_the_first_fifty_errors_and_counts_all(self) -> None:
        parsed = prompts.parse_jsonl(lines(*["nonsense"] * 70))
        assert (len(parsed.errors), parsed.error_count) == (50, 70)

    def test_stops_at_the_size_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prompts, "LARGEST_FILE_BYTES", 1024 * 1024)
        with pytest.raises(BadInput, match="larger than 1 MB"):
            prompts.parse_jsonl(io.BytesIO(lines({"prompt": "x" * 600_000}, {"prompt": "y" * 600_000})))

    @pytest.mark.parametrize("last", [{"prompt": "d"}, "nonsense"])
    def test_stops_at_the_number_of_prompts(self, monkeypatch: pytest.MonkeyPatch, last: object) -> None:
        monkeypatch.setattr(prompts, "MOST_PROMPTS", 3)
        three = [{"prompt": "a"}, "", {"prompt": "b"}, "nonsense"]
        assert prompts.parse_jsonl(lines(*three)).error_count == 1
        with pytest.raises(BadInput, match=r"more than 3 prompts\. Split the file"):
            prompts.parse_jsonl(lines(*three, last))


class TestImportFile:
    @pytest.mark.parametrize(
        "data",
        [b"", b"\xff\xfe", lines({"prompt": "fine"}, "{"), lines({"prompt": "fine"}, {"prompt": "x" * 5000})],
        ids=["empty", "not UTF-8", "malformed", "too long"],
    )
    def test_a_refused_file_stores_nothing(self, session: Session, project: Project, data: bytes) -> None:
        with pytest.raises(BadInput):
            prompts.import_file(session, project, pool="mine", data=io.BytesIO(data), longest=1000)
        assert session.scalar(select(func.count()).select_from(Prompt)) == 0
        assert session.scalar(select(func.count()).select_from(PromptPool)) == 0

    def test_counts_duplicates_across_imports_and_pools(self, session: Session, project: Project) -> None:
        data = lines({"prompt": "One  two"}, {"prompt": "One two"}, {"prompt": "Three"})
        first = prompts.import_file(session, project, pool="a", data=io.BytesIO(data), longest=None)
        second = prompts.import_file(session, project, pool="b", data=io.BytesIO(data), longest=None)
        assert (first.added, first.duplicates) == (2, 1)
        assert (second.added, second.duplicates) == (0, 3)
        assert session.scalar(select(func.count()).select_from(Prompt)) == 2


class TestImportPrompts:
    def test_keeps_every_turn_of_a_conversation_on_one_side(self, session: Session, project: Project) -> None:
        rows = [
            PromptIn(messages=(user("Later"),), key="b", parent_key="a"),
            PromptIn(messages=(user("First"),), key="a"),
        ]
        report = prompts.import_prompts(session, project, pool="p", rows=rows)
        stored = {prompt.id: prompt for prompt in session.scalars(select(Prompt))}
        later, first = stored[report.ids["b"]], stored[report.ids["a"]]
        assert later.parent_id == first.id
        assert (later.source, later.split) == (first.source, first.split)

    def test_leaves_the_parent_of_a_stored_prompt_as_it_is(self, session: Session, project: Project) -> None:
        child = PromptIn(messages=(user("Later"),), key="b", parent_key="a")
        for parent in ("First", "Other"):
            rows = [PromptIn(messages=(user(parent),), key="a", source="one"), child]
            report = prompts.import_prompts(session, project, pool="p", rows=rows)
        session.expire_all()
        kept = session.get_one(Prompt, session.get_one(Prompt, report.ids["b"]).parent_id)
        assert kept.messages == [user("First")]

    def test_puts_a_source_on_the_side_it_has_already(self, session: Session, project: Project) -> None:
        source = next(f"w{n}" for n in range(100) if prompts.split_of(f"w{n}") == Split.TRAIN)
        rows = [PromptIn(messages=(user("a"),), source=source, split=Split.TEST)]
        prompts.import_prompts(session, project, pool="p", rows=rows)
        prompts.import_prompts(session, project, pool="p", rows=[PromptIn(messages=(user("b"),), source=source)])
        assert set(session.scalars(select(Prompt.split))) == {Split.TEST}

    def test_keeps_what_a_prompt_needs(self, session: Session, project: Project) -> None:
        row = prompts.parse_jsonl(
            lines({"prompt": "2 + 2?", "needs": ["skill:math", "content:violence", "skill:math"]})
        )
        prompts.import_prompts(session, project, pool="needy", rows=row.rows)
        stored = session.scalars(select(Prompt).where(Prompt.project_id == project.id)).one()
        assert stored.needs == ["skill:math", "content:violence"]

    def test_refuses_a_source_on_two_sides(self, session: Session, project: Project) -> None:
        rows = [
            PromptIn(messages=(user("a"),), source="w", split=Split.TRAIN),
            PromptIn(messages=(user("b"),), source="w", split=Split.VALID),
        ]
        with pytest.raises(BadInput, match="'w' is in train already and a row puts it into valid"):
            prompts.import_prompts(session, project, pool="p", rows=rows)
        assert session.scalar(select(func.count()).select_from(Prompt)) == 0

    def test_two_imports_at_once_keep_a_source_on_one_side(self, settings: Settings, tmp_path: Path) -> None:
        with db.transaction() as session:
            shared = registry.make_project(session, tmp_path / "shared")[0]

        def import_one(split: Split, during: Callable[[], None] = lambda: None) -> None:
            with db.transaction() as session:
                rows = [PromptIn(messages=(user(split),), source="w", split=split)]
                prompts.import_prompts(session, shared, pool="p", rows=rows)
                during()

        with ThreadPoolExecutor() as pool:
            second: list[Future[None]] = []

            def begin_the_second() -> None:
                second.append(pool.submit(import_one, Split.VALID))
                wait(second, timeout=0.5)

            import_one(Split.TRAIN, begin_the_second)
            with pytest.raises(BadInput, match="'w' is in train already"):
                second[0].result()

    def test_refuses_a_parent_that_is_not_there(self, session: Session, project: Project) -> None:
        rows = [PromptIn(messages=(user("a"),), parent_key="gone")]
        with pytest.raises(BadInput, match="'gone'"):
            prompts.import_prompts(session, project, pool="p", rows=rows)

    def test_splits_sources_by_hash_in_known_shares(self) -> None:
        found = [prompts.split_of(f"source {n}") for n in range(4000)]
        assert 0.08 < found.count(Split.VALID) / 4000 < 0.12
        assert 0.08 < found.count(Split.TEST) / 4000 < 0.12


class TestEveryTurn:
    """A conversation of several turns as one prompt for each turn of its user."""

    TALK = (user("One?"), assistant("1."), user("Two?"), assistant("2."), user("Three?"))

    def bring(self, session: Session, project: Project, *rows: object) -> ImportReport:
        data = io.BytesIO(lines(*rows))
        return prompts.import_file(session, project, pool="p", data=data, longest=None, every_turn=True)

    def test_each_is_a_prompt_whose_parent_is_the_one_before(self, session: Session, project: Project) -> None:
        whole = {"messages": self.TALK, "category": "chat", "reference": "3.", "licence": "MIT"}
        report = self.bring(session, project, whole)
        assert (report.added, report.duplicates, report.samples) == (3, 0, 2)
        first, second, third = session.scalars(select(Prompt).order_by(func.jsonb_array_length(Prompt.messages)))
        assert [prompt.messages for prompt in (first, second, third)] == [list(self.TALK[:end]) for end in (1, 3, 5)]
        assert (first.parent_id, second.parent_id, third.parent_id) == (None, first.id, second.id)
        assert len({(prompt.source, prompt.split) for prompt in (first, second, third)}) == 1
        assert [prompt.fingerprint for prompt in (first, second)] == [
            prompts.fingerprint(self.TALK[:1]),
            prompts.fingerprint(self.TALK[:3]),
        ]
        assert [(prompt.category, prompt.reference, prompt.licence) for prompt in (second, third)] == [
            (None, None, "MIT"),
            (Category.CHAT, "3.", "MIT"),
        ]

    def test_the_answers_given_are_samples_of_their_prompts(self, session: Session, project: Project) -> None:
        self.bring(session, project, {"messages": [*self.TALK, assistant("**3.**")]})
        rows = session.execute(select(Prompt.messages, Sample).join(Sample, Sample.prompt_id == Prompt.id))
        kept = {(messages[-1]["content"], sample.text, sample.origin, sample.html) for messages, sample in rows}
        origin = SampleOrigin.IMPORTED
        assert kept == {
            ("One?", "1.", origin, render_markdown("1.")),
            ("Two?", "2.", origin, render_markdown("2.")),
            ("Three?", "**3.**", origin, "<p><strong>3.</strong></p>"),
        }

    def test_conversations_that_begin_alike_share_their_beginning(self, session: Session, project: Project) -> None:
        other = [*self.TALK[:1], assistant("Eins."), user("Zwei?")]
        for added in (4, 0):
            report = self.bring(session, project, {"messages": self.TALK}, {"messages": other})
            assert (report.added, report.duplicates) == (added, 5 - added)
            assert report.samples == (3 if added else 0), "1., 2. and Eins.; none twice"
        parents = session.scalars(select(Prompt.parent_id).where(Prompt.messages != [user("One?")])).all()
        assert parents.count(session.scalars(select(Prompt.id).where(Prompt.parent_id.is_(None))).one()) == 2
        assert len(set(session.scalars(select(Prompt.split)))) == 1

    def test_a_conversation_joins_the_side_its_beginning_is_on(self, session: Session, project: Project) -> None:
        begun = PromptIn(messages=self.TALK[:1], source="somebody", split=Split.TEST)
        prompts.import_prompts(session, project, pool="p", rows=[begun])
        self.bring(session, project, {"messages": self.TALK})
        assert set(session.scalars(select(Prompt.split))) == {Split.TEST}
        assert set(session.scalars(select(Prompt.source))) == {"somebody"}

    def test_another_source_s_prompt_is_no_part_of_a_conversation(self, session: Session, project: Project) -> None:
        other = {"messages": [*self.TALK[:1], assistant("Eins."), user("Zwei?")], "source": "b", "split": "test"}
        report = self.bring(session, project, {"messages": self.TALK, "source": "a", "split": "train"}, other)
        assert (report.added, report.duplicates, report.samples, report.foreign) == (4, 1, 2, 1)
        stored = {prompt.messages[-1]["content"]: prompt for prompt in session.scalars(select(Prompt))}
        assert (stored["Zwei?"].split, stored["Zwei?"].parent_id) == (Split.TEST, None)
        assert stored["Two?"].parent_id == stored["One?"].id
        assert set(session.scalars(select(Sample.text))) == {"1.", "2."}

    def test_the_lines_of_a_refused_file_are_counted_as_lines(self, session: Session, project: Project) -> None:
        with pytest.raises(RefusedFile, match="1 of 2 lines"):
            self.bring(session, project, {"messages": self.TALK}, {"messages": []})

    def test_without_the_choice_an_answered_conversation_is_refused(self, session: Session, project: Project) -> None:
        data = io.BytesIO(lines({"messages": self.TALK[:2]}))
        with pytest.raises(RefusedFile) as refused:
            prompts.import_file(session, project, pool="p", data=data, longest=None)
        assert "the last turn is by 'assistant'" in refused.value.parsed.errors[0].message

    @pytest.mark.parametrize("messages", [[{"role": "system", "content": "x"}], [assistant("x")], []])
    def test_a_conversation_without_a_user_is_refused(
        self, session: Session, project: Project, messages: list[object]
    ) -> None:
        with pytest.raises(RefusedFile):
            self.bring(session, project, {"messages": messages})


class TestLongestCharacters:
    def test_follows_the_context_in_the_base_models_config(self, session: Session, project: Project) -> None:
        base = session.get_one(BaseCheckpoint, project.base_checkpoint_id)
        assert prompts.longest_characters(get_settings(), base) is None
        config = storage.checkpoint_folder(get_settings(), base.sha256) / "config.json"
        config.write_text(json.dumps({"max_position_embeddings": 128}))
        assert prompts.longest_characters(get_settings(), base) == 128 * prompts.CHARACTERS_PER_TOKEN
