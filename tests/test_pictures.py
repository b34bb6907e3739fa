"""The pictures show what is there, in the article's colours, live, saved and animated."""

import base64
import functools
import io
import itertools
import logging
import re
import select
import subprocess
import time

import keras
import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest
from conftest import ROOT, finish, needs, small_gan, small_samples, start, virtual_display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image, ImageSequence
from scipy import stats

import demo_gan

BLACK, GREEN, RED, WHITE = (0, 0, 0), (0, 128, 0), (255, 0, 0), (255, 255, 255)
GREY, OPTIMAL, FILL = (77, 77, 77), (153, 153, 153), (191, 191, 191)
UPPER, LOWER, RIGHT = (92, 70, 500, 240), (92, 290, 500, 392), (570, 0, 800, 450)
PANEL = (600, 110, 768, 230)  # inside of the right panel, where there is one
PLANE = (130, 340, 180, 390)  # a corner of the plane
PARTS = np.array([1 / 40, 1 / 20, 1 / 10, 1 / 4, 1 / 2, 1])  # of a run, in the strip


def mask(image, color):
    """Which pixels of an image are about of a colour."""
    return np.abs(np.asarray(image.convert("RGB"), "int") - color).max(axis=2) < 40


def pixels(image, color, box=None):
    return int(mask(image.crop(box), color).sum())


def redness(image, box=None):
    """How much red there is beyond white, black and grey, at each pixel; negative for green."""
    rgb = np.asarray(image.crop(box).convert("RGB"), "int")
    return rgb[:, :, 0] - rgb[:, :, 1]


def opened(path, frame=0):
    with Image.open(path) as image:
        image.seek(frame % image.n_frames)
        return image.convert("RGB")


def panels(image):
    """What is in the panels of the strip of a saved picture, without their frames."""
    strip = image.crop((0, 490, 800, 611))
    columns = (np.asarray(strip.convert("L")) < 250).any(axis=0)
    edges = np.flatnonzero(np.diff(columns, prepend=False, append=False))
    return [strip.crop((left + 4, 5, right - 4, 115)) for left, right in edges.reshape(-1, 2)]


def inside(picture):
    """What is in the first axes of a picture, between the lower edge and the legend."""
    image, box = picture.image(), picture.figure.axes[0].get_window_extent()
    return image.crop(
        (box.x0 + 3, image.height - box.y1 + 50, box.x1 - 3, image.height - box.y0 - 8)
    )


def set_weights(network, first=0, last=0, bias=0):
    """Set the weights of a network of `small_gan`, all others are zero."""
    kernel, one, out, other = (np.zeros_like(weight) for weight in network.get_weights())
    network.set_weights([kernel + first, one, out + last, other + bias])


def constant_gan(generated, judged, signal_dim=1):
    """A GAN that always generates one number, and says one probability, also when it trains."""
    gan = small_gan(signal_dim=signal_dim, optimizer=keras.optimizers.SGD(0.0))
    set_weights(gan.generator_model, bias=generated)
    set_judgement(gan, judged)
    return gan


def set_judgement(gan, judged):
    set_weights(gan.discriminateor_model, bias=np.log(judged / (1 - judged)))


def state_of(gan, samples, epoch=0):
    outputs = demo_gan.predict(gan, samples["x"], demo_gan.points_for_d(samples["y"]))
    return demo_gan.gan_state(*outputs, samples["y"], epoch)


def animation(path, every=1):
    return {"the animation": functools.partial(demo_gan.animation, path=path, every=every)}


class Stop(keras.callbacks.Callback):
    def __init__(self, at, every=np.inf):  # so it hears when all in the same call are over
        super().__init__()
        self.at, self.sees_weights_every = at, every

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 == self.at:
            self.model.stop_training = True


def looked_at(gan, samples, epochs, *callbacks, **options):
    """Train a GAN while a Look looks at it; returns what it saw."""
    look = demo_gan.Look(gan, samples, **options)
    gan.train(samples, epochs, batch_size=8, step_per=1, callbacks=[look, *callbacks])
    return look.history


def epochs_of(history):
    return [state.epoch for state in history]


