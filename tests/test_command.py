"""The program: its command line, what it leaves behind, and what happens when things go wrong."""

import csv
import fcntl
import json
import logging
import os
import pty
import re
import resource
import shutil
import signal
import struct
import sys
import termios
import time

import numpy as np
import pytest
from conftest import finish, needs, same, start, start_demo, virtual_display, weights
from PIL import Image

import app_logger
import demo_gan

FILES = ["gan_discriminateor.h5", "gan_generator.h5"]
QUIET = {"DISPLAY": ""}


def loaded(folder):
    gan = demo_gan.make_gan()
    gan.load_model(folder)
    return weights(gan.generator_model, gan.discriminateor_model)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def errors(err):
    return [line for line in err.splitlines() if "ERROR" in line]


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


@pytest.fixture
def main(tmp_path, monkeypatch, capsys, no_display):
    """Runs the program in this process, in an empty folder; returns status and standard error."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level, log_handlers = root.level, list(root.handlers)

    def run(*arguments):
        try:
            status = demo_gan.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code
        return status, capsys.readouterr().err

    yield run
    root.setLevel(level)
    root.handlers[:] = log_handlers


@pytest.fixture
def full_disk():
    """Makes files of more than so many bytes fail, as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


# -- a run --------------------------------------------------------------------------------


def test_a_run_leaves_models_picture_animation_and_csv_and_says_where(trained):
    err = (trained / "stderr.txt").read_text()
    assert sorted(os.listdir(trained / "models")) == FILES
    for file in ("img/gan_results.png", "training.gif", "log/training.csv"):
        assert (trained / file).stat().st_size > 1000
        assert file in err
    rows = list(csv.DictReader((trained / "log" / "training.csv").open(newline="")))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 21))
    assert all(float(row["dis_loss"]) > 0 > float(row["gen_loss"]) for row in rows)
    assert all(float(row["w1"]) > 0 for row in rows)


def test_the_last_numbers_of_the_log_are_those_of_the_saved_models(trained):
    (line,) = re.findall(r".*Wasserstein-1.*", (trained / "stderr.txt").read_text())
    gan = demo_gan.make_gan()
    gan.load_model(trained / "models")
    samples = demo_gan.make_samples(3200, 4, seed=1)
    real, generated = samples["y"], np.array(gan.generator_model(samples["x"]))
    w1 = np.abs(np.sort(generated[:, 0]) - np.sort(real[:, 0])).mean()
    judged = np.mean(gan.discriminateor_model(generated))
    expected = generated.mean(), generated.std(), real.mean(), real.std(), w1, judged
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d{3}\b", line)]
    np.testing.assert_allclose(numbers, expected, atol=6e-4)


def test_into_a_pipe_there_are_few_plain_lines_and_nothing_to_worry_about(trained):
    out, err = ((trained / f"std{stream}.txt").read_text() for stream in ("out", "err"))
    ours = [line for line in err.splitlines() if line.startswith("[")]
    ours = [line for line in ours if "Graphviz" not in line]
    assert out == ""
    assert len(ours) < 20
    assert not re.search("WARN|Warn|Traceback|window|[\x1b\b\r]", "".join(ours))
    # Before its own log is set up, TensorFlow says things that no variable turns down.
    others = set(err.splitlines()) - set(ours)
    assert all(
        re.match(r"WARNING: All log messages before|[EI]0000 |.*Graphviz", o) for o in others
    )


def test_one_seed_gives_identical_models_and_another_one_others(main, trained):
    assert main("-e", 20, "-s", 1)[0] == 0
    assert same(loaded("models"), loaded(trained / "models"))
    assert main("-e", 20, "-s", 2)[0] == 0
    assert not same(loaded("models"), loaded(trained / "models"))


def test_resuming_goes_on_from_the_saved_models(main, models):
    before = loaded(models)
    status, err = main("-r", "-e", 1, "-k", 1)
    assert status == 0, err
    moved = np.concatenate([np.ravel(a - b) for a, b in zip(before, loaded(models), strict=True)])
    assert 0 < np.abs(moved).max() < 0.01


