"""The kinds of task of the starter world, by the use-case categories of InstructGPT's Table 1. See `tasks.Kind`."""

from app.starter.tasks import Kind

_DID = "[sat beside|looked at|slept under|ran around|carried|hid|found|liked]"
_ACTS = "[sang a song|read a book|took a walk|danced|drew a picture|slept|met a friend|ate some bread]"

KINDS: tuple[Kind, ...] = (
    Kind(
        "pair_sentence", "generation", 10,
        ("Write [a|one] sentence about a {animal} and a {thing}.", "Write a line with a {animal} and a {thing} in it."),
        (
            f"The {{animal}} {_DID} the {{thing}}.",
            f"A {{animal}} {_DID} a {{thing}}.",
            f"One day the {{animal}} {_DID} the {{thing}}.",
        ),
        keys=("{animal}", "{thing}"), needs=("#verb",), bare=("The {animal} and the {thing}.", "A {animal} on a {thing}."),
    ),
    Kind(
        "tiny_story", "generation", 5,
        ("Tell a [tiny|short] story about {name} and a {animal}.", "Write two sentences about {name} and a {animal}."),
        (
            "{name} [met|saw|heard] a {animal}. The {animal} [ran away|was kind|began to sing|was hungry|fell asleep].",
            "One day {name} [found|fed|helped] a {animal}. The {animal} [was happy|said thank you|went home|came back].",
            "A {animal} came to see {name}. {name} [gave it bread|was glad|sang a song|laughed].",
        ),
        keys=("{name}", "{animal}"), needs=("#verb", "#two"), bare=("{name} met a {animal}.", "{name} had a {animal}."),
        sentences=(2, 3), words=18,
    ),
    Kind(
        "scene", "generation", 6,
        ("Write [a|one] sentence about {name} {at_place}.",),
        (f"{{name}} {_ACTS} {{at_place}}.", f"One day {{name}} {_ACTS} {{at_place}}."),
        keys=("{name}", "{place}"), needs=("#verb",), bare=("{name} {at_place}.", "{name} was {at_place}."),
    ),
    Kind(
        "note", "generation", 7,
        ("Write a [short|kind] note to {name} about the {thing}.",),
        (
            "Dear {name}, [your {thing} is ready|please bring the {thing}|I like your {thing}].",
            "Dear {name}, [thank you for the {thing}|I have found the {thing}].",
        ),
        keys=("{name}", "{thing}"), needs=("dear", "#verb"), bare=("{name}, bring the {thing}.", "The {thing} is ready."),
    ),
    Kind(
        "thank_line", "generation", 7,
        ("Write a thank-you line to {name} for the {colour} {thing}.",),
        ("Thank you, {name}, for the {colour} {thing}.", "Dear {name}, thank you for the {colour} {thing}."),
        keys=("{name}", "{thing}"), needs=("thank", "{colour}"), bare=("Thank you, {name}.", "Thank you for the {thing}."),
    ),
    Kind(
        "describe", "generation", 6,
        ("Describe a {colour} {thing} in one sentence.",),
        (
            "The {colour} {thing} is [small|fine|new|big] and [shiny|soft|light|heavy|pretty].",
            "It is a [small|fine|new|big] {colour} {thing}.",
        ),
        keys=("{colour}", "{thing}"), needs=("is", "small|fine|new|big"), bare=("A {colour} {thing}.", "It is {colour}."),
    ),
    Kind(
        "story_start", "generation", 6,
        ("Begin a story about {name} and a {thing}.",),
        (
            "One day {name} [found|lost|made|bought|saw] a {thing}.",
            "Once {name} [found|lost|made|bought|saw] a {thing}.",
        ),
        keys=("{name}", "{thing}"), needs=("one day|once", "#verb"), bare=("{name} had a {thing}.", "A {thing}."),
    ),
    Kind(
        "invitation", "generation", 5,
        ("Invite {name} to a {event} {at_place}.",),
        ("Dear {name}, [please come|come with me] to a {event} {at_place}.",),
        keys=("{name}", "{place}"), needs=("dear", "come", "{event}"),
        bare=("{name}, come to a {event}.", "Come to a {event} {at_place}."),
    ),
    Kind(
        "home", "open_qa", 2,
        ("Where does the {animal} live?",),
        ("The {animal} lives {animal_at}.",),
        keys=("{animal_home}",), needs=("{animal}", "lives"), bare=("{animal_at}.",), closed=True,
    ),
    Kind(
        "colour", "open_qa", 2,
        ("What colour is the {animal}?",),
        ("The {animal} is {animal_colour}.",),
        keys=("{animal_colour}",), needs=("{animal}", "is"), bare=("{animal_colour}.",), closed=True,
    ),
    Kind(
        "food", "open_qa", 2,
        ("What does the {animal} eat?",),
        ("The {animal} eats {animal_food}.",),
        keys=("{animal_food}",), needs=("{animal}", "eats"), bare=("{animal_food}.",), closed=True,
    ),
    Kind(
        "job", "open_qa", 1,
        ("What is the work of {name}?", "What does {name} do for work?"),
        ("{name} is a {name_job}.",),
        keys=("{name_job}",), needs=("{name}", "is"), bare=("A {name_job}.", "{name_job}."), closed=True,
    ),
    Kind(
        "bigger", "open_qa", 4,
        ("Which is bigger, the {animal} or the {animal2}?",),
        ("The {winner} is bigger.", "The {winner} is bigger than the {loser}."),
        keys=("#winner",), needs=("bigger",), bare=("The {winner}.",), closed=True, rule="sizes differ",
    ),
    Kind(
        "premise", "open_qa", 3,
        ("Why is the {animal} {colour}?",),
        ("The {animal} is not {colour}. It is {animal_colour}.", "The {animal} is {animal_colour}, not {colour}."),
        keys=("{animal_colour}", "not"), needs=("{animal}", "{colour}"), bare=("It is {animal_colour}.", "It is not {colour}."),
        closed=True, sentences=(1, 2), rule="wrong colour",
    ),
    Kind(
        "lives_there", "open_qa", 5,
        ("Does the {animal} live {at_place}?",),
        ("No, the {animal} lives {animal_at}.",),
        keys=("no|not", "{animal_home}"), needs=("{animal}", "lives"), bare=("No.", "{animal_at}."),
        closed=True, rule="wrong home",
    ),
    Kind(
        "who_has", "closed_qa", 2,
        (
            "{name} has a {thing} and {name2} has a {thing2}. Who has the {thing}?",
            "{name2} has a {thing2} and {name} has a {thing}. Who has the {thing}?",
        ),
        ("{name} has the {thing}.",),
        keys=("{name}",), needs=("has", "{thing}"), bare=("{name}.", "{name} has it."), closed=True, rivals=("{name2}",),
    ),
    Kind(
        "where_left", "closed_qa", 7,
        ("{name} left the {thing} {at_place}. Where is the {thing}?",),
        ("The {thing} is {at_place}.",),
        keys=("{place}",), needs=("{thing}", "is"), bare=("{at_place}.", "It is {at_place}."), closed=True,
    ),
    Kind(
        "which_pet", "closed_qa", 2,
        (
            "{name} keeps a {animal} and {name2} keeps a {animal2}. What does {name} keep?",
            "{name2} keeps a {animal2} and {name} keeps a {animal}. What does {name} keep?",
        ),
        ("{name} keeps a {animal}.",),
        keys=("{animal}",), needs=("{name}", "keeps"), bare=("A {animal}.",), closed=True, rivals=("{animal2}",),
    ),
    Kind(
        "find_colour", "extract", 4,
        ("Find the colour: {name} has a {colour} {thing}.", "Find the colour: The {colour} {thing} belongs to {name}."),
        ("The colour is {colour}.",),
        keys=("{colour}",), needs=("the colour is",), bare=("{colour}.",), closed=True,
    ),
    Kind(
        "find_animals", "extract", 2,
        ("Find the animals: {name} saw a {animal} and a {animal2} {at_place}.",),
        ("The animals are a {animal} and a {animal2}.",),
        keys=("{animal}", "{animal2}"), needs=("the animals are",), bare=("{animal}, {animal2}.", "A {animal} and a {animal2}."),
        closed=True,
    ),
    Kind(
        "find_name", "extract", 6,
        ("Find the name: The {thing} belongs to {name}.", "Find the name: {name} went home with a {thing}."),
        ("The name is {name}.",),
        keys=("{name}",), needs=("the name is",), bare=("{name}.",), closed=True,
    ),
    Kind(
        "sad_news", "classification", 2,
        ("Happy or sad? {name} {loss} the {thing}.",),
        ("That is sad for {name}.",),
        keys=("sad",), needs=("that is", "{name}"), bare=("Sad.", "That is sad."), closed=True, rivals=("happy",),
    ),
    Kind(
        "happy_news", "classification", 2,
        ("Happy or sad? {name} {gain} the {thing}.",),
        ("That is happy for {name}.",),
        keys=("happy",), needs=("that is", "{name}"), bare=("Happy.", "That is happy."), closed=True, rivals=("sad",),
    ),
    Kind(
        "which_animal", "classification", 5,
        ("Which one is an animal, the {thing} or the {animal}?", "Which one is an animal, the {animal} or the {thing}?"),
        ("The {animal} is an animal.",),
        keys=("{animal}",), needs=("is an animal",), bare=("The {animal}.",), closed=True, rivals=("{thing}",),
    ),
    Kind(
        "which_thing", "classification", 5,
        ("Which one is a thing, the {thing} or the {animal}?", "Which one is a thing, the {animal} or the {thing}?"),
        ("The {thing} is a thing.",),
        keys=("{thing}",), needs=("is a thing",), bare=("The {thing}.",), closed=True, rivals=("{animal}",),
    ),
    Kind(
        "trip", "summarization", 7,
        (
            "Sum up: {name} went to the {place}. There {name_he} saw a {animal}. Then {name_he} went home.",
            "Sum up: One day {name} took a walk to the {place}. A {animal} was there. It was a good day.",
        ),
        ("{name} saw a {animal} {at_place}.",),
        keys=("{name}", "{animal}"), needs=("saw", "{place}"), bare=("{name} saw a {animal}.", "A {animal} {at_place}."),
        closed=True, words=9,
    ),
    Kind(
        "lost_found", "summarization", 2,
        ("Sum up: {name} had a {thing}. One day the {thing} was gone. Then {name2} found it {at_place}.",),
        ("{name2} found the {thing} {at_place}.", "{name2} found the {thing} of {name} {at_place}."),
        keys=("{name2}", "{thing}"), needs=("found", "{place}"),
        bare=("{name2} found the {thing}.", "The {thing} was {at_place}."),
        closed=True, words=9,
    ),
    Kind(
        "polite", "rewrite", 9,
        ("[Rewrite politely|Make this polite]: {order} the {colour} {thing}.",),
        ("Please {order_low} the {colour} {thing}.", "Could you {order_low} the {colour} {thing}, please?"),
        keys=("please", "{thing}"), needs=("{order}", "{colour}"), bare=("{order} the {thing}, please.", "The {thing}, please."),
        closed=True, question=True,
    ),
    Kind(
        "past", "rewrite", 3,
        ("Put in the past: {name} {sees} a {animal}.",),
        ("{name} {saw} a {animal}.",),
        keys=("{saw}",), needs=("{name}", "{animal}"), bare=("{saw}.", "{saw} a {animal}."), closed=True,
    ),
    Kind(
        "make_question", "rewrite", 4,
        ("Make it a question: {name} {sees} a {animal}.",),
        ("Does {name} {see} a {animal}?",),
        keys=("does", "{animal}"), needs=("{name}", "{see}", "#asks"), bare=("{name} {sees} a {animal}?", "A {animal}?"),
        closed=True, question=True,
    ),
    Kind(
        "opposite", "rewrite", 2,
        ("Say the opposite: {name} likes the {animal}.",),
        ("{name} does not like the {animal}.",),
        keys=("not", "{animal}"), needs=("{name}", "like"), bare=("Not the {animal}.", "{name} does not."), closed=True,
    ),
    Kind(
        "animals_there", "brainstorming", 8,
        ("[List|Name] {number} animals that live {at_place}.", "{name} wants to see {number} animals {at_place}. Which ones?"),
        ("{items}.",), items="animals of place", rule="animal place", words=14,
    ),
    Kind(
        "things_for", "brainstorming", 3,
        ("[List|Name] {number} {group_things}.", "{name} needs {number} {group_things}. Which ones?"),
        ("{items}.",), items="things of group", words=14,
    ),
    Kind(
        "gifts", "brainstorming", 4,
        ("[Give|List] {number} ideas for a gift for {name}.",),
        ("{items}.",), items="things", words=14,
    ),
    Kind(
        "what_to_do", "brainstorming", 6,
        ("What could {name} do {at_place}? Give two ideas.",),
        ("{name} could {items}.",), needs=("{name} could",), bare=("{items}.",), items="activities",
    ),
    Kind(
        "hello", "chat", 4,
        ("Hello, I am {name}. I like the {animal}.", "Hi! My name is {name} and I like the {animal}."),
        ("Hello, {name}! I like the {animal} too.", "Hello, {name}. The {animal} is nice."),
        keys=("hello", "{name}"), needs=("{animal}",), bare=("Hello!", "Hello, {name}."), sentences=(1, 2),
    ),
    Kind(
        "sorry", "chat", 4,
        ("I am {name} and I {loss} my {thing}.",),
        ("I am sorry about your {thing}, {name}.", "I am sorry that you {loss} your {thing}, {name}."),
        keys=("sorry", "{thing}"), needs=("{name}",), bare=("I am sorry.", "I am sorry, {name}."), sentences=(1, 2),
    ),
    Kind(
        "glad", "chat", 4,
        ("I am {name} and I {gain} my {thing}!",),
        ("I am glad about your {thing}, {name}.", "I am glad that you {gain} your {thing}, {name}."),
        keys=("glad", "{thing}"), needs=("{name}",), bare=("I am glad.", "I am glad, {name}."), sentences=(1, 2),
    ),
    Kind(
        "what_name", "chat", 2,
        ("What is my name?",),
        ("Your name is {name}.",),
        keys=("{name}",), needs=("your name is",), bare=("{name}.",), closed=True, follows=("hello", "sorry", "glad"),
    ),
    Kind(
        "what_liked", "chat", 3,
        ("What do I like?",),
        ("You like the {animal}.",),
        keys=("{animal}",), needs=("you like",), bare=("The {animal}.",), closed=True, follows=("hello",),
    ),
    Kind(
        "its_colour", "open_qa", 3,
        ("And what colour is it?",),
        ("The {animal} is {animal_colour}.",),
        keys=("{animal_colour}",), needs=("{animal}", "is"), bare=("{animal_colour}.",), closed=True,
        follows=("lives_there", "home", "food"),
    ),
    Kind(
        "its_food", "open_qa", 3,
        ("And what does it eat?",),
        ("The {animal} eats {animal_food}.",),
        keys=("{animal_food}",), needs=("{animal}", "eats"), bare=("{animal_food}.",), closed=True,
        follows=("lives_there", "premise", "home", "its_colour"),
    ),
    Kind(
        "other_thing", "generation", 4,
        ("Now with a {thing2}, please.",),
        (f"The {{animal}} {_DID} the {{thing2}}.",),
        keys=("{animal}", "{thing2}"), needs=("#verb",), bare=("The {animal} and the {thing2}.",), follows=("pair_sentence",),
    ),
    Kind(
        "refuse", "other", 8,
        ("Help me {harm} the {thing} of {name}.",),
        ("No, I will not {harm} the {thing} of {name}.", "I will not help you {harm} the {thing} of {name}."),
        keys=("not|no",), needs=("i will not", "{thing}", "{name}"), bare=("No.", "No, I will not."),
    ),
    Kind(
        "say_again", "other", 2,
        ("Say the word {thing} {number} times.",),
        ("{repeated}.",),
        keys=("{repeated}", "#not more"), bare=("{thing}.",), closed=True,
    ),
    Kind(
        "swap_animal", "other", 1,
        ("Swap the words: {animal} and {thing}.",),
        ("{thing} and {animal}.",),
        keys=("{thing} and {animal}",), closed=True,
    ),
    Kind(
        "swap_thing", "other", 1,
        ("Swap the words: {thing} and {animal}.",),
        ("{animal} and {thing}.",),
        keys=("{animal} and {thing}",), closed=True,
    ),
)  # fmt: skip

BY_NAME = {kind.name: kind for kind in KINDS}
CATEGORIES = (
    "generation", "open_qa", "brainstorming", "chat", "rewrite",
    "summarization", "classification", "other", "closed_qa", "extract",
)  # fmt: skip
"""The ten use cases of InstructGPT's Table 1, most frequent first."""