def test_the_state_is_what_the_networks_say():
    gan, samples = small_gan(), small_samples(200)
    gan.generator_model.set_weights([3 * weight for weight in gan.generator_model.get_weights()])
    real, generated = samples["y"], np.array(gan.generator_model(samples["x"]))
    state = state_of(gan, samples, epoch=7)
    edges = demo_gan.bin_edges(real)
    assert np.abs(generated).max() > edges[-1] > real.max()  # the outermost bins count all beyond
    shares = np.histogram(np.clip(generated, *edges[[0, -1]]), edges)[0] / 200
    np.testing.assert_allclose(state.generated, shares)
    x = np.linspace(*edges[[0, -1]], len(state.decision))[:, None]
    np.testing.assert_allclose(state.decision, gan.discriminateor_model(x)[:, 0], rtol=1e-5)
    w1 = stats.wasserstein_distance(generated[:, 0], real[:, 0])
    assert (state.epoch, state.w1) == (7, pytest.approx(w1, rel=1e-5))


def test_samples_of_several_numbers_are_a_scatter_of_two_and_have_a_mean_distance(tmp_path):
    gan, samples = small_gan(signal_dim=3), small_samples(500, signal_dim=3)
    generated = np.array(gan.generator_model(samples["x"]))
    state = state_of(gan, samples)
    np.testing.assert_allclose(state.generated, generated[:, :2], rtol=1e-5)
    w1 = [stats.wasserstein_distance(generated[:, i], samples["y"][:, i]) for i in range(3)]
    assert state.w1 == pytest.approx(np.mean(w1), rel=1e-5)
    history = looked_at(gan, samples, 3, views=animation(tmp_path / "a.gif"))
    demo_gan.save_picture(gan, samples, tmp_path / "a.png", "title", history)
    saved, frame = opened(tmp_path / "a.png"), opened(tmp_path / "a.gif", -1)
    for image in (saved, frame, *panels(saved)):
        assert min(pixels(image, BLACK), pixels(image, GREEN)) > 50
        assert redness(image).max() < 20  # what D says of more than two numbers is nowhere


def test_the_saved_picture_has_the_colours_in_their_places_and_w1_only_with_a_history(tmp_path):
    gan, samples = small_gan(), small_samples(500)
    for history in ([], looked_at(gan, samples, 2)):
        demo_gan.save_picture(gan, samples, tmp_path / "a.png", "title", history)
        image = opened(tmp_path / "a.png")
        assert image.size == (800, 620 if history else 450)
        assert min(pixels(image, GREEN, UPPER), pixels(image, BLACK, UPPER)) > 100
        assert pixels(image, RED, LOWER) > 100
        # D is drawn along the whole width, or there is the distance.
        assert (pixels(image, RED, RIGHT) > 0) == (not history)
        assert (pixels(image, GREY, PANEL) > 50) == bool(history)
    for name, magic in (("b.PDF", b"%PDF"), ("c.svg", b"<?xml")):
        demo_gan.save_picture(gan, samples, tmp_path / "new" / name, "title", history)
        assert (tmp_path / "new" / name).read_bytes().startswith(magic)
    told = re.findall("<!-- (.*) -->", (tmp_path / "new" / "c.svg").read_text())
    assert {"title", "real", "generated", "D", "optimal D", "epoch", "share of samples"} <= set(
        told
    )


@pytest.mark.parametrize(("generated", "judged"), [(-1, 0.9), (1, 0.1)])
def test_the_picture_shows_what_the_networks_say_and_what_the_best_d_would_say(generated, judged):
    samples = small_samples(500)
    picture = demo_gan.Picture(samples["y"])
    picture.set_states([state_of(constant_gan(generated, judged), samples)])
    lines = [line for axes in picture.figure.axes for line in axes.lines]
    curves = {line.get_label(): line.get_data() for line in lines}
    x, shares = curves["generated"]
    assert abs(x[shares.argmax()] - generated) < 0.2
    np.testing.assert_allclose(curves["D"][1], judged, rtol=1e-5)
    x, says = curves["optimal D"]
    assert np.nanmin(says[np.abs(x - generated) < 0.2]) < 0.2  # where samples are generated
    assert np.nanmin(says[np.abs(x - generated / 2) < 0.2]) > 0.9  # and where they are real
    assert np.isnan(says[[0, -1]]).all()  # and no word where there are none


