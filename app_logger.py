"""The article's logger: log lines on stderr, and what failed.

Log records go to stderr as ``[time] LEVEL file:function:line > message``.
"""

import logging
from contextlib import contextmanager

FORMAT = "[%(asctime)s] %(levelname)s %(filename)s:%(funcName)s:%(lineno)d > %(message)s"
LOG = logging.getLogger("demo_gan")
FAILURES = (Exception, SystemExit)  # what can be reported; wx raises SystemExit
FAILED = []  # What was reported so far. If anything was, the program's exit status is 1.
# Keras advises against .h5, which is the article's format.
logging.getLogger("absl").addFilter(lambda record: "HDF5" not in record.getMessage())

_handler = None


def init(lvl=logging.DEBUG):
    """Send the log records of the whole process to stderr.

    Calling it again changes the level, and no line appears twice.

    Args:
        lvl: the lowest level shown, as `logging` takes it: a number such as
            `logging.INFO` or a name such as `"INFO"`. Default: `logging.DEBUG`.

    Raises:
        ValueError: if `lvl` is a name that `logging` does not know.
        TypeError: if `lvl` is neither a number nor a name.
    """
    global _handler
    root = logging.getLogger()
    root.setLevel(lvl)
    root.removeHandler(_handler)
    _handler = logging.StreamHandler()
    _handler.setFormatter(logging.Formatter(FORMAT))
    root.addHandler(_handler)


def report(what, error, stacklevel=1):
    """Log an error as `what`, and remember that it failed.

    The line names the function that calls this one. Higher levels are its callers, as in `logging`.
    """
    FAILED.append(what)
    LOG.error("%s: %s", what, reason(error), stacklevel=stacklevel + 1)
    LOG.debug("it happened here:", exc_info=error, stacklevel=stacklevel + 1)


@contextmanager
def reported(what):
    """Report whatever the block raises as `what`, and go on."""
    try:
        yield
    except FAILURES as error:
        report(what, error, stacklevel=3)  # contextlib stands between this and the caller


def reason(error):
    """Return the first line of an error that tells something, at most 300 characters of it.

    Lines of a traceback tell nothing, nor do lines that introduce others, such as
    "Graph execution error:".
    """
    for line in str(error).splitlines():
        words = line.strip()
        # TensorFlow indents the code that it quotes by eight spaces.
        is_quoted = line.startswith(" " * 8) or words.startswith(('File "', "<"))
        if words and not is_quoted and not words.endswith(":"):
            return words[:300]
    return type(error).__name__
