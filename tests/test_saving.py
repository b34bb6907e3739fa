"""Saved models load anywhere, are never damaged, and nothing in a file acts."""

import base64
import contextlib
import json
import logging
import marshal
import math
import os
import pathlib
import random
import shutil
import sys

import h5py
import keras
import numpy as np
import pytest
from conftest import (
    DATA,
    all_weights,
    assert_close,
    averaging,
    both_optimizers,
    compile_both,
    contents,
    finish,
    limit_files,
    same,
    scaled,
    start,
    steps_taken,
    train_on,
    uncompiled,
    weights,
)
from keras import layers

import demo_gan

GENERATOR = "gan_generator.h5"
DISCRIMINATOR = "gan_discriminateor.h5"
ARTICLE = DATA / "article_models"
NOISE = np.linspace(-1, 1, 20).reshape(5, 4)
TWO = NOISE[:, :2]
SIGNAL = np.linspace(-1, 1, 5).reshape(5, 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The article's GAN, trained for an epoch and saved, and the folder."""
    folder = tmp_path_factory.mktemp("source")
    gan = demo_gan.make_gan()
    gan.train(demo_gan.make_samples(64), epoch=1, batch_size=32, step_per=2)
    gan.save_model(folder)
    return gan, folder


@pytest.fixture
def saved(source, tmp_path):
    """A fresh copy of the saved files."""
    return pathlib.Path(shutil.copytree(source[1], tmp_path / "saved"))


@pytest.fixture(scope="module")
def compiled():
    gan = demo_gan.make_gan()
    return gan, gan.generator_training_model.get_weights()


@pytest.fixture
def gan(compiled):
    """The article's GAN, with weights that are in none of the files."""
    gan, initial = compiled
    gan.generator_training_model.set_weights(initial)
    return gan


def assert_refused(gan, folder, named):
    """Loading is an error of one line that names the file, and the GAN is as it was."""
    before = all_weights(gan)
    with pytest.raises(OSError, match=rf"^.*{named}.*$"):
        gan.load_model(folder)
    assert same(before, all_weights(gan))


# -- loading what was saved ---------------------------------------------------------------

PLAIN_KERAS = """
import json, keras, numpy, sys
generator = keras.models.load_model("gan_generator.h5")
discriminator = keras.models.load_model("gan_discriminateor.h5")
assert "demo_gan" not in sys.modules
noise = numpy.linspace(-1, 1, 20).reshape(5, 4)
signal = numpy.linspace(-1, 1, 5).reshape(5, 1)
print(json.dumps([generator(noise).numpy().tolist(), discriminator(signal).numpy().tolist()]))
"""


def test_plain_keras_loads_both_files_without_a_warning(source):
    gan, folder = source
    strict = ["-W", "error", "-W", "ignore::DeprecationWarning:keras"]
    status, out, err = finish(start(*strict, "-c", PLAIN_KERAS, cwd=folder))
    assert status == 0, err
    generated, probability = json.loads(out)
    np.testing.assert_allclose(generated, gan.generator_model(NOISE), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(probability, gan.discriminateor_model(SIGNAL), rtol=1e-5)


def test_a_gan_takes_the_weights_exactly_and_says_nothing(gan, source, caplog):
    caplog.set_level(logging.INFO)
    gan.load_model(source[1])
    assert same(all_weights(gan), all_weights(source[0]))
    assert not caplog.records


def test_article_era_files_compute_what_the_article_computed(gan):
    expected = np.load(ARTICLE / "expected.npz")
    gan.load_model(ARTICLE)
    generated = gan.generator_model(expected["noise"])
    probability = gan.discriminateor_model(expected["signal"])
    np.testing.assert_allclose(generated, expected["generated"], atol=1e-6)
    np.testing.assert_allclose(probability, expected["probability"], atol=1e-6)


def test_layers_of_any_kind_load_before_they_are_compiled(tmp_path):
    def build():
        doubled = layers.Lambda(lambda t: 2 * t)
        nested = keras.Sequential([layers.Dense(3), layers.BatchNormalization()])
        return uncompiled([doubled, nested, layers.Dropout(0.5)])

    gan = build()
    other = build()
    gan.save_model(tmp_path)
    other.load_model(tmp_path)
    assert same(all_weights(gan), all_weights(other))
    compile_both(other, "sgd")
    assert same(all_weights(gan), all_weights(other))


@pytest.mark.parametrize("flags", [(False, True), (True, False), (False, False)])
def test_weights_get_into_their_layers_whatever_is_frozen(tmp_path, flags):
    def build(first, second):
        steps = [layers.Dense(2, trainable=first), layers.BatchNormalization()]
        steps.append(layers.Dense(2, trainable=second))
        return uncompiled([keras.Sequential(steps)])

    gan = build(True, True)
    other = build(*flags)
    expected = gan.generator_model(TWO)
    trainable = len(other.generator_model.trainable_weights)
    gan.save_model(tmp_path)
    other.load_model(tmp_path)
    assert len(other.generator_model.trainable_weights) == trainable
    np.testing.assert_allclose(other.generator_model(TWO), expected, rtol=1e-6)
    other.save_model(tmp_path)
    plain = keras.models.load_model(tmp_path / GENERATOR)
    np.testing.assert_allclose(plain(TWO), expected, rtol=1e-6)
    gan.load_model(tmp_path)
    np.testing.assert_allclose(gan.generator_model(TWO), expected, rtol=1e-6)


POLICIES = ["float64", "float16", "mixed_float16", "mixed_bfloat16"]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_dtype_policy_that_trains_loads_what_it_saved(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    gan = compile_both(uncompiled(), "adam")
    gan.save_model(tmp_path)
    other = compile_both(uncompiled(), "adam")
    other.load_model(tmp_path)
    assert same(all_weights(gan), all_weights(other))
    assert same(optimizer_values(gan), optimizer_values(other))
    plain = keras.models.load_model(tmp_path / GENERATOR)
    assert same(weights(gan.generator_model), weights(plain))


def test_weights_that_no_file_can_hold_are_refused_before_training():
    keras.config.set_dtype_policy("bfloat16")
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        compile_both(uncompiled(), "adam")


def test_files_of_two_saves_load_and_one_line_says_so(gan, source, saved, tmp_path, caplog):
    draws = random.getstate()
    gan.save_model(tmp_path)
    assert random.getstate() == draws  # a save changes no later batch
    shutil.copy(tmp_path / DISCRIMINATOR, saved)
    expected = weights(source[0].generator_model, gan.discriminateor_model)
    caplog.set_level(logging.INFO)
    gan.load_model(saved)
    assert same(expected, all_weights(gan))
    assert len(caplog.messages) == 1
    assert "different saves" in caplog.messages[0]


# -- optimizers go on where they were -----------------------------------------------------


def momentum():
    return keras.optimizers.SGD(0.05, momentum=0.9)


def optimizer_values(gan):
    return [value.numpy() for one in both_optimizers(gan) for value in one.variables]


MAKES = [
    keras.optimizers.Adam,
    keras.optimizers.Nadam,
    keras.optimizers.RMSprop,
    momentum,
    averaging,
    scaled,
]


@pytest.mark.parametrize("make", MAKES)
def test_a_loaded_gan_goes_on_as_if_it_had_not_stopped(tmp_path, make):
    gan = compile_both(uncompiled(), make())
    train_on(gan)
    gan.save_model(tmp_path)
    other = compile_both(uncompiled(), make())
    other.load_model(tmp_path)
    assert same(optimizer_values(gan), optimizer_values(other))
    assert_close(train_on(gan), train_on(other))


@pytest.fixture(scope="module")
def adam(tmp_path_factory):
    """A GAN that Adam trained, the folder in which it is saved, its weights some epochs later."""
    folder = tmp_path_factory.mktemp("adam")
    gan = compile_both(uncompiled(), keras.optimizers.Adam(0.01))
    train_on(gan)
    gan.save_model(folder)
    return gan, folder, train_on(gan)


def test_a_trained_gan_takes_the_state_more_than_once(adam):
    gan, folder, expected = adam
    for _ in range(2):
        gan.load_model(folder)
        assert_close(train_on(gan), expected)


def test_the_state_waits_until_the_models_are_compiled(adam, tmp_path):
    _, folder, expected = adam
    other = uncompiled()
    other.load_model(folder)
    other.save_model(tmp_path)
    gan = uncompiled()
    gan.load_model(tmp_path)
    compile_both(gan, keras.optimizers.Adam(0.01))
    assert_close(train_on(gan), expected)
    compile_both(gan, "adam")
    assert steps_taken(gan) == [0, 0]


def test_the_learning_rate_is_the_one_compiled_with(adam):
    _, folder, _ = adam
    gan = compile_both(uncompiled(), keras.optimizers.Adam(0.001))
    gan.load_model(folder)
    assert steps_taken(gan) == [2, 6]
    assert float(both_optimizers(gan)[0].learning_rate) == pytest.approx(0.001)


@pytest.mark.parametrize("make", [keras.optimizers.RMSprop, scaled])
def test_the_state_of_another_optimizer_leaves_a_fresh_one(adam, caplog, make):
    caplog.set_level(logging.INFO)
    gan = compile_both(uncompiled(), make())
    train_on(gan)
    gan.load_model(adam[1])
    assert caplog.messages
    assert all("afresh" in message for message in caplog.messages)
    assert steps_taken(gan) == [0, 0]
    train_on(gan)


def test_a_state_that_is_not_finite_is_left_out_of_a_save(tmp_path):
    gan = compile_both(uncompiled(), "adam")
    train_on(gan)
    for optimizer in both_optimizers(gan):
        velocity = optimizer.variables[-1]
        velocity.assign(velocity * np.nan)
    gan.save_model(tmp_path)
    gan.load_model(tmp_path)
    assert steps_taken(gan) == [0, 0]


def test_files_without_a_state_leave_a_fresh_optimizer(gan, source, caplog):
    gan.load_model(source[1])
    assert steps_taken(gan) == [1, 2]
    caplog.set_level(logging.INFO)
    gan.load_model(ARTICLE)
    assert steps_taken(gan) == [0, 0]
    assert caplog.messages
    assert all("afresh" in message for message in caplog.messages)


# -- files that are not right -------------------------------------------------------------


def not_finite(path):
    model = keras.models.load_model(path)
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    model.save(path)


def missing(path):
    path.unlink()


def folder(path):
    path.unlink()
    path.mkdir()


def random_bytes(path):
    path.write_bytes(np.random.default_rng(0).bytes(10_000))


def something_else(path):
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(5)


def other_shapes(path):
    keras.Sequential([keras.Input((7,)), layers.Dense(1)]).save(path)


def state_not_finite(path):
    with h5py.File(path, "r+") as file:
        state = file["optimizer_weights"]
        largest = max(state.values(), key=lambda values: values.size)
        largest[...] = np.nan


WRONG = [not_finite, state_not_finite, missing, folder, random_bytes, something_else, other_shapes]


@pytest.mark.parametrize("file", [GENERATOR, DISCRIMINATOR])
@pytest.mark.parametrize("spoil", WRONG)
def test_a_wrong_file_is_named(gan, saved, file, spoil):
    spoil(saved / file)
    assert_refused(gan, saved, file)


@pytest.mark.parametrize("file", [GENERATOR, DISCRIMINATOR])
@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.9999])
def test_a_truncated_file_is_named(gan, saved, file, share):
    whole = (saved / file).read_bytes()
    (saved / file).write_bytes(whole[: int(share * len(whole))])
    assert_refused(gan, saved, file)


def lambda_of_byte_code(config, marker):
    """A layer that runs code of Python's."""
    source = f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]"
    code = base64.b64encode(marshal.dumps(compile(source, "", "eval").co_consts[0])).decode()
    function = {"class_name": "__lambda__", "config": {"code": code, "defaults": None}}
    layer = {"class_name": "Lambda", "config": {"name": "crafted", "function": function}}
    config["config"]["layers"].append(layer)
    return config