@pytest.fixture(scope="module")
def some_gan():
    """Where it does not matter how the GAN is trained."""
    return small_gan()


@pytest.mark.parametrize("epochs", [*range(1, 11), 40, 200, 1000])
def test_the_stages_of_a_run_are_spread_over_it_and_end_with_its_end(some_gan, epochs):
    history = looked_at(some_gan, small_samples(), epochs)
    chosen = epochs_of(demo_gan.stages(history))
    assert len(chosen) == len(set(chosen)) == min(6, epochs)
    assert chosen == sorted(chosen)
    assert chosen[-1] == epochs
    if epochs > 10:
        np.testing.assert_allclose(chosen, PARTS * epochs, rtol=0.1)


@pytest.mark.parametrize("looks", [1, 3, 6, 9])
def test_the_strip_of_a_saved_picture_shows_each_stage(looks, tmp_path):
    samples = small_samples(500)
    before, gan = constant_gan(-1, 0.9), constant_gan(1, 0.1)
    history = [state_of(before, samples, 7 * look) for look in range(1, looks + 1)]
    demo_gan.save_picture(gan, samples, tmp_path / "a.png", "title", history)
    assert pixels(opened(tmp_path / "a.png"), GREY, (765, 40, 776, 390)) > 0  # the axis ends there
    strip = panels(opened(tmp_path / "a.png"))
    assert len(strip) == min(6, looks)
    peaks = [mask(panel, GREEN).sum(axis=0).argmax() for panel in strip]
    levels = [(redness(panel) > 100).sum(axis=1).argmax() for panel in strip]
    assert all(peak + 10 < peaks[-1] for peak in peaks[:-1])
    heights = [1.04 * (1 - level / panel.height) for level, panel in zip(levels, strip)]
    np.testing.assert_allclose(heights, [0.9] * (len(strip) - 1) + [0.1], atol=0.05)
    assert min(pixels(panel, FILL) for panel in strip) > 100
    demo_gan.save_picture(gan, samples, tmp_path / "a.svg", "title", history)
    told = re.findall(r"<!-- (?:epoch|W1) ([\d.]+) -->", (tmp_path / "a.svg").read_text())
    history[-1] = state_of(gan, samples, 7 * looks)  # as it is now, and not when looked at last
    shown = history if looks <= 6 else [history[n] for n in (0, 1, 2, 3, 4, 8)]
    expected = [number for state in shown for number in (state.epoch, state.w1)]
    assert [float(number) for number in told] == pytest.approx(expected, 0.1)


def test_a_look_by_default_is_taken_about_fifty_times_and_early_enough_for_any_end():
    gan, samples = small_gan(), small_samples()
    history = looked_at(gan, samples, 200)
    assert 40 <= len(history) <= 70
    assert (history[0].epoch, history[-1].epoch) == (1, 200)
    history = looked_at(gan, samples, 5000)
    assert 40 <= len(history) < 200
    assert history[-1].epoch == 5000
    before = len(gan.train_status["dis_loss"])
    history = looked_at(gan, samples, 5000, Stop(at=30))
    assert len(history) >= 6
    assert 30 <= history[-1].epoch == len(gan.train_status["dis_loss"]) - before < 60


def test_a_history_has_all_looks_and_of_very_many_an_even_choice(some_gan, monkeypatch):
    views = {"mine": functools.partial(wants, every=1)}
    seen = epochs_of(looked_at(some_gan, small_samples(), 120, Stop(at=100), views=views))
    assert seen == list(range(1, 101))
    monkeypatch.setattr(demo_gan, "HISTORY", 100)
    seen = epochs_of(looked_at(some_gan, small_samples(), 200, every=1))
    assert len(seen) == 100
    assert (seen[0], seen[-20:]) == (1, list(range(181, 201)))
    assert np.diff(seen).max() < 5


def wants(look, every):
    """A view that does nothing."""
    while True:
        yield every


