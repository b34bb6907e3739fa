"""The article's logger: log lines on stderr, and what failed.

Log records go to stderr as `[time] LEVEL file:function:line > message`.
"""

import logging
from contextlib import contextmanager

FORMAT = "[%(asctime)s] %(levelname)s %(filename)s:%(funcName)s:%(lineno)d > %(message)s"
LOG = logging.getLogger("demo_gan")
REPORTABLE = (Exception, SystemExit)  # the errors that are reported; wx raises SystemExit
# What failed so far. If anything did, the exit status is 1, except after a second Ctrl-C.
FAILURES = []

_handler = None


def init(lvl=logging.DEBUG):
    """Send the log records of the whole process to stderr.

    Calling it again changes the level, and does not make lines appear twice.

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

    The line names the function that calls this one; with a `stacklevel` of 2, the caller of that
    function; and so on, as in `logging`.
    """
    FAILURES.append(what)
    LOG.error("%s: %s", what, reason(error), stacklevel=stacklevel + 1)
    LOG.debug("it happened here:", exc_info=error, stacklevel=stacklevel + 1)


@contextmanager
def reported(what):
    """Report whatever the block raises as `what`, and go on."""
    try:
        yield
    except REPORTABLE as error:
        report(what, error, stacklevel=3)  # this function and contextlib's stand in between


def reason(error):
    """Return the first line of an error that tells something, at most 300 characters of it.

    Lines of a traceback tell nothing, nor do lines that introduce others, such as
    "Graph execution error:". TensorFlow quotes tracebacks in its errors: places, such as
    `File "demo_gan.py", line 150`, `<frozen ...>`, and code, indented by eight spaces.
    """
    for line in str(error).splitlines():
        words = line.strip()
        is_quoted = line.startswith(" " * 8) or words.startswith(('File "', "<"))
        if words and not is_quoted and not words.endswith(":"):
            if isinstance(error, KeyError):  # its text is the key alone
                words = f"KeyError: {words}"
            return words[:300]
    return type(error).__name__
