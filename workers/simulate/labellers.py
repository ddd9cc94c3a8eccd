"""Simulated labellers: each a browser of its own that joins, reads the guidelines, and ranks by the gold preference with slips.

They know nothing but the page in front of them. A slip belongs to the labeller and to what the page shows, so that the same
page gets the same answer whichever thread asks first.
"""

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from app.starter import gold
from workers.simulate.browser import Browser
from workers.simulate.measure import Message
from workers.simulate.page import Element, Page, PageError, shorten

LOOK_SECONDS = 0.5

REASON = "broken"
"""What a labeller says of an output that cannot be ranked: it is empty."""


@dataclass(frozen=True)
class Shown:
    """One output on a page: its name in the form, its text, and whether the page says that it was cut off."""

    name: str
    text: str
    finish_reason: str


@dataclass(frozen=True)
class ShownTask:
    """A ranking task as the page shows it."""

    messages: tuple[Message, ...]
    outputs: tuple[Shown, ...]


@dataclass(frozen=True)
class Verdict:
    """A ranking that was submitted; tiers belong to the task's outputs, None is not rankable."""

    task: ShownTask
    tiers: tuple[int | None, ...]


@dataclass(frozen=True)
class Labeller:
    """One simulated person at a browser of their own."""

    browser: Browser
    project: str
    email: str
    password: str
    seed: int
    noise: float

    def join(self, invitation: str) -> None:
        """Accept an invitation, choose a password, sign in with it, read the guidelines and say so."""
        page = self.browser.open(invitation)
        name = self.email.partition("@")[0].replace("-", " ").title()
        form = page.form(invitation.removeprefix(self.browser.url))
        page = self.browser.submit(form, page, name=name, email=self.email, password=self.password)
        page = self.browser.submit(page.form("/logout"), page)
        self.browser.submit(page.form("/login"), page, email=self.email, password=self.password)
        self.read_guidelines()

    def read_guidelines(self) -> None:
        """Acknowledge the guidelines in force, where that is asked for."""
        page = self.browser.open(f"/p/{self.project}/guidelines")
        if form := page.find_form("/acknowledge"):
            self.browser.submit(form, page)

    def next_task(self) -> Page | None:
        """The page of the task this person holds or gets now; None where the queue has nothing for them."""
        page = self.browser.open(f"/p/{self.project}/rank")
        if form := page.find_form("/rank/next"):
            page = self.browser.submit(form, page)
        return page if page.find_form("/submit") else None

    def judge(self, page: Page) -> tuple[Verdict, Page | None]:
        """Rank what a task's page shows and submit it; the page of the next task comes with the verdict, if there is one."""
        task = read_task(page)
        tiers, values = self.decide(task)
        after = self.browser.submit(page.form("/submit"), page, **values)
        return Verdict(task, tuple(tiers)), after if after.find_form("/submit") else None

    def give_back(self, page: Page) -> None:
        """Return a task unanswered: the day's work is done."""
        self.browser.submit(page.form("/release"), page)

    def decide(self, task: ShownTask) -> tuple[list[int | None], dict[str, str]]:
        """Tiers and qualities for what a page shows, as tiers and as the values of its form."""
        texts = [(output.text, output.finish_reason) for output in task.outputs]
        # The order on the page is shuffled per lease; slips must not depend on it.
        rng = random.Random(f"{self.seed} {self.email} {task.messages} {sorted(texts)}")
        order = sorted(range(len(texts)), key=lambda at: texts[at])
        ranked = gold.rank(task.messages, [texts[at] for at in order], self.noise, rng)
        tiers = [ranked[order.index(at)] for at in range(len(texts))]
        values: dict[str, str] = {}
        for output, tier in zip(task.outputs, tiers, strict=True):
            total = gold.score(task.messages, output.text, output.finish_reason).total
            values[f"tier-{output.name}"] = "x" if tier is None else str(tier)
            values[f"quality-{output.name}"] = str(gold.quality(total))
            if tier is None:
                values[f"reason-{output.name}"] = REASON
        return tiers, values


def read_task(page: Page) -> ShownTask:
    """What a task's page shows. Raises PageError where it shows no conversation or no outputs."""
    messages = tuple(
        {"role": turn.attributes["data-role"], "content": _said(turn)} for turn in page.root.all(data_role=None)
    )
    outputs = tuple(
        Shown(output.attributes["data-output"], _text(output, "output-text"), output.attributes["data-finish"])
        for output in page.root.all(data_output=None)
    )
    if not messages or len(outputs) < 2:
        raise PageError(f"{page.url} shows no ranking task; it says: {shorten(page.text())}")
    return ShownTask(messages, outputs)


def judge_together(labellers: Sequence[Labeller], wanted: int, *, patience_seconds: float) -> list[Verdict]:
    """Let all labellers work side by side until `wanted` rankings are submitted in all.

    Raises PageError where the queue stays empty for everybody for `patience_seconds`, or a page is not what it should be.
    """
    tickets = count(1)  # next() on a counter is atomic, so that no ranking too many is submitted

    def work(labeller: Labeller) -> list[Verdict]:
        verdicts: list[Verdict] = []
        page: Page | None = None
        while next(tickets) <= wanted:
            page = page or _wait_for_task(labeller, patience_seconds)
            verdict, page = labeller.judge(page)
            verdicts.append(verdict)
        if page is not None:
            labeller.give_back(page)
        return verdicts

    with ThreadPoolExecutor(len(labellers)) as pool:
        return [verdict for verdicts in pool.map(work, labellers) for verdict in verdicts]


def _wait_for_task(labeller: Labeller, patience_seconds: float) -> Page:
    give_up = time.monotonic() + patience_seconds
    while (page := labeller.next_task()) is None:
        if time.monotonic() > give_up:
            queue = labeller.browser.open(f"/p/{labeller.project}/rank").text()
            raise PageError(
                f"no task for {labeller.email} within {patience_seconds:.0f} s; the page says: {shorten(queue)}"
            )
        time.sleep(LOOK_SECONDS)
    return page


def _said(turn: Element) -> str:
    """A turn's text: what people typed keeps its white space, what an assistant said is rendered."""
    typed = next((part for part in turn.all("div") if part.has_class("turn-typed")), None)
    return typed.raw().strip() if typed else _text(turn, "turn-text")


def _text(within: Element, name: str) -> str:
    found = next((part for part in within.all() if part.has_class(name)), None)
    if found is None:
        raise PageError(f"the page has no element of class {name!r} where one was expected")
    return found.text()