def test_what_is_seen_is_of_the_epoch_it_says_also_with_views_of_two_cadences():
    views, seen = {n: functools.partial(wants, every=n) for n in (4, 6)}, []
    for options in ({"every": 1}, {"views": views}, {}):
        keras.utils.set_random_seed(0)
        gan = small_gan(optimizer=keras.optimizers.SGD(0.1))  # an epoch is two percent of W1
        look = demo_gan.Look(gan, small_samples(), **options)
        for _ in range(2):  # the second time like the first
            gan.train(small_samples(), 200, 8, 1, callbacks=look)
        seen.append({state.epoch: state.w1 for state in look.history})
    everything, told, chosen = seen
    assert {*range(4, 201, 4), *range(6, 201, 6)} <= set(told) < set(everything)
    for epoch, w1 in (*told.items(), *chosen.items()):
        assert w1 == pytest.approx(everything[epoch], rel=1e-3)


def test_of_more_rows_than_are_shown_those_are_that_are_spread_over_all(some_gan):
    samples = {key: np.sort(rows, axis=0) for key, rows in small_samples(40_000).items()}
    look = demo_gan.Look(some_gan, samples)
    for rows in (look.noise, look.real):
        assert len(rows) == 20_000
        assert abs(rows.mean()) < 0.1


def test_a_view_that_has_left_wants_no_more_looks_and_ctrl_c_is_nobodys(some_gan, caplog):
    def leaves(look):
        for _ in range(3):
            yield 1

    def pressed(look):
        yield 1
        raise KeyboardInterrupt

    views = {"it": leaves, "odd": functools.partial(wants, every=None)}
    assert epochs_of(looked_at(some_gan, small_samples(), 9, every=0, views=views)) == [1, 2, 3]
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # of the odd one
    with pytest.raises(KeyboardInterrupt):
        looked_at(some_gan, small_samples(), 9, views={"it": pressed})


def test_a_look_that_failed_sees_again_in_the_next_training(some_gan, monkeypatch, caplog):
    def fail(*arguments):
        raise MemoryError

    look = demo_gan.Look(some_gan, small_samples(), every=1)
    with monkeypatch.context() as patch:
        later = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: patch.setattr(np, "quantile", fail)
        )
        some_gan.train(small_samples(), 3, 8, 1, callbacks=[look, later])
    assert (look.history, len(caplog.records)) == ([], 1)  # of a half one no picture ends right
    some_gan.train(small_samples(), 3, 8, 1, callbacks=look)
    assert epochs_of(look.history) == [1, 2, 3]


@pytest.mark.parametrize("every", [2.5, -1, "2"])
def test_a_look_is_taken_after_whole_epochs(some_gan, every):
    with pytest.raises(ValueError, match="every"):
        demo_gan.Look(some_gan, small_samples(), every=every)


@pytest.mark.parametrize(("judged", "expected"), [(0.9, (255, 25, 25)), (0.1, (255, 230, 230))])
def test_the_plane_behind_samples_of_two_numbers_is_as_red_as_d_is_sure(judged, expected, tmp_path):
    gan, samples = constant_gan(0, 0.5, signal_dim=2), small_samples(500, signal_dim=2)
    change = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: set_judgement(gan, judged))
    history = looked_at(gan, samples, 2, change, views=animation(tmp_path / "a.gif"))
    demo_gan.save_picture(gan, samples, tmp_path / "a.png", "title", history)
    saved, frame = opened(tmp_path / "a.png"), opened(tmp_path / "a.gif", -1).resize((800, 450))
    for image in (saved.crop(PLANE), frame.crop(PLANE), panels(saved)[-1]):
        shade = np.median(np.asarray(image).reshape(-1, 3), axis=0)
        np.testing.assert_allclose(shade, expected, atol=16)  # an animation has 16 shades


@pytest.mark.parametrize("number", [0, 1])
def test_the_plane_is_red_where_d_takes_samples_for_real(number, tmp_path):
    gan, samples = constant_gan(0, 0.5, signal_dim=2), small_samples(500, signal_dim=2)
    first, last = np.zeros((2, 8)), np.zeros((8, 1))
    first[number, :2], last[:2, 0] = (1, -1), (9, -9)
    set_weights(gan.discriminateor_model, first, last)  # D says much of samples above 0
    demo_gan.save_picture(gan, samples, tmp_path / "a.png", "title", [state_of(gan, samples, 1)])
    saved = opened(tmp_path / "a.png")
    (panel,) = panels(saved)
    for image in (saved.crop((110, 40, 460, 390)), panel):
        rows, columns = np.nonzero(redness(image) > 200)
        ahead = columns.mean() - image.width / 2, image.height / 2 - rows.mean()
        assert ahead[number] > 0.2 * image.height
        assert abs(ahead[1 - number]) < 0.1 * image.height


