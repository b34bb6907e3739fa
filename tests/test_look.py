"""A Look sees each epoch as it was, and its views show it: animation, window, notebook."""

import base64
import contextlib
import io
import json
import math
import random
import re
from functools import partial

import keras
import nbclient
import nbformat
import numpy as np
import pytest
from conftest import (
    ROOT,
    SAMPLES,
    compile_both,
    finish,
    needs,
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
    FailsOnManyRows,
    difference,
    opened,
    pixels,
)
from PIL import Image, ImageSequence

import demo_gan

EPOCHS = 120
CADENCES = [1, 4, 6, 10, 25, 30, 50, 60]


@pytest.fixture(scope="module")
def gan():
    """Return a GAN that changes at each epoch, by more than rounding."""
    keras.utils.set_random_seed(0)
    return small_gan(optimizer=keras.optimizers.SGD(0.1))


def train(gan, epochs, *callbacks):
    gan.train(SAMPLES, epochs, batch_size=8, step_per=1, callbacks=list(callbacks))


def epochs_of(states):
    return [state.epoch for state in states]


class Ends(keras.callbacks.Callback):
    """Stops a training or raises, also while a call into TensorFlow is told of."""

    sees_weights_every = math.inf

    def __init__(self, at, stops=True, raises=False):
        super().__init__()
        self.at = at
        self.stops = stops
        self.raises = raises

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.at:
            self.model.stop_training = self.stops
            if self.raises:
                raise ZeroDivisionError