def call_of_keras(config, marker):
    """A model that has Keras call a function while it is loaded."""
    name = "plot_model"
    function = {"class_name": "function", "module": "keras.utils", "config": name}
    function["registered_name"] = name
    node = {"args": [0, [function], config, str(marker)], "kwargs": {}}
    operation = {"class_name": "Switch", "module": "keras.src.ops.core", "config": {"name": "s"}}
    steps = [{**operation, "registered_name": "Switch", "name": "s", "inbound_nodes": [node]}]
    network = {"name": "m", "layers": steps, "input_layers": [], "output_layers": [["s", 0, 0]]}
    return {"class_name": "Functional", "module": "keras", "config": network}


@pytest.mark.parametrize("file", [GENERATOR, DISCRIMINATOR])
@pytest.mark.parametrize("attack", [lambda_of_byte_code, call_of_keras])
def test_nothing_acts_in_a_crafted_file(gan, source, saved, file, attack, tmp_path):
    marker = tmp_path / "marker.png"
    with h5py.File(saved / file, "r+") as opened:
        config = json.loads(opened.attrs["model_config"])
        opened.attrs["model_config"] = json.dumps(attack(config, marker))
    gan.load_model(saved)
    assert same(all_weights(gan), all_weights(source[0]))
    with pytest.raises(ValueError, match="layers"):
        demo_gan.GANModel([1, 4]).load_model(saved)
    assert not marker.exists()


