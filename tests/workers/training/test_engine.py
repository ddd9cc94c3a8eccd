from collections import Counter, defaultdict
from dataclasses import replace

import pytest
import torch

from tests.workers.training.factories import make_base, make_model, make_sft, make_tokenizer, user
from workers.training import conversation, models
from workers.training.data import Pair, collate
from workers.training.engine import Decoding, Engine, share_equal

FAMILIES = ["llama", "gpt2", "qwen", "neox", "sliding"]
PROMPTS = [[5], [6, 7, 8, 9, 10, 11], [12, 13], [5, 6, 7]]


def make_engine(family="llama", max_rows=256, dtype=torch.float64, end_bias=0.0):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, family, seed=3).to(dtype)
    if end_bias:  # untied head: make the end token likely, so that rows leave the batch at different steps
        with torch.no_grad():
            weight = model.get_output_embeddings().weight
            weight[tokenizer.eos_token_id] = weight.mean(0) + end_bias * torch.randn(
                weight.shape[1], generator=torch.Generator().manual_seed(1)
            )
    return Engine(model, tokenizer, max_rows=max_rows)


class TestDraws:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_do_not_depend_on_the_batch(self, family):
        decoding = Decoding(n=3, max_new_tokens=12, seed=5)
        together = make_engine(family).sample_ids(PROMPTS, decoding)
        apart = [make_engine(family, max_rows=1).sample_ids([ids], decoding)[0] for ids in PROMPTS]
        for one, other in zip(together, apart, strict=True):
            assert [answer.token_ids for answer in one] == [answer.token_ids for answer in other]
            for a, b in zip(one, other, strict=True):
                assert a.logprobs == pytest.approx(b.logprobs, abs=1e-10)

    def test_do_not_depend_on_rows_that_end_early(self):
        engine = make_engine("untied", end_bias=0.6)
        answers = engine.sample_ids(PROMPTS, Decoding(n=8, max_new_tokens=16, seed=1))
        lengths = {len(answer.token_ids) for of_prompt in answers for answer in of_prompt}
        assert len(lengths) > 3  # rows did leave at different steps
        engine.max_rows = 1
        apart = engine.sample_ids(PROMPTS, Decoding(n=8, max_new_tokens=16, seed=1))
        assert [[a.token_ids for a in one] for one in apart] == [[a.token_ids for a in one] for one in answers]

    def test_more_responses_begin_with_the_same_ones(self):
        few = make_engine().sample_ids(PROMPTS, Decoding(n=2, max_new_tokens=6, seed=5))
        many = make_engine().sample_ids(PROMPTS, Decoding(n=4, max_new_tokens=6, seed=5))
        assert [[a.token_ids for a in one] for one in few] == [[a.token_ids for a in one[:2]] for one in many]

    def test_differ_between_seeds_and_between_two_places_of_one_prompt(self):
        engine = make_engine()
        one = engine.sample_ids([[5], [5]], Decoding(max_new_tokens=8, seed=1))
        other = engine.sample_ids([[5]], Decoding(max_new_tokens=8, seed=2))
        assert len({tuple(answer[0].token_ids) for answer in (*one, *other)}) == 3

    def test_follow_the_models_distribution(self):
        engine, count = make_engine("untied"), 4000
        with torch.no_grad():
            logits = engine.model(torch.tensor([[5]])).logits[0, -1]
        logits[engine.model.config.pad_token_id] = -float("inf")
        expected = (logits / 0.5).softmax(-1)
        answers = engine.sample_ids([[5]], Decoding(n=count, temperature=0.5, max_new_tokens=1, seed=0))[0]
        seen = Counter(answer.token_ids[0] for answer in answers)
        distance = sum(abs(seen[token] / count - p) for token, p in enumerate(expected.tolist())) / 2
        noise = (
            (expected / count).sqrt().sum().item()
        )  # mean total variation of a fair multinomial is below half of this
        assert distance < noise

    def test_never_give_pad(self):
        engine = make_engine()
        with torch.no_grad():
            engine.model.get_input_embeddings().weight[engine.tokenizer.pad_token_id] *= 50
        answers = engine.sample_ids([[5]], Decoding(n=50, max_new_tokens=8))[0]
        assert all(engine.tokenizer.pad_token_id not in answer.token_ids for answer in answers)