class Changes(keras.callbacks.Callback):
    """Changes how often it sees the weights, at any time."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw
        self.sees_weights_every = math.inf

    def on_epoch_end(self, epoch, logs=None):
        if self.draw.random() < 0.05:
            self.sees_weights_every = self.draw.choice([*CADENCES, math.inf])


class Watcher:
    """A view that keeps its States, until it leaves or fails."""

    def __init__(self, draw):
        self.every = draw.choice(CADENCES)
        self.last = draw.choice([2, 7, 30, 61, EPOCHS])
        self.fails = draw.choice([True, False])
        self.told = 0
        self.states = []

    def __call__(self, look):
        while self.told < self.last:
            self.told, _, state = yield
            if state is not None:
                self.states.append(state)
        if self.fails:
            raise RuntimeError


@pytest.fixture(scope="module")
def train_alike(gan):
    """Return a function that trains from the same weights, with the same draws."""
    first_weights = weights(gan.generator_training_model)

    def train_again(*callbacks):
        gan.generator_training_model.set_weights(first_weights)
        random.seed(0)
        train(gan, EPOCHS, *callbacks)

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
    watchers = [Watcher(draw) for _ in range(draw.randint(1, 2))]
    views = {str(number): (view, view.every) for number, view in enumerate(watchers)}
    look = demo_gan.Look(gan, SAMPLES, draw.choice([None, None, draw.choice(CADENCES)]), views)
    end = Ends(draw.randint(1, 2 * EPOCHS), draw.random() < 0.7, draw.random() < 0.5)
    callbacks = [look, Changes(draw), end]
    draw.shuffle(callbacks)
    with contextlib.suppress(ZeroDivisionError):
        train_alike(*callbacks)
    states = list(look.history)
    for view in watchers:
        states += view.states
        due = {*range(view.every, view.told + 1, view.every)}
        seen = epochs_of(view.states)
        assert seen in (sorted(due), sorted({*due, view.told}))
    for state in states:
        expected = every_state[state.epoch]
        assert state.w1 == pytest.approx(expected.w1, rel=1e-4)
        np.testing.assert_allclose(state.decision, expected.decision, rtol=1e-4)


def test_view_hears_of_every_epoch_and_of_one_more_look_at_a_stop(gan):
    told = []

    def note(look):
        while True:
            told.append((yield))

    look = demo_gan.Look(gan, SAMPLES, views={"note": (note, 80)})
    train(gan, 100, look, Ends(at=20))
    assert [epoch for epoch, _, _ in told] == [*range(1, 51), 50]
    *before, (_, logs, state) = told
    assert all(logs and state is None for _, logs, state in before)
    assert logs is None
    assert state.epoch == 50


@pytest.mark.parametrize("epochs", [200, 2000])
def test_look_by_default_looks_40_to_130_times(gan, epochs):
    look = demo_gan.Look(gan, SAMPLES)
    train(gan, epochs, look)
    assert 40 <= len(look.history) <= 130
    assert look.history[0].epoch == 1
    assert look.history[-1].epoch == epochs


def test_look_by_default_has_seen_enough_of_a_training_that_stops_early(gan):
    look = demo_gan.Look(gan, SAMPLES)
    train(gan, 2000, look, Ends(at=30))
    assert len(look.history) >= 6
    assert 30 <= look.history[-1].epoch < 60


def test_history_of_very_many_looks_is_an_even_choice(gan, monkeypatch):
    monkeypatch.setattr(demo_gan, "HISTORY", 100)
    look = demo_gan.Look(gan, SAMPLES, every=1)
    train(gan, 200, look)
    seen = epochs_of(look.history)
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
        assert len(rows) == demo_gan.SHOWN
        assert abs(rows.mean()) < 0.1


def failing(error):
    def view(look):
        yield
        raise error

    return view


def test_view_that_fails_is_reported_once_and_the_look_goes_on(gan, caplog):
    view = failing(OSError("disk full"))
    look = demo_gan.Look(gan, SAMPLES, every=1, views={"the odd one": (view, 1)})
    train(gan, 9, look)
    assert len(look.history) == 9
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert record.message == "the odd one failed: disk full"


def test_ctrl_c_in_a_view_ends_the_training(gan):
    views = {"it": (failing(KeyboardInterrupt), 0)}
    with pytest.raises(KeyboardInterrupt):
        train(gan, 9, demo_gan.Look(gan, SAMPLES, views=views))


@pytest.fixture
def failing_gan():
    gan = small_gan()
    gan.add_gen_layer(FailsOnManyRows())
    return compile_both(gan, "sgd")


def test_operation_that_fails_says_why_in_one_line(failing_gan, caplog):
    MOST_ROWS.assign(3)
    with demo_gan.reported("training failed"):
        train(failing_gan, 1)
    assert caplog.messages[0].startswith("training failed: assertion failed")


def test_look_that_cannot_measure_stops_until_the_next_training(failing_gan, caplog):
    MOST_ROWS.assign(100)
    look = demo_gan.Look(failing_gan, SAMPLES, every=1)
    fewer = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: MOST_ROWS.assign(20))
    train(failing_gan, 5, look, fewer)
    assert look.history == []  # a picture of the first epochs would look like one of the end
    assert len(caplog.records) == 1
    assert "cannot measure the GAN" in caplog.text
    MOST_ROWS.assign(100)
    train(failing_gan, 3, look)
    assert epochs_of(look.history) == [1, 2, 3]


@pytest.mark.parametrize("every", [2.5, -1, "2"])
def test_looks_and_views_are_for_whole_numbers_of_epochs(gan, every):
    with pytest.raises(ValueError, match="every"):
        demo_gan.Look(gan, SAMPLES, every=every)
    with pytest.raises(ValueError, match="every"):
        demo_gan.Look(gan, SAMPLES, views={"it": (demo_gan.progress_line, every)})


def animation(path):
    return partial(demo_gan.animation, path=path)


@pytest.mark.parametrize(("every", "frames"), [(1, 20), (8, 3), (50, 1)])
def test_animation_has_its_frames_and_one_of_the_end(gan, every, frames, tmp_path):
    path = tmp_path / "new folder" / "a.gif"
    look = demo_gan.Look(gan, SAMPLES, views={"it": (animation(path), every)})
    train(gan, 60, look, Ends(at=20))
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == frames


def test_csv_has_a_row_for_each_epoch_and_na_between_the_looks(gan, tmp_path, caplog):
    path = tmp_path / "training.csv"
    view = partial(demo_gan.training_csv, path=path)
    look = demo_gan.Look(gan, SAMPLES, views={"the rows": (view, 40)})
    train(gan, 100, look, Ends(at=45))
    rows = path.read_text().splitlines()
    assert len(rows) == 81
    looked_at = [row.split(",")[0] for row in rows if not row.endswith(",NA")]
    assert looked_at == ["epoch", "40", "80"]
    assert "failed" not in caplog.text


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Return a folder with animation and picture of the article's GAN after twenty epochs."""
    folder = tmp_path_factory.mktemp("learned")
    keras.utils.set_random_seed(0)
    gan = demo_gan.make_gan()
    samples = demo_gan.make_samples(3200, seed=0)
    views = {"the GIF": (animation(folder / "a.gif"), 1)}
    look = demo_gan.Look(gan, samples, views=views)
    gan.train(samples, 20, step_per=20, callbacks=look)
    demo_gan.save_picture(gan, samples, folder / "a.png", "epoch = 20", look.history)
    return folder


