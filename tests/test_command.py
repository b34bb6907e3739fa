"""The program: its command line, what it leaves behind, and what happens when things go wrong."""

import contextlib
import csv
import fcntl
import json
import logging
import os
import pathlib
import pty
import random
import re
import resource
import shutil
import signal
import sys
import termios
import time

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow as tf
from conftest import (
    ROOT,
    contents,
    finish,
    needs,
    same,
    start,
    start_demo,
    virtual_display,
    wait_for,
    weights,
    with_graphs,
)
from PIL import Image

import demo_gan

FILES = ["gan_discriminateor.h5", "gan_generator.h5"]
QUIET = {"DISPLAY": ""}


def loaded(folder):
    gan = demo_gan.make_gan()
    gan.load_model(folder)
    return weights(gan.generator_model, gan.discriminateor_model)


@pytest.fixture
def main(tmp_path, monkeypatch, capsys, no_display):
    """Runs the program in this process, in an empty folder; returns status and standard error."""
    monkeypatch.chdir(tmp_path)
    root, numbers = logging.getLogger(), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    level, log_handlers, own_level = root.level, list(root.handlers), demo_gan.LOG.level

    def run(*arguments):
        handlers = [signal.getsignal(number) for number in numbers]
        try:
            status = demo_gan.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code
        assert [signal.getsignal(number) for number in numbers] == handlers, "not put back"
        run.out, err = capsys.readouterr()
        return status, err

    yield run
    root.setLevel(level)
    root.handlers[:] = log_handlers
    demo_gan.LOG.setLevel(own_level)


