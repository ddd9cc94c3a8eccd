"""The vLLM backend against a server that speaks as vLLM does and draws with the engine: what is asked, and what is made of it."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from tests.workers.training.factories import make_sft
from workers.training.engine import Decoding, Engine
from workers.training.vllm_engine import VLLMEngine


class StandIn(BaseHTTPRequestHandler):
    """Answers /v1/models and /v1/completions; the request's seed decides its draws, as in vLLM."""

    engine: Engine
    asked: list[dict]
    lock = threading.Lock()

    def do_GET(self):
        self.answer({"data": [{"id": "the-model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        top_k = max(0, body["top_k"])
        decoding = Decoding(1, body["temperature"], body["top_p"], body["max_tokens"], body["seed"], top_k)
        with self.lock:
            self.asked.append(body)
            ((drawn,),) = self.engine.sample_ids([body["prompt"]], decoding)
        choice = {"text": drawn.text, "token_ids": drawn.token_ids, "finish_reason": drawn.finish_reason}
        self.answer({"choices": [choice]})

    def answer(self, content):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # the engine connects for all its rows at once


@pytest.fixture
def sft(tmp_path):
    return make_sft(tmp_path / "sft")


@pytest.fixture
def served(sft):
    handler = type("Handler", (StandIn,), {"engine": Engine.load(sft), "asked": []})
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", asked=handler.asked)
        server.shutdown()
        thread.join()


class TestVLLMEngine:
    def test_gives_what_was_drawn_with_the_trainers_log_probabilities(self, sft, served):
        engine, ours = VLLMEngine.connect(served.url, sft), Engine.load(sft)
        prompts = [[5, 6, 7], [8], [8]]
        answers = engine.sample_ids(prompts, Decoding(n=2, temperature=0.7, max_new_tokens=8))
        seeds = [answer.seed for of_prompt in answers for answer in of_prompt]
        assert len(set(seeds)) == 6
        assert {body["seed"] for body in served.asked} == set(seeds)
        for prompt, of_prompt in zip(prompts, answers, strict=True):
            for answer in of_prompt:
                ((drawn,),) = ours.sample_ids([prompt], Decoding(1, 0.7, max_new_tokens=8, seed=answer.seed))
                assert (answer.token_ids, answer.text) == (drawn.token_ids, drawn.text)
                assert answer.finish_reason == drawn.finish_reason
                assert answer.logprobs == pytest.approx(drawn.logprobs, abs=1e-4)

    def test_hands_over_every_setting(self, sft, served):
        engine = VLLMEngine.connect(served.url, sft)
        engine.sample_ids([[5]], Decoding(top_p=0.9, top_k=4, max_new_tokens=3, stop=("x",)))
        (body,) = served.asked
        assert (body["model"], body["prompt"], body["return_token_ids"]) == ("the-model", [5], True)
        assert (body["top_p"], body["top_k"], body["max_tokens"], body["stop"]) == (0.9, 4, 3, ["x"])
        assert body["stop_token_ids"] == [engine.tokenizer.eos_token_id]
        assert body["logit_bias"] == {str(engine.tokenizer.pad_token_id): -100.0}

    def test_cuts_at_a_stop_string_as_the_engine_does(self, sft, served):
        engine, decoding = VLLMEngine.connect(served.url, sft), Decoding(n=20, max_new_tokens=12)
        whole = engine.sample_ids([[5]], decoding)[0]
        stop = next(answer.text[2:4] for answer in whole if answer.text[2:4].isalnum())
        for one, other in zip(engine.sample_ids([[5]], replace(decoding, stop=(stop,)))[0], whole, strict=True):
            assert one.text == other.text.partition(stop)[0]
            assert len(one.logprobs) == len(one.token_ids)

    def test_without_a_server_is_one_sentence(self, sft):
        with pytest.raises(ValueError, match=r"no vLLM answers at http://127.0.0.1:9/? .*start one with `vllm serve"):
            VLLMEngine.connect("http://127.0.0.1:9", sft)
