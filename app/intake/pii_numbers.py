"""Recognisers of personal data that is a number: cards, bank accounts, national ids, addresses of machines, phones.

Patterns only propose: the check digits of python-stdnum and the numbering plans of phonenumbers decide. Both are imported when
the first number asks for them. As in `pii_texts`, each takes a text and the text in small letters, and is linear in the text.
"""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from app.intake.pii_texts import Span

_CARD = re.compile(
    r"(?<![A-Za-z0-9_.-])"
    r"(?:[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5}|[0-9]{14,16})(?![A-Za-z0-9_-])"
)
_ISSUERS = re.compile(
    r"4[0-9]{15}|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}|3[47][0-9]{13}"
    r"|6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12}|3(?:0[0-5]|[68][0-9])[0-9]{11}|35(?:2[89]|[3-8][0-9])[0-9]{12}|62[0-9]{14}"
)
"""Visa, Mastercard (two ranges), American Express, Discover, Diners, JCB, UnionPay: first digits and length."""

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_IBAN_LENGTHS = {
    length: frozenset(countries.split())
    for length, countries in (
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FO GL NL SD"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU MN XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ OM SO TL"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "LY PT ST"),
        (26, "IS TR"),
        (27, "BI DJ FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HU LB NI PL SV"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU YE"),
        (31, "MT SC"),
        (33, "RU"),
    )
}
_IBAN_LENGTH = {country: length for length, countries in _IBAN_LENGTHS.items() for country in countries}

_THREE_NUMBERS = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]")
_IPV4 = re.compile(
    r"(?<![A-Za-z0-9_.+-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![A-Za-z0-9_-]|\.[0-9])(?::[0-9]{2,5}(?![\w:]))?"
)
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{6,39}(?![\w:])")
_VERSION = re.compile(r"(?:\b(?:version|firmware|release|build|section|chapter|ver\.?)|§)\s{0,2}$", re.I)


@dataclass(frozen=True, slots=True)
class _Id:
    """A country's number of a person."""

    shape: re.Pattern[str]
    check: str | None
    """Module of stdnum whose `is_valid` decides; None where the shape alone is sure."""
    words: tuple[str, ...]
    """In small letters; one must stand near it. None are needed where the number is sure enough alone."""
    near: re.Pattern[str]
    """The words as a pattern: none begins within a word, and the short ones end where a word does."""
    sign: str
    """What every number of the kind holds."""


def _id(shape: str, check: str | None, *words: str, sign: str = "") -> _Id:
    near = "|".join(word + "(?![a-z])" * (len(word) < 6) for word in words)
    return _Id(
        shape=re.compile(rf"(?<![A-Za-z0-9_.$€£-])(?<![0-9],)(?:{shape})(?![A-Za-z0-9_-]|[.,][0-9])"),
        check=check,
        words=words,
        near=re.compile(rf"(?<![a-z])(?:{near})"),
        sign=sign,
    )