def test_resuming_for_no_epochs_draws_what_is_saved(main, models, tmp_path):
    before = contents(models)
    assert main("-r", "-e", 0, "-o", "picture.png")[0] == 0
    assert contents(models) == before
    assert sorted(os.listdir(tmp_path)) == ["models", "picture.png"]


def test_names_of_255_bytes_work_to_the_end(main, tmp_path):
    picture, animation = (tmp_path / f"{'é' * 125}x.{ending}" for ending in ("png", "gif"))
    assert main("-e", 1, "-k", 1, "-o", picture.name, "-gif", animation)[0] == 0
    for file in (picture, animation):
        with Image.open(file) as image:
            image.load()


def test_without_graphviz_there_is_a_warning_and_all_else_goes_on(main, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, err = main("-e", 1, "-k", 1, "-log", "log")
    assert status == 0
    assert re.search("WARNING.*[Gg]raphviz", err)
    assert os.listdir("log") == ["training.csv"]
    assert sorted(os.listdir("models")) == FILES


def test_help_has_each_flag_with_its_default(main, capsys):
    defaults = {
        "epoch": 10, "batch_size": 32, "model_dir": "models", "log_dir": None, "log_lvl": "info",
        "step_per": 20, "noise_dim": 4, "seed": None, "output": "img/gan_results.png",
        "gif": None, "plot_every": 1, "resume": False,
    }  # fmt: skip
    assert vars(demo_gan.parse_args([])) == defaults
    with pytest.raises(SystemExit, match="0"):
        demo_gan.parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for flag, default in defaults.items():
        shown = {None: "none", False: "off"}.get(default, default)
        assert re.search(rf"--{flag}\b(?:(?!, --).)*?\(default: {shown}\)", text), flag


@pytest.mark.parametrize("name", ["INFO", "debug", "Warn", "WARNING", "error", "err"])
def test_log_levels_are_taken_in_any_case(name, main, models):
    status, err = main("-r", "-e", 0, "-log_lvl", name)
    assert status == 0
    assert ("INFO" in err) == (name in ("INFO", "debug"))


# -- bad command lines and places ---------------------------------------------------------

BAD_COMMAND_LINES = {
    "-e -1": "-e",
    "-e 1.5": "--epoch.*'1.5'",
    "-e many": "--epoch.*'many'",
    "-e 0": "--epoch.*--resume",
    "-e": "--epoch",
    "-b 0": "--batch_size.*'0'",
    "-b 99999999999999999999": "--batch_size.*'9999",
    "-k 0": "--step_per.*'0'",
    "-n 0": "--noise_dim.*'0'",
    "-every 0": "--plot_every.*'0'",
    "-s x": "--seed.*'x'",
    "-s 4294967296": "--seed.*'4294967296'",
    "-log_lvl loud": "--log_lvl.*'loud'",
    "-o picture.doc": "--output.*picture.doc",
    "-o picture": "--output.*'picture'",
    "-gif x.mp4": "--gif.*x.mp4",
    "-gif x.gif -e 1001": "--gif.*-every 2",
    "-gif x.gif -e 2001 -every 2": "--gif.*-every 3",
    "--epochs 3": "--epochs",
    "200": "200",
}


@pytest.mark.parametrize(("line", "message"), BAD_COMMAND_LINES.items(), ids=BAD_COMMAND_LINES)
def test_a_bad_command_line_ends_with_status_2_and_names_the_flag(main, line, message, tmp_path):
    status, err = main(*line.split())
    assert status == 2
    assert re.search(message, err.splitlines()[-1])
    assert os.listdir(tmp_path) == []


BAD_PLACES = {
    "-m file": "--model_dir.*file",
    "-m file/models": "--model_dir.*file/models",
    "-m taken": "--model_dir.*taken/gan_generator.h5",
    "-o folder.png": "--output.*folder.png",
    "-o file/x.png": "--output.*file/x.png",
    "-o /proc/x.png": "--output.*/proc/x.png",
    f"-o {252 * 'x'}.png": "--output.*xxx.png",
    "-gif file/x.gif": "--gif.*file/x.gif",
    f"-gif {252 * 'x'}.gif": "--gif.*xxx.gif",
    "-log file": "--log_dir.*file",
    "-r -m nothing": "--resume.*nothing/gan_generator.h5",
    "-r -m saved -n 1": "--noise_dim.*saved.* 4.*-n 4",
    "-r -m damaged": "damaged/gan_generator.h5",
    "-b 2000000000": "allocate",
}


@pytest.mark.parametrize(("line", "message"), BAD_PLACES.items(), ids=lambda text: text[:16])
def test_what_cannot_work_is_refused_in_one_line_before_training(
    main, line, message, trained, tmp_path
):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "taken" / FILES[1]).mkdir(parents=True)
    (tmp_path / "saved").symlink_to(trained / "models")
    shutil.copytree(trained / "models", tmp_path / "damaged")
    os.truncate(tmp_path / "damaged" / FILES[1], 20_000)
    status, err = main("-e", 1000, *line.split())
    assert status == 1
    assert len(err.splitlines()) == 1
    assert re.search(message, err)
    assert not (tmp_path / "nothing").exists()
    assert not list(tmp_path.rglob(".*"))


