"""A Look sees each epoch as it was, and its views show it: animation, window, notebook."""

import base64
import contextlib
import io
import json
import math
import pickle
import random
import re
import sys
from unittest import mock

import keras
import nbclient
import nbformat
import numpy as np
import pytest
from conftest import (
    DATA,
    LIMIT,
    ROOT,
    SAMPLES,
    finish,
    needs,
    same,
    small_gan,
    small_samples,
    start,
    start_demo,
    virtual_display,
    weights,
)
from images import (
    BLACK,
    GREEN,
    GREY,
    MOST_ROWS,
    RED,
    End,
    difference,
    failing_gan,
    frames_in,
    opened,
    pixels,
)
from PIL import Image

import demo_gan

EPOCHS = 120
CADENCES = [1, 4, 6, 10, 25, 30, 50, 60]


@pytest.fixture(scope="module")
def gan():
    """Return a GAN that changes at each epoch, by more than rounding."""
    keras.utils.set_random_seed(0)
    return small_gan(optimizer=keras.optimizers.SGD(0.1))


def train(gan, epochs, *callbacks):
    return gan.train(SAMPLES, epochs, batch_size=8, step_per=1, callbacks=callbacks)


def epochs_of(states):
    return [state.epoch for state in states]


class Change(keras.callbacks.Callback):
    """Changes how often it sees the weights, at any time, and asks a Look at every epoch."""

    def __init__(self, look, draw):
        super().__init__()
        self.sees_weights_every = draw.choice([1, math.inf, math.inf])
        self.look = look
        self.draw = draw
        self.answers = []

    def on_epoch_end(self, epoch, logs=None):
        self.answers.append(self.look.latest())
        if self.draw.random() < 0.05:
            self.sees_weights_every = self.draw.choice([*CADENCES, math.inf])


class Album(demo_gan.View):
    """A view that keeps what it is to show, until it leaves or fails after an epoch."""

    last = math.inf
    fails = False

    def open(self):
        self.picture = mock.Mock()
        self.shown = []
        self.is_open = True

    def show(self):
        self.shown.append(self.states[-1])

    def close(self):
        self.is_open = False

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if self.is_open:
            self.told = epoch + 1
        if epoch + 1 == self.last:
            if self.fails:
                raise RuntimeError
            self.close()


@pytest.fixture(scope="module")
def train_alike(gan):
    """Return a function that trains from the same weights, with the same draws."""
    first_weights = weights(gan.generator_training_model)

    def train_again(*callbacks):
        gan.generator_training_model.set_weights(first_weights)
        random.seed(0)
        return train(gan, EPOCHS, *callbacks)

    return train_again


@pytest.fixture(scope="module")
def every_state(gan, train_alike):
    """Return the States of a training at which a Look looks at every epoch."""
    look = demo_gan.Look(gan, SAMPLES, every=1)
    train_alike(look)
    return {state.epoch: state for state in look.history}


@pytest.mark.parametrize("seed", range(16))
def test_every_state_is_of_the_epoch_it_names(gan, train_alike, every_state, seed):
    draw = random.Random(seed)
    look = demo_gan.Look(gan, SAMPLES, draw.choice([None, None, draw.choice(CADENCES)]))
    albums = []
    for _ in range(draw.randint(1, 2)):
        album = Album(look, draw.choice(CADENCES))
        album.last = draw.choice([2, 7, 30, 61, math.inf])
        album.fails = draw.choice([True, False])
        albums.append(album)
    callbacks = [demo_gan.Dispensable(callback) for callback in [look, *albums]]
    change = Change(look, draw)
    end = End(draw.randint(1, 2 * EPOCHS), draw.random() < 0.3)
    for callback in (change, end):  # anywhere, also before the Look
        callbacks.insert(draw.randint(0, len(callbacks)), callback)
    with contextlib.suppress(ZeroDivisionError):
        train_alike(*callbacks)
    states = [*look.history, *filter(None, change.answers)]
    for album in albums:
        states += album.shown
        shown = epochs_of(album.shown)
        told = min(album.last, end.epoch)
        due = [*range(album.every, told, album.every), told]
        assert shown in (due, due[:-1])
        if end.epoch < album.last and not end.raises:
            assert shown == due  # the last epoch, too
    for state in states:
        right = every_state[state.epoch]
        assert state.w1 == pytest.approx(right.w1, rel=1e-4)
        np.testing.assert_allclose(state.d_output, right.d_output, rtol=1e-4)


