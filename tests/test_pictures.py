"""The pictures show what is there, in the article's colours, live, saved and animated."""

import base64
import io
import re
import subprocess
import time

import keras
import nbclient
import nbformat
import numpy as np
import pytest
from conftest import ROOT, finish, needs, small_gan, small_samples, start, virtual_display
from PIL import Image, ImageSequence
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


def test_the_state_is_what_the_networks_say():
    gan, samples = small_gan(), small_samples(200)
    gan.generator_model.set_weights([3 * weight for weight in gan.generator_model.get_weights()])
    real, generated = samples["y"], np.array(gan.generator_model(samples["x"]))
    state = demo_gan.gan_state(gan, generated, real)
    edges = demo_gan.bin_edges(real)
    assert np.abs(generated).max() > edges[-1] > real.max()  # the outermost bins count all beyond
    p, q = (np.histogram(np.clip(a, *edges[[0, -1]]), edges)[0] / 200 for a in (real, generated))
    np.testing.assert_allclose(state["generated"][1], q)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(state["optimal"][1], p / (p + q))
    x, decision = state["decision"]
    assert (x[0], x[-1]) == (edges[0], edges[-1])
    np.testing.assert_allclose(decision, gan.discriminateor_model(x[:, None])[:, 0], rtol=1e-5)
    w1 = stats.wasserstein_distance(generated[:, 0], real[:, 0])
    assert demo_gan.wasserstein(generated, real) == pytest.approx(w1, rel=1e-5)


def test_samples_of_several_numbers_are_a_scatter_of_two_and_have_a_mean_distance(tmp_path):
    gan, samples = small_gan(signal_dim=3), small_samples(500, signal_dim=3)
    generated = np.array(gan.generator_model(samples["x"]))
    state = demo_gan.gan_state(gan, generated, samples["y"])
    np.testing.assert_allclose(np.transpose(state["generated"]), generated[:, :2], rtol=1e-5)
    w1 = [stats.wasserstein_distance(generated[:, i], samples["y"][:, i]) for i in range(3)]
    assert demo_gan.wasserstein(generated, samples["y"]) == pytest.approx(np.mean(w1), rel=1e-5)
    demo_gan.save_picture(gan, samples, tmp_path / "a.png", "title")
    with Image.open(tmp_path / "a.png") as image:
        assert min(pixels(image, BLACK), pixels(image, GREEN)) > 100
        assert pixels(image, RED) == 0


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
    for name, magic in (("b.PDF", b"%PDF"), ("c.svg", b"<?xml")):
        demo_gan.save_picture(gan, samples, tmp_path / "new" / name, "title")
        assert (tmp_path / "new" / name).read_bytes().startswith(magic)


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


def test_twenty_epochs_stay_as_a_fading_trail_also_without_a_history():
    samples = small_samples(500)
    before, after = (
        demo_gan.gan_state(constant_gan(x, 0.5), np.full((500, 1), x), samples["y"])
        for x in (-1, 1)
    )
    picture, images = demo_gan.Picture(samples["y"], epochs=30), []
    for state in [before] + 21 * [after]:
        picture.draw(state, "title")
        images.append(picture.image().crop(UPPER))
    column = mask(images[0], GREEN).sum(axis=0).argmax()
    past = [np.asarray(image, "int")[:150, column] for image in images]
    pale = [((pixels[:, 1] > pixels[:, 0] + 5) & (pixels[:, 0] > 100)).sum() for pixels in past]
    assert pale[1] > 50
    assert pale[20] > 0
    assert pale[21] == 0


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


def test_the_graphs_of_both_models_are_drawn_at_a_size_one_can_read(trained):
    needs("dot")
    for name in ("gan_generator_model", "gan_discriminateor_model"):
        with Image.open(trained / "log" / f"{name}.png") as image:
            assert 400 < image.height < 1500
            assert 200 < image.width < 1500