@pytest.fixture
def full_disk():
    """Makes files of more than so many bytes fail, as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.tools
def test_a_run_leaves_files_and_says_where_and_its_last_numbers_are_of_the_models(trained):
    assert sorted(os.listdir(trained / "models")) == FILES
    err = (trained / "stderr.txt").read_text()
    for file in ("img/gan_results.png", "training.gif", "log/training.csv"):
        assert (trained / file).stat().st_size > 1000
        assert file in err
    graphs = [plt.imread(path).shape[:2] for path in (trained / "log").glob("*.png")]
    assert len(graphs) == 2 - 2 * with_graphs(0)
    assert all(900 < height < 1500 and width > 200 for height, width in graphs)  # each layer's box
    rows = list(csv.DictReader((trained / "log" / "training.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 21))
    for row in rows:
        assert min(float(row["dis_loss"]), -float(row["gen_loss"]), float(row["w1"])) > 0

    gan, samples = demo_gan.make_gan(), demo_gan.make_samples(3200, 4, seed=0)
    gan.load_model(trained / "models")
    real, generated = samples["y"], np.array(gan.generator_model(samples["x"]))
    w1 = np.abs(np.sort(generated[:, 0]) - np.sort(real[:, 0])).mean()
    judged = np.mean(gan.discriminateor_model(generated))
    expected = generated.mean(), generated.std(), real.mean(), real.std(), w1, judged
    (line,) = re.findall(".*Wasserstein-1.*", err)
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d{3}\b", line)]
    np.testing.assert_allclose(numbers, expected, atol=6e-4)


@pytest.mark.tools
def test_into_a_pipe_there_are_few_plain_lines_and_nothing_to_worry_about(trained):
    assert (trained / "stdout.txt").read_text() == ""
    lines = (trained / "stderr.txt").read_text().splitlines()
    # TensorFlow says things before its own log is set up, which no variable turns down; and the
    # graphs take Graphviz.
    others = "WARNING: All log messages|[EI]0000 " + ("" if shutil.which("dot") else "|.*graph")
    ours = [line for line in lines if not re.match(others, line)]
    assert len(ours) < 20
    form = r"\[\d{4}-\d\d-\d\d [\d:,]+\] INFO demo_gan.py:\w+:\d+ > [^\x1b\b\r]*"
    assert [line for line in ours if not re.fullmatch(form, line)] == []
    assert not re.search("WARN|Warn|Traceback|window", "".join(ours))
    assert re.findall(r"epoch (\d+) of 20", "".join(ours)) == [str(n) for n in range(2, 21, 2)]


def test_resuming_goes_on_from_the_saved_models(main, models):
    before = loaded(models)
    assert main("-r", "-e", 1, "-k", 1, "-o", "a.svg")[0] == 0
    assert "<!-- K = 1, 1 more epochs" in pathlib.Path("a.svg").read_text()
    moved = np.concatenate([np.ravel(a - b) for a, b in zip(before, loaded(models), strict=True)])
    assert 0 < np.abs(moved).max() < 0.01


@pytest.mark.tools
@pytest.mark.parametrize("level", ["INFO", "debug", "Warn", "err"])
def test_resuming_for_no_epochs_draws_what_is_saved_at_any_log_level(level, main, models, tmp_path):
    before, untouched = contents(models), models.stat().st_mtime_ns
    status, err = main(*f"-r -e 0 -o log/picture.png -log log -log_lvl {level}".split())
    assert (status, models.stat().st_mtime_ns) == (with_graphs(0), untouched)  # may be read-only
    assert ("INFO" in err) == (level in ("INFO", "debug"))
    assert set(re.findall(r"[A-Z]+ (\w+\.py):", err)) <= {"demo_gan.py"}
    assert contents(models) == before
    assert sorted(os.listdir(tmp_path)) == ["log", "models"]
    assert {path.suffix for path in pathlib.Path("log").iterdir()} == {".png"}  # and no empty CSV


def test_a_data_set_of_which_not_all_can_be_shown_has_a_picture(main):
    assert main("-b", 201, "-e", 2, "-k", 1)[0] == 0
    Image.open("img/gan_results.png").close()


def test_names_of_255_bytes_a_frame_every_so_many_epochs_and_another_seed(main, trained):
    png, gif = (f"{'é' * 125}x.{ending}" for ending in ("PNG", "GIF"))
    assert main("-e", 20, "-s", 2, "-o", png, "-gif", gif, "-every", 6)[0] == 0
    assert sorted(os.listdir()) == sorted(["models", gif, png])
    assert not same(loaded("models"), loaded(trained / "models"))
    with Image.open(gif) as image:
        assert image.n_frames == 4  # 6, 12, 18, and the last


def test_on_another_backend_it_says_in_one_sentence_what_to_do():
    script = "import keras; keras.config.backend = lambda: 'jax'; import demo_gan"
    status, _, err = finish(start("-c", script))
    assert status == 1
    assert re.fullmatch("ImportError: .*TensorFlow.*before keras.*", err.splitlines()[-1])


def test_help_has_each_flag_with_its_default(capsys):
    with pytest.raises(SystemExit, match="0"):
        demo_gan.parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for flag, default in vars(demo_gan.parse_args([])).items():
        assert re.search(rf"--{flag}\b(?:(?!, --).)*?\(default: {default}\)", text), flag


BAD = [  # the status, what the last line says, and command lines
    (2, "--epoch", ["-e -1", "-e 1.5", "-e 0"]),
    (2, "--batch_size.*9", ["-b 99999999999999999999"]),
    (2, "--(step_per|noise_dim|plot_every).* 0$", ["-k 0", "-n 0", "-every 0"]),
    (2, "--seed.* 4294967296$", ["-s 4294967296"]),
    (2, "--log_lvl.*'loud'", ["-log_lvl loud"]),
    (2, "--output.*'(picture|.png)", ["-o picture.doc", "-o .png"]),
    (2, "--gif.*'(x.mp4|.gif)", ["-gif x.mp4", "-gif .gif"]),
    (2, "--epoch.* 0$", ["-r -e 0 -m saved -gif x.gif"]),
    (2, "--gif.*-every 2", ["-gif x.gif -e 1001"]),
    (2, "--gif.*-every 3", ["-gif x.gif -e 2001 -every 2"]),
    (1, "--model_dir.*file", ["-m file", "-m file/models"]),
    (1, "--model_dir.*taken/gan_generator.h5", ["-m taken"]),
    (1, "--output.*x.png", ["-o x.png", "-o file/x.png", f"-o {252 * 'x'}.png"]),
    (1, "--gif.*x.gif", ["-gif /proc/x.gif", f"-gif {252 * 'x'}.gif"]),
    (1, "--log_dir.*file", ["-log file"]),
    (1, "--log_dir.*training.csv", ["-log taken_log", "-log nowhere"]),
    (1, "--log_dir.*gan_generator_model.png", ["-log taken_graphs"]),
    (1, "--resume.*typo/gan_generator.h5", ["-r -m typo"]),
    (1, r"saved/gan_generator.h5.*-n\b", ["-r -m saved -n 1"]),
    (1, "damaged/gan_generator.h5", ["-r -m damaged -log kept"]),
    (1, "--batch_size.*--noise_dim", ["-b 2000000000", "-b 1 -n 2000000000"]),
]


@pytest.mark.tools
@pytest.mark.parametrize(("expected", "message", "lines"), BAD)
def test_what_cannot_work_is_refused(main, expected, message, lines, trained, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "x.png").mkdir()
    (tmp_path / "taken" / FILES[1]).mkdir(parents=True)
    (tmp_path / "taken_log" / "training.csv").mkdir(parents=True)
    (tmp_path / "taken_graphs" / "gan_generator_model.png").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "training.csv").write_text("of the run before")
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / "training.csv").symlink_to(tmp_path / "nothing" / "here")
    (tmp_path / "saved").symlink_to(trained / "models")
    shutil.copytree(trained / "models", tmp_path / "damaged")
    os.truncate(tmp_path / "damaged" / FILES[1], 20_000)
    before = sorted(tmp_path.rglob("*"))
    for line in lines:
        status, err = main("-e", 1000, *line.split())
        assert status == expected
        *usage, last = without_graphs(err).splitlines()
        assert re.search(message, last)
        assert bool(usage) == (status == 2)
    assert status == 1 or sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "kept" / "training.csv").read_text() == "of the run before"
    assert [*tmp_path.rglob("typo"), *tmp_path.rglob(".*")] == []


@pytest.mark.parametrize(
    ("number", "expected"), [(None, 0), (signal.SIGTERM, 143), (signal.SIGINT, 1)]
)
def test_a_terminal_shows_one_line_and_the_models_are_saved(number, expected, trained, tmp_path):
    models, temporary = tmp_path / "models", tmp_path / "temporary"
    temporary.mkdir()
    settings = {"floatx": "float16", "epsilon": 0.5, "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps({**settings, "backend": "jax"}))
    env = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "torch", "TMPDIR": str(temporary)}
    terminal, slave = pty.openpty()
    epochs, options = 490 if number else 20, {"cwd": tmp_path, "stdout": slave}
    process = start_demo("-e", epochs, "-s", 0, env={**QUIET, **env}, **options)
    os.close(slave)
    shown = ""
    with contextlib.suppress(OSError):  # so a pseudo-terminal says that its other end is closed
        while chunk := os.read(terminal, 4096).decode():
            shown += chunk
            if number and "gen_loss" in shown:
                shutil.rmtree(models)
                if number == signal.SIGINT:  # something else is in its place
                    models.touch()
                process.send_signal(number)
                number = None
    os.close(terminal)
    status, _, err = finish(process)
    assert status == expected, err
    assert not re.search("Traceback|> epoch", err)
    done = re.findall(rf"interrupted after (\d+) of {epochs}", err) if status else ["20"]
    assert [int(n) < epochs for n in done] == [bool(status)]
    *_, last, nothing = re.split("[\r\b\n]+", re.sub(r"\x1b\[\d*m", "", shown))
    assert re.search(rf"{'/'.join(done)}/{epochs}.*dis_loss: \d.*gen_loss: -?\d", last)
    assert (len(last) < 100, nothing, shown.count("\n")) == (True, "", 1)
    (folder,) = [models] if models.is_dir() else temporary.glob("gan_models_*")
    assert [str(folder) in e for e in re.findall("ERROR.*", err)] == [False, True] * (status == 1)
    assert same(loaded(folder), loaded(trained / "models")) == (status == 0)
    *_, row = csv.DictReader((trained / "log" / "training.csv").read_text().splitlines())
    losses = [f"{name}: {float(row[name]):.4f}" for name in ("dis_loss", "gen_loss")]
    assert all(loss in last for loss in losses) == (status == 0)
    Image.open(tmp_path / "img" / "gan_results.png").close()


# -- signals ------------------------------------------------------------------------------

BEFORE = ["make_and_try_places", "make_samples", "make_gan", "shown_rows", "trace"]
AFTER = ["log_result", "save_picture", "write_networks"]


def come(monkeypatch, number, function, times=1):
    """Have a signal come when the program first calls one of its functions."""
    called = getattr(demo_gan, function)

    def interrupted(*arguments, **settings):
        if not comes:
            comes.append(number)
            for _ in range(times):
                signal.raise_signal(number)
        return called(*arguments, **settings)

    comes = []
    monkeypatch.setattr(demo_gan, function, interrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("function", BEFORE)
def test_an_early_signal_changes_nothing(main, models, function, number, monkeypatch, tmp_path):
    before = contents(models)
    come(monkeypatch, number, function)
    status, err = main("-e", 2, "-k", 1, "-gif", "a.gif")
    assert status == 128 + number
    assert re.search("interrupted after 0 of 2 epochs", err)
    assert not re.search("epoch [12] of 2", err)
    assert contents(models) == before
    assert [path for path in tmp_path.rglob("*.*") if path.suffix in (".png", ".gif")] == []


def test_a_signal_while_the_first_epochs_run_saves_nothing_and_says_so(main, models, monkeypatch):
    before = contents(models)
    monkeypatch.setattr(demo_gan, "SAVE_SECONDS", 0)
    come(monkeypatch, signal.SIGINT, "all_finite")  # of what the first call left
    status, err = main("-e", 5, "-k", 1)
    assert status == 130
    assert re.findall(r"epoch (\d) of 5", err)[-1] in re.findall(r"after (\d) of 5 epochs", err)
    assert contents(models) == before
    assert not pathlib.Path("img/gan_results.png").exists()


def test_an_error_in_mid_training_is_one_line_and_costs_no_epoch(main, models, monkeypatch):
    before, draw, drawn = contents(models), random.randint, []

    def fail_later(*arguments):
        drawn.append(arguments)
        if len(drawn) > 30:
            raise tf.errors.ResourceExhaustedError(None, None, "")
        return draw(*arguments)

    monkeypatch.setattr(random, "randint", fail_later)
    status, err = main("-e", 20, "-k", 1, "-o", "a.svg", "-log_lvl", "debug")
    assert status == 1
    assert (err.count("ERROR"), err.count("in fail_later")) == (1, 1)  # where, it says for debug
    assert "--batch_size" in re.findall("ERROR.*", err)[0]
    assert contents(models) != before
    (trained,) = re.findall(r"<!-- K = 1, (\d+) epochs", pathlib.Path("a.svg").read_text())
    assert re.findall(r"epoch (\d+) of 20", err)[-1] in (trained, str(int(trained) - 1))


def test_a_run_under_nohup_writes_row_by_row_and_does_not_hear_a_terminal_that_hangs_up(tmp_path):
    file = tmp_path / "log" / "training.csv"
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    file.parent.mkdir()
    file.write_text("of the run before\n")
    process = start_demo("-e", 2000, "-k", 1, "-log", "log", cwd=tmp_path, env=QUIET, **ignore)
    # A buffer that is written when it is full brings more of them at once.
    wait_for(lambda: file.exists() and 5 < file.read_text().count("\n") < 100, process)
    process.send_signal(signal.SIGHUP)
    status, _, err = finish(process)
    assert status == with_graphs(0)
    assert "epoch 2000 of 2000" in err
    w1 = [row.split(",")[3] for row in file.read_text().splitlines()]
    assert (len(w1), w1[1] == "NA", w1[-2], w1[-1] == "NA") == (2001, False, "NA", False)


# Twice, as a terminal does that is closed; a second Ctrl-C is meant to cost something.
@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
@pytest.mark.parametrize("function", AFTER)
def test_a_signal_after_training_costs_nothing(
    main, models, function, number, times, monkeypatch, tmp_path
):
    before = contents(models)
    come(monkeypatch, number, function, times)
    status, err = main("-e", 2, "-k", 1)
    assert status == 128 + number
    assert "models saved in models" in err
    assert all(before[name] != content for name, content in contents(models).items())
    assert len(loaded(models)) == 12
    Image.open(tmp_path / "img" / "gan_results.png").close()


def test_ctrl_c_while_python_imports_says_nothing():
    process = start("-X", "importtime", ROOT / "demo_gan.py")  # which tells what was imported
    while "numpy" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert (status, re.findall("Traceback|Interrupt", err)) == (130, [])


@pytest.mark.tools
@pytest.mark.parametrize("seconds", [0, 0.6])
def test_a_signal_while_it_compiles_leaves_the_old_models(models, tmp_path, seconds):
    before = contents(models)
    process = start_demo("-r", "-e", 10**6, "-log", "log", cwd=tmp_path, env=QUIET)
    wait_for((tmp_path / "log" / "training.csv").exists, process)  # and now it compiles
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == with_graphs(130)
    assert "Traceback" not in err
    assert contents(models) == before


@pytest.mark.tools
def test_a_second_ctrl_c_ends_a_program_that_hangs(tmp_path):
    file = tmp_path / "log" / "training.csv"
    file.parent.mkdir()
    os.mkfifo(file)  # writing there hangs as soon as it is full
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)

    def unread():
        return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder)

    process = start_demo("-e", 9999, "-k", 1, "-log", "log", cwd=tmp_path, env=QUIET)
    wait_for(lambda: unread() > 4000, process)
    for _ in range(2):
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    assert finish(process, timeout=10)[0] in (with_graphs(130), -signal.SIGINT)
    os.close(reader)


# -- what is only looked at ---------------------------------------------------------------

TOOLKIT = """
import signal
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from test_command import FAILS, STATE