def python_calls(work, limit=math.inf):
    """Call a function, with Ctrl-C at a certain call of Python within; returns the calls."""
    count = 0

    def at_call(frame, event, argument):
        nonlocal count
        count += event == "call"
        if count > limit:
            sys.setprofile(None)
            raise KeyboardInterrupt

    with contextlib.suppress(BaseException):  # C code may make another error of Ctrl-C
        sys.setprofile(at_call)
        try:
            work()
        finally:
            sys.setprofile(None)
    return count


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_while_it_loads_leaves_old_weights_or_new_ones(gan, source):
    def load():
        gan.load_model(source[1])

    before = all_weights(gan)
    calls = python_calls(load)
    after = all_weights(gan)
    for moment in range(0, calls, calls // 40):
        gan.generator_model.set_weights(before[:8])
        gan.discriminateor_model.set_weights(before[8:])
        python_calls(load, moment)
        assert same(all_weights(gan), before) or same(all_weights(gan), after)


# -- saving never damages what was there --------------------------------------------------


def test_saving_makes_the_folder_leaves_two_files_in_it_and_logs_nothing(gan, tmp_path, caplog):
    gan.save_model(tmp_path / "new" / "folder")
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == [DISCRIMINATOR, GENERATOR]
    assert not caplog.records


@pytest.mark.parametrize("name", ["generator_model", "discriminateor_model"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_not_finite_is_not_saved(gan, saved, tmp_path, name, value):
    before = contents(saved)
    bias = getattr(gan, name).weights[-1]
    bias.assign(np.full(bias.shape, value))
    with pytest.raises(ValueError, match="not finite"):
        gan.save_model(saved)
    with pytest.raises(ValueError, match="not finite"):
        gan.save_model(tmp_path / "new")
    assert contents(saved) == before
    assert not (tmp_path / "new").exists()


def test_no_symbolic_link_is_followed(gan, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "models"
    folder.mkdir()
    for file in (GENERATOR, DISCRIMINATOR):
        part = f"{file.removesuffix('.h5')}.part.h5"
        for name in (file, part, f".{part}", f"{file}.tmp", f".{file}.tmp"):
            (folder / name).symlink_to(victim)
    gan.save_model(folder)
    assert victim.read_text() == "precious"
    gan.load_model(folder)


def test_a_limit_on_the_size_of_files_is_an_error_and_no_crash(tmp_path):
    gan = uncompiled(in_discriminator=[layers.Dense(10_000)])  # so the second file is larger
    gan.save_model(tmp_path)
    before = contents(tmp_path)
    smaller, larger = sorted(path.stat().st_size for path in tmp_path.iterdir())
    for limit in (0, 1000, smaller - 1, larger - 1):
        limit_files(limit)
        try:
            with pytest.raises(OSError, match="cannot write"):
                gan.save_model(tmp_path)
        finally:
            limit_files()
        assert contents(tmp_path) == before
    gan.save_model(tmp_path)


SAVED_AND_KILLED = """
import os, pathlib, random, shutil, signal, time
import demo_gan

gan = demo_gan.make_gan()
generator, discriminator = gan.generator_model, gan.discriminateor_model
models = pathlib.Path("models")
last_file = models / "gan_discriminateor.h5"
gan.save_model(models)
for attempt in range(12):
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
"""


def test_killed_save_leaves_a_complete_pair(tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary)}
    status, _, err = finish(start("-c", SAVED_AND_KILLED, cwd=tmp_path, env=environment))
    assert status == 0, err
    assert not list(temporary.glob("*gan*"))
