"""Words, numbers and times."""

from datetime import UTC, datetime, timedelta

import pytest
from markupsafe import Markup

from app.web.texts import ago, bdi, duration, gettext, ngettext, number, percent, raw, relative

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class TestGettext:
    def test_leaves_a_plain_sentence_alone(self) -> None:
        assert gettext("50 % done") == "50 % done"

    def test_escapes_what_is_filled_in(self) -> None:
        filled = gettext("Join %(name)s", name="<b>x</b>")
        assert filled == Markup("Join &lt;b&gt;x&lt;/b&gt;")

    def test_chooses_the_form_for_the_number(self) -> None:
        assert ngettext("%(num)s task", "%(num)s tasks", 1) == "1 task"
        assert ngettext("%(num)s task", "%(num)s tasks", 1200) == "1,200 tasks"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3, "just now"),
        (45, "45 seconds ago"),
        (60, "1 minute ago"),
        (3600, "1 hour ago"),
        (-7200, "in 2 hours"),
        (3 * 86400, "3 days ago"),
        (14 * 86400, "2 weeks ago"),
        (400 * 86400, "1 year ago"),
    ],
)
def test_relative_time(seconds: int, words: str) -> None:
    assert relative(NOW - timedelta(seconds=seconds), now=NOW) == words


def test_the_exact_time_is_one_hover_away() -> None:
    assert 'title="2026-03-01 12:00:00 UTC"' in ago(NOW)


def test_numbers_have_units_and_gaps() -> None:
    assert (number(1234567), number(None), number(0.5, 2)) == ("1,234,567", "–", "0.50")
    assert (percent(0.715, 1), percent(None)) == ("71.5 %", "–")
    assert (duration(0), duration(61), duration(3660), duration(90000)) == ("0 s", "1 min 1 s", "1 h 1 min", "1 d 1 h")


def test_what_somebody_wrote_ends_what_it_does_to_the_direction() -> None:
    assert bdi("<b>\u202e") == Markup("<bdi>&lt;b&gt;\u202e</bdi>")


class TestRaw:
    def test_marks_what_is_not_seen_and_keeps_it(self) -> None:
        shown = raw("a\u202eb\u200b<c>\x07")
        assert shown.striptags() == Markup("a\u202eb\u200b&lt;c&gt;\x07").unescape()
        for name in ("RLO", "ZWSP", "U+0007"):
            assert f'<bdi class="unseen" data-name="{name}">' in shown

    @pytest.mark.parametrize(
        "text", ["plain\n\ttext", "\u05e9\u05dc", "\U0001f468\u200d\U0001f469", "\u06cc\u200c\u062e"]
    )
    def test_leaves_scripts_and_emoji_whole(self, text: str) -> None:
        assert raw(text) == text