# -- signals ------------------------------------------------------------------------------


def in_training(*arguments, **options):
    """A run that has trained some epochs and would go on for many seconds."""
    process = start_demo("-e", 40_000, "-k", 1, *arguments, **{"env": QUIET, **options})
    while "epoch 4000 of" not in (line := process.stderr.readline()):
        assert line, "the run ended before it trained"
    return process


def test_on_a_terminal_progress_is_one_line_also_when_ctrl_c_ends_it(tmp_path):
    terminal, slave = pty.openpty()
    process = start_demo("-e", 40_000, "-k", 1, cwd=tmp_path, stdout=slave, env=QUIET)
    os.close(slave)
    shown, interrupted = "", False
    while chunk := read(terminal):
        shown += chunk.decode()
        if "gen_loss" in shown and not interrupted:
            interrupted = True
            process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130
    done = re.search(r"interrupted after (\d+) of 40000", err)[1]
    updates = re.split("[\r\b\n]+", re.sub(r"\x1b\[\d*m", "", shown))
    assert shown.count("\n") == 1
    assert max(map(len, updates)) <= 100
    assert len([update for update in updates if update.startswith(f"{done}/40000")]) <= 2
    assert re.search(rf"{done}/40000.*dis_loss: \d.*gen_loss: -?\d", shown)
    assert "> epoch" not in err
    loaded(tmp_path / "models")
    with Image.open(tmp_path / "img" / "gan_results.png") as image:
        image.load()


def read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # how a pseudo-terminal says that its other end is closed
        return b""


def test_a_run_that_ends_fills_its_bar(main, monkeypatch):
    terminal, slave = pty.openpty()
    with os.fdopen(slave, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        assert main("-e", 30, "-k", 1)[0] == 0
    shown = os.read(terminal, 65536).decode()
    assert "30/30" in shown
    assert shown.count("\n") == 1


def test_sigterm_saves_what_was_trained_also_where_the_folder_is_gone(tmp_path):
    process = in_training(cwd=tmp_path)
    shutil.rmtree(tmp_path / "models")
    process.send_signal(signal.SIGTERM)
    status, _, err = finish(process)
    assert status == 143
    assert len(re.findall(r"interrupted after \d+ of 40000", err)) == 1
    assert "Traceback" not in err
    assert len(loaded(tmp_path / "models")) == 12
    assert (tmp_path / "img" / "gan_results.png").exists()


def test_a_signal_before_the_first_epoch_is_done_leaves_the_old_models(models, tmp_path):
    before = contents(models)
    process = start_demo("-r", "-log", "log", cwd=tmp_path, env=QUIET)
    while not (tmp_path / "log" / "training.csv").exists():  # and now it compiles
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130
    assert "Traceback" not in err
    assert contents(models) == before


def test_a_second_ctrl_c_ends_a_program_that_hangs(tmp_path):
    (tmp_path / "log").mkdir()
    os.mkfifo(tmp_path / "log" / "training.csv")  # writing hangs as soon as it is full
    reader = os.open(tmp_path / "log" / "training.csv", os.O_RDONLY | os.O_NONBLOCK)
    size = fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    process = start_demo("-e", 40_000, "-k", 1, "-log", "log", cwd=tmp_path, env=QUIET)
    waiting = 0
    while waiting < size - 150:
        assert process.poll() is None
        time.sleep(0.1)
        (waiting,) = struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=10)[0] in (130, -signal.SIGINT)
    os.close(reader)


