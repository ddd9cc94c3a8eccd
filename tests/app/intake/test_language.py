"""The language of a text, and the shortcut for English against the model that it spares."""

import csv
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.intake import language
from app.intake.language import detect_language, is_plainly_english

DATA = Path(__file__).parents[4] / "shared" / "data"
TEXTS = {
    "ar": "ما هي أفضل الطرق لتعلم اللغة العربية في المنزل؟",
    "bn": "বাংলাদেশের রাজধানী কোথায় এবং সেখানে কী দেখার আছে?",
    "cs": "Jaké jsou nejlepší způsoby, jak se naučit cizí jazyk?",
    "da": "Hvordan laver man en god kop kaffe uden en kaffemaskine?",
    "de": "Wie backe ich ein Brot ohne Hefe, das trotzdem locker wird?",
    "el": "Ποιος έγραψε την Οδύσσεια και πότε περίπου έζησε;",
    "en": "What is the capital of France and who lives there?",
    "es": "¿Cuáles son las mejores maneras de aprender a tocar la guitarra?",
    "fa": "چگونه می‌توانم زبان فارسی را در خانه یاد بگیرم؟",
    "fi": "Miten voin parantaa unen laatua ilman lääkkeitä?",
    "fr": "Écris une lettre de motivation pour un poste de boulanger à Lyon.",
    "he": "איך אפשר ללמוד לנגן בגיטרה בבית בלי מורה?",
    "hi": "भारत की राजधानी क्या है और वहाँ क्या देखना चाहिए?",
    "hu": "Hogyan készítsek gulyást négy embernek hétvégére?",
    "id": "Bagaimana cara membuat nasi goreng yang enak di rumah?",
    "it": "Scrivi una poesia sulla pioggia che cade nella città di notte.",
    "ja": "東京でおすすめのラーメン屋を教えてください。",
    "ko": "서울에서 하루 동안 무엇을 하면 좋을까요?",
    "nl": "Hoe kan ik het beste mijn fiets repareren als de band lek is?",
    "pl": "Napisz krótkie opowiadanie o psie, który zgubił się w lesie.",
    "pt": "Quais são os principais pontos turísticos do Rio de Janeiro?",
    "ro": "Care sunt cele mai frumoase locuri de vizitat în România?",
    "ru": "Напиши короткий рассказ о коте, который умел говорить.",
    "sv": "Skriv ett brev till min hyresvärd om att värmen inte fungerar.",
    "th": "ช่วยแนะนำสถานที่ท่องเที่ยวในเชียงใหม่หน่อย",
    "tr": "Bana sağlıklı bir kahvaltı için üç öneri verir misin?",
    "uk": "Які найкращі місця для відпочинку в Карпатах узимку?",
    "vi": "Hãy viết một bài thơ ngắn về mùa thu ở Hà Nội.",
    "zh": "请写一首关于秋天的短诗。",
}
NO_LANGUAGE = [
    "",
    " \n\t",
    "hi",
    "ok?",
    "😀😀😀🎉",
    "!!! ??? …",
    "1 + 2 = 3",
    "x^2 + 3x - 4 = 0",
    "\\int_0^1 x^2 dx = \\frac{1}{3}",
    "123 456 789 000 12 12 12",
    "http://example.com/a/b",
    'def add(a, b):\n    """Sum."""\n    return a + b\n\nfor i in range(10):\n    print(add(i, 2))',
    'const x = await fetch("/api");\nif (x.ok) {\n  return x.json();\n}',
    "SELECT name, age FROM users WHERE age > 3 ORDER BY name;",
    "<html><body><p>hello</p></body></html>",
]