class TestLogprobs:
    @pytest.mark.parametrize("temperature", [1.0, 0.6])
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_are_those_of_the_trainer_at_the_same_temperature(self, family, temperature):
        engine = make_engine(family, dtype=torch.float32)
        answers = [one[0] for one in engine.sample_ids(PROMPTS, Decoding(temperature=temperature, max_new_tokens=10))]
        batch = collate([Pair(ids, answer.token_ids) for ids, answer in zip(PROMPTS, answers, strict=True)], 0)
        with torch.no_grad():
            logprobs = models.response_logprobs(engine.model, batch, temperature)
        for at, answer in enumerate(answers):
            assert logprobs[at, : len(answer.token_ids)].tolist() == pytest.approx(answer.logprobs, abs=1e-4)

    def test_greedy_takes_the_likeliest_token(self):
        engine = make_engine()
        answer = engine.sample_ids([[5, 6]], Decoding(temperature=0.0, max_new_tokens=1))[0][0]
        with torch.no_grad():
            logits = models.without_pad(engine.model(torch.tensor([[5, 6]])).logits[0, -1], engine.model)
        assert answer.token_ids == [logits.argmax().item()]
        assert answer.logprobs[0] == pytest.approx(logits.log_softmax(-1).max().item(), abs=1e-10)

    def test_of_top_p_are_over_the_whole_vocabulary_and_draws_stay_in_the_nucleus(self):
        engine = make_engine("untied")
        with torch.no_grad():
            logits = models.without_pad(engine.model(torch.tensor([[5]])).logits[0, -1], engine.model)
        ordered = logits.softmax(-1).sort(descending=True)
        size = int((ordered.values.cumsum(-1) < 0.3).sum()) + 1
        answers = engine.sample_ids([[5]], Decoding(n=200, top_p=0.3, max_new_tokens=1))[0]
        assert {answer.token_ids[0] for answer in answers} <= set(ordered.indices[:size].tolist())
        token = answers[0].token_ids[0]
        assert answers[0].logprobs[0] == pytest.approx(logits.log_softmax(-1)[token].item(), abs=1e-10)

    def test_of_top_k_likewise(self):
        engine = make_engine("untied")
        with torch.no_grad():
            logits = models.without_pad(engine.model(torch.tensor([[5]])).logits[0, -1], engine.model)
        answers = engine.sample_ids([[5]], Decoding(n=200, top_k=3, max_new_tokens=1))[0]
        assert {answer.token_ids[0] for answer in answers} == set(logits.topk(3).indices.tolist())
        token = answers[0].token_ids[0]
        assert answers[0].logprobs[0] == pytest.approx(logits.log_softmax(-1)[token].item(), abs=1e-10)