def test_ctrl_c_during_the_imports_just_ends_the_program(tmp_path):
    process = start_demo(cwd=tmp_path, env=QUIET)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] in (130, -signal.SIGINT)
    assert os.listdir(tmp_path) == []


# -- nothing trained is lost --------------------------------------------------------------


def test_models_whose_folder_cannot_take_them_are_saved_in_a_temporary_one(tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = in_training(cwd=tmp_path, env={**QUIET, "TMPDIR": str(temporary)})
    shutil.rmtree(tmp_path / "models")
    (tmp_path / "models").touch()
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 1
    (error,) = errors(err)
    (folder,) = temporary.iterdir()
    assert str(folder) in error
    assert len(loaded(folder)) == 12


def test_if_the_temporary_folder_cannot_either_both_are_named(
    main, models, full_disk, monkeypatch, tmp_path
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    before = contents(models)
    full_disk(100_000)
    status, err = main("-e", 1, "-k", 1)
    assert status == 1
    (error,) = errors(err)
    assert "models" in error
    assert str(tmp_path / "temporary") in error
    assert contents(models) == before
    assert (tmp_path / "img" / "gan_results.png").exists()


@pytest.mark.parametrize(
    ("size", "line", "file"),
    [
        (20_000, "-r -e 0 -o full.png", "full.png"),
        (480_000, "-r -e 60 -gif full.gif", "full.gif"),
        (resource.RLIM_INFINITY, "-r -e 1 -k 1 -log log", "training.csv"),
    ],
)
def test_a_full_disk_names_its_file_and_the_models_are_saved(
    main, models, full_disk, size, line, file, tmp_path
):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "training.csv").symlink_to("/dev/full")
    before = contents(models)
    full_disk(size)
    status, err = main(*line.split())
    assert status == 1
    (error,) = errors(err)
    assert file in error
    assert (contents(models) == before) == ("-e 0" in line)
    assert (tmp_path / "img").exists() == ("-e 0" not in line)


def test_divergence_is_what_is_reported_and_leaves_the_models(main, models, full_disk):
    gan = demo_gan.make_gan()
    *zeros, bias = [np.zeros_like(weight) for weight in gan.generator_model.get_weights()]
    gan.generator_model.set_weights([*zeros, bias + 1e38])  # too much for D after some epochs
    gan.save_model(models)
    before = contents(models)
    full_disk(5_000)  # so the animation fails besides
    status, err = main("-r", "-e", 60, "-gif", "a.gif")
    assert status == 1
    (error,) = errors(err)
    assert "diverged" in error
    assert contents(models) == before
    assert len(os.listdir(".")) <= 2


def test_a_display_that_is_lost_costs_a_minute_at_most(tmp_path):
    needs("Xvfb")
    script = (
        "import demo_gan, sys; demo_gan.SAVE_SECONDS = 1; sys.exit(demo_gan.main(sys.argv[1:]))"
    )
    with virtual_display() as (display, server):
        env = {"DISPLAY": display}
        process = start("-c", script, "-e", 10**6, "-k", 1, cwd=tmp_path, env=env)
        while not all((tmp_path / "models" / file).exists() for file in FILES):
            assert process.poll() is None
            time.sleep(0.1)
        server.kill()
        assert finish(process, timeout=30)[0] != 0
    assert len(loaded(tmp_path / "models")) == 12


# -- the process around it ----------------------------------------------------------------


def test_whatever_keras_json_says_the_models_are_the_same(trained, tmp_path):
    settings = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.01}
    (tmp_path / "keras.json").write_text(json.dumps({**settings, "backend": "jax"}))
    env = {**QUIET, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "torch"}
    status, _, err = finish(start_demo("-e", 20, "-s", 1, cwd=tmp_path, env=env))
    assert status == 0, err
    assert same(loaded(tmp_path / "models"), loaded(trained / "models"))


