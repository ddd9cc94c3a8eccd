import pytest
import torch

from tests.workers.training.factories import make_model, make_tokenizer
from workers.training import precision


class TestComputeDtype:
    @pytest.mark.parametrize(
        ("name", "device", "has_bfloat16", "expected"),
        [
            ("auto", "cpu", True, torch.float32),
            ("auto", "cuda:1", True, torch.bfloat16),
            ("auto", "cuda", False, torch.float32),
            ("float32", "cuda", True, torch.float32),
            ("bfloat16", "cpu", False, torch.bfloat16),
        ],
    )
    def test_follows_the_setting_and_the_hardware(self, monkeypatch, name, device, has_bfloat16, expected):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
        assert precision.compute_dtype(name, device) is expected


class TestAutocast:
    def test_lets_products_be_bfloat16_and_weights_as_they_are(self):
        layer = torch.nn.Linear(2, 2)
        with precision.autocast(torch.device("cpu"), torch.bfloat16):
            assert layer(torch.ones(1, 2)).dtype is torch.bfloat16
        with precision.autocast(torch.device("cpu"), torch.float32):
            assert layer(torch.ones(1, 2)).dtype is torch.float32
        assert layer.weight.dtype is torch.float32


def test_dtypes_are_said_by_their_names():
    assert precision.say(torch.bfloat16) == "bfloat16"


class TestNarrow:
    def test_frozen_matrices_are_kept_as_products_see_them_and_nothing_else_is(self):
        model = make_model(make_tokenizer()).requires_grad_(False)
        ids = torch.arange(6)[None]
        with precision.autocast(model.device, torch.bfloat16):
            before = model(input_ids=ids).logits
            precision.narrow(model, torch.bfloat16, exactly=False)
            assert torch.equal(model(input_ids=ids).logits, before)
        kept = {name: weight.dtype for name, weight in model.named_parameters()}
        assert {name for name, dtype in kept.items() if dtype is torch.float32} == {
            name for name in kept if "embed" in name or "norm" in name or "lm_head" in name
        }

    def test_exactly_leaves_what_would_lose_digits_and_what_learns(self):
        model = make_model(make_tokenizer()).requires_grad_(False)
        exact, learning, lossy = (
            model.get_submodule(f"model.layers.0.mlp.{name}_proj") for name in ("up", "down", "gate")
        )
        with torch.no_grad():
            exact.weight.copy_(exact.weight.bfloat16())
            lossy.weight.fill_(1 + 2**-12)
        learning.requires_grad_(True)
        precision.narrow(model, torch.bfloat16, exactly=True)
        assert exact.weight.dtype is torch.bfloat16
        assert learning.weight.dtype is lossy.weight.dtype is torch.float32
