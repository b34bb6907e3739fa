"""Saved models load anywhere, are never damaged, and nothing in a file acts."""

import base64
import json
import marshal
import os
import pathlib
import shutil

import h5py
import keras
import numpy as np
import pytest
from conftest import DATA, contents, finish, same, small_samples, start, weights
from keras import layers

import demo_gan

FILES = ["gan_generator.h5", "gan_discriminateor.h5"]
ARTICLE = DATA / "article_models"
NOISE, SIGNAL = np.linspace(-1, 1, 20).reshape(5, 4), np.linspace(-1, 1, 5).reshape(5, 1)


def networks(gan):
    return gan.generator_model, gan.discriminateor_model


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A GAN that was trained for an epoch and saved, and the folder."""
    gan, folder = demo_gan.make_gan(), tmp_path_factory.mktemp("source")
    gan.train(demo_gan.make_samples(64), epoch=1, batch_size=32, step_per=2)
    gan.save_model(folder)
    return gan, folder


@pytest.fixture
def saved(source, tmp_path):
    return pathlib.Path(shutil.copytree(source[1], tmp_path / "saved"))


@pytest.fixture(scope="module")
def compiled():
    gan = demo_gan.make_gan()
    return gan, [weights(network) for network in networks(gan)]


@pytest.fixture
def gan(compiled):
    """The article's GAN, with weights that are in none of the files."""
    gan, initial = compiled
    for network, values in zip(networks(gan), initial, strict=True):
        network.set_weights(values)
    return gan


def assert_trains(gan):
    before = weights(*networks(gan))
    gan.train(demo_gan.make_samples(64), epoch=1, batch_size=32, step_per=2)
    assert not same(before, weights(*networks(gan)))


# -- loading what was saved ---------------------------------------------------------------


