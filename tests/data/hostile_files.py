"""Craft files that would hang a reader, fill its memory, or have it read what stands elsewhere.

hostile_files.py SAVED FOLDER makes a folder of models for each kind in FOLDER.

Each function takes the path of a saved generator and changes the file.
"""

import os
import pathlib
import re
import shutil
import struct
import sys

import h5py
import numpy as np

STATE = "optimizer_weights"
TEXT = h5py.string_dtype()


def two_links_to_the_next_group(path):
    """There are 2**60 paths through the file."""
    with h5py.File(path, "r+") as file:
        for group in (file, file[STATE], file["model_weights"]):
            for _ in range(60):
                deeper = group.create_group("one")
                group["other"] = deeper
                group = deeper


def many_links_to_one_array(path):
    with h5py.File(path, "r+") as file:
        array = file[STATE].create_dataset("0", data=np.ones(2**20, "int8"))
        for number in range(1, 3000):
            file[STATE][str(number)] = array


def first_layer(file):
    weights = file["model_weights"]
    return weights[weights.attrs["layer_names"][0]]


def array_many_times(path):
    with h5py.File(path, "r+") as file:
        layer = first_layer(file)
        layer["large"] = np.ones(2**20, "float32")
        for number in range(300):
            layer.attrs[f"weight_names{number}"] = np.array([b"large"] * 4)


def group_in_itself(path):
    with h5py.File(path, "r+") as file:
        layer = first_layer(file)
        layer["a"] = layer
        name = "a/" * 20_000 + layer.attrs["weight_names"][0]
        layer.attrs["weight_names"] = np.array([name], TEXT)


def long_text(path):
    """Thousands of names share one text of a megabyte."""
    own, shared = b"a" * 17, b"a/" * 500_000
    with h5py.File(path, "r+") as file:
        layer = first_layer(file)
        layer["a"] = layer
        layer.attrs["weight_names"] = np.array([shared], TEXT)
        for number in range(500):
            layer.attrs[f"weight_names{number}"] = np.array([own] * 4, TEXT)
    content = path.read_bytes()
    heap = content.index(b"GCOL", content.index(shared) - 64)
    to_shared = struct.pack("<IQI", len(shared), heap, 1)
    assert to_shared in content

    def share(match):
        address = int.from_bytes(match[1], "little")
        is_text = content[address : address + 4] == b"GCOL"
        return to_shared if is_text else match[0]

    reference = struct.pack("<I", len(own)) + rb"(.{8}).{4}"
    path.write_bytes(re.sub(reference, share, content, flags=re.DOTALL))


def text_without_end(path):
    """A text is so long that its end lies before its beginning."""
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL")
    while start >= 0:
        content[start + 24 : start + 32] = struct.pack("<q", -16)
        start = content.find(b"GCOL", start + 1)
    path.write_bytes(content)


def texts_in_texts(path):
    """A text holds the beginning of a block, whose first text does, and so on, 60,000 times."""
    count = 60_000
    with path.open("ab") as file:
        for number in range(count):
            left = 32 * (count - number) - 16
            file.write(struct.pack("<H6xQ8sQ", 1, 16, b"GCOL\1\0\0\0", left))


def type_of_types(item, key, make_type):
    kind = h5py.h5t.NATIVE_INT8
    for _ in range(2500):
        kind = make_type(kind)
    space = h5py.h5s.create_simple((1,))
    if key in item.attrs:
        del item.attrs[key]
        h5py.h5a.create(item.id, key.encode(), kind, space)
    else:
        h5py.h5d.create(item.id, key.encode(), kind, space)


def lists_in_lists_as_attribute(path):
    with h5py.File(path, "r+") as file:
        type_of_types(file, "gan_save", h5py.h5t.vlen_create)


def lists_in_lists_as_state(path):
    with h5py.File(path, "r+") as file:
        type_of_types(file[STATE], "state", h5py.h5t.vlen_create)


def arrays_in_arrays(path):
    with h5py.File(path, "r+") as file:
        type_of_types(file, "gan_order", lambda kind: h5py.h5t.array_create(kind, (1,)))


