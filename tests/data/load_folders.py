"""Load the models of one folder after the other: load_folders.py SAVED FOLDER.

For each folder in FOLDER a line of JSON has its name, the error, whether the GAN is still as in
SAVED (or one optimizer is fresh), and by how many bytes the peak of the memory has grown.
"""

import faulthandler
import json
import pathlib
import resource
import sys

from conftest import all_weights, everything, same, small_gan, steps_taken


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


gan = small_gan(optimizer="adam")
for _ in range(3):
    gan.load_model(sys.argv[1])
saved = everything(gan)
for folder in sorted(pathlib.Path(sys.argv[2]).iterdir()):
    faulthandler.dump_traceback_later(120, exit=True)
    before = peak()
    problem = ""
    try:
        gan.load_model(folder)
    except OSError as error:
        problem = str(error)
    growth = peak() - before
    is_same = same(saved, everything(gan))
    if not is_same:
        is_same = steps_taken(gan)[0] == 0 and same(saved[:4], all_weights(gan)[:4])
        gan.load_model(sys.argv[1])
    print(json.dumps([folder.name, problem, is_same, growth]), flush=True)
