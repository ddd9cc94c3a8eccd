"""The choice of a token by itself: hand numbers, and a naive twin of both cuts."""

import pytest
import torch

from workers.training import draws
from workers.training.draws import Decoding, Response, Row


def answer(*tokens):
    return Response("", list(tokens), [0.0] * len(tokens), "stop", 0)


def cut(probabilities, top_k, top_p):
    rows = torch.tensor([probabilities], dtype=torch.float64)
    return draws._cut(rows, torch.tensor([[top_k]]), torch.tensor([[top_p]]))[0].tolist()


def naive_cut(probabilities, top_k, top_p):
    order = sorted(range(len(probabilities)), key=lambda at: -probabilities[at])[:top_k]
    total, mass, kept = sum(probabilities[at] for at in order), 0.0, []
    for at in order:
        if mass >= top_p * total:
            break
        mass += probabilities[at]
        kept.append(at)
    return [p if at in kept else 0.0 for at, p in enumerate(probabilities)]


class TestCut:
    def test_by_hand(self):
        # the three likeliest hold 0.9; half of that, 0.45, is reached by the second (0.4 + 0.3)
        assert cut([0.1, 0.4, 0.2, 0.3], 3, 0.5) == [0.0, 0.4, 0.0, 0.3]
        assert cut([0.1, 0.4, 0.2, 0.3], 3, float("inf")) == [0.0, 0.4, 0.2, 0.3]
        assert cut([0.1, 0.4, 0.2, 0.3], 4, 0.35) == [0.0, 0.4, 0.0, 0.0]

    @pytest.mark.parametrize("top_k", [1, 3, 20])
    @pytest.mark.parametrize("top_p", [0.05, 0.4, 0.9])
    def test_equals_the_naive_twin(self, top_k, top_p):
        generator = torch.Generator().manual_seed(top_k)
        for probabilities in torch.randn(20, 20, generator=generator, dtype=torch.float64).softmax(-1).tolist():
            assert cut(probabilities, top_k, top_p) == naive_cut(probabilities, top_k, top_p)


class TestDraw:
    def test_rows_of_several_settings_are_drawn_as_each_by_itself(self):
        generator = torch.Generator().manual_seed(0)
        settings = [
            Decoding(),
            Decoding(temperature=0.0),
            Decoding(temperature=0.7),
            Decoding(top_k=2),
            Decoding(top_p=0.5),
        ]
        logits = torch.randn(len(settings), 12, generator=generator, dtype=torch.float64)

        def rows():
            return [Row(decoding, 1, seed) for seed, decoding in enumerate(settings)]

        together, alone = rows(), rows()
        draws.draw(logits, together, lambda part: part)
        for at, row in enumerate(alone):
            draws.draw(logits[at : at + 1], [row], lambda part: part)
        assert [row.tokens for row in together] == [row.tokens for row in alone]
        assert [row.logprobs for row in together] == [row.logprobs for row in alone]
        assert together[1].tokens == [logits[1].argmax().item()]

    def test_in_chunks_gives_the_same(self, monkeypatch):
        logits = torch.randn(7, 12, generator=torch.Generator().manual_seed(1))
        found = []
        for size in (draws.ELEMENTS_AT_ONCE, 24):
            monkeypatch.setattr(draws, "ELEMENTS_AT_ONCE", size)
            rows = [Row(Decoding(), 1, seed) for seed in range(7)]
            found.append((draws.draw(logits, rows, lambda part: part), [row.logprobs for row in rows]))
        assert found[0] == found[1]


class TestShareEqual:
    def test_counts_responses_by_place(self):
        one = [[answer(1, 2), answer(3)], [answer(4), answer(5)]]
        other = [[answer(1, 2), answer(4)], [answer(4), answer(5, 6)]]
        assert draws.share_equal(one, one) == 1.0
        assert draws.share_equal(one, other) == 0.5


class TestDecoding:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"n": 0},
            {"max_new_tokens": 0},
            {"temperature": -1.0},
            {"top_p": 0.0},
            {"top_p": 1.5},
            {"top_k": -1},
            {"stop": ("",)},
        ],
    )
    def test_refuses_settings_without_meaning(self, wrong):
        with pytest.raises(ValueError, match="must be"):
            Decoding(**wrong)
