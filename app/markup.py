"""Untrusted Markdown as safe HTML: prompts, responses and guidelines, rendered once when they are stored.

Markdown becomes HTML, LaTeX between dollar signs becomes MathML, and what is not on the list below is dropped. Pictures are
dropped too: a model's text must not make a labeller's browser fetch anything. Links lead out, never to a page of this app, and no
formula is wide, high or far enough from its place to lie over what stands around the text.
"""

import re
from functools import lru_cache
from itertools import accumulate

import nh3
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

MAX_LATEX_LENGTH = 2000
MAX_MATH_DEPTH = 32
"""Elements inside one another in a formula. The time to lay them out grows with the cube: 400 take Chromium 6 s."""


def _words(text: str) -> set[str]:
    return set(text.split())


_TEXT_TAGS = _words(
    """
    a blockquote br code del em h1 h2 h3 h4 h5 h6 hr li ol p pre s strong sub sup table tbody td th thead tr ul
    """
)
_MATH_TAGS = _words(
    """
    math menclose merror mfenced mfrac mi mlabeledtr mmultiscripts mn mo mover mpadded mphantom mprescripts mroot
    mrow ms mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none
    """
)
_MATH_ATTRIBUTES = _words(
    """
    accent accentunder columnalign columnlines columnspacing depth display displaystyle fence form height largeop
    linethickness lspace mathsize mathvariant maxsize minsize movablelimits notation rowlines rowspacing rspace
    scriptlevel separator stretchy symmetric voffset width
    """
)
_LENGTHS = _words(
    """
    columnspacing depth height linethickness lspace mathsize maxsize minsize rowspacing rspace voffset width
    """
)
_LENGTH = re.compile(r"([-+]?[0-9]*\.?[0-9]+) *([a-z%]*)", re.IGNORECASE)
_TAG = re.compile(r"</?[a-z]+(?:[^>]*[^>/])?>")
"""Beginning or end of an element; one that is both at once (`<mspace/>`) is passed over."""
_LONGEST = {"em": 20, "ex": 40}
_LONGEST_OTHERWISE = 300  # pixels, points, hundredths
_ATTRIBUTES = {
    "a": {"href", "title"},
    "ol": {"start"},
    "td": {"align"},
    "th": {"align"},
    **{tag: _MATH_ATTRIBUTES for tag in _MATH_TAGS},
}


def render_markdown(text: str, *, keeps_breaks: bool = True) -> str:
    """`text` as sanitised HTML. HTML inside it is shown as text, links open apart.

    `keeps_breaks`: a single line break breaks the line, as the writer of a response saw it; False joins lines, as in a document.
    """
    html = _markdown(keeps_breaks).render(text)
    return nh3.clean(
        html,
        tags=_TEXT_TAGS | _MATH_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_keep_short,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    ).strip()


@lru_cache
def _markdown(keeps_breaks: bool) -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": keeps_breaks})
    markdown.enable(["table", "strikethrough"]).disable("image")
    markdown.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True, renderer=_render_math)
    return markdown


def _keep_short(tag: str, attribute: str, value: str) -> str | None:
    """The value of an attribute, or None for a length that would move or spread a formula over its surroundings."""
    if attribute in _LENGTHS and any(
        abs(float(number)) > _LONGEST.get(unit.lower(), _LONGEST_OTHERWISE) for number, unit in _LENGTH.findall(value)
    ):
        return None
    return value


def _render_math(latex: str, options: dict[str, bool]) -> str:
    """MathML, or the formula as it was typed where it cannot be read."""
    try:
        if len(latex) > MAX_LATEX_LENGTH:
            raise ValueError("too long to convert")
        formula = str(convert(latex.strip(), display="block" if options["display_mode"] else "inline"))
        if _depth(formula) > MAX_MATH_DEPTH:
            raise ValueError("nested too deeply to lay out")
        return formula
    except Exception:  # the converter raises what its parser happens to raise, on any text a model may write
        return f"<code>{nh3.clean_text(latex)}</code>"


def _depth(formula: str) -> int:
    """How many elements of a formula lie inside one another."""
    steps = (-1 if tag.startswith("</") else 1 for tag in _TAG.findall(formula))
    return max(accumulate(steps), default=0)
