"""A page as a person sees it: its text, its forms, and what can be chosen in them. Standard library only."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
)
_UNSEEN = frozenset({"head", "script", "style", "template", "noscript"})
_INLINE = frozenset(
    {
        "a",
        "abbr",
        "b",
        "bdi",
        "button",
        "cite",
        "code",
        "del",
        "em",
        "i",
        "input",
        "ins",
        "kbd",
        "label",
        "mark",
        "math",
        "output",
        "q",
        "s",
        "samp",
        "select",
        "small",
        "span",
        "strong",
        "sub",
        "sup",
        "svg",
        "textarea",
        "time",
        "u",
        "var",
        "wbr",
    }
)
_CLOSED_BY_SIBLING = frozenset({"p", "li", "dt", "dd", "option", "tr", "td", "th"})
_PRESSED_ONLY = frozenset({"submit", "button", "image", "reset", "file"})


class PageError(RuntimeError):
    """A page that is not what a person would have expected there; the message carries what it says."""


@dataclass(eq=False)
class Element:
    """One element of a page with what lies inside it."""

    tag: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    parent: "Element | None" = field(default=None, repr=False)
    children: list["Element | str"] = field(default_factory=list, repr=False)

    def all(self, tag: str | None = None, **attributes: str | None) -> Iterator["Element"]:
        """Elements inside, in page order, of that tag and with these attributes (`_` reads `-`; None asks for presence only)."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        for child in self.children:
            if isinstance(child, Element):
                if (tag is None or child.tag == tag) and all(
                    name in child.attributes and value in (None, child.attributes[name])
                    for name, value in wanted.items()
                ):
                    yield child
                yield from child.all(tag, **attributes)

    def first(self, tag: str | None = None, **attributes: str | None) -> "Element | None":
        """The first such element inside, or None."""
        return next(self.all(tag, **attributes), None)

    def get(self, tag: str | None = None, **attributes: str | None) -> "Element":
        """The first such element inside; raises PageError where there is none."""
        found = self.first(tag, **attributes)
        if found is None:
            raise PageError(f"the page has no <{tag or '*'}> with {attributes}; it says: {shorten(self.text())}")
        return found

    def text(self) -> str:
        """What a reader sees of it: blocks on lines of their own, white space folded except in <pre>."""
        lines = [""]
        _write(self, lines, keep=self.tag in ("pre", "textarea"))
        return "\n".join(line.rstrip() for line in lines).strip("\n").strip()

    def raw(self) -> str:
        """All text inside as it stands in the source, white space kept."""
        return "".join(child if isinstance(child, str) else child.raw() for child in self.children)

    def has_class(self, name: str) -> bool:
        """Whether `class` names it."""
        return name in self.attributes.get("class", "").split()


def _write(element: Element, lines: list[str], *, keep: bool) -> None:
    for child in element.children:
        if isinstance(child, str):
            first, *more = child.split("\n") if keep else [_fold(child, at_start=not lines[-1])]
            lines[-1] += first if keep or not lines[-1].endswith(" ") else first.lstrip()
            lines.extend(more)
        elif child.tag == "br":
            lines.append("")
        elif child.tag not in _UNSEEN and "hidden" not in child.attributes:
            is_block = child.tag not in _INLINE
            if is_block and lines[-1]:
                lines.append("")
            _write(child, lines, keep=keep or child.tag in ("pre", "textarea"))
            if is_block and lines[-1]:
                lines.append("")


def _fold(text: str, *, at_start: bool) -> str:
    folded = " ".join(text.split())
    before = " " if text[:1].isspace() and not at_start else ""
    return before + folded + (" " if folded and text[-1:].isspace() else "")


@dataclass(frozen=True)
class Form:
    """A form with the values it would send untouched, and what each of its fields would accept."""

    method: str
    action: str
    values: Mapping[str, tuple[str, ...]]
    choices: Mapping[str, tuple[str, ...]]
    """Values on offer of radio buttons, checkboxes, selects and named buttons; other fields take any text."""
    text: str = ""

    def filled(self, **values: str | None) -> dict[str, list[str]]:
        """What is sent with these fields set, None unsetting one. Raises PageError for what nobody could enter in this form."""
        sent = {name: list(held) for name, held in self.values.items()}
        for name, value in values.items():
            if name not in sent and name not in self.choices:
                raise PageError(
                    f"the form at {self.action} has no field {name!r}; it has {sorted({*sent, *self.choices})}"
                )
            if value is not None and name in self.choices and value not in self.choices[name]:
                raise PageError(f"field {name!r} of {self.action} offers {self.choices[name]}, not {value!r}")
            sent[name] = [] if value is None else [value]
        return sent


