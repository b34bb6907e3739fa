"""The pictures show what is there, in the article's colours, live, saved and animated."""

import base64
import csv
import io
import os
import subprocess
import time

import keras
import nbclient
import nbformat
import numpy as np
import pytest
from conftest import ROOT, finish, needs, small_gan, small_samples, start, virtual_display
from PIL import Image, ImageChops, ImageSequence
from scipy import stats

import demo_gan

BLACK, GREEN, RED, GREY = (0, 0, 0), (0, 128, 0), (255, 0, 0), (77, 77, 77)
UPPER, LOWER, RIGHT = (60, 60, 500, 250), (60, 250, 500, 410), (570, 0, 800, 450)
PANEL = (600, 110, 780, 230)  # inside of the right panel, where there is one


def mask(image, color):
    """Which pixels of an image are about of a colour."""
    return np.abs(np.asarray(image.convert("RGB"), "int") - color).max(axis=2) < 40


def pixels(image, color, box=None):
    return int(mask(image.crop(box), color).sum())


def constant_gan(generated, judged):
    """A GAN that always generates one number, and says one probability."""
    gan = small_gan()
    for network, value in (
        (gan.generator_model, generated),
        (gan.discriminateor_model, np.log(judged / (1 - judged))),
    ):
        *others, bias = network.get_weights()
        network.set_weights([*(0 * other for other in others), bias * 0 + value])
    return gan


# -- the state ----------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 3])
def test_wasserstein_is_the_distance_scipy_computes(dims):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(500, dims)), rng.normal(1, 2, size=(500, dims))
    expected = np.mean([stats.wasserstein_distance(x, y) for x, y in zip(a.T, b.T, strict=True)])
    assert demo_gan.wasserstein(a, b) == pytest.approx(expected)


def test_a_histogram_counts_what_lies_beyond_in_the_outermost_bins():
    samples = np.array([[-99.0], [0.5], [1.5], [1.6], [np.inf]])
    shares = demo_gan.histogram(samples, np.array([0.0, 1.0, 2.0, 3.0]))
    np.testing.assert_allclose(shares, [0.4, 0.4, 0.2])


def test_the_state_is_what_the_networks_say():
    gan, samples = small_gan(), small_samples(200)
    state = demo_gan.gan_state(gan, samples["x"], samples["y"])
    generated, edges = np.array(gan.generator_model(samples["x"])), demo_gan.bin_edges(samples["y"])
    p, q = demo_gan.histogram(samples["y"], edges), demo_gan.histogram(generated, edges)
    np.testing.assert_allclose(state["generated"][1], q)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(state["optimal"][1], p / (p + q))
    x, decision = state["decision"]
    assert (x[0], x[-1]) == (edges[0], edges[-1])
    np.testing.assert_allclose(decision, gan.discriminateor_model(x[:, None])[:, 0], rtol=1e-5)
    assert state["w1"] == pytest.approx(demo_gan.wasserstein(generated, samples["y"]))


def test_the_state_of_samples_of_several_numbers_is_the_first_two():
    gan, samples = small_gan(signal_dim=3), small_samples(signal_dim=3)
    state = demo_gan.gan_state(gan, samples["x"], samples["y"])
    generated = np.array(gan.generator_model(samples["x"]))
    np.testing.assert_allclose(np.transpose(state["generated"]), generated[:, :2], rtol=1e-5)


# -- a picture ----------------------------------------------------------------------------


def test_the_saved_picture_has_the_colours_in_their_places_and_w1_only_with_a_history(tmp_path):
    gan, samples = small_gan(), small_samples(500)
    for history in ([], [(1, 0.5), (2, 0.3)]):
        demo_gan.save_picture(gan, samples, tmp_path / "a.png", "title", history)
        with Image.open(tmp_path / "a.png") as image:
            assert image.size == (800, 450)
            assert min(pixels(image, GREEN, UPPER), pixels(image, BLACK, UPPER)) > 100
            assert pixels(image, RED, LOWER) > 100
            # D is drawn along the whole width, or there is the distance.
            assert (pixels(image, RED, RIGHT) > 0) == (not history)
            assert (pixels(image, GREY, PANEL) > 50) == bool(history)


