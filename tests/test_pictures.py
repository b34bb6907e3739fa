"""A State holds what there is to see of a GAN, and pictures show it in the article's colours."""

import io
import itertools
import re
import sys
import threading

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import needs, small_gan, small_samples
from images import (
    BLACK,
    DOTTED,
    FILL,
    GREEN,
    GREY,
    RED,
    SavedPicture,
    axes_of,
    constant_gan,
    constant_state,
    difference,
    mask,
    part,
    pixels,
    redness,
    settled_gan,
    state_of,
)
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.text import Text
from scipy import stats

import demo_gan

PARTS = np.array([1 / 40, 1 / 20, 1 / 10, 1 / 4, 1 / 2, 1])  # of a run, in the strip


def measures_of(signal_dim=1, scale=1):
    real = small_samples(500, signal_dim=signal_dim)["y"]
    return demo_gan.Measures(real * scale)


@pytest.fixture(scope="module")
def seen():
    """Some GAN, its samples, and three States of it."""
    keras.utils.set_random_seed(0)
    gan = small_gan()
    samples = small_samples(500)
    states = [state_of(gan, samples, epoch) for epoch in (1, 2, 3)]
    return gan, samples, states


def saved(folder, gan):
    """Save a picture of a GAN, with one panel in its strip."""
    samples = small_samples(500, signal_dim=gan.signal_dim)
    history = [state_of(gan, samples, epoch=1)]
    return SavedPicture(folder, gan, samples, history)


def test_state_holds_what_the_networks_say(seen):
    gan, samples, (_, state, _) = seen
    measures = demo_gan.Measures(samples["y"])
    generated = gan.generator_model(samples["x"])
    inside = np.clip(generated, *measures.limits[0])
    counts, _ = np.histogram(inside, measures.edges)
    np.testing.assert_allclose(state.generated, counts / 500)
    x = np.linspace(*measures.limits[0], len(state.d_output))
    d_output = gan.discriminateor_model(x[:, None])
    np.testing.assert_allclose(state.d_output, d_output[:, 0], rtol=1e-5)
    assert state.epoch == 2


@pytest.mark.parametrize(("generated", "outermost"), [(-1e6, 0), (1e6, -1)])
def test_outermost_bins_count_all_samples_beyond(generated, outermost):
    state = constant_state(measures_of(), generated, 0.5)
    assert state.generated[outermost] == 1


@pytest.mark.parametrize(("signal_dim", "directions"), [(1, 1), (2, 16)])
def test_distance_is_the_mean_wasserstein_distance_along_directions(signal_dim, directions):
    one, other = np.random.default_rng(0).standard_normal((2, 500, signal_dim)) ** 3
    other = other.astype(int)  # numbers of any kind
    angles = np.arange(directions) * np.pi / directions
    distances = []
    for direction in np.c_[np.cos(angles), np.sin(angles)][:, :signal_dim]:
        distance = stats.wasserstein_distance(one @ direction, other @ direction)
        distances.append(distance)
    expected = pytest.approx(np.mean(distances))
    assert demo_gan.wasserstein(one, other) == expected
    assert demo_gan.Measures(one).distance(other) == expected


def test_sliced_distance_of_many_numbers_sees_that_they_depend_on_each_other():
    rng = np.random.default_rng(0)
    alike = np.repeat(rng.standard_normal((2000, 1)), 8, axis=1)
    independent = rng.standard_normal((2000, 8))
    distance = demo_gan.wasserstein(alike, independent)
    assert distance > 0.3  # the numbers one by one say about 0.03
    assert demo_gan.wasserstein(alike, independent) == distance


@pytest.mark.parametrize("signal_dim", [1, 2, 3])
def test_distance_is_called_sliced_for_several_numbers_only(signal_dim, tmp_path):
    picture = saved(tmp_path, small_gan(signal_dim=signal_dim))
    told = [text for text in picture.texts if re.search("Wasserstein|W1", text)]
    assert len(told) == 2
    for text in told:
        assert ("sliced" in text) == (signal_dim > 1)


def test_two_numbers_that_vary_most_are_drawn_and_named():
    measures = measures_of(signal_dim=4, scale=[5, 0, 1, 6])
    shown = measures.real[:, [0, 3]]
    state = measures.state(measures.real, [[0.5]])
    np.testing.assert_array_equal(state.generated, shown)
    axes = axes_of(demo_gan.Picture(measures).figure, "real")
    assert "number 1" in axes.get_xlabel()
    assert "number 4" in axes.get_ylabel()


