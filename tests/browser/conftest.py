"""Who the browser tests act as."""

import pytest

from tests.browser.person import Person, make_person


@pytest.fixture
def person(live_url: str) -> Person:
    """A new labeller of the starter project on a live server."""
    return make_person(live_url)
