"""Log records on stderr, as ``[time] LEVEL file:function:line > message``."""

import logging

FORMAT = "[%(asctime)s] %(levelname)s %(filename)s:%(funcName)s:%(lineno)d > %(message)s"

_handler = None


def init(lvl=logging.DEBUG):
    """Send the log records of the whole process to stderr.

    Calling it again changes the level and doubles no line.

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