def test_animation_is_small_plays_for_ever_and_keeps_its_last_frame(learned):
    with Image.open(learned / "a.gif") as image:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
        assert image.info["loop"] == 0
    assert durations == 19 * [50] + [2000]
    assert (learned / "a.gif").stat().st_size < 20 * 20_000


def test_animation_leads_to_the_saved_picture(learned):
    width, height = demo_gan.SIZE
    saved = opened(learned / "a.png").crop((0, 0, 100 * width, 100 * height))
    first, last, saved = [
        image.resize((80, 45))  # so small that the size of the letters does not matter
        for image in (opened(learned / "a.gif"), opened(learned / "a.gif", frame=-1), saved)
    ]
    assert difference(last, saved) < 1.6  # white is 254 in the GIF
    assert difference(first, saved) > 2


LIVE = """
import json, os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import IPython  # which makes no notebook of this process
import keras
import matplotlib.pyplot as plt
import app_logger
import demo_gan
from images import BLACK, GREEN, GREY, RED, axes_of, opened, part, pixels
os.environ["DISPLAY"] = sys.argv[2]  # conftest hides it

class Report(keras.callbacks.Callback):
    stops = closes = False

    def report(self):
        self.times.append(time.monotonic())
        windows = [plt.figure(number) for number in plt.get_fignums()]
        titles = [axes.get_title(loc="left") for window in windows for axes in window.axes]
        titles += [window.canvas.manager.get_window_title() for window in windows]
        self.titles.append([title for title in titles if title])
        return windows

    def take_screenshot(self, figure):
        subprocess.run(["import", "-window", "root", "screen.png"], check=True)
        image = opened("screen.png").crop((0, 0, *figure.bbox.size))
        for curve, color in {"real": BLACK, "generated": GREEN, "D": RED, "log": GREY}.items():
            self.pixels.append(pixels(part(image, axes_of(figure, curve)), color))

    def on_train_begin(self, logs=None):
        self.times, self.titles, self.pixels = [], [], []
        for window in self.report():
            self.take_screenshot(window)

    def on_epoch_end(self, epoch, logs=None):
        windows = self.report()
        if not windows:  # then nothing may wait for a frame
            demo_gan.FRAME_SECONDS = demo_gan.LAST_SECONDS = 3600
        elif epoch == 35:
            self.take_screenshot(windows[0])
        if epoch == 4 and self.stops:
            self.model.stop_training = True
        if epoch == 4 and self.closes and windows:  # do what a window manager's button does
            window = windows[0].canvas.manager.window
            window.after(10, lambda: window.tk.eval(window.protocol("WM_DELETE_WINDOW")))

    def on_train_end(self, logs=None):
        self.report()

def train():
    gan.train(samples, 40, step_per=1, plot=True, callbacks=report)
    assert plt.isinteractive() == before
    assert plt.get_fignums() == []
    return report.titles, report.times, report.pixels

app_logger.init("INFO")
plt.style.use("dark_background")
gan, samples = demo_gan.make_gan(), demo_gan.make_samples(500, seed=0)
report, before = Report(), plt.isinteractive()
done = train()
demo_gan.LAST_SECONDS, report.stops = 3600, True  # when it is stopped it does not wait for that
stopped = train()
report.stops, report.closes = False, True
print(json.dumps([done, stopped, train()]))
"""


