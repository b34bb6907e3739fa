"""The program: its command line, what it leaves behind, and what happens when things go wrong."""

import concurrent.futures
import contextlib
import csv
import gc
import importlib
import io
import json
import logging
import os
import pty
import random
import re
import select
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from conftest import (
    DATA,
    LIMIT,
    SAMPLES,
    all_weights,
    assert_close,
    contents,
    finish,
    limit_files,
    needs,
    same,
    small_gan,
    start,
    start_demo,
    virtual_display,
    wait_for,
    with_graphs,
)
from images import difference, failing_gan, frames_in, opened, set_bias
from PIL import Image, ImageSequence

import demo_gan

FILES = ["gan_discriminateor.h5", "gan_generator.h5"]
PICTURE = Path("img/gan_results.png")
CSV = Path("log/training.csv")
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def loaded(folder):
    """Return the weights in a folder's two files; an error says that they do not load."""
    gan = demo_gan.make_gan()
    gan.load_model(folder)
    return all_weights(gan)


def only_error(err):
    """Return the one line of an error."""
    (line,) = re.findall("ERROR.*", err)
    return line


def csv_rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def raising(*numbers):
    """Return an action that raises these signals."""

    def action():
        for number in numbers:
            signal.raise_signal(number)

    return action


class LineWatcher(logging.Handler):
    """Acts at the first log line that matches."""

    def __init__(self, line, action):
        super().__init__()
        self.line = line
        self.actions = [action]

    def emit(self, record):
        if self.actions and re.search(self.line, record.getMessage()):
            self.actions.pop()()


@pytest.fixture
def main(tmp_path, monkeypatch, capsys):
    """Runs the program in this process, in an empty folder; returns its standard error.

    The status has to be 0, or the one that is given. `main.when(line, action)` acts at the
    program's first log line that matches.
    """
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level = root.level
    handlers = list(root.handlers)

    def run(line, expected=0):
        before = [signal.getsignal(number) for number in SIGNALS]
        try:
            status = demo_gan.main(line.split())
        except SystemExit as exit_:
            status = exit_.code
        finally:
            limit_files()
        assert [signal.getsignal(number) for number in SIGNALS] == before
        out, err = capsys.readouterr()
        assert status == expected, err
        assert out == ""
        return err

    run.when = lambda line, action: root.addHandler(LineWatcher(line, action))
    yield run
    root.setLevel(level)
    root.handlers[:] = handlers
    demo_gan.LOG.setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def traced_gan():
    gan = demo_gan.make_gan()
    gan.train(demo_gan.make_samples(3200), epoch=1)
    return gan


@pytest.fixture
def fast_main(main, traced_gan, monkeypatch):
    """Runs the program like `main`, but with a GAN that is compiled and traced already."""
    monkeypatch.setattr(demo_gan, "make_gan", lambda *_, **__: traced_gan)
    return main


@pytest.fixture
def saves_always(monkeypatch):
    monkeypatch.setattr(demo_gan, "SAVE_SECONDS", 0)


@pytest.fixture
def dot(tmp_path_factory, monkeypatch):
    """Puts a shell script in the place of Graphviz."""

    def install(script):
        tools = tmp_path_factory.mktemp("tools")
        (tools / "dot").write_text(f"#!/bin/sh\n{script}\n")
        (tools / "dot").chmod(0o755)
        monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)

    return install


# -- what a run leaves and says -----------------------------------------------------------


@pytest.fixture
def log(trained):
    return (trained / "stderr.txt").read_text()


@pytest.mark.tools
def test_run_names_the_files_that_it_leaves(trained, log):
    assert sorted(os.listdir(trained / "models")) == FILES
    for file in (PICTURE, CSV, "training.gif"):
        assert (trained / file).stat().st_size > 1000
        assert str(file) in log


@pytest.mark.tools
def test_graphs_show_each_layer(trained):
    needs("dot")
    for name in ("generator", "discriminateor"):
        height, width, _ = plt.imread(trained / "log" / f"gan_{name}_model.png").shape
        assert height > 900
        assert width > 200


@pytest.mark.tools
def test_animation_is_small_plays_for_ever_and_keeps_its_last_frame(trained):
    with Image.open(trained / "training.gif") as image:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
        assert image.info["loop"] == 0
    assert durations == 19 * [50] + [2000]
    assert (trained / "training.gif").stat().st_size < 20 * 20_000


@pytest.mark.tools
def test_animation_leads_to_the_saved_picture(trained):
    width, height = demo_gan.SIZE
    saved = opened(trained / PICTURE).crop((0, 0, 100 * width, 100 * height))
    first, last, saved = [
        image.resize((80, 45))  # so small that the size of the letters does not matter
        for image in (
            opened(trained / "training.gif"),
            opened(trained / "training.gif", frame=-1),
            saved,
        )
    ]
    assert difference(last, saved) < 2.2  # letters differ, and white is 254 in the GIF
    assert difference(first, saved) > 3.2


