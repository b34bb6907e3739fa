"""Saved models load anywhere, are never damaged, and nothing in a file acts."""

import base64
import contextlib
import copy
import functools
import itertools
import json
import logging
import marshal
import math
import os
import pathlib
import pickle
import random
import shutil
import sys
import threading
import warnings

import h5py
import keras
import numpy as np
import pytest
from conftest import (
    DATA,
    all_weights,
    assert_close,
    assert_not_loaded,
    both_optimizers,
    compile_both,
    contents,
    everything,
    finish,
    limit_files,
    moved,
    optimizer_values,
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


# -- loading what was saved ---------------------------------------------------------------


def test_plain_keras_loads_both_files_without_a_warning(source):
    gan, folder = source
    strict = ["-W", "error", "-W", "ignore::DeprecationWarning:keras"]
    status, out, err = finish(start(*strict, DATA / "plain_keras.py", cwd=folder))
    assert status == 0, err
    generated, probability = json.loads(out)
    np.testing.assert_allclose(generated, gan.generator_model(NOISE), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(probability, gan.discriminateor_model(SIGNAL), rtol=1e-5)


def test_a_gan_takes_the_weights_exactly_and_says_nothing(gan, source, caplog):
    caplog.set_level(logging.INFO)
    gan.load_model(source[1])
    assert same(all_weights(gan), all_weights(source[0]))
    assert not caplog.records


def normalizing(center):
    layer = layers.Normalization()
    layer.adapt(NOISE[:, :2] + center)
    gan = compile_both(uncompiled([keras.Sequential([layer])]), "adam")
    train_on(gan)  # traced, with the layer's numbers
    return gan


def test_normalization_comes_back_after_training_was_traced(tmp_path):
    gan = normalizing(0)
    other = normalizing(5)
    gan.save_model(tmp_path)
    other.load_model(tmp_path)
    assert_close([gan.generator_model(TWO)], [other.generator_model(TWO)])
    assert_close(train_on(gan), train_on(other))
    assert_close([gan.generator_model(TWO)], [other.generator_model(TWO)])


OLDER = DATA / "older_models"


def test_files_of_the_older_version_are_gone_on_with():
    expected = np.load(OLDER / "expected.npz")
    for is_frozen in (False, True):
        inner = layers.Dense(2)
        steps = [inner, layers.BatchNormalization(), layers.Dense(2)]
        steps += [layers.Dropout(0.0) for _ in range(10)]
        gan = uncompiled([keras.Sequential(steps)])
        inner.trainable = not is_frozen
        compile_both(gan, keras.optimizers.Adam(0.01))
        gan.load_model(OLDER)
        assert_close([gan.generator_model(expected["noise"])], [expected["generated"]])
        assert steps_taken(gan) == [2 * is_frozen, 6]
        assert inner.kernel.trainable != is_frozen
    train_on(gan)
    assert_close([gan.generator_model(expected["noise"])], [expected["later"]])


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


def save_numbers(folder, numbers, is_over):
    """Save a GAN again and again; the biases of both networks show which save a file is of."""
    gan = uncompiled()
    while not is_over.is_set():
        number = next(numbers)
        for network in (gan.generator_model, gan.discriminateor_model):
            network.weights[-1].assign([number])
        gan.save_model(folder)


def test_a_mixture_is_named_beside_two_savers(tmp_path, caplog):
    gan = uncompiled()
    gan.save_model(tmp_path)
    is_over = threading.Event()
    numbers = itertools.count(1)
    savers = [
        threading.Thread(target=save_numbers, args=(tmp_path, numbers, is_over)) for _ in range(2)
    ]
    filters = list(warnings.filters)
    for saver in savers:
        saver.start()
    try:
        for _ in range(150):
            caplog.clear()
            gan.load_model(tmp_path)
            found = all_weights(gan)
            assert ("different saves" in caplog.text) == (found[1] != found[3])
    finally:
        is_over.set()
        for saver in savers:
            saver.join()
    assert next(numbers) > 10
    assert warnings.filters == filters
    assert sorted(os.listdir(tmp_path)) == [DISCRIMINATOR, GENERATOR]


# -- frozen parts of layers ---------------------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Twins(layers.Layer):
    """Two equal layers, which only their order tells apart."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.first = layers.Dense(2)
        self.second = layers.Dense(2)

    def build(self, shape):
        self.first.build(shape)
        self.second.build(shape)

    def call(self, inputs):
        return self.second(self.first(inputs))


def frozen_gan(steps, choose):
    """Return a GAN with such layers in G, and the one of them in which parts are frozen."""
    gan = uncompiled(steps)
    layer = next(layer for layer in steps if layer.weights)
    for part in choose(layer):
        part.trainable = False
    rng = np.random.default_rng(1)
    network = gan.generator_model
    network.set_weights([rng.uniform(0.2, 1, array.shape) for array in weights(network)])
    return compile_both(gan, "adam"), layer


def all_flags(gan, layer):
    """Return the flags of a layer, of the layers in it, and of all weights of G."""
    inner = [part for part in vars(layer).values() if isinstance(part, layers.Layer)]
    return [part.trainable for part in [layer, *inner, *gan.generator_model.weights]]


def assert_trains_what_is_not_frozen(gan, frozen):
    weights_of_frozen = [weight for part in frozen for weight in getattr(part, "weights", [part])]
    weights_of_others = gan.generator_model.trainable_weights
    before = [weight.numpy() for weight in weights_of_frozen + weights_of_others]
    train_on(gan)
    after = [weight.numpy() for weight in weights_of_frozen + weights_of_others]
    expected = [False] * len(weights_of_frozen) + [True] * len(weights_of_others)
    assert moved(before, after) == expected


CHOICES = [
    lambda twins: [],
    lambda twins: [twins],
    lambda twins: [twins.first],
    lambda twins: [twins.second],
    lambda twins: [twins.first.kernel, twins.second.bias],
]


@pytest.fixture(scope="module")
def frozen_saves(tmp_path_factory):
    """For each choice of frozen parts a folder with a trained GAN, and what G computes."""
    saves = []
    for choose in CHOICES:
        folder = tmp_path_factory.mktemp("frozen")
        gan, _ = frozen_gan([Twins()], choose)
        train_on(gan)
        gan.save_model(folder)
        saves.append((choose, folder, gan.generator_model(TWO)))
    return saves


@pytest.mark.parametrize("choose", CHOICES)
def test_weights_get_into_their_places_whatever_is_frozen(frozen_saves, choose, caplog):
    caplog.set_level(logging.INFO)
    gan, twins = frozen_gan([Twins()], choose)
    flags = all_flags(gan, twins)
    for chosen_at_save, folder, expected in frozen_saves:
        caplog.clear()
        gan.load_model(folder)
        np.testing.assert_allclose(gan.generator_model(TWO), expected, rtol=1e-5)
        assert all_flags(gan, twins) == flags
        # The state of one weight must not go to another, though all shapes fit.
        is_other = choose is not chosen_at_save
        assert (steps_taken(gan)[0] == 0) == is_other
        assert ("afresh" in caplog.text) == is_other
    assert_trains_what_is_not_frozen(gan, choose(twins))


LAYERS = {
    "bidirectional": (
        lambda: [layers.Reshape((2, 1)), layers.Bidirectional(layers.SimpleRNN(2))],
        lambda layer: [layer.forward_layer],
    ),
    "normalization": (lambda: [layers.BatchNormalization()], lambda layer: [layer.gamma]),
    "spectral kernel": (
        lambda: [layers.SpectralNormalization(layers.Dense(2))],
        lambda layer: [layer.layer.kernel],
    ),
    "nested": (
        lambda: [keras.Sequential([layers.Dense(2), layers.BatchNormalization()])],
        lambda network: [network.layers[0], network.layers[1].gamma],
    ),
    "twins": (lambda: [Twins()], lambda twins: [twins.first.kernel, twins.second]),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_frozen_parts_of_layers_come_back_and_stay_frozen(tmp_path, kind):
    make, choose = LAYERS[kind]
    gan, layer = frozen_gan(make(), choose)
    expected = gan.generator_model(TWO)
    gan.save_model(tmp_path)
    for other, part in (gan, layer), frozen_gan(make(), choose), frozen_gan(make(), CHOICES[0]):
        flags = all_flags(other, part)
        network = other.generator_model
        network.set_weights([1 - array for array in weights(network)])
        other.load_model(tmp_path)
        np.testing.assert_allclose(network(TWO), expected, rtol=1e-5)
        assert all_flags(other, part) == flags
    (tmp_path / DISCRIMINATOR).write_bytes(b"")
    assert_not_loaded(gan, tmp_path, DISCRIMINATOR)
    flags = [weight.trainable for weight in gan.generator_model.weights]
    for twin in copy.deepcopy(gan), pickle.loads(pickle.dumps(gan)):
        assert [weight.trainable for weight in twin.generator_model.weights] == flags
        np.testing.assert_allclose(twin.generator_model(TWO), expected, rtol=1e-5)


def two_weights(layer, shape):
    layer.add_weight(shape=(1,), name="one")
    layer.add_weight(shape=(1,), name="one")


def weight_and_layer(layer, shape):
    layer.add_weight(shape=(1,), name="one")
    layer.inner = layers.Dense(2, name="one")
    layer.inner.build(shape)


@keras.saving.register_keras_serializable("tests")
class Custom(layers.Layer):
    build_parts = None

    def build(self, shape):
        self.build_parts(shape)

    def call(self, inputs):
        return inputs


@pytest.mark.parametrize("build_parts", [two_weights, weight_and_layer])
def test_what_has_no_names_of_its_own_in_a_file_is_refused_before_training(build_parts):
    layer = Custom()
    layer.build_parts = functools.partial(build_parts, layer)
    gan = uncompiled([layer])
    with pytest.raises(ValueError, match="cannot be saved"):
        gan.compile_generator_model()
    with pytest.raises(ValueError, match="cannot be saved"):
        gan.compile_discriminateor_model()
    assert gan.generator_training_model is None


@pytest.mark.parametrize("file", demo_gan.MODEL_FILES)
def test_an_article_file_beside_one_of_ours_is_named(gan, saved, file, caplog):
    shutil.copy(ARTICLE / file, saved)
    gan.load_model(saved)
    assert "different saves" in caplog.text


# -- optimizers go on where they were -----------------------------------------------------


def momentum():
    return keras.optimizers.SGD(0.05, momentum=0.9)


@pytest.mark.parametrize("make", [keras.optimizers.Nadam, momentum, scaled])
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


def test_the_state_goes_into_compiled_models_only(adam, caplog):
    gan = uncompiled()
    gan.load_model(adam[1])
    loaded = all_weights(gan)
    assert len(caplog.messages) == 1
    assert "compile" in caplog.messages[0]
    compile_both(gan, keras.optimizers.Adam(0.25))
    assert steps_taken(gan) == [0, 0]
    gan.load_model(adam[1])
    assert steps_taken(gan) == [2, 6]
    assert float(both_optimizers(gan)[0].learning_rate) == 0.25  # the one compiled with
    compile_both(gan, "adam")
    assert steps_taken(gan) == [0, 0]
    assert same(loaded, all_weights(gan))
    assert len(caplog.messages) == 1


def test_the_state_of_another_optimizer_leaves_a_fresh_one(adam, caplog):
    gan = compile_both(uncompiled(), scaled())
    train_on(gan)
    caplog.clear()
    caplog.set_level(logging.INFO)
    gan.load_model(adam[1])
    assert caplog.messages
    assert all("afresh" in message for message in caplog.messages)
    assert steps_taken(gan) == [0, 0]
    train_on(gan)


def test_the_state_inside_a_loss_scale_optimizer_is_of_its_kind_too(tmp_path):
    kinds = [keras.optimizers.AdamW(), keras.optimizers.Adam()]  # their slots have equal names
    gans = [compile_both(uncompiled(), keras.optimizers.LossScaleOptimizer(kind)) for kind in kinds]
    train_on(gans[0])
    gans[0].save_model(tmp_path)
    gans[1].load_model(tmp_path)
    assert steps_taken(gans[1]) == [0, 0]


def test_a_state_that_is_not_finite_is_left_out_of_a_save_and_that_is_told(tmp_path, caplog):
    gan = compile_both(uncompiled(), "adam")
    train_on(gan)
    for optimizer in both_optimizers(gan):
        velocity = optimizer.variables[-1]
        velocity.assign(velocity * np.nan)
    gan.save_model(tmp_path)
    messages = caplog.messages
    assert all("optimizer" in message and "not saved" in message for message in messages)
    assert len(messages) == 2
    gan.load_model(tmp_path)
    assert steps_taken(gan) == [0, 0]


def test_files_of_the_article_compute_what_it_computed_and_leave_fresh_optimizers(
    gan, source, caplog
):
    gan.load_model(source[1])
    assert steps_taken(gan) == [1, 2]
    caplog.set_level(logging.INFO)
    gan.load_model(ARTICLE)
    expected = np.load(ARTICLE / "expected.npz")
    generated = gan.generator_model(expected["noise"])
    probability = gan.discriminateor_model(expected["signal"])
    np.testing.assert_allclose(generated, expected["generated"], atol=1e-6)
    np.testing.assert_allclose(probability, expected["probability"], atol=1e-6)
    assert steps_taken(gan) == [0, 0]
    assert caplog.messages
    assert all("afresh" in message for message in caplog.messages)


# -- files that are not right -------------------------------------------------------------


def not_finite(path):
    model = keras.models.load_model(path)
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    model.save(path)


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


WRONG = [not_finite, folder, random_bytes, something_else, other_shapes]


@pytest.mark.parametrize("file", [GENERATOR, DISCRIMINATOR])
@pytest.mark.parametrize("spoil", WRONG)
def test_a_wrong_file_is_named(gan, saved, file, spoil):
    spoil(saved / file)
    assert_not_loaded(gan, saved, file)


@pytest.mark.parametrize("file", [GENERATOR, DISCRIMINATOR])
def test_a_missing_file_or_folder_is_missing(gan, saved, file):
    (saved / file).unlink()
    before = everything(gan)
    for path in saved / file, saved / "folder" / GENERATOR:
        with pytest.raises(FileNotFoundError, match=f"{path} is missing$"):
            gan.load_model(path.parent)
    assert same(before, everything(gan))


@pytest.mark.parametrize("file", [GENERATOR, DISCRIMINATOR])
@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.9999])
def test_a_truncated_file_is_named(gan, saved, file, share):
    whole = (saved / file).read_bytes()
    (saved / file).write_bytes(whole[: int(share * len(whole))])
    assert_not_loaded(gan, saved, file)


def with_byte_code(config, marker):
    """A layer that runs code of Python's."""
    source = f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]"
    code = base64.b64encode(marshal.dumps(compile(source, "", "eval").co_consts[0])).decode()
    function = {"class_name": "__lambda__", "config": {"code": code, "defaults": None}}
    layer = {"class_name": "Lambda", "config": {"name": "crafted", "function": function}}
    config["config"]["layers"].append(layer)
    return config


@pytest.mark.parametrize("file", [GENERATOR, DISCRIMINATOR])
def test_nothing_acts_in_a_crafted_file(gan, source, saved, file, tmp_path):
    marker = tmp_path / "marker.png"
    with h5py.File(saved / file, "r+") as opened:
        config = json.loads(opened.attrs["model_config"])
        opened.attrs["model_config"] = json.dumps(with_byte_code(config, marker))
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


def test_files_of_more_layers_are_told_to_be_of_other_layers(gan, tmp_path):
    uncompiled([layers.Dense(2) for _ in range(9)]).save_model(tmp_path)
    with pytest.raises(OSError, match="layers"):
        gan.load_model(tmp_path)


def test_a_write_that_fails_in_any_way_names_its_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with demo_gan.replacing(path) as (file,):
            file.write_text("half")
            raise RuntimeError("full")  # as HDF5 says it

    with pytest.raises(OSError, match=f"{path}: full"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_save_keeps_the_mode_of_the_file_that_it_replaces(gan, tmp_path):
    umask = os.umask(0o027)
    gan.save_model(tmp_path)
    (tmp_path / GENERATOR).chmod(0o600)
    gan.save_model(tmp_path)
    os.umask(umask)
    modes = [(tmp_path / file).stat().st_mode & 0o777 for file in (GENERATOR, DISCRIMINATOR)]
    assert modes == [0o600, 0o640]


@pytest.mark.parametrize(
    ("name", "value"), [("generator_model", np.nan), ("discriminateor_model", -np.inf)]
)
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


def test_killed_save_leaves_a_complete_pair(tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary)}
    status, _, err = finish(start(DATA / "killed_saves.py", cwd=tmp_path, env=environment))
    assert status == 0, err
    assert not list(temporary.glob("*gan*"))
