"""The starter prompts: enough of each kind, distinct, split by writer, and held-out pairs in the held-out splits only."""

from collections import Counter, defaultdict

from app.starter import load_starter
from app.starter.corpus import documents
from app.starter.kinds import BY_NAME, CATEGORIES, KINDS
from app.starter.prompts import make_prompts, text_of
from app.starter.world import held_out_pairs, is_held_out

PROMPTS = make_prompts()
BY_KEY = {prompt.key: prompt for prompt in PROMPTS}


class TestMakePrompts:
    def test_makes_at_least_two_thousand_distinct_prompts(self):
        assert len(PROMPTS) >= 2000
        assert len({text_of(prompt) for prompt in PROMPTS}) == len(PROMPTS) == len(BY_KEY)

    def test_is_the_same_at_every_call(self):
        assert make_prompts() == PROMPTS

    def test_covers_all_ten_categories_in_every_split(self):
        counts = Counter((prompt.split, prompt.category) for prompt in PROMPTS)
        for category in CATEGORIES:
            assert counts["train", category] >= 40
            assert counts["valid", category] + counts["test", category] >= 20

    def test_generation_is_the_most_frequent_category_as_in_the_paper(self):
        assert Counter(prompt.category for prompt in PROMPTS).most_common(2) == [
            ("generation", sum(prompt.category == "generation" for prompt in PROMPTS)),
            ("open_qa", sum(prompt.category == "open_qa" for prompt in PROMPTS)),
        ]

    def test_every_writer_belongs_to_one_split(self):
        splits = defaultdict(set)
        for prompt in PROMPTS:
            splits[prompt.source].add(prompt.split)
        assert all(len(found) == 1 for found in splits.values())
        assert {len(prompt.source) for prompt in PROMPTS} == {len("writer-01")}

    def test_a_later_turn_continues_its_parent_with_the_same_writer_and_split(self):
        children = [prompt for prompt in PROMPTS if prompt.parent]
        assert {len(prompt.messages) for prompt in PROMPTS} == {1, 3, 5}
        assert len(children) >= 100
        for child in children:
            parent = BY_KEY[child.parent]
            assert child.messages[: len(parent.messages)] == parent.messages
            assert [turn["role"] for turn in child.messages[-2:]] == ["assistant", "user"]
            assert (child.source, child.split) == (parent.source, parent.split)

    def test_every_prompt_is_understood_as_the_kind_it_was_made_of(self):
        for prompt in PROMPTS:
            matches = {
                kind.name: found for kind in KINDS if (found := kind.match(prompt.messages[-1]["content"])) is not None
            }
            assert list(matches) == [prompt.kind]
            assert all(prompt.slots[slot] == word for slot, word in matches[prompt.kind].items())
            assert BY_NAME[prompt.kind].category == prompt.category


class TestHeldOutPairs:
    def test_every_held_out_prompt_has_one_and_no_training_prompt_does(self):
        for prompt in PROMPTS:
            assert bool(held_out_pairs(text_of(prompt))) == (prompt.split != "train")

    def test_no_demonstration_has_one(self):
        for demonstration in load_starter().demonstrations:
            prompt = BY_KEY[demonstration.prompt_key]
            assert prompt.split == "train"
            assert not held_out_pairs(f"{text_of(prompt)} {demonstration.response}")

    def test_no_document_of_the_base_text_has_one(self):
        assert not any(held_out_pairs(text) for text in documents(count=3000))

    def test_what_the_world_must_tell_is_free(self):
        assert not is_held_out("frog", "lake")
        assert not is_held_out("frog", "green")
        assert not is_held_out("duck", "frog")
        assert not is_held_out("Mara", "village")

    def test_does_not_depend_on_the_order_of_the_words(self):
        assert all(
            is_held_out(one, other) == is_held_out(other, one) for one, other in (("Tom", "drum"), ("fox", "cup"))
        )


class TestDemonstrations:
    def test_are_a_few_hundred_over_all_kinds(self):
        demonstrations = load_starter().demonstrations
        assert 200 <= len(demonstrations) <= 500
        assert {BY_KEY[demonstration.prompt_key].kind for demonstration in demonstrations} == set(BY_NAME)
        assert len({demonstration.prompt_key for demonstration in demonstrations}) == len(demonstrations)


class TestDocuments:
    def test_are_the_same_at_every_call(self):
        assert list(documents(count=50)) == list(documents(count=50))