@pytest.mark.parametrize("every", [None, 8])
def test_what_is_kept_does_not_depend_on_who_watches(gan, train_alike, every):
    look = demo_gan.Look(gan, SAMPLES, every)
    logs = train_alike(look).history
    epochs = epochs_of(look.history)
    album = Album(look, 7)
    album.last = 70
    watched_logs = train_alike(look, album).history
    assert epochs_of(look.history) == epochs
    assert watched_logs["w1"] == pytest.approx(logs["w1"], rel=1e-4)


def test_last_epoch_of_a_training_that_is_stopped_is_kept_and_shown(gan):
    look = demo_gan.Look(gan, SAMPLES, every=150)
    album = Album(look, 60)
    for _ in range(2):  # the same callbacks serve another training
        train(gan, 200, look, album, End(at=65))
        assert epochs_of(look.history) == [110]
        assert epochs_of(album.shown) == [60, 110]
        assert epochs_of(album.states) == [60, 110]


def test_view_before_its_look_is_refused(gan):
    look = demo_gan.Look(gan, SAMPLES)
    before = weights(gan.generator_training_model)
    with pytest.raises(ValueError, match="behind its Look"):
        train(gan, 9, Album(look), look, demo_gan.ProgressLine())
    assert same(before, weights(gan.generator_training_model))


@pytest.mark.parametrize("epochs", [200, 2000])
def test_look_by_default_looks_40_to_130_times(gan, epochs):
    look = demo_gan.Look(gan, SAMPLES)
    train(gan, epochs, look)
    assert 40 <= len(look.history) <= 130
    assert look.history[0].epoch == 1
    assert look.history[-1].epoch == epochs


def test_look_by_default_has_seen_enough_of_a_training_that_stops_early(gan):
    look = demo_gan.Look(gan, SAMPLES)
    train(gan, 2000, look, End(at=30))
    assert len(look.history) >= 6
    assert 30 <= look.history[-1].epoch < 60


def test_last_epoch_has_w1_whatever_the_looks(gan):
    logs = train(gan, 101, demo_gan.Look(gan, SAMPLES, every=40)).history
    assert len(logs["w1"]) == 3


def test_each_training_has_states_of_its_own(gan):
    look = demo_gan.Look(gan, SAMPLES)
    for _ in range(2):  # both end with epoch 1
        train(gan, 1, look)
        generated = gan.generator_model.predict(look.noise, verbose=0)
        assert look.history[-1].w1 == pytest.approx(look.measures.distance(generated), rel=1e-4)


def test_train_shows_what_a_users_own_look_sees(gan, capsys):
    look = demo_gan.Look(gan, SAMPLES, every=4)
    history = gan.train(SAMPLES, 8, batch_size=8, step_per=1, callbacks=look, verbose=1)
    assert history.history["w1"] == [state.w1 for state in look.history]
    assert f"W1: {look.history[-1].w1:.4f}" in capsys.readouterr().out
    assert len(history.history["w1"]) == 2


def test_history_of_very_many_looks_is_an_even_choice(gan, monkeypatch):
    monkeypatch.setattr(demo_gan, "HISTORY", 100)
    look = demo_gan.Look(gan, SAMPLES, every=1)
    album = Album(look)
    train(gan, 200, look, album)
    for states in look.history, album.states:
        seen = epochs_of(states)
        assert len(seen) == 100
        assert seen[0] == 1
        assert seen[-20:] == list(range(181, 201))
        assert np.diff(seen).max() < 5


