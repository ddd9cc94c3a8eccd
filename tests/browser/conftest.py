"""Who the browser tests act as."""

from typing import Any

import pytest

from tests.browser.person import Person, make_person


@pytest.fixture
def person(live_url: str) -> Person:
    """A new labeller of the starter project on a live server."""
    return make_person(live_url)


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict[str, Any]) -> dict[str, Any]:
    """Pages where nothing moves by itself: a slow machine between two keys changes no test."""
    return {**browser_context_args, "reduced_motion": "reduce"}