@pytest.mark.parametrize("seed", range(5))
def test_of_numbers_that_vary_alike_the_first_two_are_drawn(seed):
    real = small_samples(500, signal_dim=4, seed=seed)["y"]
    standardized = (real - real.mean(axis=0)) / real.std(axis=0)
    shown = demo_gan.Measures(standardized.astype("float32")).columns
    np.testing.assert_array_equal(shown, [0, 1])


@pytest.mark.parametrize("mean", [4, 20, 1000])
def test_bins_of_whole_numbers_show_no_comb(mean):
    real = np.random.default_rng(0).poisson(mean, (20_000, 1))
    measures = demo_gan.Measures(real.astype("float32"))
    assert len(measures.edges) <= demo_gan.BINS + 1
    below = stats.poisson.cdf(measures.edges, mean)
    np.testing.assert_allclose(measures.shares(measures.real), np.diff(below), atol=0.01)
    assert len(set(np.diff(measures.edges))) == 1
    low, high = measures.edges[[0, -1]]
    spread = np.sqrt(mean)
    assert low < mean - 3 * spread
    assert high > mean + 3 * spread


@pytest.mark.parametrize(("rows", "signal_dim"), [(40, 1), (3200, 1), (3200, 2), (40, 5)])
def test_floor_is_the_distance_of_two_sets_of_real_samples(rows, signal_dim):
    rng = np.random.default_rng(0)
    sets = rng.standard_normal((60, rows, signal_dim))
    distances = [demo_gan.wasserstein(*pair) for pair in zip(sets[::2], sets[1::2])]
    floors = [demo_gan.Measures(real).floor for real in sets]
    assert np.mean(floors) == pytest.approx(np.mean(distances), rel=0.15)


@pytest.mark.parametrize("rows", [500, 60_000])
def test_floor_is_drawn_within_the_axis_of_the_distance(rows):
    measures = demo_gan.Measures(small_samples(rows)["y"])
    axes = axes_of(demo_gan.Picture(measures, epochs=1).figure, "log")
    (line,) = [line for line in axes.lines if "real" in line.get_label()]
    np.testing.assert_allclose(line.get_ydata(), measures.floor)
    low, high = axes.get_ylim()
    assert low < measures.floor < high


def test_saved_picture_has_the_articles_colours_in_their_places(seen, tmp_path):
    picture = SavedPicture(tmp_path, *seen)
    assert pixels(picture.part("real"), BLACK) > 100
    assert pixels(picture.part("generated"), GREEN) > 100
    assert pixels(picture.part("D"), RED) > 100
    assert pixels(picture.part("log"), GREY) > 50


@pytest.mark.parametrize(("generated", "judged"), [(-1, 0.9), (1, 0.1)])
def test_curves_are_what_the_networks_say_and_the_optimal_d(generated, judged):
    measures = measures_of()
    picture = demo_gan.Picture(measures)
    picture.set_states([constant_state(measures, generated, judged)])
    curves = {}
    for axes in picture.figure.axes:
        for line in axes.lines:
            curves[line.get_label()] = line.get_data()
    _, d_output = curves["D"]
    np.testing.assert_allclose(d_output, judged)
    x, shares = curves["generated"]
    assert x[shares.argmax()] == pytest.approx(generated, abs=0.2)
    x, optimal = curves["optimal D"]
    at_samples = np.abs(x - generated) < 0.2
    assert np.nanmin(optimal[at_samples]) < 0.2
    between = np.abs(x - generated / 2) < 0.2  # where all are real
    assert np.nanmin(optimal[between]) > 0.9
    at_tails = np.abs(x) > 3  # where there are a few
    assert np.isnan(optimal[at_tails]).all()


def room_above(panel, color):
    """Return which part of a panel's height is above all of a colour."""
    rows = mask(panel, color).any(axis=1)
    assert rows.any()
    return rows.argmax() / panel.height


def test_saved_picture_gives_a_settled_gan_the_room_that_a_live_one_keeps_free(tmp_path):
    """What is long over needs no room, however high it was."""
    noise, real = small_samples(5000)["x"].T
    samples = {"x": noise[:, None], "y": real[:, None]}
    measures = demo_gan.Measures(samples["y"])
    gan = settled_gan()
    collapsed = constant_state(measures, 0, 0.5, epoch=1)
    state = state_of(gan, samples, epoch=100)
    live = demo_gan.Picture(measures)
    live.set_states([state])
    live_panel = part(live.image(), axes_of(live.figure, "real"))
    saved_panel = SavedPicture(tmp_path, gan, samples, [collapsed, state]).part("real")
    for color in (BLACK, GREEN):
        assert 0.6 < room_above(live_panel, color) < 0.8
        assert room_above(saved_panel, color) < 0.15


