"""How long a short run takes, and how fast an epoch of a long one is.

    python tests/bench_train.py

prints two tables in less than a minute: whole commands beside a process that only imports what
they import, and epochs beside those of the same GAN trained with Keras's `train_on_batch`. Times
are medians over rounds that take turns, so that a noisy machine is noisy for all; compare the
ratios. Only first epochs are measured once.
"""

import gc
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
BATCH_SIZES = 32, 256, 4096
STEP_PER = 20
SECONDS = 0.15  # of each way in each round
ROUNDS = 3
COMMANDS = {
    "the imports alone": ["-c", "import keras, matplotlib.pyplot, numpy, PIL, tensorflow"],
    "`demo_gan.py -e 10`": [ROOT / "demo_gan.py", "-e", "10"],
    "`demo_gan.py -e 200`": [ROOT / "demo_gan.py", "-e", "200"],
}


def run(arguments, folder):
    """Run a Python process without a window; returns its seconds and MB of memory, 0 if unknown."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "MPLBACKEND": "agg"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start, memory = time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, **quiet)
    if hasattr(os, "wait4"):  # Windows does not tell the memory
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    if process.wait() != 0:
        raise RuntimeError(f"{arguments} ended with status {process.returncode}")
    return time.perf_counter() - start, memory


def print_short_runs():
    with tempfile.TemporaryDirectory() as folder:
        rounds = [[run(command, folder) for command in COMMANDS.values()] for _ in range(ROUNDS)]
    print("| a whole process | time | beside the imports | peak memory |")
    print("| --- | ---: | ---: | ---: |")
    medians = [[statistics.median(values) for values in zip(*runs)] for runs in zip(*rounds)]
    for name, (seconds, memory) in zip(COMMANDS, medians):
        ratio = seconds / medians[0][0]
        peak = f"{memory:.0f} MB" if memory else "n/a"
        print(f"| {name} | {seconds:.1f} s | {ratio:.2f}x | {peak} |", flush=True)


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


def print_long_runs(demo_gan):
    print("| batch size | this project | `train_on_batch` | the first epoch, compiling |")
    print("| ---: | ---: | ---: | ---: |")
    ways = [(train, demo_gan.make_gan()), (train_on_batch, demo_gan.make_gan())]
    for _, gan in ways:  # they go on as if they had been trained for long
        iterations = gan.discriminateor_training_model.optimizer.iterations
        iterations.assign(demo_gan.UPDATES_FOR_XLA)
    for batch_size in BATCH_SIZES:
        samples = demo_gan.make_samples(20 * batch_size, seed=0)
        first, _ = [seconds_per_epoch(*way, samples, 1, batch_size) for way in ways]
        second = [seconds_per_epoch(*way, samples, 1, batch_size) for way in ways]
        epochs = [round(SECONDS / seconds) + 1 for seconds in second]
        rounds = [
            [seconds_per_epoch(*way, samples, n, batch_size) for way, n in zip(ways, epochs)]
            for _ in range(ROUNDS)
        ]
        ours, literal = (1000 * statistics.median(times) for times in zip(*rounds))
        ratio = f"{literal:.1f} ms ({literal / ours:.1f}x)"
        print(f"| {batch_size} | {ours:.2f} ms | {ratio} | {first:.1f} s |", flush=True)


def main():
    print_short_runs()
    import demo_gan  # not before: a process counts the memory of the one that starts it as its own

    gc.freeze()  # as the program does
    start = time.perf_counter()
    train(demo_gan.make_gan(), demo_gan.make_samples(3200), 1, 32)
    first = time.perf_counter() - start
    print(f"\nFrom the end of its imports to the end of its first epoch: {first:.1f} s.\n")
    print_long_runs(demo_gan)


if __name__ == "__main__":
    main()
