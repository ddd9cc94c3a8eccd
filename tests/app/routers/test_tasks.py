"""The ranking pages over HTTP: take, rank, submit, skip, draft; refused forms come back as they were sent."""

import re
import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import func, select, update

from app import db
from app.models import (
    Draft,
    Judgement,
    JudgementRank,
    Lease,
    LeaseState,
    Membership,
    Phase,
    Role,
    Sample,
    Task,
    TaskKind,
    TaskOutput,
    TaskState,
)
from app.services import guidelines
from tests.app.queue import Queue
from tests.app.ranking_page import count, fill, open_page, submit, take
from tests.app.visitor import Visitor, make_visitor
from workers.simulate.page import parse


class TestQueuePage:
    def test_shows_a_button_and_leases_nothing(self, queue: Queue, ada: Visitor) -> None:
        page = open_page(ada, f"/p/{queue.project.slug}/rank")
        assert page.find_form("/rank/next") is not None
        assert count(Lease) == 0

    def test_leads_to_the_task_that_is_held(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        answer = ada.get(f"/p/{queue.project.slug}/rank")
        assert (answer.status_code, answer.headers["location"]) == (303, path)
        assert take(ada, queue) == path

    def test_says_why_there_is_nothing_and_when_there_will_be(self, queue: Queue, ada: Visitor, bob: Visitor) -> None:
        with db.transaction() as session:
            session.execute(
                update(Task)
                .where(Task.id > session.scalars(select(func.min(Task.id))).one())
                .values(state=TaskState.RETIRED)
            )
        path = take(bob, queue)
        text = ada.get(f"/p/{queue.project.slug}/rank").text
        assert "held by somebody else" in text
        assert "in 45 minutes" in text or "in 44 minutes" in text
        assert ada.post(f"/p/{queue.project.slug}/rank/next").headers["location"] == f"/p/{queue.project.slug}/rank"
        bob.post(f"{path}/skip", reason="unclear")
        assert "You have seen every open task" in bob.get(f"/p/{queue.project.slug}/rank").text
        submit(ada, take(ada, queue), ["1", "2", "3"])
        assert "No task is open right now" in ada.get(f"/p/{queue.project.slug}/rank").text

    def test_says_what_is_lacking_and_when_a_daily_cap_ends(self, queue: Queue, ada: Visitor) -> None:
        path = f"/p/{queue.project.slug}/rank"
        submit(ada, take(ada, queue), ["1", "2", "3"])
        ada.post(f"{take(ada, queue)}/release")
        with db.transaction() as session:
            session.execute(update(Task).values(needs=["skill:math", "content:violence"]))
        text = ada.get(path).text
        assert "need a skill you do not have here: math" in text
        assert "not agreed to see: violence" in text
        with db.transaction() as session:
            session.execute(update(Membership).where(Membership.user_id == ada.user.id).values(daily_cap=1))
        text = ada.get(path).text
        assert "You have reached your limit for a day" in text
        assert "in 24 hours" in text or "in 1 day" in text

    def test_looks_again_by_itself_while_there_is_nothing(self, queue: Queue, ada: Visitor, bob: Visitor) -> None:
        path = f"/p/{queue.project.slug}/rank"
        assert "hx-trigger" not in ada.get(path).text
        with db.transaction() as session:
            session.execute(update(Task).values(state=TaskState.RETIRED))
        assert f'hx-get="{path}?block=queue"' in ada.get(path).text
        with db.transaction() as session:
            session.execute(update(Task).values(state=TaskState.OPEN))
        fragment = ada.get(f"{path}?block=queue").text
        assert "<html" not in fragment
        assert parse(fragment).find_form("/rank/next") is not None

    def test_new_guidelines_come_before_a_task(self, queue: Queue, ada: Visitor) -> None:
        with db.transaction() as session:
            guidelines.publish(session, queue.project, body="Be kind.", phase=Phase.TRAIN, author=None)
        assert "is new to you" in ada.get(f"/p/{queue.project.slug}/rank").text
        answer = ada.post(f"/p/{queue.project.slug}/rank/next")
        assert answer.headers["location"].startswith(f"/p/{queue.project.slug}/guidelines?next=")
        assert count(Lease) == 0


class TestShowTask:
    def test_shows_every_output_in_full_in_the_stored_order_and_unranked(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        page = open_page(ada, path)
        with db.transaction() as session:
            lease = session.scalars(select(Lease)).one()
            uids = dict(
                session.execute(
                    select(TaskOutput.position, Sample.uid)
                    .join(Sample, Sample.id == TaskOutput.sample_id)
                    .where(TaskOutput.task_id == lease.task_id)
                ).all()
            )
            expires_at = lease.expires_at
        cards = list(page.root.all("article", data_output=None))
        assert [card.attributes["data-output"] for card in cards] == [str(uids[at]) for at in lease.shown_order]
        assert [card.attributes["data-letter"] for card in cards] == ["A", "B", "C"]
        form = page.form("/submit")
        assert all(form.values[f"tier-{uid}"] == ("",) for uid in uids.values())
        assert form.choices[f"tier-{uids[0]}"] == ("", "1", "2", "3", "x")
        with db.transaction() as session:
            assert session.scalars(select(Lease.expires_at)).one() == expires_at

    def test_renders_hostile_text_harmless(self, queue: Queue, ada: Visitor) -> None:
        text = ada.get(take(ada, queue)).text
        assert "alert(1)" in text
        for evil in ("<script>alert", "<img", "onerror=alert(2)>", 'href="javascript:'):
            assert evil not in text.replace("&lt;img src=x onerror=alert(2)&gt;", "")

    def test_a_task_of_another_is_not_found_whatever_is_tried(self, queue: Queue, ada: Visitor, bob: Visitor) -> None:
        """T22: neither its page nor its acts tell that the task exists."""
        path = take(ada, queue)
        fields = fill(open_page(ada, path).form("/submit"), ["1", "2", "3"])
        del fields["csrf_token"]
        unknown = f"/p/{queue.project.slug}/tasks/{uuid.uuid4()}"
        for target in (path, unknown):
            assert bob.get(target).status_code == 404
            for act in ("submit", "skip", "release", "draft"):
                assert bob.post(f"{target}/{act}", **fields, reason="other").status_code == 404
        assert (count(Judgement), count(Draft)) == (0, 0)

    def test_a_researcher_may_not_label(self, client: TestClient, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        assert make_visitor(client, queue.project, Role.RESEARCHER).get(path).status_code == 403

    def test_tells_nothing_of_what_others_said(self, queue: Queue, ada: Visitor, bob: Visitor) -> None:
        """T25: the page is the same but for its own keys and times, whether or not others have judged."""
        with db.transaction() as session:
            session.execute(update(Task).values(judgements_wanted=2))
        path = take(ada, queue)
        before = ada.get(path).text
        assert take(bob, queue) == path
        bob_page = open_page(bob, path).form("/submit")
        bob.post(f"{path}/draft", **fill(bob_page, ["1", "1", "2"]))
        bob.post(f"{path}/submit", **fill(bob_page, ["1", "1", "2"], note="bob was here"))
        after = ada.get(path).text
        own = re.compile(r'name="idempotency_key" value="[^"]*"')
        assert own.sub("", after) == own.sub("", before)


class TestSubmit:
    def test_stores_what_was_chosen_and_shows_the_next_task(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        sent = fill(form, ["2", "x", "2"], note="close", active_ms="5000", idle_ms="70")
        sent |= {name.replace("tier-", "quality-"): "6" for name in form.choices if name.startswith("tier-")}
        answer = ada.post(f"{path}/submit", **sent)
        assert answer.status_code == 303
        assert answer.headers["location"] not in (path, f"/p/{queue.project.slug}/rank")
        with db.transaction() as session:
            judgement = session.scalars(select(Judgement)).one()
            assert (judgement.note, judgement.active_ms, judgement.idle_ms) == ("close", 5000, 70)
            rows = session.execute(
                select(Sample.uid, JudgementRank)
                .join(TaskOutput, TaskOutput.id == JudgementRank.output_id)
                .join(Sample, Sample.id == TaskOutput.sample_id)
            ).all()
            stored = {f"tier-{uid}": (rank.tier, rank.raw_column, rank.reason, rank.quality) for uid, rank in rows}
        chosen = {name: value for name, value in sent.items() if name.startswith("tier-")}
        assert stored == {
            name: (None, None, "broken", 6) if value == "x" else (1, int(value), None, 6)
            for name, value in chosen.items()
        }

    def test_the_same_form_twice_is_stored_once_with_the_same_answer(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        sent = fill(open_page(ada, path).form("/submit"), ["1", "2", "3"])
        first, again = (ada.post(f"{path}/submit", **sent) for _ in range(2))
        assert first.headers["location"] == again.headers["location"]
        assert (first.status_code, again.status_code, count(Judgement)) == (303, 303, 1)

    def test_double_clicks_at_once_are_stored_once(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        sent = fill(open_page(ada, path).form("/submit"), ["1", "2", "3"])
        answers: list[Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(ada.post(f"{path}/submit", **sent))) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {answer.status_code for answer in answers} == {303}
        assert len({answer.headers["location"] for answer in answers}) == 1
        assert count(Judgement) == 1

    def test_a_second_tab_is_told_and_changes_nothing(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        second_tab = fill(open_page(ada, path).form("/submit"), ["3", "2", "1"])
        submit(ada, path, ["1", "2", "3"])
        answer = ada.post(f"{path}/submit", **second_tab)
        assert answer.status_code == 409
        assert "already submitted" in answer.text
        assert "Your answer is stored" in answer.text
        assert count(Judgement) == 1
        assert "Your answer is stored" in ada.get(path).text

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"tier-{0}": ""}, "has no place yet"),
            ({"tier-{0}": "0"}, "has tier 0; choose 1 (best) to 3"),
            ({"tier-{0}": "4"}, "has tier 4; choose 1 (best) to 3"),
            ({"tier-{0}": "--5"}, "The tier is &#39;--5&#39;; choose a whole number"),
            ({"tier-{0}": "best"}, "The tier is &#39;best&#39;; choose a whole number"),
            ({"tier-{0}": "x"}, "Say why output A cannot be ranked"),
            ({"tier-{0}": "x", "reason-{0}": "ugly"}, "The reason is &#39;ugly&#39;; choose one of broken"),
            ({"quality-{0}": "8"}, "has quality 8; choose 1 to 7"),
            ({"quality-{0}": "good"}, "The quality is &#39;good&#39;"),
            ({"tier-11111111-1111-4111-8111-111111111111": "1"}, "There is no output 11111111"),
            ({"tier-nonsense": "1"}, "There is no output &#39;nonsense&#39;"),
            ({"note": "n" * 2001}, "The note has 2,001 characters"),
            ({"idempotency_key": "no-key"}, "The page sent no valid key"),
        ],
    )
    def test_what_does_not_fit_comes_back_with_its_choices(
        self, queue: Queue, ada: Visitor, change: dict[str, str], message: str
    ) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        first, *others = [name.removeprefix("tier-") for name in form.choices if name.startswith("tier-")]
        sent = fill(form, ["1", "2", "3"], **{f"quality-{others[0]}": "5"})
        answer = ada.post(f"{path}/submit", **sent | {name.format(first): value for name, value in change.items()})
        assert answer.status_code == 422
        assert message in answer.text
        again = parse(answer.text).form("/submit")
        assert [again.values[f"tier-{uid}"] for uid in others] == [("2",), ("3",)]
        assert again.values[f"quality-{others[0]}"] == ("5",)
        assert (count(Judgement), count(JudgementRank)) == (0, 0)
        assert ada.post(f"{path}/submit", **fill(again, ["1", "2", "3"], note="")).status_code == 303

    def test_a_doubled_output_is_named(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        sent: dict[str, object] = dict(fill(form, ["1", "2", "3"]))
        name = next(name for name in form.choices if name.startswith("tier-"))
        answer = ada.post(f"{path}/submit", **sent | {name: ["1", "2"]})  # type: ignore[arg-type]
        assert answer.status_code == 422
        assert "placed twice" in answer.text
        assert count(Judgement) == 0

    def test_is_stored_after_the_lease_ran_out(self, queue: Queue, ada: Visitor, bob: Visitor) -> None:
        path = take(ada, queue)
        sent = fill(open_page(ada, path).form("/submit"), ["1", "2", "3"])
        with db.transaction() as session:
            session.execute(update(Lease).values(expires_at=datetime.now(UTC) - timedelta(hours=1)))
        assert take(bob, queue) == path
        assert ada.post(f"{path}/submit", **sent).status_code == 303
        with db.transaction() as session:
            states = session.execute(select(Lease.state, Lease.is_surplus).order_by(Lease.id)).all()
            assert [tuple(row) for row in states[:2]] == [(LeaseState.SUBMITTED, True), (LeaseState.HELD, False)]

    def test_is_stored_though_work_is_paused_meanwhile(self, queue: Queue, ada: Visitor) -> None:
        from app.models import Membership

        path = take(ada, queue)
        sent = fill(open_page(ada, path).form("/submit"), ["1", "2", "3"])
        with db.transaction() as session:
            session.execute(update(Membership).values(is_paused=True))
        answer = ada.post(f"{path}/submit", **sent)
        assert answer.headers["location"] == f"/p/{queue.project.slug}/rank"
        assert count(Judgement) == 1
        assert "paused" in ada.get(answer.headers["location"]).text


class TestSkip:
    def test_goes_on_and_offers_the_way_back(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        answer = ada.post(f"{path}/skip", reason="knowledge")
        following = answer.headers["location"]
        assert following.split("?")[0] != path
        page = open_page(ada, following)
        assert path in page.links()
        back = open_page(ada, path)
        assert "You skipped this task" in back.text()
        assert ada.post(f"{path}/submit", **fill(back.form("/submit"), ["1", "2", "3"])).status_code == 303

    def test_needs_a_known_reason(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        assert ada.post(f"{path}/skip", reason="bored").status_code == 422
        assert ada.post(f"{path}/skip").status_code == 422

    def test_release_gives_the_task_back(self, queue: Queue, ada: Visitor, bob: Visitor) -> None:
        path = take(ada, queue)
        assert ada.post(f"{path}/release").headers["location"] == f"/p/{queue.project.slug}/rank"
        assert take(bob, queue) == path


class TestDraft:
    def test_is_restored_when_the_page_is_opened_again(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        first, second, third = [name for name in form.choices if name.startswith("tier-")]
        sent = fill(form, ["2", "x", ""], note="half way")
        answer = ada.post(f"{path}/draft", **sent)
        assert answer.json()["saved_at"]
        again = open_page(ada, path).form("/submit")
        assert [again.values[name] for name in (first, second, third)] == [("2",), ("x",), ("",)]
        assert again.values[second.replace("tier-", "reason-")] == ("broken",)
        assert again.values["note"] == ("half way",)
        ada.post(f"{path}/submit", **fill(again, ["2", "x", "1"]))
        assert ada.post(f"{path}/draft", **sent).json() == {"saved_at": None}
        assert count(Draft) == 0

    def test_keeps_nothing_that_is_not_of_the_task(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        junk = {f"tier-{uuid.uuid4()}": "1", "tier-": "2", "elephant": "x" * 10_000, "ask-elephant": "x", "ask-": "x"}
        ada.post(f"{path}/draft", **junk, **{f"ask-sexual-{uuid.uuid4()}": "yes"})
        with db.transaction() as session:
            assert session.scalars(select(Draft.content)).one() == {
                "choices": {},
                "note": "",
                "answers": {},
                "schema": None,
                "pairs": "",
                "preference": "",
                "sort": "",
                "active_ms": None,
                "idle_ms": None,
                "effort": {"cards": {}},
            }


def test_a_demonstrate_task_has_its_own_page(queue: Queue, ada: Visitor) -> None:
    with db.transaction() as session:
        session.execute(update(Task).values(kind=TaskKind.DEMONSTRATE))
    path = ada.post(f"/p/{queue.project.slug}/demonstrate/next").headers["location"]
    uid = path.rpartition("/")[2]
    assert ada.get(f"/p/{queue.project.slug}/tasks/{uid}").headers["location"] == path


class TestGoOnInPlace:
    """What a script that sends `HX-Request` gets: the next page itself, under its address."""

    def test_an_answer_brings_the_next_task(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        answer = ada.swap(f"{path}/submit", **fill(open_page(ada, path).form("/submit"), ["1", "2", "x"]))
        assert answer.status_code == 200
        following = answer.headers["HX-Push-Url"]
        assert following != path
        page = parse(answer.text, following)
        assert len(list(page.root.all("main"))) == 1
        assert page.form("/submit").action == f"{following}/submit"
        assert take(ada, queue) == following
        assert count(Judgement) == 1
        assert page.form("/submit").choices == open_page(ada, following).form("/submit").choices

    def test_a_skip_brings_the_next_task_with_the_way_back(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        answer = ada.swap(f"{path}/skip", reason="unclear")
        uid = path.rpartition("/")[2]
        assert answer.status_code == 200
        assert answer.headers["HX-Push-Url"].endswith(f"?skipped={uid}")
        assert path in answer.text

    def test_the_draft_of_a_task_taken_up_again_comes_with_it(self, queue: Queue, ada: Visitor) -> None:
        first = take(ada, queue)
        ada.post(f"{first}/draft", note="half a thought")
        ada.post(f"{first}/release")
        for _ in range(2):
            path = take(ada, queue)
            answer = ada.swap(f"{path}/submit", **fill(open_page(ada, path).form("/submit"), ["1", "2", "3"]))
        assert answer.headers["HX-Push-Url"] == first
        assert "half a thought" in answer.text

    def test_what_does_not_fit_comes_back_with_its_choices(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        answer = ada.swap(f"{path}/submit", **fill(open_page(ada, path).form("/submit"), ["1", "", ""]))
        assert answer.status_code == 422
        assert "has no place yet" in answer.text
        assert count(Judgement) == 0

    def test_an_answer_given_before_comes_back_as_it_was_stored(self, queue: Queue, ada: Visitor) -> None:
        path = take(ada, queue)
        form = open_page(ada, path).form("/submit")
        assert ada.swap(f"{path}/submit", **fill(form, ["1", "2", "3"])).status_code == 200
        again = ada.swap(f"{path}/submit", **fill(form, ["3", "2", "1"], idempotency_key=str(uuid.uuid4())))
        assert again.status_code == 409
        assert count(Judgement) == 1

    def test_the_last_answer_leads_to_the_queues_page(self, queue: Queue, ada: Visitor) -> None:
        for _ in range(3):
            path = take(ada, queue)
            answer = ada.swap(f"{path}/submit", **fill(open_page(ada, path).form("/submit"), ["1", "2", "3"]))
        assert (answer.status_code, answer.headers["location"]) == (303, f"/p/{queue.project.slug}/rank")
