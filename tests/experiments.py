"""What K, the noise dimension and the loss do to the distance from N(0, 1).

    python tests/experiments.py

trains the demo's GAN in each of the settings below, with twenty seeds. It prints a table of the
article's three settings, beside what the article's own program gave on its own stack, and of the
non-saturating loss. It draws a figure of all settings and writes the numbers to a .json file beside
it. It takes a few minutes, says on stderr how far it is, and needs nothing that the demo does not
need.

    python tests/experiments.py -k 5 -n 2

trains twenty seeds of that setting only. It prints the row of the setting below those of the
article's own program, and writes no file. With K up to 20 it takes less than half a minute.
"""

import argparse
import functools
import json
import pathlib
import statistics
import sys
import typing

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import demo_gan  # before Keras: it tells Keras to run on TensorFlow

# isort: split
import keras
import numpy as np
from matplotlib.figure import Figure

SEEDS = range(20)
EPOCHS = 200
BATCH_SIZE = 32
EVERY = 20  # epochs from one W1 to the next, as in the recordings
FIGURE = pathlib.Path("img/my_experiments.png")
RECORDED = pathlib.Path(__file__).parent / "data" / "statistics.json"

# Generated samples are compared with the quantiles of N(0, 1). Random samples would themselves be
# at a distance of 0.009 from it.
SAMPLES = 20_000
LEVELS = (np.arange(SAMPLES) + 0.5) / SAMPLES
QUANTILES = np.array([[statistics.NormalDist().inv_cdf(level)] for level in LEVELS], "float32")

# D's loss says -log p, which makes it the non-saturating loss when it is G's.
LOSSES = {
    "saturating": demo_gan.log_loss_generator,
    "non-saturating": demo_gan.log_loss_discriminator,
}


class Setting(typing.NamedTuple):
    """What the experiments change. The defaults are the article's."""

    step_per: int = 20
    noise_dim: int = 4
    loss: str = "saturating"


# The settings, in colours of Okabe and Ito's, which colour-blind readers can tell apart.
COLORS = {
    Setting(1): "#CC79A7",
    Setting(3): "#E69F00",
    Setting(10): "#56B4E9",
    Setting(20): "#0072B2",
    Setting(20, 1): "#D55E00",
    Setting(20, 2): "#E69F00",
    Setting(20, 8): "#009E73",
    Setting(3, 4, "non-saturating"): "#D55E00",
    Setting(20, 4, "non-saturating"): "#009E73",
}

# The panels of the figure: title, label, and which settings it compares.
PANELS = [
    ("K, with noise_dim = 4", "K = {0}", [Setting(k) for k in (1, 3, 10, 20)]),
    ("noise_dim, with K = 20", "noise_dim = {1}", [Setting(20, n) for n in (1, 2, 4, 8)]),
    (
        "G's loss, with noise_dim = 4",
        "K = {0}, {2}",
        [Setting(k, 4, loss) for k in (3, 20) for loss in LOSSES],
    ),
]


def name(setting):
    """Return what a setting is called in the .json files."""
    text = f"step_per={setting.step_per} noise_dim={setting.noise_dim}"
    if setting.loss == "saturating":
        return text
    return f"{text} loss={setting.loss}"


@functools.cache
def make_gan(noise_dim, loss):
    gan = demo_gan.make_gan(noise_dim)
    gan.compile_generator_model(loss=LOSSES[loss])
    return gan


def start_afresh(gan, seed):
    """Put a GAN where `keras.utils.set_random_seed(seed)` and `make_gan` would have put it.

    Compiling a GAN takes longer than training it, so all seeds share one.
    """
    keras.utils.set_random_seed(seed)
    for layer in (*gan.generator_model.layers, *gan.discriminateor_model.layers):
        if isinstance(layer, keras.layers.Dense):
            layer.kernel.assign(layer.kernel_initializer.clone()(layer.kernel.shape))
            layer.bias.assign(layer.bias_initializer.clone()(layer.bias.shape))
    for model in (gan.generator_training_model, gan.discriminateor_training_model):
        for variable in model.optimizer.variables:
            if variable is not model.optimizer.learning_rate:
                variable.assign(np.zeros(variable.shape))


def run(setting, seeds):
    """Train the demo's GAN in one setting, once per seed.

    Returns W1, `(seeds, EPOCHS / EVERY)`, and D's mean output on the last samples, `(seeds,)`.
    """
    gan = make_gan(setting.noise_dim, setting.loss)
    w1 = []
    dis_mean = []
    for seed in seeds:
        start_afresh(gan, seed)
        samples = demo_gan.make_samples(BATCH_SIZE * demo_gan.BATCHES, setting.noise_dim, seed)
        rng = np.random.default_rng([seed, 1])
        noise = rng.uniform(-3, 3, (SAMPLES, setting.noise_dim))
        look = demo_gan.Look(gan, {"x": noise, "y": QUANTILES}, every=EVERY)
        gan.train(samples, EPOCHS, BATCH_SIZE, setting.step_per, callbacks=[look])
        w1.append([state.w1 for state in look.history])
        dis_mean.append(np.mean(gan.discriminateor_model(gan.generator_model(look.noise))))
    return np.array(w1), np.array(dis_mean)