@pytest.fixture(scope="module")
def screen():
    needs("Xvfb", "import", "xdotool")
    pytest.importorskip("tkinter", exc_type=ImportError)
    with virtual_display() as (display, _):
        yield display


@pytest.fixture(scope="module")
def shown(screen, tmp_path_factory):
    """Train three times in a window: to the end, until it is stopped, until it is closed."""
    options = ["-W", "error::UserWarning", "-c", LIVE, ROOT / "tests", screen]
    status, out, err = finish(start(*options, cwd=tmp_path_factory.mktemp("shown")))
    assert status == 0, err
    return [*json.loads(out), err]


@pytest.mark.tools
def test_window_is_painted_when_it_opens_whatever_the_style(shown):
    _, _, pixels = shown[0]
    assert pixels[0] > 300  # the real samples
    assert pixels[1:4] == [0, 0, 0]


@pytest.mark.tools
def test_window_has_the_articles_colours(shown):
    _, _, pixels = shown[0]
    assert min(pixels[4:]) > 50


@pytest.mark.tools
def test_window_says_compiling_and_then_each_epoch(shown):
    titles, _, _ = shown[0]
    expected = ["compiling", *(f"epoch = {epoch}" for epoch in range(1, 41))]
    assert len(titles) == 42
    for title, said in zip(expected, titles):
        assert title in said
        assert "A generator learns" in said


@pytest.mark.tools
def test_window_keeps_the_articles_pace_and_its_last_frame(shown):
    _, times, _ = shown[0]
    assert times[40] - times[2] > 0.8 * 38 * 0.05  # a busy machine may be slower
    assert times[41] - times[40] > 0.8 * 2


@pytest.mark.tools
def test_training_goes_on_when_the_window_is_closed(shown):
    *_, (titles, _, _), log = shown
    assert "epoch = 5" in titles[5]
    assert titles[40] == []
    assert re.search("INFO.* the window is closed: training goes on without it", log)


USED_TK = """
import os, re, signal, subprocess
from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg
from PIL import Image
import numpy as np

def do(*words):
    subprocess.run(["xdotool", *map(str, words)], check=True)

class FigureCanvas(FigureCanvasTkAgg):
    'Uses its window with mouse and keys. At each yield it waits until something is so.'

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.story = self.use()
        self.awaited = next(self.story)
        self.timer = self.new_timer(20)
        self.timer.add_callback(self.go_on)
        self.timer.start()

    def go_on(self):
        if self.awaited():
            self.awaited = next(self.story)

    def title(self):
        return "".join(axes.get_title(loc="left") for axes in self.figure.axes)

    def epoch(self):
        return int((re.findall(r"epoch = (\\d+)", self.title()) or [0])[0])

    def held(self):
        return ", held" in self.title()

    def use(self):
        yield lambda: self.epoch() >= 30
        axes = next(axes for axes in self.figure.axes if "sample" in axes.get_ylabel())
        before = axes.get_xlim()
        corners = axes.transAxes.transform([(0.2, 0.6), (0.7, 0.02)]).astype(int)
        do("mousemove", 300, 200, "key", "o")
        height = self.figure.bbox.height
        do("mousemove", corners[0][0], height - corners[0][1], "mousedown", 1)
        do("mousemove", corners[1][0], height - corners[1][1], "mouseup", 1)
        yield lambda: axes.get_xlim() != before
        do("key", "space")
        yield self.held
        self.manager.window.update_idletasks()  # draws what is due
        subprocess.run(["import", "-window", "root", "screen.png"], check=True)
        self.draw()
        Image.fromarray(np.asarray(self.buffer_rgba())).convert("RGB").save("drawn.png")
        epoch = self.epoch()
        do("key", "Right")
        yield lambda: self.held() and self.epoch() == epoch + 1
        do("key", "space")
        yield lambda: not self.held() and self.epoch() > epoch + 2
        do("key", "space")
        yield self.held
        os.kill(os.getpid(), signal.SIGINT)
        yield lambda: False
"""


