"""The program: its command line, what it leaves behind, and what happens when things go wrong."""

import csv
import importlib
import json
import logging
import os
import pathlib
import pty
import re
import resource
import shutil
import signal
import sys
import time

import keras
import numpy as np
import pytest
from conftest import finish, same, small_gan, start, start_demo, weights
from PIL import Image

import app_logger
import demo_gan

FILES = [demo_gan.GENERATOR_FILE, demo_gan.DISCRIMINATEOR_FILE]
QUIET = {"DISPLAY": ""}


def loaded(folder, noise_dim=4):
    gan = demo_gan.GANModel([1, noise_dim])
    gan.load_model(folder)
    return weights(gan.generator_model, gan.discriminateor_model)


@pytest.fixture
def main(tmp_path, monkeypatch, capsys, no_display):
    """Runs the program in this process, in an empty folder; returns status and standard error."""
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    level = root.level

    def run(*arguments):
        try:
            status = demo_gan.main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            status = exit_.code
        return status, capsys.readouterr().err

    yield run
    root.removeHandler(app_logger._handler)
    root.setLevel(level)


# -- a run --------------------------------------------------------------------------------


def test_a_run_leaves_the_models_the_pictures_and_the_log(trained):
    for file in ("models/gan_generator.h5", "models/gan_discriminateor.h5", "training.gif"):
        assert (trained / file).stat().st_size > 10_000
    assert sorted(os.listdir(trained / "models")) == sorted(FILES)
    assert os.listdir(trained / "img") == ["gan_results.png"]


def test_a_run_ends_by_saying_what_was_learned(trained):
    last = (trained / "stderr.txt").read_text().splitlines()[-1]
    number = r"(-?\d+\.\d{3})"
    found = re.search(
        rf"generated: mean {number}, standard deviation {number}; real: mean {number}, standard "
        rf"deviation {number}; Wasserstein-1 distance {number}; D's mean output on generated "
        rf"{number}$",
        last,
    )
    gan = demo_gan.GANModel([1, 4])
    gan.load_model(trained / "models")
    samples = demo_gan.make_samples(3200, 4, seed=1)
    generated = np.array(gan.generator_model(samples["x"]))
    expected = [
        generated.mean(),
        generated.std(),
        samples["y"].mean(),
        samples["y"].std(),
        np.abs(np.sort(generated[:, 0]) - np.sort(samples["y"][:, 0])).mean(),
        np.mean(gan.discriminateor_model(generated)),
    ]
    np.testing.assert_allclose([float(text) for text in found.groups()], expected, atol=6e-4)


def test_into_a_pipe_there_are_few_plain_lines_and_nothing_to_worry_about(trained):
    out, err = ((trained / f"std{stream}.txt").read_text() for stream in ("out", "err"))
    assert out == ""
    assert len(re.findall(r"> epoch \d+ of 20: dis_loss", err)) == 10
    ours = [line for line in err.splitlines() if line.startswith("[")]
    ours = [line for line in ours if "install Graphviz" not in line]
    assert len(ours) == 12
    for alarm in ("Warning", "Traceback", "legacy", "\x1b", "\b", "\r"):
        assert alarm not in "".join(ours)
    # Before its own log is set up, TensorFlow says two things that no variable turns down.
    others = set(err.splitlines()) - set(ours)
    assert all(re.match(r"WARNING: All log messages before|[EI]0000 ", line) for line in others)


def test_the_csv_has_a_row_an_epoch(trained):
    with open(trained / "log" / "training.csv", newline="") as file:  # noqa: PTH123
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", "dis_loss", "gen_loss", "w1"]
    assert [int(row["epoch"]) for row in rows] == list(range(1, 21))
    assert all(float(row["dis_loss"]) > 0 > float(row["gen_loss"]) for row in rows)
    assert all(float(row["w1"]) > 0 for row in rows)


def test_one_seed_gives_identical_models(main, trained):
    assert main("-e", 20, "-s", 1)[0] == 0
    assert same(loaded("models"), loaded(trained / "models"))
    assert main("-e", 20, "-s", 2)[0] == 0
    assert not same(loaded("models"), loaded(trained / "models"))


def test_resuming_goes_on_from_the_saved_models(main, models):
    before = loaded(models)
    status, err = main("-r", "-e", 1, "-k", 1, "-m", models)
    assert status == 0, err
    moved = np.concatenate([np.ravel(a - b) for a, b in zip(before, loaded(models), strict=True)])
    assert 0 < np.abs(moved).max() < 0.01


