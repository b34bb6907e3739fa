"""A crafted model file has no other file read: the bound on Keras must not go below 3.15.0."""

import pathlib
import shutil

import h5py
import numpy as np
import pytest
from conftest import same, small_gan, small_samples

import demo_gan

KINDS = [
    "external dataset",
    "external link to an array",
    "external link to a layer",
    "external link to all arrays",
    "soft link",
    "virtual dataset",
    "petabyte that is not there",
]


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


def largest_array(group):
    found = {}
    group.visititems(found.__setitem__)
    arrays = [item for item in found.values() if isinstance(item, h5py.Dataset)]
    return max(arrays, key=lambda array: array.size)


def craft(path, group, kind, secret):
    """Take arrays out of a file and leave there what makes HDF5 find the same ones elsewhere."""
    shutil.copy(path, secret)
    with h5py.File(path, "r+") as file:
        array = largest_array(file[group])
        name = array.name
        values = array[()]
        parents = {
            "external link to a layer": array.parent.name,
            "external link to all arrays": group,
        }
        place = parents.get(kind, name)
        del file[place]
        if kind == "petabyte that is not there":
            file.create_dataset(place, (2**24, 2**24), values.dtype, chunks=(64, 64))
            return
        if kind == "external dataset":
            secret.write_bytes(values.tobytes())
            raw = [(secret, 0, values.nbytes)]
            file.create_dataset(place, values.shape, values.dtype, external=raw)
        elif kind == "virtual dataset":
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[...] = h5py.VirtualSource(secret, place, values.shape)
            file.create_virtual_dataset(place, layout)
        elif kind == "soft link":
            file["elsewhere"] = values
            file[place] = h5py.SoftLink("/elsewhere")
        else:
            file[place] = h5py.ExternalLink(secret, place)
        assert np.array_equal(file[name], values)  # or there would be nothing to refuse


@pytest.mark.parametrize("file", demo_gan.MODEL_FILES)
@pytest.mark.parametrize("kind", KINDS)
def test_crafted_weights_are_refused_by_name(gan, models, file, kind, tmp_path):
    craft(models / file, "model_weights", kind, tmp_path / "secret")
    before = gan.generator_training_model.get_weights()
    with pytest.raises(OSError, match=rf"^.*{file}") as raised:
        gan.load_model(models)
    assert "memory" not in str(raised.value)  # nobody asked for a petabyte
    assert same(before, gan.generator_training_model.get_weights())


@pytest.mark.parametrize("file", demo_gan.MODEL_FILES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_crafted_state_is_not_read(gan, models, file, kind, tmp_path):
    craft(models / file, "optimizer_weights", kind, tmp_path / "secret")
    problem = ""
    try:
        gan.load_model(models)
    except OSError as error:
        problem = str(error)
    assert "memory" not in problem
    both = [gan.generator_training_model, gan.discriminateor_training_model]
    assert 0 in [int(model.optimizer.iterations) for model in both]