@pytest.mark.tools
def test_window_can_be_zoomed_and_held_and_hears_ctrl_c(screen, tmp_path):
    (tmp_path / "used_tk.py").write_text(USED_TK)
    env = {"DISPLAY": screen, "MPLBACKEND": "module://used_tk", "PYTHONPATH": str(tmp_path)}
    process = start_demo("-e", 10**6, "-k", 1, cwd=tmp_path, env=env)
    status, _, err = finish(process)
    assert status == 130, err
    assert "models saved" in err
    drawn = opened(tmp_path / "drawn.png")
    on_screen = opened(tmp_path / "screen.png").crop((0, 0, *drawn.size))
    assert difference(on_screen, drawn) < 1


NO_WINDOW = """
import sys
sys.modules.update(matplotlib_inline=None)
import demo_gan, matplotlib
demo_gan.FRAME_SECONDS = demo_gan.LAST_SECONDS = 3600  # without a window nothing waits
chosen_by_matplotlib = dict.__getitem__(matplotlib.rcParams, "backend")
for backend in ("TkAgg", "module://broken_toolkit", chosen_by_matplotlib):
    print("A run", file=sys.stderr)
    dict.__setitem__(matplotlib.rcParams, "backend", backend)
    if backend is chosen_by_matplotlib:
        sys.modules.update(tkinter=None, _tkinter=None)
    print(demo_gan.main("-e 2 -k 1".split()))
"""


@pytest.fixture(scope="module")
def without_window(tmp_path_factory):
    """What runs say whose display is not there, whose toolkit is broken, that have no toolkit."""
    folder = tmp_path_factory.mktemp("no window")
    (folder / "broken_toolkit.py").write_text("raise RuntimeError('no toolkit')")
    env = {"DISPLAY": ":99999", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    process = start("-W", "error::UserWarning", "-c", NO_WINDOW, cwd=folder, env=env)
    status, out, err = finish(process)
    assert status == 0, err
    _, *said = err.split("A run\n")
    return list(zip(out.split(), said, strict=True))


def test_display_that_is_not_there_means_no_window_no_pause_and_no_warning(without_window):
    status, said = without_window[0]
    assert status == "0"
    assert not re.search("window|Warning|WARNING|ERROR", said)


def test_broken_toolkit_is_a_failure(without_window):
    status, said = without_window[1]
    assert status == "1"
    assert len(re.findall("ERROR.*live picture", said)) == 1
    assert "models saved in models" in said


def test_missing_toolkit_is_told_in_one_line(without_window):
    status, said = without_window[2]
    assert status == "0"
    assert len(re.findall("INFO.* no live window: .*python3-tk", said)) == 1


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
    """Return what each cell of a notebook says, and the pictures that it shows."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS.values()]
    document = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    client = nbclient.NotebookClient(document, kernel_name="python3", resources=resources)
    client.execute()
    said = {}
    shown = {}
    for name, cell in zip(CELLS, document.cells):
        said[name] = "".join(output.get("text", "") for output in cell.outputs)
        shown[name] = []
        for output in cell.outputs:
            picture = output.get("data", {}).get("image/png")
            if picture:
                shown[name].append(io.BytesIO(base64.b64decode(picture)))
    return said, shown


def test_notebook_runs_the_program(notebook):
    said, _ = notebook
    assert "ERROR" not in said["the program"]


def test_notebook_shows_each_training_once_and_later_its_own_plots(notebook):
    _, shown = notebook
    assert [len(files) for files in shown.values()] == [1, 1, 1, 1]


def test_notebook_shows_the_training_at_the_articles_pace(notebook):
    said, shown = notebook
    assert float(said["the library"].split()[-1]) > 0.8 * 38 * 0.05
    (file,) = shown["the library"]
    image = opened(file)
    for color in (BLACK, GREEN, RED, GREY):
        assert pixels(image, color) > 50
