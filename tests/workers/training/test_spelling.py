import pytest

from tests.workers.training.factories import make_tokenizer
from workers.training import conversation
from workers.training.spelling import UNFINISHED, Spelling

TEXT = "Größe 12, \n\n- café 😀 the cat 👩‍🚀 ends"


def spell(text, stop=()):
    """The pieces given token by token, and the spelling."""
    tokenizer = make_tokenizer()
    spelling, pieces = Spelling(tokenizer, stop), []
    for token in conversation.encode_response(tokenizer, text, ended=False):
        spelling.add(token)
        pieces.append(spelling.take())
        if spelling.is_cut:
            break
    return pieces, spelling


class TestPieces:
    def test_join_to_the_text_and_hold_whole_characters_only(self):
        pieces, spelling = spell(TEXT)
        assert "".join(pieces) == spelling.text == TEXT
        assert not any(UNFINISHED in piece for piece in pieces)
        assert "" in pieces, "a token within a character gives nothing"

    def test_what_stays_unfinished_is_given_at_the_end(self):
        tokenizer = make_tokenizer()
        tokens = conversation.encode_response(tokenizer, "a😀", ended=False)[:-1]
        spelling = Spelling(tokenizer)
        for token in tokens:
            spelling.add(token)
        text = conversation.decode_response(tokenizer, tokens)
        assert (spelling.take(), spelling.finish(text)) == ("a", text[1:])
        assert UNFINISHED in text


class TestStop:
    @pytest.mark.parametrize(
        ("stop", "expected"),
        [
            (("café",), "Größe 12, \n\n- "),
            (("cat", "12"), "Größe "),  # the first in the text, not in the list
            (("\n\n",), "Größe 12, "),
            (("😀 the",), "Größe 12, \n\n- café "),
            (("G",), ""),
            (("nowhere",), TEXT),
        ],
    )
    def test_cuts_the_text_before_it(self, stop, expected):
        pieces, spelling = spell(TEXT, stop)
        assert spelling.text == expected
        assert spelling.is_cut == (expected != TEXT)
        assert "".join(pieces) == expected, "nothing of a stop string was given before it was whole"

    def test_is_held_back_only_while_it_may_still_come(self):
        pieces, _ = spell("aab aac", ("aac",))
        assert "".join(pieces) == "aab "

    @pytest.mark.parametrize("stop", ["café", "at", "\n", "Gr", "😀"])
    def test_the_fewest_tokens_that_spell_the_text_are_kept(self, stop):
        tokenizer = make_tokenizer()
        tokens = conversation.encode_response(tokenizer, TEXT, ended=False)
        _, spelling = spell(TEXT, (stop,))
        kept = spelling.count_tokens()
        assert conversation.decode_response(tokenizer, tokens[:kept]).startswith(spelling.text)
        assert kept == 0 or not conversation.decode_response(tokenizer, tokens[: kept - 1]).startswith(spelling.text)
