"""Which prompts are the same, near, or begin alike: against the slow way, on real texts, and against hostile ones."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
import tracemalloc
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from app.intake import likeness
from app.intake.likeness import (
    BANDS,
    KEYS_PER_PROMPT,
    PREFIX_CHARACTERS,
    Likeness,
    are_alike,
    compare,
    fingerprint,
    is_near,
    shares_prefix,
    sketch,
)
from tests.app.intake import naive
from tests.app.intake.test_words import HOSTILE

ROOT = Path(__file__).parents[3]
REAL = ROOT.parent / "shared" / "data" / "rasbt_instructions" / "instruction-data.json"
VOCABULARY = [f"{first}{second}{third}" for first in "bdfklmnprst" for second in "aeiou" for third in "lmnrst"]

Prompt = list[dict[str, str]]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def talk(*texts: str) -> Prompt:
    return [(user, assistant)[at % 2](text) for at, text in enumerate(texts)]


def sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(VOCABULARY) for _ in range(words))


def vary(chance: random.Random, text: str, changes: int) -> str:
    """The text with so many words changed, and with other case and punctuation, which do not count."""
    words = text.split()
    for at in chance.sample(range(len(words)), changes):
        words[at] = chance.choice(VOCABULARY)
    return f"{' '.join(words).capitalize()}?!"


def share_a_key(first: Sequence[int], second: Sequence[int]) -> bool:
    return any(one and one == other for one, other in zip(first, second, strict=True))


class TestFingerprint:
    @staticmethod
    def as_stored(messages: Sequence[Mapping[str, str]]) -> bytes:
        turns = [
            [message["role"], " ".join(unicodedata.normalize("NFC", message["content"]).split())]
            for message in messages
        ]
        return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).digest()

    @pytest.mark.parametrize(
        "text",
        [
            *(text for text in HOSTILE if "\ud800" not in text),
            'quotes " and \\ and / and \x7f\x1f\u2028',
            " begins and ends with blanks ",
            "two  blanks",
            "a\nline\r\nbreak\ttab\x0bvertical\x1cseparator\x85next\u00a0hard\u3000wide",
            "\U0001f600 \U0010ffff \ufffe",
            "e\u0301  \u1100\u1161\u11a8",
        ],
    )
    def test_is_byte_for_byte_what_is_stored(self, text: str) -> None:
        for messages in ([user(text)], [system("Be brief."), user("A?"), assistant(text), user("B")], []):
            assert fingerprint(messages) == self.as_stored(messages)

    def test_is_what_is_stored_for_every_letter_of_the_first_plane(self) -> None:
        for begin in range(0, 0x10000, 16):
            letters = [chr(point) for point in range(begin, begin + 16) if not 0xD800 <= point < 0xE000]
            messages = [user(f"{letter}a{letter} {letter}") for letter in letters]
            assert fingerprint(messages) == self.as_stored(messages)

    def test_known_values(self) -> None:
        assert fingerprint([user("Hello,  world!\n")]).hex() == FINGERPRINTS[0]
        assert fingerprint([system("S"), user('cafe\u0301 “quoted” "q"')]).hex() == FINGERPRINTS[1]

    def test_half_a_character_is_no_text(self) -> None:
        with pytest.raises(UnicodeEncodeError):
            fingerprint([user("\ud800")])


class TestSketch:
    def test_known_keys(self) -> None:
        """Keys are stored: where these differ, `ALGORITHM` must be raised, and every project's keys made anew."""
        keys = sketch(["Write a poem about the sea.", "今天天气很好，我们去公园吧。", "word " * 50, "?"])
        assert [[f"{key:016x}" for key in row] for row in keys.tolist()] == KEYS

    def test_has_a_row_for_each_text(self) -> None:
        assert sketch([]).shape == (0, KEYS_PER_PROMPT)
        assert sketch(HOSTILE).shape == (len(HOSTILE), KEYS_PER_PROMPT)
        assert sketch(HOSTILE).dtype == np.uint64

    def test_is_the_same_in_batches_of_any_size(self) -> None:
        chance = random.Random(1)
        texts = [*HOSTILE, *(sentence(chance, chance.randrange(200)) for _ in range(300)), "x y z " * 30_000, *HOSTILE]
        whole = sketch(texts)
        assert np.array_equal(whole, np.concatenate([sketch(texts[at : at + 7]) for at in range(0, len(texts), 7)]))

    def test_is_the_same_in_every_process(self) -> None:
        code = "from app.intake.likeness import sketch; print(sketch(['a b c d', '…'])[0].tolist())"
        outputs = {
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert outputs == {f"{sketch(['a b c d'])[0].tolist()}\n"}

    def test_texts_without_words_have_no_key(self) -> None:
        assert not sketch(["", "?", "...", "\u200b\u200d", "—", "\0", "。"]).any()

    def test_the_long_prefix_is_a_key_of_its_own(self) -> None:
        chance = random.Random(2)
        begin = f"{sentence(chance, 60)[: PREFIX_CHARACTERS - 3]}end"
        keys = sketch([begin, f"{begin} {sentence(chance, 300)}", begin[:-1], f"{begin[:-1]}!?."])
        assert keys[0, BANDS] == keys[1, BANDS] != 0
        assert keys[2, BANDS] == keys[3, BANDS] == 0

    def test_no_two_bands_share_a_key(self) -> None:
        assert len(np.unique(sketch(["one word", "or two or three"])[:, :BANDS])) == 2 * BANDS

    def test_finds_near_pairs_as_often_as_the_formula_says(self) -> None:
        chance = random.Random(3)
        found: dict[bool, list[bool]] = {True: [], False: []}
        for _ in range(1500):
            text = sentence(chance, 60)
            other = vary(chance, text, chance.randrange(1, 4))
            if (closeness := naive.jaccard(text, other)) >= likeness.THRESHOLD:
                found[closeness >= 0.85].append(share_a_key(*sketch([text, other])[:, :BANDS].tolist()))
        assert len(found[True]) > 300
        assert np.mean(found[True]) >= 0.97
        assert len(found[False]) > 200
        assert np.mean(found[False]) >= 0.93

    def test_texts_that_differ_rarely_share_a_key(self) -> None:
        chance = random.Random(4)
        keys = sketch([sentence(chance, 30) for _ in range(2000)])[:, :BANDS]
        assert len(np.unique(keys)) > 0.999 * keys.size


class TestIsNear:
    def test_is_the_jaccard_of_the_naive_twin(self) -> None:
        chance = random.Random(5)
        texts = [sentence(chance, chance.randrange(1, 40)) for _ in range(60)]
        pairs = [(text, vary(chance, text, chance.randrange(min(6, len(text.split()))))) for text in texts * 5]
        pairs += list(combinations(HOSTILE, 2))
        for first, second in pairs:
            for threshold in (0.6, 0.8, 0.95):
                assert is_near(first, second, threshold) == (naive.jaccard(first, second) >= threshold)

    def test_reaches_the_threshold_itself(self) -> None:
        words = " ".join(f"w{at}" for at in range(6))  # 4 shingles of which the longer text's 5 have all
        assert is_near(words, f"{words} w6", 0.8)
        assert not is_near(words, f"{words} w6", 0.81)

    def test_case_punctuation_and_invisible_characters_do_not_count(self) -> None:
        assert is_near("Write a poem, about the sea!", "write a po\u200bem about the SEA")

    def test_operators_count(self) -> None:
        assert not is_near("What is 12 * 7?", "What is 12 + 7?")
        assert not is_near("What is 12 / 7?", "What is 12 - 7?")

    def test_texts_without_words_are_near_to_none(self) -> None:
        assert not is_near("?", "?")
        assert not is_near("...", "")

    def test_scripts_without_spaces(self) -> None:
        first = "请写一首关于大海的诗，要求押韵，不少于二十行，并且提到灯塔和海鸥。"
        assert is_near(first, first.replace("海鸥", "帆船") + "谢谢", 0.7)
        assert not is_near(first, "请写一首关于春天的歌，给孩子们唱，不超过八行，而且不要提到花和小鸟。", 0.5)


class TestSharesPrefix:
    BEGIN = "You are given a long list of instructions that never changes. " * 4

    def test_long_texts_with_one_beginning(self) -> None:
        assert shares_prefix(f"{self.BEGIN} Apples?", f"{self.BEGIN.upper()}\n\nPears and more")

    def test_a_beginning_one_character_too_short(self) -> None:
        at = PREFIX_CHARACTERS - 1
        assert not shares_prefix(f"{'x' * at}a and so on", f"{'x' * at}b and so on")
        assert shares_prefix(f"{'x' * at}aa and so on", f"{'x' * at}ab and so on")

    def test_short_texts_never_do(self) -> None:
        assert not shares_prefix("the same", "the same")


class TestAreAlike:
    LONG = sentence(random.Random(6), 60)
    HISTORY = (sentence(random.Random(7), 100), sentence(random.Random(8), 300))

    def test_prompts_of_one_turn(self) -> None:
        assert are_alike(talk("Write a poem about the sea."), talk("write a poem about the sea!")) is Likeness.NEAR
        assert are_alike(talk("Write a poem."), talk("Solve this for x.")) is None

    def test_a_long_beginning(self) -> None:
        ends = [sentence(random.Random(at), 60) for at in (9, 10)]
        assert are_alike(*(talk(f"{self.LONG} {end}") for end in ends)) is Likeness.PREFIX

    def test_near_goes_before_prefix(self) -> None:
        assert are_alike(talk(f"{self.LONG} end"), talk(self.LONG)) is Likeness.NEAR

    def test_system_turns_are_left_aside(self) -> None:
        first, second = [system(self.LONG), user("Name a fruit.")], [system("Be brief."), user("Name a fruit")]
        assert are_alike(first, second) is Likeness.NEAR
        assert are_alike(first, talk("Name a fruit")) is Likeness.NEAR
        assert are_alike([system(self.LONG), user("Name a fish")], [system(self.LONG), user("Tell me a joke")]) is None

    def test_conversations_that_end_alike_but_differ(self) -> None:
        first = talk("Tell me of Rome.", sentence(random.Random(11), 30), "continue")
        second = talk("Cook a soup.", sentence(random.Random(12), 30), "continue")
        assert are_alike(first, second) is None
        assert are_alike(first, talk("continue")) is None

    def test_siblings_that_share_all_but_their_end(self) -> None:
        assert are_alike(talk(*self.HISTORY, "Shorter please"), talk(*self.HISTORY, "Now in French")) is None

    def test_conversations_that_are_near_as_a_whole(self) -> None:
        assert are_alike(talk(*self.HISTORY, "In French."), talk(*self.HISTORY, "in french")) is Likeness.NEAR
        other = talk(vary(random.Random(13), self.HISTORY[0], 3), self.HISTORY[1], "in french")
        assert are_alike(talk(*self.HISTORY, "In French."), other) is Likeness.NEAR

    def test_a_conversation_begins_alike_only_after_one_history(self) -> None:
        first, second = (f"{self.LONG} {sentence(random.Random(at), 60)}" for at in (14, 15))
        assert are_alike(talk(*self.HISTORY, first), talk(*self.HISTORY, second)) is Likeness.PREFIX
        assert are_alike(talk(*self.HISTORY, first), talk("Hi", "Hello", second)) is None
        assert are_alike(talk(*self.HISTORY, first), talk(second)) is None

    def test_one_long_last_turn_after_two_histories(self) -> None:
        other = talk(sentence(random.Random(16), 200), "Hm", f"{self.LONG} end")
        assert are_alike(talk(*self.HISTORY, f"{self.LONG} end"), other) is None

    def test_a_prompt_without_a_turn_of_a_user(self) -> None:
        with pytest.raises(ValueError, match="a prompt of 1 turns has none by a user"):
            are_alike([system("Be brief.")], talk("Name a fruit."))


class TestCompare:
    def test_of_nothing_is_nothing(self) -> None:
        assert compare([]) == []

    def test_is_symmetric_and_the_same_alone(self) -> None:
        prompts = [talk("a b c d e f"), talk("A b c d e f g"), talk("a", "b", "continue"), talk("x", "y", "continue")]
        pairs = [(first, second) for first in prompts for second in prompts]
        assert compare(pairs) == [are_alike(*pair) for pair in pairs]
        assert compare(pairs) == compare([(second, first) for first, second in pairs])

    def test_is_the_same_in_parts_of_any_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        texts = [" ".join(f"w{n * step % 41}" for n in range(60)) for step in range(1, 9)]
        talks = [talk(text) for text in texts] + [
            [*talk(text), {"role": "assistant", "content": "So."}, *talk("go on")] for text in texts
        ]
        pairs = [(first, second) for first in talks for second in talks]
        whole = compare(pairs)
        assert set(whole) >= {None, Likeness.NEAR}
        for size in (1, 300, 1000, 5000):
            monkeypatch.setattr(likeness, "_PART_CHARACTERS", size)
            assert compare(pairs) == whole

    def test_many_long_pairs_are_held_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        texts = [" ".join(f"{side}{number}w{at}" for at in range(300)) for number in range(400) for side in "ab"]
        pairs = [(talk(first), talk(second)) for first, second in zip(texts[::2], texts[1::2], strict=True)]
        peaks = []
        for size in (100_000, 1 << 40):
            monkeypatch.setattr(likeness, "_PART_CHARACTERS", size)
            tracemalloc.start()
            compare(pairs)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[0] < 0.7 * peaks[1]

    def test_long_texts_are_quick(self) -> None:
        megabytes = [sentence(random.Random(at), 250_000) for at in (17, 18)]
        begun = time.process_time()
        assert compare([(talk(megabytes[0]), talk(text)) for text in megabytes]) == [Likeness.NEAR, None]
        assert time.process_time() - begun < 5

    @pytest.mark.skipif(not REAL.exists(), reason="the real texts are not beside the checkout (shared/data)")
    def test_finds_the_near_pairs_of_real_prompts(self) -> None:
        texts = [f"{row['instruction']}\n{row['input']}" for row in json.loads(REAL.read_text())[:300]]
        keys, shingles = sketch(texts), [naive.shingles(text) for text in texts]
        pairs = list(combinations(range(len(texts)), 2))
        expected = {
            (first, second)
            for first, second in pairs
            if len(shingles[first] & shingles[second]) >= 0.8 * len(shingles[first] | shingles[second])
        }
        found = {
            pair
            for pair, alike in zip(pairs, compare([(talk(texts[a]), talk(texts[b])) for a, b in pairs]), strict=True)
            if alike is Likeness.NEAR
        }
        assert found == expected != set()
        assert all(share_a_key(keys[first].tolist(), keys[second].tolist()) for first, second in expected)


class TestPackage:
    def test_importing_it_does_not_load_numpy(self) -> None:
        code = "import sys, app.intake.likeness, app.intake.segments; sys.exit('numpy' in sys.modules)"
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


FINGERPRINTS = [
    "651618a7914b4df6c09fc4601a0166cf3b2f76e65205626d2e94fc2ff94b3fd9",
    "58995de7c34d2c996101b063a680fa6099a463974f6f98eb7b53f86bff734792",
]

KEYS = [
    [
        "e08edad68c56dedd",
        "dacfa3ff05a83697",
        "c309a5517a90af41",
        "3c3c7983b1847cbf",
        "ef13e333a759c9d0",
        "e8d2b56d2deefd1d",
        "0000000000000000",
    ],
    [
        "61f19217258c0153",
        "cf824956ac7fc52e",
        "ba59242971ffeedf",
        "c8ea0055f097c936",
        "a986200e50430615",
        "07cc8a25f3db09d4",
        "0000000000000000",
    ],
    [
        "2bdbcd534e8d6e80",
        "8fbf32a864df9954",
        "3605d0c8c8e89967",
        "70aaa774e78bbddd",
        "d27dabb55c378f2e",
        "640f155355357f8a",
        "5933b6f453653f3a",
    ],
    [
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
        "0000000000000000",
    ],
]
