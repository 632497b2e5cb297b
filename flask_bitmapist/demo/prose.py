"""What the people of Marginalia are called, and what they write."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, product
from random import Random

FIRST_NAMES = """
Ada Adaeze Aiko Alba Amara Amir Anouk Asha Bao Beatriz Bruno Camille Chidi Clara Dara Dmitri
Elif Emeka Esther Farah Fatou Felix Freya Gita Hana Hugo Idris Ines Ingrid Ivan Jaya Jonas June
Kavya Kofi Lars Leila Lucia Mai Malik Marta Mateo Mei Mira Nadia Nils Nora Olga Omar Priya
Rafael Rosa Ruth Sami Sana Selin Tariq Thea Tomas Uma Viktor Wanjiru Yara Yusuf Zofia
""".split()  # noqa: SIM905
LAST_NAMES = """
Abara Achterberg Almeida Andersen Aoki Baptiste Bauer Becker Bianchi Boateng Castro Chen Costa
Dahl Delgado Diallo Dubois Eze Farkas Ferrari Fischer Fofana Garcia Grant Haddad Halvorsen
Hartmann Hoang Ibarra Ito Jansen Kaplan Keita Khan Kim Kovacs Kowalska Kumar Larsen Laurent
Lindgren Lopez Mahlaba Mehta Moreau Mori Mwangi Nakamura Nguyen Novak Nyberg Okafor Okoye Park
Pereira Petrov Popescu Quist Rao Ricci Rossi Sato Schulz Shah Silva Sokolova Tanaka Traore
Vargas Vogel Weber Yilmaz
""".split()  # noqa: SIM905
BOOKS = (
    "Middlemarch",
    "Moby-Dick",
    "Walden",
    "The Odyssey",
    "Emma",
    "Dracula",
    "Don Quixote",
    "Meditations",
    "Persuasion",
    "Frankenstein",
    "Bleak House",
    "War and Peace",
    "The Tale of Genji",
    "Dead Souls",
    "Jane Eyre",
    "The Time Machine",
    "Candide",
    "Anna Karenina",
    "The Woman in White",
    "Gulliver's Travels",
    "The Pillow Book",
    "Metamorphoses",
    "North and South",
    "The Moonstone",
)
TITLES = (
    "{book}, page {page}",
    "{book}, page {page}",
    "A line in {book}",
    "Reading {book} on the train",
    "Why I gave up on {book}, twice",
    "{book}, for the third time",
    "Who is {book} for?",
    "What nobody says about {book}",
    "{book} is funnier than its reputation",
    "Found in a second-hand {book}",
    "The last chapter of {book}",
    "In defence of skipping: {book}",
)
REMARKS = (
    "The sentence that everybody quotes is not the one that matters.",
    "Somebody before me pencilled “no!” here, and I have been arguing with them all week.",
    "I read it slowly this time, ten pages a night, and it is a different book.",
    "The translator's note is worth more than the introduction.",
    "It turns on a single comma.",
    "Three people enter the room and only one of them is described.",
    "Nothing happens for eighty pages and I would not cut a word.",
    "My copy has a tram ticket from 1961 at this place.",
    "It is the weather that tells you what will happen, long before anybody does.",
    "I used to find this chapter cruel. Now I find it accurate.",
    "Read it aloud once: the rhythm does the arguing.",
    "There is a joke in the footnotes that the text never mentions again.",
    "The minor character who carries the letter deserves a novel of her own.",
    "I had remembered the ending wrongly for twenty years.",
    "You can see where the serial part ended, and the author out of breath.",
    "If you have given up before, begin with the second part.",
    "The money is always counted out exactly; the feelings never are.",
    "I copied the paragraph by hand and only then noticed the lie in it.",
    "It has the best description of being tired that I know.",
    "My grandmother underlined the same line.",
    "Whoever chose this cover had not read it.",
    "The silence between the two letters is the whole plot.",
)


def names(random: Random) -> Iterator[str]:
    """Names without end, no two alike."""
    pairs = [f"{first} {last}" for first, last in product(FIRST_NAMES, LAST_NAMES)]
    random.shuffle(pairs)
    yield from pairs
    for generation in count(2):
        for pair in pairs:
            yield f"{pair} {generation}"


def post(random: Random) -> tuple[str, str]:
    """The title and the body of one post."""
    title = random.choice(TITLES).format(book=random.choice(BOOKS), page=random.randint(9, 412))
    return title, " ".join(random.sample(REMARKS, random.randint(2, 4)))
