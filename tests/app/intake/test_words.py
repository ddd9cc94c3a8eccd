"""The plain form of a text: what counts as a word, what is passed over, and that its hashes are the same everywhere."""

import random
import time
import unicodedata
from typing import Literal

import numpy as np
import pytest

from app.intake.words import LONGEST_CHARACTERS, chunks, compose, mix, read_words, sum_span
from tests.app.intake import naive

HOSTILE = [
    "",
    "?",
    "...",
    " \t\r\n\u2028 ",
    "\0",
    "a\0b\0\0c",
    "\0\0\0 hello",
    "word",
    "two words",
    "Don't STOP—me now; it's 3.14, or 3,14!",
    "12 * 7 / 3 + 1 - 5 = 100% of C# & c++",
    "**bold** `code` _emphasis_ snake_case",
    "zero\u200bwidth\u200d soft\u00adhyphen \ufeffmark",
    "Straße STRASSE ﬁne ½ Ⅷ ＦＵＬＬ",
    "cafe\u0301 café",
    "今天天气很好，我们去公园吧。",
    "日本語のテキスト test と English、ｶﾀｶﾅ",
    "สวัสดีครับ วันนี้อากาศดี",
    "नमस्ते दुनिया, आप कैसे हैं?",
    "안녕하세요 세계",
    "مرحبا‌بك يا عالم",
    "👩‍👩‍👧 ❤️ 🏳️‍🌈",
    "\u0301leading mark",
    "ends with a blank ",
    "x" * 5000,
]


def plain(text: str) -> str:
    words = read_words([text])
    return "".join(map(chr, words.points[: int(words.lengths[0])]))


class TestReadWords:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Hello,   World!", "hello world"),
            ("?", ""),
            ("a-b_c", "a b c"),
            ("«Ça va ?»", "ça va"),
            ("12 * 7", "12 * 7"),
            ("12 + 7", "12 + 7"),
            ("in\u200bvisible", "invisible"),
            ("你好，世界", "你好 世界"),
            ("Ｆｕｌｌ ＷＩＤＴＨ", "full width"),
            ("a\0b", "a b"),
        ],
    )
    def test_plain_text(self, text: str, expected: str) -> None:
        assert plain(text) == expected

    @pytest.mark.parametrize("text", HOSTILE)
    def test_has_as_many_shingles_as_the_naive_twin(self, text: str) -> None:
        words = read_words([text])
        assert len(set(words.shingles.tolist())) == len(naive.shingles(text))

    @pytest.mark.parametrize("text", HOSTILE)
    def test_has_the_characters_of_the_naive_twin(self, text: str) -> None:
        assert plain(text).replace(" ", "") == "".join(naive.words(text))

    def test_each_text_is_read_as_if_it_were_alone(self) -> None:
        together = read_words(HOSTILE)
        for at, text in enumerate(HOSTILE):
            alone = read_words([text])
            begin, end = together.shingle_offsets[at : at + 2]
            assert together.shingles[begin:end].tolist() == alone.shingles.tolist()
            assert together.lengths[at] == alone.lengths[0]

    def test_the_order_of_words_counts(self) -> None:
        words = read_words(["one two three", "three two one", "one two", "two one", "one"])
        assert len(set(words.shingles.tolist())) == 5

    def test_letters_of_scripts_without_spaces_are_words(self) -> None:
        assert np.diff(read_words(["今天天气很好", "สวัสดี", "onelongword"]).shingle_offsets).tolist() == [4, 4, 1]

    def test_blanks_between_such_letters_change_nothing(self) -> None:
        first, second = read_words(["今天天气"]), read_words(["今 天 天, 气"])
        assert first.shingles.tolist() == second.shingles.tolist()

    def test_half_a_character_is_a_letter_like_any(self) -> None:
        assert len(read_words(["\ud800 a b"]).shingles) == 1

    def test_looks_at_the_beginning_of_what_is_too_long(self) -> None:
        long = "a b c d e f g h " * (LONGEST_CHARACTERS // 16)
        first, second = read_words([long + "one"]), read_words([long + "other"])
        assert first.shingles.tolist() == second.shingles.tolist()

    def test_a_ligature_that_becomes_eighteen_letters_does_not_make_it_longer(self) -> None:
        assert read_words(["\ufdfa" * (LONGEST_CHARACTERS // 8)]).lengths[0] <= LONGEST_CHARACTERS

    def test_hashes_are_what_they_were(self) -> None:
        words = read_words(["Hello, World!", "今天天气很好", "one two three four"])
        assert [f"{number:016x}" for number in words.shingles.tolist()] == HASHES


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
class TestCompose:
    MARKS = "\u0301\u0323\u0327\u0344\u0345\u0f71\u0f73\u0f74\u093c"

    def test_is_the_normal_form(self, form: Literal["NFC", "NFKC"]) -> None:
        chance = random.Random(1)
        texts = [*HOSTILE, *("é" * at + "".join(chance.choices(self.MARKS, k=at)) + "e" for at in range(0, 1000, 10))]
        texts += ["".join(chance.choices(f"aeé {self.MARKS}", k=500)) for _ in range(200)]
        assert [compose(text, form) for text in texts] == [unicodedata.normalize(form, text) for text in texts]

    @pytest.mark.parametrize("pattern", ["\u0301\u0323", "\u0f73", "\u0344\u0323", "a\u0301", "\ufdfa"])
    def test_a_long_run_of_marks_is_quick(self, form: Literal["NFC", "NFKC"], pattern: str) -> None:
        begun = time.process_time()
        compose(f"é{pattern * (200_000 // len(pattern))}", form)
        assert time.process_time() - begun < 2


class TestSumSpan:
    def test_is_equal_for_equal_characters_wherever_they_stand(self) -> None:
        words = read_words(["abc xyz abc", "abd"])
        spans = sum_span(words, np.array([0, 8, 12]), np.array([3, 11, 15])).tolist()
        assert spans[0] == spans[1] != spans[2]


class TestMix:
    def test_is_the_finaliser_of_splitmix64(self) -> None:
        golden = np.array([0x9E3779B97F4A7C15, 2 * 0x9E3779B97F4A7C15 % 2**64], dtype=np.uint64)
        assert mix(golden).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]  # its first numbers from the seed 0


class TestChunks:
    def test_cover_all_texts_once(self) -> None:
        texts = ["x" * (at * 997 % 5000) for at in range(300)]
        assert [text for rows in chunks(texts) for text in texts[rows]] == texts
        assert len(list(chunks(texts))) > 5

    def test_a_long_text_ends_its_chunk(self) -> None:
        assert list(chunks(["a", "x" * 10**6, "b"])) == [slice(0, 2), slice(2, 3)]

    def test_of_nothing_are_none(self) -> None:
        assert list(chunks([])) == []


HASHES = [
    "6a6f22c068f6254a",
    "bc39a948a04a8230",
    "c8abae97c51b9c3c",
    "21ccf47fb95c137e",
    "c235a0a9ef7886b4",
    "8d55a4183dabb908",
    "c300a57cb922e405",
]