class TestDetectLanguage:
    @pytest.mark.parametrize("code", TEXTS)
    def test_knows_the_language(self, code):
        assert detect_language(TEXTS[code]) == code

    @pytest.mark.parametrize("text", NO_LANGUAGE)
    def test_says_nothing_of_what_is_no_language_or_too_short(self, text):
        assert detect_language(text) is None

    @pytest.mark.parametrize(
        "text",
        [
            "Hvordan kan jeg lære meg å spille gitar på egen hånd hjemme?",
            "Как да приготвя баница с кисело мляко и сирене?",
        ],
    )
    def test_says_nothing_between_close_relatives(self, text):
        assert detect_language(text) is None

    def test_capitals_and_emoji_and_blank_lines_do_not_matter(self):
        assert detect_language(TEXTS["en"].upper()) == "en"
        assert detect_language(TEXTS["de"].upper()) == "de"
        assert detect_language(f"😀 {TEXTS['fr']} 🎉") == "fr"
        assert detect_language("\n" * 5000 + TEXTS["es"]) == "es"

    @pytest.mark.parametrize("unit", ["Wie geht es dir heute? ", " ", "😀", "the ", "a", "{;"])
    def test_of_a_megabyte_only_the_beginning_is_read(self, unit):
        began = time.process_time()
        detect_language(unit * (1_000_000 // len(unit)))
        assert time.process_time() - began < 0.5

    def test_many_threads_load_one_model(self):
        language._load.cache_clear()
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(detect_language, [TEXTS["de"]] * 40)) == ["de"] * 40
        assert language._load.cache_info().misses == 1


class TestIsPlainlyEnglish:
    @pytest.mark.parametrize("code", sorted(set(TEXTS) - {"en"}))
    def test_takes_no_other_language_for_english(self, code):
        assert not is_plainly_english(TEXTS[code])

    @pytest.mark.parametrize(
        "text",
        [
            "Was macht man in der Schule, wenn es an Zeit fehlt und was ist das",
            "we had of in die was over is de man on to",
            "Hvordan kan jeg for at have det so by her on to me",
            "Jestem w domu i to by bylo dobre do pracy",
            "def f(a): if a is not None and a in b or c: return a for x in y",
            "the of and to",
        ],
    )
    def test_words_of_many_languages_are_not_enough(self, text):
        assert not is_plainly_english(text)

    @pytest.mark.skipif(not DATA.exists(), reason="the folder shared/data is not beside the repository")
    def test_agrees_with_the_model_on_real_prompts(self):
        texts = [text for text in english_texts() if is_plainly_english(text.lstrip()[: language.EXCERPT_CHARACTERS])]
        others = [(guess, text) for text in texts if (guess := first_guess(text)) != "en"]
        assert len(texts) > 10_000
        assert len(others) <= len(texts) / 1000, others


def first_guess(text: str) -> str:
    line = " ".join(text.lstrip()[: language.EXCERPT_CHARACTERS].split())
    return language._model().predict(line, k=1)[0][0].removeprefix("__label__")


def english_texts() -> list[str]:
    def lines(*parts: str) -> list:
        return [json.loads(line) for line in DATA.joinpath(*parts).read_text().splitlines()]

    def table(name: str, column: str, delimiter: str = ",") -> list[str]:
        with (DATA / name).open(newline="") as file:
            return [row[column] for row in csv.DictReader(file, delimiter=delimiter)]

    return [
        *(row["question"] for name in ("train", "test") for row in lines("gsm8k", f"{name}.jsonl")),
        *lines("oasst_en_100", "prompt_lottery_en_250_text.jsonl"),
        *(row["text"] for row in lines("oasst_en_100", "en_100_message.jsonl")),
        *(
            f"{row['instruction']}\n\n{row['input']}"
            for row in json.loads((DATA / "rasbt_instructions/instruction-data.json").read_text())
        ),
        *(
            f"{row['instruction']}\n{row['instances'][0]['input']}"
            for row in lines("self_instruct", "seed_tasks.jsonl")
        ),
        *(turn for row in lines("mt_bench", "question.jsonl") for turn in row["turns"]),
        *table("truthfulqa/TruthfulQA.csv", "Question"),
        *table("winogender/all_sentences.tsv", "sentence", "\t"),
    ]
