"""T05: whatever stands in a text, it is shown as a text. In Chromium, with the content policy and with it switched off."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

from app.web.deps import SESSION_COOKIE
from tests.app.hostile import LINES, NAME, PAYLOADS
from tests.architecture.test_routes import IN_PROJECT
from tests.browser.hostile_world import HostileWorld, plant

pytestmark = pytest.mark.browser

WATCH = """
window.canary = (what) => report(`ran: ${what}`);
for (const name of ["alert", "confirm", "prompt", "open", "print"]) window[name] = () => report(`called: ${name}`);
addEventListener("securitypolicyviolation", (event) => report(`policy: ${event.violatedDirective} ${event.sample}`));
"""
"""What a script of a text would call, and what the browser says of one it stopped."""

FOREIGN = """
() => {
  const found = [];
  const FORBIDDEN = ["iframe", "object", "embed", "style", "base", "img", "video", "audio", "marquee", "hx-partial"];
  const SHOWS = ["value", "title", "content", "placeholder", "aria-label", "alt", "data-label", "data-name", "data-words"];
  for (const element of document.querySelectorAll("*")) {
    const tag = element.localName;
    const address = element.getAttribute("href") ?? element.getAttribute("src");
    const isOurs = address?.startsWith("/static/");
    if (FORBIDDEN.includes(tag)) found.push(tag);
    if (["script", "link"].includes(tag) && !isOurs) found.push(element.outerHTML.slice(0, 200));
    if (tag === "svg" && !element.closest(".brand, .loop-return, .strip")) found.push(element.outerHTML.slice(0, 200));
    for (const { name, value } of element.attributes) {
      const isLinkOut = tag === "a" && name === "href" && /^https:[/][/]|^mailto:canary@/.test(value);
      if (name.startsWith("on")) found.push(`${tag} ${name}`);
      if (/canary/.test(value) && !SHOWS.includes(name) && !isLinkOut) found.push(`${tag} ${name}=${value.slice(0, 100)}`);
      if (name === "href" && !/^(https?:|mailto:|[/?#])/.test(value)) found.push(`link to ${value.slice(0, 100)}`);
      if (isLinkOut && element.target !== "_blank") found.push(`link in place to ${value.slice(0, 100)}`);
    }
  }
  return found;
}
"""
"""Elements, handlers and addresses on the page that are none of ours."""

UNISOLATED = """
(words) => {
  const TURNS = /[\\u202a-\\u202e\\u2066-\\u2069]/;
  const isApart = (element) => {
    const style = getComputedStyle(element);
    return !/^(inline|contents|ruby)$/.test(style.display) || /isolate|plaintext/.test(style.unicodeBidi);
  };
  const like = (text) => text.replace(/[\\s_]+/g, " ").toLowerCase();
  const theirs = words.map(like).sort((one, other) => other.length - one.length);
  const isTheirs = (text) => {
    const rest = theirs.reduce((left, word) => left.replaceAll(word, ""), like(text)).trim();
    const cut = rest.replace(/(…|[.]{3})$/, "").trim();
    return /^[ ,]*$/.test(rest) || (cut !== rest && theirs.some((word) => word.startsWith(cut)));
  };
  const found = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    let place = texts.currentNode.parentElement;
    if (!TURNS.test(texts.currentNode.data) || place.closest(".prose, .unseen, option, textarea, script")) continue;
    while (!isApart(place)) place = place.parentElement;
    const around = [...place.childNodes].filter((node) => node.data?.trim() || (node.localName && !isApart(node)));
    const isAlone = around.length === 1 && (around[0].contains(texts.currentNode) || around[0] === texts.currentNode);
    const isApartFromOurs = isAlone && isTheirs(texts.currentNode.data);
    if (!isApartFromOurs) found.add(place.outerHTML.slice(0, 120) + " … " + place.outerHTML.slice(-120));
  }
  return [...found];
}
"""
"""Places where a text that turns the direction shares a line with words that are not `words`, and so could turn them."""

SPREAD = """
() => [...document.querySelectorAll(".prose")].filter((text) => {
  const style = getComputedStyle(text);
  return style.overflowX === "visible" || style.overflowY === "visible";
}).map((text) => text.className)
"""
"""Rendered texts that could draw over what stands around them."""

SHOWN = """
(main) => [main, ...main.querySelectorAll("input")].map((part) => part.textContent || part.value).join(" ")
"""
"""What a page shows below its header, which has the names of person and project on every page."""

FILE_NAME = "<img src=x onerror=canary(110)>\u202e.jsonl"
"""Of an upload."""

FILES = (".zip", ".json", "refused.csv")
"""Ends of addresses that are downloads."""

KEYS = ("m", "j", "1", "d", "d", *(key for panel in "flnAgs?" for key in (panel, "Escape")), "c")
"""Raw text, the first response, a tier or by how much, differences and back, every panel, and two responses side by side."""


class Watch:
    """A browser page that writes down whatever a text manages to do."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.seen: list[str] = []
        self.faults: dict[str, list[str]] = {}
        self.policies: set[str] = set()
        context.expose_function("report", self.report)
        context.add_init_script(WATCH)
        context.set_default_timeout(20_000)
        context.on("request", self.request)
        context.on("response", self.response)
        context.on("page", lambda page: self.seen.append(f"window: {page.url}") if len(context.pages) > 1 else None)
        self.page: Page = context.new_page()
        self.page.on("dialog", lambda dialog: (self.seen.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("console", self.console)
        self.page.on("pageerror", lambda error: self.seen.append(f"threw: {error}"))

    def report(self, what: str) -> None:
        self.seen.append(what)

    def request(self, request: Request) -> None:
        if not request.url.startswith(self.url) or "canary" in request.url:
            self.seen.append(f"request: {request.url[:200]}")

    def console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource"):  # those are requests
            self.seen.append(message.text)

    def response(self, response: Response) -> None:
        if response.url.startswith(self.url):
            self.policies.add(response.headers.get("content-security-policy", "none"))

    def open(self, path: str) -> str:
        """Visit a page, give its text time to act, and return what it shows."""
        response = self.page.goto(self.url + path, wait_until="load")
        if response is None or response.status != 200:
            self.seen.append(f"status: {response and response.status}")
        self.page.evaluate("document.querySelectorAll('details').forEach((panel) => (panel.open = true))")
        return self.look(path)

    def look(self, place: str) -> str:
        """Write down what the texts of the page did, and return what it shows."""
        self.page.wait_for_timeout(50)
        faults = (self.page.evaluate(FOREIGN), self.page.evaluate(UNISOLATED, [*LINES, *PAYLOADS, FILE_NAME]))
        found = [*self.seen, *(fault for some in (*faults, self.page.evaluate(SPREAD)) for fault in some)]
        if found:
            self.faults[place] = found[:5]
        self.seen.clear()
        return same(self.page.locator("main").evaluate(SHOWN))


def same(text: str) -> str:
    """A text without white space, which pages lay out as they please."""
    return "".join(text.split())


@pytest.fixture(params=[False, True], ids=["under the policy", "without the policy"])
def watch(browser: Browser, live_url: str, request: pytest.FixtureRequest) -> Iterator[Watch]:
    context = browser.new_context(bypass_csp=request.param, reduced_motion="reduce")
    yield Watch(context, live_url)
    context.close()


def test_the_watch_sees_what_runs(watch: Watch, request: pytest.FixtureRequest) -> None:
    """The trap itself: a page that shows the payloads as they are is caught in many ways."""
    policy = (
        {}
        if "without" in request.node.callspec.id
        else {"Content-Security-Policy": "default-src 'none'; script-src 'self'"}
    )
    body = "<!doctype html><main>" + "".join(payload for payload in PAYLOADS if "plaintext" not in payload)
    watch.page.route("**/bare", lambda route: route.fulfill(body=body, content_type="text/html", headers=policy))
    watch.page.goto(watch.url + "/bare", wait_until="domcontentloaded")
    watch.page.wait_for_timeout(300)
    signs = ("policy: script-src",) if policy else ("ran: 1", "ran: 8", "request: https://canary.example")
    for sign in signs:
        assert any(seen.startswith(sign) for seen in watch.seen), sign


def test_t05_no_text_does_anything_but_being_read(watch: Watch) -> None:
    world = plant()
    watch.page.context.add_cookies([{"name": SESSION_COOKIE, "value": world.token, "url": watch.url}])
    for path in world.paths:
        if same(NAME) not in watch.open(path):
            watch.faults.setdefault(path, []).append("the text is not shown")
    for path in world.shortened:
        if "canary" not in watch.open(path):
            watch.faults.setdefault(path, []).append("nothing of the text is shown")
    for path in other_pages(world):
        watch.open(path)
    look_at_work(watch, world)
    upload(watch)
    assert watch.faults == {}
    assert len(watch.policies) == 1
    assert "unsafe" not in watch.policies.pop()


def other_pages(world: HostileWorld) -> list[str]:
    """Every page there is that the world does not name; fails for one about a row that it should have named."""
    visited = {*world.paths, *world.shortened, world.rank, world.demonstrate}
    others = []
    for route in IN_PROJECT:
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route.path.replace("{slug}", "starter")))
        if route.method != "GET" or route.path.endswith(FILES) or any(re.fullmatch(pattern, path) for path in visited):
            continue
        assert "{uid}" not in route.path, f"no row is planted for {route}"
        others.append(route.path.format(slug="starter", version=1))
    return others


def look_at_work(watch: Watch, world: HostileWorld) -> None:
    """Ranking and demonstrations show each payload alone as typed text; on every page of a task, each panel by its key."""
    for path in (world.rank, world.demonstrate):
        shown = watch.open(path)
        assert [payload for payload in PAYLOADS if same(payload) not in shown] == [], path
    of_a_kind = (path for path in world.paths if re.search("/(compare|rate|label)/[^/]+$", path))
    for path in (world.rank, *(path for path in of_a_kind if f"{path}/revise" not in world.paths)):
        watch.page.goto(watch.url + path)
        for key in KEYS:
            watch.page.keyboard.press(key)
        watch.look(f"{path} with its panels opened")


def upload(watch: Watch) -> None:
    """A file that is refused by its hostile name, with hostile lines, into a hostile pool or as references."""
    page = watch.page
    line = '{"<script>canary(111)<\\/script>": 1}\n<svg onload=canary(112)>'
    for path in ("imports/new", "school/import"):
        page.goto(f"{watch.url}/p/starter/{path}")
        page.set_input_files("#file", {"name": FILE_NAME, "mimeType": "image/svg+xml", "buffer": line.encode()})
        if path == "imports/new":
            page.get_by_role("button", name="Upload and look at it").click()
            page.get_by_text("The first rows").first.wait_for()
        else:
            page.check("#purpose-gold")
            page.get_by_role("button", name="Import").click()
            page.get_by_text("Nothing was imported").wait_for()
        shown = watch.look(f"{path}, refused")
        for part in (FILE_NAME, "<script>canary(111)</script>"):
            assert same(part) in shown, path
