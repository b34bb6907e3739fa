"""What the tests share: small GANs, the program as a process, a display of their own.

pytest also imports this file before it starts the worker processes. Imports that take seconds
therefore stand inside the functions.
"""

import contextlib
import gc
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
DATA = pathlib.Path(__file__).parent / "data"
LIMIT = 600  # seconds; ends a test that hangs, and never one on a slow machine

# The tests send these signals. A pytest in the background may have inherited that they are ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# No window opens on the screen of whoever runs the tests.
for variable in ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND"):
    os.environ.pop(variable, None)


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, so that no process is left with one at the end."""
    long = ["readme", "command", "look", "model", "saving"]
    ranks = {f"test_{name}.py": rank for rank, name in enumerate(long)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(long)))


def pytest_collection_finish():
    """Keep the garbage collector from scanning the imported modules: this saves a sixth."""
    gc.freeze()


def uncompiled(in_generator=(), in_discriminator=(), noise_dim=2, signal_dim=1):
    """Return a GAN of these layers and a last one in each network."""
    from keras import layers

    import demo_gan

    gan = demo_gan.GANModel([signal_dim, noise_dim])
    for layer in [*in_generator, layers.Dense(signal_dim)]:
        gan.add_gen_layer(layer)
    for layer in [*in_discriminator, layers.Dense(1, activation="sigmoid")]:
        gan.add_discr_layer(layer)
    return gan


def compile_both(gan, *arguments):
    gan.compile_generator_model(*arguments)
    gan.compile_discriminateor_model(*arguments)
    return gan


def small_gan(noise_dim=2, signal_dim=1, optimizer="sgd"):
    """Return a compiled GAN that compiles and trains fast."""
    from keras import layers

    first, second = (layers.Dense(8, activation="relu") for _ in range(2))
    return compile_both(uncompiled([first], [second], noise_dim, signal_dim), optimizer)


def small_samples(rows=40, noise_dim=2, signal_dim=1, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.uniform(-3, 3, (rows, noise_dim)),
        "y": rng.standard_normal((rows, signal_dim)),
    }


def weights(*networks):
    """Return copies of all weights of models or layers."""
    return [np.array(weight) for network in networks for weight in network.get_weights()]


def all_weights(gan):
    return weights(gan.generator_model, gan.discriminateor_model)


def both_optimizers(gan):
    return [gan.generator_training_model.optimizer, gan.discriminateor_training_model.optimizer]


def optimizer_values(gan):
    return [value.numpy() for one in both_optimizers(gan) for value in one.variables]


def everything(gan):
    """Return copies of the weights and of what the optimizers have learned, and the flags."""
    flags = [weight.trainable for weight in gan.discriminateor_training_model.weights]
    return [*all_weights(gan), *optimizer_values(gan), flags]


def assert_not_loaded(gan, folder, named):
    """Loading is an error of one line that names the file, and the GAN is as it was."""
    before = everything(gan)
    with pytest.raises(OSError, match=rf"^.*{named}.*$"):
        gan.load_model(folder)
    assert same(before, everything(gan))


def averaging():
    from keras import optimizers

    return optimizers.AdamW(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=5)


def scaled():
    from keras import optimizers

    return optimizers.LossScaleOptimizer(averaging(), dynamic_growth_steps=3)


def steps_taken(gan):
    return [int(optimizer.iterations) for optimizer in both_optimizers(gan)]


SAMPLES = small_samples()
SETTINGS = {"epoch": 2, "batch_size": 8, "step_per": 3}


def train(gan, samples=SAMPLES, **settings):
    return gan.train(samples, **{**SETTINGS, **settings})


def train_on(gan, samples=SAMPLES):
    """Train with the same draws every time; returns the weights."""
    random.seed(5)
    train(gan, samples)
    return all_weights(gan)


def contents(folder):
    """Return the name of each file in a folder, with a hash of what it holds."""
    return {path.name: hash(path.read_bytes()) for path in folder.iterdir()}


def moved(before, after):
    """Return which arrays have changed."""
    return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]


def same(before, after):
    return not any(moved(before, after))


def assert_close(ours, others):
    """TensorFlow may add in another order."""
    for one, other in zip(ours, others, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def use_single_precision():
    import keras

    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def every_test_starts_from_one_seed():
    import keras

    use_single_precision()
    keras.utils.set_random_seed(0)
    yield
    use_single_precision()  # a fixture of a whole module is made before this one


_started = []


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    signal.alarm(LIMIT)  # ends the process, whatever it hangs in
    yield
    signal.alarm(0)
    for process in _started:
        if process.poll() is None:
            process.kill()
            process.communicate()
    _started.clear()


def start(*arguments, **options):
    """Start a Python process that can import what tests can; None in `env` unsets a variable."""
    folders = [str(ROOT), str(DATA.parent), os.environ.get("PYTHONPATH")]
    path = os.pathsep.join(filter(None, folders))
    environment = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
    environment = {key: value for key, value in environment.items() if value is not None}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, *map(str, arguments)]
    process = subprocess.Popen(command, env=environment, **{**streams, **options})
    _started.append(process)
    return process


def start_demo(*arguments, **options):
    return start(ROOT / "demo_gan.py", *arguments, **options)


def finish(process, timeout=LIMIT):
    """Wait for a process to end; returns its status, standard output and standard error."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def wait_for(condition, process, timeout=LIMIT):
    """Wait for something that a running process brings about."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def limit_files(size=None):
    """Let files grow to so many bytes; beyond, writing fails as it does on a full disk."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    if size is None:
        size = most
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))


def needs(*tools):
    """Skip a test whose tools are not installed; in CI they must be."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing and "CI" not in os.environ:
        pytest.skip(f"needs {' and '.join(missing)}")
    assert not missing


def with_graphs(status):
    """Return the status of a run with -log: its graphs fail where there is no Graphviz."""
    return status if shutil.which("dot") else 1


@contextlib.contextmanager
def virtual_display():
    """Yield a new display, `(":number", process)`, that ends with the context."""
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1000x700x24"]
    process = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        display = f":{pipe.readline().strip()}"
    try:
        yield display, process
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a folder in which a notebook's command ran the program for 20 epochs with seed 0."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["-e", "20", "-s", "0", "-log", "log", "-gif", "training.gif"]
    env = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # as there
    status, out, err = finish(start_demo(*options, cwd=folder, env=env))
    assert status == with_graphs(0), err
    (folder / "stdout.txt").write_text(out)
    (folder / "stderr.txt").write_text(err)
    return folder


@pytest.fixture
def models(trained, tmp_path):
    """Return a folder with a fresh copy of trained models."""
    return pathlib.Path(shutil.copytree(trained / "models", tmp_path / "models"))
