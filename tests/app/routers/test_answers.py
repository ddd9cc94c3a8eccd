"""The ranking pages over HTTP: what is asked besides the order, and a new version of one's own answer."""

import gzip
import re
import uuid

import pytest
from sqlalchemy import func, select, text, update

from app import db
from app.models import Judgement, JudgementPair, JudgementRank, JudgementStatus, LabelSchema, Project
from tests.app.queue import Queue
from tests.app.ranking_page import count, fill, open_page, take
from tests.app.visitor import Visitor
from workers.simulate.page import parse


class TestQuestions:
    """What the label schema asks, on the page and back."""

    def test_answers_are_stored_and_shown(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        first = next(name for name in form.choices if name.startswith("tier-")).removeprefix("tier-")
        answers = {"ask-closed_domain": "yes", f"ask-hallucinates-{first}": "yes", "ask-confidence": "4"}
        ada.post(f"{path}/submit", **fill(form, ["1", "2", "3"]) | answers)
        with db.transaction() as session:
            judgement = session.scalars(select(Judgement)).one()
            assert (judgement.confidence, judgement.answers) == (4, {"closed_domain": True})
            said = session.scalars(select(JudgementRank.answers).where(JudgementRank.answers != {})).all()
        assert said == [{"hallucinates": True}]
        text = ada.get(path).text
        assert "Hallucinates" in text
        assert "Closed domain" in text

    def test_are_kept_in_a_draft_and_in_a_form_that_is_refused(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        first = next(name for name in form.choices if name.startswith("tier-")).removeprefix("tier-")
        answers = {"ask-use_case": "chat", f"ask-sexual-{first}": "yes", "ask-confidence": "2"}
        sent = fill(form, ["1", "2", ""]) | answers
        ada.post(f"{path}/draft", **sent)
        again = open_page(ada, path).form("/submit")
        refused = parse(ada.post(f"{path}/submit", **sent).text, path).form("/submit")
        for shown in (again, refused):
            assert {name: shown.values[name] for name in answers} == {name: (value,) for name, value in answers.items()}

    def test_an_answer_that_is_none_is_named_beside_its_question(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        answer = ada.post(f"{path}/submit", **fill(form, ["1", "2", "3"]) | {"ask-confidence": "9"})
        assert answer.status_code == 422
        beside = parse(answer.text, path).root.get(data_field="confidence").text()
        assert "'9' came; choose one of 1, 2, 3, 4, 5" in beside

    def test_are_still_those_of_the_page_where_the_schema_has_changed_meanwhile(
        self, queue: Queue, ada: Visitor
    ) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        sent = fill(form, ["1", "2", ""]) | {"ask-confidence": "4"}
        with db.transaction() as session:
            session.add(LabelSchema(project_id=queue.project.id, version=2, fields=[]))
            session.get_one(Project, queue.project.id).label_schema_version = 2
        ada.post(f"{path}/draft", **sent)
        refused = parse(ada.post(f"{path}/submit", **sent).text, path).form("/submit")
        again = open_page(ada, path).form("/submit")
        for shown in (again, refused):
            assert (shown.values["schema"], shown.values["ask-confidence"]) == (("1",), ("4",))
        ada.post(f"{path}/submit", **fill(again, ["1", "2", "3"]))
        assert "How sure are you of this order?" in ada.get(path).text


class TestGrades:
    """How much better one output is than another, where the person said it while comparing the two."""

    def test_are_kept_in_draft_row_and_revision_as_far_as_the_ranking_bears_them_out(
        self, queue: Queue, ada: Visitor
    ) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        first, second, third = (name[5:] for name in form.choices if name.startswith("tier-"))
        said = f"{second}>{first}:2 {first}>{third}:4 {second}>{first}:3 {third}>{second}:1"
        sent = fill(form, ["2", "1", "3"]) | {"pairs": said}
        ada.post(f"{path}/draft", **sent)
        assert open_page(ada, path).form("/submit").values["pairs"] == (said,)
        ada.post(f"{path}/submit", **sent)
        with db.transaction() as session:
            rows = session.execute(select(JudgementPair.p_left, JudgementPair.strength)).all()
            counted = session.scalar(text("SELECT count(*) FROM comparisons"))
        assert [tuple(row) for row in rows] == [(1.0, 3), (1.0, 4)]
        assert counted == 3  # each pair of outputs once
        again = open_page(ada, f"{path}/revise").form("/revise")
        assert again.values["pairs"] == (f"{second}>{first}:3 {first}>{third}:4",)

    @pytest.mark.parametrize("wrong", ["{a}>{b}:5", "{a}>{a}:1", "{a}:1", "{a}>{b}", "a>b:1", "<script>"])
    def test_that_cannot_be_read_are_refused_and_nothing_is_stored(
        self, queue: Queue, ada: Visitor, wrong: str
    ) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        a, b = [name[5:] for name in form.choices if name.startswith("tier-")][:2]
        answer = ada.post(f"{path}/submit", **fill(form, ["1", "2", "3"]) | {"pairs": wrong.format(a=a, b=b)})
        assert answer.status_code == 422
        assert "cannot be read" in answer.text
        assert count(Judgement) == 0

    def test_of_an_output_of_another_task_are_left_out(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        first = next(name[5:] for name in form.choices if name.startswith("tier-"))
        ada.post(f"{path}/submit", **fill(form, ["1", "2", "3"]) | {"pairs": f"{first}>{uuid.uuid4()}:2"})
        assert (count(Judgement), count(JudgementPair)) == (1, 0)


class TestRevise:
    """A new version of one's own answer, the former one kept."""

    def submitted(self, queue: Queue, ada: Visitor) -> str:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        sent = fill(form, ["1", "2", "x"], note="hasty") | {"ask-confidence": "2"}
        ada.post(f"{path}/submit", **sent)
        return path

    def test_begins_at_what_was_said_and_supersedes_it(self, queue: Queue, ada: Visitor) -> None:
        path = self.submitted(queue, ada)
        form = open_page(ada, f"{path}/revise").form("/revise")
        tiers = [form.values[name] for name in form.choices if name.startswith("tier-")]
        assert tiers == [("1",), ("2",), ("x",)]
        assert (form.values["note"], form.values["ask-confidence"]) == (("hasty",), ("2",))
        answer = ada.post(f"{path}/revise", **fill(form, ["3", "1", "2"], note="with care"))
        assert (answer.status_code, answer.headers["location"]) == (303, f"/p/{queue.project.slug}/history")
        with db.transaction() as session:
            versions = session.execute(
                select(Judgement.revision, Judgement.status, Judgement.note).order_by(Judgement.revision)
            ).all()
        assert versions == [(1, "superseded", "hasty"), (2, "current", "with care")]

    def test_of_a_version_that_is_no_longer_the_newest_shows_both(self, queue: Queue, ada: Visitor) -> None:
        path = self.submitted(queue, ada)
        form = open_page(ada, f"{path}/revise").form("/revise")
        ada.post(f"{path}/revise", **fill(form, ["1", "1", "1"]))
        sent = fill(form, ["3", "2", "1"], note="a third thought") | {"ask-use_case": "chat"}
        answer = ada.post(f"{path}/revise", **sent | {"idempotency_key": str(uuid.uuid4())})
        assert answer.status_code == 409
        assert "You revised version 1, but version 2 is the newest" in answer.text
        unsent = answer.text.partition("What you sent, and what is not stored")[2]
        assert "<bdi>Use case</bdi>: <bdi>chat</bdi>" in unsent
        assert "a third thought" in unsent
        assert count(Judgement) == 2

    def test_of_an_excluded_answer_keeps_what_was_typed_and_shows_both(self, queue: Queue, ada: Visitor) -> None:
        path = self.submitted(queue, ada)
        form = open_page(ada, f"{path}/revise").form("/revise")
        with db.transaction() as session:
            signed = {"excluded_at": func.now(), "excluded_why": "The prompt is <b>broken</b>."}
            session.execute(update(Judgement).values(status=JudgementStatus.EXCLUDED, **signed))
        answer = ada.post(f"{path}/revise", **fill(form, ["3", "2", "1"], note="with care"))
        assert answer.status_code == 409
        stored, _, unsent = answer.text.partition("What you sent, and what is not stored")
        assert "The prompt is &lt;b&gt;broken&lt;/b&gt;." in stored
        assert "hasty" in stored
        assert "with care" in unsent
        assert f"{path}/revise" not in ada.get(path).text
        assert ada.get(f"{path}/revise").headers["location"] == path

    def test_the_same_form_twice_makes_one_version(self, queue: Queue, ada: Visitor) -> None:
        path = self.submitted(queue, ada)
        sent = fill(open_page(ada, f"{path}/revise").form("/revise"), ["1", "1", "1"])
        assert [ada.post(f"{path}/revise", **sent).status_code for _ in range(2)] == [303, 303]
        assert count(Judgement) == 2

    def test_what_does_not_fit_comes_back_as_a_revision(self, queue: Queue, ada: Visitor) -> None:
        path = self.submitted(queue, ada)
        form = open_page(ada, f"{path}/revise").form("/revise")
        answer = ada.post(f"{path}/revise", **fill(form, ["1", "2", ""]))
        assert answer.status_code == 422
        assert parse(answer.text, path).form("/revise").values["of_revision"] == ("1",)

    def test_of_a_task_that_was_not_answered_is_the_task(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        assert ada.get(f"{path}/revise").headers["location"] == path

    def test_of_somebody_else_s_is_not_found(self, queue: Queue, ada: Visitor, bob: Visitor) -> None:
        path = self.submitted(queue, ada)
        assert bob.get(f"{path}/revise").status_code == 404


def test_all_scripts_of_the_page_are_light(queue: Queue, ada: Visitor) -> None:
    text = ada.get(take(ada, queue)).text
    sources = re.findall(r'<script src="([^"]+)"', text)
    assert len(sources) > 10
    assert sum(len(gzip.compress(ada.get(source).content)) for source in sources) < 70_000  # bytes
