"""Model text is untrusted: it is shown, and it does nothing."""

import re
from html.parser import HTMLParser

import pytest

from app.markup import MAX_LATEX_LENGTH, MAX_MATH_DEPTH, render_markdown

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)",
    "![x](http://evil.example/pixel.png)",
    "<svg onload=alert(1)>",
    "<iframe src=//evil.example>",
    "<style>body{display:none}</style>",
    '<a href="//evil.example" onclick="alert(1)">x</a>',
    "$\\href{javascript:alert(1)}{x}$",
    "$\\text{<img src=x onerror=alert(1)>}$",
    "$<script>alert(1)</script>$",
    "$$\\frac{<script>alert(1)</script>}{2}$$",
    "<math><mtext><style><img src=x onerror=alert(1)></style></mtext></math>",
    "```html\n<script>alert(1)</script>\n```",
    "| <img src=x onerror=alert(1)> |\n|-|\n| x |",
    "<form action=//evil.example><input name=x></form>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
]


class Tags(HTMLParser):
    """The elements of a page and their attributes, as a browser would make them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_runs_and_nothing_is_fetched(attack: str) -> None:
    tags = Tags(render_markdown(attack))
    assert not tags.names & {
        "script",
        "img",
        "svg",
        "iframe",
        "style",
        "form",
        "input",
        "object",
        "embed",
        "link",
        "meta",
    }
    assert not [name for name, _ in tags.attributes if name.startswith("on") or name in ("style", "src", "class", "id")]
    assert all(
        value.startswith(("https://", "http://", "mailto:")) for name, value in tags.attributes if name == "href"
    )


def test_keeps_the_shape_of_a_response() -> None:
    html = render_markdown("# Title\n\n1. **one**\n2. *two*\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\ncode <b>\n```")
    for part in ("<h1>Title</h1>", "<strong>one</strong>", "<em>two</em>", "<table>", "<td>1</td>", "code &lt;b&gt;"):
        assert part in html


def test_formulas_become_mathml() -> None:
    html = render_markdown("Pythagoras: $a^2 + b^2$ and $$\\frac{1}{2}$$")
    assert '<math display="inline">' in html
    assert "<mfrac>" in html
    assert "$" not in html


def test_money_is_no_formula() -> None:
    assert render_markdown("It costs $5 and $6.") == "<p>It costs $5 and $6.</p>"


@pytest.mark.parametrize("latex", ["\\frac{", "{{{{", "\\begin{matrix}", "x" * (MAX_LATEX_LENGTH + 1), "^_^"])
def test_a_formula_that_cannot_be_read_stays_as_typed(latex: str) -> None:
    html = render_markdown(f"${latex}$")
    assert html.startswith("<p>")


def test_a_formula_too_deep_to_be_laid_out_in_time_stays_as_typed() -> None:
    def nested(depth: int) -> str:
        return render_markdown("$" + "{" * depth + "x" + "}" * depth + "$")

    assert nested(MAX_MATH_DEPTH - 3).startswith("<p><math")
    assert nested(MAX_MATH_DEPTH).startswith("<p><code>{{{")


@pytest.mark.parametrize("latex", ["\\hspace{-200em}x", "\\raise{100em}{x}", "\\rule{900em}{900em}"])
def test_no_formula_leaves_its_place(latex: str) -> None:
    assert not re.search("[0-9]{3}", render_markdown(f"${latex}$"))


def test_a_formula_keeps_the_lengths_it_needs() -> None:
    html = render_markdown("$a \\quad b \\hspace{-1em} c \\rule{2em}{1em} \\Huge x$")
    for part in ('width="1em"', 'width="-1em"', 'height="1em"', 'mathsize="2.49em"'):
        assert part in html


@pytest.mark.parametrize("address", ["/logout", "//evil.example", "#main", "?x", "\\\\evil.example", "x"])
def test_links_lead_out_and_never_into_the_app(address: str) -> None:
    assert "href" not in render_markdown(f"[x]({address})")


def test_line_breaks_are_kept_or_joined() -> None:
    assert "<br>" in render_markdown("one\ntwo")
    assert "<br>" not in render_markdown("one\ntwo", keeps_breaks=False)


def test_links_tell_the_other_site_nothing() -> None:
    html = render_markdown("[x](https://example.org/)")
    assert 'rel="noopener noreferrer nofollow"' in html
    assert 'target="_blank"' in html


@pytest.mark.parametrize("text", ["", " ", "\x00", "\u202e", "a" * 50_000, "> " * 500, "[" * 2000, "*" * 5000])
def test_survives_any_text(text: str) -> None:
    render_markdown(text)
