"""Reading pages as a person would."""

import pytest

from workers.simulate.page import PageError, parse

FORM = """
<main><h1>Rank</h1>
<form method="post" action="/p/starter/tasks/1/submit" id="rank">
  <input type="hidden" name="csrf_token" value="secret">
  <input type="radio" name="tier-1" value="1"><input type="radio" name="tier-1" value="x" checked>
  <select name="quality"><option value="">none<option value="7" selected>7</select>
  <input type="checkbox" name="sure" value="yes">
  <textarea name="note">
kept &amp; whole
 as is</textarea>
  <input name="off" value="1" disabled>
  <button name="act" value="submit">Submit</button>
</form>
<input form="rank" name="outside" value="in">
</main>
"""


class TestForm:
    def test_sends_what_it_holds_untouched(self) -> None:
        form = parse(FORM).form("/submit")
        assert form.filled() == {
            "csrf_token": ["secret"],
            "tier-1": ["x"],
            "quality": ["7"],
            "sure": [],
            "note": ["kept & whole\n as is"],
            "outside": ["in"],
        }

    def test_takes_values_it_offers(self) -> None:
        sent = parse(FORM).form("/submit").filled(**{"tier-1": "1", "sure": "yes", "note": "new", "act": "submit"})
        assert (sent["tier-1"], sent["sure"], sent["note"], sent["act"]) == (["1"], ["yes"], ["new"], ["submit"])

    @pytest.mark.parametrize(("field", "value"), [("tier-1", "2"), ("tier-9", "1"), ("off", "1"), ("act", "other")])
    def test_refuses_what_nobody_could_enter(self, field: str, value: str) -> None:
        with pytest.raises(PageError, match=field):
            parse(FORM).form("/submit").filled(**{field: value})

    def test_names_the_page_where_it_is_missing(self) -> None:
        with pytest.raises(PageError, match=r"/here \(Rank\) has no form for '/skip'"):
            parse(FORM, "/here").form("/skip")

    def test_ignores_the_query_of_an_action(self) -> None:
        assert parse('<form action="/a/next?kind=rank"></form>').find_form("/next") is not None


class TestText:
    def test_puts_blocks_on_lines_and_folds_spaces(self) -> None:
        page = parse("<body><p>One\n  two <b>three</b>.</p>\n<p>Four<br>five</p><script>no()</script></body>")
        assert page.text() == "One two three.\nFour\nfive"

    def test_keeps_spaces_of_preformatted_text(self) -> None:
        assert parse("<pre>a\n  b\n\nc</pre>").root.get("pre").text() == "a\n  b\n\nc"

    def test_leaves_out_what_is_hidden(self) -> None:
        assert parse("<main>seen <span hidden>unseen</span></main>").text() == "seen"

    def test_prefers_the_main_part(self) -> None:
        assert parse("<nav>menu</nav><main>content</main>").text() == "content"


class TestElements:
    def test_finds_by_tag_and_attribute(self) -> None:
        root = parse('<div data-output="7"><p class="a b">x</p></div><div>y</div>').root
        assert [e.text() for e in root.all("div", data_output=None)] == ["x"]
        assert root.get(data_output="7").get("p").has_class("b")
        assert root.first("div", data_output="8") is None

    def test_closes_paragraphs_and_items_by_their_siblings(self) -> None:
        assert [item.text() for item in parse("<ul><li>a<li>b</ul><p>c<p>d").root.all("li")] == ["a", "b"]