@pytest.mark.tools
def test_last_numbers_are_those_of_the_saved_models(trained, log):
    gan = demo_gan.make_gan()
    gan.load_model(trained / "models")
    samples = demo_gan.make_samples(3200, 4, seed=0)
    real = samples["y"]
    generated = np.array(gan.generator_model(samples["x"]))
    w1 = demo_gan.wasserstein(generated, real)
    judged = np.mean(gan.discriminateor_model(generated))
    expected = [generated.mean(), generated.std(), real.mean(), real.std(), w1, judged]
    (line,) = re.findall(".*Wasserstein-1.*", log)
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d{3}\b", line)]
    np.testing.assert_allclose(numbers, expected, atol=6e-4)


@pytest.mark.tools
def test_lines_into_a_pipe_are_few_and_plain(trained, log):
    assert (trained / "stdout.txt").read_text() == ""
    # TensorFlow's first lines come before anything can turn them down. Graphs need Graphviz.
    others = "WARNING: All log messages|[EI]0000 "
    if shutil.which("dot") is None:
        others += "|.*graph"
    ours = [line for line in log.splitlines() if not re.match(others, line)]
    assert len(ours) < 20
    form = r"\[\d{4}-\d\d-\d\d [\d:,]+\] INFO demo_gan.py:\w+:\d+ > [^\x1b\b\r]*"
    assert [line for line in ours if not re.fullmatch(form, line)] == []
    assert not re.search("WARN|Warn|Traceback|window", "".join(ours))


@pytest.mark.tools
def test_each_tenth_of_a_run_says_losses_and_w1(log):
    lines = re.findall(r"epoch (\d+) of 20.*dis_loss.*gen_loss.*W1 = \d", log)
    assert lines == [str(epoch) for epoch in range(2, 21, 2)]


def test_other_seeds_give_other_models(main, trained):
    main("-e 20 -s 2")
    assert not same(loaded("models"), loaded(trained / "models"))


def test_resuming_goes_on_exactly(main):
    main("-e 5 -k 3 -s 0")
    err = main("-r -e 5 -k 3 -s 0 -o a.svg")
    assert "afresh" not in err
    assert "K = 3, 5 more" in Path("a.svg").read_text()

    gan = None
    for _ in range(2):  # as the two runs do, but with one GAN
        keras.utils.set_random_seed(0)
        samples = demo_gan.make_samples(3200, seed=0)
        fresh = demo_gan.make_gan()
        gan = gan or fresh
        gan.train(samples, epoch=5, batch_size=32, step_per=3)
    assert_close(loaded("models"), all_weights(gan))


@pytest.mark.tools
def test_resuming_for_no_epochs_only_draws(main, models):
    before = contents(models)
    touched = models.stat().st_mtime_ns  # a folder that is never touched may be read-only
    main("-r -e 0 -o log/picture.svg -log log", with_graphs(0))
    assert models.stat().st_mtime_ns == touched
    assert contents(models) == before
    assert sorted(os.listdir()) == ["log", "models"]
    assert "training.csv" not in os.listdir("log")
    assert "<!-- noise_dim = 4, W1 = " in Path("log/picture.svg").read_text()  # no epochs


def test_log_level_chooses_the_lines(fast_main, models):
    for level, shows_info in {"INFO": True, "debug": True, "Warn": False, "err": False}.items():
        err = fast_main(f"-r -e 0 -o a.pdf -log_lvl {level}")  # of PDFs matplotlib has much to say
        assert ("INFO" in err) == shows_info
        assert set(re.findall(r"[A-Z]+ (\w+\.py):", err)) <= {"demo_gan.py"}


def test_data_set_too_large_to_show_has_a_picture(fast_main):
    fast_main("-b 201 -e 2 -k 1")
    Image.open(PICTURE).close()


def test_names_of_255_bytes_are_written(fast_main):
    png = f"{'é' * 125}x.PNG"
    gif = f"{'é' * 125}x.GIF"
    fast_main(f"-e 7 -k 1 -o {png} -gif {gif} -every 3")
    assert sorted(os.listdir()) == sorted(["models", gif, png])
    assert frames_in(gif) == 3  # of epochs 3, 6 and 7


def test_without_tensorflow_one_sentence_says_what_to_do():
    script = (
        "import sys, unittest.mock; other = unittest.mock.MagicMock();"
        "sys.modules.update(keras=other, tensorflow=other); import demo_gan"
    )
    status, _, err = finish(start("-c", script))
    assert status == 1
    assert re.fullmatch("ImportError: .*TensorFlow.*before keras.*", err.splitlines()[-1])


