"""A generator learns a Gaussian: the smallest GAN worth watching, in Keras.

Two networks play against each other (Goodfellow et al., "Generative Adversarial Nets", 2014,
https://arxiv.org/abs/1406.2661). The generator G turns uniform noise into samples, the
discriminator D says how likely it is that a sample is real. D learns to tell the two apart,
G learns to make that hard, until G's samples follow the Gaussian and D says 0.5 everywhere.

This is a port of a published article's program, written for Keras 2 on TensorFlow 1 (it says no
more of itself), and keeps its names, the spelling `discriminateor` included.
Sections 1 to 3 are the lesson: the losses, the GAN and its training, the article's networks.
Files, pictures and the command line follow, each in a section of its own.
"""

import gc

gc.disable()  # what the imports make stays: to look through it for garbage takes 0.4 s
import argparse
import collections
import contextlib
import csv
import functools
import importlib.util
import json
import logging
import math
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings

os.environ["KERAS_BACKEND"] = "tensorflow"  # Keras reads it when it is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_, _, plots = os.environ.get("MPLBACKEND", "").partition("module://")
if plots and not importlib.util.find_spec(plots.split(".")[0]):
    del os.environ["MPLBACKEND"]  # it is a notebook's, for programs that it starts elsewhere

import h5py
import keras

if keras.config.backend() != "tensorflow":
    gc.enable()
    raise ImportError("demo_gan needs Keras on TensorFlow: import demo_gan before keras")
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import layers, ops
from matplotlib import colors, style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from PIL import Image

import app_logger

gc.enable()

# ---------------------------------------------------------------------------------------
# 1. The losses
#
# D maximises mean(log D(x)) + mean(log(1 - D(G(z)))), G minimises mean(log(1 - D(G(z)))):
# equation 1 of the paper, x being real and z noise. From here on they have the article's names:
# real samples are y, noise is x. D's training model outputs D(y) and 1 - D(G(x)), so that one
# loss serves both terms. There is nothing to compare the outputs with: `y_true` is ignored.


@keras.saving.register_keras_serializable("demo_gan")
def log_loss_discriminator(y_true, y_pred):
    """The discriminator's loss, -log p, `(batch, 1)`, p clipped from below at Keras's epsilon.

    `y_pred`, `(batch, 1)`, is the probability p that D gives to the truth: D(y) or 1 - D(G(x)).
    """
    return -ops.log(ops.maximum(keras.config.epsilon(), y_pred))


