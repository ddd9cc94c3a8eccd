"""How much personal data is found, and how often it is seen where there is none.

    python -m benchmarks.pii_recall [--data FOLDER] [--json FILE|-]

The prompts of benchmarks/data/pii_examples.jsonl are invented, one a line: the text and the spans `[start, end, kind]` of what
is personal in it, none in the hard ones. Most were written before the recognisers, whose faults they showed. The rows `held_out`
were written after, and their figures are nearer to what other texts give: 25 of their 30 spans were found before one fault that
they showed ("server" was read as "ver." before an address) was mended, and nothing else was changed for them. Secrets have one
letter written as an escape of JSON, so that scanners of repositories leave the file alone. A span counts as found where findings
of its kind cover every letter and digit of it. With --data, texts of real sets without personal data are counted too.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app.intake.pii import PiiKind, find_pii
from benchmarks import report

EXAMPLES = report.ROOT / "benchmarks" / "data" / "pii_examples.jsonl"


def read_examples() -> list[dict[str, Any]]:
    """All labelled prompts."""
    return [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]


def find(text: str) -> list[tuple[int, int, str]]:
    """What is found in a single prompt."""
    return [(found.start, found.end, found.kind) for found in find_pii([{"role": "user", "content": text}])]


def is_covered(text: str, start: int, end: int, found: Iterable[tuple[int, int]]) -> bool:
    """Whether every letter and digit of a span is in one of those found."""
    hidden = {at for begin, stop in found for at in range(begin, stop)}
    return all(at in hidden for at in range(start, end) if text[at].isalnum())


def count_labelled(examples: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Per kind what was labelled and found, and the texts of what was missed."""
    labelled: Counter[str] = Counter()
    found: Counter[str] = Counter()
    missed = []
    for example in examples:
        seen = find(example["text"])
        for start, end, kind in example["spans"]:
            labelled[kind] += 1
            if is_covered(example["text"], start, end, [(a, b) for a, b, other in seen if other == kind]):
                found[kind] += 1
            else:
                missed.append(f"{kind}: {example['text']!r}")
    kinds = {
        kind.value: {
            "labelled": labelled[kind],
            "found": found[kind],
            "recall": round(found[kind] / labelled[kind], 3) if labelled[kind] else None,
        }
        for kind in PiiKind
    }
    return kinds, missed


def count_alarms(texts: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """How many texts that hold nothing personal were said to, by kind, and which."""
    texts = list(texts)
    kinds: Counter[str] = Counter()
    alarms = []
    began = time.perf_counter()
    for text in texts:
        if seen := find(text):
            kinds.update({kind for _, _, kind in seen})
            alarms.append(f"{[(kind, text[start:end]) for start, end, kind in seen]} in {text[:200]!r}")
    seconds = time.perf_counter() - began
    return {
        "texts": len(texts),
        "alarms": len(alarms),
        "alarms_per_1000": round(1000 * len(alarms) / len(texts), 2),
        "by_kind": dict(sorted(kinds.items())),
        "microseconds_per_text": round(1e6 * seconds / len(texts), 1),
    }, alarms


def measure(examples: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Recall of those with spans and alarms on those without."""
    kinds, missed = count_labelled(example for example in examples if example["spans"])
    hard, alarms = count_alarms(example["text"] for example in examples if not example["spans"])
    total = [sum(kind[name] for kind in kinds.values()) for name in ("labelled", "found")]
    return {"labelled": total[0], "found": total[1], "kinds": kinds, "hard_negatives": hard}, missed + alarms


def read_sets(folder: Path) -> dict[str, list[str]]:
    """Texts of real sets, none of which is known to hold personal data; each alarm is to be looked at."""

    def lines(*parts: str) -> list[Any]:
        return [json.loads(line) for line in report.data_file(folder, *parts).read_text(encoding="utf-8").splitlines()]

    tasks = json.loads(
        report.data_file(folder, "rasbt_instructions", "instruction-data.json").read_text(encoding="utf-8")
    )
    return {
        "gsm8k": [row["question"] for name in ("train", "test") for row in lines("gsm8k", f"{name}.jsonl")],
        "oasst_en_100": lines("oasst_en_100", "prompt_lottery_en_250_text.jsonl"),
        "rasbt_instructions": [f"{row['instruction']}\n\n{row['input']}".strip() for row in tasks],
    }


def main() -> None:
    """Count and report."""
    parser = report.parser(__doc__)
    parser.add_argument(
        "--data", type=Path, help="folder with the data sets gsm8k, oasst_en_100 and rasbt_instructions"
    )
    parser.add_argument("--show", action="store_true", help="print what was missed and each false alarm")
    options = parser.parse_args()
    examples = read_examples()
    find("Warm up: call +1 650 253 0412.")
    known = [example for example in examples if "held_out" not in example]
    others = [example for example in examples if "held_out" in example]
    first, shown = measure(known)
    second, missed = measure(others)
    shown += missed
    sets = {}
    for name, texts in (read_sets(options.data) if options.data else {}).items():
        sets[name], alarms = count_alarms(texts)
        shown += alarms
    if options.show:
        print("\n".join(shown))
    about = {"benchmark": "pii_recall", **report.machine(1), "load_1min": report.load()}
    report.publish(about | {"known": first, "held_out": second, "sets": sets}, options.json)


if __name__ == "__main__":
    main()
