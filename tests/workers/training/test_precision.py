import pytest
import torch

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
