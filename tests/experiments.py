"""The article's experiments: what K and the noise dimension do to the distance from N(0, 1).

    python tests/experiments.py

trains the demo's GAN for every K and every noise dimension below, with 20 seeds each. It prints a
table of the article's three, beside what the article's own program gave on its own stack, draws a
figure of all, and writes the numbers to a .json file beside the figure. It takes about two minutes
and needs nothing that the demo does not need.
"""

import argparse
import json
import pathlib
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import keras
import numpy as np
from matplotlib.figure import Figure

import demo_gan

# K, the updates of the discriminator per epoch, with noise_dim 4, and noise_dim with K = 20; the
# colours are Okabe and Ito's, which the colour-blind can tell apart.
STEPS_PER = {1: "#CC79A7", 3: "#E69F00", 10: "#56B4E9", 20: "#0072B2"}
NOISE_DIMS = {1: "#D55E00", 2: "#E69F00", 4: "#0072B2", 8: "#009E73"}
EPOCHS = 200
BATCH_SIZE = 32
EVERY = 20  # epochs from one W1 to the next, as in the recordings

# W1 is taken to the quantiles of N(0, 1), as if its samples were perfectly spread: 20,000 random
# ones would be 0.009 from it themselves.
SAMPLES = 20_000
QUANTILES = np.array(
    [[statistics.NormalDist().inv_cdf((i + 0.5) / SAMPLES)] for i in range(SAMPLES)], "float32"
)


def start_afresh(gan, seed):
    """Put a GAN where `keras.utils.set_random_seed(seed)` and `make_gan` would have put it.

    Compiling a GAN takes longer than training it, so one serves all seeds.
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


def run(step_per, noise_dim, seeds):
    """Train the demo's GAN once per seed, with K = `step_per`.

    Returns W1, `(seeds, EPOCHS / EVERY)`, and D's mean output on the last samples, `(seeds,)`.
    """
    gan = demo_gan.make_gan(noise_dim)
    w1, dis_mean = [], []
    for seed in seeds:
        start_afresh(gan, seed)
        samples = demo_gan.make_samples(BATCH_SIZE * demo_gan.BATCHES, noise_dim, seed)
        # The article's noise, also when somebody tries other data.
        noise = np.random.default_rng([seed, 1]).uniform(-3, 3, (SAMPLES, noise_dim))
        look = demo_gan.Look(gan, {"x": noise, "y": QUANTILES}, every=EVERY)
        gan.train(samples, EPOCHS, BATCH_SIZE, step_per, callbacks=[look])
        w1.append([state.w1 for state in look.history])
        dis_mean.append(np.mean(gan.discriminateor_model(gan.generator_model(look.noise))))
    return np.array(w1), np.array(dis_mean)


RECORDED = pathlib.Path(__file__).parent / "data" / "statistics.json"


def recordings(path=RECORDED):
    """What `run` returned, by `(step_per, noise_dim)`; by default of the article's own program."""
    return {
        tuple(int(setting.split("=")[1]) for setting in name.split()): (
            np.array(recorded["w1_every_20_epochs"]),
            np.array(recorded["final_dis_mean"]),
        )
        for name, recorded in json.loads(path.read_text()).items()
    }


def print_table(results):
    """Print the article's experiments in Markdown: each number is the median over the seeds."""

    def text(w1):
        return f"{w1:.3f}" if w1 < 1 else f"{w1:.2f}" if w1 < 10 else f"{w1:.0f}"

    def print_row(experiment, stack, w1, dis_mean):
        low, median, high = map(text, np.quantile(w1[:, -1], [0.25, 0.5, 0.75]))
        largest = text(np.median(w1.max(axis=1)))
        final = f"{median} ({low} to {high})"
        cells = *experiment, stack, final, largest, f"{np.median(dis_mean):.2f}"
        print("|", " | ".join(map(str, cells)), "|")

    print("| K | noise_dim | run by | W1 at the end (quartiles) | largest W1 | D's mean output |")
    print("| ---: | ---: | --- | --- | ---: | ---: |")
    recorded = recordings()
    for experiment in filter(recorded.get, results):
        print_row(experiment, "this port", *results[experiment])
        print_row(experiment, "the article's stack", *recorded[experiment])


def draw(results, path):
    """Draw W1 over the epochs: one panel for K, one for the noise dimension."""
    figure = Figure((8.3, 4.3), dpi=200, layout="constrained")
    figure.suptitle(
        "Wasserstein-1 distance of the generated samples from N(0, 1): "
        "each seed thin, their median thick",
        fontsize="medium",
    )
    left, right = figure.subplots(1, 2)
    left.set_title("K, with noise_dim = 4", fontsize="medium")
    right.set_title("noise_dim, with K = 20", fontsize="medium")
    curves = [(left, f"K = {k}", c, results[k, 4]) for k, c in STEPS_PER.items()]
    curves += [(right, f"noise_dim = {n}", c, results[20, n]) for n, c in NOISE_DIMS.items()]
    for axes, label, color, (w1, _) in curves:
        epochs = np.arange(EVERY, EPOCHS + 1, EVERY)
        axes.plot(epochs, w1.T, color=color, linewidth=0.5, alpha=0.35)
        axes.plot(epochs, np.median(w1, axis=0), color=color, linewidth=2, label=label, zorder=3)
    for axes in (left, right):
        axes.set(xlabel="epoch", xlim=(0, EPOCHS), yscale="log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(color="0.9")
        axes.legend(frameon=False)
    figure.savefig(path)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    shown = {"help": "default: %(default)s"}
    parser.add_argument("--seeds", type=int, default=20, metavar="N", **shown)
    parser.add_argument("--figure", default="img/experiments.png", metavar="FILE", **shown)
    args = parser.parse_args(argv)
    demo_gan.UPDATES_FOR_XLA = 0  # each run is short, but one compilation serves all seeds
    experiments = dict.fromkeys([*((k, 4) for k in STEPS_PER), *((20, n) for n in NOISE_DIMS)])
    # The table may go to a file; the bar may not.
    bar = keras.utils.Progbar(len(experiments), unit_name="experiment", verbose=sys.stdout.isatty())
    results = {}
    for experiment in experiments:
        results[experiment] = run(*experiment, range(args.seeds))
        bar.add(1)
    print_table(results)
    draw(results, args.figure)
    numbers = {
        f"step_per={step_per} noise_dim={noise_dim}": {
            "w1_every_20_epochs": w1.tolist(),
            "final_dis_mean": dis_mean.tolist(),
        }
        for (step_per, noise_dim), (w1, dis_mean) in results.items()
    }
    pathlib.Path(args.figure).with_suffix(".json").write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
