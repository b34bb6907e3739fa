"""The pictures show what is there, in the article's colours, live, saved and animated."""

import os
import re
import subprocess
import time

import numpy as np
import pytest
from conftest import ROOT, finish, needs, small_gan, small_samples, start
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

import demo_gan

BLACK, GREEN, RED = (0, 0, 0), (0, 128, 0), (255, 0, 0)


def pixels(image, color, box=None):
    """How many pixels of an image are about of a colour."""
    rgb = np.asarray(image.convert("RGB").crop(box) if box else image.convert("RGB"), "int")
    return int((np.abs(rgb - color).max(axis=2) < 40).sum())


# -- the state ----------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 3])
def test_wasserstein_is_the_distance_scipy_computes(dims):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(500, dims)), rng.normal(1, 2, size=(500, dims))
    expected = np.mean([stats.wasserstein_distance(x, y) for x, y in zip(a.T, b.T, strict=True)])
    assert demo_gan.wasserstein(a, b) == pytest.approx(expected)
    assert demo_gan.wasserstein(a, a[::-1]) == 0


def test_a_histogram_counts_what_lies_beyond_in_the_outermost_bins():
    samples = np.array([[-99.0], [0.5], [1.5], [1.6], [np.inf]])
    shares = demo_gan.histogram(samples, np.array([[0.0, 1.0, 2.0, 3.0]]))
    np.testing.assert_allclose(shares, [[0.4, 0.4, 0.2]])


