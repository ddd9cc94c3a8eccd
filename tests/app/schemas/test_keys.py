"""A person's keys: one each, a closed list of acts, and off where they want none."""

import pytest

from app.schemas.keys import STANDARD, Act, Keys


def form(**changes: str) -> dict[str, str]:
    return {f"key-{act}": key for act, key in STANDARD.items()} | {"are_on": "yes"} | changes


class TestKeys:
    def test_what_is_stored_comes_back(self) -> None:
        keys = Keys.from_form(form(**{"key-next": "v", "key-undo": "Z"}))
        assert keys.as_json() == {"are_on": True, "next": "v", "undo": "Z"}
        assert Keys.of({"keys": keys.as_json()}) == keys
        assert keys.by_act[Act.NEXT] == "v"

    def test_are_off_where_the_box_is_not_ticked(self) -> None:
        sent = form()
        del sent["are_on"]
        assert Keys.of({"keys": Keys.from_form(sent).as_json()}) == Keys(are_on=False)

    def test_an_empty_key_is_the_standard_one(self) -> None:
        assert Keys.from_form(form(**{"key-next": " "})) == Keys()

    @pytest.mark.parametrize("key", ["jj", "1", " j ", "é", "<", '"', "\u202e", "<script>"])
    def test_only_one_plain_character_is_a_key(self, key: str) -> None:
        problems = Keys.from_form(form(**{"key-next": key})).problems()
        if key.strip() == "j":
            assert not problems
        else:
            assert list(problems) == [Act.NEXT]

    def test_two_acts_do_not_share_a_key(self) -> None:
        problems = Keys.from_form(form(**{"key-next": "k"})).problems()
        assert set(problems) == {Act.NEXT, Act.PREVIOUS}
        assert "'k' is there twice" in problems[Act.NEXT]

    @pytest.mark.parametrize("stored", [None, [], {"next": 7}, {"next": "<"}, {"elephant": "e"}])
    def test_what_is_none_of_todays_is_the_standard(self, stored: object) -> None:
        assert Keys.of({"keys": stored}).by_act == STANDARD

    def test_an_act_whose_key_was_given_to_another_has_a_free_one(self) -> None:
        keys = Keys.of({"keys": {"next": "k", "undo": "c"}})
        assert (keys.by_act[Act.NEXT], keys.by_act[Act.UNDO]) == ("k", "c")
        assert (keys.by_act[Act.PREVIOUS], keys.by_act[Act.COMPARE]) == ("q", "w")
        assert not keys.problems()