def test_the_saved_picture_shows_what_the_networks_say(tmp_path):
    peaks, levels = [], []
    for generated, judged in ((-1, 0.9), (1, 0.1)):
        gan = constant_gan(generated, judged)
        demo_gan.save_picture(gan, small_samples(500), tmp_path / "a.png", "title")
        with Image.open(tmp_path / "a.png") as image:
            peaks.append(mask(image.crop(UPPER), GREEN).sum(axis=0).argmax())
            levels.append(mask(image.crop(LOWER), RED).sum(axis=1).argmax())
    assert peaks[0] + 100 < peaks[1]
    assert levels[0] + 50 < levels[1]


def test_the_saved_picture_is_that_of_the_saved_models(trained, tmp_path):
    gan, samples = demo_gan.make_gan(), demo_gan.make_samples(3200, 4, seed=1)
    gan.load_model(trained / "models")
    rows = csv.DictReader((trained / "log" / "training.csv").read_text().splitlines())
    history = [(int(row["epoch"]), float(row["w1"])) for row in rows]
    demo_gan.save_picture(gan, samples, tmp_path / "a.png", "title", history)
    below_title = (0, 30, 800, 450)
    with Image.open(tmp_path / "a.png") as a, Image.open(trained / "img/gan_results.png") as b:
        difference = ImageChops.difference(a.crop(below_title), b.crop(below_title))
    assert np.max(difference) < 8


@pytest.mark.parametrize(
    ("name", "magic"), [("a.png", b"\x89PNG"), ("b.PDF", b"%PDF"), ("c.svg", b"<?xml")]
)
def test_the_ending_of_the_name_is_the_format(name, magic, tmp_path):
    demo_gan.save_picture(small_gan(), small_samples(100), tmp_path / "new" / name, "title")
    assert (tmp_path / "new" / name).read_bytes().startswith(magic)
    assert os.listdir(tmp_path / "new") == [name]


def test_twenty_epochs_stay_as_a_fading_trail():
    samples = small_samples(500)
    before, after = (
        demo_gan.gan_state(constant_gan(x, 0.5), samples["x"], samples["y"]) for x in (-1, 1)
    )
    picture, images = demo_gan.Picture(samples["y"]), []
    for state in [before] + 21 * [after]:
        picture.draw(state, "title")
        images.append(picture.image().crop(UPPER))
    column = mask(images[0], GREEN).sum(axis=0).argmax()
    past = [np.asarray(image, "int")[:150, column] for image in images]
    pale = [((pixels[:, 1] > pixels[:, 0] + 5) & (pixels[:, 0] > 100)).sum() for pixels in past]
    assert pale[1] > 50
    assert pale[20] > 0
    assert pale[21] == 0


