"""A generator learns a Gaussian: the smallest GAN worth watching, in Keras.

Two networks play against each other (Goodfellow et al., "Generative Adversarial Nets", 2014,
https://arxiv.org/abs/1406.2661). The generator G turns uniform noise into samples, the
discriminator D says how likely it is that a sample is real. D learns to tell the two apart,
G learns to make that hard, until G's samples follow the Gaussian and D says 0.5 everywhere.

Sections 1 to 3 are the lesson: the losses, the GAN and its training, the article's networks.
Files, pictures and the command line follow, each in a section of its own.
"""

import argparse
import collections
import contextlib
import json
import logging
import math
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

os.environ["KERAS_BACKEND"] = "tensorflow"  # Keras reads it when it is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import keras
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import layers, ops
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

import app_logger

# ---------------------------------------------------------------------------------------
# 1. The losses
#
# D maximises mean(log D(x)) + mean(log(1 - D(G(z)))), G minimises mean(log(1 - D(G(z)))):
# equation 1 of the paper. D's training model outputs D(x) and 1 - D(G(z)), so that one loss
# serves both terms. There is nothing to compare the outputs with, so `y_true` is ignored.


@keras.saving.register_keras_serializable("demo_gan")
def log_loss_discriminator(y_true, y_pred):
    """The discriminator's loss, -log p, p clipped from below at Keras's epsilon.

    `y_pred` is the probability p that D gives to the truth, D(x) of real samples and
    1 - D(G(z)) of generated ones, of shape `(batch, 1)`; so is what comes back.
    """
    return -ops.log(ops.maximum(keras.config.epsilon(), y_pred))


@keras.saving.register_keras_serializable("demo_gan")
def log_loss_generator(y_true, y_pred):
    """The generator's saturating loss, log(1 - p), 1 - p clipped from below at Keras's epsilon.

    `y_pred` is the probability p = D(G(z)), of shape `(batch, 1)`; so is what comes back.
    """
    return ops.log(ops.maximum(keras.config.epsilon(), 1 - y_pred))


# ---------------------------------------------------------------------------------------
# 2. The GAN
#
# Two networks make two models to train:
#
#   the discriminator's:  real y, noise x  ->  D(y), 1 - D(G(x))     only D's weights move
#   the generator's:      noise x          ->  D(G(x))               only G's weights move
#
# An epoch is `step_per` updates of D, then one of G. The networks are so small that calling
# Python for every update would cost ten times the arithmetic: whole epochs are compiled.

# One compiled call runs at most so many epochs, and rows of noise: about a tenth of a second.
EPOCHS_PER_CALL = 50
ROWS_PER_CALL = 2**15


