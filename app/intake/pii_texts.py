"""Recognisers of personal data that is known by its signs: addresses of mail, secrets, logins in a link, birthdays, places.

Each takes a text and the text in small letters, looks first for a cheap sign without which there can be none, and gives the
places `(start, end)` in characters. Every pattern is bounded, so that the time is linear in the text.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime

Span = tuple[int, int]

_EMAIL = re.compile(
    r"(?<![\w.%+-])(?<!\w['’])[\w%+][\w.%+'’-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}(?:xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w@])"
)
_SPELT_EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64} ?[(\[{] ?at ?[)\]}] ?[\w-]{1,63}(?: ?(?:\.|[(\[{] ?dot ?[)\]}]) ?[a-z][\w-]{1,62}){1,4}",
    re.I,
)
_PICTURES = ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "py")
"""What follows an "@2x." is the end of a file's name, not of a host's."""

_LOGIN = re.compile(
    r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{1,20}://[^\s/@:'\"<>]{0,64}:[^\s/@'\"<>]{1,128}@[^\s'\"<>)\]`]{1,2000}", re.I
)

_KEY_SIGNS = ("AKIA", "ASIA", "AIza", "SG.", "eyJ")
_DASHED_KEY_SIGNS = ("sk-", "xox", "glpat-", "pypi-")
_UNDERLINED_KEY_SIGNS = ("k_live_", "ghp_", "gho_", "ghs_", "ghu_", "hub_pat_", "hf_", "npm_")
_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"sk-[A-Za-z0-9_-]{20,400}|[sr]k_live_[A-Za-z0-9]{16,100}|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|gh[posu]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{40,255}|glpat-[A-Za-z0-9_-]{20,60}|hf_[A-Za-z0-9]{30,60}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{40,400}|xox[abprs]-[A-Za-z0-9-]{20,200}|AIza[A-Za-z0-9_-]{35}"
    r"|SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{30,60}"
    r"|eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,1000})"
)
_BLOCK = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_END = re.compile(r"-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----")

_PASSWORD_SIGNS = ("pass", "pwd", "pw", "kennwort", "contraseña", "senha", "wachtwoord", "парол", "密码")
_SECRET_SIGNS = ("key", "token", "secret")
_VALUE = (
    r"""["']{0,2}(?:\s{0,3}[:=：]{1,2}\s{0,3}|\s{1,3}(?:is|ist|lautet|es|est|è|é)\s{1,3}|\s{1,3})"""
    r"""["'`]?(?P<value>[^\s"'`<>]{6,128})"""
)
_COUNTED = re.compile(r"[0-9]+-?[a-z]+")
"""A password of "12-character" length is a rule, no password."""
_PASSWORD = re.compile(
    r"(?:passwor[dt]|passwd|passphrase|passcode|\bpass|pwd|\bpw\b|kennwort|mot de passe|contraseña|senha"
    r"|wachtwoord|парол[ьяе]|密码)" + _VALUE,
    re.I,
)
_SECRET = re.compile(
    r"(?:(?:api|secret|access|private|auth|encryption)(?:[ _-]?(?:access|auth))?[ _-]?(?:key|token|secret)|secret|token)"
    + _VALUE,
    re.I,
)

_BIRTH_SIGNS = ("birth", "born", "dob", "geb", "d.o.b", "né", "naci", "naissance", "nasci", " b. ")
_BIRTH = re.compile(
    r"date of birth|birth ?_?date|birth ?day|\bdob\b|\bd\.o\.b|\bborn\b|\bgeboren\b|\bgeb\.|geburtsdatum|geburtstag"
    r"|\bnée? le\b|date de naissance|nacimiento|\bnacid[oa]\b|data di nascita|data de nascimento|geboortedatum"
    r"|\bb\.(?= $)",
    re.I,
)
_IS_LABEL = re.compile(r"[^0-9\n]*\n?[^0-9\n]{0,3}")
"""Between the word and its date: no other number, one end of a line at most."""
_MONTH = r"[^\W\d_]{3,9}\.?"
_DATE = re.compile(
    r"(?<![0-9])(?:[0-9]{1,2}([./-])\s?[0-9]{1,2}\1\s?(?P<last>(?:19|20)[0-9]{2})"
    r"|(?P<first>(?:19|20)[0-9]{2})([./-])[0-9]{1,2}\4[0-9]{1,2}"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th|\.|º)?,? (?:of |de )?{_MONTH},? (?:de )?(?P<after>(?:19|20)[0-9]{{2}})"
    rf")(?![0-9])|\b{_MONTH} [0-9]{{1,2}}(?:st|nd|rd|th)?,? (?P<english>(?:19|20)[0-9]{{2}})(?![0-9])"
)
_OLDEST_YEARS = 110
"""Who was born longer ago than this is a person of history."""

