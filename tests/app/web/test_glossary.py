"""Numbers of training as people read them."""

import pytest

from app.web import glossary


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("kl", 3.4, "3.40 nats"),
        ("accuracy", 0.7183, "71.8 %"),
        ("heldout_prompts", 1200, "1,200"),
        ("lr", 9.65e-6, "9.65e-06"),
        ("loss", 0.0, "0.000"),
        ("loss", None, "–"),
        ("snapshot", "abc", "abc"),
        ("never_heard_of", 2, "2"),
    ],
)
def test_values_have_units_and_sensible_digits(name: str, value: object, shown: str) -> None:
    assert glossary.metric(name).show(value) == shown


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("kl", "KL to the SFT model"),
        ("heldout_kl", "Held-out KL to the SFT model"),
        ("heldout_score", "Held-out score"),
        ("heldout_score_before", "Held-out score before training"),
        ("never_heard_of", "Never heard of"),
    ],
)
def test_every_name_reads_as_words(name: str, label: str) -> None:
    assert glossary.metric(name).label == label


def test_telling_numbers_come_first() -> None:
    names = ["lr", "grad_norm", "never_heard_of", "kl", "score", "entropy"]
    assert glossary.sort_names(names) == ["score", "kl", "entropy", "never_heard_of", "grad_norm", "lr"]


def test_every_entry_explains_itself_in_a_sentence() -> None:
    for entry in glossary.METRICS.values():
        assert entry.explanation.endswith(".")
        assert entry.label[0].isupper()
