"""A first guess at the use case of a prompt, from InstructGPT's Table 1, by words that people begin such requests with.

Rules stand in order, the surest first. A guess is for a person to confirm; where no rule fits there is none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.models import Category
from app.schemas.prompts import Message

HEAD_CHARACTERS = 160
"""How much of the last turn's beginning is read for what is asked."""
_TAIL_CHARACTERS = 40
_LONG_CHARACTERS = 500
"""A question with so much text beside it is about that text."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """The category of a request in which the pattern is found; patterns read small letters."""

    category: Category
    signs: frozenset[str]
    """Words of which one is in every request that the pattern can match: without one it is not tried."""
    pattern: re.Pattern[str]


def _rule(category: Category, signs: str, pattern: str) -> _Rule:
    return _Rule(category, frozenset(signs.split()), re.compile(pattern))


_ASK = r"(?:^|[.!?:\n]\s{0,3}|please |can you |could you |would you |you need to |want you to |help me |and |then |, )"
_TEXTS = (
    r"(?:texts?|sentences?|paragraphs?|passages?|article|phrase"
    r"|words?|e-?mail|essay|paper|story|statement|code|clauses?|quote)"
)
_RULES = (
    _rule(
        Category.SUMMARIZATION,
        "summarize summarise summary summaries summarization summarisation summarizing summarising tldr tl "
        "nutshell points takeaways",
        r"\bsummar|\btl;?dr\b|\bin a nutshell|\b(?:key|main) (?:points|takeaways) (?:of|from) (?:the|this)",
    ),
    _rule(
        Category.CLASSIFICATION,
        "classify classification categorize categorise category categories sentiment positive true yes spam "
        "whether output predict decide determine verify detect "
        "identify tell pos rate label tag",
        r"\bclassif|\bcategori[sz]e|\bsentiment\b|\bpositive, (?:or )?negative|\btrue or false\b|\byes or no\b"
        r"|\bspam or not\b"
        r"|\bwhether\b.{0,60}\bor not\b|\b(?:is|are) (?:a |an )?spam\b|output (?:\"|true|yes|no\b|1\b)"
        r"|\bpredict the (?:intent|label|topic|genre)|\b(?:decide|determine|verify|detect|tell me|identify) (?:if"
        r"|whether)\b|\bpos tags?\b"
        rf"|{_ASK}(?:rate|label|tag) (?:the|this|each|these) |\bidentify (?:the )?bias",
    ),
    _rule(
        Category.EXTRACT,
        "extract find list identify pick pull get copy keywords named",
        rf"\bextract\b|{_ASK}(?:find|list|identify|pick out|pull out|get|copy) (?:all |every "
        rf"|out )?(?:the )?[\w ,]{{0,40}}"
        rf"(?:in|from|of|within|mentioned in) (?:the |this |these )(?:following |given )?(?:{_TEXTS}\b|set of)"
        r"|\bnamed entit|\bkeywords? (?:from|in|of)\b",
    ),
    _rule(
        Category.REWRITE,
        "rewrite rewriting re-write rephrase paraphrase translate translation proofread reword grammar "
        "grammatical grammatically edit fix "
        "correct polish improve shorten simplify reverse rearrange reorder combine combining merge punctuate "
        "replace delete remove convert "
        "transform change turn make add insert substitute arrange unscramble sort alphabetize voice better",
        r"\brewrit|\brephras|\bparaphras|\btranslat|\bproofread|\breword|\bre-writ|\bgrammar|\bgrammatical"
        r"|\bcorrect (?:the|this|my|these|any)\b|\bconvert it to\b|\bsuggest a better word|\b(?:active"
        r"|passive) voice\b|\bcombining the two"
        rf"|{_ASK}(?:edit|fix|polish|improve|shorten|simplify|reverse|rearrange|reorder|combine|merge|punctuate"
        r"|replace|delete|remove|convert|transform|change|turn|make|add|insert|substitute) (?:it |the |this "
        r"|these |that |all |my |each )"
        rf"[\w<>' -]{{0,60}}\b(?:{_TEXTS}|it|tense|question|following|letters?|names|sound|professional|formal)\b"
        rf"|{_ASK}(?:arrange|unscramble|alphabetize|sort)\b",
    ),
    _rule(
        Category.BRAINSTORMING,
        "brainstorm brainstorming idea ideas list give name suggest recommend provide come think tell make write "
        "create what ways",
        r"\bbrainstorm|\bideas?\b|\b(?:list|give|name|suggest|recommend|provide|come up with|think of"
        r"|tell me)\b(?: me)?(?: a list of)?(?: of)?"
        r" (?:some|\d+|two|three|four|five|six|seven|eight|ten|twelve|several|a few|possible|ways|games|names"
        r"|tips|examples)\b"
        rf"|{_ASK}(?:make|write|create|give me) a (?:[a-z]+ )?list\b|\bwhat are (?:some|\d+|five|ten|three"
        rf"|the best) |\bways to\b"
        rf"|{_ASK}(?:suggest|recommend)\b|\bwhat should i\b",
    ),
    _rule(
        Category.GENERATION,
        "write compose draft generate create make design invent produce construct develop prepare plan build "
        "imagine expand complete "
        "continue turn come tell give finish recipe",
        rf"{_ASK}(?:write|compose|draft|generate|create|make|design|invent|produce|construct|develop|prepare|plan"
        rf"|build|imagine|expand"
        r"|complete|continue|turn down|come up with|tell me an?|give me a cooking|finish)\b"
        r"|\b(?:make up|write) (?:a|an|some|the|something)\b|\bdetailed plan\b|\brecipe\b",
    ),
)
_OF_QUESTIONS = frozenset({Category.BRAINSTORMING, Category.CLASSIFICATION, Category.REWRITE, Category.SUMMARIZATION})
"""What a question may ask for too: "What are some ideas…?", "Is this spam?", "Can you translate…?"."""
_PASSAGE = frozenset(
    ("text", "passage", "article", "paragraph", "context", "table", "story", "information", "document", "facts")
)
_SPEAKER = re.compile(r"[A-Z]\w{1,11}\s?:\s")
_QUESTION = re.compile(
    r"(?:hi|hello|hey)?[,! ]{0,2}(?:what|who|whom|whose|when|where|why|which|how|is|are|was|were|do|does|did|can"
    r"|could|should|would|will"
    r"|define|explain|describe|name|identify|tell me (?:about|why|how|what)|provide an?|find an? (?:synonym"
    r"|antonym)|give an example"
    r"|in your opinion|convert \d|calculate|solv\w+|compute|determine|look up|state|compare|answer)\b"
)
_ABOUT_TEXT = re.compile(
    r"\b(?:according to|based on|answer .{0,20}(?:using|from)|given) (?:the |this |these )?(?:following |given "
    r"|above |below )?"
    r"(?:text|passage|article|paragraph|context|table|story|information|document|facts)|\b(?:passage|context"
    r"|article|paragraph)\s?:"
)


def suggest_category(messages: Sequence[Message]) -> Category | None:
    """The use case that the last turn of the user reads like; None where nothing speaks for one."""
    text = next((turn["content"] for turn in reversed(messages) if turn["role"] == "user"), "").strip()
    if _is_dialogue(text):
        return Category.CHAT
    asked = text[:HEAD_CHARACTERS].split("\n\n", 1)[0].lower()
    words = _words(asked)
    begins_as_question = _QUESTION.match(asked) is not None
    is_question = begins_as_question or "?" in text[-_TAIL_CHARACTERS:] or asked.endswith("?")
    is_pure = begins_as_question and asked.endswith("?")
    if not words.isdisjoint(_PASSAGE) and is_question and _ABOUT_TEXT.search(text[:HEAD_CHARACTERS].lower()):
        return Category.CLOSED_QA
    for rule in _RULES:
        if is_pure and rule.category not in _OF_QUESTIONS:
            continue
        if not rule.signs.isdisjoint(words) and rule.pattern.search(asked):
            return rule.category
    if is_question:
        return Category.CLOSED_QA if len(text) > _LONG_CHARACTERS else Category.OPEN_QA
    return None


def _words(text: str) -> set[str]:
    for mark in ".,:;?\"'":  # five times as fast as a pattern or a table
        text = text.replace(mark, " ")
    return set(text.split())


def _is_dialogue(text: str) -> bool:
    """Whether three lines at least begin with who says them."""
    if text.count("\n") < 2:
        return False
    speakers = [line.split(":", 1)[0].strip() for line in text[:2000].split("\n") if _SPEAKER.match(line)]
    return len(speakers) >= 3 and len(set(speakers)) < len(speakers)