def test_resuming_for_no_epochs_draws_what_is_saved(main, models, tmp_path):
    before = loaded(models)
    assert main("-r", "-e", 0, "-m", models, "-o", "picture.png")[0] == 0
    assert same(before, loaded(models))
    assert (tmp_path / "picture.png").exists()
    assert not (tmp_path / "img").exists()


def test_on_a_terminal_progress_is_one_line_that_updates(tmp_path):
    master, slave = pty.openpty()
    process = start_demo("-e", 30, cwd=tmp_path, stdout=slave, env=QUIET)
    os.close(slave)
    shown = b""
    while chunk := read(master):
        shown += chunk
    status, _, err = finish(process)
    assert status == 0
    assert "> epoch" not in err
    shown = shown.decode()
    assert shown.count("\n") == 1
    assert re.search(r"30/30.*dis_loss: \d.*gen_loss: -\d", shown)
    plain = re.sub(r"\x1b\[\d*m", "", shown)
    assert max(len(update) for update in re.split("[\r\b\n]+", plain)) <= 80


def test_a_closed_standard_output_stops_nothing(main, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main("-e", 1, "-k", 1)[0] == 0


def test_what_fails_before_training_leaves_the_old_picture(main, monkeypatch):
    assert main("-e", 1, "-k", 1)[0] == 0
    before = pathlib.Path("img/gan_results.png").read_bytes()
    monkeypatch.setattr(demo_gan.GANModel, "train", lambda *_, **__: 1 / 0)
    status, err = main("-e", 1, "-k", 1)
    assert status == 1
    assert err.count("ERROR") == 1
    assert pathlib.Path("img/gan_results.png").read_bytes() == before


def read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how a pseudo-terminal says that its other end is closed
        return b""


def test_help_has_a_sentence_and_the_default_for_each_flag(capsys):
    with pytest.raises(SystemExit) as raised:
        demo_gan.parse_args(["--help"])
    assert raised.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    defaults = {
        "epoch": 10,
        "batch_size": 32,
        "model_dir": "models",
        "log_dir": "none",
        "log_lvl": "info",
        "step_per": 20,
        "noise_dim": 4,
        "seed": "none",
        "output": "img/gan_results.png",
        "gif": "none",
        "plot_every": 1,
        "resume": "off",
    }
    assert set(defaults) == set(vars(demo_gan.parse_args([])))
    for flag, default in defaults.items():
        sentence = re.search(rf"--{flag}\b(?:(?!, --).)*?\(default: (.*?)\)", text)
        assert sentence, flag
        assert sentence[1] == str(default)


@pytest.mark.parametrize("name", ["INFO", "debug", "Warn", "WARNING", "error", "err"])
def test_log_levels_are_taken_in_any_case(name):
    assert demo_gan.parse_args(["-log_lvl", name]).log_lvl in demo_gan.LOG_LEVELS


# -- bad command lines and places ---------------------------------------------------------

BAD_COMMAND_LINES = {
    "-e -1": "-e/--epoch",
    "-e 1.5": "-e/--epoch: expected a whole number from 0",
    "-e many": "-e/--epoch: expected a whole number from 0",
    "-e 0": "-e/--epoch: 0 epochs only with -r/--resume",
    "-e": "-e/--epoch: expected one argument",
    "-b 0": "-b/--batch_size: expected a whole number from 1",
    "-b 99999999999999999999": "-b/--batch_size: expected a whole number from 1 to",
    "-k 0": "-k/--step_per: expected a whole number from 1",
    "-n 0": "-n/--noise_dim: expected a whole number from 1",
    "-every 0": "-every/--plot_every: expected a whole number from 1",
    "-s x": "-s/--seed: expected a whole number from 0",
    "-s 4294967296": "-s/--seed: expected a whole number from 0 to 4294967295",
    "-log_lvl loud": "-log_lvl/--log_lvl: invalid choice: 'loud'",
    "--epochs 3": "unrecognized arguments: --epochs",
    "200": "unrecognized arguments: 200",
}


@pytest.mark.parametrize(("line", "message"), BAD_COMMAND_LINES.items(), ids=BAD_COMMAND_LINES)
def test_a_bad_command_line_ends_with_status_2_and_names_the_flag(main, line, message, tmp_path):
    status, err = main(*line.split())
    assert status == 2
    assert message in err.splitlines()[-1]
    assert os.listdir(tmp_path) == []


BAD_PLACES = {
    "-m file": "-m: cannot write to file: File exists",
    "-m file/models": "-m: cannot write to file/models: Not a directory: file/models",
    "-m taken": f"-m: {'taken/gan_generator.h5'} is a folder, not a file",
    "-o folder.png": "-o: folder.png is a folder, not a file",
    "-o picture.doc": "-o picture.doc: the name must end in one of .png, .pdf, .svg",
    "-o picture": "-o picture: the name must end in one of .png, .pdf, .svg",
    "-o file/x.png": "-o: cannot write to file",
    "-gif x.mp4": "-gif x.mp4: the name must end in one of .gif",
    "-gif file/x.gif": "-gif: cannot write to file",
    "-log file": "-log: cannot write to file: File exists",
    "-o /proc/x.png": "-o: cannot write to /proc",
    "-r -m nothing": "nothing/gan_generator.h5 is missing",
    "-b 2000000000": "Unable to allocate",
}


@pytest.mark.parametrize(("line", "message"), BAD_PLACES.items(), ids=BAD_PLACES)
def test_what_cannot_work_is_refused_in_one_line_before_training(main, line, message, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "taken" / FILES[0]).mkdir(parents=True)
    status, err = main("-e", 10**6, *line.split())
    assert status == 1
    assert len(err.splitlines()) == 1
    assert message in err
    assert not list(tmp_path.rglob(".*.part.*"))


def test_without_graphviz_there_is_one_warning_and_all_else_goes_on(main, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    demo_gan._warn_of_no_graphviz.cache_clear()
    status, err = main("-e", 1, "-k", 1, "-log", "log")
    assert status == 0
    warnings = [line for line in err.splitlines() if "WARNING demo_gan" in line]
    assert len(warnings) == 1
    assert "install Graphviz" in warnings[0]
    assert os.listdir("log") == ["training.csv"]
    assert sorted(os.listdir("models")) == sorted(FILES)


# -- signals ------------------------------------------------------------------------------


def in_training(*arguments, **options):
    """A run that has trained some epochs and would go on for many seconds."""
    process = start_demo("-e", 40_000, "-k", 1, *arguments, env=QUIET, **options)
    while True:
        line = process.stderr.readline()
        assert line, "the run ended before it trained"
        if re.search(r"epoch 4000 of", line):
            return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_and_saves_what_was_trained(number, tmp_path):
    process = in_training(cwd=tmp_path)
    shutil.rmtree(tmp_path / "models")  # a missing folder is made again
    process.send_signal(number)
    status, _, err = finish(process)
    assert status == 128 + number
    assert len(re.findall(r"interrupted after \d+ of 40000 epochs", err)) == 1
    assert "Traceback" not in err
    assert sorted(os.listdir(tmp_path / "models")) == sorted(FILES)
    loaded(tmp_path / "models")
    with Image.open(tmp_path / "img" / "gan_results.png") as image:
        image.load()


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    process = start_demo("-e", 1, "-b", 20_000, "-k", 100_000, cwd=tmp_path, env=QUIET)
    while not (tmp_path / "img").exists():
        time.sleep(0.1)
    time.sleep(8)  # the first epoch is under way, and would be for many minutes
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process, timeout=30)
    assert status == 130
    assert "Traceback" not in err


def test_ctrl_c_before_training_just_ends_the_program(tmp_path):
    process = start_demo(cwd=tmp_path, env=QUIET)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == []


@pytest.fixture
def ctrl_c_is_heard():
    """Also in a process that was started in the background, where it is ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_ctrl_c_while_saving_lets_the_save_finish(main, monkeypatch):
    write = demo_gan._hdf5

    def interrupted(model):
        monkeypatch.setattr(demo_gan, "_hdf5", write)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        return write(model)

    monkeypatch.setattr(demo_gan, "_hdf5", interrupted)
    status, err = main("-e", 2, "-k", 1)
    assert status == 130, err
    loaded("models")
    assert os.path.exists("img/gan_results.png")  # noqa: PTH110


def test_ctrl_c_in_a_library_call_leaves_the_gan_usable(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    gan, samples = small_gan(), demo_gan.make_samples(40, 2)
    with pytest.raises(KeyboardInterrupt):
        gan.train(samples, epoch=9, batch_size=8, callbacks=[Interrupt()])
    assert len(gan.train_status["gen_loss"]) == 3
    gan.save_model(tmp_path)
    gan.train(samples, epoch=2, batch_size=8)
    assert len(gan.train_status["gen_loss"]) == 5


# -- nothing trained is lost --------------------------------------------------------------


def rescued(err):
    return re.search(r"cannot save the models in models: .*; they are in (\S+)$", err, re.M)[1]


def test_models_that_cannot_be_saved_in_their_place_are_saved_in_another(tmp_path):
    process = in_training(cwd=tmp_path)
    shutil.rmtree(tmp_path / "models")
    (tmp_path / "models").touch()
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 1
    assert "Traceback" not in err
    assert len(re.findall("ERROR", err)) == 1
    folder = rescued(err)
    loaded(folder)
    shutil.rmtree(folder)


def test_a_full_disk_leaves_the_old_models_and_says_so_in_one_line(models, tmp_path):
    before = [(models / file).read_bytes() for file in FILES]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    process = start_demo("-e", 1, cwd=tmp_path, env=QUIET, preexec_fn=limit)
    status, _, err = finish(process)
    assert status == 1
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if "ERROR" in line]
    assert any("cannot save the models in models: File too large" in line for line in errors)
    assert [(models / file).read_bytes() for file in FILES] == before
    assert sorted(os.listdir(models)) == sorted(FILES)


def test_divergence_ends_with_status_1_and_does_not_touch_the_models(main, models):
    gan = demo_gan.make_gan()
    gan.generator_model.set_weights([weight + 1e36 for weight in weights(gan.generator_model)])
    gan.save_model(models)
    before = [(models / file).read_bytes() for file in FILES]
    status, err = main("-r", "-m", models, "-e", 50)
    assert status == 1
    assert re.search(r"ERROR .* training diverged in epoch 1: .* not finite", err)
    assert [(models / file).read_bytes() for file in FILES] == before


def test_two_runs_at_once_in_one_folder_leave_whole_files(tmp_path):
    options = ["-e", 30, "-gif", "training.gif", "-log", "log"]
    processes = [start_demo(*options, cwd=tmp_path, env=QUIET) for _ in range(2)]
    for process in processes:
        status, _, err = finish(process)
        assert status == 0, err
    loaded(tmp_path / "models")
    for picture in ("training.gif", "img/gan_results.png"):
        with Image.open(tmp_path / picture) as image:
            image.load()
    rows = (tmp_path / "log" / "training.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", *map(str, range(1, 31))]
    assert not list(tmp_path.rglob(".*.part.*"))


# -- the process around it ----------------------------------------------------------------


def test_the_script_works_whatever_backend_the_user_chose(tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    environment = {**QUIET, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": "torch"}
    process = start_demo("-e", 1, "-k", 1, cwd=tmp_path, env=environment)
    status, _, err = finish(process)
    assert status == 0, err


def test_in_a_process_on_another_backend_the_import_says_so(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.delitem(sys.modules, "demo_gan")
    with pytest.raises(ImportError, match=r"needs Keras on TensorFlow, .* Keras on torch already"):
        importlib.import_module("demo_gan")


def test_importing_changes_nothing_of_the_process():
    script = """
import logging, random, signal
import keras, matplotlib, numpy, tensorflow
def state():
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    root = logging.getLogger()
    matplotlib_state = dict.__repr__(matplotlib.rcParams)
    return [handlers, root.level, list(root.handlers), random.getstate(), matplotlib_state,
            str(numpy.random.get_state())]
before = state()
import demo_gan
assert state() == before
"""
    status, _, err = finish(start("-c", script))
    assert status == 0, err


def test_tensorflows_chatter_is_turned_down_unless_the_user_says_otherwise():
    script = "import demo_gan, os; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    for chosen, expected in (("1", "1"), (None, "3")):
        status, out, err = finish(start("-c", script, env={"TF_CPP_MIN_LOG_LEVEL": chosen}))
        assert (status, out.strip()) == (0, expected), err


# -- app_logger ---------------------------------------------------------------------------


def test_log_lines_have_the_documented_form_and_are_never_doubled(main, capsys):
    app_logger.init(logging.INFO)
    app_logger.init()
    logging.getLogger("somewhere").debug("hello %d", 5)
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"\[\d{4}-\d\d-\d\d [\d:,]+\] DEBUG test_command.py:test_log_lines\w*:\d+ > hello 5\n", line
    )
    app_logger.init(logging.ERROR)
    logging.getLogger("somewhere").warning("quiet")
    assert capsys.readouterr().err == ""