def test_a_picture_with_a_distance_panel_can_do_without_a_history():
    gan, samples = small_gan(), small_samples(100)
    picture = demo_gan.Picture(samples["y"], epochs=10)
    picture.draw(demo_gan.gan_state(gan, samples["x"], samples["y"]), "title")
    assert pixels(picture.image(), GREEN, UPPER) > 100


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_every_axis_keeps_its_labels_whatever_the_scale_of_the_data(scale):
    picture = demo_gan.Picture(small_samples(500)["y"] * scale, epochs=10)
    picture.figure.canvas.draw()
    samples, decision, distance = picture.figure.axes
    for axis in (samples.yaxis, decision.xaxis, decision.yaxis, distance.xaxis, distance.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        shown = [label for at, label in ticks if low <= at <= high and label.get_text()]
        assert len({label.get_text() for label in shown}) >= 2
        assert all(picture.figure.bbox.containsx(label.get_window_extent().x0) for label in shown)


def test_samples_of_two_numbers_are_a_black_and_a_green_scatter(tmp_path):
    gan, samples = small_gan(signal_dim=2), small_samples(500, signal_dim=2)
    demo_gan.save_picture(gan, samples, tmp_path / "a.png", "title")
    with Image.open(tmp_path / "a.png") as image:
        assert min(pixels(image, BLACK), pixels(image, GREEN)) > 100
        assert pixels(image, RED) == 0


def test_the_graphs_of_both_models_are_drawn_at_a_size_one_can_read(trained):
    needs("dot")
    for name in ("gan_generator_model", "gan_discriminateor_model"):
        with Image.open(trained / "log" / f"{name}.png") as image:
            assert 400 < image.height < 1500
            assert 200 < image.width < 1500


# -- animated -----------------------------------------------------------------------------


def test_the_animation_has_a_frame_every_so_many_epochs_and_the_last(tmp_path):
    gan, samples, everies = small_gan(), small_samples(80), {1: 20, 8: 3, 50: 1}
    animations = [demo_gan.Animation(gan, samples, tmp_path / f"{n}.gif", n) for n in everies]
    gan.train(samples, epoch=20, batch_size=8, step_per=1, callbacks=animations)
    for every, frames in everies.items():
        with Image.open(tmp_path / f"{every}.gif") as image:
            assert getattr(image, "n_frames", 1) == frames


def test_the_animation_has_the_colours_and_ends_on_the_saved_picture_for_two_seconds(trained):
    assert (trained / "training.gif").stat().st_size < 2_000_000 * 20 / 100
    with Image.open(trained / "training.gif") as image:
        frames = [(frame.convert("RGB"), frame.info["duration"]) for frame in
                  ImageSequence.Iterator(image)]  # fmt: skip
    assert [duration for _, duration in frames] == 19 * [50] + [2000]
    with Image.open(trained / "img" / "gan_results.png") as saved:
        for color, box in ((GREEN, UPPER), (RED, LOWER)):
            curve = mask(saved.crop(box), color)
            first, last = (mask(frames[i][0].crop(box), color)[curve].mean() for i in (0, -1))
            assert first < 0.6 < 0.95 < last
    assert all(pixels(frame, BLACK, UPPER) > 100 for frame, _ in frames)


def test_where_training_is_stopped_the_distance_is_measured():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch + 1 == 6

    gan, samples = small_gan(), small_samples(80)
    distance = demo_gan.Distance(gan, samples, every=4)
    gan.train(samples, epoch=20, batch_size=8, step_per=1, callbacks=[distance, Stop()])
    assert [epoch for epoch, _ in distance.history] == [4, 6]
    generated = np.array(gan.generator_model(samples["x"]))
    w1 = demo_gan.wasserstein(generated, samples["y"])
    assert distance.history[-1][1] == pytest.approx(w1, rel=1e-5)


# -- live ---------------------------------------------------------------------------------

LIVE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import keras
import matplotlib.pyplot as plt
from conftest import small_gan, small_samples
import demo_gan

class Times(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        windows = [plt.figure(number) for number in plt.get_fignums()]
        titles = [window.axes[0].get_title(loc="left") for window in windows]
        names = [window.canvas.manager.get_window_title() for window in windows]
        print(time.perf_counter(), *titles, *names, sep=";", flush=True)
        if windows and epoch + 1 == int(sys.argv[3]):  # do what a window manager's button does
            window = windows[0].canvas.manager.window
            window.after(10, lambda: window.tk.eval(window.protocol("WM_DELETE_WINDOW")))

gan = small_gan()
before = plt.isinteractive(), plt.get_fignums()
settings = {"epoch": int(sys.argv[2]), "batch_size": 32, "step_per": 1, "plot": True}
gan.train(small_samples(64), callbacks=[Times()], **settings)
assert (plt.isinteractive(), plt.get_fignums()) == before
assert len(gan.train_status["gen_result"]) == settings["epoch"]
"""


def live(display, epochs, closed_at=0, **environment):
    options = ["-W", "error::UserWarning", "-c", LIVE, ROOT / "tests", epochs, closed_at]
    return start(*options, env={"DISPLAY": display, **environment})


def lines_of(out):
    """The time of each epoch, and what the window said."""
    lines = [line.split(";") for line in out.splitlines()]
    return np.array([float(line[0]) for line in lines]), [line[1:] for line in lines]


@pytest.fixture(scope="session")
def screen():
    needs("Xvfb", "import")
    with virtual_display() as (display, _):
        yield display


def screenshot(display, file):
    subprocess.run(["import", "-display", display, "-window", "root", str(file)], check=True)
    with Image.open(file) as image:
        return image.convert("RGB")


def test_the_window_shows_the_colours_at_the_articles_pace(screen, tmp_path):
    process = live(screen, 60)
    first = process.stdout.readline()
    time.sleep(1)
    image = screenshot(screen, tmp_path / "screen.png")
    assert min(pixels(image, color) for color in (GREEN, BLACK, RED)) > 100
    status, out, err = finish(process)
    assert status == 0, err
    times, said = lines_of(first + out)
    assert said == [[f"epoch = {n}", "A generator learns"] for n in range(1, 61)]
    assert times[-1] - times[0] == pytest.approx(59 * 0.05, rel=0.2)
    assert pixels(screenshot(screen, tmp_path / "screen.png"), GREEN) == 0


def test_closing_the_window_goes_on_without_one(screen):
    status, out, err = finish(live(screen, 500, closed_at=5))
    assert (status, "Traceback" in err) == (0, False), err
    times, said = lines_of(out)
    assert len(times) == 500
    assert (said[4], said[-1]) == (["epoch = 5", "A generator learns"], [])
    assert times[-1] - times[20] < 8  # and not the 24 s that frames would take


@pytest.mark.parametrize(("display", "backend"), [("", None), (":99999", "TkAgg")])
def test_without_a_display_there_is_no_window_no_pause_and_no_warning(display, backend):
    status, out, err = finish(live(display, 200, MPLBACKEND=backend))
    assert (status, "Warning" in err) == (0, False), err
    times, said = lines_of(out)
    assert said == 200 * [[]]
    assert times[-1] - times[1] < 5


def test_a_display_without_a_toolkit_is_told_in_one_line_and_no_display_in_none(screen, tmp_path):
    script = """
import sys
sys.modules.update(tkinter=None, _tkinter=None)
import demo_gan
sys.exit(demo_gan.main("-e 1 -k 1".split()))
"""
    processes = [
        start("-c", script, cwd=tmp_path, env={"DISPLAY": display, "WAYLAND_DISPLAY": None})
        for display in (screen, "")
    ]
    for process, expected in zip(processes, (1, 0), strict=True):
        status, _, err = finish(process)
        assert status == 0, err
        lines = [line for line in err.splitlines() if "window" in line]
        assert len(lines) == expected
        assert all("INFO" in line and "python3-tk" in line for line in lines)


# -- in a notebook ------------------------------------------------------------------------


def test_a_notebook_shows_the_picture_once_and_keeps_its_own_ctrl_c(tmp_path, no_display):
    cells = [
        f"import signal, sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        f"%run {ROOT / 'demo_gan.py'} -e 2 -k 1\n"
        "assert signal.getsignal(signal.SIGINT) is before",
        "from conftest import small_gan, small_samples\n"
        "gan = small_gan()\n"
        "gan.train(small_samples(500), epoch=5, plot=True)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=resources).execute()
    shown = [output for output in notebook.cells[1].outputs if "data" in output]
    assert len(shown) == 1
    with Image.open(io.BytesIO(base64.b64decode(shown[0].data["image/png"]))) as image:
        assert min(pixels(image, color) for color in (GREEN, BLACK, RED)) > 100
        assert pixels(image, GREY, (750, 40, 790, 390)) > 0  # W1 of the last epoch
