import pytest

from studies import plots

pytest.importorskip("matplotlib", reason="2026-11-25: who only trains has no matplotlib")

CURVES = [
    plots.Curve("proxy", [0, 1, 2], [0, 2, 3], 0, is_dashed=True),
    plots.Curve("gold", [0, 1, 2], [0, 1, 0.5], 0, errors=[0.1, 0.1, 0.2]),
]


def panel(*marks):
    return plots.Panel("PPO", "√KL", "score", CURVES, marks)


class TestDraw:
    def test_the_same_numbers_are_the_same_bytes(self, tmp_path):
        for name in ("one.svg", "other.svg"):
            plots.draw(tmp_path / name, [panel(plots.Mark("kept", 1, 1, 0))])
        assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()

    def test_tells_no_date(self, tmp_path):
        plots.draw(tmp_path / "plot.svg", [panel()])
        assert "dc:date" not in (tmp_path / "plot.svg").read_text()

    def test_text_stays_text_and_curves_without_a_name_stay_out_of_the_legend(self, tmp_path):
        unnamed = plots.Panel("Best-of-n", "n", "", [plots.Curve("", [0, 1], [0, 1], 1)])
        plots.draw(tmp_path / "plot.svg", [panel(plots.Mark("kept", 1, 1, 0)), unnamed], share_y=True)
        drawn = (tmp_path / "plot.svg").read_text()
        assert all(f">{text}</text>" in drawn for text in ("PPO", "√KL", "score", "proxy", "gold", "kept", "Best-of-n"))
        assert drawn.count('id="legend_') == 1

    def test_refuses_errors_of_another_number_than_points(self, tmp_path):
        with pytest.raises(ValueError, match="zip"):
            plots.draw(
                tmp_path / "plot.svg", [plots.Panel("", "", "", [plots.Curve("", [0, 1], [0, 1], 0, errors=[1])])]
            )
