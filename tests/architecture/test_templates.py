"""Templates: each one compiles and is used, none needs more than the strict content policy allows, each form is guarded."""

import re

import pytest

from app.web.render import environment
from tests.architecture.source import ROOT

TEMPLATES = sorted(path.relative_to(ROOT / "templates").as_posix() for path in (ROOT / "templates").rglob("*.html"))
SAFE = re.compile(r"\{\{[^}]*\|\s*safe")
SAFE_VALUES = re.compile(r"\{\{\s*(?:[\w.\[\]]+\.html|preview)\s*\|\s*safe\s*\}\}")


def read(name: str) -> str:
    return (ROOT / "templates" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TEMPLATES)
class TestEveryTemplate:
    def test_compiles(self, name: str) -> None:
        environment().get_template(name)

    def test_is_used(self, name: str) -> None:
        python = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py"))
        others = "".join(read(other) for other in TEMPLATES if other != name)
        assert f'"{name}"' in python + others

    def test_has_no_inline_script_or_style(self, name: str) -> None:
        text = read(name)
        assert not re.search(r"\son[a-z]+\s*=|\sstyle\s*=|<style|javascript:|hx-on", text)
        assert all("src=" in tag or 'type="application/json"' in tag for tag in re.findall(r"<script[^>]*>", text))

    def test_guards_every_form(self, name: str) -> None:
        for form in re.findall(r"<form\b.*?</form>", read(name), flags=re.DOTALL):
            if re.search(r'method="post"', form):
                assert "csrf_field()" in form, form[:120]

    def test_trusts_only_text_that_was_sanitised(self, name: str) -> None:
        text = read(name)
        assert len(SAFE.findall(text)) == len(SAFE_VALUES.findall(text))
