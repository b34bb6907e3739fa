"""What the tests share: small GANs, the article's recordings, the program as a process.

pytest reads this file once more before it starts the processes that run the tests: what takes
seconds to import is imported in the functions.
"""

import contextlib
import gc
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# When pytest runs in the background signals may be ignored that are to be heard here.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
DATA = pathlib.Path(__file__).parent / "data"


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest: they are shared out over the processors."""
    ranks = {"test_readme.py": 1, "test_command.py": 2, "test_pictures.py": 3}
    items.sort(key=lambda item: ranks.get(item.path.name, 4))


def pytest_collection_finish():
    """As the program does when all is imported: the tests take a sixth less."""
    gc.freeze()


def small_gan(noise_dim=2, signal_dim=1, optimizer="sgd"):
    """A compiled GAN that compiles and trains fast."""
    from keras import layers

    import demo_gan

    gan = demo_gan.GANModel([signal_dim, noise_dim])
    gan.add_gen_layer(layers.Dense(8, activation="relu"))
    gan.add_gen_layer(layers.Dense(signal_dim))
    gan.add_discr_layer(layers.Dense(8, activation="relu"))
    gan.add_discr_layer(layers.Dense(1, activation="sigmoid"))
    gan.compile_generator_model(optimizer)
    gan.compile_discriminateor_model(optimizer)
    return gan


def small_samples(rows=40, noise_dim=2, signal_dim=1, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.uniform(-3, 3, (rows, noise_dim)),
        "y": rng.standard_normal((rows, signal_dim)),
    }


def weights(*networks):
    """Copies of all weights of models or layers."""
    return [np.array(weight) for network in networks for weight in network.get_weights()]


def contents(folder):
    """Each file's name, and a hash that tells if anything was changed."""
    return {path.name: hash(path.read_bytes()) for path in folder.iterdir()}


def same(before, after):
    return all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.fixture(autouse=True)
def every_test_starts_from_one_seed():
    import keras

    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)


_started = []


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    yield
    for process in _started:
        if process.poll() is None:
            process.kill()
            process.communicate()
    _started.clear()


def start(*arguments, **options):
    """Start a Python process that can import the project; None in `env` unsets a variable."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
    environment = {key: value for key, value in environment.items() if value is not None}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], env=environment, **{**streams, **options}
    )
    _started.append(process)
    return process


def start_demo(*arguments, **options):
    return start(ROOT / "demo_gan.py", *arguments, **options)


def finish(process, timeout=120):
    """Wait for a process; returns its status, standard output and standard error."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def wait_for(condition, process, timeout=60):
    """Wait until a running process has brought something about."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def needs(*tools):
    """Skip a test whose tools are not installed; in CI they must be."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing and "CI" not in os.environ:
        pytest.skip(f"needs {' and '.join(missing)}")
    assert not missing


def with_graphs(status):
    """The status of a run with -log, which draws graphs: 1 where there is no Graphviz."""
    return status if shutil.which("dot") else 1


@contextlib.contextmanager
def virtual_display():
    """A display of its own, `(":number", process)`, that ends with the context."""
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1000x700x24"]
    process = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        display = f":{pipe.readline().strip()}"
    yield display, process
    process.terminate()
    process.wait()


@pytest.fixture
def no_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder in which the demo has run for 20 epochs with seed 0, headless."""
    folder = tmp_path_factory.mktemp("trained")
    options = ["-e", "20", "-s", "0", "-log", "log", "-gif", "training.gif"]
    process = start_demo(*options, cwd=folder, env={"DISPLAY": ""})
    status, out, err = finish(process)
    assert status == with_graphs(0), err
    (folder / "stdout.txt").write_text(out)
    (folder / "stderr.txt").write_text(err)
    return folder


@pytest.fixture
def models(trained, tmp_path):
    """A fresh copy of trained models."""
    return pathlib.Path(shutil.copytree(trained / "models", tmp_path / "models"))