def read_results(path=RECORDED):
    """Return what `run` returned for each setting in a .json file, by default the article's."""
    numbers = json.loads(path.read_text())
    return {
        setting: (
            np.array(numbers[name(setting)]["w1_every_20_epochs"]),
            np.array(numbers[name(setting)]["final_dis_mean"]),
        )
        for setting in COLORS
        if name(setting) in numbers
    }


def write_results(results, path):
    numbers = {
        name(setting): {"w1_every_20_epochs": w1.tolist(), "final_dis_mean": dis_mean.tolist()}
        for setting, (w1, dis_mean) in results.items()
    }
    path.write_text(json.dumps(numbers))


def print_head():
    print("| K | noise_dim | loss of G | run by | final W1 (quartiles) | largest W1 | mean of D |")
    print("| ---: | ---: | --- | --- | --- | ---: | ---: |")


def print_table(results):
    """Print a table in Markdown: each number is the median over the seeds."""
    print_head()
    recorded = read_results()
    for setting in results:
        if setting in recorded:
            print_row(setting, "this port", *results[setting])
            print_row(setting, "the article's stack", *recorded[setting])
        elif setting.loss != "saturating":
            print_row(setting, "this port", *results[setting])


def print_row(setting, stack, w1, dis_mean):
    low, median, high = np.quantile(w1[:, -1], [0.25, 0.5, 0.75])
    final = f"{median:.2f} ({low:.2f} to {high:.2f})"
    largest = np.median(w1.max(axis=1))
    cells = *setting, stack, final, f"{largest:.1f}", f"{np.median(dis_mean):.2f}"
    print("|", " | ".join(map(str, cells)), "|")


def draw(results, path):
    """Draw W1 over the epochs."""
    figure = Figure((11, 5.2), dpi=140, layout="constrained")
    figure.suptitle("Wasserstein-1 distance (W1) from N(0, 1): each seed thin, their median thick")
    epochs = np.arange(EVERY, EPOCHS + 1, EVERY)
    for axes, (title, label, settings) in zip(figure.subplots(1, 3), PANELS):
        for setting in settings:
            if setting in results:
                w1, _ = results[setting]
                color = COLORS[setting]
                axes.plot(epochs, w1.T, color=color, linewidth=0.5, alpha=0.3)
                median = np.median(w1, axis=0)
                axes.plot(epochs, median, color=color, label=label.format(*setting), linewidth=2)
        axes.set_title(title)
        axes.set(xlabel="epoch", xlim=(0, EPOCHS), yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(color="0.9")
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15))
    figure.savefig(path)


def main(settings=COLORS):
    demo_gan.UPDATES_FOR_XLA = 0  # each run is short, but one compilation serves all seeds
    results = {}
    for number, setting in enumerate(settings, 1):
        print(f"{number} of {len(settings)}: {name(setting)}", file=sys.stderr, flush=True)
        results[setting] = run(setting, SEEDS)
    print_table(results)
    draw(results, FIGURE)
    write_results(results, FIGURE.with_suffix(".json"))
    print(f"written: {FIGURE}, {FIGURE.with_suffix('.json')}", file=sys.stderr)


def own_setting(argv=None):
    """Return the Setting of the command line, None without flags. A bad one ends the program."""
    default = Setting()
    parser = argparse.ArgumentParser(
        description="Measure the README's settings, or twenty seeds of one of your own.",
        epilog="Without flags, the figure and the numbers of the README are made again.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-k", "--step_per", type=int, help=f"K; with -n alone it is {default.step_per}")
    add("-n", "--noise_dim", type=int, help=f"with -k alone it is {default.noise_dim}")
    flags = vars(parser.parse_args(argv))
    given = {flag: value for flag, value in flags.items() if value is not None}
    try:
        for flag, value in given.items():
            demo_gan.whole_number(f"--{flag}", value)
    except ValueError as error:
        parser.error(f"argument {error}")
    return default._replace(**given) if given else None


def counted(seeds):
    """Yield seeds, and say on stderr how far they are."""
    for number, seed in enumerate(seeds, 1):
        print(f"seed {number} of {len(seeds)}", file=sys.stderr, flush=True)
        yield seed


def compare(setting):
    """Measure one setting, and print its row below those of the article's stack.

    One process trains all seeds. Two processes on two cores were hardly faster, or much slower,
    because each imports and compiles for itself.
    """
    demo_gan.UPDATES_FOR_XLA = 0
    print(name(setting), file=sys.stderr)
    results = run(setting, counted(SEEDS))
    print_head()
    for recorded, numbers in read_results().items():
        print_row(recorded, "the article's stack", *numbers)
    print_row(setting, "this port", *results)


if __name__ == "__main__":
    own = own_setting()
    if own:
        compare(own)
    else:
        main()