_NINO = r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]"
_IDS = (
    _id(r"[0-9]{3}-[0-9]{2}-[0-9]{4}", "us.ssn", sign="-"),
    _id(r"[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4}", "us.ssn", "ssn", "social security", "tax id", "taxpayer id"),
    _id(r"9[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{4}", "us.itin", "itin", "tax id", "taxpayer id"),
    _id(_NINO, None),
    _id(r"[0-9]{3} ?[0-9]{3} ?[0-9]{4}", "gb.nhs", "nhs"),
    _id(r"[0-9]{9}|[0-9]{4}\.[0-9]{2}\.[0-9]{3}", "nl.bsn", "bsn", "burgerservice", "sofinummer"),
    _id(
        r"[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}",
        "de.idnr",
        "steuer-id",
        "steuerid",
        "steuer-ident",
        "idnr",
        "tin",
        "tax id",
    ),
    _id(r"[12] ?[0-9]{2} ?[0-9]{2} ?[0-9][0-9AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", "fr.nir"),
    _id(r"[0-9]{2}\.?[0-9]{3}\.?[0-9]{3}[ -]?[A-Za-z]", "es.dni", "dni", "nif", "documento nacional"),
    _id(r"[XYZ][ -]?[0-9]{7}[ -]?[A-Za-z]", "es.nie", "nie", "nif", "extranjero"),
    _id(r"[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]", "it.codicefiscale"),
    _id(r"[2-9][0-9]{3} ?[0-9]{4} ?[0-9]{4}", "in_.aadhaar", "aadhaar", "aadhar", "adhaar", "uidai", "आधार"),
    _id(r"[A-Z]{5}[0-9]{4}[A-Z]", "in_.pan", "pan", "permanent account"),
    _id(r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", "br.cpf", sign="-"),
    _id(r"[0-9]{11}", "br.cpf", "cpf"),
    _id(r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}", "ca.sin", "sin", "nas", "social insurance"),
    _id(r"[0-9]{3} ?[0-9]{3} ?[0-9]{3}", "au.tfn", "tfn", "tax file"),
    _id(r"[0-9]{11}", "pl.pesel", "pesel"),
    _id(r"(?:[0-9]{2})?[0-9]{6}[-+ ]?[0-9]{4}", "se.personnummer", "personnummer", "personnr"),
    _id(r"[0-9]{6} ?[0-9]{5}", "no.fodselsnummer", "fødsels", "personnummer"),
    _id(r"[0-9]{6}-?[0-9]{4}", "dk.cpr", "cpr"),
    _id(r"[0-9]{2}\.?[0-9]{2}\.?[0-9]{2}[ -]?[0-9]{3}[. ]?[0-9]{2}", "be.nn", "rijksregister", "registre national"),
    _id(r"[0-9]{6}[-+A][0-9]{3}[0-9A-Y]", "fi.hetu"),
    _id(r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}", "ch.ssn", sign="756."),
    _id(r"[0-9]{7}[A-W][ABW]?", "ie.pps", "pps", "ppsn"),
    _id(r"[A-Z]{4}[0-9]{6}[HM][A-Z]{5}[0-9A-Z][0-9]", "mx.curp"),
    _id(r"[0-9]{6}-?[1-8][0-9]{6}", "kr.rrn", "주민등록", "주민 등록", "resident registration"),
    _id(r"[1-9][0-9]{16}[0-9Xx]", "cn.ric"),
    _id(r"[0-9]{6} ?[0-9]{4} ?[0-9]{2} ?[0-9]", "za.idnr", "id number", "id no", "identity"),
)
_BEFORE, _AFTER = 60, 24
"""How many characters before and after a number its word may stand."""

_PHONE = re.compile(
    r"(?<![A-Za-z0-9_.$€£¥#@/=-])(?<![0-9][ ()./‐–\u00a0,:])(?:\+ ?)?\(?[0-9](?:[ ()./‐–\u00a0-]{0,3}[0-9]){6,16}"
    r"(?![ ()./‐–\u00a0-]{0,3}[0-9]|[A-Za-z0-9_%€$£@]|[,:][0-9]|-[A-Za-z])"
)
_PHONE_WORD = re.compile(
    r"phone|\btel\b|\btél|\btel[.:]|telef|telefo|\btlf|mobil|\bcell|cellulare|\bcall\b|\bring\b|\btext\b|\bfax\b"
    r"|whats ?app|handy"
    r"|ruf mich|\bsms\b|móvil|celular|llám|\bcep\b|телефон|звон|電話|携帯|电话|手机|\bph\b|contact"
    r"|dial\b|reach|\bbel me\b|연락처|\bhmu\b",
    re.I,
)
_NUMBER_WORD = re.compile(r"\bnumber\b|\bnum[eé]ro\b|\bnummer\b|\bnúmero\b|номер|番号", re.I)
_NO_PHONE_WORD = re.compile(
    r"order|ticket|invoice|tracking|isbn|serial|case|article|item|part|batch|contract|account|patent|prime|log\b"
    r"|stamp|column|row\b|rows\b|"
    r"subtract|\bsum\b|sort|comput|solve|multipl|divid|add\b",
    re.I,
)
_LAST_LABEL = re.compile(r"[^0-9]*$")
"""What names a number stands before it without another number between."""
_NEXT_PHONE = 12
"""In how many characters after a phone number the next one needs no name."""
_CALL = re.compile(r"\w\($")
_EXTENSION = re.compile(r",? ?(?:x|ext\.?|extension|durchwahl) ?[0-9]{1,5}(?!\w)", re.I)
_MATHS = re.compile(r"[*/+=^×÷<>√]\s?$|[-–]\s$")
_MATHS_AFTER = re.compile(r"\s?[*+=^×÷<>√]|\s[/-]\s?[0-9]")
_DATES = re.compile(
    r"\(?(?:(?:19|20)[0-9]{2}[-./ ][0-9]{1,2}[-./ ][0-9]{1,2}.{0,9}|[0-9]{1,2}[-./ ][0-9]{1,2}[-./ ](?:19"
    r"|20)[0-9]{2}.{0,13}"
    r"|(?:(?:19|20)[0-9]{2}[ )/–-]{0,3}){2,4}|(?:19|20)[0-9]{6})"
)
_AMERICAN = re.compile(r"\([2-9][0-9]{2}\) ?[0-9]{3}[-. ][0-9]{4}|(?:1[-. ])?[2-9][0-9]{2}([-.])[0-9]{3}\1[0-9]{4}")
_WITH_ZERO = (
    "GB",
    "DE",
    "FR",
    "IN",
    "JP",
    "AU",
    "NL",
    "TR",
    "CH",
    "AT",
    "BE",
    "SE",
    "ZA",
    "KR",
    "BR",
    "IT",
    "IE",
    "FI",
    "NG",
)
_WITHOUT_ZERO = ("US", "ES", "IT", "IN", "CN", "BR", "MX", "PL", "NO", "PT", "DK", "RU", "SG", "HK", "GR", "CZ")


def find_cards(text: str, low: str) -> Iterator[Span]:
    """Payment cards: an issuer's first digits and length, and a right check digit."""
    luhn = None
    for found in _CARD.finditer(text):
        digits = _digits(found[0])
        if _ISSUERS.fullmatch(digits):
            luhn = luhn or import_module("stdnum.luhn")
            if luhn.is_valid(digits):
                yield found.span()


def find_ibans(text: str, low: str) -> Iterator[Span]:
    """Bank accounts: a country's length, structure and check digits."""
    at = 0
    while found := _IBAN.search(text, at):
        at = found.start() + 4
        length = _IBAN_LENGTH.get(found[0][:2].upper())
        end = _end_of(found[0], length) if length else None
        if end is None:
            continue
        end += found.start()
        if not text[end : end + 1].isalnum() and import_module("stdnum.iban").is_valid(text[found.start() : end]):
            yield found.start(), end
            at = end


def _end_of(text: str, length: int) -> int | None:
    """Where the letters and digits of a text are so many; None where they never are."""
    for at, letter in enumerate(text):
        length -= letter.isalnum()
        if length == 0:
            return at + 1
    return None


def find_ids(text: str, low: str) -> Iterator[Span]:
    """National ids, those that a word must stand near only with it."""
    for kind in _IDS:
        if kind.sign not in text or (kind.words and not any(word in low for word in kind.words)):
            continue
        for found in kind.shape.finditer(text):
            if kind.words and not _stands_near(kind.near, text, found.span()):
                continue
            if kind.check is None or import_module(f"stdnum.{kind.check}").is_valid(re.sub("[ .]", "", found[0])):
                yield found.span()


def _stands_near(words: re.Pattern[str], text: str, place: Span) -> bool:
    start, end = place
    around = (text[max(0, start - _BEFORE) : start], text[end : end + _AFTER])
    return any(words.search(part.lower()) for part in around)


def find_ips(text: str, low: str) -> Iterator[Span]:
    """Addresses of machines in the open internet. 127.0.0.1, 192.168.x.x and the like stand for no one."""
    if _THREE_NUMBERS.search(text):
        for found in _IPV4.finditer(text):
            if _is_global(found[0].split(":")[0]) and not _VERSION.search(
                text, max(0, found.start() - 12), found.start()
            ):
                yield found.span()
    if text.count(":") >= 3:
        for found in _IPV6.finditer(text):
            if found[0].count(":") >= 3 and _is_global(found[0].rstrip(":")):
                yield found.span()


def _is_global(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def find_phones(text: str, low: str) -> Iterator[Span]:
    """Phone numbers of a numbering plan: with a country's code, beside a word such as "call", or written as only phones are."""
    last_end = -_BEFORE
    for found in _PHONE.finditer(text):
        start, end = found.span()
        number = found[0]
        if number.startswith("(") and ")" not in number:
            start, number = start + 1, number[1:]
        if _DATES.fullmatch(number) or _CALL.search(text, max(0, start - 2), start):
            continue
        before = text[max(0, start - _BEFORE) : start]
        is_next = start - last_end <= _NEXT_PHONE
        if _is_phone(number, before, text[end : end + 3], is_next=is_next):
            extension = _EXTENSION.match(text, end)
            last_end = extension.end() if extension else end
            yield start, last_end


def _is_phone(number: str, before: str, after: str, *, is_next: bool) -> bool:
    """Whether a candidate is a phone number, given what stands around it; the next to a phone is named as that was."""
    if number.startswith("+"):
        return _is_valid(number, None)
    digits = _digits(number)
    label = _LAST_LABEL.search(before)
    words = label[0] if label else ""
    phone, other = _last(_PHONE_WORD, words), _last(_NO_PHONE_WORD, words)
    is_named = is_next or phone > other or (other < 0 and _NUMBER_WORD.search(words) is not None)
    if _MATHS.search(before) or _MATHS_AFTER.match(after) or (other >= 0 and not is_named):
        return False
    if _AMERICAN.fullmatch(number):
        return _is_valid(number, "US") or is_named
    if is_named and len(digits) >= 8:
        regions = _WITH_ZERO if digits.startswith("0") else _WITHOUT_ZERO
        return any(_is_valid(number, region) for region in regions)
    if digits.startswith("0") and 9 <= len(digits) <= 12 and not number.isdigit():
        return any(_is_grouped(number, region) for region in _WITH_ZERO)
    return False


def _last(words: re.Pattern[str], text: str) -> int:
    """Where the last of some words begins; -1 where there is none."""
    return max((found.start() for found in words.finditer(text)), default=-1)


def _is_valid(number: str, region: str | None) -> bool:
    import phonenumbers

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


def _is_grouped(number: str, region: str) -> bool:
    """Valid, and its digits stand in the groups in which its country writes them."""
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    if not phonenumbers.is_valid_number(parsed):
        return False
    usual = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL)
    return re.findall("[0-9]+", usual) == re.findall("[0-9]+", number)


def _digits(text: str) -> str:
    return "".join(letter for letter in text if letter in "0123456789")
