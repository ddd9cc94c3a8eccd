import pytest

from workers.training import config
from workers.training.ppo import PPOConfig
from workers.training.sft import SFTConfig


class TestLoad:
    def test_table_then_overrides(self, tmp_path):
        (tmp_path / "c.toml").write_text("[sft]\nlr = 1\nepochs = 3\n[reward]\nlr = 9.0\n")
        chosen = config.load(SFTConfig, "sft", tmp_path / "c.toml", ["epochs=5"])
        assert (chosen.lr, chosen.epochs, chosen.batch_size) == (1.0, 5, 32)
        assert isinstance(chosen.lr, float)

    def test_optional_values_can_be_set_and_unset(self):
        assert config.load(PPOConfig, "ppo", None, ["kl_target=6"]).kl_target == 6.0
        assert config.load(PPOConfig, "ppo", None, ["kl_target=none"]).kl_target is None

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            (
                "learning_rate=1",
                r"unknown setting 'learning_rate' in \[sft\]; known are lora_rank, lora_alpha, epochs, lr",
            ),
            ("epochs=many", "setting epochs is 'many'; expected int"),
            ("epochs=1.5", "setting epochs is 1.5; expected int"),
            ("epochs=true", "setting epochs is True; expected int"),
            ("epochs", "expected name=value"),
        ],
    )
    def test_refuses_what_it_does_not_know(self, override, message):
        with pytest.raises(ValueError, match=message):
            config.load(SFTConfig, "sft", None, [override])

    def test_refuses_a_file_that_is_no_toml(self, tmp_path):
        (tmp_path / "c.toml").write_text("[sft\n")
        with pytest.raises(ValueError, match="cannot be read as TOML"):
            config.load(SFTConfig, "sft", tmp_path / "c.toml")

    @pytest.mark.parametrize("text", ["[rewards]\nlr = 1e-3\n", "lr = 1e-3\n", "sft = 3\n"])
    def test_refuses_what_belongs_to_no_stage(self, tmp_path, text):
        (tmp_path / "c.toml").write_text(text)
        with pytest.raises(ValueError, match="expected tables, known are base, sft, reward, ppo, sample"):
            config.load(SFTConfig, "sft", tmp_path / "c.toml")


class TestDefaults:
    def test_are_the_papers(self):
        from workers.training.reward import RewardConfig

        sft, reward, ppo = SFTConfig(), RewardConfig(), PPOConfig()
        assert (sft.epochs, sft.lr, sft.batch_size, sft.dropout) == (16, 9.65e-6, 32, 0.2)
        assert (reward.epochs, reward.lr, reward.batch_size) == (1, 9e-6, 64)
        assert (reward.ties, reward.margin, reward.half) == ("dropped", 0.0, None)
        assert (ppo.episodes, ppo.batch_size, ppo.minibatch_size, ppo.inner_epochs) == (256_000, 512, 64, 1)
        assert (ppo.kl_coef, ppo.cliprange, ppo.temperature, ppo.gamma, ppo.value_lr, ppo.ema, ppo.warmup) == (
            0.02,
            0.2,
            1.0,
            1.0,
            9e-6,
            0.992,
            10,
        )
        assert (ppo.lr, ppo.lam, ppo.cliprange_value, ppo.ptx_per_episode) == (2.55e-6, 0.95, 0.2, 8)
