"""Tags that say what a task needs."""

import pytest

from app.schemas.needs import MOST_TAGS, SKILL, name_tags, read_needs, read_skills


def test_tags_are_read_in_order_and_once_each() -> None:
    assert read_needs(["content:hate", "skill:math", "content:hate"]) == ("content:hate", "skill:math")
    assert read_skills(" Math,\nfrench , math,") == ["skill:math", "skill:french"]
    assert name_tags(["skill:math", "content:other"], SKILL) == ["math"]


@pytest.mark.parametrize("tag", ["math", "skill:", "skill:Math", "skill:a b", "skill:-a", "skill:" + "a" * 41, 3, None])
def test_other_things_are_refused_by_name(tag: object) -> None:
    with pytest.raises(ValueError, match="is no tag"):
        read_needs([tag])


def test_content_is_of_the_closed_list() -> None:
    with pytest.raises(ValueError, match="is no kind of content; expected content:sexual, content:violence"):
        read_needs(["content:blood"])


def test_a_list_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        read_needs(f"skill:s{number}" for number in range(MOST_TAGS + 1))


def test_a_person_grants_no_content_by_skill() -> None:
    with pytest.raises(ValueError, match="is no tag"):
        read_skills("content:violence")
