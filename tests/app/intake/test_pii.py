"""Personal data: what is found and what is not, how fast, and what a prompt looks like with it covered."""

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from app.intake.pii import MASKS, Finding, PiiKind, find_pii, mask
from benchmarks import pii_recall

DATA = Path(__file__).parents[4] / "shared" / "data"
GSM8K = DATA / "gsm8k" / "test.jsonl"
EXAMPLES = pii_recall.read_examples()
ORDINARY = (
    "Could you explain to me in a few short sentences how a heat pump takes warmth out of cold air in winter, and why it needs "
    "less power than a plain electric heater of the same size does? Thanks a lot!"
)


def user(*texts: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text} for text in texts]


def found(text: str) -> list[tuple[str, str]]:
    return [(finding.kind.value, text[finding.start : finding.end]) for finding in find_pii(user(text))]


class TestFindPii:
    @pytest.mark.parametrize(
        ("text", "kind", "value"),
        [
            ("Write to anna.k@fastmail.com.", "email", "anna.k@fastmail.com"),
            ("I am sam (at) riverbend (dot) net", "email", "sam (at) riverbend (dot) net"),
            ("call (415) 867-2390 now", "phone", "(415) 867-2390"),
            ("tel:+390669812345", "phone", "+390669812345"),
            ("请打我电话13812345678。", "phone", "13812345678"),
            ("06 12 84 37 95", "phone", "06 12 84 37 95"),
            ("pay with 4787 7893 2879 2170 311", "card", "4787 7893 2879 2170"),
            ("to GB26 NWBK 0255 1716 0790 96 by Monday", "iban", "GB26 NWBK 0255 1716 0790 96"),
            ("FR76 8848 2888 4469 3428 8497 327 avant vendredi", "iban", "FR76 8848 2888 4469 3428 8497 327"),
            ("SSN: 595 33 3123", "national_id", "595 33 3123"),
            ("RSSMRC99S04H501B", "national_id", "RSSMRC99S04H501B"),
            ("from 81.23.147.60 port", "ip", "81.23.147.60"),
            ("2001:41d0:8:e8ad::1", "ip", "2001:41d0:8:e8ad::1"),
            ("password: hunter2!", "secret", "hunter2!"),
            ("git clone https://bo:tok99@git.corp.net/a.", "url_login", "https://bo:tok99@git.corp.net/a"),
            ("born July 4, 1976 in Boise", "date_of_birth", "July 4, 1976"),
            ("at 77 Harbor Rd\nPortland, ME 04101", "address", "77 Harbor Rd\nPortland, ME 04101"),
        ],
    )
    def test_finds_each_kind_with_its_exact_bounds(self, text, kind, value):
        assert found(text) == [(kind, value)]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " \n",
            "A company made 1234567 dollars in 2021 and 2345678 in 2022.",
            "Add 120 340 560 780 910",
            "What is 415-867 + 2390?",
            "1999 2000 2001 2002",
            "Order 4471-8820-3391",
            "ISBN 978-3-16-148410-0",
            "f(1234567890)",
            "4787 7893 2879 2171",
            "GB27 NWBK 0255 1716 0790 96",
            "127.0.0.1, 10.0.0.3, 192.168.1.1 and ::1",
            "version 81.23.147.60",
            "git@github.com:owner/repo.git",
            "icon@2x.png",
            "password = input('Password: ')",
            "the password must have a 12-character core",
            "Ada Lovelace was born on 10 December 1815.",
            "９１７-３３０-４８２１ 1️⃣2️⃣3️⃣4️⃣5️⃣6️⃣7️⃣",
        ],
    )
    def test_leaves_alone_what_only_looks_like_it(self, text):
        assert found(text) == []

    def test_says_in_which_turn_and_where(self):
        turns = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Mail a@b.org"},
            {"role": "assistant", "content": "And c@d.org?"},
        ]
        assert find_pii(turns) == [Finding(PiiKind.EMAIL, 1, 5, 12), Finding(PiiKind.EMAIL, 2, 4, 11)]

    def test_places_hold_in_text_whose_small_letters_are_more(self):
        assert found("İİİİ born 03/04/1990, mail a@b.org") == [("date_of_birth", "03/04/1990"), ("email", "a@b.org")]

    def test_findings_are_in_order_and_do_not_overlap(self):
        for example in EXAMPLES:
            findings = find_pii(user(example["text"]))
            assert all(first.end <= second.start for first, second in pairwise(findings))

    def test_the_most_of_each_labelled_kind_is_found(self):
        kinds, missed = pii_recall.count_labelled(EXAMPLES)
        floors = {"phone": 0.9, "date_of_birth": 0.9}
        assert {k: v["recall"] for k, v in kinds.items() if v["recall"] < floors.get(k, 0.95)} == {}, missed

    def test_hard_texts_rarely_raise_an_alarm(self):
        counted, alarms = pii_recall.count_alarms(example["text"] for example in EXAMPLES if not example["spans"])
        assert counted["alarms"] <= 3, alarms

    @pytest.mark.skipif(not GSM8K.exists(), reason="the folder shared/data is not beside the repository")
    def test_sums_are_no_personal_data(self):
        texts = [json.loads(line)["question"] for line in GSM8K.read_text().splitlines()]
        assert [text for text in texts if found(text)] == []

    @pytest.mark.parametrize(
        "unit",
        [
            "1 ",
            "@",
            "a.",
            "http://",
            "1",
            "a'",
            "DE11 ",
            "password ",
            "sk-",
            "(1",
            "1-",
            "1.",
            ":a",
            "born 1 ",
            "eyJaaaaaaaaaa.",
            "a(at)",
            "+1 ",
            "-----BEGIN PRIVATE KEY-----",
            "f:",
            "https://a:b",
        ],
    )
    def test_a_megabyte_of_one_thing_takes_linear_time(self, unit):
        text = unit * (1_000_000 // len(unit)) + "@"
        began = time.process_time()
        find_pii(user(text))
        assert time.process_time() - began < 2, "a pattern looks at the same place again and again"

    def test_an_ordinary_prompt_costs_microseconds(self):
        turns = user(ORDINARY)
        find_pii(turns)
        best = min(_seconds(lambda: find_pii(turns)) for _ in range(200))
        assert best < 80e-6, f"{best * 1e6:.0f} microseconds; half of these and less are what an import can afford"


def _seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class TestMask:
    def test_puts_the_name_of_the_kind_in_the_place(self):
        turns = user("Mail a@b.org or call +1 650 253 0412!", "nothing here")
        assert [turn["content"] for turn in mask(turns, find_pii(turns))] == [
            "Mail [e-mail] or call [phone number]!",
            "nothing here",
        ]

    def test_leaves_what_came_untouched(self):
        turns = user("a@b.org")
        assert mask(turns, find_pii(turns)) == ({"role": "user", "content": "[e-mail]"},)
        assert turns == user("a@b.org")

    def test_overlapping_ones_become_one(self):
        findings = [Finding(PiiKind.SECRET, 0, 4, 9), Finding(PiiKind.EMAIL, 0, 2, 6), Finding(PiiKind.PHONE, 0, 5, 7)]
        assert mask(user("0123456789"), findings)[0]["content"] == "01[e-mail]9"

    def test_touching_ones_stay_two(self):
        findings = [Finding(PiiKind.EMAIL, 0, 0, 2), Finding(PiiKind.IP, 0, 2, 4)]
        assert mask(user("0123456"), findings)[0]["content"] == "[e-mail][IP address]456"

    def test_nothing_is_found_in_what_was_masked(self):
        for example in EXAMPLES:
            turns = user(example["text"])
            assert find_pii(mask(turns, find_pii(turns))) == [], example["text"]

    def test_every_kind_has_a_name(self):
        assert set(MASKS) == set(PiiKind)

    @pytest.mark.parametrize(("turn", "start", "end"), [(1, 0, 1), (-1, 0, 1), (0, 2, 2), (0, 0, 9), (0, -1, 2)])
    def test_refuses_a_place_that_is_not_there(self, turn, start, end):
        with pytest.raises(ValueError, match="find personal data again"):
            mask(user("abc"), [Finding(PiiKind.IP, turn, start, end)])