@pytest.mark.parametrize("signal_dim", [1, 2, 3])
def test_one_outlier_leaves_the_axes_as_they_are_without_it(signal_dim):
    real = small_samples(500, signal_dim=signal_dim)["y"]
    pictures = [demo_gan.Picture(real)]
    real[0] = 1e6
    pictures.append(demo_gan.Picture(real))
    axes = [picture.figure.axes[0] for picture in pictures]
    limits = [[*one.get_xlim(), *one.get_ylim()] for one in axes]
    np.testing.assert_allclose(*limits, rtol=0.1, atol=0.1)
    shown = np.asarray(inside(pictures[1]).convert("L")) < 150
    assert shown.any(axis=0).sum() > 10 * shown.shape[1] / demo_gan.BINS


def test_the_axis_of_w1_begins_with_the_spread_of_the_data_wherever_they_are():
    real = np.random.default_rng(0).standard_normal((100, 2))
    moved = [real, real + np.array([0, 1000]), 1000 * real]
    pictures = [demo_gan.Picture(samples, epochs=1) for samples in moved]
    here, there, large = [picture.figure.axes[-1].get_ylim() for picture in pictures]
    np.testing.assert_allclose(here, there)
    np.testing.assert_allclose(np.multiply(here, 1000), large)


@pytest.mark.parametrize(("size", "w1"), [((8, 4.5), 1), ((6, 4), 1), ((8, 4.5), 2480)])
def test_a_picture_that_moves_is_resized_or_opens_its_axis_is_drawn_as_a_new_one(size, w1):
    samples = small_samples()
    old, new = (demo_gan.Picture(samples["y"], epochs=2) for _ in range(2))
    states = [state_of(constant_gan(n, 0.1 + n / 2), samples, 1 + n) for n in (0, 1)]
    old.set_states(states[:1])
    old.image()
    for picture in (old, new):
        picture.figure.set_size_inches(size)
        picture.set_states([states[0], states[1]._replace(w1=w1)])
    assert np.array_equal(old.image(), new.image())


@pytest.mark.parametrize("factor", [1.05, 1 / 1.05])
def test_the_axis_of_w1_opens_now_and_then_and_not_at_every_frame(factor):
    samples, states, limits = small_samples(), [], set()
    picture, state = demo_gan.Picture(samples["y"], 300), state_of(constant_gan(0, 0.9), samples)
    for epoch in range(1, 301):
        states.append(state._replace(epoch=epoch, w1=factor**epoch))
        picture.set_states(states)
        limits.add(picture.figure.axes[-1].get_ylim())
    assert 3 < len(limits) < 20


