"""Untrusted Markdown as safe HTML: prompts, responses and guidelines, rendered once when they are stored.

Markdown becomes HTML, LaTeX between dollar signs becomes MathML, and what is not on the list below is dropped. Pictures are
dropped too: a model's text must not make a labeller's browser fetch anything.
"""

from functools import lru_cache

import nh3
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

MAX_LATEX_LENGTH = 2000


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
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    ).strip()


@lru_cache
def _markdown(keeps_breaks: bool) -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": keeps_breaks})
    markdown.enable(["table", "strikethrough"]).disable("image")
    markdown.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True, renderer=_render_math)
    return markdown


def _render_math(latex: str, options: dict[str, bool]) -> str:
    """MathML, or the formula as it was typed where it cannot be read."""
    try:
        if len(latex) > MAX_LATEX_LENGTH:
            raise ValueError("too long to convert")
        return str(convert(latex.strip(), display="block" if options["display_mode"] else "inline"))
    except Exception:  # the converter raises what its parser happens to raise, on any text a model may write
        return f"<code>{nh3.clean_text(latex)}</code>"
