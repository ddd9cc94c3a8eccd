"""Pages from templates: what is filled in when a template is read is what would be filled in later."""

import pytest
from jinja2 import Environment

from app.web import texts
from app.web.render import FixedWords


def make(*extensions: type[FixedWords]) -> Environment:
    made = Environment(autoescape=True, extensions=extensions)
    made.globals.update(_=texts.gettext)
    return made


class TestFixedWords:
    @pytest.mark.parametrize(
        "source",
        [
            """{{ _("Skip") }}""",
            """<p title="{{ _('a "b" < c & d') }}">{{ _("it's") }}</p>""",
            """{{ _("100 % of them") }}""",
            """{{ _("a") }}{{ _("b") }} {{ _("c") }}\n{% if true %}{{ _("d") }}{% endif %}""",
        ],
    )
    def test_are_what_they_would_be_at_every_rendering(self, source: str) -> None:
        assert make(FixedWords).from_string(source).render() == make().from_string(source).render()
        assert "context.call" in make().compile(source, raw=True)
        assert "context.call" not in make(FixedWords).compile(source, raw=True)

    def test_leave_what_is_known_at_a_rendering_only(self) -> None:
        source = """{{ _("%(n)s left", n=n) }} {{ _(word) }} {{ _("a") ~ "!" }} {{ _("{{ word }}") }}"""
        assert make(FixedWords).from_string(source).render(n=3, word="<b>") == "3 left &lt;b&gt; a! {{ word }}"