def test_the_bins_span_the_real_samples_with_room_on_both_sides():
    edges = demo_gan.bin_edges(np.array([[0.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_allclose(edges[0, [0, -1]], [-1, 4])
    assert (np.diff(edges) > 0).all()


def test_the_state_is_what_the_networks_say():
    gan, samples = small_gan(), small_samples(200)
    edges = demo_gan.bin_edges(samples["y"])
    state = demo_gan.gan_state(gan, samples["x"], samples["y"], edges, whole_axis=True)
    generated = np.array(gan.generator_model(samples["x"]))
    _, shares = state["generated", 0]
    np.testing.assert_allclose(shares, demo_gan.histogram(generated, edges)[0])
    x, y = state["decision", 0]
    assert x[0] == edges[0, 0]
    assert x[-1] == edges[0, -1]
    np.testing.assert_allclose(y, gan.discriminateor_model(x[:, None])[:, 0], rtol=1e-5)
    p, q, optimal = (state[name, 0][1] for name in ("real", "generated", "optimal"))
    seen = p + q > 0
    np.testing.assert_allclose(optimal[seen], p[seen] / (p[seen] + q[seen]))
    assert np.isnan(optimal[~seen]).all()
    assert (~seen).any()


def test_live_d_is_shown_at_the_generated_samples_sorted():
    gan, samples = small_gan(), small_samples(32)
    edges = demo_gan.bin_edges(samples["y"])
    state = demo_gan.gan_state(gan, samples["x"], samples["y"], edges, whole_axis=False)
    generated = np.sort(np.array(gan.generator_model(samples["x"]))[:, 0])
    np.testing.assert_allclose(state["decision", 0][0], generated, rtol=1e-5)
    assert ("optimal", 0) not in state


# -- a picture ----------------------------------------------------------------------------


def drawn(epochs=3, whole_axis=False, dims=1, every=1):
    gan = small_gan(signal_dim=dims)
    samples = small_samples(200, signal_dim=dims)
    picture = demo_gan.Picture(Figure(demo_gan.Picture.SIZE), samples["y"], 10, every)
    limits = []
    for epoch in range(1, epochs + 1):
        state = demo_gan.gan_state(gan, samples["x"], samples["y"], picture.edges, whole_axis)
        picture.draw(state, f"epoch = {epoch}", [(i, 0.5) for i in range(1, epoch + 1)])
        limits.append([axes.get_xlim() + axes.get_ylim() for axes in picture.figure.axes])
    return picture, limits


def test_the_curves_keep_the_articles_colours_and_marks():
    picture, _ = drawn()
    histogram, decision, _ = picture.figure.axes
    styles = {
        line.get_label(): (to_rgb(line.get_color()), line.get_marker(), line.get_linestyle())
        for line in [*histogram.lines, *decision.lines]
    }
    assert styles["generated"] == (to_rgb("g"), "o", "-")
    assert styles["real"] == (to_rgb("k"), "o", "-")
    assert styles["D"] == (to_rgb("r"), "None", "--")


def test_a_frame_has_title_legend_labels_and_axes_that_never_jump():
    picture, limits = drawn(epochs=5)
    histogram, decision, distance = picture.figure.axes
    assert histogram.get_title(loc="left") == "epoch = 5"
    assert [text.get_text() for text in histogram.get_legend().get_texts()] == ["real", "generated"]
    assert "optimal D" not in [text.get_text() for text in decision.get_legend().get_texts()]
    assert all(axes.get_ylabel() for axes in (histogram, decision))
    assert all(axes.get_xlabel() for axes in (decision, distance))
    assert distance.get_yscale() == "log"
    assert all(limit == limits[0] for limit in limits)


@pytest.mark.parametrize(
    ("frames", "every", "kept"), [(1, 1, 0), (8, 1, 7), (30, 1, 20), (30, 2, 10), (5, 50, 1)]
)
def test_the_last_twenty_epochs_stay_as_a_fading_trail(frames, every, kept):
    picture, _ = drawn(frames, every=every)
    trails = [trail for axes in picture.figure.axes[:2] for trail in axes.collections]
    shown = [trail for trail in trails if trail.get_segments()]
    assert len(shown) == (3 if kept else 0)
    for trail in shown:
        alphas = trail.get_colors()[:, 3]
        assert len(trail.get_segments()) == len(alphas) == kept
        assert (np.diff(alphas) > 0).all()


def test_a_run_that_diverges_stays_in_view():
    picture, _ = drawn()
    everything_beyond = np.full((9, 1), 1e9)
    state = {
        ("generated", 0): (np.zeros(1), np.ones(1)),
        ("decision", 0): (everything_beyond[:, 0], np.ones(9)),
    }
    picture.draw(state, "epoch = 4", [(1, 0.5), (2, 1e9), (3, 1e-9)])
    for axes in picture.figure.axes:
        for line in axes.lines:
            if line.get_label() != "0.5: cannot tell" and len(line.get_xdata()):
                (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
                assert left <= min(line.get_xdata()) <= max(line.get_xdata()) <= right
                assert bottom <= min(line.get_ydata()) <= max(line.get_ydata()) <= top
    assert demo_gan.histogram(everything_beyond, picture.edges)[0, -1] == 1


@pytest.mark.parametrize("dims", [2, 9])
def test_samples_of_several_components_are_shown_one_by_one_and_without_d(dims):
    picture, _ = drawn(dims=dims)
    *histograms, distance = picture.figure.axes
    assert len(histograms) == min(dims, 4)
    for i, axes in enumerate(histograms):
        assert axes.get_ylabel() == f"component {i + 1}"
        assert [line.get_label() for line in axes.lines] == ["real", "generated"]
        below = axes.get_tightbbox().y0
        assert all(other.get_window_extent().y1 <= below for other in histograms[i + 1 :])
    assert distance.get_yscale() == "log"


# -- saved --------------------------------------------------------------------------------


def test_the_saved_picture_shows_everything(trained):
    with Image.open(trained / "img" / "gan_results.png") as image:
        assert image.size == (800, 450)
        assert pixels(image, GREEN, (60, 0, 500, 250)) > 100
        assert pixels(image, BLACK, (60, 0, 500, 250)) > 100
        assert pixels(image, RED, (60, 250, 500, 410)) > 100


@pytest.mark.parametrize(
    ("name", "magic"), [("a.png", b"\x89PNG"), ("b.PDF", b"%PDF"), ("c.svg", b"<?xml")]
)
def test_the_ending_of_the_name_is_the_format(name, magic, tmp_path):
    demo_gan.save_picture(small_gan(), small_samples(100), tmp_path / "new" / name, "title", [])
    assert (tmp_path / "new" / name).read_bytes().startswith(magic)
    assert os.listdir(tmp_path / "new") == [name]


def test_the_saved_picture_has_d_on_the_whole_axis_the_optimum_and_a_half(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, file: (saved.append(figure), file.touch())
    )
    demo_gan.save_picture(small_gan(), small_samples(500), tmp_path / "a.png", "K = 20", [(1, 0.5)])
    histogram, decision, _ = saved[0].axes
    lines = {line.get_label(): line for line in decision.lines}
    assert list(lines) == ["0.5: cannot tell", "optimal D", "D"]
    np.testing.assert_allclose(lines["D"].get_xdata()[[0, -1]], decision.get_xlim())
    assert set(lines["0.5: cannot tell"].get_ydata()) == {0.5}
    assert histogram.get_title(loc="left") == "K = 20"
    for line in histogram.lines:
        assert line.get_ydata().sum() == pytest.approx(1)
        assert line.get_ydata().max() < histogram.get_ylim()[1]


def test_the_graphs_of_both_models_are_drawn_with_shapes(tmp_path, monkeypatch):
    needs("dot")
    seen = []
    plot_model = demo_gan.keras.utils.plot_model

    def spy(model, file, **options):
        seen.append((model, options))
        plot_model(model, file, **options)

    monkeypatch.setattr(demo_gan.keras.utils, "plot_model", spy)
    gan = demo_gan.make_gan(log_dir=tmp_path / "log")
    models = [gan.generator_training_model, gan.discriminateor_training_model]
    assert seen == [(model, {"show_shapes": True}) for model in models]
    names = ["gan_discriminateor_model.png", "gan_generator_model.png"]
    assert sorted(os.listdir(tmp_path / "log")) == names


# -- animated -----------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "frames"), [(1, 20), (5, 4), (8, 3), (50, 1)])
def test_the_animation_has_a_frame_every_so_many_epochs_and_the_last(every, frames, tmp_path):
    gan, samples, file = small_gan(), small_samples(80), tmp_path / "a.gif"
    animation = demo_gan.Animation(gan, samples, file, batch_size=8, every=every)
    gan.train(samples, epoch=20, batch_size=8, step_per=1, callbacks=[animation])
    with Image.open(file) as image:
        assert getattr(image, "n_frames", 1) == frames
        assert image.format == "GIF"


def test_the_animation_is_the_live_picture_in_its_colours(trained):
    file = trained / "training.gif"
    assert file.stat().st_size < 2_000_000 * 20 / 100
    with Image.open(file) as image:
        assert image.n_frames == 20
        assert image.info["duration"] == 50
        for frame in (0, 19):
            image.seek(frame)
            for color in (GREEN, BLACK, RED):
                assert pixels(image, color) > 30


# -- live ---------------------------------------------------------------------------------


class Screen:
    """A virtual display, and what is on it."""

    def __init__(self, display, folder):
        self.display, self.folder = display, folder

    def picture(self):
        file = self.folder / "screen.png"
        command = ["import", "-display", self.display, "-window", "root", str(file)]
        subprocess.run(command, check=True)
        with Image.open(file) as image:
            return image.convert("RGB")


@pytest.fixture(scope="session")
def screen(tmp_path_factory):
    needs("Xvfb", "import")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1000x700x24"]
    process = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        display = f":{pipe.readline().strip()}"
    yield Screen(display, tmp_path_factory.mktemp("screen"))
    process.terminate()
    process.wait()


LIVE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import keras
import matplotlib.pyplot as plt
from conftest import small_gan, small_samples
import demo_gan

class Times(demo_gan.Watcher):
    every = 1
    def on_epoch_end(self, epoch, logs=None):
        figures = [plt.figure(number) for number in plt.get_fignums()]
        titles = [figure.axes[0].get_title(loc="left") for figure in figures]
        print(time.perf_counter(), plt.get_backend(), *titles, sep=";", flush=True)
        {extra}

gan = small_gan()
before = plt.isinteractive(), plt.get_fignums()
settings = {{"epoch": {epochs}, "batch_size": 32, "step_per": 1, "plot": True}}
gan.train(small_samples(64), callbacks=[Times()], **settings)
assert (plt.isinteractive(), plt.get_fignums()) == before
print(len(gan.train_status["gen_result"]))
"""


def live(display, epochs, extra="", **environment):
    script = LIVE.format(epochs=epochs, extra=extra)
    return start(
        "-W",
        "error::UserWarning",
        "-c",
        script,
        ROOT / "tests",
        env={"DISPLAY": display, **environment},
    )


def test_the_window_shows_the_colours_at_the_articles_pace(screen):
    process = live(screen.display, 100)
    first = process.stdout.readline()
    assert "tkagg" in first.lower(), process.stderr.read()
    time.sleep(1.5)
    image = screen.picture()
    for color in (GREEN, BLACK, RED):
        assert pixels(image, color) > 100
    status, out, err = finish(process)
    assert status == 0, err
    lines = [line.split(";") for line in [first, *out.splitlines()[:-1]]]
    assert [line[2].strip() for line in lines] == [f"epoch = {n}" for n in range(1, 101)]
    times = np.array([float(line[0]) for line in lines])
    # Twenty frames a second from the first to the last, whatever single frames do.
    assert times[-1] - times[0] == pytest.approx(99 * 0.05, rel=0.2)
    halves = times[50] - times[0], times[99] - times[50]
    assert max(halves) / min(halves) < 1.4
    assert out.splitlines()[-1] == "100"
    assert pixels(screen.picture(), GREEN) == 0


def test_closing_the_window_goes_on_without_one(screen):
    # What a window manager's close button does.
    close = """
        if epoch == 5:
            window = figures[0].canvas.manager.window
            window.after(10, lambda: window.tk.eval(window.protocol("WM_DELETE_WINDOW")))
"""
    process = live(screen.display, 500, close)
    status, out, err = finish(process)
    assert status == 0, err
    assert err.count("Traceback") == 0
    lines = out.splitlines()
    assert lines[-1] == "500"
    times = [float(line.split(";")[0]) for line in lines[:-1]]
    assert times[-1] - times[20] < 8  # and not the 24 s that frames would take


@pytest.mark.parametrize(
    ("display", "backend"), [("", None), ("", "Agg"), (":99999", "TkAgg")], ids=str
)
def test_without_a_display_there_is_no_window_no_pause_and_no_warning(display, backend):
    process = live(display, 200, MPLBACKEND=backend)
    status, out, err = finish(process)
    assert status == 0, err
    assert "Warning" not in err
    times = [float(line.split(";")[0]) for line in out.splitlines()[:-1]]
    assert times[-1] - times[1] < 5
    assert not any(re.search("epoch = ", line) for line in out.splitlines())
