"""A crafted model file has no other file read: the bound on Keras must not go below 3.15.0."""

import pathlib
import shutil

import h5py
import numpy as np
import pytest
from conftest import DATA, same, weights

import demo_gan

LAYERS = {"gan_generator.h5": "dense_3", "gan_discriminateor.h5": "dense_1"}
KINDS = [
    "external dataset",
    "external link to a weight",
    "external link to a layer",
    "external link to all weights",
    "soft link",
    "virtual dataset",
    "petabyte that is not there",
]


@pytest.fixture
def models(tmp_path):
    return pathlib.Path(shutil.copytree(DATA / "article_models", tmp_path / "models"))


def craft(path, kind, secret):
    """Take weights out of a file and leave there what makes HDF5 find the same ones elsewhere."""
    layer = f"model_weights/{LAYERS[path.name]}"
    weight = f"{layer}/{LAYERS[path.name]}/kernel:0"
    groups = {"external link to a layer": layer, "external link to all weights": "model_weights"}
    place = groups.get(kind, weight)
    shutil.copy(path, secret)
    with h5py.File(path, "r+") as file:
        kernel = file[weight][()]
        del file[place]
        if kind == "petabyte that is not there":
            file.create_dataset(place, (2**24, 2**24), kernel.dtype, chunks=(64, 64))
            return
        if kind == "external dataset":
            secret.write_bytes(kernel.tobytes())
            raw = [(secret, 0, kernel.nbytes)]
            file.create_dataset(place, kernel.shape, kernel.dtype, external=raw)
        elif kind == "virtual dataset":
            layout = h5py.VirtualLayout(kernel.shape, kernel.dtype)
            layout[...] = h5py.VirtualSource(secret, place, kernel.shape)
            file.create_virtual_dataset(place, layout)
        elif kind == "soft link":
            file["elsewhere"] = kernel
            file[place] = h5py.SoftLink("/elsewhere")
        else:
            file[place] = h5py.ExternalLink(secret, place)
        assert np.array_equal(file[weight], kernel)  # or Keras would have nothing to refuse


@pytest.mark.parametrize("file", LAYERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_crafted_file_is_refused_by_name_and_the_gan_as_it_was(models, file, kind, tmp_path):
    gan = demo_gan.make_gan()
    craft(models / file, kind, tmp_path / "secret")
    before = weights(gan.generator_model, gan.discriminateor_model)
    with pytest.raises((OSError, ValueError)) as raised:
        gan.load_model(models)
    assert file in str(raised.value).splitlines()[0]
    assert not isinstance(raised.value.__context__, MemoryError)  # nobody asked for a petabyte
    assert same(before, weights(gan.generator_model, gan.discriminateor_model))
