"""The owner at a browser: sets the project up, invites people, watches the pipeline, promotes."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from workers.simulate.browser import Browser
from workers.simulate.page import Element, Page, PageError, shorten

LOOK_SECONDS = 1.0
_UID = r"[0-9a-f-]{36}"

Found = TypeVar("Found")


class LoopError(RuntimeError):
    """The loop stands still: a run failed, or something did not happen in time. The message carries what the pages say."""


class TooLateError(LoopError):
    """What was waited for did not happen in time, though no run failed."""


@dataclass(frozen=True)
class Model:
    """A row of the checkpoints page."""

    page: str
    """Path of its own page."""
    name: str
    state: str
    """active, candidate or retired."""

    @property
    def kind(self) -> str:
        """Base, SFT, R or P, as its name begins."""
        return self.name.split()[0]

    @property
    def number(self) -> int:
        """Counts within its kind."""
        return int(self.name.split()[1]) if " " in self.name else 1


@dataclass
class Owner:
    """The owner of one project. Runs that had failed when `begin` was called are history, and stop nothing."""

    browser: Browser
    project: str
    _failed_before: frozenset[str] = field(default_factory=frozenset)

    def enter(self, link: str) -> None:
        """Sign in by a one-time link."""
        page = self.browser.open(link)
        self.browser.submit(page.form(link.removeprefix(self.browser.url)), page)
        self._failed_before = frozenset(self._failed())

    def change_settings(self, **values: str) -> None:
        """Set fields of the settings page; the rest stays."""
        page = self.browser.open(self._path("settings"))
        self.browser.submit(page.form("/settings"), page, **values)

    def setting(self, name: str) -> str:
        """The present value of a field of the settings page."""
        return self.browser.open(self._path("settings")).form("/settings").filled()[name][0]

    def invite(self) -> str:
        """An invitation link for one labeller of the training cohort."""
        page = self.browser.open(self._path("people"))
        answer = self.browser.submit(page.form("/people/invite"), page, roles="labeller", cohort="training")
        return answer.root.get(id="link").text()

    def models(self) -> list[Model]:
        """All models of the project."""
        page = self.browser.open(self._path("checkpoints"))
        found = []
        for row in _rows(page):
            link = row.get("th").get("a")
            state = row.get("td").text()
            found.append(Model(link.attributes["href"], link.text(), state))
        return found

    def identity(self, model: Model) -> str:
        """A model's sha256, from its page."""
        page = self.browser.open(model.page)
        found = re.search(r"\b[0-9a-f]{64}\b", page.text())
        if found is None:
            raise PageError(f"the page of {model.name} shows no identity; it says: {shorten(page.text())}")
        return found.group()

    def newest(self, kind: str) -> Model | None:
        """The newest model of a kind."""
        return max(
            (model for model in self.models() if model.kind == kind), key=lambda model: model.number, default=None
        )

    def active(self, *kinds: str) -> Model | None:
        """The active model among these kinds."""
        return next((model for model in self.models() if model.kind in kinds and model.state == "active"), None)

    def promote(self, model: Model) -> None:
        """Click the button on the model's page."""
        page = self.browser.open(model.page)
        self.browser.submit(page.form("/promote"), page)

    def wait(self, what: str, look: Callable[[], Found | None], *, seconds: float) -> Found:
        """Look again and again until there is something, and return it. Raises LoopError on a failed run, or after `seconds`."""
        give_up = time.monotonic() + seconds
        while True:
            if (found := look()) is not None:
                return found
            failed = {page: error for page, error in self._failed().items() if page not in self._failed_before}
            if failed:
                raise LoopError(f"while waiting for {what}, a run failed: {'; '.join(failed.values())}")
            if time.monotonic() > give_up:
                pipeline = self.browser.open(self._path("pipeline")).text()
                raise TooLateError(
                    f"no {what} within {seconds:.0f} s; the pipeline page says: {shorten(pipeline, 1500)}"
                )
            time.sleep(LOOK_SECONDS)

    def _failed(self) -> dict[str, str]:
        """Failed runs by the path of their page, with what the list says of each."""
        page = self.browser.open(self._path("runs"))
        return {
            row.get("a").attributes["href"]: shorten(row.text())
            for row in _rows(page)
            if "failed" in row.get("td").text().split()[:1]
        }

    def _path(self, name: str) -> str:
        return f"/p/{self.project}/{name}"


def _rows(page: Page) -> list[Element]:
    return [row for body in page.root.all("tbody") for row in body.all("tr")]