def drawn_texts(figure):
    """The texts of a figure that are drawn, and their extents in pixels, a little less than all."""
    texts = [text for text in figure.findobj(Text) if text.get_visible()]
    for axis in [axis for axes in figure.findobj(Axes) for axis in (axes.xaxis, axes.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if tick.label1 in texts and not low <= tick.get_loc() <= high:
                texts.remove(tick.label1)
    told = [text for text in texts if text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent().padded(-1)) for text in told]


EXTREMES = [  # the scale of the data, W1, epochs
    (1e-6, 1e-6, 10),
    (1e-6, 1e6, 10**6),
    (1e6, 1e-6, 10**6),
    (1e6, 1e6, 10),
    (1, 2480, 50_000),
    (1, 1e-6, 100_000),
    (0, 0, 10),
]


@pytest.mark.parametrize("signal_dim", [1, 2, 3])
@pytest.mark.parametrize(("scale", "w1", "epochs"), EXTREMES)
def test_extremes_have_pictures_to_be_read(signal_dim, scale, w1, epochs, tmp_path, monkeypatch):
    samples = small_samples(500, signal_dim=signal_dim)
    samples["y"] *= scale
    gan, figures, save = constant_gan(2480, 0.9, signal_dim), [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda *args: [figures.append(args[0]), save(*args)])
    state = state_of(gan, samples)
    past = [state._replace(epoch=max(1, int(part * epochs)), w1=w1) for part in PARTS]
    title = f"K = 20, {epochs} more epochs, noise_dim = 4, W1 = {-1234567:.3g}"
    demo_gan.save_picture(gan, samples, tmp_path / "a.png", title, past)
    live = demo_gan.Picture(samples["y"], epochs)
    live.set_states(past)
    live.image()
    for figure in (*figures, live.figure):
        texts = drawn_texts(figure)
        assert len(texts) > 12
        for (one, extent), (other, extent_2) in itertools.combinations(texts, 2):
            assert not extent.overlaps(extent_2), (one, other)
        for text, extent in texts:
            assert figure.bbox.contains(extent.x0, extent.y0), text
            assert figure.bbox.contains(extent.x1, extent.y1), text
        for axes in figure.findobj(Axes):
            for line in [line for line in axes.lines if len(line.get_xdata()) > 2]:
                points = line.get_xydata()[np.isfinite(line.get_xydata()).all(axis=1)]
                pixels = axes.transData.transform(points) - axes.bbox.min
                assert (pixels > -1).all(), (axes, line)
                assert (pixels < axes.bbox.size + 1).all(), (axes, line)


def test_two_numbers_have_equal_scales_unless_one_would_be_squeezed():
    for scale, is_equal in ((0.3, True), (3, True), (1000, False), (0.001, False)):
        picture = demo_gan.Picture(small_samples(3200, signal_dim=3)["y"] * [1, scale, 1])
        shown = np.asarray(inside(picture).convert("L")) < 150
        (left, bottom), (right, top) = picture.figure.axes[0].transData.transform([(0, 0), (1, 1)])
        assert (right - left == pytest.approx(top - bottom, rel=0.01)) == is_equal
        assert min(shown.any(axis=0).sum(), shown.any(axis=1).sum()) > (50 if is_equal else 150)


def test_twenty_epochs_stay_as_a_trail_and_the_newest_is_the_darkest():
    samples = small_samples(500)
    first, second, now = (
        state_of(constant_gan(generated, judged), samples)
        for generated, judged in ((-1, 0.9), (0, 0.7), (1, 0.1))
    )
    picture = demo_gan.Picture(samples["y"], epochs=30)
    upper, lower = picture.figure.axes[:2]

    def traces(epoch):
        """How dark the trail of two states, of epoch 1 and 11, is at the places where they were."""
        images = []
        for past in ([first._replace(epoch=1), second._replace(epoch=11)], []):
            picture.set_states([*past, now._replace(epoch=epoch)])
            images.append(np.asarray(picture.image(), "int"))
        dark = np.flip((images[1] - images[0]).clip(0).sum(axis=2), axis=0)
        for x, judged in ((-1, 0.9), (0, 0.7)):
            column, _ = upper.transData.transform((x, 0)).astype(int)
            column_2, row = lower.transData.transform((-2, judged)).astype(int)
            yield dark[-250:, column - 9 : column + 9].max()
            yield dark[row - 2 : row + 3, column_2].max()

    older, older_d, newer, newer_d = traces(16)
    assert 0 < older < newer
    assert 0 < older_d < newer_d
    assert min(traces(21)) > 0
    assert [dark > 0 for dark in traces(22)] == [False, False, True, True]


def test_the_users_style_changes_no_picture_and_is_as_it_was(tmp_path, caplog):
    def drawn():
        keras.utils.set_random_seed(0)
        gan, samples = small_gan(), small_samples()
        history = looked_at(gan, samples, 4, views=animation(tmp_path / "a.gif"))
        demo_gan.save_picture(gan, samples, tmp_path / "a.png", "title", history)
        return [(tmp_path / name).read_bytes() for name in ("a.gif", "a.png")]

    expected = drawn()
    with plt.rc_context():
        plt.style.use("dark_background")
        plt.rcParams.update({"font.size": 20, "font.family": "no such font"})
        plt.rcParams.update({"figure.facecolor": "none", "savefig.transparent": True})
        before = dict.__repr__(plt.rcParams)
        assert [a == b for a, b in zip(drawn(), expected)] == [True, True]
        assert dict.__repr__(plt.rcParams) == before
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("epochs", [20, 30])
def test_there_is_a_frame_every_so_many_epochs_and_of_the_last_done(epochs, tmp_path, caplog):
    gan, samples = small_gan(), small_samples(80)
    expected = {1: list(range(1, 21)), 8: [8, 16, 20], 50: [20]}
    paths = {n: tmp_path / "new" / f"{n}.gif" for n in expected}
    rows = functools.partial(demo_gan.training_csv, path=tmp_path / "a.csv")
    views = {"the line": demo_gan.progress_line, "the rows": rows}
    looks = [demo_gan.Look(gan, samples, n, views | animation(path)) for n, path in paths.items()]
    gan.train(samples, epoch=3, batch_size=8, callbacks=looks)  # whose frames are not kept
    stop = [Stop(at=20, every=1)] * (epochs > 20)
    gan.train(samples, epoch=epochs, batch_size=8, step_per=1, callbacks=[*looks, *stop])
    w1 = demo_gan.wasserstein(np.array(gan.generator_model(samples["x"])), samples["y"])
    for look, path, seen in zip(looks, paths.values(), expected.values(), strict=True):
        assert epochs_of(look.history) == seen
        assert look.history[-1].w1 == pytest.approx(w1, rel=1e-5)
        with Image.open(path) as image:
            assert getattr(image, "n_frames", 1) == len(seen)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert (tmp_path / "a.csv").read_text().count("\n") == 21


def test_the_animation_has_the_colours_and_ends_on_the_saved_picture_for_two_seconds(trained):
    with Image.open(trained / "training.gif") as image:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]
    assert durations == 19 * [50] + [2000]
    saved = opened(trained / "img" / "gan_results.png")
    for color, box in ((GREEN, UPPER), (RED, LOWER), (GREY, PANEL)):
        curve = mask(saved.crop(box), color)
        assert curve.sum() > 50
        first, last = (mask(frames[i].crop(box), color)[curve].mean() for i in (0, -1))
        assert first < 0.6 < 0.95 < last
    assert all(pixels(frame, BLACK, UPPER) > 100 for frame in frames)