DEFAULTS = """
epoch 10
batch_size 32
model_dir models
log_dir None
log_lvl info
step_per 20
noise_dim 4
seed None
output img/gan_results.png
gif None
plot_every 1
resume False
"""


def test_help_has_each_flag_with_its_default(capsys):
    with pytest.raises(SystemExit, match="0"):
        demo_gan.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for line in DEFAULTS.strip().splitlines():
        flag, default = line.split()
        assert re.search(rf"--{flag}\b(?:(?!, --).)*?\(default: {default}\)", text), flag
    assert re.search(r"--epoch\b(?:(?!, --).)*?W1.*?0\.5\b.*?\b2\b.*?\(default: 10\)", text)


NONSENSE = {  # what the last line says, and command lines with ; between them
    "--epoch": "-e -1; -e 1.5; -e 0",
    "--batch_size.*9": "-b 99999999999999999999",
    "--(step_per|noise_dim|plot_every).* 0$": "-k 0; -n 0; -every 0",
    "--seed.* 4294967296$": "-s 4294967296",
    "--log_lvl.*'loud'": "-log_lvl loud",
    "--output.*'(picture|.png)": "-o picture.doc; -o .png",
    "--gif.*'(x.mp4|.gif)": "-gif x.mp4; -gif .gif",
    "--epoch.* 0$": "-r -e 0 -gif x.gif",
    "--gif.*-every 2": "-gif x.gif -e 1001",
    "--gif.*-every 3": "-gif x.gif -e 2001 -every 2",
}


def test_empty_value_is_not_taken_for_a_flag_left_out():
    with pytest.raises(SystemExit, match="2"):
        demo_gan.parse_args(["-gif", ""])


@pytest.mark.parametrize(("message", "lines"), NONSENSE.items())
def test_nonsense_is_refused_with_the_usage(main, models, message, lines):
    before = contents(models)
    for line in lines.split(";"):
        *usage, last = main(f"-e 1000 {line}", 2).splitlines()
        assert usage
        assert re.search(message, last)
    assert os.listdir() == ["models"]
    assert contents(models) == before


IMPOSSIBLE = {
    "--model_dir.*file": "-m file; -m file/models",
    "--model_dir.*taken/gan_generator.h5": "-m taken",
    "--output.*x.png": f"-o x.png; -o file/x.png; -o {252 * 'x'}.png",
    "--gif.*x.gif": f"-gif /proc/x.gif; -gif {252 * 'x'}.gif",
    "--log_dir.*file": "-log file",
    "--log_dir.*training.csv": "-log taken_log; -log nowhere",
    "--log_dir.*gan_generator_model.png": "-log taken_graphs",
    "--resume.*typo/gan_generator.h5": "-r -m typo",
    "models/gan_generator.h5.*noise_dim": "-r -n 1",
    "damaged/gan_generator.h5": "-r -m damaged -log kept",
    "--batch_size.*--noise_dim": "-b 2000000000; -b 1 -n 2000000000",
}


@pytest.mark.tools
@pytest.mark.parametrize(("message", "lines"), IMPOSSIBLE.items())
def test_what_cannot_work_is_refused(main, models, message, lines):
    for folder in ("x.png", f"taken/{FILES[1]}", "taken_log/training.csv", "nowhere", "kept"):
        Path(folder).mkdir(parents=True)
    Path("taken_graphs/gan_generator_model.png").mkdir(parents=True)
    Path("file").touch()
    kept = Path("kept/training.csv")
    kept.write_text("of the run before")
    Path("nowhere/training.csv").symlink_to("nothing/here")
    shutil.copytree(models, "damaged")
    os.truncate(f"damaged/{FILES[1]}", 20_000)
    for line in lines.split(";"):
        (last,) = without_graphs(main(f"-e 1000 {line}", 1)).splitlines()
        assert re.search(message, last)
    assert kept.read_text() == "of the run before"
    assert [*Path().rglob("typo"), *Path().rglob(".*")] == []


def without_graphs(err):
    """Return what was log, without the lines on graphs where there is no Graphviz."""
    return err if shutil.which("dot") else re.sub(".*ERROR.* graph .*\n", "", err)