class TestSession:
    """Rows join and leave while others are drawn: nothing shows in the responses."""

    def alone(self, engine, prompts, decoding):
        engine.max_rows = 1
        return [engine.sample_ids([ids], decoding)[0] for ids in prompts]

    @pytest.mark.parametrize("family", FAMILIES)
    def test_responses_are_those_of_each_prompt_alone_whenever_it_joins(self, family):
        engine = make_engine(family)
        decodings = [
            Decoding(n=2, max_new_tokens=9, seed=5),
            Decoding(n=1, max_new_tokens=20, seed=6, temperature=0.7),
            Decoding(n=3, max_new_tokens=4, seed=7, top_k=20),
            Decoding(n=2, max_new_tokens=12, seed=8, top_p=0.8),
        ]
        prompts = [[5, 6, 7], [8], [9] * 30, [10, 11]]  # the third is longer than all columns there are when it joins
        with engine.open() as session:
            requests = []
            for prompt, decoding in zip(prompts, decodings, strict=True):
                requests.append(session.submit(prompt, decoding, interactive=True))
                for _ in range(3):
                    session.step()
            while session.is_busy:
                session.step()
        for request, prompt, decoding in zip(requests, prompts, decodings, strict=True):
            (expected,) = self.alone(engine, [prompt], decoding)
            assert [answer.token_ids for answer in request.responses] == [answer.token_ids for answer in expected]
            for one, other in zip(request.responses, expected, strict=True):
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-10)

    @pytest.mark.parametrize("family", ["untied", "recurrent"])
    def test_a_small_batch_gives_what_a_large_one_gives(self, family):
        engine, decoding = make_engine(family, end_bias=0.6), Decoding(n=2, max_new_tokens=16, seed=1)
        prompts = [[at + 5] * (1 + at % 7) for at in range(20)]
        large = engine.sample_ids(prompts, decoding)
        engine.max_rows = 6
        assert share_equal(engine.sample_ids(prompts, decoding), large) == 1.0
        assert share_equal(self.alone(engine, prompts, decoding), large) == 1.0

    def test_the_batch_stays_full_and_within_its_bound(self):
        engine = make_engine("untied", end_bias=0.6, max_rows=8)
        with engine.open() as session:
            for at in range(60):
                session.submit([at + 5, 6], Decoding(max_new_tokens=16, seed=1))
            rows = []
            while session.is_busy:
                session.step()
                rows.append(session.rows)
        assert max(rows) <= 8
        steps_with_more_waiting = rows[: len(rows) - 16]
        assert sum(steps_with_more_waiting) / len(steps_with_more_waiting) > 6

    def test_a_prompt_is_read_once_however_many_responses_it_gets(self, monkeypatch):
        engine = make_engine("llama")
        plain, passes = engine.forward, []
        monkeypatch.setattr(
            engine, "forward", lambda ids, *rest: (passes.append(tuple(ids.shape)), plain(ids, *rest))[1]
        )
        engine.sample_ids([[5, 6, 7], [8, 9, 4]], Decoding(n=4, max_new_tokens=3, seed=0))
        assert passes[0] == (2, 3)
        assert {columns for _, columns in passes[1:]} == {1}

    def test_people_go_before_the_rest_and_join_while_others_are_drawn(self):
        engine = make_engine(max_rows=4)
        with engine.open() as session:
            bulk = [session.submit([at + 5], Decoding(n=2, max_new_tokens=10)) for at in range(4)]
            session.step()
            person = session.submit([30], Decoding(max_new_tokens=2), interactive=True)
            while person.responses is None:
                session.step()
            assert [request.responses is not None for request in bulk] == [True, True, False, False]
            assert session.rows <= 4

    def test_a_request_of_more_rows_than_the_batch_is_drawn_by_itself(self):
        engine = make_engine(max_rows=2)
        answers = engine.sample_ids([[5], [6, 7]], Decoding(n=5, max_new_tokens=4))
        assert [len(of_prompt) for of_prompt in answers] == [5, 5]

    def test_refuses_a_prompt_without_room_and_goes_on(self):
        engine = make_engine()
        with engine.open() as session:
            request = session.submit([5], Decoding(max_new_tokens=2))
            with pytest.raises(ValueError, match="exceeds the model's context of 96"):
                session.submit([5] * 90, Decoding(max_new_tokens=20))
            while session.is_busy:
                session.step()
        assert request.responses is not None

    def test_lower_precision_gives_nearly_always_the_same(self):
        """Rounding decides where a number falls on a probability's edge: here seldom, in bfloat16 more often than in float32."""
        decoding, prompts = Decoding(n=4, max_new_tokens=12, seed=1), [[at + 5] * (1 + at % 5) for at in range(16)]
        shares = {}
        for dtype in (torch.float32, torch.bfloat16):
            engine = make_engine(dtype=dtype)
            together = engine.sample_ids(prompts, decoding)
            shares[dtype] = share_equal(together, self.alone(engine, prompts, decoding))
        assert shares[torch.float32] > 0.95
        assert 0.2 < shares[torch.bfloat16] <= shares[torch.float32]