def at(moment):
    STATE.append(moment)
    for when, number, error in FAILS:
        if when == moment and STATE.count(moment) >= number:
            raise error

class FigureManager(FigureManagerBase):
    def show(self):
        at("show")

    def destroy(self):
        at("close")

class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager

    def __init__(self, figure):
        super().__init__(figure)
        self.required_interactive_framework = "made for a test"
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as wx does
        at("figure")

    def blit(self, box=None):
        at("blit")

    def start_event_loop(self, timeout=0):
        at("wait")
"""
FAILS, STATE = [], []  # the moment, the how manieth, the error; what was done


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """A window without a display, of a toolkit that fails when it is told to."""
    (tmp_path / "a_toolkit.py").write_text(TOOLKIT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_toolkit", raising=False)
    monkeypatch.setitem(sys.modules, "test_command", sys.modules[__name__])
    plt.switch_backend("module://a_toolkit")
    yield FAILS
    plt.switch_backend("agg")
    FAILS.clear()
    STATE.clear()


def assert_all_else_is_there(status, err, named, epochs):
    """One line says what is left out; training was whole, models and picture are saved."""
    assert status == 1
    (line,) = re.findall("ERROR.*", err)
    assert re.search(named, line)
    assert f"epoch {epochs} of {epochs}" in err
    assert len(re.findall("epoch .* of", err)) == 10
    assert "models saved in models" in err
    Image.open("img/gan_results.png").close()


def test_a_window_that_works_is_shown_every_epoch_and_closed(main, toolkit):
    for every, frames in ((1, 21), (6, 5)):
        STATE.clear()
        assert main("-e", 20, "-k", 1, "-every", every)[0] == 0
        counts = [STATE.count(moment) for moment in ("show", "blit", "wait", "close")]
        assert counts == [1, frames, frames, 1]


@pytest.mark.parametrize(
    ("moment", "number", "error"),
    [
        ("figure", 1, SystemExit("no display")),  # as wx does
        ("figure", 1, RuntimeError("broken")),
        ("show", 1, RuntimeError("broken")),
        ("blit", 1, RuntimeError("broken")),
        ("blit", 2, AssertionError()),
        ("blit", 9, RuntimeError("broken")),
        ("wait", 1, RuntimeError("broken")),
        ("wait", 9, SystemExit("broken")),
        ("close", 1, RuntimeError("broken")),
    ],
)
def test_a_window_that_fails_is_left_out(main, models, toolkit, moment, number, error):
    before = contents(models)
    toolkit.append((moment, number, error))
    status, err = main("-e", 10, "-k", 1, "-gif", "a.gif")
    assert_all_else_is_there(status, err, "live picture", epochs=10)
    assert contents(models) != before
    assert STATE.count("close") == (moment != "figure")
    with Image.open("a.gif") as image:
        assert image.n_frames == 10


def without_graphs(err):
    """What was said, but for that there is no Graphviz."""
    return err if shutil.which("dot") else re.sub(".*ERROR.*> the graph .*\n", "", err)


def test_a_toolkit_that_takes_ctrl_c_gives_it_back(main, toolkit, monkeypatch):
    come(monkeypatch, signal.SIGINT, "gan_state")  # of the first epoch
    status, err = main("-e", 20, "-k", 1, "-o", "a.svg")
    assert status == 130
    assert "interrupted after 1 of 20 epochs" in err
    assert "models saved in models" in err
    assert "<!-- K = 1, 1 epochs, noise_dim = 4, W1 = " in pathlib.Path("a.svg").read_text()


def test_a_window_that_cannot_blit_is_not_opened(main, toolkit, tmp_path):
    cairo = (tmp_path / "a_toolkit.py").read_text().replace("(FigureCanvasAgg)", "(NoAgg)")
    cairo = "from matplotlib.backend_bases import FigureCanvasBase as NoAgg\n" + cairo
    (tmp_path / "like_cairo.py").write_text(cairo)
    plt.switch_backend("module://like_cairo")
    status, err = main("-e", 2, "-k", 1)
    assert (status, re.findall("WARN|ERROR", err)) == (0, [])
    assert "figure" in STATE
    assert "blit" not in STATE
    assert plt.get_fignums() == []


@pytest.mark.parametrize(("error", "expected"), [("ImportError", 0), ("RuntimeError", 1)])
def test_a_toolkit_that_is_missing_is_no_failure_and_one_that_is_broken_is(
    error, expected, tmp_path
):
    (tmp_path / "broken_toolkit.py").write_text(f"raise {error}('no toolkit')")
    env = {"MPLBACKEND": "module://broken_toolkit", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = start_demo("-e", 2, "-k", 1, cwd=tmp_path, env=env)
    status, _, err = finish(process)
    assert status == expected, err
    assert ["live picture" in line for line in re.findall("ERROR.*", err)] == [True] * expected
    assert len(loaded(tmp_path / "models")) == 12


@pytest.mark.tools
@pytest.mark.parametrize(("epochs", "others"), [(23, ""), (2000, "-gif a.gif -every 100")])
def test_a_csv_that_cannot_be_written_is_left_out(main, epochs, others, tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "training.csv").symlink_to("/dev/full")
    status, err = main("-e", epochs, "-k", 1, "-log", "log", *others.split())
    assert_all_else_is_there(status, without_graphs(err), "log/training.csv", epochs)


def test_a_gan_that_cannot_be_looked_at_is_trained_and_saved(main, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(np, "quantile", fail)
    status, err = main("-e", 20, "-k", 1)
    assert status == 1
    assert re.findall("ERROR.*(the look|the picture)", err) == ["the look", "the picture"]
    assert "epoch 20 of 20" in err
    assert "models saved in models" in err


DOTS = {"none": None, "crashes": "#!/bin/sh\nkill -SEGV $$", "is no program": ""}


@pytest.mark.tools
@pytest.mark.parametrize("dot", DOTS)
def test_graphs_that_cannot_be_drawn_are_left_out(main, dot, monkeypatch, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sh").symlink_to(shutil.which("sh"))
    if DOTS[dot] is not None:
        (tools / "dot").write_text(DOTS[dot])
        (tools / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    status, err = main("-e", 10, "-k", 1, "-log", "log")
    assert status == 1
    names = re.findall(r"ERROR.*graph log/gan_(\w+)_model.png.*: .+", err)
    assert sorted(names) == ["discriminateor", "generator"]
    assert os.listdir("log") == ["training.csv"]
    assert "models saved in models" in err
    assert main.out == ""


@pytest.mark.tools
def test_a_display_that_is_lost_costs_no_more_than_the_time_between_two_saves(tmp_path):
    needs("Xvfb")
    script = "import demo_gan, sys; demo_gan.SAVE_SECONDS = 0.3; demo_gan.main(sys.argv[1:])"
    with virtual_display() as (display, server):
        options = {"cwd": tmp_path, "env": {"DISPLAY": display}}
        process = start("-c", script, "-e", 9999, "-k", 1, **options)
        wait_for(lambda: all((tmp_path / "models" / file).exists() for file in FILES), process)
        server.kill()
        finish(process, timeout=30)
    assert len(loaded(tmp_path / "models")) == 12


# -- saving, whatever happens -------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's temporary folder, an empty one for this test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


@pytest.mark.parametrize(
    ("size", "line", "named", "saved"),
    [
        (30_000, "-r -e 1 -k 1", "models", []),
        (20_000, "-r -e 0", "img/gan_results.png", []),
        (300_000, "-r -e 60 -k 1 -gif a.gif", "a.gif", ["models", "img/gan_results.png"]),
    ],
)
def test_a_full_disk_is_told_with_the_file_and_all_else_is_saved_or_as_it_was(
    main, models, temporary, full_disk, size, line, named, saved
):
    before = contents(models)
    pictures = [pathlib.Path("a.gif"), pathlib.Path("img/gan_results.png")]
    pictures[1].parent.mkdir()
    for picture in pictures:
        picture.write_bytes(b"old")
    full_disk(size)
    status, err = main(*line.split())
    assert status == 1
    assert re.search(named, re.findall("ERROR.*", err)[0])
    assert (contents(models) != before) == ("models" in saved)
    for picture in pictures:
        assert (picture.read_bytes() == b"old") == (str(picture) not in saved)
    assert [*temporary.iterdir(), *models.glob(".*")] == []


def test_a_folder_that_takes_names_and_no_bytes_is_found_out_before_training(main, full_disk):
    full_disk(3)
    status, err = main("-e", 1000)
    assert status == 1
    assert re.search("--output.*img/gan_results.png", err.splitlines()[-1])


def test_while_it_trains_models_are_saved_now_and_then_also_after_a_save_that_failed(
    main, monkeypatch
):
    usage, tries = shutil.disk_usage, []

    def no_room_at_first(place):
        tries.append(time.monotonic())
        return usage(place)._replace(free=0 if len(tries) == 1 else 2**30)

    monkeypatch.setattr(shutil, "disk_usage", no_room_at_first)
    monkeypatch.setattr(demo_gan, "SAVE_SECONDS", 0.3)
    status, err = main("-e", 1000, "-k", 1)
    assert status == 0
    assert len(re.findall("WARNING.*not saved yet.*room", err)) == 1
    assert "epoch 1000 of 1000" in err
    assert 2 < len(tries) <= (tries[-1] - tries[0]) / 0.3 + 2


@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("slist"), KeyError()])
def test_models_that_cannot_be_saved_are_somewhere(main, models, temporary, error, monkeypatch):
    save, before = keras.Sequential.save, contents(models)

    def fail(network, path, **settings):
        if models.resolve() in pathlib.Path(path).resolve().parents:
            raise error
        save(network, path, **settings)

    monkeypatch.setattr(keras.Sequential, "save", fail)
    status, err = main("-e", 2, "-k", 1)
    assert status == 1
    (rescue,) = temporary.iterdir()
    _, line = re.findall("ERROR.*", err)
    assert str(rescue) in line
    assert len(loaded(rescue)) == 12
    assert contents(models) == before
    assert list(models.glob(".*")) == []
    Image.open("img/gan_results.png").close()


def test_warnings_that_are_errors_lose_no_model(tmp_path):
    env = {**QUIET, "PYTHONWARNINGS": "error"}
    status, _, err = finish(start_demo("-e", 2, "-k", 1, cwd=tmp_path, env=env))
    assert status == 0, err
    assert len(loaded(tmp_path / "models")) == 12


@pytest.mark.filterwarnings("ignore:overflow")
def test_divergence_is_what_is_reported_and_leaves_the_models(main, models, full_disk):
    gan = demo_gan.make_gan()
    *zeros, bias = [np.zeros_like(weight) for weight in gan.generator_model.get_weights()]
    gan.generator_model.set_weights([*zeros, bias + 1e38])  # too much for D after some epochs
    gan.save_model(models)
    before = contents(models)
    full_disk(5_000)  # so the animation fails besides
    status, err = main("-r", "-e", 60, "-gif", "a.gif")
    assert status == 1
    assert sorted("diverged" in error for error in re.findall("ERROR.*", err)) == [False, True]
    assert "nothing is saved, as weights are not finite" in err
    assert contents(models) == before


WINDOWS = """
import logging, os, random, shutil, signal, sys
import h5py, keras, matplotlib.pyplot, numpy, PIL.Image, tensorflow