# -- on a terminal ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The run of `trained` on a terminal, with the settings and the toolkit of somebody else."""
    folder = tmp_path_factory.mktemp("some body")
    settings = {"floatx": "float16", "epsilon": 0.5, "image_data_format": "channels_first"}
    (folder / "keras.json").write_text(json.dumps({**settings, "backend": "jax"}))
    (folder / "no_toolkit.py").write_text("raise ImportError('no toolkit')")
    env = {
        "KERAS_HOME": str(folder),
        "KERAS_BACKEND": "torch",
        "MPLBACKEND": "module://no_toolkit",
        "PYTHONPATH": str(folder),
        "PYTHONWARNINGS": "error",
    }
    terminal, slave = pty.openpty()
    process = start_demo("-e", 20, "-s", 0, env=env, cwd=folder, stdout=slave)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # a pseudo-terminal's way to say that it is closed
        while select.select([terminal], [], [], LIMIT)[0]:
            shown += os.read(terminal, 4096)
    os.close(terminal)
    status, _, err = finish(process)
    return folder, shown.decode(), status, err


def test_terminal_shows_one_line(elsewhere, trained):
    _, shown, _, err = elsewhere
    assert shown.count("\n") == 1
    *_, last, nothing = re.split("[\r\b\n]+", re.sub(r"\x1b\[\d*m", "", shown))
    assert nothing == ""
    assert len(last) < 100
    row = csv_rows(trained / CSV)[-1]
    numbers = [f"{name}: {float(row[name]):.4f}" for name in ("dis_loss", "gen_loss", "w1")]
    assert re.search(f"20/20.*{'.*'.join(numbers)}", last, re.IGNORECASE)
    assert "epoch 20" not in err


def test_equal_runs_write_equal_files_whatever_the_settings_of_others(elsewhere, trained):
    folder, _, _, _ = elsewhere
    assert contents(folder / "models") == contents(trained / "models")


def test_missing_toolkit_and_warnings_as_errors_are_no_failure(elsewhere):
    _, _, status, err = elsewhere
    assert status == 0
    assert not re.search("Traceback|ERROR", err)


def test_interrupted_terminal_shows_the_epochs_that_were_trained(fast_main, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

        def write(self, text):
            if "gen_loss" in text and self.getvalue().count("gen_loss") == 2:
                signal.raise_signal(signal.SIGINT)
            return super().write(text)

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    err = fast_main("-e 9999 -k 1 -log log", 130)
    (done,) = re.findall(r"interrupted after (\d+) of 9999", err)
    *_, last, nothing = re.split("[\r\b\n]+", terminal.getvalue())
    assert f"{done}/9999" in last
    rows = csv_rows(CSV)
    assert f"gen_loss: {float(rows[-1]['gen_loss']):.4f}" in last
    *_, w1 = [float(row["w1"]) for row in rows if row["w1"] != "NA"]
    assert f"W1: {w1:.4f}" in last
    assert nothing == ""


# -- signals ------------------------------------------------------------------------------


def assert_nothing_is_saved(main, models, number, line):
    """An interrupted run leaves the old models alone, draws nothing and says so."""
    before = contents(models)
    err = main(line, 128 + number)
    assert "nothing" in err
    assert "interrupted after" not in err  # which would contradict it
    assert "models saved" not in err
    assert contents(models) == before
    assert not PICTURE.exists()
    return err


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_before_the_first_epoch_changes_nothing(fast_main, models, number):
    fast_main.when("training.csv", raising(number))
    err = assert_nothing_is_saved(fast_main, models, number, "-e 2 -k 1 -log log -gif a.gif")
    assert "epoch 1 of 2" not in err
    assert not Path("a.gif").exists()


def test_signal_while_graphs_are_drawn_changes_nothing(main, models, dot):
    dot("kill -TERM $PPID; echo a graph")
    err = assert_nothing_is_saved(main, models, signal.SIGTERM, "-e 2 -k 1 -log log")
    assert "epoch 1 of 2" not in err


def test_signal_in_the_first_call_saves_nothing(main, models, dot, saves_always):
    dot("echo a graph")
    over = threading.Event()

    def interrupt_when_batches_are_drawn():
        before = random.getstate()

        def watch():
            while random.getstate() == before:
                if over.wait(0.01):
                    return
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=watch).start()

    main.when("training.csv", interrupt_when_batches_are_drawn)
    line = "-e 2 -k 4000 -log log"  # so many updates that the call lasts
    try:
        err = assert_nothing_is_saved(main, models, signal.SIGINT, line)
    finally:
        over.set()
    assert "epoch 1 of 2" in err
    assert "nothing saved: the signal came before the first epoch was done" in err


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("epoch 2 of 2", [signal.SIGTERM, signal.SIGINT]),
        ("models saved", [signal.SIGINT]),
        ("Wasserstein", [signal.SIGHUP] * 2),  # a terminal that is closed hangs up twice
    ],
)
def test_signal_after_the_last_epoch_costs_nothing(fast_main, models, line, numbers):
    before = contents(models)
    fast_main.when(line, raising(*numbers))
    err = fast_main("-e 2 -k 1", 128 + numbers[0])  # the first of them
    assert "models saved in models" in err
    assert not before.items() & contents(models).items()
    loaded(models)
    Image.open(PICTURE).close()


