import pytest

from workers.rlhf.schedules import cosine, linear_warmup


class TestCosine:
    def test_by_hand(self):
        assert cosine(0, 101) == 1.0
        assert cosine(50, 101) == pytest.approx(0.55)
        assert cosine(100, 101) == pytest.approx(0.1)

    def test_never_rises_without_warmup(self):
        factors = [cosine(step, 40) for step in range(40)]
        assert factors == sorted(factors, reverse=True)

    def test_warms_up_linearly_to_the_peak(self):
        assert [cosine(step, 100, warmup=4) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])

    def test_stays_at_the_floor_behind_the_last_step(self):
        assert [cosine(step, 40) for step in (39, 40, 60)] == pytest.approx([0.1, 0.1, 0.1])

    def test_of_a_single_step_is_the_peak(self):
        assert cosine(0, 1) == 1.0


class TestLinearWarmup:
    def test_starts_at_a_tenth_and_stays_at_the_peak(self):
        assert [linear_warmup(step, 10) for step in (0, 5, 10, 400)] == pytest.approx([0.1, 0.55, 1.0, 1.0])

    def test_without_warmup_is_the_peak_at_once(self):
        assert linear_warmup(0, 0) == 1.0