def state():
    root, numbers = logging.getLogger(), (signal.SIGINT, signal.SIGTERM)
    return [[signal.getsignal(number) for number in numbers], root.level, list(root.handlers),
            random.getstate(), str(numpy.random.get_state()), dict.__repr__(matplotlib.rcParams)]

for name in ("set_blocking fork getuid geteuid getpgid killpg chown fchmod fchown mkfifo "
             "sync uname nice register_at_fork O_DIRECTORY O_NOFOLLOW O_CLOEXEC").split():
    delattr(os, name)
for name in "SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGALRM alarm pthread_sigmask set_wakeup_fd".split():
    delattr(signal, name)
sys.modules.update(dict.fromkeys("fcntl resource pwd grp termios pty tkinter _tkinter".split()))
shutil._use_fd_functions = False  # so rmtree does without opening folders

def refused(function, refuse):
    def wrapper(*paths, **options):
        if any(refuse(os.path.realpath(path)) for path in paths if not isinstance(path, int)):
            raise PermissionError(13, "Permission denied", *paths[:1])
        return function(*paths, **options)
    return wrapper

def in_use(path):
    numbers = os.listdir("/proc/self/fd")
    return path in [os.path.realpath(f"/proc/self/fd/{number}") for number in numbers]

for name in ("rename", "replace", "remove", "unlink"):
    setattr(os, name, refused(getattr(os, name), in_use))
os.open = refused(os.open, os.path.isdir)

before = state()
import demo_gan
assert state() == before
line = "-e 2 -k 1 -log log -gif training.gif".split()
first = demo_gan.main(line)
sys.stdout = None  # as pythonw has it
sys.exit(first or demo_gan.main([*line, "-r"]))
"""


@pytest.mark.tools
def test_the_program_uses_nothing_that_windows_lacks_and_its_import_changes_nothing(tmp_path):
    status, _, err = finish(start("-c", WINDOWS, cwd=tmp_path, env=QUIET))
    assert (status, "window" in err) == (with_graphs(0), False), err
    assert sorted(os.listdir(tmp_path)) == ["img", "log", "models", "training.gif"]