def test_ignored_hangup_is_not_heard(fast_main):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    fast_main.when("epoch 2 of 4", raising(signal.SIGHUP))
    err = fast_main("-e 4 -k 1")
    signal.signal(signal.SIGHUP, before)
    assert "epoch 4 of 4" in err


def test_second_ctrl_c_ends_a_program_that_hangs(tmp_path):
    (tmp_path / "log").mkdir()
    os.mkfifo(tmp_path / CSV)  # opening it hangs, as nobody reads
    process = start_demo("-log", "log", cwd=tmp_path)
    wait_for((tmp_path / "models").exists, process)

    def is_pending():
        status = Path(f"/proc/{process.pid}/status").read_text()
        pending = re.findall(r"(?:SigPnd|ShdPnd):\s*(\w+)", status)
        return any(int(mask, 16) for mask in pending)

    process.send_signal(signal.SIGINT)
    wait_for(lambda: not is_pending(), process)
    time.sleep(0.5)  # Python hears it
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130
    assert "Traceback" not in err
    assert not list((tmp_path / "models").iterdir())


def test_second_ctrl_c_goes_to_whoever_heard_it_before(fast_main, models):
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append("Ctrl-C"))
    fast_main.when("epoch 2 of 9", raising(signal.SIGINT, signal.SIGINT))
    try:
        err = fast_main("-e 9 -k 1 -o a.svg", 130)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == ["Ctrl-C"]
    assert "interrupted after 2 of 9" in err
    assert "K = 1, 2 epochs, noise_dim = 4, W1 = " in Path("a.svg").read_text()


def test_second_ctrl_c_in_training_ends_it_and_saves(fast_main, models):
    before = contents(models)
    fast_main.when("epoch 2 of 9", raising(signal.SIGINT, signal.SIGINT))
    err = fast_main("-e 9 -k 1", 130)
    assert "models saved in models" in err
    assert "picture" not in err
    assert not before.items() & contents(models).items()
    loaded(models)


def test_second_ctrl_c_waits_while_models_are_saved(fast_main, models, traced_gan, monkeypatch):
    before = contents(models)
    save = traced_gan.save_model

    def save_and_interrupt(folder):
        raising(signal.SIGINT, signal.SIGINT)()
        save(folder)

    monkeypatch.setattr(traced_gan, "save_model", save_and_interrupt)
    err = fast_main("-e 2 -k 1", 130)
    assert "models saved in models" in err
    assert not before.items() & contents(models).items()


def test_error_in_training_costs_no_epoch(fast_main, models, saves_always):
    def fail_here():
        limit_files()
        raise tf.errors.ResourceExhaustedError(None, None, "")

    before = contents(models)
    fast_main.when("not saved yet", fail_here)
    limit_files(20_000)
    err = fast_main("-e 20 -k 1 -log_lvl debug", 1)
    assert "--batch_size" in only_error(err)
    assert "in fail_here" in err
    assert "models saved in models" in err
    assert contents(models) != before


def test_main_works_in_a_thread_without_a_window(main, toolkit):
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        err = threads.submit(main, "-e 2 -k 1").result(LIMIT)
    assert "models saved in models" in err
    assert toolkit.moments == []


# -- what is only looked at ---------------------------------------------------------------


@pytest.fixture
def toolkit(monkeypatch):
    """A toolkit whose windows need no display; it does at each moment what a test tells it to."""
    monkeypatch.syspath_prepend(DATA)
    monkeypatch.delitem(sys.modules, "toolkit", raising=False)
    monkeypatch.setattr(demo_gan, "FRAME_SECONDS", 0.005)
    monkeypatch.setattr(demo_gan, "LAST_SECONDS", 0)
    plt.switch_backend("module://toolkit")
    toolkit = importlib.import_module("toolkit")
    # Not before: Matplotlib would refuse a framework of its own without a display.
    toolkit.FigureCanvas.required_interactive_framework = "made for a test"
    yield toolkit
    plt.switch_backend("agg")


def assert_all_else_is_there(err, named, epochs):
    """One line says what is left out; training was whole, models and picture are saved."""
    assert named in only_error(err)
    assert len(re.findall(f"epoch .* of {epochs}:", err)) == 10
    assert f"epoch {epochs} of {epochs}" in err
    assert "models saved in models" in err
    Image.open(PICTURE).close()


def test_window_shows_a_frame_every_n_epochs(fast_main, toolkit):
    fast_main("-e 7 -k 1 -every 3")
    shown = dict.fromkeys(toolkit.titles)
    assert list(shown) == ["compiling", "epoch = 3", "epoch = 6", "epoch = 7"]
    assert toolkit.moments.count("show") == 1
    assert toolkit.moments[-1] == "close"