class TestText:
    def test_is_told_piece_by_piece(self):
        engine, told = make_engine("untied", end_bias=0.6), defaultdict(list)
        with engine.open() as session:
            request = session.submit(
                [5, 6], Decoding(n=6, max_new_tokens=20), on_text=lambda at, piece: told[at].append(piece)
            )
            while session.is_busy:
                session.step()
        texts = [answer.text for answer in request.responses]
        assert ["".join(told[at]) for at in range(6)] == texts
        assert max(map(len, told.values())) > 5
        assert texts == [answer.text for answer in engine.sample_ids([[5, 6]], Decoding(n=6, max_new_tokens=20))[0]]

    def test_ends_before_a_stop_string_and_its_tokens_with_it(self):
        engine, free = make_engine("untied"), Decoding(n=40, max_new_tokens=20)
        whole = engine.sample_ids([[5, 6]], free)[0]
        stop = next(
            text[at : at + 2] for text in (one.text for one in whole) for at in (4,) if text[at : at + 2].isalnum()
        )
        cut = engine.sample_ids([[5, 6]], replace(free, stop=(stop, "\x00\x01")))[0]
        met = 0
        for one, other in zip(cut, whole, strict=True):
            before, found, _ = other.text.partition(stop)
            assert one.text == before
            assert one.token_ids == other.token_ids[: len(one.token_ids)]
            assert one.logprobs == pytest.approx(other.logprobs[: len(one.logprobs)], abs=1e-10)
            assert len(one.logprobs) == len(one.token_ids)
            if found:
                met += 1
                assert one.finish_reason == "stop"
                assert conversation.decode_response(engine.tokenizer, one.token_ids).startswith(before)
        assert 0 < met < len(whole)


class TestEnding:
    def test_stops_at_the_end_token_and_says_so(self):
        engine = make_engine("untied", end_bias=0.6)
        for answer in engine.sample_ids([[5]], Decoding(n=40, max_new_tokens=6))[0]:
            ended = answer.token_ids[-1] == engine.tokenizer.eos_token_id
            assert answer.finish_reason == ("stop" if ended else "length")
            assert len(answer.token_ids) <= 6
            assert engine.tokenizer.eos_token_id not in answer.token_ids[:-1]
            assert engine.tokenizer.eos_token not in answer.text

    def test_stops_at_every_end_token_that_the_generation_config_names(self):
        engine = make_engine("untied")
        other = 40
        engine.model.generation_config.eos_token_id = [engine.tokenizer.eos_token_id, other]
        with torch.no_grad():
            engine.model.get_output_embeddings().weight[other] *= 6
        answers = Engine(engine.model, engine.tokenizer).sample_ids([[5]], Decoding(n=60, max_new_tokens=12))[0]
        ends = [answer for answer in answers if answer.token_ids[-1] == other]
        assert ends
        assert all(answer.finish_reason == "stop" and other not in answer.token_ids[:-1] for answer in ends)


class TestLimits:
    def test_names_a_prompt_without_room_in_the_context(self, tmp_path):
        engine = Engine.load(make_sft(tmp_path / "sft", context=32))
        with pytest.raises(
            ValueError,
            match=r"prompt 2 \('dog dog.*has \d+ tokens; with 16 new ones it exceeds the model's context of 32",
        ):
            engine.sample([user("who"), user("dog " * 30)], n=1, temperature=1.0, max_new_tokens=16, seed=0)

    def test_fills_the_context_to_its_last_token(self, tmp_path):
        engine = Engine.load(make_base(tmp_path / "base", context=32))
        ids = [5] * 20
        assert max(len(a.token_ids) for a in engine.sample_ids([ids], Decoding(n=20, max_new_tokens=12))[0]) == 12


class TestWeights:
    def test_are_untouched_and_so_is_the_mode(self, tmp_path):
        engine = Engine.load(make_base(tmp_path / "base", "gpt2"))
        engine.model.train()
        before = {name: value.clone() for name, value in engine.model.state_dict().items()}
        first = engine.sample([user("who has")], n=2, temperature=1.0, max_new_tokens=5, seed=0)
        assert engine.model.training
        assert all(torch.equal(before[name], value) for name, value in engine.model.state_dict().items())
        assert (
            engine.sample([user("who has")], n=2, temperature=1.0, max_new_tokens=5, seed=0) == first
        )  # no dropout in it