def array_of(path, place, *arguments, **settings):
    with h5py.File(path, "r+") as file:
        name = f"{STATE}/0"
        if place == "weight":
            layer = first_layer(file)
            name = f"{layer.name}/{layer.attrs['weight_names'][0]}"
            del file[name]
        file.create_dataset(name, *arguments, **settings)


def lists_as_weight(path):
    array_of(path, "weight", (2**15,), h5py.vlen_dtype("int8"))


def lists_as_state(path):
    array_of(path, "state", (2**15,), h5py.vlen_dtype("int8"))


def lists_as_attribute(path):
    lists = np.empty(1, object)
    lists[0] = np.ones(2**17)
    with h5py.File(path, "r+") as file:
        file.attrs.create("gan_save", lists, dtype=h5py.vlen_dtype("float64"))


def huge_weight(path):
    array_of(path, "weight", (2**20, 2**20), "int8")


def huge_state(path):
    array_of(path, "state", (2**31, 2**31), "int8")


def compressed_weight(path):
    array_of(path, "weight", data=np.ones(2**26, "int8"), chunks=(2**26,), compression="gzip")


def compressed_state(path):
    array_of(path, "state", data=np.ones(2**26, "int8"), chunks=(2**26,), compression="gzip")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def folder(path):
    path.unlink()
    path.mkdir()


def elsewhere(path, group):
    """Return an array's name, and a file in which its numbers are other ones."""
    secret = path.with_suffix(".secret")
    shutil.copy(path, secret)
    found = {}
    with h5py.File(secret, "r+") as file:
        file[group].visititems(found.__setitem__)
        arrays = [item for item in found.values() if isinstance(item, h5py.Dataset)]
        array = max(arrays, key=lambda item: item.size)
        array[...] = array[()] + 1
        return array.name, array[()], secret


def external_dataset(path, group):
    name, values, secret = elsewhere(path, group)
    secret.write_bytes(values.tobytes())
    with h5py.File(path, "r+") as file:
        del file[name]
        raw = [(secret, 0, values.nbytes)]
        file.create_dataset(name, values.shape, values.dtype, external=raw)


def virtual_dataset(path, group):
    name, values, secret = elsewhere(path, group)
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(secret, name, values.shape)
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_virtual_dataset(name, layout)


def soft_link(path, group):
    name, values, _ = elsewhere(path, group)
    with h5py.File(path, "r+") as file:
        file["elsewhere"] = values
        del file[name]
        file[name] = h5py.SoftLink("/elsewhere")


def link_to_an_array(path, group):
    name, _, secret = elsewhere(path, group)
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = h5py.ExternalLink(secret, name)


def link_to_all_arrays(path, group):
    _, _, secret = elsewhere(path, group)
    with h5py.File(path, "r+") as file:
        del file[group]
        file[group] = h5py.ExternalLink(secret, group)


ELSEWHERE = [external_dataset, virtual_dataset, soft_link, link_to_an_array, link_to_all_arrays]
KINDS = [
    two_links_to_the_next_group,
    many_links_to_one_array,
    array_many_times,
    group_in_itself,
    long_text,
    text_without_end,
    texts_in_texts,
    lists_in_lists_as_attribute,
    lists_in_lists_as_state,
    arrays_in_arrays,
    lists_as_weight,
    lists_as_state,
    lists_as_attribute,
    huge_weight,
    huge_state,
    compressed_weight,
    compressed_state,
    pipe,
    folder,
]

if __name__ == "__main__":
    for craft in KINDS:
        models = pathlib.Path(shutil.copytree(sys.argv[1], f"{sys.argv[2]}/{craft.__name__}"))
        craft(models / "gan_generator.h5")
    for craft in ELSEWHERE:
        for group in ("model_weights", STATE):
            name = f"{sys.argv[2]}/{craft.__name__}_{group}"
            models = pathlib.Path(shutil.copytree(sys.argv[1], name))
            craft(models / "gan_generator.h5", group)