@pytest.mark.parametrize(
    ("moment", "number", "error"),
    [
        ("figure", 1, SystemExit("no display")),  # as wx does
        ("show", 1, AssertionError()),
        ("wait", 9, SystemExit("broken")),
        ("close", 1, RuntimeError("broken")),
    ],
)
def test_window_that_fails_is_left_out(fast_main, models, toolkit, moment, number, error):
    def fail(count):
        if count >= number:
            raise error

    before = contents(models)
    toolkit.actions[moment] = fail
    err = fast_main("-e 10 -k 1 -gif a.gif", 1)
    assert_all_else_is_there(err, "live picture", epochs=10)
    assert contents(models) != before
    assert toolkit.moments.count("close") == (moment != "figure")
    assert frames_in("a.gif") == 10


def test_toolkit_that_takes_ctrl_c_and_fails_gives_it_back(fast_main, toolkit):
    toolkit.actions["figure"] = {}.pop  # raises a KeyError
    fast_main.when("epoch 1 of 10", raising(signal.SIGINT))
    assert "models saved in models" in fast_main("-e 10 -k 1", 1)


def test_window_that_cannot_blit_is_not_opened(fast_main, toolkit):
    plt.switch_backend("module://cairo_toolkit")
    canvas = importlib.import_module("cairo_toolkit").FigureCanvas
    canvas.required_interactive_framework = "made for a test"
    err = fast_main("-e 2 -k 1")
    assert not re.search("WARN|ERROR", err)


CLOSINGS = {
    "by its button": {6: "button"},
    "while it is held": {3: " ", 6: "button"},
    "by a key that matplotlib is set to": {6: "x"},
}


@pytest.mark.parametrize("presses", CLOSINGS.values(), ids=CLOSINGS)
def test_closed_window_ends_no_training(fast_main, toolkit, presses):
    def press(count):
        if presses.get(count) == "button":
            toolkit.close()
        elif count in presses:
            toolkit.press(presses[count])

    toolkit.actions["wait"] = press
    with plt.rc_context({"keymap.quit": ["x"]}):
        err = fast_main("-e 10 -k 1")
    assert "epoch 10 of 10" in err
    assert toolkit.moments.count("blit") <= 7
    assert len(re.findall("INFO.*window.*closed", err)) == 1


def test_window_closed_in_its_last_frame_says_nothing_of_training(fast_main, toolkit, monkeypatch):
    monkeypatch.setattr(demo_gan, "LAST_SECONDS", LIMIT)
    toolkit.actions["wait"] = lambda count: toolkit.titles[-1] == "epoch = 2" and toolkit.close()
    err = fast_main("-e 2 -k 1")
    assert re.findall("INFO.*the window is closed(.*)", err) == [""]


def test_models_are_saved_when_the_window_is_held_in_its_last_frame(fast_main, toolkit):
    """Were they saved afterwards, a display that dies in between would cost all."""
    saved = []

    def hold_until_saved(count):
        if count == 1:
            toolkit.press(" ")
        elif toolkit.titles[-1].startswith("epoch = 1"):
            saved.append(Path("models", FILES[1]).exists())
            toolkit.press("right")
        else:
            toolkit.press("right")

    toolkit.actions["wait"] = hold_until_saved
    fast_main("-e 1 -k 1")
    assert saved == [True]


def test_last_frame_that_is_held_saves_nothing_again(fast_main, toolkit, saves_always):
    saves = []

    def hold(count):
        if count == 1:
            toolkit.press(" ")
        elif toolkit.titles[-1].startswith("epoch = 1"):
            saves.append(Path("models", FILES[1]).stat().st_mtime_ns)
        if count == 1 or len(saves) == 3:
            toolkit.press("right")

    toolkit.actions["wait"] = hold
    fast_main("-e 1 -k 1")
    assert len(set(saves)) == 1


def test_models_are_saved_while_the_window_is_held(fast_main, toolkit, saves_always):
    """What was trained before is then safe, however long the window is held."""
    saves = []

    def hold(count):
        is_saved = Path("models", FILES[1]).exists()
        if count == 3:
            toolkit.press(" ")
            saves.append(is_saved)
            limit_files()  # from here on there is room for files
        if count == 6:
            saves.append(is_saved)
            toolkit.press(" ")

    limit_files(20_000)
    toolkit.actions["wait"] = hold
    fast_main("-e 10 -k 1")
    assert saves == [False, True]


