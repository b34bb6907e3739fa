"""How long a short run takes, and how fast the epochs of a long one are.

    python tests/bench_train.py

prints two tables in about a minute. The first times whole commands beside a process that only
imports what they import. The second times epochs beside those of the same GAN trained with Keras's
`train_on_batch`. Times are medians over rounds, and in each round everything takes its turn, so
that a busy machine is busy for all: compare the ratios. Only first epochs are measured once.
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
BATCH_SIZES = [32, 256, 4096]
STEP_PER = 20
SECONDS = 0.15  # how long each way trains in each round
ROUNDS = 3
COMMANDS = {
    "the imports alone": ["-c", "import keras, matplotlib.pyplot, numpy, PIL, tensorflow"],
    "`demo_gan.py -e 10`": [ROOT / "demo_gan.py", "-e", "10"],
    "`demo_gan.py -e 200`": [ROOT / "demo_gan.py", "-e", "200"],
}


def run(arguments, folder):
    """Run a Python process without a window; return its seconds and its peak memory as text."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "MPLBACKEND": "agg"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, **quiet)
    memory = "unknown"
    if hasattr(os, "wait4"):  # Windows has no such call
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        unit = 1 if sys.platform == "darwin" else 1024  # bytes
        memory = f"{used.ru_maxrss * unit / 1e6:.0f} MB"
    if process.wait() != 0:
        raise RuntimeError(f"{arguments} ended with status {process.returncode}")
    return time.perf_counter() - start, memory


def print_commands():
    times = {name: [] for name in COMMANDS}
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for name, arguments in COMMANDS.items():
                seconds, peaks[name] = run(arguments, folder)
                times[name].append(seconds)
    imports = statistics.median(times["the imports alone"])
    print("| a whole process | time | beside the imports | peak memory |")
    print("| --- | ---: | ---: | ---: |")
    for name in COMMANDS:
        seconds = statistics.median(times[name])
        print(f"| {name} | {seconds:.1f} s | {seconds / imports:.2f}x | {peaks[name]} |")


def train(gan, samples, epochs, batch_size):
    """Train as this project does: whole epochs, compiled."""
    gan.train(samples, epochs, batch_size, STEP_PER)


def train_on_batch(gan, samples, epochs, batch_size):
    """Train as a literal translation does: one call of Keras for each update."""
    noise = samples["x"].reshape(-1, batch_size, gan.noise_dim)
    real = samples["y"].reshape(-1, batch_size, gan.signal_dim)
    ignored = np.zeros((batch_size, 1))
    for _ in range(epochs):
        gan.generator_model.trainable = False
        gan.discriminateor_model.trainable = True
        for _ in range(STEP_PER):
            batch = [random.choice(real), random.choice(noise)]
            gan.discriminateor_training_model.train_on_batch(batch, [ignored, ignored])
        gan.generator_model.trainable = True
        gan.discriminateor_model.trainable = False
        gan.generator_training_model.train_on_batch(random.choice(noise), ignored)


def seconds_per_epoch(way, gan, samples, epochs, batch_size):
    start = time.perf_counter()
    way(gan, samples, epochs, batch_size)
    return (time.perf_counter() - start) / epochs


def print_epochs(demo_gan):
    gans = {train: demo_gan.make_gan(), train_on_batch: demo_gan.make_gan()}
    demo_gan.UPDATES_FOR_XLA = 0  # as in a long training
    print("| batch size | this project | `train_on_batch` | the first epoch, compiling |")
    print("| ---: | ---: | ---: | ---: |")
    for batch_size in BATCH_SIZES:
        samples = demo_gan.make_samples(20 * batch_size, seed=0)
        first = {}
        epochs = {}
        times = {way: [] for way in gans}
        for way, gan in gans.items():
            first[way] = seconds_per_epoch(way, gan, samples, 1, batch_size)
            second = seconds_per_epoch(way, gan, samples, 1, batch_size)
            epochs[way] = round(SECONDS / second) + 1
        for _ in range(ROUNDS):
            for way, gan in gans.items():
                times[way].append(seconds_per_epoch(way, gan, samples, epochs[way], batch_size))
        ours, literal = (1000 * statistics.median(times[way]) for way in gans)
        ratio = f"{literal:.1f} ms ({literal / ours:.1f}x)"
        print(f"| {batch_size} | {ours:.2f} ms | {ratio} | {first[train]:.1f} s |")


def main():
    print_commands()
    # Not imported before: a process that is started counts the memory of its parent as its own.
    import demo_gan

    gc.freeze()  # as the program does
    start = time.perf_counter()
    train(demo_gan.make_gan(), demo_gan.make_samples(3200), 1, 32)
    seconds = time.perf_counter() - start
    print(f"\nFrom the end of the imports to the end of the first epoch: {seconds:.1f} s.\n")
    print_epochs(demo_gan)


if __name__ == "__main__":
    main()