def test_of_too_many_rows_evenly_spread_ones_are_shown(gan):
    samples = small_samples(40_000)
    for rows in samples.values():
        rows.sort(axis=0)
    look = demo_gan.Look(gan, samples)
    for rows in (look.noise, look.measures.real):
        assert len(rows) == demo_gan.ROWS_SHOWN
        assert abs(rows.mean()) < 0.1


def test_look_can_be_pickled_after_training(gan):
    look = demo_gan.Look(gan, SAMPLES)
    train(gan, 3, look)
    look = pickle.loads(pickle.dumps(look))
    assert epochs_of(look.history) == [1, 2, 3]


def test_distance_is_summed_in_double_precision():
    far = np.full((20_000, 1), 1e35, "float32")
    assert demo_gan.wasserstein(far, np.zeros_like(far)) == pytest.approx(1e35)


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_end", "on_train_end"])
def test_dispensable_callback_that_fails_is_reported_once_and_left_out(gan, caplog, hook):
    callback = mock.Mock(sees_weights_every=math.inf, failure="the odd one failed")
    getattr(callback, hook).side_effect = OSError("disk full")
    history = train(gan, 9, demo_gan.Dispensable(callback))
    assert len(history.epoch) == 9
    getattr(callback, hook).assert_called_once()
    callback.on_train_end.assert_called_once()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.message == "the odd one failed: disk full"


def test_operation_that_fails_says_why_in_one_line(caplog):
    gan = failing_gan(most_rows=3)
    with demo_gan.reported("training failed"):
        train(gan, 1)
    assert caplog.messages[0].startswith("training failed: assertion failed")


def let_looks_fail(epoch, logs):
    """After the second epoch a Look cannot measure the GAN any more."""
    MOST_ROWS.assign([100, *8 * [20]][epoch])


FAILURE = keras.callbacks.LambdaCallback(on_epoch_end=let_looks_fail)


def test_look_that_cannot_measure_ends_a_users_training():
    gan = failing_gan(most_rows=100)
    look = demo_gan.Look(gan, SAMPLES, every=1)
    with pytest.raises(RuntimeError, match="cannot measure the GAN"):
        train(gan, 9, look, FAILURE)
    assert look.history == []  # a picture of the first epochs would look like one of the end
    MOST_ROWS.assign(100)
    train(gan, 2, look)
    assert epochs_of(look.history) == [1, 2]


@pytest.mark.parametrize("every", [1, 9])  # who asks first: the Look or a view
def test_look_that_cannot_measure_takes_its_views_with_it(caplog, every):
    gan = failing_gan(most_rows=100)
    look = demo_gan.Look(gan, SAMPLES, every)
    albums = [Album(look, every) for every in (1, 2, 4)]
    callbacks = [demo_gan.Dispensable(callback) for callback in (look, *albums)]
    train(gan, 9, *callbacks, FAILURE)
    assert gan.epochs_done == 9
    assert [album.told for album in albums] == [2, 2, 2]  # they have closed by then
    assert look.history == []
    (message,) = caplog.messages
    assert "cannot measure the GAN" in message


@pytest.mark.parametrize("every", [2.5, -1, 0, "2"])
def test_looks_and_views_are_for_whole_numbers_of_epochs(gan, every):
    with pytest.raises(ValueError, match="every"):
        demo_gan.Look(gan, SAMPLES, every)
    with pytest.raises(ValueError, match="every"):
        demo_gan.Window(demo_gan.Look(gan, SAMPLES), every)


@pytest.mark.parametrize(("every", "frames"), [(8, 3), (50, 1)])
def test_animation_has_its_frames_and_one_of_the_end(gan, every, frames, tmp_path):
    path = tmp_path / "new folder" / "a.gif"
    look = demo_gan.Look(gan, SAMPLES)
    animation = demo_gan.Animation(look, path, every)
    for _ in range(2):  # it serves another training
        train(gan, 60, look, animation, End(at=20))
        assert frames_in(path) == frames