@pytest.mark.parametrize("epochs", [20, 30])
def test_there_is_a_frame_every_so_many_epochs_and_of_the_last_also_when_stopped(epochs, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch + 1 == 20

    gan, samples = small_gan(), small_samples(80)
    expected = {1: list(range(1, 21)), 8: [8, 16, 20], 50: [20]}
    animations = [demo_gan.Animation(gan, samples, tmp_path / f"{n}.gif", n) for n in expected]
    gan.train(samples, epoch=3, batch_size=8, callbacks=animations)  # whose frames are not kept
    gan.train(samples, epoch=epochs, batch_size=8, step_per=1, callbacks=[*animations, Stop()])
    w1 = demo_gan.wasserstein(np.array(gan.generator_model(samples["x"])), samples["y"])
    for animation, looks in zip(animations, expected.values(), strict=True):
        assert [epoch for epoch, _ in animation.history] == looks
        assert animation.history[-1][1] == pytest.approx(w1, rel=1e-5)
        with Image.open(animation.path) as image:
            assert getattr(image, "n_frames", 1) == len(looks)


def test_the_animation_has_the_colours_and_ends_on_the_saved_picture_for_two_seconds(trained):
    assert (trained / "training.gif").stat().st_size < 2_000_000 * 20 / 100
    with Image.open(trained / "training.gif") as image:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]
    assert durations == 19 * [50] + [2000]
    with Image.open(trained / "img" / "gan_results.png") as saved:
        for color, box in ((GREEN, UPPER), (RED, LOWER), (GREY, PANEL)):
            curve = mask(saved.crop(box), color)
            assert curve.sum() > 50
            first, last = (mask(frames[i].crop(box), color)[curve].mean() for i in (0, -1))
            assert first < 0.6 < 0.95 < last
    assert all(pixels(frame, BLACK, UPPER) > 100 for frame in frames)


LIVE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import keras
import matplotlib.pyplot as plt
from conftest import small_gan, small_samples
import demo_gan

class Times(keras.callbacks.Callback):
    closing = False
    def on_epoch_end(self, epoch, logs=None):
        windows = [plt.figure(number) for number in plt.get_fignums()]
        titles = [window.axes[0].get_title(loc="left") for window in windows]
        names = [window.canvas.manager.get_window_title() for window in windows]
        print(time.perf_counter(), *titles, *names, sep=";", flush=True)
        if windows and self.closing and epoch + 1 == 5:  # do what a window manager's button does
            window = windows[0].canvas.manager.window
            window.after(10, lambda: window.tk.eval(window.protocol("WM_DELETE_WINDOW")))

gan, times = small_gan(), Times()
before = plt.isinteractive(), plt.get_fignums()
for times.closing, epochs in ((False, 60), (True, 200)):
    gan.train(small_samples(64), epoch=epochs, step_per=1, plot=True, callbacks=[times])
    assert (plt.isinteractive(), plt.get_fignums()) == before
assert len(gan.train_status["gen_result"]) == 260
"""


def live(display, **environment):
    options = ["-W", "error::UserWarning", "-c", LIVE, ROOT / "tests"]
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


def test_the_window_has_the_colours_and_the_articles_pace_until_it_is_closed(screen, tmp_path):
    process = live(screen)
    first = process.stdout.readline()
    time.sleep(1)
    file = tmp_path / "screen.png"
    subprocess.run(["import", "-display", screen, "-window", "root", file], check=True)
    with Image.open(file) as image:
        assert min(pixels(image, color) for color in (GREEN, BLACK, RED)) > 100
    status, out, err = finish(process)
    assert (status, "Traceback" in err) == (0, False), err
    times, said = lines_of(first + out)
    shown = [[f"epoch = {n}", "A generator learns"] for n in range(1, 61)]
    assert said[:60] == shown
    pace, unseen = (times[59] - times[0]) / 59, (times[-1] - times[70]) / (len(times) - 71)
    assert pace > 0.8 * 0.05  # a busy machine may be slower
    assert (said[60:65], said[-190:]) == (shown[:5], 190 * [[]])
    assert unseen < pace / 2


def test_a_display_that_is_not_there_means_no_window_no_pause_and_no_warning():
    status, out, err = finish(live(":99999", MPLBACKEND="TkAgg"))
    assert (status, "Warning" in err) == (0, False), err
    times, said = lines_of(out)
    assert said == 260 * [[]]
    assert times[-1] - times[1] < 6


def test_a_display_without_a_toolkit_is_told_in_one_line(screen, tmp_path):
    script = """
import sys
sys.modules.update(tkinter=None, _tkinter=None)
import demo_gan
sys.exit(demo_gan.main("-e 1 -k 1".split()))
"""
    env = {"DISPLAY": screen, "WAYLAND_DISPLAY": None}
    status, _, err = finish(start("-c", script, cwd=tmp_path, env=env))
    assert status == 0, err
    (line,) = [line for line in err.splitlines() if "window" in line]
    assert re.search("INFO.*python3-tk", line)


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
