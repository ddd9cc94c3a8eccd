"""T06, T07, T17: what a request says is never obeyed by a page, nor what a preference says, nor a picture."""

import json
import re
import uuid
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app import db
from app.markup import render_markdown
from app.models import Role, User
from app.schemas.keys import STANDARD
from app.web.csrf import FIELD
from app.web.deps import SESSION_COOKIE
from tests.app.hostile import NAME, PAYLOADS, PICTURES
from tests.app.queue import Queue, make_queue
from tests.app.ranking_page import take
from tests.app.visitor import Visitor, make_visitor
from tests.architecture.test_routes import ROUTES

VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE")
REFLECTED = "'\"></textarea></title><canary onload=canary() x='{{7*7}}"
FIELDS = (
    "next",
    "name",
    "email",
    "slug",
    "base",
    "text",
    "body",
    "note",
    "pool",
    "q",
    "action",
    "saved",
    "reason",
    "block",
)
OTHER_FIELDS = (
    "version",
    "category",
    "split",
    "before",
    "skipped",
    "theme",
    "key-next",
    "tier-x",
    "ask-x",
    "roles",
    "cohort",
    "act",
)


@pytest.fixture
def queue(client: TestClient, tmp_path: Path) -> Queue:
    with db.transaction() as session:
        made = make_queue(session, tmp_path)
        made.task(session)
        return made


@pytest.fixture
def owner(client: TestClient, queue: Queue) -> Visitor:
    """Somebody who may do everything here, so that every page is reached."""
    visitor = make_visitor(client, queue.project, *Role)
    with db.transaction() as session:
        session.get_one(User, visitor.user.id).is_owner = True
    return visitor


