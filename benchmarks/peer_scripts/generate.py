"""transformers' `generate`, timed: a job as JSON on standard input, the answer as JSON in the last line of standard output.

The job: `model`, `prompts` (token ids, all of one length), responses to each, the most tokens, rows at once, and whether dense.
"""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent))
from ends import Ends, peak_mib  # isolated, the interpreter does not look beside its script by itself


def main() -> None:
    """Answer one job."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr):
        tokenizer = AutoTokenizer.from_pretrained(job["model"])
        model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32).eval()
        ends = Ends(tokenizer.eos_token_id, len(job["prompts"][0]), job["max_new_tokens"], dense=job["dense"])
        model.register_forward_hook(ends, with_kwargs=True)
        size = max(1, job["rows"] // job["responses"])
        tokens, began = 0, time.perf_counter()
        for at in range(0, len(job["prompts"]), size):
            ids = torch.tensor(job["prompts"][at : at + size])
            answers = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=job["responses"],
                max_new_tokens=job["max_new_tokens"],
                pad_token_id=tokenizer.eos_token_id,
            )[:, ids.shape[1] :]
            ended = (answers == tokenizer.eos_token_id).cumsum(1)  # 0 before the end token, 1 at the first
            tokens += int((ended == 0).sum()) + len(answers)
        seconds = time.perf_counter() - began
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    load = round(os.getloadavg()[0], 2)
    print(
        json.dumps({"versions": versions, "tokens": tokens, "seconds": seconds, "peak_mib": peak_mib(), "load": load})
    )


if __name__ == "__main__":
    main()
