"""Rows of a made-up shop, as text for PostgreSQL's COPY and MariaDB's INSERT.

Everything is drawn from a seed, so that the same rows come out on every machine. Prose is made of invented
words whose frequencies fall as those of a language do, because words of equal frequency compress worse than
any text; keys, amounts and addresses are drawn evenly, because those of real tables hardly compress.
"""

import itertools
import random
import time
import uuid

BEGINNING = 1_700_000_000  # seconds since 1970; the shop opened then
STATES = ("new", "paid", "packed", "shipped", "delivered", "returned")
PROGRAMS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
    "shop/7.3.0 (Android 15)",
)


class Prose:
    """Words by rank: the word of rank n is about 1/n as frequent as the first."""

    WORDS = 16_000

    def __init__(self):
        draw = random.Random("words")
        heads, vowels, tails = (
            "b d f g h k l m n p r s t v w z st tr pl kr".split(),
            "aeiou",
            ("", "", "n", "r", "s", "l", "nt"),
        )
        words = {}
        while len(words) < self.WORDS:
            syllables = 1 + (len(words) > 200) + (len(words) > 5000)
            words["".join(draw.choice(heads) + draw.choice(vowels) + draw.choice(tails) for _ in range(syllables))] = None
        self.words = list(words)
        self.weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(self.WORDS)))

    def text(self, draw, length):
        return " ".join(draw.choices(self.words, cum_weights=self.weights, k=length))


def moment(number, step_seconds):
    """The time of a row, as PostgreSQL writes it in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(BEGINNING + number * step_seconds))


def events(first, count, seed):
    """Orders: a uuid, a state, an amount, a note of some words, and JSON as programs write it."""
    draw, prose = random.Random(f"events {seed} {first}"), Prose()
    bits = draw.getrandbits
    for number in range(first, first + count):
        items = ", ".join(
            f'{{"sku": "S{bits(18):06d}", "count": {1 + bits(2)}, "cents": {bits(14)}}}'
            for _ in range(1 + bits(1) + bits(1))
        )
        payload = (
            f'{{"ip": "10.{bits(8)}.{bits(8)}.{bits(8)}", "agent": "{PROGRAMS[bits(8) % 3]}", '
            f'"items": [{items}], "session": "{bits(64):016x}", "score": {bits(14) / 10_000}}}'
        )
        note = prose.text(draw, 8 + bits(5))
        yield (
            f"{number}\t{moment(number, 37)}\t{1 + bits(17)}\t{uuid.UUID(int=bits(128))}\t"
            f"{STATES[bits(8) % 6]}\t{bits(10)}.{bits(6):02d}\t{note}\t{payload}\n"
        )


def documents(first, count, seed):
    """Texts of 60 to 560 words, most of them short."""
    draw, prose = random.Random(f"documents {seed} {first}"), Prose()
    for number in range(first, first + count):
        length = 60 + int(500 * draw.random() * draw.random())
        yield f"{number}\t{moment(number, 311)}\t{prose.text(draw, 4).title()}\t{prose.text(draw, length)}\n"


def digits(first, count, seed):
    """INSERT statements for rows of random digits, which compress by little more than half."""
    draw = random.Random(f"digits {seed} {first}")

    def groups(how_many):
        return "-".join(f"{draw.randrange(10**11):011d}" for _ in range(how_many))

    for start in range(first, first + count, 500):
        rows = (
            f"({number},{1 + draw.getrandbits(21)},'{groups(10)}','{groups(5)}')"
            for number in range(start, min(start + 500, first + count))
        )
        yield "INSERT INTO digits VALUES " + ",".join(rows) + ";\n"