def test_the_callers_signal_handlers_are_put_back(main, monkeypatch, full_disk):
    before = handlers()
    mine = signal.signal(signal.SIGTERM, lambda number, frame: None)
    changed = handlers()
    assert main("-e", 1, "-k", 1)[0] == 0
    assert handlers() == changed
    full_disk(1000)
    assert main("-e", 1, "-k", 1)[0] == 1
    assert handlers() == changed
    signal.signal(signal.SIGTERM, mine)
    assert handlers() == before


WINDOWS = """
import os, shutil, signal, sys
import h5py, keras, matplotlib.pyplot, PIL.Image, tensorflow

for module, names in (
    (os, "set_blocking fork forkpty getuid geteuid getgid getpgid killpg chown fchmod fchown mkfifo"
     " statvfs sync uname nice openpty ttyname register_at_fork sched_getaffinity getloadavg"
     " O_DIRECTORY O_NOFOLLOW O_CLOEXEC"),
    (signal, "SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGALRM alarm setitimer pthread_sigmask sigwait"
     " siginterrupt set_wakeup_fd"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty"):
    sys.modules[name] = None
shutil._use_fd_functions = False  # so rmtree does without opening folders

def refused(function, refuse):
    def wrapper(*paths, **options):
        real = [os.path.realpath(path) for path in paths if isinstance(path, (str, os.PathLike))]
        if any(map(refuse, real)):
            raise PermissionError(13, "Permission denied", *real[:1])
        return function(*paths, **options)
    return wrapper

def in_use(path):
    numbers = os.listdir("/proc/self/fd")
    return path in [os.path.realpath(f"/proc/self/fd/{number}") for number in numbers]

for name in ("rename", "replace", "remove", "unlink"):
    setattr(os, name, refused(getattr(os, name), in_use))
os.open = refused(os.open, os.path.isdir)

import demo_gan
main = "-e 2 -k 1 -log log -gif training.gif".split()
first = demo_gan.main(main)
sys.stdout = None  # as pythonw has it
sys.exit(first or demo_gan.main([*main, "-r"]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")  # noqa: PTH110
def test_the_program_uses_nothing_that_windows_lacks(tmp_path):
    status, _, err = finish(start("-c", WINDOWS, cwd=tmp_path, env=QUIET))
    assert status == 0, err
    assert sorted(os.listdir(tmp_path)) == ["img", "log", "models", "training.gif"]
    assert sorted(os.listdir(tmp_path / "models")) == FILES


def test_importing_changes_nothing_of_the_process():
    script = """
import logging, random, signal
import keras, matplotlib, numpy, tensorflow
def state():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    root = logging.getLogger()
    return [handlers, root.level, list(root.handlers), random.getstate(),
            dict.__repr__(matplotlib.rcParams), str(numpy.random.get_state())]
before = state()
import demo_gan
assert state() == before
"""
    status, _, err = finish(start("-c", script))
    assert status == 0, err


# -- app_logger ---------------------------------------------------------------------------


def test_log_lines_have_the_documented_form_and_are_never_doubled(main, capsys):
    app_logger.init(logging.INFO)
    app_logger.init()
    logging.getLogger("somewhere").debug("hello %d", 5)
    form = r"\[\d{4}-\d\d-\d\d [\d:,]+\] DEBUG test_command.py:test_log_lines\w*:\d+ > hello 5\n"
    assert re.fullmatch(form, capsys.readouterr().err)
    app_logger.init(logging.ERROR)
    logging.getLogger("somewhere").warning("quiet")
    assert capsys.readouterr().err == ""