def test_space_holds_the_window_and_right_shows_one_more(fast_main, toolkit):
    keys = {5: " ", 8: "right", 11: "right", 14: " "}

    def press(count):
        if count in keys:
            toolkit.press(keys[count])

    toolkit.actions["wait"] = press
    fast_main("-e 10 -k 1")
    held = [title for title in toolkit.titles if "held" in title]
    first, second, third = dict.fromkeys(re.findall("epoch = (\\d+)", "".join(held)))
    assert int(third) == int(second) + 1 == int(first) + 2
    assert toolkit.titles[-1] == "epoch = 10"


def test_window_that_was_held_is_free_in_the_next_training(toolkit):
    gan = small_gan()
    look = demo_gan.Look(gan, SAMPLES)
    window = demo_gan.Window(look)

    def hold_and_stop(count):
        if count == 3:
            toolkit.press(" ")
        if count == 6:
            gan.generator_training_model.stop_training = True

    toolkit.actions["wait"] = hold_and_stop
    first = gan.train(SAMPLES, 9, batch_size=8, callbacks=[look, window])
    second = gan.train(SAMPLES, 9, batch_size=8, callbacks=[look, window])
    assert len(first.epoch) < 9
    assert len(second.epoch) == 9


def test_right_arrow_means_nothing_before_the_window_is_held(fast_main, toolkit):
    titles = []

    def press(count):
        if count == 5:
            titles.append(toolkit.titles[-1])
            toolkit.press("right")
            toolkit.press(" ")
        if count == 8:
            titles.append(toolkit.titles[-1])
            toolkit.press(" ")

    toolkit.actions["wait"] = press
    fast_main("-e 10 -k 1")
    frame, held_frame = titles
    assert held_frame.startswith(f"{frame}, held")


def test_ctrl_c_ends_a_held_training_and_saves_though_the_toolkit_took_it(fast_main, toolkit):
    def hold_then_end(count):
        if count == 3:
            toolkit.press(" ")
        if count == 6:
            signal.raise_signal(signal.SIGINT)

    toolkit.actions["wait"] = hold_then_end
    err = fast_main("-e 1000 -k 1", 130)
    assert "models saved in models" in err
    assert "held" in "".join(toolkit.titles)


def test_csv_that_cannot_be_written_is_left_out(fast_main):
    CSV.parent.mkdir()
    CSV.symlink_to("/dev/full")
    err = fast_main("-e 23 -k 1 -log log", 1)
    assert_all_else_is_there(err, "log/training.csv", epochs=23)


def test_animation_that_cannot_be_written_is_left_out(fast_main):
    def occupy():
        Path("films").rmdir()
        Path("films").touch()

    fast_main.when("epoch 10 of 10", occupy)
    err = fast_main("-e 10 -k 1 -gif films/a.gif", 1)
    assert_all_else_is_there(err, "films/a.gif", epochs=10)


def test_csv_is_written_row_by_row_also_beside_another_run(fast_main):
    CSV.parent.mkdir()
    CSV.write_text("of the run before\n")
    texts = []

    def read_and_write():
        texts.append(CSV.read_text())
        CSV.write_text("of the other run\n")

    fast_main.when("epoch 50 of 100", read_and_write)
    fast_main("-e 100 -k 1 -log log")
    header, *rows = texts[0].splitlines()
    assert header == "epoch,dis_loss,gen_loss,w1"
    assert len(rows) >= 49
    text = CSV.read_text()
    assert text.startswith("of the other run\n")
    assert "\0" not in text
    assert text.splitlines()[-1].startswith("100,")


def test_gan_that_cannot_be_measured_is_trained_and_saved(main, monkeypatch):
    gan = failing_gan(most_rows=1000, noise_dim=4)  # a batch has fewer, the data set has more
    monkeypatch.setattr(demo_gan, "make_gan", lambda *_: gan)
    err = main("-e 20 -k 1", 1)
    first, second = re.findall("ERROR.*", err)
    assert "measure" in first
    assert str(PICTURE) in second
    assert "epoch 20 of 20" in err
    assert "models saved in models" in err


def test_graphs_that_cannot_be_drawn_are_left_out(main, dot):
    dot("kill -SEGV $$")
    err = main("-e 2 -k 1 -log log", 1)
    line = r"ERROR demo_gan\.py:draw_graph:\d+ > .*graph log/gan_(\w+)_model.png.*: .+"
    names = re.findall(line, err)
    assert sorted(names) == ["discriminateor", "generator"]
    assert os.listdir("log") == ["training.csv"]
    assert "models saved in models" in err