def test_panels_of_the_strip_have_one_scale(tmp_path):
    samples = small_samples(500)
    measures = demo_gan.Measures(samples["y"])
    d_output = np.full((len(measures.points), 1), 0.1)
    spread = measures.state(samples["y"], d_output, epoch=1)
    collapsed = constant_state(measures, 0, 0.1, epoch=2)
    panels = SavedPicture(tmp_path, constant_gan(0, 0.1), samples, [spread, collapsed]).strip()
    first, second = [pixels(panel, FILL) for panel in panels]
    assert first == pytest.approx(second, rel=0.3)


def test_axis_of_shares_ends_at_one():
    picture = demo_gan.Picture(measures_of(scale=0))
    _, top = axes_of(picture.figure, "real").get_ylim()
    assert 1 < top < 1.1


def widest_green(panel):
    """Return the most green pixels of a row near the top of a panel."""
    return mask(panel, GREEN)[: panel.height // 10].sum(axis=1).max()


def test_marks_tell_where_the_generated_curve_is_cut_off(tmp_path):
    measures = measures_of()
    state = constant_state(measures, 0, 0.5)
    top = 3 * measures.real_shares.max()
    picture = demo_gan.Picture(measures)
    widths = []
    for generated in (state.generated, top * state.generated):
        picture.set_states([state._replace(generated=generated)])
        widths.append(widest_green(part(picture.image(), axes_of(picture.figure, "real"))))
    assert widths[0] > 1.5 * widths[1]
    picture = saved(tmp_path, constant_gan(0, 0.5))
    for panel in (picture.part("real"), *picture.strip()):
        assert widest_green(panel) > 6


def test_strip_has_a_line_where_d_cannot_tell(tmp_path):
    levels = []
    for judged, color in [(0.9, DOTTED), (0.5, RED)]:
        (panel,) = saved(tmp_path, constant_gan(0, judged)).strip()
        above_fill = panel.crop((0, 0, panel.width, 0.6 * panel.height))
        levels.append(mask(above_fill, color).sum(axis=1).argmax())
    assert levels[0] == pytest.approx(levels[1], abs=1)


def test_panels_zoom_together_and_tell_both_coordinates():
    figure = demo_gan.Picture(measures_of(), epochs=10).figure
    upper = axes_of(figure, "real")
    lower = axes_of(figure, "D")
    upper.set_xlim(-1, 2)
    figure.draw_without_rendering()
    assert lower.get_xlim() == (-1, 2)
    np.testing.assert_array_equal(upper.get_xticks(), lower.get_xticks())
    assert upper.get_xticklabels() == []  # those of the lower one serve both
    for axes in figure.axes:
        numbers = re.findall(r"[\d.]+", axes.format_coord(1, 0.5))
        assert len(numbers) == 2


@pytest.mark.parametrize("epochs", [*range(1, 11), 40, 200, 1000])
def test_stages_are_spread_over_a_run_and_end_with_its_end(epochs):
    history = [demo_gan.State(epoch, 1, None, None) for epoch in range(1, epochs + 1)]
    chosen = [stage.epoch for stage in demo_gan.stages(history)]
    assert len(set(chosen)) == min(6, epochs)
    assert chosen == sorted(chosen)
    assert chosen[-1] == epochs
    if epochs > 10:
        np.testing.assert_allclose(chosen, PARTS * epochs, rtol=0.1)


@pytest.mark.parametrize("looks", [1, 9])
def test_strip_shows_each_stage_and_then_the_gan_as_it_is(looks, tmp_path):
    samples = small_samples(500)
    measures = demo_gan.Measures(samples["y"])
    past = constant_state(measures, -1, 0.9)
    history = [past._replace(epoch=7 * look) for look in range(1, looks + 1)]
    picture = SavedPicture(tmp_path, constant_gan(1, 0.1), samples, history)
    panels = picture.strip()
    assert len(panels) == min(6, looks)
    for panel in panels:
        peak = mask(panel, GREEN).sum(axis=0).argmax()
        level = (redness(panel) > 100).sum(axis=1).argmax()
        is_now = panel is panels[-1]
        assert (peak > panel.width / 2) == is_now
        assert (level > panel.height / 2) == is_now
        assert pixels(panel, FILL) > 100


def test_strip_tells_the_distance_in_plain_numbers(seen, tmp_path):
    gan, samples, (state, *_) = seen
    distances = [1e-6, 0.0123, 220, 2480, 1e6]
    history = []
    for epoch, w1 in enumerate([*distances, 1], 1):
        history.append(state._replace(epoch=epoch, w1=w1))
    picture = SavedPicture(tmp_path, gan, samples, history)
    told = re.findall(r"W1 ([\d.]+)$", "\n".join(picture.texts), re.MULTILINE)
    *numbers, _ = [float(number) for number in told]
    assert numbers == pytest.approx(distances, rel=0.05)


SHADES = [(2, 0.9, 230), (2, 0.1, 25), (3, 0.9, 0)]


@pytest.mark.parametrize(("signal_dim", "judged", "red"), SHADES)
def test_scatter_is_as_red_as_d_is_sure_and_white_for_more_numbers(
    signal_dim, judged, red, tmp_path
):
    picture = saved(tmp_path, constant_gan(0, judged, signal_dim))
    for plane in (picture.part("real"), *picture.strip()):
        assert np.median(redness(plane)) == pytest.approx(red, abs=5)
        assert pixels(plane, BLACK) > 50


# What is seen, of linear red, green and blue, without one kind of cones (Machado et al. 2009).
COLOUR_BLIND = {
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


@pytest.mark.parametrize("name", COLOUR_BLIND)
def test_colour_blind_tell_dots_from_the_shading(name, tmp_path):
    plane = saved(tmp_path, constant_gan(0, 0.99, signal_dim=2)).part("real")
    rgb = np.asarray(plane).reshape(-1, 3)
    colors = np.array([np.median(rgb, axis=0), GREEN, BLACK])
    linear = (colors / 255) ** 2.2 @ np.transpose(COLOUR_BLIND[name])
    seen = 255 * np.clip(linear, 0, 1) ** (1 / 2.2)
    for one, other in itertools.combinations(seen, 2):
        assert np.abs(one - other).max() > 100


@pytest.mark.parametrize("number", [0, 1])
def test_plane_is_red_where_d_takes_samples_for_real(number):
    measures = measures_of(signal_dim=2)
    d_output = measures.points[:, [number]] > 0
    picture = demo_gan.Picture(measures)
    picture.set_states([measures.state(measures.real, d_output)])
    plane = part(picture.image(), axes_of(picture.figure, "real"))
    is_red = redness(plane) > 200
    left_or_upper, right_or_lower = np.array_split(is_red, 2, axis=1 - number)
    shares = [left_or_upper.mean(), right_or_lower.mean()]
    assert shares[1 - number] > 0.8
    assert shares[number] < 0.1


@pytest.mark.parametrize("signal_dim", [1, 2, 3])
def test_one_outlier_leaves_the_axes_as_they_are(signal_dim):
    without = measures_of(signal_dim)
    real = without.real.copy()
    real[0] = 1e6
    limits = demo_gan.Measures(real).limits
    np.testing.assert_allclose(limits, without.limits, rtol=0.1)


def test_axis_of_w1_starts_with_the_spread_of_the_data():
    near = measures_of(signal_dim=2)
    far = demo_gan.Measures(1000 * near.real + 10**6)
    limits = []
    for measures in (near, far):
        figure = demo_gan.Picture(measures, epochs=1).figure
        limits += [axes_of(figure, "log").get_ylim()]
    np.testing.assert_allclose(np.multiply(limits[0], 1000), limits[1])


@pytest.mark.parametrize("factor", [1.05, 1 / 1.05])
def test_axis_of_w1_opens_now_and_then_and_not_at_every_frame(factor):
    measures = measures_of()
    picture = demo_gan.Picture(measures, epochs=300)
    state = constant_state(measures, 0, 0.9)
    states = []
    limits = set()
    for epoch in range(1, 301):
        states.append(state._replace(epoch=epoch, w1=factor**epoch))
        picture.set_states(states)
        limits.add(axes_of(picture.figure, "log").get_ylim())
    assert 3 < len(limits) < 20


def resize(figure):
    figure.set_size_inches((6, 4))
    figure.canvas.draw()


def zoom(figure):
    axes_of(figure, "real").set(xlim=(-1, 2), ylim=(0, 0.1))
    figure.canvas.draw()


def save(figure):
    figure.savefig(io.BytesIO(), dpi=250)


def nothing(figure):
    """For a distance that leaves its axis."""


CHANGED = [(1, resize, 1), (2, zoom, 1), (1, save, 1), (2, nothing, 2480)]


@pytest.mark.parametrize(("signal_dim", "change", "w1"), CHANGED)
def test_figure_that_changed_is_drawn_as_a_new_one(signal_dim, change, w1):
    measures = measures_of(signal_dim)
    first = constant_state(measures, 0, 0.4, epoch=1)
    second = constant_state(measures, 1, 0.6, epoch=2)
    old = demo_gan.Picture(measures, epochs=2)
    new = demo_gan.Picture(measures, epochs=2)
    old.set_states([first])
    old.render()
    for picture in (old, new):
        change(picture.figure)
        picture.set_states([first, second._replace(w1=w1)])
    assert np.array_equal(old.image(), new.image())


def drawn_texts(figure):
    """Return the texts that are drawn, and their extents in pixels, a little less than all."""
    texts = [text for text in figure.findobj(Text) if text.get_visible()]
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if tick.label1 in texts and not low <= tick.get_loc() <= high:
                    texts.remove(tick.label1)
    told = [text for text in texts if text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent().padded(-1)) for text in told]


EXTREMES = [  # the scale of the data, W1, epochs
    (1e-6, 1e6, 10**6),
    (1e6, 1e-6, 10**6),
    (1, 2480, 50_000),
    (0, 0, 10),
    ([2e5, 1e6], 1, 10),
    ([3e-4, 7e-5], 1, 10),
]


@pytest.fixture(scope="module", params=itertools.product([1, 2], EXTREMES), ids=str)
def extreme_figures(request, tmp_path_factory):
    """Figures of a saved picture and a live one."""
    signal_dim, (scale, w1, epochs) = request.param
    samples = small_samples(500, signal_dim=signal_dim)
    samples["y"] *= np.resize(scale, signal_dim)
    gan = constant_gan(2480, 0.9, signal_dim)
    state = state_of(gan, samples)
    history = []
    for stage in PARTS:
        epoch = max(1, int(stage * epochs))
        history.append(state._replace(epoch=epoch, w1=w1))
    folder = tmp_path_factory.mktemp("extreme")
    title = f"K = 20, {epochs} more epochs, noise_dim = 4, W1 = -1.23e+06"
    picture = SavedPicture(folder, gan, samples, history, title)
    live = demo_gan.Picture(demo_gan.Measures(samples["y"]), epochs)
    held = f"epoch = {epochs}{demo_gan.HELD}"
    live.set_states(history, held)
    live.render()
    alone = SavedPicture(folder, gan, samples, title=title)
    return picture.figure, alone.figure, live.figure


def test_texts_of_extremes_can_be_read(extreme_figures):
    for figure in extreme_figures:
        texts = drawn_texts(figure)
        assert len(texts) > 8
        for (one, extent), (other, other_extent) in itertools.combinations(texts, 2):
            assert not extent.overlaps(other_extent), (one, other)
        for text, extent in texts:
            assert figure.bbox.contains(*extent.min), text
            assert figure.bbox.contains(*extent.max), text


def test_curves_of_extremes_are_inside_of_their_axes(extreme_figures):
    for figure in extreme_figures:
        for axes in figure.findobj(Axes):
            for line in axes.lines:
                points = line.get_xydata()
                points = points[np.isfinite(points).all(axis=1)]
                if len(points) > 2:  # one of two points leads through the whole axes
                    places = axes.transData.transform(points) - axes.bbox.min
                    assert places.min() > -1
                    assert (places < axes.bbox.size + 1).all()


def scatter_of(*scale, epochs=0):
    """Return the figure of a scatter as it is laid out, and its axes."""
    measures = measures_of(len(scale), scale)
    figure = demo_gan.Picture(measures, epochs).figure
    figure.draw_without_rendering()
    return figure, axes_of(figure, "real")


@pytest.mark.parametrize("scale", [0.3, 3, 1000, 0.001])
def test_scatter_has_equal_scales_unless_they_squeeze_a_number(scale):
    _, axes = scatter_of(1, scale, 0)
    corners = axes.transData.transform([(0, 0), (1, 1)])
    width, height = corners[1] - corners[0]
    is_equal = width == pytest.approx(height, rel=0.01)
    assert is_equal == (0.2 <= scale <= 5)


@pytest.mark.parametrize("epochs", [0, 10])
@pytest.mark.parametrize("scale", [(1,), (1, 1), (4, 1), (1, 4), (1000, 1)])
def test_legends_cover_no_data(scale, epochs):
    figure, _ = scatter_of(*scale, epochs=epochs)
    legends = figure.findobj(Legend)
    assert legends
    for legend, axes in itertools.product(legends, figure.axes):
        extent = legend.get_window_extent().padded(-1)
        assert not extent.overlaps(axes.get_window_extent())


@pytest.mark.parametrize("curve", ["generated", "D"])
def test_twenty_epochs_stay_as_a_trail_that_fades(curve):
    measures = measures_of()
    picture = demo_gan.Picture(measures, epochs=30)
    axes = axes_of(picture.figure, curve)
    past = constant_state(measures, 0, 0.7, epoch=1)
    now = constant_state(measures, 1, 0.1)

    def darkness(epoch):
        """Return how dark the trail of the first epoch is."""
        images = []
        for trail in ([], [past]):
            picture.set_states([*trail, now._replace(epoch=epoch)])
            images.append(part(picture.image(), axes))
        return difference(*images)

    assert darkness(6) > darkness(16) > 0
    assert darkness(21) > 0
    assert darkness(22) == 0


@pytest.fixture
def drawn(seen, tmp_path):
    """Return a function that draws a live picture and a saved one; returns their pixels."""
    gan, samples, states = seen

    def draw():
        picture = demo_gan.Picture(demo_gan.Measures(samples["y"]), epochs=3)
        picture.set_states(states)
        live = picture.image()
        saved = SavedPicture(tmp_path, gan, samples, states)
        return live.tobytes() + saved.image.tobytes()

    return draw


def test_a_font_without_the_minus_sign_can_be_used(drawn):
    with plt.rc_context({"axes.unicode_minus": False}):
        hyphens = drawn()
    assert hyphens != drawn()


def test_the_users_style_changes_no_picture_and_is_as_it_was(drawn, caplog):
    expected = drawn()
    with plt.rc_context():
        plt.style.use("dark_background")
        plt.rcParams.update({"font.size": 20})
        plt.rcParams.update({"figure.facecolor": "none", "savefig.transparent": True})
        before = dict(plt.rcParams.items())
        assert drawn() == expected
        assert dict(plt.rcParams.items()) == before
    assert caplog.records == []


def test_the_users_fonts_are_used(drawn):
    pictures = [drawn()]
    for family in ("DejaVu Serif", "serif", "DejaVu Sans Mono", "cursive"):
        fonts = {"font.family": family, "font.cursive": ["DejaVu Sans Mono"]}
        with plt.rc_context(fonts):
            pictures.append(drawn())
    default, serif, from_list, mono, from_own_list = pictures
    assert serif == from_list
    assert mono == from_own_list
    assert len({default, serif, mono}) == 3


@pytest.mark.tools
def test_threads_leave_what_they_share_as_it_was(seen, tmp_path):
    needs("dot")
    gan, samples, states = seen
    shared = [dict(plt.rcParams.items()), sys.stdout]

    def draw(folder):
        for _ in range(4):
            demo_gan.draw_graph(gan.generator_model, folder)
            demo_gan.save_picture(gan, samples, folder / "a.png", "title", states)

    threads = [threading.Thread(target=draw, args=[tmp_path / name]) for name in "abc"]
    with plt.rc_context():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [dict(plt.rcParams.items()), sys.stdout] == shared
    assert len(list(tmp_path.rglob("*.png"))) == 6


def test_graph_without_graphviz_is_reported_with_its_path_once(seen, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", "")
    gan, _, _ = seen
    demo_gan.draw_graph(gan.generator_model, tmp_path)
    (message,) = caplog.messages
    assert "graphviz" in message.lower()
    assert message.count(str(tmp_path)) == 1
    assert "cannot write" not in message
    assert list(tmp_path.iterdir()) == []


def test_still_picture_has_room_for_real_samples_that_are_higher_than_all_generated_ones():
    rng = np.random.default_rng(0)
    measures = demo_gan.Measures(rng.standard_normal((3200, 1)))
    wide = measures.state(rng.uniform(-4, 4, (3200, 1)), np.zeros((len(measures.points), 1)))
    axes = demo_gan.Picture(measures, fit_to=[wide]).figure.axes
    (samples,) = [item for item in axes if item.get_ylabel() == "share of samples"]
    assert samples.get_ylim()[1] >= measures.real_shares.max()
