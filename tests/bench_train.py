"""How fast an epoch is, beside the same GAN trained in other ways and beside the arithmetic.

    python tests/bench_train.py

prints a table in about a minute. Times are medians over rounds that take turns, so that a noisy
machine is noisy for all; compare the ratios.
"""

import os
import pathlib
import random
import resource
import statistics
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the arithmetic's rate is that of one thread
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

import demo_gan

STEP_PER, NOISE_DIM, ROUNDS = 20, 4, 5
SECONDS = 0.4  # of each way in each round


def flop_per_epoch(batch_size):
    """Floating-point operations of the matrix products of an epoch, forward and backward."""
    generator = [NOISE_DIM * 200, 200 * 100, 100 * 50, 50]
    discriminator = [200, 200 * 50]
    g, d = sum(generator), sum(discriminator)
    d_update = g + 2 * d + 2 * d + 2 * discriminator[1]  # forward; by weights; by inputs
    g_update = g + d + d + g + sum(generator[1:])
    results = g + d
    return 2 * batch_size * (STEP_PER * d_update + g_update + results)


def matmul_seconds(size=512):
    """Seconds per floating-point operation of one thread multiplying matrices."""
    a = np.random.default_rng(0).random((size, size), "float32")
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    return (time.perf_counter() - start) / 10 / (2 * size**3)


class TrainOnBatch:
    """The literal translation: a call of Keras for each update and each result."""

    def __init__(self, samples, batch_size):
        self.gan, self.batch_size = demo_gan.make_gan(NOISE_DIM), batch_size
        self.noise, self.real = (rows.reshape(-1, batch_size, rows.shape[1]) for rows in samples)
        self.ignored = np.zeros((batch_size, 1), "float32")

    def train(self, epochs):
        gan, last = self.gan, len(self.noise) - 1
        discriminator, generator = gan.discriminateor_training_model, gan.generator_training_model
        for _ in range(epochs):
            with demo_gan.frozen(gan._gen_layers):
                for _ in range(STEP_PER):
                    x = self.noise[random.randint(0, last)]
                    y = self.real[random.randint(0, last)]
                    discriminator.train_on_batch([y, x], [self.ignored, self.ignored])
            x = self.noise[random.randint(0, last)]
            with demo_gan.frozen(gan._discr_layers):
                generator.train_on_batch(x, self.ignored)
            gan.discriminateor_model.predict_on_batch(gan.generator_model.predict_on_batch(x))


class Compiled:
    """This project's way, with XLA or without."""

    def __init__(self, samples, batch_size, xla):
        self.gan, self.batch_size = demo_gan.make_gan(NOISE_DIM), batch_size
        self.gan.generator_model.layers[1].supports_jit = xla
        self.samples = {"x": samples[0], "y": samples[1]}

    def train(self, epochs):
        self.gan.train(self.samples, epochs, self.batch_size, STEP_PER)


def seconds(way, epochs):
    start = time.perf_counter()
    way.train(epochs)
    return (time.perf_counter() - start) / epochs


def measure(batch_size, batches):
    samples = tuple(demo_gan.make_samples(batch_size * batches, NOISE_DIM, seed=0).values())
    ways = [
        Compiled(samples, batch_size, xla=True),
        Compiled(samples, batch_size, xla=False),
        TrainOnBatch(samples, batch_size),
    ]
    compile_seconds, *_ = [seconds(way, 1) for way in ways]
    epochs = [max(2, round(SECONDS / seconds(way, 2))) for way in ways]
    rounds = [
        [matmul_seconds() * flop_per_epoch(batch_size)]
        + [seconds(way, count) for way, count in zip(ways, epochs, strict=True)]
        for _ in range(ROUNDS)
    ]
    floor, *times = (1000 * statistics.median(column) for column in zip(*rounds, strict=True))
    return compile_seconds, floor, times


def main():
    print("| batch | this project | the arithmetic | without XLA | `train_on_batch` | compile |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for batch_size, batches in ((32, 100), (256, 100), (4096, 20)):
        compile_seconds, floor, (ours, plain, literal) = measure(batch_size, batches)
        others = [f"{time:.2f} ms ({time / ours:.2f}x)" for time in (floor, plain, literal)]
        row = [str(batch_size), f"{ours:.2f} ms", *others, f"{compile_seconds:.1f} s"]
        print("|", " | ".join(row), "|", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    million = flop_per_epoch(32) / 1e6
    print(f"\nPer epoch of {STEP_PER} updates of D and one of G, {million:.0f} million")
    print(f"floating-point operations at batch 32. Peak memory {peak:.0f} MB.")


if __name__ == "__main__":
    main()
