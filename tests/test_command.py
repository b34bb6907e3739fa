"""The program: its command line, what it leaves behind, and what happens when things go wrong."""

import csv
import fcntl
import json
import logging
import os
import pty
import re
import resource
import select
import shutil
import signal
import time

import numpy as np
import pytest
from conftest import finish, needs, same, start, start_demo, virtual_display, wait_for, weights
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


@pytest.fixture
def main(tmp_path, monkeypatch, capsys, no_display):
    """Runs the program in this process, in an empty folder; returns status and standard error."""
    monkeypatch.chdir(tmp_path)
    root, numbers = logging.getLogger(), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    level, log_handlers = root.level, list(root.handlers)

    def run(*arguments):
        handlers = [signal.getsignal(number) for number in numbers]
        try:
            status = demo_gan.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code
        assert [signal.getsignal(number) for number in numbers] == handlers, "not put back"
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


def test_a_run_leaves_models_picture_animation_and_csv_and_says_where(trained):
    assert sorted(os.listdir(trained / "models")) == FILES
    for file in ("img/gan_results.png", "training.gif", "log/training.csv"):
        assert (trained / file).stat().st_size > 1000
        assert file in (trained / "stderr.txt").read_text()
    rows = list(csv.DictReader((trained / "log" / "training.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 21))
    assert all(float(row["dis_loss"]) > 0 > float(row["gen_loss"]) for row in rows)
    assert all(float(row["w1"]) > 0 for row in rows)


def test_the_last_numbers_of_the_log_are_those_of_the_saved_models(trained):
    (line,) = re.findall(r".*Wasserstein-1.*", (trained / "stderr.txt").read_text())
    gan, samples = demo_gan.make_gan(), demo_gan.make_samples(3200, 4, seed=1)
    gan.load_model(trained / "models")
    real, generated = samples["y"], np.array(gan.generator_model(samples["x"]))
    w1 = np.abs(np.sort(generated[:, 0]) - np.sort(real[:, 0])).mean()
    judged = np.mean(gan.discriminateor_model(generated))
    expected = generated.mean(), generated.std(), real.mean(), real.std(), w1, judged
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d{3}\b", line)]
    np.testing.assert_allclose(numbers, expected, atol=6e-4)


def test_into_a_pipe_there_are_few_plain_lines_and_nothing_to_worry_about(trained):
    assert (trained / "stdout.txt").read_text() == ""
    lines = (trained / "stderr.txt").read_text().splitlines()
    lines = [line for line in lines if "Graphviz" not in line]
    # TensorFlow says things before its own log is set up, which no variable turns down.
    ours = [line for line in lines if not re.match("WARNING: All log messages|[EI]0000 ", line)]
    assert len(ours) < 20
    assert all(re.fullmatch(r"\[[^\x1b\b\r]*", line) for line in ours)
    assert not re.search("WARN|Warn|Traceback|window", "".join(ours))


def test_one_seed_gives_identical_models_and_another_one_others(main, trained):
    assert main("-e", 20, "-s", 1)[0] == 0
    assert same(loaded("models"), loaded(trained / "models"))
    assert main("-e", 20, "-s", 2)[0] == 0
    assert not same(loaded("models"), loaded(trained / "models"))


def test_resuming_goes_on_from_the_saved_models(main, models):
    before = loaded(models)
    assert main("-r", "-e", 1, "-k", 1)[0] == 0
    moved = np.concatenate([np.ravel(a - b) for a, b in zip(before, loaded(models), strict=True)])
    assert 0 < np.abs(moved).max() < 0.01


@pytest.mark.parametrize("level", ["INFO", "debug", "Warn", "WARNING", "error", "err"])
def test_resuming_for_no_epochs_draws_what_is_saved_at_any_log_level(level, main, models, tmp_path):
    before = contents(models)
    status, err = main("-r", "-e", 0, "-o", "picture.png", "-log_lvl", level)
    assert status == 0
    assert ("INFO" in err) == (level in ("INFO", "debug"))
    assert contents(models) == before
    assert sorted(os.listdir(tmp_path)) == ["models", "picture.png"]


def test_names_of_255_bytes_work_to_the_end(main):
    names = [f"{'é' * 125}x.{ending}" for ending in ("png", "gif")]
    assert main("-e", 1, "-k", 1, "-o", names[0], "-gif", names[1])[0] == 0
    for name in names:
        Image.open(name).close()


def test_without_graphviz_there_is_a_warning_and_all_else_goes_on(main, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, err = main("-e", 1, "-k", 1, "-log", "log")
    assert status == 0
    assert re.search("WARNING.*[Gg]raphviz", err)
    assert [os.listdir("log"), sorted(os.listdir("models"))] == [["training.csv"], FILES]


def test_help_has_each_flag_with_its_default(capsys):
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


BAD_COMMAND_LINES = {  # and what the last line says
    "--epoch": ["-e -1", "-e 1.5", "-e many", "-e 0", "-e", "--epochs 3"],
    "--batch_size.*9": ["-b -9", "-b 99999999999999999999"],
    "--step_per.*'0'": ["-k 0"],
    "--noise_dim.*'0'": ["-n 0"],
    "--plot_every.*'0'": ["-every 0"],
    "--seed.*'4294967296'": ["-s 4294967296"],
    "--log_lvl.*'loud'": ["-log_lvl loud"],
    "--output.*'picture": ["-o picture", "-o picture.doc"],
    "--gif.*x.mp4": ["-gif x.mp4"],
    "--gif.*-every 2": ["-gif x.gif -e 1001", "-gif x.gif -e 2000"],
    "--gif.*-every 3": ["-gif x.gif -e 2001 -every 2"],
    "200": ["200"],
}
BAD_PLACES = {  # and what the only line says
    "--model_dir.*file": ["-m file", "-m file/models"],
    "--model_dir.*taken/gan_generator.h5": ["-m taken"],
    "--output.*x.png": ["-o x.png", "-o file/x.png", "-o /proc/x.png", f"-o {252 * 'x'}.png"],
    "--gif.*x.gif": ["-gif file/x.gif", f"-gif {252 * 'x'}.gif"],
    "--log_dir.*file": ["-log file"],
    "--resume.*nothing/gan_generator.h5": ["-r -m nothing"],
    "--noise_dim.*saved.* 4.*-n 4": ["-r -m saved -n 1"],
    "damaged/gan_generator.h5": ["-r -m damaged"],
    "allocate": ["-b 2000000000"],
}


def cases(table):
    return [(line, message) for message, lines in table.items() for line in lines]


@pytest.mark.parametrize(("line", "message"), cases(BAD_COMMAND_LINES))
def test_a_bad_command_line_ends_with_status_2_and_names_the_flag(main, line, message):
    status, err = main(*line.split())
    assert status == 2
    assert re.search(message, err.splitlines()[-1])
    assert os.listdir() == []


@pytest.mark.parametrize(("line", "message"), cases(BAD_PLACES))
def test_what_cannot_work_is_refused_in_one_line(main, line, message, trained, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "x.png").mkdir()
    (tmp_path / "taken" / FILES[1]).mkdir(parents=True)
    (tmp_path / "saved").symlink_to(trained / "models")
    shutil.copytree(trained / "models", tmp_path / "damaged")
    os.truncate(tmp_path / "damaged" / FILES[1], 20_000)
    status, err = main("-e", 1000, *line.split())
    assert status == 1
    assert re.fullmatch(f".*{message}.*\n", err)
    assert not (tmp_path / "nothing").exists()
    assert not list(tmp_path.rglob(".*"))


def read(terminal):
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # how a pseudo-terminal says that its other end is closed
        return ""


@pytest.mark.parametrize(("epochs", "expected"), [(30, 0), (40_000, 130)])
def test_on_a_terminal_progress_is_one_line_also_when_ctrl_c_ends_it(epochs, expected, tmp_path):
    terminal, slave = pty.openpty()
    process = start_demo("-e", epochs, "-k", 1, cwd=tmp_path, stdout=slave, env=QUIET)
    os.close(slave)
    shown, interrupted = "", expected == 0
    while chunk := read(terminal):
        shown += chunk
        if "gen_loss" in shown and not interrupted:
            process.send_signal(signal.SIGINT)
            interrupted = True
    status, _, err = finish(process)
    assert status == expected
    done = epochs if expected == 0 else re.search(r"interrupted after (\d+) of", err)[1]
    *_, last, nothing = re.split("[\r\b\n]+", re.sub(r"\x1b\[\d*m", "", shown))
    assert re.search(rf"{done}/{epochs}.*dis_loss: \d.*gen_loss: -?\d", last)
    assert (len(last) < 100, nothing, shown.count("\n")) == (True, "", 1)
    assert "> epoch" not in err
    assert len(loaded(tmp_path / "models")) == 12
    Image.open(tmp_path / "img" / "gan_results.png").close()


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_a_signal_saves_the_models_whatever_became_of_their_folder(number, expected, tmp_path):
    models, temporary = tmp_path / "models", tmp_path / "temporary"
    temporary.mkdir()
    env = {**QUIET, "TMPDIR": str(temporary)}
    process = start_demo("-e", 40_000, "-k", 1, cwd=tmp_path, env=env)
    while "epoch 4000 of" not in (line := process.stderr.readline()):
        assert line, "the run ended before it trained"
    shutil.rmtree(models)
    if expected == 1:  # something else is in its place
        models.touch()
    process.send_signal(number)
    status, _, err = finish(process)
    assert status == expected
    assert len(re.findall(r"interrupted after \d+ of 40000", err)) == 1
    assert "Traceback" not in err
    (folder,) = [models] if models.is_dir() else temporary.iterdir()
    assert [str(folder) in error for error in re.findall("ERROR.*", err)] == [True] * (
        expected == 1
    )
    assert len(loaded(folder)) == 12


def test_a_signal_before_the_first_epoch_is_done_leaves_the_old_models(models, tmp_path):
    before = contents(models)
    process = start_demo("-r", "-log", "log", cwd=tmp_path, env=QUIET)
    wait_for((tmp_path / "log" / "training.csv").exists, process)  # and now it compiles
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130
    assert "Traceback" not in err
    assert contents(models) == before


def test_a_second_ctrl_c_ends_a_program_that_hangs(tmp_path):
    file = tmp_path / "log" / "training.csv"
    file.parent.mkdir()
    os.mkfifo(file)  # writing there hangs as soon as it is full
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    process = start_demo("-e", 40_000, "-k", 1, "-log", "log", cwd=tmp_path, env=QUIET)
    assert select.select([reader], [], [], 60)[0]
    for _ in range(2):
        time.sleep(1)
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


@pytest.mark.parametrize(
    ("size", "line", "named", "saved"),
    [
        (100_000, "-r -e 1 -k 1", "models/.*/temporary/", ["img/gan_results.png"]),
        (20_000, "-r -e 0", "img/gan_results.png", []),
        (480_000, "-r -e 60 -gif a.gif", "a.gif", ["models", "img/gan_results.png"]),
        (2**40, "-r -e 1 -k 1 -log log", "log/training.csv", ["models", "img/gan_results.png"]),
    ],
)
def test_a_full_disk_is_told_with_the_file_and_all_else_is_saved(
    main, models, full_disk, monkeypatch, tmp_path, size, line, named, saved
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "training.csv").symlink_to("/dev/full")
    before = contents(models)
    full_disk(size)
    status, err = main(*line.split())
    assert status == 1
    assert re.fullmatch(f".*{named}.*", "\n".join(re.findall("ERROR.*", err)))
    assert (contents(models) != before) == ("models" in saved)
    assert (tmp_path / "img" / "gan_results.png").exists() == ("img/gan_results.png" in saved)


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
    assert ["diverged" in error for error in re.findall("ERROR.*", err)] == [True]
    assert contents(models) == before


def test_a_display_that_is_lost_costs_no_more_than_the_time_between_two_saves(tmp_path):
    needs("Xvfb")
    script = "import demo_gan, sys; demo_gan.SAVE_SECONDS = 1; demo_gan.main(sys.argv[1:])"
    with virtual_display() as (display, server):
        options = {"cwd": tmp_path, "env": {"DISPLAY": display}}
        process = start("-c", script, "-e", 10**6, "-k", 1, **options)
        wait_for(lambda: all((tmp_path / "models" / file).exists() for file in FILES), process)
        server.kill()
        finish(process, timeout=30)
    assert len(loaded(tmp_path / "models")) == 12


def test_whatever_keras_json_says_the_models_are_the_same(trained, tmp_path):
    settings = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.5}
    (tmp_path / "keras.json").write_text(json.dumps({**settings, "backend": "jax"}))
    env = {**QUIET, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "torch"}
    status, _, err = finish(start_demo("-e", 20, "-s", 1, cwd=tmp_path, env=env))
    assert status == 0, err
    assert same(loaded(tmp_path / "models"), loaded(trained / "models"))


WINDOWS = """
import os, shutil, signal, sys
import h5py, keras, matplotlib.pyplot, PIL.Image, tensorflow

for name in ("set_blocking fork getuid geteuid getpgid killpg chown fchmod fchown mkfifo statvfs "
             "sync uname nice register_at_fork O_DIRECTORY O_NOFOLLOW O_CLOEXEC").split():
    delattr(os, name)
for name in "SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGALRM alarm pthread_sigmask set_wakeup_fd".split():
    delattr(signal, name)
sys.modules.update(dict.fromkeys("fcntl resource pwd grp termios pty".split()))
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

import demo_gan
line = "-e 2 -k 1 -log log -gif training.gif".split()
first = demo_gan.main(line)
sys.stdout = None  # as pythonw has it
sys.exit(first or demo_gan.main([*line, "-r"]))
"""


def test_the_program_uses_nothing_that_windows_lacks(tmp_path):
    status, _, err = finish(start("-c", WINDOWS, cwd=tmp_path, env=QUIET))
    assert status == 0, err
    assert sorted(os.listdir(tmp_path)) == ["img", "log", "models", "training.gif"]


def test_importing_changes_nothing_of_the_process():
    script = """
import logging, random, signal
import keras, matplotlib, numpy, tensorflow
def state():
    root = logging.getLogger()
    return [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), root.level,
            list(root.handlers), random.getstate(), str(numpy.random.get_state()),
            dict.__repr__(matplotlib.rcParams)]
before = state()
import demo_gan
assert state() == before
"""
    status, _, err = finish(start("-c", script))
    assert status == 0, err


def test_log_lines_have_the_documented_form_and_are_never_doubled(main, capsys):
    app_logger.init(logging.INFO)
    app_logger.init()
    logging.getLogger("somewhere").debug("hello %d", 5)
    form = r"\[\d{4}-\d\d-\d\d [\d:,]+\] DEBUG test_command.py:test_log_lines\w*:\d+ > hello 5\n"
    assert re.fullmatch(form, capsys.readouterr().err)
    app_logger.init(logging.ERROR)
    logging.getLogger("somewhere").warning("quiet")
    assert capsys.readouterr().err == ""