@dataclass(frozen=True)
class Page:
    """A page that came back: its address, its status and its content."""

    url: str
    status: int
    root: Element

    @property
    def title(self) -> str:
        """The first heading, else the title in the window's bar."""
        heading = self.root.first("h1") or self.root.first("title")
        return heading.text() if heading else ""

    def text(self) -> str:
        """The main part's text (the whole page's where it marks none)."""
        return (self.root.first("main") or self.root.first("body") or self.root).text()

    def forms(self) -> list[Form]:
        """All forms, in page order."""
        return [_form(element, self.root) for element in self.root.all("form")]

    def form(self, action: str) -> Form:
        """The first form whose action ends with `action`; raises PageError where there is none."""
        found = self.find_form(action)
        if found is None:
            raise PageError(f"{self.url} ({self.title}) has no form for {action!r}; it says: {shorten(self.text())}")
        return found

    def find_form(self, action: str) -> Form | None:
        """The first form whose action, less its query, ends with `action`, or None."""
        return next((form for form in self.forms() if form.action.partition("?")[0].endswith(action)), None)

    def links(self) -> list[str]:
        """Where the page's links lead."""
        return [link.attributes["href"] for link in self.root.all("a", href=None)]


def parse(html: str, url: str = "", status: int = 200) -> Page:
    """Read a page."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    return Page(url, status, builder.root)


def shorten(text: str, longest: int = 600) -> str:
    """A page's text on one line, for a message."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _form(element: Element, root: Element) -> Form:
    name = element.attributes.get("id")
    controls = [*element.all(), *(root.all(form=name) if name else ())]
    values: dict[str, list[str]] = {}
    choices: dict[str, list[str]] = {}
    for control in dict.fromkeys(controls):
        _read_control(control, values, choices)
    return Form(
        element.attributes.get("method", "get").lower(),
        element.attributes.get("action", ""),
        {key: tuple(held) for key, held in values.items()},
        {key: tuple(held) for key, held in choices.items()},
        element.text(),
    )


def _read_control(control: Element, values: dict[str, list[str]], choices: dict[str, list[str]]) -> None:
    name, attributes = control.attributes.get("name"), control.attributes
    if not name or "disabled" in attributes:
        return
    kind = attributes.get("type", "submit" if control.tag == "button" else "text").lower()
    if control.tag == "textarea":
        values.setdefault(name, []).append(
            "".join(c for c in control.children if isinstance(c, str)).removeprefix("\n")
        )
    elif control.tag == "select":
        options = list(control.all("option"))
        offered = [option.attributes.get("value", option.text()) for option in options]
        chosen = [value for value, option in zip(offered, options, strict=True) if "selected" in option.attributes]
        choices.setdefault(name, []).extend(offered)
        values.setdefault(name, []).extend(chosen or ([] if "multiple" in attributes else offered[:1]))
    elif control.tag in ("input", "button") and kind in _PRESSED_ONLY:
        choices.setdefault(name, []).append(attributes.get("value", ""))
    elif control.tag == "input" and kind in ("radio", "checkbox"):
        choices.setdefault(name, []).append(attributes.get("value", "on"))
        held = values.setdefault(name, [])
        if "checked" in attributes:
            held.append(attributes.get("value", "on"))
    elif control.tag == "input":
        values.setdefault(name, []).append(attributes.get("value", ""))


class _Builder(HTMLParser):
    """Builds the tree; forgiving where HTML is (unclosed <p>, <li>, <option>)."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self._open = Element("document")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _CLOSED_BY_SIBLING and self._open.tag == tag:
            self._open = self._open.parent or self.root
        element = Element(tag, {name: value or "" for name, value in attrs}, self._open)
        self._open.children.append(element)
        if tag not in _VOID:
            self._open = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.children.append(Element(tag, {name: value or "" for name, value in attrs}, self._open))

    def handle_endtag(self, tag: str) -> None:
        at: Element | None = self._open
        while at is not None and at.tag != tag:
            at = at.parent
        if at is not None and at.parent is not None:
            self._open = at.parent

    def handle_data(self, data: str) -> None:
        self._open.children.append(data)
