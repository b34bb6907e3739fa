"""What the program says in text: log lines, failures, training.csv and the progress line.

Log records go to stderr as ``[time] LEVEL file:function:line > message``. The lines that are logged
here name the place in demo_gan.py that asked for them. The last two functions are views, as
`demo_gan.Look` describes them.
"""

import logging
import re
import sys
from contextlib import contextmanager
from pathlib import Path

FORMAT = "[%(asctime)s] %(levelname)s %(filename)s:%(funcName)s:%(lineno)d > %(message)s"
LOG = logging.getLogger("demo_gan")
FAILED = []  # What failed so far. If anything did, the program's exit status is 1.
# Keras advises against .h5, which is the article's format.
logging.getLogger("absl").addFilter(lambda record: "HDF5" not in record.getMessage())

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


@contextmanager
def reported(what):
    """Report whatever the block raises as `what`, and go on."""
    try:
        yield
    except (Exception, SystemExit) as error:  # wx raises SystemExit
        FAILED.append(what)
        LOG.error("%s: %s", what, reason(error), stacklevel=3)
        LOG.debug("it happened here:", exc_info=True, stacklevel=3)


def reason(error):
    """Return the first thing that an error says, in one line of at most 300 characters."""
    # Pass over tracebacks, and over lines that only introduce something ("Graph execution error:").
    telling = re.search(r"^(?!\s*(File \"|<)).*[^:\s]$", str(error), re.MULTILINE)
    line = telling[0].strip()[:300] if telling else type(error).__name__
    # TensorFlow is not imported here, so its error is known by its name.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        smaller = "-b/--batch_size, -k/--step_per or -n/--noise_dim"
        return f"too much for the memory, try a smaller {smaller}: {line}"
    return line


def training_csv(look, path):
    """View: writes a row an epoch, `epoch, dis_loss, gen_loss, w1`; w1 is NA if nobody looked."""
    path = Path(path)
    path.write_text("")
    # Appending writes at the end of the file, even if another run has emptied it in the meantime.
    with path.open("a", buffering=1) as file:
        file.write("epoch,dis_loss,gen_loss,w1\n")
        LOG.info(f"losses go to {path}", stacklevel=2)
        while True:
            epoch, logs, _ = yield
            if logs is not None:
                w1 = logs.get("w1", "NA")
                file.write(f"{epoch},{logs['dis_loss']},{logs['gen_loss']},{w1}\n")


def progress_line(look, as_bar=False):
    """View: one line that updates on a terminal; elsewhere a log line every tenth of the run.

    With `as_bar` it is the line of Keras's `fit`, on whatever Python prints to.
    """
    import keras  # not before demo_gan has chosen its backend

    epochs = look.epochs
    labels = {"dis_loss": "dis_loss", "gen_loss": "gen_loss", "w1": f"{look.measures.sliced}W1"}
    bar = None
    done = 0
    try:
        while True:
            epoch, logs, _ = yield
            values = [(label, logs[key]) for key, label in labels.items() if key in (logs or {})]
            is_terminal = sys.stdout is not None and sys.stdout.isatty()
            if done == 0 and (as_bar or is_terminal):
                # Created after the first epoch, so that its estimate does not include compiling.
                latest = labels.values()  # not averaged
                bar = keras.utils.Progbar(epochs, 10, stateful_metrics=latest, unit_name="epoch")
            if bar is not None:
                bar.update(epoch, values)
            elif epoch * 10 // epochs > done * 10 // epochs:
                told = ", ".join(f"{label} = {value:.4f}" for label, value in values)
                LOG.info(f"epoch {epoch} of {epochs}: {told}", stacklevel=2)
            done = epoch
    finally:
        if bar is not None and done < epochs:
            bar.update(done, finalize=True)