class Tags(HTMLParser):
    """The names of a page's elements and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {tag, *(name for name, _ in attrs)}


def addresses(queue: Queue) -> Iterator[str]:
    """Every path of the app, with what it names being there, missing, and hostile."""
    for path in sorted({route.path for route in ROUTES}):
        for slug, part in ((queue.project.slug, uuid.uuid4()), (queue.project.slug, REFLECTED), (REFLECTED, REFLECTED)):
            yield path.format(slug=slug, uid=part, token=part, version=part, name=part)


def test_t06_every_answer_to_every_verb_has_the_strict_policy_and_escapes_what_it_reflects(
    queue: Queue, owner: Visitor
) -> None:
    hostile = dict.fromkeys((*FIELDS, *OTHER_FIELDS), REFLECTED)
    kept = {FIELD: owner.csrf_token}
    pages = 0
    for path in dict.fromkeys(addresses(queue)):
        if path == "/logout" or path.endswith(".zip"):
            continue  # it would end the sign-in; a file is no page
        for verb in VERBS:
            answer = owner.client.request(
                verb,
                path,
                params=hostile,
                data=None if verb == "GET" else hostile | kept,
                headers={"Cookie": f"{SESSION_COOKIE}={owner.token}"},
            )
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy, path
            assert "unsafe" not in policy, path
            assert answer.headers["x-content-type-options"] == "nosniff", path
            assert answer.status_code < 500, f"{verb} {path}"
            assert "\n" not in answer.headers.get("location", ""), path
            if answer.headers.get("content-type", "").startswith("text/html"):
                pages += 1
                assert not {"canary", "onload", "hx-on"} & Tags(answer.text).names, f"{verb} {path}"
                assert "<canary" not in answer.text, f"{verb} {path}"
                assert "49" not in re.findall(r"x='(.*?)'", answer.text), f"{verb} {path}: it was evaluated"
    assert pages > 100


def test_t06_an_answer_in_json_is_never_read_as_a_page(queue: Queue, owner: Visitor) -> None:
    answer = owner.get(f"/p/{REFLECTED}/rank", Accept="application/json")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"


class TestKeys:
    """T07: a stored key that ran (a script), and a profile that anybody could write."""

    @pytest.mark.parametrize(
        "stored",
        [
            {"next": NAME},
            {"next": "<script>canary()</script>", "help": "'"},
            {"next": ["j"], "previous": {"x": 1}, "are_on": "<script>"},
            {"next": "\u202e"},
            {"canary": "<img src=x onerror=canary()>"},
            "<script>canary()</script>",
            [NAME],
        ],
        ids=lambda stored: repr(stored)[:30],
    )
    def test_t07_keys_are_an_enumeration_shown_as_json(self, queue: Queue, owner: Visitor, stored: object) -> None:
        with db.transaction() as session:
            session.get_one(User, owner.user.id).preferences = {"keys": stored, "theme": NAME}
        for path in (take(owner, queue), "/account"):
            page = owner.get(path).text
            assert "canary" not in page
            assert "data-theme" not in page
            if found := re.search(r"data-keys='([^']*)'", page):
                assert json.loads(found[1]) == {act.value: key for act, key in STANDARD.items()}

    @pytest.mark.parametrize("key", ["<", "'", '"', "&", "\u202e", "1", "jj", "{{7*7}}", "<script>"])
    def test_t07_no_key_is_accepted_that_markup_is_made_of(self, owner: Visitor, key: str) -> None:
        answer = owner.post("/account/keys", **{"are_on": "yes", "key-next": key})
        assert answer.status_code == 422
        with db.transaction() as session:
            assert "keys" not in session.get_one(User, owner.user.id).preferences


def test_t07_a_person_writes_their_own_profile_only(client: TestClient, queue: Queue, owner: Visitor) -> None:
    ada = make_visitor(client, queue.project, Role.LABELLER)
    others = {
        name: value
        for field in ("id", "user", "user_id", "uid", "user_uid")
        for name, value in ((field, str(owner.user.id)), (f"{field}[]", str(owner.user.uid)))
    }
    rights = {"is_owner": "true", "roles": "owner", "email": "ada@evil.example", "is_active": "true"}
    for path in ("/account/profile", "/account/keys", "/account/password"):
        fields = {"name": "Mallory", "password": "a long new password", "standard": "yes", **others, **rights}
        assert ada.post(f"{path}?user_id={owner.user.id}", **fields).status_code == 303
    with db.transaction() as session:
        victim, writer = session.get_one(User, owner.user.id), session.get_one(User, ada.user.id)
        assert (victim.name, victim.email, victim.password_hash) == (owner.user.name, owner.user.email, None)
        assert (writer.name, writer.email, writer.is_owner) == ("Mallory", ada.user.email, False)


def test_t07_no_page_holds_a_token_that_signs_in(queue: Queue, owner: Visitor) -> None:
    """But the page that makes a link for somebody else, and shows it once."""
    with db.transaction() as session:
        hashes = list(session.scalars(select(User.password_hash).where(User.password_hash.is_not(None))))
    for route in ROUTES:
        if (
            route.method == "GET"
            and route.needs_sign_in
            and "{uid}" not in route.path
            and "{version}" not in route.path
        ):
            page = owner.get(route.path.format(slug=queue.project.slug)).text
            assert owner.token not in page, route.path
            assert not any(each and each in page for each in hashes), route.path


class TestPictures:
    """T17: script in SVG. Nothing shows a picture that a text or a file brings."""

    @pytest.mark.parametrize("picture", PICTURES)
    def test_t17_a_text_makes_no_picture(self, picture: str) -> None:
        names = Tags(render_markdown(picture)).names
        assert not names & {
            "img",
            "svg",
            "image",
            "use",
            "object",
            "embed",
            "iframe",
            "picture",
            "source",
            "style",
            "src",
        }

    @pytest.mark.parametrize("kind", ["image/svg+xml", "application/jsonl"])
    def test_t17_an_upload_that_is_a_picture_is_refused(self, queue: Queue, owner: Visitor, kind: str) -> None:
        answer = owner.client.post(
            f"/p/{queue.project.slug}/imports",
            data={FIELD: owner.csrf_token, "kind": "prompts"},
            files={"file": ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='canary()'/>", kind)},
            headers={"Cookie": f"{SESSION_COOKIE}={owner.token}"},
        )
        assert answer.status_code == 422
        assert "<svg xmlns" not in answer.text
        assert "Nothing was uploaded" in answer.text

    def test_t17_no_policy_lets_a_page_load_one_from_elsewhere(self, client: TestClient) -> None:
        policy = client.get("/login").headers["content-security-policy"]
        assert "img-src 'self' data:;" in policy
        assert "object-src" not in policy, "none, by default-src"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_rendering_keeps_every_payload_inert(payload: str) -> None:
    """What `tests/browser/test_hostile_text.py` shows in a browser, payload by payload."""
    html = render_markdown(payload)
    names = Tags(html).names
    assert not names & {
        "script",
        "style",
        "form",
        "button",
        "base",
        "link",
        "meta",
        "template",
        "textarea",
        "hx-partial",
    }
    assert not [
        name for name in names if name.startswith(("on", "hx-", "data-", "xlink", "style", "class", "id", "src"))
    ]
    for address in re.findall(r'href="([^"]*)"', html):
        assert address.startswith(("https://", "mailto:"))