@pytest.mark.parametrize("signal_dim", [1, 2])
def test_an_animation_of_a_hundred_frames_plays_for_ever_and_is_under_2_mb(signal_dim, tmp_path):
    gan, samples = small_gan(signal_dim=signal_dim), small_samples(3200, signal_dim=signal_dim)
    looked_at(gan, samples, 100, every=0, views=animation(tmp_path / "a.gif"))
    assert (tmp_path / "a.gif").stat().st_size < 2_000_000
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.info["loop"]) == (100, 0)


LIVE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import IPython, keras  # which makes no notebook of it
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
for plot, times.closing, epochs in ((True, False, 60), (True, True, 200), (False, False, 200)):
    gan.train(small_samples(64), epoch=epochs, step_per=1, plot=plot, callbacks=[times])
    assert (plt.isinteractive(), plt.get_fignums()) == before
assert len(gan.train_status["gen_result"]) == 260
"""


def live(display, **environment):
    options = ["-W", "error::UserWarning", "-c", LIVE, ROOT / "tests"]
    return start(*options, env={"DISPLAY": display, **environment})


def lines_of(out):
    """How long the epochs took, without the one before in hand, and what the window said."""
    lines = [line.split(";") for line in out.splitlines()]
    return np.diff([float(line[0]) for line in lines]), [line[1:] for line in lines]


@pytest.fixture(scope="session")
def screen():
    needs("Xvfb", "import")
    with virtual_display() as (display, _):
        yield display


@pytest.mark.tools
def test_the_window_has_the_colours_and_the_articles_pace_until_it_is_closed(screen, tmp_path):
    process = live(screen)
    assert select.select([process.stdout], [], [], 60)[0], "it waits for ever"
    first = process.stdout.readline()
    time.sleep(1)
    file = tmp_path / "screen.png"
    subprocess.run(["import", "-display", screen, "-window", "root", file], check=True)
    image = opened(file)
    assert min(pixels(image, color) for color in (GREEN, BLACK, RED)) > 100
    status, out, err = finish(process)
    assert (status, re.findall("Traceback|live picture", err)) == (0, []), err
    took, said = lines_of(first + out)
    shown = [[f"epoch = {n}", "A generator learns"] for n in range(1, 61)]
    assert said[:60] == shown
    pace, unseen = took[:59].mean(), np.median(took[70:258])
    assert pace > 0.8 * 0.05  # a busy machine may be slower
    assert (said[60:65], said[-390:]) == (shown[:5], 390 * [[]])
    assert unseen < pace / 2


@pytest.mark.tools
def test_a_display_that_is_not_there_means_no_window_no_pause_and_no_warning():
    status, out, err = finish(live(":99999", MPLBACKEND="TkAgg"))
    assert (status, "Warning" in err) == (0, False), err
    took, said = lines_of(out)
    assert said == 460 * [[]]
    assert np.median(took[:258]) < 4 * np.median(took[-198:])  # where it is not to plot


PAINTED = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
import keras
import matplotlib.pyplot as plt
from conftest import small_gan, small_samples

plt.style.use("dark_background")
take = ["import", "-window", "root", "opened.png"]
screenshot = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: subprocess.run(take))
small_gan().train(small_samples(64), epoch=2, plot=True, callbacks=screenshot)
"""


