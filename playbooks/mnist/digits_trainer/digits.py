"""Draws digits: seven by five dots each, moved, thickened and smudged as a hand would. The same seed, the same set."""

GLYPHS = [
    "01110 10001 10011 10101 11001 10001 01110",
    "00100 01100 00100 00100 00100 00100 01110",
    "01110 10001 00001 00110 01000 10000 11111",
    "11110 00001 00001 01110 00001 00001 11110",
    "00010 00110 01010 10010 11111 00010 00010",
    "11111 10000 11110 00001 00001 10001 01110",
    "00110 01000 10000 11110 10001 10001 01110",
    "11111 00001 00010 00100 01000 01000 01000",
    "01110 10001 10001 01110 10001 10001 01110",
    "01110 10001 10001 01111 00001 00010 01100",
]
WIDTH, HEIGHT = 8, 10
PIXELS = WIDTH * HEIGHT


def draw(digit, random):
    """One image: a list of PIXELS values from 0 to 1."""
    image = [0.0] * PIXELS
    left, top = random.choice((1, 2)), random.choice((1, 2))
    for y, row in enumerate(GLYPHS[digit].split()):
        for x, dot in enumerate(row):
            if dot == "1" and random.random() > 0.06:
                at = (top + y) * WIDTH + left + x
                image[at] = random.uniform(0.6, 1.0)
                if random.random() < 0.15:
                    image[at + 1] = max(image[at + 1], 0.4)
    return [min(1.0, max(0.0, value + random.gauss(0.0, 0.08))) for value in image]


def make(count, random):
    """Pairs of an image and its digit, every digit as often as any other."""
    pairs = [(draw(i % 10, random), i % 10) for i in range(count)]
    random.shuffle(pairs)
    return pairs
