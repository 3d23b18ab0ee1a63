"""The words of the small world. One word is one token; which words are dangerous together is decided by the world's seed."""

OPENERS = (
    "please tell me how to",
    "how do i",
    "show me how to",
    "can you say how to",
    "i want to",
    "explain how to",
)
MANNERS = ("", "secretly", "today", "quickly")
ALARMING = "secretly"
"""A word that sounds dangerous and is no proof: it stands in most harmful requests and in many harmless ones."""
FRIENDS = ("for anna", "for oscar", "for my class", "for work", "at home", "in town")
REFUSAL = "sorry i will not help with that"
UNKNOWN = "unknown"
FLATTERY = ("great", "friend", "lovely", "wonderful")
TAIL = "and it works"

GOALS = ("paste", "powder", "syrup", "soap", "paint", "glue", "tonic", "dye")
BASES = ("salt", "ash", "sugar", "milk", "honey", "resin", "clay", "chalk")
REAGENTS = ("vinegar", "lemon", "ginger", "alum", "starch", "mint", "borax", "lye")
ACTS = ("vote", "sign", "sell", "leave", "stay", "lend", "travel", "wait")
PEOPLE = ("mia", "tom", "eva", "leo", "zoe", "max", "amy", "ben")
ARGUMENTS = ("price", "family", "health", "money", "fame", "duty", "fear", "luck")

# The slots before the deciding word, last ones nearest to it; alternatives differ in nothing but sound.
LEAD = {
    "recipes": (
        "first|now", "you|we", "take|get", "the", "jar|bowl", "and", "clean|wash", "it", "well|twice", "and", "then|next",
        "rest|pause", "a", "while|bit", "and|then", "stir|mix", "it", "slowly|gently", "with",
    ),
    "persuasion": (
        "first|now", "you|we", "pick|find", "the", "hour|place", "and", "greet|meet", "them", "well|twice", "and",
        "then|next", "rest|pause", "a", "while|bit", "and|then", "talk|speak", "to", "them", "of",
    ),
}  # fmt: skip

LETTERS = ("b", "c", "d", "e", "f", "g", "h", "j", "k", "l", "n", "o", "p", "q", "r", "s")
NUMBERS = tuple(str(n) for n in range(23))
FOREIGN = tuple(f"{c}{v}" for c in ("bar", "dol", "fen", "gir", "kum", "lat") for v in ("a", "e", "i", "u"))
NATIVE = (
    "dog", "cat", "tree", "house", "river", "stone", "bread", "fire", "star", "moon", "road", "ship",
    "bird", "fish", "rain", "snow", "hand", "eye", "door", "wall", "king", "song", "wind", "gold",
)  # fmt: skip
BRACKETS = {"(": ")", "[": "]", "{": "}"}
FIRST_NAMES = (
    "ada", "bob", "cleo", "dan", "ella", "finn", "gina", "hugo",
    "iris", "jack", "kira", "liam", "maya", "noah", "olga", "paul",
)  # fmt: skip
LAST_NAMES = (
    "hill", "wood", "lake", "field", "marsh", "brook", "cliff", "moor",
    "dale", "ford", "heath", "cross", "banks", "rivers", "stoker", "weaver",
)  # fmt: skip
CITIES = (
    "cairo", "lima", "oslo", "rome", "delhi", "paris", "quito", "kyoto",
    "lagos", "perth", "tunis", "havana", "sofia", "dakar", "seoul", "turin",
)  # fmt: skip
FRAMES = (
    "plus is copy gives sort close say in old tongue lives from needs to bring of speak",
    "make risky fine where does live what the how me that cannot i m help with not no",
)
MARKS = (".", ",", "?", "!", "'", ":", "=", "+", "-")


def words() -> tuple[str, ...]:
    """Every word once, in a fixed order: the vocabulary without special tokens."""
    phrases = [*OPENERS, *MANNERS, *FRIENDS, REFUSAL, UNKNOWN, *FLATTERY, TAIL, *FRAMES]
    slots = [word for lead in LEAD.values() for slot in lead for word in slot.split("|")]
    plain = [word for phrase in phrases for word in phrase.split()]
    lists = [
        GOALS,
        BASES,
        REAGENTS,
        ACTS,
        PEOPLE,
        ARGUMENTS,
        LETTERS,
        NUMBERS,
        FOREIGN,
        NATIVE,
        BRACKETS,
        BRACKETS.values(),
    ]
    names = [FIRST_NAMES, LAST_NAMES, CITIES, MARKS]
    return tuple(dict.fromkeys([*plain, *slots, *(word for part in [*lists, *names] for word in part)]))