@pytest.mark.tools
def test_lost_display_costs_at_most_the_time_between_two_saves(tmp_path):
    needs("Xvfb")
    script = "import demo_gan, sys; demo_gan.SAVE_SECONDS = 0.3; demo_gan.main(sys.argv[1:])"
    with virtual_display() as (display, server):
        process = start("-c", script, "-e", 9999, "-k", 1, cwd=tmp_path, env={"DISPLAY": display})
        wait_for(lambda: len(list(tmp_path.glob("models/*.h5"))) == 2, process)
        server.kill()
        finish(process)
    loaded(tmp_path / "models")


# -- saving, whatever happens -------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's temporary folder: an empty one for this test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_full_disk_leaves_the_old_models(fast_main, models, temporary):
    before = contents(models)
    limit_files(100_000)  # so late HDF5 crashes
    err = fast_main("-r -e 2 -k 1", 1)
    assert "models" in re.findall("ERROR.*", err)[0]
    assert contents(models) == before
    assert [*temporary.iterdir(), *models.glob(".*")] == []


def test_full_disk_leaves_the_old_picture(main, models):
    PICTURE.parent.mkdir()
    PICTURE.write_bytes(b"old")
    limit_files(20_000)
    err = main("-r -e 0", 1)
    assert str(PICTURE) in only_error(err)
    assert PICTURE.read_bytes() == b"old"


def test_folder_that_takes_names_and_no_bytes_is_refused(main):
    limit_files(3)
    err = main("-e 1000", 1)
    assert re.search("--output.*img/gan_results.png", err.splitlines()[-1])


@pytest.mark.parametrize(("seconds", "different"), [(0, 4), (LIMIT, 2)])
def test_models_are_saved_every_so_many_seconds(
    fast_main, seconds, different, saves_always, monkeypatch
):
    saves = []
    fast_main.when("epoch 1 of", lambda: monkeypatch.setattr(demo_gan, "SAVE_SECONDS", seconds))
    for epoch in (1, 2, 3, 4):
        fast_main.when(f"epoch {epoch} of", lambda: saves.append(contents(Path("models"))))
    fast_main("-e 4 -k 1")
    assert len({save[FILES[0]] for save in saves}) == different


def test_failed_save_is_tried_again(fast_main, saves_always):
    saves = []
    fast_main.when("not saved yet", limit_files)
    fast_main.when("epoch 2 of 3", lambda: saves.append(os.listdir("models")))
    limit_files(20_000)
    err = fast_main("-e 3 -k 1")
    assert len(re.findall("WARNING.*not saved yet", err)) == 1
    assert sorted(saves[0]) == FILES


def test_models_whose_folder_is_gone_are_rescued(fast_main, models, temporary):
    def occupy():
        shutil.rmtree(models)
        models.touch()

    fast_main.when("epoch 2 of 2", occupy)
    err = fast_main("-e 2 -k 1", 1)
    (rescue,) = temporary.iterdir()
    *_, line = re.findall("ERROR.*", err)
    assert str(rescue) in line
    loaded(rescue)
    Image.open(PICTURE).close()


@pytest.fixture
def diverging(models):
    """A folder of models that diverge after some epochs."""
    gan = demo_gan.make_gan()
    set_bias(gan.generator_model, 1e38)  # too much for D
    gan.save_model(models)
    return models


@pytest.mark.filterwarnings("ignore:overflow")
def test_divergence_leaves_the_old_models(main, diverging):
    before = contents(diverging)
    limit_files(5_000)  # the animation fails as well
    err = main("-r -e 60 -gif a.gif", 1)
    assert sorted("diverged" in error for error in re.findall("ERROR.*", err)) == [False, True]
    assert re.search("nothing.*saved.*finite.*models are unchanged", err)
    assert contents(diverging) == before


@pytest.mark.filterwarnings("ignore:overflow")
def test_divergence_after_a_save_says_of_which_epoch_the_models_are(main, diverging, saves_always):
    before = contents(diverging)
    err = main("-r -e 60", 1)
    (epoch,) = re.findall(r"nothing saved .*finite; .* models .* after epoch (\d+)", err)
    last_epoch = re.findall(r"epoch (\d+) of 60", err)[-1]
    assert int(epoch) >= int(last_epoch)
    assert contents(diverging) != before
    loaded(diverging)


def test_program_called_by_another_leaves_no_gan_and_the_garbage_collector_as_it_was(main):
    def gans():
        gc.collect()
        return sum(type(item) is demo_gan.GANModel for item in gc.get_objects())

    before = gc.get_freeze_count(), gans()
    main("-e 1 -k 1")
    assert (gc.get_freeze_count(), gans()) == before


@pytest.mark.tools
def test_program_needs_nothing_that_windows_lacks(tmp_path):
    status, _, err = finish(start(DATA / "like_windows.py", cwd=tmp_path))
    assert status == with_graphs(0), err
    assert "window" not in err
    assert sorted(os.listdir(tmp_path)) == ["img", "log", "models", "training.gif"]
