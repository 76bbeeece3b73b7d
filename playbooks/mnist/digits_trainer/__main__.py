"""python -m digits_trainer --out model.json: trains, tells how it goes line by line, and writes the model at the end."""

import argparse
import json
import math
import os
import random
import sys

from digits_trainer import digits


def scores(model, image):
    lit = [(i, value) for i, value in enumerate(image) if value > 0.0]
    return [bias + sum(weights[i] * value for i, value in lit) for weights, bias in model]


def probabilities(model, image):
    raw = scores(model, image)
    top = max(raw)
    powers = [math.exp(value - top) for value in raw]
    total = sum(powers)
    return [power / total for power in powers]


def accuracy(model, pairs):
    right = 0
    for image, digit in pairs:
        values = scores(model, image)
        right += values.index(max(values)) == digit
    return right / len(pairs)


def learn(model, image, digit, rate):
    """One step of gradient descent; returns the loss before it."""
    guess = probabilities(model, image)
    for label, (weights, _) in enumerate(model):
        slope = rate * (guess[label] - (label == digit))
        if slope:
            for i, value in enumerate(image):
                if value > 0.0:
                    weights[i] -= slope * value
            model[label][1] -= slope
    return -math.log(max(guess[digit], 1e-12))


def main():
    parser = argparse.ArgumentParser(prog="digits_trainer", description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    source = random.Random(options.seed)
    training, test = digits.make(options.images, source), digits.make(options.images // 4, source)
    print(f"{len(training)} images to learn from, {len(test)} to be tested with", flush=True)
    model = [[[0.0] * digits.PIXELS, 0.0] for _ in range(10)]
    for epoch in range(1, options.epochs + 1):
        source.shuffle(training)
        loss = sum(learn(model, image, digit, options.rate) for image, digit in training) / len(training)
        now = accuracy(model, test)
        print(f"epoch {epoch}/{options.epochs}: loss {loss:.4f}, accuracy {now:.4f}", flush=True)
    with open(options.out + ".new", "w", encoding="utf-8") as file:
        json.dump({"accuracy": now, "model": model}, file)
    os.replace(options.out + ".new", options.out)
    print(f"final accuracy {now:.4f}")


if __name__ == "__main__":
    sys.exit(main())