@pytest.mark.tools
def test_the_window_is_painted_when_it_opens_whatever_the_style(screen, tmp_path):
    process = start("-c", PAINTED, ROOT / "tests", cwd=tmp_path, env={"DISPLAY": screen})
    status, _, err = finish(process)
    assert status == 0, err
    image = opened(tmp_path / "opened.png").crop((92, 80, 500, 240))  # where there is no legend
    black, green, white = (pixels(image, color) for color in (BLACK, GREEN, WHITE))
    assert 500 < black < 0.1 * white
    assert green == 0


@pytest.mark.tools
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


@pytest.mark.parametrize("package", ["matplotlib_inline", "no_such_package"])
def test_a_backend_of_a_notebook_that_is_not_installed_here_does_not_matter(package, tmp_path):
    script = """
import importlib.metadata, sys
find = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **of: () if "matplotlib" in str(of) else find(**of)
sys.modules["matplotlib_inline"] = None  # now it is as if it were not installed
import demo_gan
sys.exit(demo_gan.main("-e 1 -k 1".split()))
"""
    env = {"MPLBACKEND": f"module://{package}.backend_inline", "DISPLAY": ""}
    status, _, err = finish(start("-c", script, cwd=tmp_path, env=env))
    assert (status, "Traceback" in err) == (0, False), err


OWN_PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])"


def notebook(folder, *cells):
    """Run a notebook; returns what each cell said, and the pictures that it shows."""
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(document, kernel_name="python3", resources=resources).execute()
    said, shown = [], []
    for cell in document.cells:
        said.append("".join(output.get("text", "") for output in cell.outputs))
        data = [output.data for output in cell.outputs if "image/png" in output.get("data", {})]
        files = [io.BytesIO(base64.b64decode(one["image/png"])) for one in data]
        shown.append([opened(file) for file in files])
    return said, shown


def test_a_notebook_runs_the_program_and_keeps_its_own_ctrl_c_and_its_plots(tmp_path, no_display):
    demo = ROOT / "demo_gan.py"
    said, shown = notebook(
        tmp_path,
        f"import signal, sys\n!{{sys.executable}} {demo} -e 1 -k 1\nassert _exit_code == 0",
        "before = signal.getsignal(signal.SIGINT)\n"
        f"%run {demo} -e 2 -k 1\n"
        "assert signal.getsignal(signal.SIGINT) is before",
        OWN_PLOT,
    )
    assert "Traceback" not in said[0]
    assert "ERROR" not in said[1]
    assert [len(images) for images in shown] == [0, 1, 1]


def test_a_notebook_shows_the_training_once_and_later_its_own_plots(tmp_path, no_display):
    said, (images, own) = notebook(
        tmp_path,
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
        "import time, keras\n"
        "from conftest import small_gan, small_samples\n"
        "gan, times = small_gan(), []\n"
        "note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: times.append(time.time()))\n"
        "gan.train(small_samples(500), epoch=12, plot=True, callbacks=note)\n"
        "print((times[-1] - times[1]) / 10)",
        OWN_PLOT,
    )
    assert float(said[0].split()[-1]) > 0.8 * 0.05, said[0]
    assert len(own) == 1
    (image,) = images
    assert min(pixels(image, color) for color in (GREEN, BLACK, RED)) > 100
    assert pixels(image, GREY, (750, 40, 790, 390)) > 0  # W1 of the last epoch
