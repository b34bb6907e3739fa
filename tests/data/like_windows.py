"""Runs the program twice, with no more of Python than there is on Windows.

Importing the program must leave alone what belongs to the whole process.
"""

import logging
import os
import random
import signal
import sys

os.supports_dir_fd.clear()  # shutil looks there when it is imported
sys.modules.pop("shutil", None)
sys.modules.pop("tempfile", None)

import tempfile

import h5py  # noqa: F401
import keras  # noqa: F401
import matplotlib.pyplot
import numpy
import PIL.Image  # noqa: F401
import tensorflow  # noqa: F401

NOT_IN_OS = """
    set_blocking fork getuid geteuid getpgid killpg chown fchmod fchown mkfifo sync uname nice
    register_at_fork O_DIRECTORY O_NOFOLLOW O_CLOEXEC
"""
NOT_IN_SIGNAL = """
    SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGALRM alarm pthread_sigmask set_wakeup_fd
"""
NO_MODULES = "fcntl resource pwd grp termios pty tkinter _tkinter"


def state():
    root = logging.getLogger()
    return [
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGTERM),
        root.level,
        list(root.handlers),
        random.getstate(),
        str(numpy.random.get_state()),
        dict.__repr__(matplotlib.rcParams),
    ]


def refused(function, refuse):
    """Return a function of files that raises an error for some paths."""

    def wrapper(*paths, **options):
        names = [path for path in paths if not isinstance(path, int)]
        if any(refuse(os.path.realpath(name)) for name in names):
            raise PermissionError(13, "Permission denied", *paths[:1])
        return function(*paths, **options)

    return wrapper


def in_use(path):
    numbers = os.listdir("/proc/self/fd")
    return path in [os.path.realpath(f"/proc/self/fd/{number}") for number in numbers]


for name in NOT_IN_OS.split():
    delattr(os, name)
for name in NOT_IN_SIGNAL.split():
    delattr(signal, name)
sys.modules.update(dict.fromkeys(NO_MODULES.split()))
tempfile.TemporaryFile = tempfile.NamedTemporaryFile  # there they are the same
for name in ("rename", "replace", "remove", "unlink"):
    setattr(os, name, refused(getattr(os, name), in_use))
os.open = refused(os.open, os.path.isdir)

before = state()
import demo_gan

assert state() == before
arguments = ["-e", "2", "-k", "1", "-log", "log", "-gif", "training.gif"]
first = demo_gan.main(arguments)
sys.stdout = None  # as pythonw has it
sys.exit(first or demo_gan.main([*arguments, "-r"]))