def test_animation_that_fails_replaces_no_older_one(gan, tmp_path, monkeypatch, caplog):
    path = tmp_path / "a.gif"
    path.write_text("of the run before")
    look = demo_gan.Look(gan, SAMPLES)
    animation = demo_gan.Animation(look, path)
    images = [Image.new("RGB", (8, 8)), OSError("broken")]
    monkeypatch.setattr(demo_gan.Picture, "image", mock.Mock(side_effect=images))
    train(gan, 9, look, demo_gan.Dispensable(animation))
    assert path.read_text() == "of the run before"
    assert caplog.messages == [f"{path} failed: broken"]


def test_progress_line_tells_each_tenth_of_each_training(gan, caplog):
    caplog.set_level("INFO")
    line = demo_gan.ProgressLine()
    for epochs in (20, 7):
        train(gan, epochs, line)
    told = [int(re.match(r"epoch (\d+) of", message)[1]) for message in caplog.messages]
    assert told == [*range(2, 21, 2), *range(1, 8)]


def test_csv_has_a_row_for_each_epoch_and_na_between_the_looks(gan, tmp_path):
    path = tmp_path / "training.csv"
    look = demo_gan.Look(gan, SAMPLES, every=40)
    train(gan, 100, look, demo_gan.TrainingCSV(path), End(at=45))
    text = path.read_text()
    assert text.count("\n") == 81
    assert re.findall(r"^(\d+),.*\d$", text, re.MULTILINE) == ["40", "80"]


def test_error_of_another_callback_leaves_complete_files(gan, tmp_path, capsys):
    gif = tmp_path / "a.gif"
    csv = tmp_path / "training.csv"
    look = demo_gan.Look(gan, SAMPLES)
    views = [demo_gan.Animation(look, gif), demo_gan.TrainingCSV(csv), demo_gan.ProgressLine(True)]
    with pytest.raises(ZeroDivisionError):
        train(gan, 60, look, *views, End(at=20, raises=True))
    assert frames_in(gif) == 20
    assert len(csv.read_text().splitlines()) == 21
    assert capsys.readouterr().out.endswith("\n")


