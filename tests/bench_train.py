"""How fast an epoch is, beside the same GAN trained with Keras's `train_on_batch`.

    python tests/bench_train.py

prints a table in half a minute. Times are medians over rounds that take turns, so that a
noisy machine is noisy for both; compare the ratios.
"""

import pathlib
import random
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import numpy as np

import demo_gan

STEP_PER = 20
SECONDS = 0.3  # of each way in each round
ROUNDS = 5


def train(gan, samples, epochs, batch_size):
    """This project's way: whole epochs, compiled."""
    gan.train(samples, epochs, batch_size, STEP_PER)


def train_on_batch(gan, samples, epochs, batch_size):
    """The literal translation: one call of Keras for each update."""
    noise, real = (samples[key].reshape(-1, batch_size, samples[key].shape[1]) for key in "xy")
    ignored = np.zeros((batch_size, 1))
    for _ in range(epochs):
        gan.generator_model.trainable, gan.discriminateor_model.trainable = False, True
        for _ in range(STEP_PER):
            batch = [random.choice(real), random.choice(noise)]
            gan.discriminateor_training_model.train_on_batch(batch, [ignored, ignored])
        gan.generator_model.trainable, gan.discriminateor_model.trainable = True, False
        gan.generator_training_model.train_on_batch(random.choice(noise), ignored)


def seconds_per_epoch(way, gan, samples, epochs, batch_size):
    start = time.perf_counter()
    way(gan, samples, epochs, batch_size)
    return (time.perf_counter() - start) / epochs


def main():
    print("| batch size | this project | `train_on_batch` | the first epoch, compiling |")
    print("| ---: | ---: | ---: | ---: |")
    for batch_size in (32, 256, 4096):
        samples = demo_gan.make_samples(20 * batch_size, seed=0)
        ways = [(train, demo_gan.make_gan()), (train_on_batch, demo_gan.make_gan())]
        first, _ = [seconds_per_epoch(*way, samples, 1, batch_size) for way in ways]
        epochs = [
            round(SECONDS / seconds_per_epoch(*way, samples, 3, batch_size)) + 1 for way in ways
        ]
        rounds = [
            [seconds_per_epoch(*way, samples, n, batch_size) for way, n in zip(ways, epochs)]
            for _ in range(ROUNDS)
        ]
        ours, literal = (1000 * statistics.median(times) for times in zip(*rounds))
        ratio = f"{literal:.1f} ms ({literal / ours:.1f}x)"
        print(f"| {batch_size} | {ours:.2f} ms | {ratio} | {first:.1f} s |", flush=True)


if __name__ == "__main__":
    main()
