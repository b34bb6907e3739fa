"""Load the models of one folder after the other: load_folders.py SAVED FOLDER.

For each folder in FOLDER a line of JSON has its name, the error, whether the weights are still those
of SAVED, and how many bytes more the process has taken at most.
"""

import faulthandler
import json
import pathlib
import resource
import sys

from conftest import all_weights, same, small_gan


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


gan = small_gan(optimizer="adam")
for _ in range(3):
    gan.load_model(sys.argv[1])
weights = all_weights(gan)
before = peak()
for folder in sorted(pathlib.Path(sys.argv[2]).iterdir()):
    faulthandler.dump_traceback_later(120, exit=True)
    problem = ""
    try:
        gan.load_model(folder)
    except OSError as error:
        problem = str(error)
    growth = peak() - before
    print(json.dumps([folder.name, problem, same(weights, all_weights(gan)), growth]), flush=True)