def test_the_files_load_in_a_process_that_knows_nothing_of_this_project(source):
    script = f"""
import json, keras, numpy, sys
generator, discriminator = map(keras.models.load_model, {FILES})
assert "demo_gan" not in sys.modules
noise, signal = (numpy.linspace(-1, 1, 5 * width).reshape(5, width) for width in (4, 1))
print(json.dumps([generator(noise).numpy().tolist(), discriminator(signal).numpy().tolist()]))
"""
    strict = ["-W", "error", "-W", "ignore::DeprecationWarning:keras"]
    status, out, err = finish(start(*strict, "-c", script, cwd=source[1]))
    assert status == 0, err
    generated, probability = json.loads(out)
    np.testing.assert_allclose(generated, source[0].generator_model(NOISE), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(probability, source[0].discriminateor_model(SIGNAL), rtol=1e-5)


def test_a_gan_takes_the_weights_exactly_and_goes_on_training(gan, source):
    gan.load_model(source[1])
    assert same(weights(*networks(gan)), weights(*networks(source[0])))
    assert_trains(gan)


def test_article_era_files_compute_what_the_article_computed(gan):
    expected = np.load(ARTICLE / "expected.npz")
    gan.load_model(ARTICLE)
    generated = gan.generator_model(expected["noise"])
    probability = gan.discriminateor_model(expected["signal"])
    np.testing.assert_allclose(generated, expected["generated"], atol=1e-6)
    np.testing.assert_allclose(probability, expected["probability"], atol=1e-6)
    assert_trains(gan)


def test_a_gan_of_any_layers_loads_what_it_saved_before_it_is_compiled(tmp_path):
    def build():
        gan = demo_gan.GANModel([1, 2])
        gan.add_gen_layer(layers.Lambda(lambda t: 2 * t))
        gan.add_gen_layer(keras.Sequential([layers.Dense(3), layers.BatchNormalization()]))
        gan.add_gen_layer(layers.Dense(1))
        gan.add_discr_layer(layers.Dropout(0.5))
        gan.add_discr_layer(layers.Dense(1, activation="sigmoid"))
        return gan

    gan, other = build(), build()
    gan.save_model(tmp_path)
    other.load_model(tmp_path)
    assert same(weights(*networks(gan)), weights(*networks(other)))
    other.compile_generator_model()
    other.compile_discriminateor_model()
    assert same(weights(*networks(gan)), weights(*networks(other)))
    other.train(small_samples(), epoch=1, batch_size=8)
    assert not same(weights(*networks(gan)), weights(*networks(other)))


# -- files that are not right -------------------------------------------------------------


def spoil(path, what):
    whole = path.read_bytes()
    if what == "not finite":
        model = keras.models.load_model(path)
        model.set_weights([weight * np.nan for weight in model.get_weights()])
        return model.save(path)
    path.unlink()
    if what == "random":
        path.write_bytes(np.random.default_rng(0).bytes(10_000))
    elif what == "folder":
        path.mkdir()
    elif what == "something else":
        with h5py.File(path, "w") as file:
            file["numbers"] = np.arange(5)
    elif what == "other shapes":
        keras.Sequential([keras.Input((7,)), layers.Dense(1)]).save(path)
    elif what != "missing":
        path.write_bytes(whole[: int(what * len(whole)) - (what == 1)])
    return None


WRONG = ["missing", "random", "folder", "something else", "other shapes", "not finite"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("what", [*WRONG, 0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 1])
def test_a_wrong_or_truncated_file_is_named_and_the_gan_as_it_was(gan, saved, file, what):
    spoil(saved / file, what)
    before = weights(*networks(gan))
    with pytest.raises((OSError, ValueError)) as raised:
        gan.load_model(saved)
    assert file in str(raised.value).splitlines()[0]
    assert same(before, weights(*networks(gan)))


def lambda_of_byte_code(config, marker):
    source = f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]"
    code = base64.b64encode(marshal.dumps(compile(source, "", "eval").co_consts[0])).decode()
    function = {"class_name": "__lambda__", "config": {"code": code, "defaults": None}}
    layer = {"class_name": "Lambda", "config": {"name": "crafted", "function": function}}
    config["config"]["layers"].append(layer)
    return config


def keras_function(module, name):
    return {"class_name": "function", "module": module, "config": name, "registered_name": name}


def switch(function, *operands):
    """A model that has Keras call a function while it is loaded."""
    node = {"args": [0, [function], *operands], "kwargs": {}}
    operation = {"class_name": "Switch", "module": "keras.src.ops.core", "config": {"name": "s"}}
    steps = [{**operation, "registered_name": "Switch", "name": "s", "inbound_nodes": [node]}]
    network = {"name": "m", "layers": steps, "input_layers": [], "output_layers": [["s", 0, 0]]}
    return {"class_name": "Functional", "module": "keras", "config": network}


ATTACKS = {
    "byte code": lambda_of_byte_code,
    "a call of Keras": lambda config, marker: switch(
        keras_function("keras.utils", "plot_model"), config, str(marker)
    ),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_acts_in_a_crafted_file(gan, source, saved, file, attack, tmp_path):
    marker = tmp_path / "marker.png"
    with h5py.File(saved / file, "r+") as opened:
        config = json.loads(opened.attrs["model_config"])
        opened.attrs["model_config"] = json.dumps(ATTACKS[attack](config, marker))
    gan.load_model(saved)
    assert same(weights(*networks(gan)), weights(*networks(source[0])))
    with pytest.raises(ValueError, match="layers"):
        demo_gan.GANModel([1, 4]).load_model(saved)
    assert not marker.exists()


# -- saving never damages what was there --------------------------------------------------


def test_saving_makes_the_folder_leaves_two_files_in_it_and_logs_nothing(gan, tmp_path, caplog):
    gan.save_model(tmp_path / "new" / "folder")
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == sorted(FILES)
    assert not caplog.records


@pytest.mark.parametrize("network", [0, 1], ids=["generator", "discriminator"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_what_is_not_finite_is_not_saved(gan, saved, tmp_path, network, value):
    before = contents(saved)
    bias = networks(gan)[network].weights[-1]
    bias.assign(np.full(bias.shape, value))
    for folder in (saved, tmp_path / "new"):
        with pytest.raises(ValueError, match="not finite"):
            gan.save_model(folder)
    assert contents(saved) == before
    assert not (tmp_path / "new").exists()


def test_no_symbolic_link_is_followed(gan, tmp_path):
    victim, folder = tmp_path / "victim", tmp_path / "models"
    victim.write_text("precious")
    folder.mkdir()
    for file in FILES:
        stem = file.removesuffix(".h5")
        for name in (file, f".{stem}.part.h5", f"{stem}.part.h5", f".{file}.tmp", f"{file}.tmp"):
            (folder / name).symlink_to(victim)
    gan.save_model(folder)
    assert victim.read_text() == "precious"
    gan.load_model(folder)


def test_hdf5_is_kept_from_a_folder_without_room_where_it_would_crash(gan, saved, monkeypatch):
    """HDF5 ends the process when it is full, so the room is said to be too small, and is not."""
    usage, written, before = shutil.disk_usage, [], contents(saved)
    room = {True: 2**20, False: 2**40}  # 1 MB there, and elsewhere more than enough
    monkeypatch.setattr(
        shutil, "disk_usage", lambda at: usage(at)._replace(free=room[saved in at.parents])
    )
    monkeypatch.setattr(keras.Sequential, "save", lambda *arguments: written.append(arguments))
    with pytest.raises(OSError, match=r"gan_generator.h5.*room"):
        gan.save_model(saved)
    assert (written, contents(saved)) == ([], before)


@pytest.mark.parametrize("function", ["save", "fsync"])
def test_a_save_whose_second_file_fails_leaves_both_old_ones(gan, saved, monkeypatch, function):
    before, called = contents(saved), []
    owner = {"save": keras.Sequential, "fsync": os}[function]
    work = getattr(owner, function)

    def fail_the_second_time(*arguments):
        called.append(arguments)
        if len(called) == 2:
            raise RuntimeError("No space left on device")  # as h5py does
        return work(*arguments)

    monkeypatch.setattr(owner, function, fail_the_second_time)
    with pytest.raises(OSError, match="No space left"):
        gan.save_model(saved)
    assert contents(saved) == before


def test_ctrl_c_while_it_loads_leaves_the_gan_as_it_was(gan, saved, monkeypatch):
    before, load = weights(*networks(gan)), keras.Sequential.load_weights

    def interrupted(network, path):
        load(network, path)
        if network is gan.discriminateor_model:
            raise KeyboardInterrupt

    monkeypatch.setattr(keras.Sequential, "load_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gan.load_model(saved)
    assert same(before, weights(*networks(gan)))


SAVED_AND_KILLED = """
import os, pathlib, random, shutil, signal, time
import demo_gan
gan, models = demo_gan.make_gan(), pathlib.Path("models")
networks = gan.generator_model, gan.discriminateor_model
gan.save_model("models")
for attempt in range(20):
    before = os.stat("models/gan_discriminateor.h5").st_mtime_ns
    child = os.fork()
    if child == 0:
        while True:
            for network in networks:  # so that it shows which save a file is of
                network.weights[-1].assign_add(0 * network.weights[-1] + 1)
            gan.save_model("models")
    while os.stat("models/gan_discriminateor.h5").st_mtime_ns == before:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    gan.load_model("models")
    first, second = (round(float(network.weights[-1][0])) for network in networks)
    left = [path for path in models.iterdir() if path.suffix != ".h5"]
    assert all(path.name.startswith(".gan_unfinished_") for path in left), left
    if first != second:  # nothing puts two files in place at once, but both were whole before
        networks[1].load_weights(left[0] / "gan_discriminateor.h5")
        assert first == round(float(networks[1].weights[-1][0]))
    for path in left:
        shutil.rmtree(path)
"""


def test_killed_at_any_moment_two_files_of_one_save_are_left_and_nothing_elsewhere(tmp_path):
    (tmp_path / "temporary").mkdir()
    environment = {"TMPDIR": str(tmp_path / "temporary")}
    status, _, err = finish(start("-c", SAVED_AND_KILLED, cwd=tmp_path, env=environment))
    assert status == 0, err
    assert not [name for name in os.listdir(tmp_path / "temporary") if "gan" in name]
