"""A crafted file has no other file read, hangs nothing, fills no memory, and changes nothing."""

import json
import pathlib
import shutil

import h5py
import numpy as np
import pytest
from conftest import (
    DATA,
    all_weights,
    both_optimizers,
    finish,
    same,
    small_gan,
    small_samples,
    start,
    steps_taken,
)

import demo_gan

STATE = "optimizer_weights"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with models that were trained, so that their optimizers have a state."""
    folder = tmp_path_factory.mktemp("saved")
    gan = small_gan(optimizer="adam")
    gan.train(small_samples())
    gan.save_model(folder)
    return folder


@pytest.fixture
def gan():
    return small_gan(optimizer="adam")


@pytest.fixture
def models(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved, tmp_path / "models"))


def everything(gan):
    """Return copies of the weights and of what the optimizers have learned, and the flags."""
    variables = [variable for one in both_optimizers(gan) for variable in one.variables]
    networks = [gan.generator_model, gan.discriminateor_model]
    flags = [weight.trainable for network in networks for weight in network.weights]
    return [*all_weights(gan), *(np.array(variable) for variable in variables), flags]


def assert_refused(gan, folder, file):
    """Loading is an error that names the file, and the GAN is as it was."""
    before = everything(gan)
    with pytest.raises(OSError, match=rf"^.*{file}.*$") as raised:
        gan.load_model(folder)
    assert "memory" not in str(raised.value)  # nobody asked for a petabyte
    assert same(before, everything(gan))


# -- what stands elsewhere ----------------------------------------------------------------


def largest_array(group):
    found = {}
    group.visititems(found.__setitem__)
    arrays = [item for item in found.values() if isinstance(item, h5py.Dataset)]
    return max(arrays, key=lambda array: array.size)


def external_dataset(file, array, secret):
    values = array[()]
    name = array.name
    secret.write_bytes(values.tobytes())
    del file[name]
    raw = [(secret, 0, values.nbytes)]
    file.create_dataset(name, values.shape, values.dtype, external=raw)


def link_to_an_array(file, array, secret):
    name = array.name
    del file[name]
    file[name] = h5py.ExternalLink(secret, name)


def link_to_a_group(file, array, secret):
    name = array.parent.name
    del file[name]
    file[name] = h5py.ExternalLink(secret, name)


def link_to_all_arrays(file, array, secret):
    name = array.name.split("/")[1]
    del file[name]
    file[name] = h5py.ExternalLink(secret, name)


def soft_link(file, array, secret):
    name = array.name
    file.move(name, "elsewhere")
    file[name] = h5py.SoftLink("/elsewhere")


def virtual_dataset(file, array, secret):
    name = array.name
    layout = h5py.VirtualLayout(array.shape, array.dtype)
    layout[...] = h5py.VirtualSource(secret, name, array.shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


KINDS = [
    external_dataset,
    link_to_an_array,
    link_to_a_group,
    link_to_all_arrays,
    soft_link,
    virtual_dataset,
]


@pytest.mark.parametrize("file", demo_gan.MODEL_FILES)
@pytest.mark.parametrize("group", ["model_weights", STATE])
@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_elsewhere_is_not_read(gan, models, file, group, kind, tmp_path):
    secret = tmp_path / "secret"
    shutil.copy(models / file, secret)
    with h5py.File(models / file, "r+") as opened:
        array = largest_array(opened[group])
        name = array.name
        values = array[()]
        kind(opened, array, secret)
        assert np.array_equal(opened[name], values)  # or there would be nothing to refuse
    assert_refused(gan, models, file)


# -- what is no state ---------------------------------------------------------------------

SLOT = "_velocity"
STEPS = "_iteration"
NO_STATE = [
    (SLOT, np.longdouble),
    (SLOT, np.complex64),
    (SLOT, np.bool_),
    (SLOT, np.int32),
    (SLOT, lambda values: values + 1e300),
    (SLOT, lambda values: values - np.inf),
    (STEPS, np.float64),
    (STEPS, np.bool_),
    (STEPS, lambda values: -1 - values),
    (STEPS, lambda values: values + 2**62),
    (STEPS, lambda values: np.uint64(2**64 - 1)),
]


@pytest.mark.parametrize("file", demo_gan.MODEL_FILES)
@pytest.mark.parametrize(("ending", "change"), NO_STATE)
def test_what_is_no_state_is_refused_and_changes_nothing(gan, models, file, ending, change):
    with h5py.File(models / file, "r+") as opened:
        name = next(name for name in opened[STATE] if name.endswith(ending))
        values = opened[STATE].pop(name)[()].astype(np.promote_types("f8", "f8"))
        opened[STATE][name] = change(values)
    assert_refused(gan, models, file)


def test_a_state_of_another_shape_leaves_a_fresh_optimizer(gan, models, caplog):
    caplog.set_level("INFO")
    gan.load_model(models)
    with h5py.File(models / "gan_discriminateor.h5", "r+") as opened:
        name = max(opened[STATE])
        opened[f"{STATE}/{name}"] = np.ones((3, 3), "float32") + opened[STATE].pop(name).size
    gan.load_model(models)
    assert steps_taken(gan)[0] > 0
    assert steps_taken(gan)[1] == 0
    assert len(caplog.messages) == 1
    assert "afresh" in caplog.messages[0]


NAMES = [
    "text",
    b"bytes",
    7,
    -0.5,
    True,
    1j,
    np.ones((3, 3)),
    np.array([b"a", b"b"]),
    np.array(["a", "b"], h5py.string_dtype()),
    np.void(b"opaque"),
    np.zeros(2, "i4,f4"),
    h5py.Empty("f4"),
    np.zeros(0),
    np.array([h5py.Reference()], h5py.ref_dtype),
    b"\xff\xfe",
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_the_name_of_a_save_may_be_anything(gan, models, name, caplog):
    file, other = demo_gan.MODEL_FILES
    with h5py.File(models / file, "r+") as opened:
        opened.attrs["gan_save"] = name
    before = everything(gan)
    try:
        gan.load_model(models)
    except OSError as error:
        assert file in str(error)
        assert same(before, everything(gan))
    else:
        assert "different saves" in caplog.text


# -- what would hang the program, or fill the memory --------------------------------------

ROOM = 20 * 2**20  # bytes that loading needs beside the arrays


def test_no_file_hangs_or_takes_more_memory_than_it_is_long(saved, tmp_path):
    status, _, err = finish(start(DATA / "hostile_files.py", saved, tmp_path))
    assert status == 0, err
    sizes = [path.stat().st_size for path in tmp_path.glob("*/*.h5")]
    path = str(pathlib.Path(__file__).parent)
    process = start(DATA / "load_folders.py", saved, tmp_path, env={"PYTHONPATH": path})
    status, out, err = finish(process)
    assert status == 0, f"{out}{err}"
    for line in out.splitlines():
        kind, problem, unchanged, growth = json.loads(line)
        assert not problem or "gan_generator.h5" in problem, kind
        assert unchanged, kind
        assert growth < max(sizes) + ROOM, kind
    assert len(out.splitlines()) == len(list(tmp_path.iterdir()))
