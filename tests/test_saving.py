"""Saved models load anywhere, are never damaged, and never run code."""

import base64
import json
import marshal
import os
import pathlib
import shutil
import time

import h5py
import keras
import numpy as np
import pytest
from conftest import DATA, ROOT, finish, same, small_gan, small_samples, start, weights
from keras import layers

import demo_gan

FILES = [demo_gan.GENERATOR_FILE, demo_gan.DISCRIMINATEOR_FILE]
ARTICLE = DATA / "article_models"


@pytest.fixture
def gan():
    return demo_gan.make_gan()


# -- loading what was saved ---------------------------------------------------------------


def test_the_files_load_in_a_process_that_knows_nothing_of_this_project(models, tmp_path):
    script = f"""
import json, keras, numpy, sys
results = []
for file, width in (("{FILES[0]}", 4), ("{FILES[1]}", 1)):
    model = keras.models.load_model(file)
    results.append(model.predict(numpy.linspace(-1, 1, 5 * width).reshape(5, width), verbose=0))
assert "demo_gan" not in sys.modules
print(json.dumps([result.tolist() for result in results]))
"""
    process = start(
        "-W", "error", "-W", "ignore::DeprecationWarning:keras", "-c", script, cwd=models
    )
    status, out, err = finish(process)
    assert status == 0, err
    gan = demo_gan.GANModel([1, 4])
    gan.load_model(models)
    noise, signal_ = np.linspace(-1, 1, 20).reshape(5, 4), np.linspace(-1, 1, 5).reshape(5, 1)
    generated, probability = json.loads(out)
    np.testing.assert_allclose(generated, gan.generator_model(noise), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(probability, gan.discriminateor_model(signal_), rtol=1e-5)


def test_a_built_gan_takes_the_weights_exactly_and_goes_on_training(gan, models):
    source = demo_gan.GANModel([1, 4])
    source.load_model(models)
    gan.load_model(models)
    assert same(weights(source.generator_model), weights(gan.generator_model))
    assert same(weights(source.discriminateor_model), weights(gan.discriminateor_model))
    assert_trains(gan)


def assert_trains(gan):
    before = weights(gan.generator_training_model)
    gan.train(demo_gan.make_samples(64), epoch=1, batch_size=32, step_per=2)
    assert not same(before, weights(gan.generator_training_model))


def test_a_gan_with_layers_can_load_before_it_is_compiled(models):
    compiled = demo_gan.make_gan()
    gan = demo_gan.GANModel([1, 4])
    for layer in compiled.generator_model.layers[1:]:
        gan.add_gen_layer(layer)
    for layer in compiled.discriminateor_model.layers[1:]:
        gan.add_discr_layer(layer)
    gan.load_model(models)
    gan.compile_generator_model()
    gan.compile_discriminateor_model()
    assert_trains(gan)


def test_article_era_files_compute_what_the_article_computed(gan):
    expected = np.load(ARTICLE / "expected.npz")
    gan.load_model(ARTICLE)
    generated = gan.generator_model(expected["noise"])
    probability = gan.discriminateor_model(expected["signal"])
    np.testing.assert_allclose(generated, expected["generated"], atol=1e-6)
    np.testing.assert_allclose(probability, expected["probability"], atol=1e-6)
    assert_trains(gan)


def test_a_gan_without_layers_loads_for_use_only_and_says_so(models, tmp_path):
    gan = demo_gan.GANModel([1, 4])
    gan.load_model(models)
    assert gan.generator_model(np.zeros((3, 4))).shape == (3, 1)
    for refused in (
        lambda: gan.train(small_samples(noise_dim=4)),
        gan.compile_generator_model,
        gan.compile_discriminateor_model,
    ):
        with pytest.raises(ValueError, match="for use only"):
            refused()
    with pytest.raises(ValueError, match="only before compiling and loading"):
        gan.add_gen_layer(layers.Dense(1))
    gan.save_model(tmp_path / "copy")
    for file in FILES:
        assert (tmp_path / "copy" / file).exists()


def test_a_gan_of_any_layers_loads_what_it_saved(tmp_path):
    def build():
        gan = demo_gan.GANModel([1, 2])
        gan.add_gen_layer(layers.Lambda(lambda t: 2 * t))
        gan.add_gen_layer(keras.Sequential([layers.Dense(3), layers.BatchNormalization()]))
        gan.add_gen_layer(layers.Dense(1))
        gan.add_discr_layer(layers.Dropout(0.5))
        gan.add_discr_layer(layers.Dense(1, activation="sigmoid"))
        gan.compile_generator_model()
        gan.compile_discriminateor_model()
        return gan

    gan, other = build(), build()
    gan.train(small_samples(), epoch=2, batch_size=8)
    gan.save_model(tmp_path)
    other.load_model(tmp_path)
    assert same(weights(gan.generator_training_model), weights(other.generator_training_model))


def test_there_is_nothing_to_save_before_compiling(tmp_path):
    with pytest.raises(ValueError, match="nothing to save"):
        demo_gan.GANModel(1).save_model(tmp_path)


def test_saving_makes_the_folder_and_leaves_nothing_but_the_two_files(tmp_path):
    small_gan().save_model(tmp_path / "new" / "folder")
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == sorted(FILES)


def test_saving_says_nothing_of_legacy_formats(tmp_path, caplog):
    small_gan().save_model(tmp_path)
    assert "legacy" not in caplog.text


# -- files that are not right -------------------------------------------------------------


def gans():
    return {"built": demo_gan.make_gan(), "empty": demo_gan.GANModel([1, 4])}


@pytest.fixture(scope="module")
def loaders():
    return gans()


def assert_refused(gan, folder, message, error=ValueError):
    models = gan.generator_model, gan.discriminateor_model
    before = [weights(model) if model else None for model in models]
    with pytest.raises(error, match=message) as raised:
        gan.load_model(folder)
    assert len(str(raised.value).splitlines()) == 1
    assert (gan.generator_model, gan.discriminateor_model) == models
    assert all(same(old, weights(model)) for old, model in zip(before, models) if model)


def write(path, what):
    path.unlink()
    if what == "empty":
        path.touch()
    elif what == "random":
        path.write_bytes(np.random.default_rng(0).bytes(10_000))
    elif what == "folder":
        path.mkdir()
    elif what == "no model":
        with h5py.File(path, "w") as file:
            file["numbers"] = np.arange(5)
    elif what == "no weights":
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = json.dumps({"config": {"name": "model"}})
    elif what == "other shape":
        model = keras.Sequential([keras.Input((7,)), layers.Dense(1)])
        model.save(path)


WRONG = ["missing", "empty", "random", "folder", "no model", "no weights", "other shape"]


@pytest.mark.parametrize("kind", ["built", "empty"])
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_one_clear_error_that_names_it(loaders, kind, file, what, models):
    write(models / file, what)
    error = FileNotFoundError if what == "missing" else ValueError
    assert_refused(loaders[kind], models, file, error)


@pytest.mark.parametrize("kind", ["built", "empty"])
@pytest.mark.parametrize("file", FILES)
def test_a_file_truncated_anywhere_is_refused(loaders, kind, file, models):
    whole = (models / file).read_bytes()
    for length in [*range(0, len(whole), len(whole) // 20), len(whole) - 1]:
        (models / file).write_bytes(whole[:length])
        assert_refused(loaders[kind], models, file)


@pytest.mark.parametrize("kind", ["built", "empty"])
def test_swapped_files_are_refused(loaders, kind, models):
    swapped = models.parent / "swapped"
    swapped.mkdir()
    for file, other in (FILES, FILES[::-1]):
        shutil.copy(models / file, swapped / other)
    assert_refused(loaders[kind], swapped, "holds the other network, were the two files swapped")


def test_swapped_files_of_networks_of_one_shape_are_refused(tmp_path):
    gan = small_gan(noise_dim=1)
    gan.save_model(tmp_path)
    for source, target in ((FILES[0], "aside"), (FILES[1], FILES[0]), ("aside", FILES[1])):
        (tmp_path / source).rename(tmp_path / target)
    assert_refused(gan, tmp_path, "swapped")


@pytest.mark.parametrize("kind", ["built", "empty"])
def test_weights_that_are_not_finite_are_refused(kind, models):
    with h5py.File(models / FILES[1], "r+") as file:
        file["model_weights"].visititems(
            lambda name, item: (
                item.write_direct(np.full(item.shape, np.nan, "float32"))
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    assert_refused(gans()[kind], models, f"{FILES[1]} holds weights that are not finite")


def test_models_of_another_noise_dimension_are_refused(models):
    assert_refused(demo_gan.make_gan(3), models, "does not fit the layers")
    assert_refused(demo_gan.GANModel([1, 3]), models, r"from shape \(None, 3\) to \(None, 1\), got")


def crafted(marker):
    """Layers that would run code if a loader let them."""
    command = f"touch {marker}"

    def run(x):
        import os

        os.system("touch " + "MARKER")
        return x

    code = run.__code__
    code = code.replace(
        co_consts=tuple(str(marker) if c == "MARKER" else c for c in code.co_consts)
    )
    code = base64.b64encode(marshal.dumps(code)).decode()
    v3_code = {
        "class_name": "__lambda__",
        "config": {"code": code, "defaults": None, "closure": None},
    }
    system = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    }
    return {
        "byte code": {
            "class_name": "Lambda",
            "config": {"function": [code, None, None], "function_type": "lambda"},
        },
        "byte code of Keras 3": {"class_name": "Lambda", "config": {"function": v3_code}},
        "named function": {
            "class_name": "Lambda",
            "config": {
                "function": "system",
                "function_type": "function",
                "module": "os",
                "arguments": {"command": command},
            },
        },
        "os.system": {"class_name": "Lambda", "config": {"function": "os.system"}},
        "os.system of Keras 3": {"class_name": "Lambda", "config": {"function": system}},
        "activation": {"class_name": "Activation", "config": {"activation": system}},
        "registered name": {
            "class_name": "Evil>Layer",
            "registered_name": "Evil>Layer",
            "config": {},
        },
        "module": {"module": "os", "class_name": "system", "config": {"command": command}},
        "saved model": {"class_name": "TFSMLayer", "config": {"filepath": str(marker.parent)}},
    }


@pytest.mark.parametrize("attack", crafted(pathlib.Path("marker")))
@pytest.mark.parametrize("file", FILES)
def test_crafted_files_run_nothing(loaders, attack, file, models, tmp_path):
    marker = tmp_path / "marker"
    with h5py.File(models / file, "r+") as opened:
        config = json.loads(opened.attrs["model_config"])
        last = config["config"]["layers"][-1]
        layer = crafted(marker)[attack]
        layer["config"]["name"] = layer["name"] = last["config"]["name"]
        layer["inbound_nodes"] = last["inbound_nodes"]
        config["config"]["layers"][-1] = layer
        opened.attrs["model_config"] = json.dumps(config)
    assert_refused(loaders["empty"], models, f"{file} cannot be loaded without its layers")
    # A built GAN takes the weights and reads nothing of the layers in the file.
    loaders["built"].load_model(models)
    loaders["built"].generator_model(np.zeros((1, 4)))
    assert not marker.exists()


# -- saving never damages what was there --------------------------------------------------


SAVE_FOR_EVER = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import small_gan
gan = small_gan()
weights = gan.generator_training_model.get_weights()
gan.generator_training_model.set_weights([weight * 0 + float(sys.argv[3]) for weight in weights])
gan.save_model(sys.argv[2])
print("started", flush=True)
while True:
    gan.save_model(sys.argv[2])
"""


def saving_for_ever(folder, value):
    return start("-c", SAVE_FOR_EVER, ROOT / "tests", folder, value)


def test_killed_at_any_moment_two_files_that_load_are_left(tmp_path):
    folders = [tmp_path / str(i) for i in range(4)]
    processes = [saving_for_ever(folder, i) for i, folder in enumerate(folders)]
    random = np.random.default_rng(0)
    for folder, process in zip(folders, processes, strict=True):
        assert process.stdout.readline() == "started\n"
        time.sleep(random.uniform(0.02, 0.3))
        process.kill()
        process.communicate()
        gan = small_gan()
        gan.load_model(folder)
        demo_gan.GANModel([1, 2]).load_model(folder)
        assert len(os.listdir(folder)) <= 4
        gan.save_model(folder)
        assert sorted(os.listdir(folder)) == sorted(FILES)


def test_two_runs_that_save_in_one_folder_leave_a_whole_pair_of_one_of_them(tmp_path):
    processes = [saving_for_ever(tmp_path, value) for value in (1, 2)]
    try:
        for process in processes:
            assert process.stdout.readline() == "started\n"
        gan = small_gan()
        for _ in range(30):
            gan.load_model(tmp_path)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    gan.load_model(tmp_path)
    for model in (gan.generator_model, gan.discriminateor_model):
        assert len({float(weight.max()) for weight in weights(model)}) == 1


class Killed(BaseException):
    """Ends a save without the cleaning up that a killed process would not do either."""


@pytest.mark.parametrize("step", ["first fsync", "second fsync", "first replace", "second replace"])
def test_interrupted_at_any_step_two_files_that_load_are_left(step, tmp_path, monkeypatch):
    small_gan().save_model(tmp_path)
    which, name = step.split()
    target = {"fsync": os, "replace": pathlib.Path}[name]
    original, calls = getattr(target, name), []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == {"first": 1, "second": 2}[which]:
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(target, name, killed)
        patch.setattr(pathlib.Path, "unlink", lambda *arguments, **named: None)
        with pytest.raises(Killed):
            small_gan().save_model(tmp_path)
    small_gan().load_model(tmp_path)
    small_gan().save_model(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(FILES)


def test_a_full_disk_leaves_the_old_pair_and_no_other_file(tmp_path):
    resource = pytest.importorskip("resource")
    small_gan().save_model(tmp_path)
    before = {file: (tmp_path / file).read_bytes() for file in FILES}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            small_gan().save_model(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {file: (tmp_path / file).read_bytes() for file in os.listdir(tmp_path)} == before


def test_a_file_in_the_way_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "models").touch()
    with pytest.raises(OSError, match="models"):
        small_gan().save_model(tmp_path / "models")
