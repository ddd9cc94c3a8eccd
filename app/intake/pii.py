"""Personal data in prompts: where it stands, and the same prompts with it covered.

Patterns find candidates, kept libraries decide (check digits, numbering plans). It runs in line with an import, so the signs
without which there is nothing are looked for first. A finding holds places, never the text, so it can be stored and logged.

Not found: names, streets outside the United States, numbers that a mistyped digit makes invalid. Not counted as personal:
addresses of machines in private and reserved ranges, the login `git@host`, dates of birth before the last 110 years.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.intake import pii_numbers, pii_texts
from app.intake.pii_texts import Span
from app.schemas.prompts import Message


class PiiKind(StrEnum):
    """What a finding is."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    """A payment card's number."""
    IBAN = "iban"
    NATIONAL_ID = "national_id"
    """A state's number of a person: tax, social security, identity card."""
    IP = "ip"
    """A machine's address in the open internet."""
    SECRET = "secret"  # noqa: S105
    """A password, an API key, a private key, a token."""
    URL_LOGIN = "url_login"
    """A link that carries a password."""
    ADDRESS = "address"
    """A street address in the United States, with its ZIP code."""
    DATE_OF_BIRTH = "date_of_birth"


MASKS = {
    PiiKind.EMAIL: "[e-mail]",
    PiiKind.PHONE: "[phone number]",
    PiiKind.CARD: "[card number]",
    PiiKind.IBAN: "[bank account]",
    PiiKind.NATIONAL_ID: "[national id]",
    PiiKind.IP: "[IP address]",
    PiiKind.SECRET: "[secret]",
    PiiKind.URL_LOGIN: "[link with a login]",
    PiiKind.ADDRESS: "[address]",
    PiiKind.DATE_OF_BIRTH: "[date of birth]",
}
"""What stands in the place of each."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Characters `start` to `end` (not included) of the content of turn `turn`, counted from 0."""

    kind: PiiKind
    turn: int
    start: int
    end: int


_Recogniser = Callable[[str, str], Iterator[Span]]
_SIGNS: tuple[tuple[PiiKind, _Recogniser], ...] = (
    (PiiKind.URL_LOGIN, pii_texts.find_logins),
    (PiiKind.SECRET, pii_texts.find_secrets),
    (PiiKind.EMAIL, pii_texts.find_emails),
)
_DIGITS: tuple[tuple[PiiKind, _Recogniser], ...] = (
    (PiiKind.IP, pii_numbers.find_ips),
    (PiiKind.DATE_OF_BIRTH, pii_texts.find_births),
)
_NUMBERS: tuple[tuple[PiiKind, _Recogniser], ...] = (
    (PiiKind.IBAN, pii_numbers.find_ibans),
    (PiiKind.CARD, pii_numbers.find_cards),
    (PiiKind.NATIONAL_ID, pii_numbers.find_ids),
    (PiiKind.PHONE, pii_numbers.find_phones),
    (PiiKind.ADDRESS, pii_texts.find_addresses),
)
_SURER = {
    kind: place
    for place, kind in enumerate(
        (
            *(
                PiiKind.URL_LOGIN,
                PiiKind.SECRET,
                PiiKind.EMAIL,
                PiiKind.IBAN,
                PiiKind.CARD,
                PiiKind.NATIONAL_ID,
                PiiKind.IP,
            ),
            *(PiiKind.DATE_OF_BIRTH, PiiKind.ADDRESS, PiiKind.PHONE),
        )
    )
}
"""Of two that overlap the one that comes first here stays."""

_DIGIT = re.compile("[0-9]")
_NUMBER = re.compile(r"[0-9](?:[ ()./‐–\u00a0-]{0,3}[0-9]){4}")
"""Five digits with little between them: a ZIP code at least."""
_TAX_CODE = re.compile("[A-Z]{5}[0-9]")
"""How Italian and Indian tax numbers begin."""


def find_pii(messages: Sequence[Message]) -> list[Finding]:
    """Personal data in each turn, in reading order, none overlapping another."""
    return [
        Finding(kind, turn, start, end)
        for turn, message in enumerate(messages)
        for kind, start, end in _without_overlaps(_find_all(message["content"]))
    ]


def _find_all(text: str) -> Iterator[tuple[PiiKind, int, int]]:
    low = text.lower()
    recognisers = _SIGNS
    if _DIGIT.search(text):
        recognisers += _DIGITS
        if _NUMBER.search(text) or _TAX_CODE.search(text):
            recognisers += _NUMBERS
    for kind, find in recognisers:
        for start, end in find(text, low):
            yield kind, start, end


def _without_overlaps(found: Iterable[tuple[PiiKind, int, int]]) -> list[tuple[PiiKind, int, int]]:
    kept: list[tuple[PiiKind, int, int]] = []
    for kind, start, end in sorted(found, key=lambda one: (one[1], _SURER[one[0]], -one[2])):
        if not kept or start >= kept[-1][2]:
            kept.append((kind, start, end))
        elif _SURER[kind] < _SURER[kept[-1][0]]:
            kept[-1] = (kind, start, end)
    return kept


def mask(messages: Sequence[Message], findings: Iterable[Finding]) -> tuple[Message, ...]:
    """The turns with the name of its kind, such as "[e-mail]", in the place of each finding; overlapping ones become the first.

    Raises ValueError where a finding is not within the turns.
    """
    by_turn: dict[int, list[Finding]] = {}
    for finding in findings:
        _check_within(finding, messages)
        by_turn.setdefault(finding.turn, []).append(finding)
    return tuple(
        {**message, "content": _cover(message["content"], by_turn[turn])} if turn in by_turn else message
        for turn, message in enumerate(messages)
    )


def _check_within(finding: Finding, messages: Sequence[Message]) -> None:
    length = len(messages[finding.turn]["content"]) if 0 <= finding.turn < len(messages) else -1
    if not 0 <= finding.start < finding.end <= length:
        raise ValueError(
            f"a finding covers characters {finding.start} to {finding.end} of turn {finding.turn + 1}, "
            f"expected a place within {len(messages)} turns; find personal data again in the texts as they are now"
        )


def _cover(text: str, findings: Iterable[Finding]) -> str:
    parts: list[str] = []
    at = 0
    for finding in sorted(findings, key=lambda one: (one.start, -one.end)):
        if finding.start >= at:
            parts += (text[at : finding.start], MASKS[finding.kind])
        at = max(at, finding.end)
    return "".join((*parts, text[at:]))