def test_notebook_shows_a_frame_every_n_epochs(gan, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", mock.Mock(version_info=(9, 0)))
    monkeypatch.setattr(demo_gan, "window_canvas", lambda: None)
    look = demo_gan.Look(gan, SAMPLES)
    cell = demo_gan.live_picture(look, every=10)
    train(gan, 25, look, cell)
    assert epochs_of(cell.states) == [10, 20, 25]


@pytest.fixture(scope="module")
def screen():
    needs("Xvfb", "import", "xdotool")
    pytest.importorskip("tkinter", exc_type=ImportError)
    with virtual_display() as (display, _):
        yield display


def run(script, *arguments, **options):
    """Run a program of tests/data; returns what it prints and its log."""
    process = start("-W", "error::UserWarning", DATA / script, *arguments, **options)
    status, out, err = finish(process, LIMIT / 2)
    assert status == 0, err
    return out, err


@pytest.fixture(scope="module")
def live(screen, tmp_path_factory):
    """Train in a window; returns what it showed, what a user saw, and the log."""
    out, err = run("live.py", screen, cwd=tmp_path_factory.mktemp("live"))
    return [*json.loads(out), err]


@pytest.mark.tools
def test_window_is_painted_when_it_opens_whatever_the_style(live):
    _, _, pixels = live[0]
    assert pixels[0] > 300  # the real samples
    assert pixels[1:4] == [0, 0, 0]


@pytest.mark.tools
def test_window_has_the_articles_colours(live):
    _, _, pixels = live[0]
    assert min(pixels[4:]) > 50


@pytest.mark.tools
def test_window_says_compiling_and_then_each_epoch(live):
    titles, _, _ = live[0]
    expected = ["compiling", *(f"epoch = {epoch}" for epoch in range(1, 41))]
    assert titles == [*([title, "A generator learns"] for title in expected), []]


@pytest.mark.tools
def test_window_keeps_the_articles_pace_and_its_last_frame(live):
    _, times, _ = live[0]
    assert times[40] - times[2] > 0.8 * 38 * 0.05  # a busy machine may be slower
    assert times[41] - times[40] > 0.8 * 2


@pytest.mark.tools
def test_training_goes_on_when_the_window_is_closed(live):
    *_, (titles, _, _), _, log = live
    assert "epoch = 5" in titles[5]
    assert titles[40] == []
    assert re.search("INFO.* the window is closed: training goes on without it", log)


@pytest.mark.tools
def test_users_own_figures_and_the_window_leave_each_other_alone(live):
    *_, facts, _ = live
    assert facts.pop("seconds") < 5  # the next frame would be much later
    expected = {"green": 0, "figures": [1], "shown after close": True, "frames": 0, "current": 5}
    assert facts == expected


@pytest.mark.tools
def test_window_can_be_zoomed_and_held_and_hears_ctrl_c(screen, tmp_path):
    env = {"DISPLAY": screen, "MPLBACKEND": "module://used_tk", "PYTHONPATH": str(DATA)}
    process = start_demo("-e", 10**6, "-k", 1, cwd=tmp_path, env=env)
    status, _, err = finish(process)
    assert status == 130, err
    assert "models saved" in err
    drawn = opened(tmp_path / "drawn.png")
    on_screen = opened(tmp_path / "screen.png").crop((0, 0, *drawn.size))
    assert difference(on_screen, drawn) < 1


@pytest.fixture(scope="module")
def without_window(tmp_path_factory):
    """Return status and log of runs without a display, with a broken toolkit, without tkinter."""
    env = {"DISPLAY": ":99999", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    out, err = run("no_window.py", cwd=tmp_path_factory.mktemp("no window"), env=env)
    _, *logs = err.split("A run\n")
    return list(zip(out.split(), logs, strict=True))


def test_display_that_is_not_there_means_no_window_no_pause_and_no_warning(without_window):
    status, log = without_window[0]
    assert status == "0"
    assert not re.search("window|Warning|WARNING|ERROR", log)


def test_broken_toolkit_is_a_failure(without_window):
    status, log = without_window[1]
    assert status == "1"
    assert len(re.findall("ERROR.*live picture", log)) == 1
    assert "models saved in models" in log


def test_missing_toolkit_is_told_in_one_line(without_window):
    status, log = without_window[2]
    assert status == "0"
    assert len(re.findall("INFO.* no live window: .*python3-tk", log)) == 1


OWN_PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])"
PROGRAM = ROOT / "demo_gan.py"
CELLS = {
    "the program": f"""
import signal
before = signal.getsignal(signal.SIGINT)
%run "{PROGRAM}" -e 2 -k 1
assert signal.getsignal(signal.SIGINT) is before
""",
    "a plot": OWN_PLOT,
    "the library": f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
import demo_gan, keras
times = []
note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: times.append(time.monotonic()))
samples = demo_gan.make_samples(500, seed=0)
demo_gan.make_gan().train(samples, 40, step_per=1, plot=True, callbacks=note)
print(times[-1] - times[1])
""",
    "one more plot": OWN_PLOT,
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """Return the outputs of each cell of a notebook."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS.values()]
    document = nbformat.v4.new_notebook(cells=cells)
    nbclient.execute(document, str(tmp_path_factory.mktemp("notebook")), kernel_name="python3")
    return {name: cell.outputs for name, cell in zip(CELLS, document.cells)}


def pictures(outputs):
    return [output.data["image/png"] for output in outputs if "image/png" in output.get("data", [])]


def test_notebook_runs_the_program(notebook):
    assert "ERROR" not in str(notebook["the program"])


def test_notebook_shows_each_training_once_and_later_its_own_plots(notebook):
    assert [len(pictures(outputs)) for outputs in notebook.values()] == [1, 1, 1, 1]


def test_notebook_shows_the_training_at_the_articles_pace(notebook):
    outputs = notebook["the library"]
    (seconds,) = [output.text for output in outputs if output.get("name") == "stdout"]
    assert float(seconds) > 0.8 * 38 * 0.05
    (file,) = pictures(outputs)
    image = opened(io.BytesIO(base64.b64decode(file)))
    for color in (BLACK, GREEN, RED, GREY):
        assert pixels(image, color) > 50
