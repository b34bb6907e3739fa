"""A crafted file has no other file read, hangs nothing, fills no memory, and changes nothing."""

import contextlib
import json
import pathlib
import shutil

import h5py
import numpy as np
import pytest
from conftest import (
    DATA,
    assert_not_loaded,
    everything,
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


# -- what is no state ---------------------------------------------------------------------

SLOT = "_velocity"
STEPS = "_iteration"
NO_STATE = [
    (SLOT, np.longdouble),
    (SLOT, np.complex64),
    (SLOT, np.bool_),
    (SLOT, lambda values: np.float64(values) + 1e300),
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
        opened[STATE][name] = change(opened[STATE].pop(name)[()])
    assert_not_loaded(gan, models, file)


def test_a_state_of_another_shape_leaves_a_fresh_optimizer(gan, models, caplog):
    caplog.set_level("INFO")
    with h5py.File(models / "gan_discriminateor.h5", "r+") as opened:
        name = max(opened[STATE])
        del opened[STATE][name]
        opened[STATE][name] = np.ones((3, 3), "float32")
    gan.load_model(models)
    assert steps_taken(gan) == [3, 0]
    assert len(caplog.messages) == 1
    assert "afresh" in caplog.messages[0]


NAMES = [
    b"bytes",
    b"\xff\xfe",
    7,
    -0.5,
    np.ones((3, 3)),
    np.array(["a", "b"], h5py.string_dtype()),
    np.zeros(2, "i4,f4"),
    h5py.Empty("f4"),
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_the_name_of_a_save_may_be_anything(gan, models, name, caplog):
    file = demo_gan.MODEL_FILES[0]
    with h5py.File(models / file, "r+") as opened:
        opened.attrs["gan_save"] = name
    before = everything(gan)
    with contextlib.suppress(OSError):
        gan.load_model(models)
    if "different saves" not in caplog.text:
        assert same(before, everything(gan))
        assert_not_loaded(gan, models, file)


# -- what stands elsewhere, would hang the program, or fill the memory ---------------------

ROOM = 20 * 2**20  # bytes that loading needs beside the arrays


def test_no_file_hangs_or_takes_more_memory_than_it_is_long(saved, tmp_path):
    status, _, err = finish(start(DATA / "hostile_files.py", saved, tmp_path))
    assert status == 0, err
    sizes = [path.stat().st_size for path in tmp_path.glob("*/*.h5")]
    status, out, err = finish(start(DATA / "load_folders.py", saved, tmp_path))
    assert status == 0, f"{out}{err}"
    for line in out.splitlines():
        kind, problem, unchanged, growth = json.loads(line)
        assert not problem or "gan_generator.h5" in problem, kind
        assert unchanged, kind
        assert growth < max(sizes) + ROOM, kind
    assert len(out.splitlines()) == len(list(tmp_path.iterdir()))
