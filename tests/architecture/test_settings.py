"""Every deployment value is documented, and the page says what the code does."""

from app.settings import Settings, as_markdown
from tests.architecture.source import ROOT


def test_every_setting_has_a_sentence() -> None:
    bare = [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")]
    assert not bare


def test_the_settings_page_is_true() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == as_markdown(), "write it anew: python -m app.settings > docs/settings.md"