_ZIP = re.compile(r"(?<![\w.,-])[0-9]{5}(?:-[0-9]{4})?(?![\w])")
_STATE = re.compile(r"[\s,]([A-Z]{2}|[A-Z][a-z]{3,11}(?: [A-Z][a-z]{3,8})?)\.?,?\s{1,2}$")
_STREET = re.compile(
    r"(?<![\w.,$-])[0-9]{1,6}[A-Za-z]?\s(?:[NSEW]{1,2}\.?\s)?(?:[A-Z0-9][\w'’.-]{0,20}\s){1,4}"
    r"(?:St|Street|Ave|Avenue|Rd|Road|Blvd|Boulevard|Dr|Drive|Ln|Lane|Ct|Court|Pl|Place|Way|Ter|Terrace|Cir|Circle|Pkwy"
    r"|Parkway|Hwy|Highway|Sq|Square|Trl|Trail|Loop|Plaza|Broadway)\b"
)
_STATE_CODES = (
    "AL AK AZ AR CA CO CT DE FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK "
    "OR PA RI SC SD "
    "TN TX UT VT VA WA WV WI WY DC PR"
)
_STATE_NAMES = (
    "Alabama,Alaska,Arizona,Arkansas,California,Colorado,Connecticut,Delaware,Florida,Georgia,Hawaii,Idaho,Illinois,Indiana,Iowa,"
    "Kansas,Kentucky,Louisiana,Maine,Maryland,Massachusetts,Michigan,Minnesota,Mississippi,Missouri,Montana,Nebraska,Nevada,"
    "New Hampshire,New Jersey,New Mexico,New York,North Carolina,North "
    "Dakota,Ohio,Oklahoma,Oregon,Pennsylvania,Rhode Island,"
    "South Carolina,South Dakota,Tennessee,Texas,Utah,Vermont,Virginia,Washington,West Virginia,Wisconsin,Wyoming"
)
_STATES = frozenset(_STATE_CODES.split()) | frozenset(_STATE_NAMES.split(","))


def find_emails(text: str, low: str) -> Iterator[Span]:
    """Addresses of mail, also spelt "name (at) host (dot) org". `git@host` is a login that everybody has."""
    if "@" in text:
        for found in _EMAIL.finditer(text):
            name, host = found[0].rsplit("@", 1)
            if name != "git" and host.rsplit(".", 1)[1] not in _PICTURES:
                yield found.span()
    if "at)" in low or "at]" in low or "at }" in low or "at )" in low:
        for found in _SPELT_EMAIL.finditer(text):
            yield found.span()


def find_logins(text: str, low: str) -> Iterator[Span]:
    """Links that carry a password, `scheme://name:password@host`, the whole link."""
    if "@" in text and "://" in text:
        for found in _LOGIN.finditer(text):
            yield found.start(), found.start() + len(found[0].rstrip(".,;"))


def find_secrets(text: str, low: str) -> Iterator[Span]:
    """Keys of known services, private keys, JSON web tokens, and what stands behind "password:" or "api key ="."""
    if _may_hold_key(text):
        for found in _KEY.finditer(text):
            yield found.span()
    if "PRIVATE KEY" in text:
        yield from _find_blocks(text)
    if any(sign in low for sign in _PASSWORD_SIGNS):
        yield from _find_values(_PASSWORD, text, least=6)
    if any(sign in low for sign in _SECRET_SIGNS):
        yield from _find_values(_SECRET, text, least=16)


def _may_hold_key(text: str) -> bool:
    signs: tuple[str, ...] = _KEY_SIGNS
    if "-" in text:
        signs += _DASHED_KEY_SIGNS
    if "_" in text:
        signs += _UNDERLINED_KEY_SIGNS
    return any(sign in text for sign in signs)


def _find_blocks(text: str) -> Iterator[Span]:
    at = 0
    while begin := _BLOCK.search(text, at):
        end = _BLOCK_END.search(text, begin.end())
        at = end.end() if end else len(text)
        yield begin.start(), at


def _find_values(pattern: re.Pattern[str], text: str, *, least: int) -> Iterator[Span]:
    for found in pattern.finditer(text):
        value = found["value"].rstrip(".,;:)]}\\")
        if len(value) >= least and _is_secret(value):
            yield found.start("value"), found.start("value") + len(value)


def _is_secret(value: str) -> bool:
    """Not a word, a call, a variable or a placeholder: letters and digits are mixed, and nothing of program text is in it."""
    has_digit = any(letter.isdigit() for letter in value)
    has_letter = any(letter.isalpha() for letter in value)
    is_program = any(sign in value for sign in ("(", "[", "{", "://", "=="))
    return has_digit and has_letter and not is_program and not _COUNTED.fullmatch(value)


def find_births(text: str, low: str) -> Iterator[Span]:
    """Dates beside a word such as "born", of people who may live."""
    if not any(sign in low for sign in _BIRTH_SIGNS):
        return
    oldest = datetime.now(UTC).year - _OLDEST_YEARS
    for date in _DATE.finditer(text):
        year = int(date["last"] or date["first"] or date["after"] or date["english"])
        before = text[max(0, date.start() - 60) : date.start()]
        if year > oldest and (words := list(_BIRTH.finditer(before))) and _IS_LABEL.fullmatch(before, words[-1].end()):
            yield date.span()


def find_addresses(text: str, low: str) -> Iterator[Span]:
    """United States addresses, from the number of the house to the ZIP code. Other countries' have no shape so sure."""
    for code in _ZIP.finditer(text):
        begin = max(0, code.start() - 120)
        before = text[begin : code.start()]
        state = _STATE.search(before[-26:])
        if state is None or not (state[1] in _STATES or state[1].split(" ")[-1] in _STATES):
            continue
        streets = list(_STREET.finditer(before))
        if streets:
            yield begin + streets[-1].start(), code.end()
