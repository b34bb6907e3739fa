"""Kill processes that save, each at another moment, and load what they leave."""

import os
import pathlib
import random
import shutil
import signal
import time

import demo_gan

gan = demo_gan.make_gan()
generator, discriminator = gan.generator_model, gan.discriminateor_model
models = pathlib.Path("models")
last_file = models / "gan_discriminateor.h5"
gan.save_model(models)
for _ in range(12):
    before = last_file.stat().st_mtime_ns
    child = os.fork()
    if child == 0:
        number = 0
        while True:  # the biases show which save a file is of
            number += 1
            for network in (generator, discriminator):
                bias = network.weights[-1]
                bias.assign(0 * bias + number)
            gan.save_model(models)
    while last_file.stat().st_mtime_ns == before:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    gan.load_model(models)
    left = [path for path in models.iterdir() if path.suffix != ".h5"]
    if float(generator.weights[-1][0]) != float(discriminator.weights[-1][0]):
        # Nothing puts two files in place at once, but both were whole before.
        discriminator.load_weights(left[0] / "gan_discriminateor.h5")
        assert float(generator.weights[-1][0]) == float(discriminator.weights[-1][0])
    for path in left:
        assert path.name.startswith(".gan_unfinished_"), left
        shutil.rmtree(path)