@keras.saving.register_keras_serializable("demo_gan")
def log_loss_generator(y_true, y_pred):
    """The generator's saturating loss, log(1 - p), `(batch, 1)`, clipped in the same way.

    `y_pred`, `(batch, 1)`, is the probability p = D(G(x)).
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
# Python for every update would cost ten times the arithmetic: a call of TensorFlow runs many
# epochs. A BatchNormalization works as in training in both phases: it normalizes by the batch,
# and its moving averages follow, also in the network whose weights stay.

# A call runs so many epochs and rows of noise, at most: Ctrl-C, and a callback that wants to stop
# the training, are heard between two calls, which should be a fraction of a second.
EPOCHS_PER_CALL, ROWS_PER_CALL = 50, 2**15
UPDATES_FOR_XLA = 10_000  # of D; from about there on XLA makes up for its second of compiling


class GANModel:
    """A GAN made of two lists of Keras layers.

    Args:
        input_dim: `[signal_dim, noise_dim]`, sizes of a sample and its noise, or one for both.
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
        model.optimizer.build(network.trainable_weights)  # to trace it later costs a second trace
        self._run_epochs = None
        if self.log_dir is not None:
            draw_graph(model, pathlib.Path(self.log_dir, f"{model.name}.png"))

    def _update(self, model, network, inputs):
        """Take one step of a training model's optimizer, with the weights of one network.

        This is how to fix the other network. The article set `trainable = False` on it before
        compiling, which Keras 2 remembered. Keras 3 looks when it traces a step, and finds what
        was set last: D's phase. Translated literally, D is trained in both phases, in G's to take
        generated samples for real ones; G never moves, and nothing says so.
        """
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            loss = model.compute_loss(y=outputs, y_pred=outputs)  # which ignores y
            scaled = model.optimizer.scale_loss(loss)  # another only with float16
        weights = network.trainable_weights
        model.optimizer.apply(tape.gradient(scaled, weights), weights)
        return loss

    def _epochs(self, noise, real, dis_draws, gen_draws, count):
        """Run `count` epochs, in loops of TensorFlow's: their bodies are functions.

        `noise` and `real` are `(batch_count, batch_size, width)`. Row i of the draws names the
        batches of epoch i: `dis_draws`, `(rows, step_per, 2)`, one of noise and one of real
        samples for each update of D; `gen_draws`, `(rows,)`, one of noise for G's. Rows from
        `count` on are spare. Returns the losses of each epoch, `(rows, 2)`, and of the last one
        the generated batch and D's output.
        """
        step_per, d_training = ops.shape(dis_draws)[1], self.discriminateor_training_model

        def one_epoch(epoch, losses):
            draws = tf.gather(dis_draws, epoch)

            def update_discriminator(step, total):
                draw = tf.gather(draws, step)
                # XLA would compile anew at every call for noise[draw[0]].
                x, y = tf.gather(noise, draw[0]), tf.gather(real, draw[1])
                return total + self._update(d_training, self.discriminateor_model, [y, x])

            total = ops.fori_loop(0, step_per, update_discriminator, tf.zeros((), noise.dtype))
            x = tf.gather(noise, tf.gather(gen_draws, epoch))
            gen_loss = self._update(self.generator_training_model, self.generator_model, x)
            both = [total / tf.cast(step_per, total.dtype), gen_loss]
            return epoch + 1, tf.tensor_scatter_nd_update(losses, [[epoch]], [both])

        losses = tf.zeros((ops.shape(gen_draws)[0], 2), noise.dtype)
        _, losses = ops.while_loop(lambda epoch, _: epoch < count, one_epoch, (0, losses))
        x = tf.gather(noise, tf.gather(gen_draws, count - 1))
        generated = self.generator_model(x, training=False)
        return losses, generated, self.discriminateor_model(generated, training=False)

    def train(self, sample_list, epoch=3, batch_size=32, step_per=10, plot=False, callbacks=None):
        """Train both networks; calling it again goes on training.

        Batch i is rows i * batch_size to (i + 1) * batch_size - 1; rows that do not fill a batch
        are left out. Python's `random` draws the batches of an epoch: for each update of D one of
        noise, then one of real samples, and at last one of noise for G.

        Args:
            sample_list: `{"x": noise (n, noise_dim), "y": real samples (n, signal_dim)}`.
            epoch: number of epochs. Default: 3.
            batch_size: rows of a batch. Default: 32.
            step_per: updates of the discriminator per epoch, the article's K. Default: 10.
            plot: whether to keep each epoch's generated batch in `train_status`, and to show the
                training in a window or notebook, if there is one. Default: False.
            callbacks: Keras callback, or list of them. All hear of every epoch, with `dis_loss`
                and `gen_loss` in `logs`, and see the networks as the epoch left them. One with an
                attribute `sees_weights_every = N` does so after every N-th epoch, and is faster:
                the epochs up to there run in one call, and are told, and can be stopped, when it
                is over. Their `model` is the generator's training model: a scheduler sets G's
                learning rate, D's is `discriminateor_training_model.optimizer.learning_rate`.

        Raises:
            ValueError: before anything has changed, if a number, the samples' shapes or a model
                are not right.
            FloatingPointError: when a loss, an output or a weight is not finite any more.
        """
        generator, discriminator = self.generator_training_model, self.discriminateor_training_model
        if generator is None or discriminator is None:
            raise ValueError("compile both models before train()")
        sizes = {"epoch": epoch, "batch_size": batch_size, "step_per": step_per}
        epoch, batch_size, step_per = whole_numbers(sizes)
        noise, real = cut_into_batches(self, sample_list, batch_size)
        if plot:
            live = Look(self, sample_list, every=0, views={"the live picture": live_view})
            callbacks = [live, *keras.tree.flatten(callbacks or [])]
        if self._run_epochs is None:
            self._run_epochs = trace(self._epochs, generator, discriminator)
        updates = int(discriminator.optimizer.iterations) + epoch * step_per  # earlier calls count
        can_use_xla = generator.jit_compile and discriminator.jit_compile
        run_epochs = self._run_epochs[can_use_xla and updates >= UPDATES_FOR_XLA]
        at_most = max(1, min(EPOCHS_PER_CALL, ROWS_PER_CALL // (batch_size * step_per)))
        dis_draws, gen_draws = np.zeros((at_most, step_per, 2), "int32"), np.zeros(at_most, "int32")
        draw = functools.partial(random.randint, 0, len(noise) - 1)

        done, generator.stop_training = 0, False
        watchers = keras.callbacks.CallbackList(
            callbacks, model=generator, epochs=epoch, steps=1, verbose=1
        )
        try:
            watchers.on_train_begin()
            while done < epoch and not generator.stop_training:
                often = [getattr(one, "sees_weights_every", 1) for one in watchers.callbacks]
                often.append(1 if plot else math.inf)
                count = min(at_most, epoch - done, *(every - done % every for every in often))
                for i in range(count):
                    dis_draws[i] = [(draw(), draw()) for _ in range(step_per)]  # noise, real
                    gen_draws[i] = draw()
                watchers.on_epoch_begin(done)
                losses, generated, judged = run_epochs(noise, real, dis_draws, gen_draws, count)
                losses = losses.numpy()[:count]
                self.train_status["dis_loss"] += losses[:, 0].tolist()
                self.train_status["gen_loss"] += losses[:, 1].tolist()
                if plot:
                    self.train_status["gen_result"].append(generated.numpy())
                    self.train_status["dis_result"].append(judged.numpy())
                if not all_finite([losses, generated, judged, *generator.get_weights()]):
                    raise FloatingPointError(f"training diverged by epoch {done + count}")
                for i, (dis_loss, gen_loss) in enumerate(losses.tolist()):
                    if i > 0:
                        watchers.on_epoch_begin(done + i)
                    watchers.on_epoch_end(done + i, {"dis_loss": dis_loss, "gen_loss": gen_loss})
                done += count
        finally:
            watchers.on_train_end()

    def save_model(self, path_dir):
        """Write `gan_generator.h5` and `gan_discriminateor.h5` to a folder, when both are whole.

        Raises a ValueError if there are no layers, or weights that are not finite; an OSError if
        the files cannot be written.
        """
        self._check_networks()
        write_networks((self.generator_model, self.discriminateor_model), pathlib.Path(path_dir))

    def load_model(self, path_dir):
        """Read both networks' weights from a folder, also from files the article's program wrote.

        Raises an OSError if a file cannot be read; a ValueError if it does not fit the layers, or
        there are none. Then the GAN is as it was.
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
    for units in (200, 100, 50):
        gan.add_gen_layer(layers.Dense(units, activation="relu"))
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
# 4. Data, tracing, files
#
# Files are written whole or not at all, and read without running what is in them.

MODEL_FILES = ("gan_generator.h5", "gan_discriminateor.h5")


def whole_numbers(settings):
    """Return a dict's values as ints; a ValueError names one that is no whole number from 1 on."""
    for name, value in settings.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return [int(value) for value in settings.values()]


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
    if batch_size > len(noise):
        raise ValueError(f"batch_size must be at most {len(noise)}, the rows, got {batch_size}")
    used = len(noise) // batch_size * batch_size
    return [
        tf.constant(rows[:used].reshape(-1, batch_size, rows.shape[1])) for rows in (noise, real)
    ]


def trace(epochs, generator, discriminator):
    """Return `GANModel._epochs` as functions of TensorFlow, without XLA and with it.

    They take data of any size, and the second calls the first: the networks are traced once.
    """
    for model in (generator, discriminator):
        # Makes the means in which Keras counts losses; made while TensorFlow traces, they would
        # cost a second trace.
        outputs = keras.tree.map_structure(lambda output: ops.zeros((1, 1)), model.output)
        model.compute_loss(y=outputs, y_pred=outputs)
    real, noise = discriminator.input_shape
    signature = [
        *(tf.TensorSpec((None, *shape), keras.config.floatx()) for shape in (noise, real)),
        *(tf.TensorSpec(shape, "int32") for shape in ((None, None, 2), (None,), ())),
    ]
    epochs = functools.partial(epochs)  # of its own: TensorFlow warns of many traces of a function
    plain = tf.function(epochs, signature, autograph=False)
    return plain, tf.function(plain, signature, autograph=False, jit_compile=True)


def all_finite(arrays):
    return all(np.isfinite(array).all() for array in arrays)


@contextlib.contextmanager
def replacing(*paths):
    """Give a temporary name for each path; afterwards put the files written there in place.

    They are written in a fresh folder beside the paths, whose name nobody can guess. Until all
    are whole and on the disk the old files are untouched. An OSError names the first path.
    """
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".gan_", dir=paths[0].parent, ignore_cleanup_errors=True
        ) as folder:
            files = [pathlib.Path(folder, path.name) for path in paths]
            yield files
            for file in files:
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
            for file, path in zip(files, paths):
                file.replace(path)
    except OSError as error:
        raise OSError(f"cannot write {paths[0]}: {error.strerror or error}") from error


def write_networks(networks, folder):
    """Write .h5 files that `keras.models.load_model` reads; see `GANModel.save_model`."""
    absl = logging.getLogger("absl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no warning that is an error loses a model
        for network in networks:
            if not all_finite(network.get_weights()):
                raise ValueError(f"{network.name} is not saved, its weights are not finite")
        with replacing(*(folder / name for name in MODEL_FILES)) as files:
            try:
                absl.disabled = True  # Keras advises against .h5, which is the article's format
                for network, file in zip(networks, files):
                    file.write_bytes(hdf5_of(network, folder))
            finally:
                absl.disabled = False


def hdf5_of(network, folder):
    """The bytes of a network's .h5 file.

    HDF5 may crash the process when a disk is full. It writes where there is room, in the system's
    temporary folder or else in the one given; Python, for which a full disk is an OSError, copies.
    """
    needed = 8 * network.count_params() + 2**20
    problem = OSError(f"no room for {needed} bytes of HDF5")
    for find_place in (tempfile.gettempdir, lambda: folder):
        try:
            if shutil.disk_usage(place := find_place()).free > needed:
                with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as scratch:
                    file = pathlib.Path(scratch, MODEL_FILES[0])
                    network.save(file)
                    return file.read_bytes()
        except Exception as error:  # HDF5 has many for one reason
            problem = error
    raise problem


def read_networks(networks, folder):
    """Set the networks' weights from .h5 files, by order and shape; see `GANModel.load_model`."""
    old_weights = [network.get_weights() for network in networks]
    try:
        for network, name in zip(networks, MODEL_FILES):
            network.load_weights(folder / name)
            if not all_finite(network.get_weights()):
                raise ValueError("it holds weights that are not finite")
    except BaseException as error:
        for network, weights in zip(networks, old_weights):
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
# `gan_state` gathers what there is to see of a GAN, a Picture draws it. While the GAN trains one
# callback, Look, looks at it and keeps what it saw; views (window, notebook's cell, animation,
# CSV, progress line) are told. Green is generated, black is real, red is what D says.
#
# All of this is there to be looked at. Whatever of it fails, training goes on: a line in the log
# says what is left out, and that is all.

LOG = logging.getLogger(__name__)

SHOWN = 20_000  # rows of a data set, at most
BINS = 40
AXIS_POINTS = 201  # at which D is asked along the axis, and
PLANE_POINTS = 60  # along each side of the plane
TRAIL = 20  # epochs
LOOKS = 40  # at a run, and some more in its beginning
STAGES = (1 / 40, 1 / 20, 1 / 10, 1 / 4, 1 / 2, 1)  # of a run, in the strip
FRAME_SECONDS = 0.05  # the article's pace
LAST_FRAME_SECONDS = 2  # of an animation
MOST_FRAMES = 1000  # of an animation; they are held in memory
STRIP_HEIGHT = 1.55  # inches
W1_LIMITS = (0.01, 30)  # in standard deviations of the real samples
WHITE_TO_RED = colors.LinearSegmentedColormap.from_list("D's output", ["white", "red"])


@contextlib.contextmanager
def dispensable(what):
    """In its context is what a run can do without: if it fails, the log says so in one line."""
    try:
        yield
    except (Exception, SystemExit) as error:  # wx raises SystemExit where there is no display
        LOG.error("%s is left out from here on: %s", what, first_line(error))
        LOG.debug("it happened here:", exc_info=True)


class State(collections.namedtuple("State", ["epoch", "w1", "generated", "decision"])):
    """What there is to see of a GAN.

    Attributes:
        epoch: the number of epochs it was trained for.
        w1: the Wasserstein-1 distance of generated and real samples.
        generated: of samples of one number the share in each bin, `(BINS,)`; of more numbers the
            first two of each sample, `(n, 2)`.
        decision: D's output at `points_for_d`, of samples of one number along their axis, of two
            all over their plane, of more nowhere.
    """


def ask(gan, noise, points):
    """Return what G makes of noise `(n, noise_dim)`, what D says at points `(n, signal_dim)`."""
    generated = gan.generator_model(noise, training=False)
    return generated, gan.discriminateor_model(points, training=False)


def gan_state(ask_gan, noise, real, epoch=0):
    """Return the State of a GAN: one prediction, beside the real samples `(n, signal_dim)`.

    `ask_gan` is `ask` of this GAN, `functools.partial(ask, gan)`, compiled or not.
    """
    generated, decision = (output.numpy() for output in ask_gan(noise, points_for_d(real)))
    shown = generated[:, :2]
    if real.shape[1] == 1:
        shown = histogram(generated, bin_edges(real))
    return State(epoch, wasserstein(generated, real), shown, decision[:, 0])


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


def axis_limits(real):
    """The ends of the axis of each number of samples `(n, dim)`, as `(dim, 2)`.

    An axis spans the middle 99 % of the samples and a third as much again on each side: what a
    few outliers do does not matter.
    """
    low, high = np.quantile(real.astype("float64"), (0.005, 0.995), axis=0)
    margin = np.where(high > low, (high - low) / 3, 1)
    return np.stack([low - margin, high + margin], axis=1)


def points_for_d(real):
    limits = axis_limits(real)
    if len(limits) > 2:
        return np.empty((0, len(limits)), "float32")
    number = {1: AXIS_POINTS, 2: PLANE_POINTS}[len(limits)]
    points = np.meshgrid(*(np.linspace(*ends, number, dtype="float32") for ends in limits))
    return np.stack(points, axis=-1).reshape(-1, len(limits))


def bin_edges(real):
    return np.linspace(*axis_limits(real)[0], BINS + 1)


def histogram(samples, edges):
    """The share of samples `(n, 1)` in each bin; those beyond the edges are in the outermost."""
    return np.histogram(np.clip(samples, edges[0], edges[-1]), edges)[0] / len(samples)


class Histograms:
    """Samples of one number: the share in each bin on one axes, D's output on another."""

    def __init__(self, samples, decision, real, trail):
        edges = bin_edges(real)
        self.centres, self.points = (edges[:-1] + edges[1:]) / 2, points_for_d(real)[:, 0]
        self.real = histogram(real, edges)
        samples.plot(self.centres, self.real, "ko-", markersize=3, label="real")
        samples.set(xlim=edges[[0, -1]], ylim=(0, 3 * self.real.max()), ylabel="share of samples")
        samples.tick_params(labelbottom=False)
        (self.generated,) = samples.plot([], [], "go-", markersize=3, label="generated")
        decision.set(xlim=edges[[0, -1]], ylim=(-0.05, 1.45), yticks=(0, 0.5, 1))
        decision.set(xlabel="sample (the outermost bins count all beyond)", ylabel="D's output")
        decision.axhline(0.5, color="0.6", linestyle=":", linewidth=1, label="0.5: cannot tell")
        (self.optimal,) = decision.plot([], [], color="0.6", label="optimal D")
        (self.decision,) = decision.plot([], [], "r--", label="D")
        for axes in (samples, decision):
            axes.legend(loc="upper right", fontsize="small", ncols=3)
        self.trails = [Trail(line, trail) for line in (self.generated, self.decision)]
        trails = [trail.past for trail in self.trails]
        self.moving = [*trails, self.optimal, self.generated, self.decision]

    def set_state(self, state):
        for trail in self.trails:
            trail.keep()
        # In each bin the D that is optimal for the two histograms says real / (real + generated)
        # (Goodfellow et al. 2014, proposition 1); where there are no samples it has no say.
        both = self.real + state.generated
        optimal = np.divide(self.real, both, out=np.full(BINS, np.nan), where=both > 0)
        self.optimal.set_data(self.centres, optimal)
        self.generated.set_data(self.centres, state.generated)
        self.decision.set_data(self.points, state.decision)


class Trail:
    """Where a line was, fading."""

    def __init__(self, line, length):
        self.line, self.curves = line, collections.deque(maxlen=length)
        self.past = LineCollection([], linewidths=0.7)
        line.axes.add_collection(self.past, autolim=False)

    def keep(self):
        """Keep the line as it is, before it moves on."""
        if len(self.line.get_xdata()):
            self.curves.append(self.line.get_xydata())
        alphas = np.linspace(0.05, 0.35, self.curves.maxlen)[-len(self.curves) :]
        self.past.set_segments(list(self.curves))
        self.past.set_color([colors.to_rgba(self.line.get_color(), alpha) for alpha in alphas])


class Plane:
    """Samples of more numbers: the first two as a scatter; of exactly two, over D's output."""

    def __init__(self, axes, real, markersize=1.5):
        (left, right), (bottom, top) = axis_limits(real)[:2]
        sides = right - left, top - bottom
        aspect = "equal" if max(sides) <= 5 * min(sides) else "auto"
        axes.set(xlim=(left, right), ylim=(bottom, top), aspect=aspect)
        dots = {"linestyle": "", "markersize": markersize, "alpha": 0.5}
        (self.real,) = axes.plot(real[:, 0], real[:, 1], "ko", label="real", **dots)
        (self.generated,) = axes.plot([], [], "go", label="generated", **dots)
        self.moving = [self.real, self.generated, *axes.spines.values()]
        self.decision = None
        if real.shape[1] == 2:
            self.decision = axes.imshow(
                np.zeros((1, 1)), WHITE_TO_RED, aspect=aspect, interpolation="bilinear",
                vmin=0, vmax=1, origin="lower", extent=(left, right, bottom, top),
            )  # fmt: skip
            self.moving.insert(0, self.decision)

    def set_state(self, state):
        self.generated.set_data(state.generated.T)
        if self.decision is not None:
            self.decision.set_data(state.decision.reshape(PLANE_POINTS, PLANE_POINTS))


class Picture:
    """A figure of a GAN's state: samples, D's output, and W1 over the epochs beside them.

    What does not move is drawn once, the rest is blitted over it.

    Args:
        real: array `(n, signal_dim)`; fixes the axes, so that nothing jumps.
        epochs: how many epochs the W1 axis spans. Default: 0, no such axis.
        every: epochs from one state to the next. Default: 1.
        figure: an empty matplotlib figure. Default: a new one, in no window.

    Attributes:
        distances: list of `(epoch, w1)`, the curve of W1; each state adds its own.
    """

    SIZE = (8, 4.5)  # inches; of a higher figure the picture is the upper part

    def __init__(self, real, epochs=0, every=1, figure=None):
        self.figure = new_figure(*self.SIZE) if figure is None else figure
        height, columns = self.figure.get_figheight(), 2 if epochs else 1
        grid = self.figure.add_gridspec(
            2, columns, width_ratios=(2, 1)[:columns], height_ratios=(3, 2), wspace=0.2, hspace=0.1,
            left=0.09, right=0.965, top=1 - 0.35 / height, bottom=1 - 3.95 / height,
        )  # fmt: skip
        if real.shape[1] == 1:
            samples, decision = (self.figure.add_subplot(grid[row, 0]) for row in (0, 1))
            self.panel = Histograms(samples, decision, real, math.ceil(TRAIL / every))
            self.moving = [*self.panel.moving]
        else:
            samples = self.figure.add_subplot(grid[:, 0])
            self.panel = Plane(samples, real)
            shades = " (white to red: D's output, 0 to 1)" if real.shape[1] == 2 else ""
            samples.set(xlabel=f"first number of a sample{shades}", ylabel="second number")
            samples.ticklabel_format(scilimits=(-2, 3))
            legend = samples.legend(loc="upper right", fontsize="small", markerscale=4)
            self.moving = [*self.panel.moving, legend]
        self.title, self.distances, self.distance = samples.set_title(" ", loc="left"), [], None
        self.moving.append(self.title)
        if epochs:
            self.distance = self._add_distance(self.figure.add_subplot(grid[:, 1]), real, epochs)
            self.moving.append(self.distance)
        for artist in self.moving:
            artist.set_animated(True)
        self.background = None
        self.figure.canvas.mpl_connect("draw_event", self._after_drawing)

    def _add_distance(self, axes, real, epochs):
        limits = np.array(W1_LIMITS) * (real.std(axis=0).mean() or 1)
        axes.set(xlim=(0, epochs), yscale="log", ylim=limits, xlabel="epoch")
        axes.set_title("Wasserstein-1 distance", fontsize="medium")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(color="0.9")
        return axes.plot([], [], ".-", color="0.3", markersize=2)[0]

    def set_state(self, state, title=None):
        """Take what is to be drawn next; of samples of one number the states before fade slowly.

        The title is the epoch, unless there is another.
        """
        self.panel.set_state(state)
        self.title.set_text(f"epoch = {state.epoch}" if title is None else title)
        if self.distance is not None:
            self.distances.append((state.epoch, state.w1))
            self.distance.set_data(*zip(*self.distances))

    def render(self):
        """Draw the state on the canvas, over what does not move."""
        if self.background is None:
            self.figure.canvas.draw()
        self.figure.canvas.restore_region(self.background)
        self._draw_moving()

    def _draw_moving(self):
        for artist in self.moving:
            self.figure.draw_artist(artist)

    def _after_drawing(self, event):
        # All was drawn anew: for the first time, or because the window has another size.
        if not self.figure.canvas.is_saving():
            self.background = self.figure.canvas.copy_from_bbox(self.figure.bbox)
            self._draw_moving()

    def image(self):
        """Return the state as a Pillow image; not of a figure in a window."""
        self.render()
        return Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[:, :, :3])


def new_figure(width, height):
    """A figure of so many inches that no toolkit knows of."""
    figure = plt.Figure((width, height))
    FigureCanvasAgg(figure)
    return figure


def shapes_of(state):
    return np.shape(state.generated)[1:], np.shape(state.decision)


def stages(history):
    """Choose from a history of States those of the strip: six, or all of a shorter one."""
    first, last, chosen = 0, len(history) - len(STAGES), []
    for part in STAGES:
        last += 1  # leave as many as there are stages to come
        if last > 0:
            away = [abs(state.epoch - part * history[-1].epoch) for state in history[first:last]]
            first += away.index(min(away)) + 1
            chosen.append(history[first - 1])
    return chosen


def draw_strip(figure, real, states):
    """Draw states in small panels along the lower edge of a figure."""
    height = figure.get_figheight()
    grid = figure.add_gridspec(
        1, len(STAGES), left=0.09, right=0.965, bottom=0.1 / height, top=1.3 / height, wspace=0.06
    )
    for column, state in enumerate(states):
        axes = figure.add_subplot(grid[0, column], xticks=[], yticks=[])
        axes.set_title(f"epoch {state.epoch}, W1 {state.w1:.2g}", fontsize=7)
        if real.shape[1] > 1:
            Plane(axes, real, markersize=0.7).set_state(state)
            continue
        edges, points = bin_edges(real), points_for_d(real)[:, 0]
        centres, shares = (edges[:-1] + edges[1:]) / 2, histogram(real, edges)
        top = 3 * shares.max()
        axes.fill_between(centres, shares, color="0.75")
        axes.plot(centres, state.generated, "g", linewidth=1.2)
        axes.plot(points, state.decision * top, "r--", linewidth=0.9)
        axes.set(xlim=edges[[0, -1]], ylim=(0, 1.04 * top))


def save_picture(gan, sample_list, path, title, history=()):
    """Save a picture of the GAN, and below it a strip of how it came there.

    Args:
        gan: a GANModel.
        sample_list: as `GANModel.train` takes it.
        path: a file whose name ends in a format that matplotlib writes.
        title: of the picture.
        history: States of the training that made the GAN what it is, as a Look keeps them.
            Default: none, no strip.

    Raises:
        ValueError: if the history is not of States, or of a GAN with samples of another size.
        OSError: if the file cannot be written. Whatever is raised, what was there is untouched.
    """
    noise, real = shown_rows(sample_list)
    if not all(isinstance(past, State) for past in history):
        raise ValueError("history must be a list of States, as a Look keeps it")
    epochs = history[-1].epoch if history else 0
    state = gan_state(functools.partial(ask, gan), noise, real, epochs)
    if any(shapes_of(past) != shapes_of(state) for past in history):
        raise ValueError("history is of a GAN with samples of another size")
    width, height = Picture.SIZE
    with style.context("default"):
        figure = new_figure(width, height + STRIP_HEIGHT * bool(history))
        picture = Picture(real, epochs, figure=figure)
        picture.distances = [(past.epoch, past.w1) for past in history[:-1]]
        picture.set_state(state, title)
        draw_strip(figure, real, stages(history))
        with replacing(pathlib.Path(path)) as (file,):
            figure.savefig(file)
    LOG.info("picture saved in %s", path)


def draw_graph(model, path):
    """Draw a Keras model with its networks and their shapes as a PNG file; that takes Graphviz."""
    with dispensable(f"the graph {path}"), replacing(path) as (file,):
        with contextlib.redirect_stdout(None):  # where pydot, too, says what goes wrong
            keras.utils.plot_model(model, file, show_shapes=True, expand_nested=True, dpi=72)
        if not file.read_bytes().startswith(b"\x89PNG"):
            raise OSError("Graphviz made no picture")


class Look(keras.callbacks.Callback):
    """Looks at the GAN while it trains, keeps what it saw, and shows it to views.

    It adds `w1` to the `logs` of the epochs it looks at, for the callbacks that come after it.
    A view that fails is reported in one line and put away, whatever it raises.

    Args:
        gan: a GANModel.
        sample_list: as `GANModel.train` takes it.
        every: epochs from one look to the next, and one at the end; 0 is only for the views.
            Default: None, 40 to 130 looks, closer together in the beginning, so that there is
            something to show whenever training ends.
        views: dict of functions, by the names that the log calls them; each returns a View, or
            None if there can be none here. Default: none.
        show_every: epochs from one state that is shown to the next. Default: 1.

    Attributes:
        history: list of the States of the last training, one a look (but for the views' own).
    """

    def __init__(self, gan, sample_list, every=None, views=None, show_every=1):
        super().__init__()
        self.gan, self.every, self.show_every = gan, every, show_every
        self.noise, self.real = shown_rows(sample_list)
        self.make_views = views or {}
        self.views, self.history, self.epoch, self.failed = {}, [], 0, False

    def new_picture(self, figure=None):
        """A Picture for the states of this training."""
        return Picture(self.real, self.params["epochs"], self.show_every, figure)

    @property
    def sees_weights_every(self):
        """How often `GANModel.train` has to let it see the networks."""
        return math.gcd(self._keeps_every(), self._shows_every()) or math.inf

    def _keeps_every(self):
        if self.failed:
            return 0
        if self.every is not None:
            return self.every
        most = max(1, min(self.params["epochs"] // LOOKS, self.epoch // 5))
        power = 10 ** (len(str(most)) - 1)
        return max(step * power for step in (1, 2, 5) if step * power <= most)

    def _shows_every(self):
        wanted = any(view.shows_states for view in self.views.values())
        return self.show_every if wanted and not self.failed else 0

    def on_train_begin(self, logs=None):
        self.views, self.history, self.epoch, self.failed = {}, [], 0, False
        self.ask_gan = tf.function(functools.partial(ask, self.gan), autograph=False)
        for name, make_view in self.make_views.items():
            with dispensable(name):
                view = make_view()
                if view is not None:
                    self.views[name] = view
        with style.context("default"):
            self._tell("open", self)

    def on_epoch_end(self, epoch, logs=None):
        often, self.epoch = (self._keeps_every(), self._shows_every()), epoch + 1
        is_last = self.epoch == self.params["epochs"]
        keep, show = (every > 0 and (is_last or self.epoch % every == 0) for every in often)
        self._look(keep, show, logs)
        self._tell("hear", self.epoch, logs)

    def on_train_end(self, logs=None):
        was_stopped = 0 < self.epoch < self.params["epochs"]
        if was_stopped:  # and what it came to may not have been seen
            keep = self._keeps_every() and self.epoch not in [seen.epoch for seen in self.history]
            show = self._shows_every() and self.epoch % self._shows_every() > 0
            self._look(keep, show, {})
        self._tell("close")

    def _look(self, keep, show, logs):
        if not keep and not show:
            return
        state = None
        with dispensable("what there is to see of the GAN"):
            state = gan_state(self.ask_gan, self.noise, self.real, self.epoch)
        if state is None:
            self.failed = True
            return
        logs["w1"] = state.w1
        if keep:
            self.history.append(state)
        if show:
            with style.context("default"):
                self._tell("show", state)

    def _tell(self, what, *details):
        for name, view in list(self.views.items()):
            leaves = True  # unless it works
            with dispensable(name):
                getattr(view, what)(*details)
                leaves = view.gone
            if leaves:
                del self.views[name]
            if leaves and what != "close":
                with contextlib.suppress(Exception, SystemExit):
                    view.close()


class View:
    """Somebody who is told of a training, and shown it. What it raises is its Look's to handle.

    Attributes:
        shows_states: whether `show` does something, for which the GAN has to be looked at.
        gone: whether there is nobody left to see it.
    """

    shows_states = gone = False

    def open(self, look):
        """Begin. `look.new_picture()` is a Picture for this training."""

    def hear(self, epoch, logs):
        """Hear of an epoch that is over; they count from 1. `logs` may have a `w1`."""

    def show(self, state):
        """Show a State."""

    def close(self):
        """End."""


class Pace:
    """The article's pace, a frame every `FRAME_SECONDS`."""

    def __init__(self):
        self.due = time.perf_counter()

    def seconds_left(self):
        """How long to wait before the next frame, 0 if it is late; call it once a frame."""
        now = time.perf_counter()
        self.due = max(self.due + FRAME_SECONDS, now)
        return self.due - now


class Window(View):
    """The picture in a window of matplotlib's, twenty frames a second, until it is closed."""

    shows_states = True

    def __init__(self, figure):
        self.figure = figure

    def open(self, look):
        self.picture = look.new_picture(self.figure)
        self.figure.canvas.manager.set_window_title("A generator learns")
        self.figure.canvas.manager.show()
        self.figure.canvas.flush_events()  # now it has its size
        self.pace = Pace()
        self._paint()

    def show(self, state):
        if not plt.fignum_exists(self.figure.number):  # the user has closed it
            self.gone = True
            return
        self.picture.set_state(state)
        self._paint()

    def _paint(self):
        self.picture.render()
        self.figure.canvas.blit(self.figure.bbox)
        self.figure.canvas.start_event_loop(max(0.001, self.pace.seconds_left()))  # 0 has no end

    def close(self):
        plt.close(self.figure)


class NotebookCell(View):
    """The picture below a notebook's cell, updated in place."""

    shows_states = True

    def open(self, look):
        self.picture, self.pace = look.new_picture(), Pace()
        display = sys.modules["IPython"].display.display
        self.cell = display(self.picture.image(), display_id=True)

    def show(self, state):
        self.picture.set_state(state)
        self.cell.update(self.picture.image())
        time.sleep(self.pace.seconds_left())


def live_view():
    """Return a Window or, where there can be none, a NotebookCell, or None outside of notebooks."""
    figure = window_figure()
    if figure is not None:
        return Window(figure)
    ipython = sys.modules.get("IPython")
    in_notebook = ipython is not None and hasattr(ipython.get_ipython(), "kernel")
    return NotebookCell() if in_notebook else None


def window_figure():
    """Return a figure in a new window that is not shown yet, None where there can be none."""
    chosen = matplotlib.get_backend(auto_select=False)
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        plt.draw_if_interactive()  # loads the backend, and a notebook's sets what plots there need
    except ImportError as error:
        LOG.debug("no live window: %s", first_line(error))
        return None
    with style.context("default"), plt.ioff():
        figure = plt.figure(figsize=Picture.SIZE)
    if signal.getsignal(signal.SIGINT) != on_interrupt:  # wx has Ctrl-C kill the program
        signal.signal(signal.SIGINT, on_interrupt)
    can_blit = isinstance(figure.canvas, FigureCanvasAgg) and figure.canvas.supports_blit
    if figure.canvas.required_interactive_framework and can_blit:
        return figure
    plt.close(figure)
    if chosen is None and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        try:
            import tkinter  # noqa: F401
        except ImportError as error:
            LOG.info("no live window: %s (on Debian, install python3-tk)", error)
    return None


class Animation(View):
    """Writes the frames to a GIF file when training ends; the last one stays for a while."""

    shows_states = True

    def __init__(self, path):
        self.path, self.frames = pathlib.Path(path), []
        # The picture's colours and their way to white and, for dots over D's output, to red.
        steps = {("black", "white"): 16, ("green", "white"): 16, ("red", "white"): 16}
        steps |= {("black", "red"): 4, ("green", "red"): 4}
        ramps = [np.linspace(colors.to_rgb(a), colors.to_rgb(b), n) for (a, b), n in steps.items()]
        self.palette = Image.new("P", (1, 1))
        self.palette.putpalette((np.concatenate(ramps) * 255).astype("uint8").tobytes())

    def open(self, look):
        self.picture = look.new_picture()
        if look.real.shape[1] > 1:
            self.picture.figure.set_dpi(80)  # thousands of dots on shades fill many bytes

    def show(self, state):
        self.picture.set_state(state)
        image = self.picture.image()
        self.frames.append(image.quantize(palette=self.palette, dither=Image.Dither.NONE))

    def close(self):
        if self.frames:
            first, *others = self.frames
            self.frames = []
            durations = [int(1000 * FRAME_SECONDS)] * len(others) + [1000 * LAST_FRAME_SECONDS]
            with replacing(self.path) as (file,):
                first.save(file, append_images=others, save_all=True, duration=durations, loop=0)
            LOG.info("animation saved in %s", self.path)


class TrainingCSV(View):
    """Writes `epoch, dis_loss, gen_loss, w1`, a row an epoch; NA where nobody looked at W1."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def open(self, look):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("w", encoding="utf-8", newline="", buffering=1)  # a row at once
        names = ["epoch", "dis_loss", "gen_loss", "w1"]
        self.rows = csv.DictWriter(self.file, names, restval="NA", extrasaction="ignore")
        self.rows.writeheader()

    def hear(self, epoch, logs):
        self.rows.writerow({"epoch": epoch, **logs})

    def close(self):
        self.file.close()
        LOG.info("losses saved in %s", self.path)


class ProgressLine(View):
    """One line that updates on a terminal; elsewhere a log line every tenth of the run."""

    def open(self, look):
        self.epoch, self.epochs, self.bar = 0, look.params["epochs"], None

    def hear(self, epoch, logs):
        losses = [(name, logs[name]) for name in ("dis_loss", "gen_loss")]
        if self.epoch == 0 and sys.stdout is not None and sys.stdout.isatty():
            # Made as late as this, its time to go leaves out the compiling.
            names = [name for name, _ in losses]
            self.bar = keras.utils.Progbar(
                self.epochs, width=10, stateful_metrics=names, unit_name="epoch"
            )
        if self.bar is not None:
            self.bar.update(epoch, losses, finalize=False)
        elif epoch * 10 // self.epochs > self.epoch * 10 // self.epochs:
            losses = ", ".join(f"{name} = {loss:.4f}" for name, loss in losses)
            LOG.info("epoch %d of %d: %s", epoch, self.epochs, losses)
        self.epoch = epoch

    def close(self):
        if self.bar is not None:
            self.bar.update(self.epoch, finalize=True)


# ---------------------------------------------------------------------------------------
# 6. The program
#
# It checks the places it will write to, trains, saves what was trained, draws. Training and
# saving are essential; what else fails is said in the log, and makes the exit status 1.

CSV_FILE = "training.csv"
GRAPH_FILES = ("gan_generator_model.png", "gan_discriminateor_model.png")
SAVE_SECONDS = 60  # from one save to the next while it trains


def whole_number(low, high=2**31 - 1):
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
        epilog="Ctrl-C ends training within a moment and saves what was trained.",
        allow_abbrev=False,
    )
    flag = parser.add_argument
    default = "(default: %(default)s)"
    # fmt: off
    flag("-e", "--epoch", type=whole_number(0), default=10, metavar="N",
         help=f"epochs to train {default}")
    flag("-b", "--batch_size", type=whole_number(1), default=32, metavar="N",
         help=f"samples in a batch, a hundredth of the data set {default}")
    flag("-m", "--model_dir", default="models", metavar="DIR",
         help=f"folder of the two .h5 files {default}")
    flag("-log", "--log_dir", metavar="DIR",
         help="folder for graphs of the models and for training.csv (default: none)")
    flag("-log_lvl", "--log_lvl", type=str.lower, default="info",
         choices=("info", "debug", "warn", "warning", "error", "err"),
         help=f"the lowest level of log lines to show {default}")
    flag("-k", "--step_per", type=whole_number(1), default=20, metavar="K",
         help=f"updates of the discriminator in an epoch {default}")
    flag("-n", "--noise_dim", type=whole_number(1), default=4, metavar="N",
         help=f"numbers of noise that make a sample {default}")
    flag("-s", "--seed", type=whole_number(0, 2**32 - 1), metavar="N",
         help="seed of everything random: same seed, same result (default: none)")
    flag("-o", "--output", default="img/gan_results.png", metavar="FILE",
         help=f"the picture of the result: .png, .pdf, .svg {default}")
    flag("-gif", "--gif", metavar="FILE", help="an animation of the training (default: none)")
    flag("-every", "--plot_every", type=whole_number(1), default=1, metavar="N",
         help=f"epochs from one frame of window and animation to the next {default}")
    flag("-r", "--resume", action="store_true",
         help="start from the models in --model_dir; with -e 0 just draw them (default: off)")
    # fmt: on
    args = parser.parse_args(argv)
    if args.epoch == 0 and not args.resume:
        parser.error("argument -e/--epoch: 0 epochs only with -r/--resume")
    if pathlib.Path(args.output).suffix.lower() not in (".png", ".pdf", ".svg"):
        parser.error(f"argument -o/--output: expected a .png, .pdf or .svg, got {args.output!r}")
    if args.gif is not None:
        if args.epoch == 0:
            parser.error("argument -gif/--gif: 0 epochs have no frames")
        if pathlib.Path(args.gif).suffix.lower() != ".gif":
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
        names = (*GRAPH_FILES, CSV_FILE) if args.epoch else GRAPH_FILES
        places += [("-log/--log_dir", pathlib.Path(args.log_dir, name)) for name in names]
    for flag, path in places:
        try:
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".gan_", dir=path.parent) as folder:
                pathlib.Path(folder, path.name).write_bytes(b"tried")
            if path.name == CSV_FILE:  # written in place, row by row
                path.open("a").close()
        except OSError as error:
            raise OSError(f"{flag}: cannot write {path}: {first_line(error)}") from error


class EndOnSignals(keras.callbacks.Callback):
    """In its context a signal ends training after the epochs in hand, a second Ctrl-C the program.

    Python hears a signal when the call of TensorFlow in hand returns. Afterwards the handlers are
    as before.

    Attributes:
        came: list of the numbers of the signals that came.
    """

    sees_weights_every = math.inf

    def __enter__(self):
        self.came, self.previous = [], {}
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # as by nohup
                self.previous[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def handle(self, number, frame):
        self.came.append(number)  # and raise nothing: TensorFlow, if it is compiling, loses it
        if number == signal.SIGINT:  # a terminal that is closed hangs up twice
            signal.signal(number, signal.SIG_DFL)
        if self.model is not None:
            self.model.stop_training = True

    def on_train_begin(self, logs=None):
        if self.came:
            self.model.stop_training = True


class Saver(keras.callbacks.Callback):
    """Saves what was trained: once a minute while it trains, and when it is asked to.

    One rule decides: there is something to save from the first epoch on that was done before any
    signal came. Until then the files stay as they are. What is not finite GANModel refuses.

    Attributes:
        trained: the number of epochs that were trained, 0 as long as there is nothing to save.
    """

    sees_weights_every = math.inf

    def __init__(self, gan, folder, signals):
        super().__init__()
        self.gan, self.folder, self.signals, self.trained = gan, folder, signals, 0
        self.due = time.monotonic() + SAVE_SECONDS

    def on_epoch_end(self, epoch, logs=None):
        if self.trained or not self.signals.came:
            self.trained = epoch + 1
        if self.trained and time.monotonic() >= self.due:
            self.due = time.monotonic() + SAVE_SECONDS
            try:
                self.gan.save_model(self.folder)
            except Exception as error:  # in the end there is another folder to try
                LOG.warning("the models are not saved yet: %s", first_line(error))

    def save(self):
        """Save to the folder or, whatever keeps them from being saved there, to a new one."""
        try:
            self.gan.save_model(self.folder)
            LOG.info("models saved in %s", self.folder)
            return
        except Exception as error:
            problem = f"cannot save the models in {self.folder}: {first_line(error)}"
        for find_place in (tempfile.gettempdir, pathlib.Path.home):
            with contextlib.suppress(Exception):
                folder = tempfile.mkdtemp(prefix="gan_models_", dir=find_place())
                self.gan.save_model(folder)
                LOG.error("%s; they are in %s", problem, folder)
                return
        LOG.error("%s; nor elsewhere", problem)


class CountErrors(logging.Handler):
    """In its context counts the errors that the log reports."""

    def __enter__(self):
        self.count = 0
        LOG.addHandler(self)
        return self

    def __exit__(self, *error):
        LOG.removeHandler(self)

    def emit(self, record):
        self.count += record.levelno >= logging.ERROR


def run(args):
    """Do what the command line asks for; returns the exit status."""
    with EndOnSignals() as signals, CountErrors() as errors:
        check_places(args)
        if args.seed is not None:
            keras.utils.set_random_seed(args.seed)
        samples = make_samples(args.batch_size * BATCHES, args.noise_dim, args.seed)
        gan = make_gan(args.noise_dim, args.log_dir)
        if args.resume:
            gan.load_model(args.model_dir)
        look = Look(gan, samples, views=wanted_views(args), show_every=args.plot_every)
        saver = Saver(gan, args.model_dir, signals)
        title = f"noise_dim = {args.noise_dim}"
        if args.epoch:
            settings = args.epoch, args.batch_size, args.step_per
            try:
                gan.train(samples, *settings, callbacks=[signals, saver, look])
            except FloatingPointError as error:
                LOG.error("%s, the models are not saved", error)
                return 1
            except Exception as error:  # what was trained before is
                LOG.error("%s", first_line(error))
                LOG.debug("it happened here:", exc_info=True)
            if signals.came:
                LOG.warning("interrupted after %d of %d epochs", saver.trained, args.epoch)
            if saver.trained:
                saver.save()
                more = " more" * args.resume
                title = f"K = {args.step_per}, {saver.trained}{more} epochs, {title}"
        if saver.trained or not args.epoch:
            with dispensable(f"the picture {args.output}"):
                title = f"{title}, W1 = {log_result(gan, samples):.3f}"
                history = () if look.failed else look.history
                save_picture(gan, samples, args.output, title, history)
    if errors.count:
        return 1
    return 128 + signals.came[0] if signals.came else 0


def wanted_views(args):
    """The Views that the command line asks for, as a Look takes them."""
    chosen = {"the progress line": ProgressLine, "the live picture": live_view}
    if args.gif is not None:
        chosen[args.gif] = functools.partial(Animation, args.gif)
    if args.log_dir is not None:
        path = pathlib.Path(args.log_dir, CSV_FILE)
        chosen[str(path)] = functools.partial(TrainingCSV, path)
    return chosen


def log_result(gan, samples):
    """Say in one line what the generator has learned; returns W1."""
    noise, real = shown_rows(samples)
    generated = gan.generator_model(noise, training=False).numpy()
    w1 = wasserstein(generated, real)
    LOG.info(
        "generated: mean %.3f, standard deviation %.3f; real: mean %.3f, standard deviation "
        "%.3f; Wasserstein-1 distance %.3f; D's mean output on generated %.3f",
        generated.mean(), generated.std(), real.mean(), real.std(), w1,
        gan.discriminateor_model(generated, training=False).numpy().mean(),
    )  # fmt: skip
    return w1


def main(argv=None):
    """Run the demo as a program, with the arguments of the command line unless others are given.

    Returns the exit status: 0, 1 for a failure, 128 plus the number of a signal that ended it.
    """
    args = parse_args(argv)
    level = "ERROR" if args.log_lvl == "err" else args.log_lvl.upper()
    app_logger.init("INFO" if level == "DEBUG" else level)  # the libraries have much to say
    LOG.setLevel(level)
    keras.config.set_floatx("float32")  # whatever keras.json says
    keras.config.set_epsilon(1e-7)
    gc.freeze()  # nor is there garbage in it later
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
