"""The tables and the file."""

import json
from pathlib import Path

from tests.workers.simulate.factories import round_numbers
from workers.simulate.check import bounds
from workers.simulate.report import describe_round, table, write_json
from workers.simulate.rounds import Options


class TestTable:
    def test_is_markdown_of_even_width(self) -> None:
        assert table(("name", "x"), [("a", "1.0"), ("long name", "22.0")]) == (
            "| name      |    x |\n|-----------|-----:|\n| a         |  1.0 |\n| long name | 22.0 |"
        )


class TestDescribeRound:
    def test_names_every_number_asked_for(self) -> None:
        text = describe_round(round_numbers())
        rows = [line.strip("| ").split() for line in text.splitlines()]
        assert ["share", "of", "the", "ceiling", "|", "94.4", "%"] in rows
        assert ["on", "this", "round's", "answers", "alone", "|", "88.9", "%"] in rows
        for part in (
            "judgements (so far)",
            "comparisons (so far)",
            "reward-model accuracy",
            "noise ceiling",
            "longer-wins",
            "KL to SFT, nats",
            "asked",
            "mean length, tokens",
            "distinct responses",
            "policy over SFT",
            "policy over base",
            "SFT over base",
            "empty",
            "fixed",
            "echo",
        ):
            assert part in text
        assert ["policy", "over", "SFT", "|", "75.0", "%", "|", "73.0", "to", "77.0"] in rows


class TestWriteJson:
    def test_writes_every_number(self, tmp_path: Path) -> None:
        write_json(tmp_path / "out.json", Options(3, 4, 1, 0.1, 300), [round_numbers()], bounds(round_numbers()), 12.5)
        data = json.loads((tmp_path / "out.json").read_text())
        assert data["options"]["seed"] == 1 and data["seconds"] == 12.5 and data["bounds"][0]["is_kept"]
        assert data["rounds"][0]["models"]["policy"]["components"]["asked"] == 0.7
        assert data["rounds"][0]["kl"] == {"value": 4.0, "low": 3.98, "high": 4.02, "count": 200}