class GANModel:
    """A GAN made of two lists of Keras layers.

    Args:
        input_dim: `[signal_dim, noise_dim]`, the sizes of a sample and of the noise it is
            made from, or one int for both.
        log_dir: folder for graphs of the models that train. Default: None, no graphs.

    Attributes:
        generator_model: G as a Keras model, `(batch, noise_dim)` to `(batch, signal_dim)`.
        discriminateor_model: D, `(batch, signal_dim)` to a probability, `(batch, 1)`.
        generator_training_model, discriminateor_training_model: the compiled models.
        train_status: `defaultdict(list)`. Each epoch appends a float to `"dis_loss"` (the
            mean over its updates of D) and `"gen_loss"`; with `plot=True` also the generated
            batch to `"gen_result"`, and D's output on it, `(batch_size, 1)`, to `"dis_result"`.
    """

    def __init__(self, input_dim, log_dir=None):
        self.signal_dim, self.noise_dim = input_dim if np.iterable(input_dim) else [input_dim] * 2
        self.log_dir = log_dir
        noise, real = keras.Input((self.noise_dim,)), keras.Input((self.signal_dim,))
        self.generator_model = keras.Sequential([noise], name="gan_generator")
        self.discriminateor_model = keras.Sequential([real], name="gan_discriminateor")
        self.generator_training_model = self.discriminateor_training_model = None
        self.train_status = collections.defaultdict(list)

    def add_gen_layer(self, layer):
        """Append any Keras layer to the generator; the last one outputs `signal_dim` numbers."""
        self.generator_model.add(layer)
        self.generator_training_model = self.discriminateor_training_model = None

    def add_discr_layer(self, layer):
        """Append any Keras layer to the discriminator; the last one outputs one in [0, 1]."""
        self.discriminateor_model.add(layer)
        self.generator_training_model = self.discriminateor_training_model = None

    def compile_generator_model(self, optimizer=None):
        """Wire and compile the model that trains the generator; again later is fine.

        Args:
            optimizer: Keras optimizer, or its name; one that is in use already is copied, as
                it belongs to one set of weights. Default: a fresh Adam.

        Raises:
            ValueError: if a network has no layers or outputs another shape than it should.
        """
        self._check_networks()
        x = keras.Input((self.noise_dim,), name="x")
        d_generated = self.discriminateor_model(self.generator_model(x))
        model = keras.Model(x, d_generated, name="gan_generator_model")
        self._compile(model, self.generator_model, log_loss_generator, optimizer)
        self.generator_training_model = model

    def compile_discriminateor_model(self, optimizer=None):
        """Wire and compile the model that trains the discriminator, as for the generator's."""
        self._check_networks()
        y = keras.Input((self.signal_dim,), name="y")
        x = keras.Input((self.noise_dim,), name="x")
        d_real = self.discriminateor_model(y)
        d_generated = self.discriminateor_model(self.generator_model(x))
        model = keras.Model([y, x], [d_real, 1 - d_generated], name="gan_discriminateor_model")
        self._compile(model, self.discriminateor_model, [log_loss_discriminator] * 2, optimizer)
        self.discriminateor_training_model = model

    def _check_networks(self):
        widths = {self.generator_model: self.signal_dim, self.discriminateor_model: 1}
        for network, width in widths.items():
            shape = network.output_shape if network.layers else "no layers, add some first"
            if shape != (None, width):
                raise ValueError(f"{network.name} must end in shape {(None, width)}, got {shape}")

    def _compile(self, model, network, loss, optimizer):
        optimizer = keras.optimizers.get("adam" if optimizer is None else optimizer)
        if optimizer.built:
            optimizer = optimizer.from_config(optimizer.get_config())
        model.compile(optimizer, loss, jit_compile=True)  # Keras knows if XLA can do that
        # Variables that are made while TensorFlow traces cost a second trace: make them now.
        model.optimizer.build(network.trainable_weights)
        outputs = keras.tree.map_structure(lambda output: ops.zeros((1, 1)), model.output)
        model.compute_loss(y=outputs, y_pred=outputs)
        self._run_epochs = None
        if self.log_dir is not None:
            draw_graph(model, pathlib.Path(self.log_dir, f"{model.name}.png"))

    def _update(self, model, network, inputs):
        """Take one step of a training model's optimizer, with the weights of one network.

        This is how to fix the other network: the optimizer gets the weights of this one alone.
        The article froze the other one before compiling, and Keras 2 remembered that. Keras 3
        looks at `trainable` when a step is traced, long after: translated literally, the
        generator never moves, and nothing says so.
        """
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            loss = model.compute_loss(y=outputs, y_pred=outputs)  # which ignores y
            scaled = model.optimizer.scale_loss(loss)  # another only with float16
        weights = network.trainable_weights
        model.optimizer.apply(tape.gradient(scaled, weights), weights)
        return loss

    def _epochs(self, noise, real, draws, count):
        """Run `count` epochs; AutoGraph makes TensorFlow's loops of these.

        `noise` and `real` are tensors `(batch_count, batch_size, width)`; `draws`, `(at least
        count, 2 * step_per + 1)`, says which of these batches an epoch uses. Returns the losses
        of each epoch, `(len(draws), 2)`, and of the last one the generated batch and D's output.
        """
        step_per = draws.shape[1] // 2
        losses, x, epoch = tf.zeros((draws.shape[0], 2), noise.dtype), noise[0], 0
        # XLA would compile anew for every count of a tf.range(count), every i of a noise[i].
        while epoch < count:
            batches = tf.gather(draws, epoch)
            dis_loss = tf.zeros((), noise.dtype)
            for pair in tf.reshape(batches[:-1], (step_per, 2)):
                y, x = tf.gather(real, pair[1]), tf.gather(noise, pair[0])
                dis_loss += self._update(
                    self.discriminateor_training_model, self.discriminateor_model, [y, x]
                )
            x = tf.gather(noise, batches[-1])
            gen_loss = self._update(self.generator_training_model, self.generator_model, x)
            both = [dis_loss / step_per, gen_loss]
            losses = tf.tensor_scatter_nd_update(losses, [[epoch]], [both])
            epoch += 1
        generated = self.generator_model(x, training=False)
        return losses, generated, self.discriminateor_model(generated, training=False)

    def train(self, sample_list, epoch=3, batch_size=32, step_per=10, plot=False, callbacks=None):
        """Train both networks; calling it again goes on training.

        Batch i is rows i * batch_size to (i + 1) * batch_size - 1 of the data; rows that do
        not fill a batch are left out. Python's `random` draws the batches of an epoch: for each
        update of the discriminator one of noise, then one of real samples, and at last one of
        noise for the generator. A BatchNormalization works as in training also in the network
        that is not updated: it normalizes by the batch, and its moving averages follow.

        Args:
            sample_list: `{"x": noise (n, noise_dim), "y": real samples (n, signal_dim)}`.
            epoch: number of epochs. Default: 3.
            batch_size: rows of a batch. Default: 32.
            step_per: updates of the discriminator per epoch, the article's K. Default: 10.
            plot: whether to keep each epoch's generated batch in `train_status`, and to show
                the training in a window or notebook if there is one. Default: False.
            callbacks: Keras callback, or list of them. All hear of every epoch, with `dis_loss`
                and `gen_loss` in `logs`, and see the networks as it left them; one with an
                attribute `every = N` sees every N-th, and those between run in one compiled
                call. Their `model` is the generator's training model: a scheduler sets G's
                learning rate, D's is `discriminateor_training_model.optimizer.learning_rate`.

        Raises:
            ValueError: before anything has changed, if an argument or a model is not right.
            FloatingPointError: when a loss or an output is not finite any more.
        """
        generator, discriminator = self.generator_training_model, self.discriminateor_training_model
        if generator is None or discriminator is None:
            raise ValueError("compile both models before train()")
        noise, real = cut_into_batches(self, sample_list, batch_size)
        if epoch < 1 or step_per < 1:
            raise ValueError(f"epoch and step_per must be at least 1, got {epoch} and {step_per}")
        if plot:
            callbacks = [LiveWindow(self, sample_list), *keras.tree.flatten(callbacks or [])]
        if self._run_epochs is None:
            xla = generator.jit_compile and discriminator.jit_compile
            self._run_epochs = tf.function(self._epochs, jit_compile=xla)
        at_most = max(1, min(EPOCHS_PER_CALL, ROWS_PER_CALL // (batch_size * step_per)))
        draws, last = np.zeros((at_most, 2 * step_per + 1), "int32"), len(noise) - 1

        done, generator.stop_training = 0, False
        watchers = keras.callbacks.CallbackList(
            callbacks, model=generator, epochs=epoch, steps=1, verbose=1
        )
        try:
            watchers.on_train_begin()
            while done < epoch and not generator.stop_training:
                looks = [getattr(callback, "every", 1) for callback in watchers.callbacks]
                looks.append(1 if plot else math.inf)
                count = min(at_most, epoch - done, *(every - done % every for every in looks))
                for i in range(count):
                    draws[i] = [random.randint(0, last) for _ in draws[i]]
                watchers.on_epoch_begin(done)
                data = noise, real, tf.constant(draws), tf.constant(count)
                losses, generated, judged = self._run_epochs(*data)
                losses = losses.numpy()[:count]
                self.train_status["dis_loss"] += losses[:, 0].tolist()
                self.train_status["gen_loss"] += losses[:, 1].tolist()
                if plot:
                    self.train_status["gen_result"].append(generated.numpy())
                    self.train_status["dis_result"].append(judged.numpy())
                if not all_finite([losses, generated, judged]):
                    raise FloatingPointError(f"training diverged by epoch {done + count}")
                for i, (dis_loss, gen_loss) in enumerate(losses.tolist()):
                    if i > 0:
                        watchers.on_epoch_begin(done + i)
                    watchers.on_epoch_end(done + i, {"dis_loss": dis_loss, "gen_loss": gen_loss})
                done += count
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                watchers.on_train_end()
            raise
        watchers.on_train_end()

    def save_model(self, path_dir):
        """Write `gan_generator.h5` and `gan_discriminateor.h5` to a folder, when both are whole.

        Raises:
            ValueError: if there are no layers, or weights that are not finite.
            OSError: if the files cannot be written.
        """
        self._check_networks()
        write_networks((self.generator_model, self.discriminateor_model), pathlib.Path(path_dir))

    def load_model(self, path_dir):
        """Read both networks' weights from a folder, also from files the article's program wrote.

        Raises:
            OSError: if a file is missing or cannot be read.
            ValueError: if a file does not fit the layers, or there are none. Whatever is
                raised, the GAN is as it was.
        """
        self._check_networks()
        read_networks((self.generator_model, self.discriminateor_model), pathlib.Path(path_dir))


# ---------------------------------------------------------------------------------------
# 3. The article's networks and data

BATCHES = 100  # in the data set


def make_gan(noise_dim=4, log_dir=None):
    """Return the article's GAN for samples of one number, compiled with Adam.

    D's output is the largest of 50 softmax values. Built-in layers say so, and not the
    article's Lambda, which Keras would rightly refuse to load from a file.
    """
    gan = GANModel([1, noise_dim], log_dir)
    gan.add_gen_layer(layers.Dense(200, activation="relu"))
    gan.add_gen_layer(layers.Dense(100, activation="relu"))
    gan.add_gen_layer(layers.Dense(50, activation="relu"))
    gan.add_gen_layer(layers.Dense(1))
    gan.add_discr_layer(layers.Dense(200, activation="relu"))
    gan.add_discr_layer(layers.Dense(50, activation="softmax"))
    gan.add_discr_layer(layers.Reshape((50, 1)))
    gan.add_discr_layer(layers.GlobalMaxPooling1D(data_format="channels_last"))
    gan.compile_generator_model()
    gan.compile_discriminateor_model()
    return gan


def make_samples(rows, noise_dim=4, seed=None):
    """Return the article's data: noise from U(-3, 3), real samples from N(0, 1).

    It is `{"x": noise (rows, noise_dim), "y": real samples (rows, 1)}`, float32; `seed` is for
    `numpy.random.default_rng`, by default other data every time.
    """
    rng = np.random.default_rng(seed)
    return {
        "x": rng.uniform(-3, 3, (rows, noise_dim)).astype("float32"),
        "y": rng.standard_normal((rows, 1), dtype="float32"),
    }


# ---------------------------------------------------------------------------------------
# 4. Data and files
#
# Files are written whole or not at all, and read without running what is in them.

MODEL_FILES = ("gan_generator.h5", "gan_discriminateor.h5")


def cut_into_batches(gan, sample_list, batch_size):
    """Return noise and real samples as tensors `(batch_count, batch_size, width)`."""
    noise, real = (np.asarray(sample_list[key], keras.config.floatx()) for key in "xy")
    for key, rows, width in (("x", noise, gan.noise_dim), ("y", real, gan.signal_dim)):
        if rows.shape[1:] != (width,):
            raise ValueError(f'sample_list["{key}"] must be (n, {width}), got {rows.shape}')
        if not np.isfinite(rows).all():
            raise ValueError(f'sample_list["{key}"] must be finite')
    if len(noise) != len(real):
        raise ValueError(f'{len(noise)} rows of sample_list["x"], {len(real)} of sample_list["y"]')
    if not 1 <= batch_size <= len(noise):
        raise ValueError(f"batch_size must be from 1 to {len(noise)} rows, got {batch_size}")
    whole = len(noise) // batch_size * batch_size
    return [
        tf.constant(rows[:whole].reshape(-1, batch_size, rows.shape[1])) for rows in (noise, real)
    ]


def all_finite(arrays):
    return all(np.isfinite(array).all() for array in arrays)


@contextlib.contextmanager
def replacing(*paths):
    """Give a temporary name for each path; afterwards put the files written there in place.

    They are written in a fresh folder beside the paths, whose name nobody can guess. Until all
    are whole and on the disk the old files are untouched. An OSError names the first path.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=".gan_", dir=paths[0].parent) as folder:
            files = [pathlib.Path(folder, path.name) for path in paths]
            yield files
            for file in files:
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
            for file, path in zip(files, paths):
                file.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(paths[0])) from error


def write_networks(networks, folder):
    """Write .h5 files that `keras.models.load_model` reads; see `GANModel.save_model`."""
    for network in networks:
        if not all_finite(network.get_weights()):
            raise ValueError(f"{network.name} is not saved, its weights are not finite")
    folder.mkdir(parents=True, exist_ok=True)
    absl = logging.getLogger("absl")
    with replacing(*(folder / name for name in MODEL_FILES)) as files:
        try:
            absl.disabled = True  # Keras advises against .h5, which is the article's format
            for network, file in zip(networks, files):
                # HDF5 prints tracebacks of its own on a full disk: first see if there is room.
                file.write_bytes(bytes(8 * network.count_params() + 2**18))
                file.unlink()
                network.save(file)
        finally:
            absl.disabled = False


def read_networks(networks, folder):
    """Set the networks' weights from .h5 files, by order and shape; see `GANModel.load_model`."""
    before = [network.get_weights() for network in networks]
    try:
        for network, name in zip(networks, MODEL_FILES):
            network.load_weights(folder / name)
            if not all_finite(network.get_weights()):
                raise ValueError("it holds weights that are not finite")
    except BaseException as error:
        for network, weights in zip(networks, before):
            network.set_weights(weights)
        if not isinstance(error, Exception):
            raise
        # Keras stumbles in many ways over a file that is not its own.
        kind = OSError if isinstance(error, OSError) else ValueError
        raise kind(f"cannot load {folder / name}: {first_line(error)}") from error


def saved_noise_dim(path):
    """The size of the noise that the generator in a file was saved with, None if it is not said."""
    try:
        with h5py.File(path) as file:
            layer, *_ = json.loads(file.attrs["model_config"])["config"]["layers"]
        return (layer["config"].get("batch_shape") or layer["config"]["batch_input_shape"])[-1]
    except Exception:  # loading will say what is wrong with the file
        return None


def first_line(error):
    """What went wrong, in one line of at most 300 characters."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


# ---------------------------------------------------------------------------------------
# 5. Pictures
#
# `gan_state` gathers what there is to see of a GAN, a Picture draws it, and Keras callbacks
# decide when: in a window, an animation, a file. Green is generated, black is real, red is
# what D says.

LOG = logging.getLogger(__name__)

SHOWN = 20_000  # rows of a data set, at most
BINS = 40
TRAIL = 20  # epochs
FRAME_SECONDS = 0.05  # the article's pace
LAST_FRAME_SECONDS = 2  # of an animation
MOST_FRAMES = 1000  # of an animation; they are held in memory
W1_LIMITS = (0.01, 30)  # in standard deviations of the real samples


def shown_rows(sample_list):
    """Return noise and real samples as arrays: all rows, or evenly spread ones of too many."""
    noise, real = (np.asarray(sample_list[key], "float32") for key in "xy")
    step = math.ceil(len(real) / SHOWN)
    return noise[::step], real[::step]


def wasserstein(a, b):
    """The Wasserstein-1 distance of two samples `(n, dim)`, averaged over the dimensions.

    In one dimension it is the mean distance of the sorted samples (Villani, "Optimal
    Transport", 2009, remark 2.19), in their unit.
    """
    return float(np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean())


def bin_edges(real):
    """Edges of bins over the range of samples `(n, 1)` and a third as much again on each side."""
    low, high = real.min(), real.max()
    margin = (high - low) / 3 or 1
    return np.linspace(low - margin, high + margin, BINS + 1)


def histogram(samples, edges):
    """The share of samples `(n, 1)` in each bin; those beyond the edges are in the outermost."""
    return np.histogram(np.clip(samples, edges[0], edges[-1]), edges)[0] / len(samples)


def gan_state(gan, generated, real):
    """What there is to see of a GAN, given generated and real samples `(n, signal_dim)`.

    Returns:
        A dict of curves `(x, y)`. For samples of one number: `"generated"`, the share of samples
        in each bin; `"decision"`, D's output along the axis; `"optimal"`, in each bin the output
        of the D that is optimal for the two histograms, real / (real + generated) (Goodfellow et
        al. 2014, proposition 1), nan where there are no samples. For samples of more numbers:
        `"generated"`, the first two of each.
    """
    if gan.signal_dim > 1:
        return {"generated": (generated[:, 0], generated[:, 1])}
    edges = bin_edges(real)
    centres = (edges[:-1] + edges[1:]) / 2
    p, q = histogram(real, edges), histogram(generated, edges)
    optimal = np.divide(p, p + q, out=np.full(BINS, np.nan), where=p + q > 0)
    axis = np.linspace(edges[0], edges[-1], 201)
    decision = gan.discriminateor_model.predict_on_batch(axis[:, None])[:, 0]
    return {
        "generated": (centres, q),
        "decision": (axis, decision),
        "optimal": (centres, optimal),
    }


class Picture:
    """A figure of a GAN's state: samples, D's output below them, W1 over the epochs beside them.

    Samples of one number are shown as histograms; of more, the first two as a scatter, without
    D. What does not move is drawn once, the rest is blitted over it.

    Args:
        real: array `(n, signal_dim)`; fixes the axes, so that nothing jumps.
        epochs: how many epochs the W1 axis spans. Default: 0, no such axis.
        every: epochs from one state to the next. Default: 1.
        figure: an empty matplotlib figure. Default: a new one, in no window.
    """

    SIZE = (8, 4.5)  # inches

    def __init__(self, real, epochs=0, every=1, figure=None):
        if figure is None:
            figure = Figure(self.SIZE)
            FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained")
        self.figure, self.lines, self.trails = figure, {}, {}
        rows = [["samples"], ["decision"]] if real.shape[1] == 1 else [["samples"]]
        if epochs:
            rows = [[*row, "distance"] for row in rows]
        ratios = {"width_ratios": (2, 1)[: len(rows[0])], "height_ratios": (3, 2)[: len(rows)]}
        axes = figure.subplot_mosaic(rows, **ratios)
        if "decision" in axes:
            self._histograms(axes["samples"], axes["decision"], real, math.ceil(TRAIL / every))
        else:
            self._scatter(axes["samples"], real)
        if epochs:
            self._distance(axes["distance"], real, epochs)
        self.title = axes["samples"].set_title(" ", loc="left")
        trails = [trail for trail, _ in self.trails.values()]
        self.moving = [*trails, *self.lines.values(), self.title]
        for artist in self.moving:
            artist.set_animated(True)
        self.background = None
        figure.canvas.mpl_connect("draw_event", self._keep_background)

    def _histograms(self, samples, decision, real, trail_length):
        edges = bin_edges(real)
        shares = histogram(real, edges)
        samples.plot((edges[:-1] + edges[1:]) / 2, shares, "ko-", markersize=3, label="real")
        samples.set(xlim=edges[[0, -1]], ylim=(0, 3 * shares.max()), ylabel="share of samples")
        samples.tick_params(labelbottom=False)
        (self.lines["generated"],) = samples.plot([], [], "go-", markersize=3, label="generated")
        decision.set(xlim=edges[[0, -1]], ylim=(-0.05, 1.45), yticks=(0, 0.5, 1))
        decision.set(xlabel="sample (the outermost bins count all beyond)", ylabel="D's output")
        decision.axhline(0.5, color="0.6", linestyle=":", linewidth=1, label="0.5: cannot tell")
        (self.lines["optimal"],) = decision.plot([], [], color="0.6", label="optimal D")
        (self.lines["decision"],) = decision.plot([], [], "r--", label="D")
        for name in ("generated", "decision"):
            trail = LineCollection([], linewidths=0.7)
            self.lines[name].axes.add_collection(trail, autolim=False)
            self.trails[name] = trail, collections.deque(maxlen=trail_length)
        for axes in (samples, decision):
            axes.legend(loc="upper right", fontsize="small", ncols=3)

    def _scatter(self, samples, real):
        style = {"linestyle": "", "markersize": 1.5, "alpha": 0.5}
        samples.plot(real[:, 0], real[:, 1], "ko", label="real", **style)
        (self.lines["generated"],) = samples.plot([], [], "go", label="generated", **style)
        samples.margins(0.25)
        samples.set(xlabel="first number of a sample", ylabel="second number", aspect="equal")
        samples.legend(loc="upper right", fontsize="small", markerscale=4)

    def _distance(self, distance, real, epochs):
        limits = np.array(W1_LIMITS) * (real.std() or 1)
        distance.set(xlim=(0, epochs), yscale="log", ylim=limits, xlabel="epoch")
        distance.set_title("Wasserstein-1 distance", fontsize="medium")
        distance.yaxis.set_major_formatter("{x:g}")
        distance.grid(color="0.9")
        (self.lines["distance"],) = distance.plot([], [], ".-", color="0.3", markersize=2)

    def draw(self, state, title, history=()):
        """Show a state, as `gan_state` returns it; those shown before stay as a fading trail.

        `history` is a list of `(epoch, w1)`.
        """
        for name, (trail, past) in self.trails.items():
            color, alphas = self.lines[name].get_color(), np.linspace(0.05, 0.35, past.maxlen)
            trail.set_segments(list(past))
            trail.set_color([to_rgba(color, alpha) for alpha in alphas[past.maxlen - len(past) :]])
            past.append(np.column_stack(state[name]))
        curves = {**state, "distance": zip(*history) if history else ((), ())}
        for name, line in self.lines.items():
            line.set_data(*curves[name])
        self.title.set_text(title)

    def render(self):
        """Draw the state on the canvas, over what does not move."""
        if self.background is None:
            self.figure.canvas.draw()
        self.figure.canvas.restore_region(self.background)
        for artist in self.moving:
            self.figure.draw_artist(artist)

    def _keep_background(self, event):
        # All was drawn anew: for the first time, or because the window has another size.
        if not self.figure.canvas.is_saving():
            self.background = self.figure.canvas.copy_from_bbox(self.figure.bbox)

    def image(self):
        """Return the state as a Pillow image; not of a figure in a window."""
        self.render()
        return Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[:, :, :3])


def save_picture(gan, sample_list, path, title, history=()):
    """Save a picture of the GAN to a file whose name ends in a format that matplotlib writes.

    `sample_list` is as `GANModel.train` takes it, `history` a list of `(epoch, w1)`. Raises an
    OSError if the file cannot be written; what was there is untouched then.
    """
    noise, real = shown_rows(sample_list)
    picture = Picture(real, epochs=history[-1][0] if history else 0)
    generated = gan.generator_model.predict_on_batch(noise)
    picture.draw(gan_state(gan, generated, real), title, history)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as (file,):
        picture.figure.savefig(file)
    LOG.info("picture saved in %s", path)


def draw_graph(model, path):
    """Draw a Keras model with its networks and their shapes as a PNG file, if Graphviz is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        keras.utils.plot_model(model, path, show_shapes=True, expand_nested=True, dpi=72)
    except ImportError as error:
        LOG.warning("no %s: %s", path.name, first_line(error))


class Distance(keras.callbacks.Callback):
    """Looks at the GAN every `every` epochs and at the end, and measures W1.

    It adds `w1` to the `logs` of these epochs, for the callbacks that come after it.

    Args:
        gan: a GANModel.
        sample_list: as `GANModel.train` takes it.
        every: epochs from one look to the next. Default: 1.

    Attributes:
        history: list of `(epoch, w1)` of the training; epochs count from 1.
    """

    picture = figure = None

    def __init__(self, gan, sample_list, every=1):
        super().__init__()
        self.gan, self.every, self.epoch, self.history = gan, every, 0, []
        self.noise, self.real = shown_rows(sample_list)

    def on_train_begin(self, logs=None):
        self.epoch, self.history = 0, []

    def on_epoch_end(self, epoch, logs=None):
        self.epoch = epoch + 1
        if self.epoch % self.every == 0 or self.epoch == self.params["epochs"]:
            logs["w1"] = self.look()

    def on_train_end(self, logs=None):
        if self.epoch and self.epoch not in dict(self.history):
            self.look()

    def look(self):
        generated = self.gan.generator_model.predict_on_batch(self.noise)
        w1 = wasserstein(generated, self.real)
        self.history.append((self.epoch, w1))
        if self.picture is not None:
            state = gan_state(self.gan, generated, self.real)
            self.picture.draw(state, f"epoch = {self.epoch}", self.history)
            self.show()
        return w1


class LiveWindow(Distance):
    """Shows the picture, twenty frames a second, in a window or a notebook; if there is one."""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.cell, self.due, self.figure = None, time.perf_counter(), window_figure()
        ipython = sys.modules.get("IPython")
        in_notebook = ipython is not None and hasattr(ipython.get_ipython(), "kernel")
        if self.figure is None and not in_notebook:
            self.every = math.inf  # training need not stop to look
            return
        self.picture = Picture(self.real, self.params["epochs"], self.every, self.figure)
        if self.figure is None:
            self.cell = ipython.display.display(self.picture.image(), display_id=True)

    def show(self):
        self.due = max(self.due + FRAME_SECONDS, time.perf_counter())
        if self.cell is not None:
            self.cell.update(self.picture.image())
            time.sleep(max(0, self.due - time.perf_counter()))
        elif not plt.fignum_exists(self.figure.number):  # the user has closed it
            self.picture, self.every = None, math.inf
        else:
            self.picture.render()
            self.figure.canvas.blit(self.figure.bbox)
            self.figure.canvas.start_event_loop(max(0.001, self.due - time.perf_counter()))

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if self.figure is not None:
            plt.close(self.figure)


def window_figure():
    """Return a figure in a new window, or None where there can be none."""
    chosen = matplotlib.get_backend(auto_select=False)
    try:
        with plt.ioff():
            figure = plt.figure(figsize=Picture.SIZE)
    except Exception as error:  # each toolkit has its own for a display it cannot use
        LOG.debug("no live window: %s", first_line(error))
        return None
    if figure.canvas.required_interactive_framework and figure.canvas.supports_blit:
        figure.canvas.manager.set_window_title("A generator learns")
        figure.canvas.manager.show()
        return figure
    plt.close(figure)
    if chosen is None and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        try:
            import tkinter  # noqa: F401
        except ImportError as error:
            LOG.info("no live window: %s (on Debian, install python3-tk)", error)
    return None


class Animation(Distance):
    """Writes the frames to a GIF file when training ends; the last one stays for a while."""

    def __init__(self, gan, sample_list, path, every=1):
        super().__init__(gan, sample_list, every)
        self.path = pathlib.Path(path)
        # The picture's colours and their way to white, for all frames alike.
        ramps = [np.linspace(to_rgba(color), (1, 1, 1, 1), 30)[:, :3] for color in "kgr"]
        self.palette = Image.new("P", (1, 1))
        self.palette.putpalette((np.concatenate(ramps) * 255).astype("uint8").tobytes())

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.picture, self.frames = Picture(self.real, self.params["epochs"], self.every), []

    def show(self):
        image = self.picture.image()
        self.frames.append(image.quantize(palette=self.palette, dither=Image.Dither.NONE))

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if self.frames:
            first, *others = self.frames
            durations = [int(1000 * FRAME_SECONDS)] * len(others) + [1000 * LAST_FRAME_SECONDS]
            with replacing(self.path) as (file,):
                first.save(file, append_images=others, save_all=True, duration=durations, loop=0)
            LOG.info("animation saved in %s", self.path)


class TrainingCSV(keras.callbacks.CSVLogger):
    """Writes `epoch, dis_loss, gen_loss, w1`, a row an epoch, epochs from 1; NA is no w1."""

    every = math.inf

    def on_epoch_end(self, epoch, logs=None):
        self.keys = ["dis_loss", "gen_loss", "w1"]
        try:
            super().on_epoch_end(epoch + 1, logs)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.filename) from error

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        LOG.info("losses saved in %s", self.filename)


class Progress(keras.callbacks.Callback):
    """One line that updates on a terminal; elsewhere a log line every tenth of the run."""

    every = math.inf

    def on_train_begin(self, logs=None):
        self.epoch, self.bar = 0, None

    def on_epoch_end(self, epoch, logs=None):
        self.epoch, epochs = epoch + 1, self.params["epochs"]
        losses = [(name, logs[name]) for name in ("dis_loss", "gen_loss")]
        if epoch == 0 and sys.stdout is not None and sys.stdout.isatty():
            # Made as late as this, its time to go leaves out the compiling.
            names = [name for name, _ in losses]
            self.bar = keras.utils.Progbar(
                epochs, width=10, stateful_metrics=names, unit_name="epoch"
            )
        if self.bar is not None:
            self.bar.update(self.epoch, losses, finalize=False)
        elif self.epoch * 10 // epochs > epoch * 10 // epochs:
            losses = ", ".join(f"{name} = {loss:.4f}" for name, loss in losses)
            LOG.info("epoch %d of %d: %s", self.epoch, epochs, losses)

    def on_train_end(self, logs=None):
        if self.bar is not None:
            self.bar.update(self.epoch, finalize=True)


# ---------------------------------------------------------------------------------------
# 6. The program
#
# Every place it will write to is tried before training, and what was trained is saved
# however training ends.

CSV_FILE = "training.csv"
SAVE_SECONDS = 60  # from one save to the next while it trains


def whole(low, high=2**31 - 1):
    """Return a parser of whole numbers from `low` to `high`, for argparse."""

    def parse(text):
        if text.isdecimal() and len(text) < 20 and low <= int(text) <= high:
            return int(text)
        expected = f"expected a whole number from {low} to {high}"
        raise argparse.ArgumentTypeError(f"{expected}, got {text!r}")

    return parse


def parse_args(argv=None):
    """Read the command line; a bad one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        description="Train a GAN that turns uniform noise into samples of a Gaussian.",
        epilog="Ctrl-C ends training after the epoch in hand and saves what was trained.",
        allow_abbrev=False,
    )
    flag = parser.add_argument
    default = "(default: %(default)s)"
    # fmt: off
    flag("-e", "--epoch", type=whole(0), default=10, metavar="N", help=f"epochs to train {default}")
    flag("-b", "--batch_size", type=whole(1), default=32, metavar="N",
         help=f"samples in a batch, a hundredth of the data set {default}")
    flag("-m", "--model_dir", default="models", metavar="DIR",
         help=f"folder of the two .h5 files {default}")
    flag("-log", "--log_dir", metavar="DIR",
         help="folder for graphs of the models and for training.csv (default: none)")
    flag("-log_lvl", "--log_lvl", type=str.lower, default="info",
         choices=("info", "debug", "warn", "warning", "error", "err"),
         help=f"the lowest level of log lines to show {default}")
    flag("-k", "--step_per", type=whole(1), default=20, metavar="K",
         help=f"updates of the discriminator in an epoch {default}")
    flag("-n", "--noise_dim", type=whole(1), default=4, metavar="N",
         help=f"numbers of noise that make a sample {default}")
    flag("-s", "--seed", type=whole(0, 2**32 - 1), metavar="N",
         help="seed of everything random: same seed, same result (default: none)")
    flag("-o", "--output", default="img/gan_results.png", metavar="FILE",
         help=f"the picture of the result: .png, .pdf, .svg {default}")
    flag("-gif", "--gif", metavar="FILE", help="an animation of the training (default: none)")
    flag("-every", "--plot_every", type=whole(1), default=1, metavar="N",
         help=f"epochs from one frame of window and animation to the next {default}")
    flag("-r", "--resume", action="store_true",
         help="start from the models in --model_dir; with -e 0 just draw them (default: off)")
    # fmt: on
    args = parser.parse_args(argv)
    if args.epoch == 0 and not args.resume:
        parser.error("argument -e/--epoch: 0 epochs only with -r/--resume")
    if not args.output.lower().endswith((".png", ".pdf", ".svg")):
        parser.error(f"argument -o/--output: expected a .png, .pdf or .svg, got {args.output!r}")
    if args.gif is not None:
        if not args.gif.lower().endswith(".gif"):
            parser.error(f"argument -gif/--gif: expected a .gif, got {args.gif!r}")
        if args.epoch > MOST_FRAMES * args.plot_every:
            least = math.ceil(args.epoch / MOST_FRAMES)
            parser.error(f"argument -gif/--gif: at most {MOST_FRAMES} frames, use -every {least}")
    return args


def check_places(args):
    """Look for what the run will read; make and try every place it will write to."""
    models = [pathlib.Path(args.model_dir, name) for name in MODEL_FILES]
    if args.resume:
        for path in models:
            if not path.exists():
                raise FileNotFoundError(f"-r/--resume: {path} is missing")
        saved = saved_noise_dim(models[0])
        if saved not in (None, args.noise_dim):
            problem = f"{models[0]} was saved with noise_dim = {saved}, not {args.noise_dim}"
            raise ValueError(f"-n/--noise_dim: {problem}, use -n {saved}")
    places = [("-o/--output", pathlib.Path(args.output))]
    if args.epoch:
        places += [("-m/--model_dir", path) for path in models]
    if args.gif is not None:
        places.append(("-gif/--gif", pathlib.Path(args.gif)))
    if args.log_dir is not None:
        places.append(("-log/--log_dir", pathlib.Path(args.log_dir, CSV_FILE)))
    for flag, path in places:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".gan_", dir=path.parent) as folder:
                pathlib.Path(folder, path.name).touch()
        except OSError as error:
            raise OSError(f"{flag}: cannot write {path}: {first_line(error)}") from error
        if path.is_dir():
            raise OSError(f"{flag}: {path} is a folder, not a file")


class Autosave(keras.callbacks.Callback):
    """Saves the models to a folder once a minute: no more is lost, whatever ends the process."""

    every = math.inf

    def __init__(self, gan, path_dir):
        super().__init__()
        self.gan, self.path_dir, self.due = gan, path_dir, time.monotonic() + SAVE_SECONDS

    def on_epoch_end(self, epoch, logs=None):
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + SAVE_SECONDS
            try:
                self.gan.save_model(self.path_dir)
            except OSError as error:  # in the end there is another folder to try
                LOG.warning("the models are not saved yet: %s", first_line(error))


def save_somewhere(gan, folder):
    """Save the models in a folder or, with an OSError that says so, in a new temporary one."""
    try:
        gan.save_model(folder)
    except OSError as error:
        problem = f"cannot save the models in {folder}: {first_line(error)}"
        try:
            rescue = tempfile.mkdtemp(prefix="gan_models_")
            gan.save_model(rescue)
        except OSError as error:
            raise OSError(f"{problem}; nor elsewhere: {first_line(error)}") from error
        raise OSError(f"{problem}; they are in {rescue}") from error
    LOG.info("models saved in %s", folder)


class EndOnSignals(keras.callbacks.Callback):
    """In its context a signal ends training after the epoch in hand; a second one, the program.

    Python hears a signal when the compiled call in hand returns. If it came before the first
    epoch was done there is nothing to save, and the program ends. Afterwards the handlers are as
    before.

    Attributes:
        came: list of the numbers of the signals that came.
    """

    every = math.inf

    def __enter__(self):
        self.came, self.before = [], {}
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as by nohup
                self.before[number] = signal.signal(number, self.handle)

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def handle(self, number, frame):
        self.came.append(number)  # and raise nothing: TensorFlow, if it is compiling, loses it
        for other in self.before:
            signal.signal(other, signal.SIG_DFL)
        if self.model is not None:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0 and self.came:
            raise SystemExit(128 + self.came[0])


def run(args):
    """Do what the command line asks for; returns the exit status."""
    check_places(args)
    if args.seed is not None:
        keras.utils.set_random_seed(args.seed)
    samples = make_samples(args.batch_size * BATCHES, args.noise_dim, args.seed)
    gan = make_gan(args.noise_dim, args.log_dir)
    if args.resume:
        gan.load_model(args.model_dir)
    # Fifty looks at the distance cost little, however long the run is.
    distance = Distance(gan, samples, every=max(args.plot_every, args.epoch // 50))
    signals = EndOnSignals()
    callbacks = [signals, Progress(), Autosave(gan, args.model_dir)]
    callbacks += [distance, LiveWindow(gan, samples, args.plot_every)]
    if args.gif is not None:
        callbacks.append(Animation(gan, samples, args.gif, args.plot_every))
    if args.log_dir is not None:
        callbacks.append(TrainingCSV(str(pathlib.Path(args.log_dir, CSV_FILE))))
    title, problems = f"noise_dim = {args.noise_dim}", []

    def attempt(step, *values, **named):
        try:
            step(*values, **named)
        except Exception as problem:
            problems.append(problem)

    with signals:
        if args.epoch:
            settings = args.epoch, args.batch_size, args.step_per
            attempt(gan.train, samples, *settings, callbacks=callbacks)
            done = len(gan.train_status["gen_loss"])
            if signals.came:
                LOG.warning("interrupted after %d of %d epochs", done, args.epoch)
            if problems and (not done or isinstance(problems[0], FloatingPointError)):
                raise problems[0]
            attempt(save_somewhere, gan, args.model_dir)
            title = f"K = {args.step_per}, {done}{' more' * args.resume} epochs, {title}"

        noise, real = shown_rows(samples)
        generated = gan.generator_model.predict_on_batch(noise)
        w1 = wasserstein(generated, real)
        LOG.info(
            "generated: mean %.3f, standard deviation %.3f; real: mean %.3f, standard deviation "
            "%.3f; Wasserstein-1 distance %.3f; D's mean output on generated %.3f",
            generated.mean(), generated.std(), real.mean(), real.std(), w1,
            gan.discriminateor_model.predict_on_batch(generated).mean(),
        )  # fmt: skip
        title = f"{title}, W1 = {w1:.3f}"
        attempt(save_picture, gan, samples, args.output, title, distance.history)

    for problem in problems:
        LOG.error("%s", first_line(problem))
    if problems:
        return 1
    return 128 + signals.came[0] if signals.came else 0


def main(argv=None):
    """Run the demo as a program, with the arguments of the command line unless others are given.

    Returns the exit status: 0, 1 for a failure, 128 plus the number of a signal that ended it.
    """
    args = parse_args(argv)
    level = args.log_lvl.upper()
    app_logger.init("ERROR" if level == "ERR" else level)
    keras.config.set_floatx("float32")  # whatever keras.json says
    keras.config.set_epsilon(1e-7)
    try:
        return run(args)
    except KeyboardInterrupt:
        return 130
    except Exception as problem:
        LOG.error("%s", first_line(problem))
        LOG.debug("it happened here:", exc_info=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
