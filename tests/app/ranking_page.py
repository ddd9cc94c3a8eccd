"""The ranking page as a visitor of a test uses it: take a task, open it, fill it in, send it."""

from collections.abc import Sequence

from httpx import Response
from sqlalchemy import func, select

from app import db
from tests.app.queue import Queue
from tests.app.visitor import Visitor
from workers.simulate.page import Form, Page, parse

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)> [x](javascript:alert(3))"


def take(visitor: Visitor, queue: Queue) -> str:
    """Lease the next task; gives its address."""
    answer = visitor.post(f"/p/{queue.project.slug}/rank/next")
    assert answer.status_code == 303
    assert "/tasks/" in answer.headers["location"]
    return str(answer.headers["location"])


def open_page(visitor: Visitor, path: str) -> Page:
    answer = visitor.get(path)
    assert answer.status_code == 200, answer.text
    return parse(answer.text, path)


def fill(form: Form, tiers: Sequence[str], **others: str) -> dict[str, str]:
    """The form's fields with these tiers in the order shown; `x` comes with a reason."""
    names = [name for name in form.choices if name.startswith("tier-")]
    sent = {name: values[-1] for name, values in form.filled().items() if values}
    for name, tier in zip(names, tiers, strict=True):
        sent[name] = tier
        if tier == "x":
            sent[name.replace("tier-", "reason-")] = "broken"
    return sent | others


def submit(visitor: Visitor, path: str, tiers: Sequence[str], **others: str) -> Response:
    form = open_page(visitor, path).form("/submit")
    return visitor.post(f"{path}/submit", **fill(form, tiers, **others))


def count(table: type) -> int:
    with db.transaction() as session:
        return session.scalars(select(func.count()).select_from(table)).one()
