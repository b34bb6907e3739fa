"""A generator learns a Gaussian: the smallest GAN worth watching, in Keras.

Two networks play against each other (Goodfellow et al., "Generative Adversarial Nets", 2014,
https://arxiv.org/abs/1406.2661). The generator G turns uniform noise into samples. The
discriminator D says how likely it is that a sample is real. D learns to tell real samples from
generated ones, and G learns to make that hard, until G's samples follow the Gaussian and D says
0.5 everywhere.

This is a port of an article's program for Keras 2 on TensorFlow 1. It keeps the article's names,
including the spelling `discriminateor`. What differs from the article, and why:

- Each update names the weights that it moves. Keras 3 does not remember the `trainable` flags.
- Standard layers compute D's maximum. Keras refuses to load a Lambda from a file.
- Each compiled model gets an optimizer of its own. In Keras 3 two models cannot share one.
- Whole epochs run inside TensorFlow, which is about ten times faster.
- The saved models include the state of their optimizers, so training goes on without a break.
- The pictures show all samples. One batch jumps at every epoch.

Sections 1 to 3 are the lesson. The later sections check input, compile, and show progress. What the
program says in text comes from app_logger.py.
"""

import argparse
import collections
import gc
import importlib.util
import math
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
import warnings
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from functools import partial
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"  # Keras reads this when it is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
is_inline = "matplotlib_inline" in os.environ.get("MPLBACKEND", "")
if is_inline and not importlib.util.find_spec("matplotlib_inline"):
    del os.environ["MPLBACKEND"]  # a notebook set it for its own kernel

import h5py
import keras
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import layers, ops
from matplotlib import style, ticker
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from PIL import Image

import app_logger
from app_logger import FAILED, LOG, progress_line, reason, reported, training_csv

if keras.config.backend() != "tensorflow":
    raise ImportError("demo_gan needs Keras on TensorFlow: import demo_gan before keras")

# ---------------------------------------------------------------------------------------
# 1. The losses
#
# D maximises mean(log D(x)) + mean(log(1 - D(G(z)))) and G minimises mean(log(1 - D(G(z)))). This
# is equation 1 of the paper, where x is real and z is noise. From here on the names are the
# article's: real samples are y, and noise is x. D's training model outputs D(y) and 1 - D(G(x)),
# the probabilities that D gives to the truth, so one loss serves both. The losses ignore `y_true`.


@keras.saving.register_keras_serializable("demo_gan")
def log_loss_discriminator(y_true, y_pred):
    """Return the discriminator's loss, -log p, `(batch, 1)`.

    `y_pred`, `(batch, 1)`, is the probability p that D gives to the truth: D(y) or 1 - D(G(x)). It
    is clipped from below at Keras's epsilon.
    """
    return -ops.log(ops.maximum(keras.config.epsilon(), y_pred))


@keras.saving.register_keras_serializable("demo_gan")
def log_loss_generator(y_true, y_pred):
    """Return the generator's saturating loss, log(1 - p), `(batch, 1)`.

    `y_pred`, `(batch, 1)`, is p = D(G(x)); 1 - p is clipped from below at Keras's epsilon.
    """
    return ops.log(ops.maximum(keras.config.epsilon(), 1 - y_pred))


# ---------------------------------------------------------------------------------------
# 2. The GAN
#
# The algorithm, with K = `step_per`:
#
#     for each epoch:
#         repeat K times:
#             x = a random batch of noise
#             y = a random batch of real samples
#             update D to raise log D(y) + log(1 - D(G(x)))
#         x = a random batch of noise
#         update G to lower log(1 - D(G(x)))
#         tell the callbacks the losses of the epoch
#
# This loop does not run in Python. The networks are so small that calling TensorFlow for every
# update would take ten times as long as the arithmetic, so one call runs many epochs. Keras's
# `fit(steps_per_execution=...)`, with an epoch as its step, cannot do that here: it would draw the
# batches in another order, and its callbacks would hear of the last epoch of each call only.

# Ctrl-C and `stop_training` take effect between calls only. But for the first one, which compiles,
# a call takes a fraction of a second.
EPOCHS_PER_CALL = 50
ROWS_PER_CALL = 2**15  # rows of noise that D's updates take
UPDATES_FOR_XLA = 10_000  # With so many updates of D, XLA saves more than the time it compiles.


class GANModel:
    """A GAN made of two lists of Keras layers.

    Args:
        input_dim: `[signal_dim, noise_dim]`, the sizes of a sample and its noise, or one for both.
        log_dir: folder for graphs of the two training models. Default: None, no graphs.

    Attributes:
        generator_model: G as a Keras model, `(batch, noise_dim)` to `(batch, signal_dim)`.
        discriminateor_model: D as a Keras model, `(batch, signal_dim)` to `(batch, 1)`.
        generator_training_model, discriminateor_training_model: the compiled models that train G
            and D, None until then and after a new layer. Their Keras names are the article's:
            `gan_generator_model`.
        train_status: `defaultdict(list)`. Each epoch appends a float to `"dis_loss"`, the mean of
            its updates, and one to `"gen_loss"`. With `plot=True` it also appends the generated
            batch to `"gen_result"`, and D's output on it, `(batch_size, 1)`, to `"dis_result"`.
    """

    def __init__(self, input_dim, log_dir=None):
        self.signal_dim, self.noise_dim = np.broadcast_to(input_dim, 2).tolist()
        self.log_dir = log_dir
        noise = keras.Input((self.noise_dim,))
        real = keras.Input((self.signal_dim,))
        self.generator_model = keras.Sequential([noise], name="gan_generator")
        self.discriminateor_model = keras.Sequential([real], name="gan_discriminateor")
        self._unwire()
        self.train_status = collections.defaultdict(list)
        self._traced = None  # the epochs as TensorFlow functions; the first `train` makes them
        self._loaded_slots = {}  # optimizers' state that waits for a model to be compiled

    def add_gen_layer(self, layer):
        """Append any Keras layer to the generator. The last one outputs `signal_dim` numbers."""
        self.generator_model.add(layer)
        self._unwire()

    def add_discr_layer(self, layer):
        """Append any Keras layer to the discriminator. The last one outputs one number."""
        self.discriminateor_model.add(layer)
        self._unwire()

    def _unwire(self):
        self.generator_training_model = self.discriminateor_training_model = None

    def compile_generator_model(self, optimizer=None, loss=log_loss_generator):
        """Wire and compile the model that trains the generator. It can be compiled again.

        Args:
            optimizer: Keras optimizer, or its name; one in use is copied. Default: a fresh Adam.
            loss: Keras loss function of `(y_true, y_pred)`, or its name. `y_pred`, `(batch, 1)`, is
                D(G(x)); `y_true` is all ones. Default: the article's, `log_loss_generator`.

        Raises a ValueError if a network is incomplete, has a layer twice, or cannot be saved.
        """
        check_networks(self)
        x = keras.Input((self.noise_dim,), name="x")
        d_generated = self.discriminateor_model(self.generator_model(x))
        model = keras.Model(x, d_generated, name="gan_generator_model")
        self._compile(model, self.generator_model, optimizer, loss)
        self.generator_training_model = model
        draw_graph(model, self.log_dir)

    def compile_discriminateor_model(self, optimizer=None, loss=log_loss_discriminator):
        """Wire and compile the model that trains the discriminator, as `compile_generator_model`.

        Its loss is the loss of D(y) plus the loss of 1 - D(G(x)).
        """
        check_networks(self)
        y = keras.Input((self.signal_dim,), name="y")
        x = keras.Input((self.noise_dim,), name="x")
        d_real = self.discriminateor_model(y)
        d_generated = self.discriminateor_model(self.generator_model(x))
        model = keras.Model([y, x], [d_real, 1 - d_generated], name="gan_discriminateor_model")
        self._compile(model, self.discriminateor_model, optimizer, loss)
        self.discriminateor_training_model = model
        draw_graph(model, self.log_dir)

    def _compile(self, model, network, optimizer, loss):
        weights = network.trainable_weights
        optimizer = keras.optimizers.get(optimizer or "adam")
        if optimizer.built:
            optimizer = optimizer_from(optimizer_recipe(optimizer, weights), weights)
        loss = keras.losses.get(loss)
        # With jit_compile=True Keras finds out whether XLA can compile all layers.
        model.compile(optimizer, [loss] * len(model.outputs), jit_compile=True)
        # Build it now. Building it inside the traced function would force a second trace.
        model.optimizer.build(weights)
        self._traced = None
        take_slots(self, network, model.optimizer)

    def _update(self, model, network, inputs):
        """Take one step of a training model's optimizer, with the weights of one network.

        Naming the weights is what keeps the other network as it is. The article set
        `trainable = False` on it before compiling, and Keras 2 remembered that. Keras 3 looks at
        the flags when it traces a step, and finds the values set last, with D trainable only.
        Translated literally, both phases train D, and G's phase trains it to take generated samples
        for real ones. G never moves, and nothing warns.

        Returns the loss and, with the article's losses, how far D's outputs lie outside of 0 to 1.
        """
        outside = 0.0
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            # The weight penalties are those of this network alone.
            loss = ops.cast(sum(network.losses), keras.config.floatx())
            for loss_function, output in zip(model.loss, keras.tree.flatten(outputs)):
                output = ops.cast(output, loss.dtype)
                loss += ops.mean(loss_function(ops.ones_like(output), output))
                if loss_function in (log_loss_discriminator, log_loss_generator):
                    outside += ops.mean(ops.relu(ops.abs(output - 0.5) - 0.5))
            scaled = model.optimizer.scale_loss(loss)  # float16 needs a scale, others leave it
        weights = network.trainable_weights
        model.optimizer.apply(tape.gradient(scaled, weights), weights)
        return ops.stack([loss, outside])

    def _run_epochs(self, noise, real, draws, count):
        """Run `count` epochs. The loops run inside TensorFlow, so their bodies are functions.

        BatchNormalization layers run in training mode in both phases: they normalize by the batch
        and update their moving averages, even in the network that is not being trained.

        `noise` and `real` are `(batch_count, batch_size, width)`. A row of `draws`, `(most, 2 *
        step_per + 1)`, names the batches of an epoch: one of noise and one of real samples for each
        update of D, then one of noise for G's. Returns `(most, 3)`, which is D's and G's losses and
        how far D lies outside of 0 to 1; then the last generated batch, and D's output on it.
        """
        step_per = ops.shape(draws)[1] // 2

        def take(batches, epoch, draw):
            # XLA would compile batches[i] anew for every i.
            return tf.gather(batches, tf.gather(tf.gather(draws, epoch), draw))

        def run_epoch(epoch, records):
            def update_discriminator(step, total):
                inputs = [take(real, epoch, 2 * step + 1), take(noise, epoch, 2 * step)]
                model = self.discriminateor_training_model
                return total + self._update(model, self.discriminateor_model, inputs)

            total = ops.fori_loop(0, step_per, update_discriminator, tf.zeros(2, noise.dtype))
            x = take(noise, epoch, 2 * step_per)
            of_gen = self._update(self.generator_training_model, self.generator_model, x)
            of_dis = total / tf.cast(step_per, total.dtype)
            record = [of_dis[0], of_gen[0], of_dis[1] + of_gen[1]]
            return epoch + 1, tf.tensor_scatter_nd_update(records, [[epoch]], [record])

        records = tf.zeros((ops.shape(draws)[0], 3), noise.dtype)
        _, records = ops.while_loop(lambda epoch, _: epoch < count, run_epoch, (0, records))
        generated = self.generator_model(take(noise, count - 1, 2 * step_per), training=False)
        return records, generated, self.discriminateor_model(generated, training=False)

    def train(
        self,
        sample_list,
        epoch=3,
        batch_size=32,
        step_per=10,
        plot=False,
        callbacks=None,
        verbose=0,
    ):
        """Train both networks. Calling it again goes on training.

        Batch i is rows i * batch_size to (i + 1) * batch_size - 1. Rows that do not fill a batch
        are left out. Python's `random` draws the batches of an epoch: for each update of D one of
        noise, then one of real samples, and last one of noise for G.

        Args:
            sample_list: `{"x": noise (n, noise_dim), "y": real samples (n, signal_dim)}`.
            epoch: number of epochs. Default: 3.
            batch_size: rows of a batch. Default: 32.
            step_per: updates of the discriminator per epoch, the article's K. Default: 10.
            plot: whether to keep each epoch's generated batch in `train_status`, and to show
                training in a window or a notebook's cell. Default: False.
            callbacks: Keras callback, or list of them. They hear of every epoch, with `dis_loss`
                and `gen_loss` in `logs`. A callback that reads the weights only after every N-th
                epoch can say so with an attribute `sees_weights_every = N`, or `math.inf`. Training
                is then faster, because the epochs in between run in one call. Their `model` is
                `generator_training_model`, which has the weights of both networks.
            verbose: 1 shows a progress line. Default: 0.

        Raises:
            ValueError: before anything has changed, if an argument is wrong or a model is not
                compiled; later, if D's output leaves 0 to 1 under the article's losses.
            FloatingPointError: when a loss, an output or a weight is no longer finite.
        """
        epochs = whole_number("epoch", epoch)
        batch_size = whole_number("batch_size", batch_size)
        step_per = whole_number("step_per", step_per)
        noise, real = cut_into_batches(self, sample_list, batch_size)
        watchers = make_callbacks(self, sample_list, epochs, plot, callbacks, verbose)
        run_epochs = traced_epochs(self, epochs * step_per)
        most = max(1, min(EPOCHS_PER_CALL, ROWS_PER_CALL // (batch_size * step_per)))
        if plot:
            most = 1  # to keep what every epoch generated
        draws = np.zeros((most, 2 * step_per + 1), "int32")
        logs = None
        done = 0
        watchers.model.stop_training = False
        try:
            watchers.on_train_begin()
            while done < epochs and not watchers.model.stop_training:
                count = min(most, epochs - done, epochs_until_seen(watchers.callbacks, done))
                for row in range(count):
                    draws[row] = [random.randint(0, len(noise) - 1) for _ in draws[row]]
                # The first epoch of a call begins before the call, so that a callback can set the
                # learning rate. The others have run when the callbacks hear that they begin.
                watchers.on_epoch_begin(done)
                arrays = run_epochs(noise, real, draws, count)
                records, generated, judged = (array.numpy() for array in arrays)
                records = records[:count]
                self.train_status["dis_loss"] += records[:, 0].tolist()
                self.train_status["gen_loss"] += records[:, 1].tolist()
                if plot:
                    self.train_status["gen_result"].append(generated)
                    self.train_status["dis_result"].append(judged)
                check_outputs(self, done + count, records, generated, judged)
                for row, (dis_loss, gen_loss, _) in enumerate(records.tolist()):
                    if row > 0:
                        watchers.on_epoch_begin(done + row)
                    logs = {"dis_loss": dis_loss, "gen_loss": gen_loss}
                    watchers.on_epoch_end(done + row, logs)
                done += count
            if done > 0:  # optimizers that average the weights put the averages in place, as in fit
                for network, model in self._pairs():
                    model.optimizer.finalize_variable_values(network.trainable_weights)
        finally:
            watchers.on_train_end(logs)

    def _pairs(self):
        """Return each network beside its training model, which is None before it is compiled."""
        return [
            (self.generator_model, self.generator_training_model),
            (self.discriminateor_model, self.discriminateor_training_model),
        ]

    def save_model(self, path_dir):
        """Write `gan_generator.h5` and `gan_discriminateor.h5` to a folder.

        They are Keras models, and also hold the state of the optimizers, but not their settings.
        Both are whole before the first replaces an old one. Raises a ValueError if there are no
        layers or weights are not finite, and an OSError if the files cannot be written.
        """
        check_networks(self)
        write_networks(self, Path(path_dir))

    def load_model(self, path_dir):
        """Read the weights of both networks and the state of their optimizers from a folder.

        The GAN can be compiled before or after. Files of the article's program work too. An
        optimizer whose state is not in its file starts afresh, and the log says so. Raises a
        ValueError if there are no layers, and an OSError if a file cannot be read or does not fit
        them; the GAN is unchanged then.
        """
        check_networks(self)
        read_networks(self, Path(path_dir))

    def __getstate__(self):  # to pickle and to copy
        return pickled_gan(self)

    def __setstate__(self, state):
        unpickle_gan(self, state)


# ---------------------------------------------------------------------------------------
# 3. The article's networks and data

BATCHES = 100  # in the data set


def make_gan(noise_dim=4, log_dir=None):
    """Return the article's GAN for samples of one number, compiled with Adam.

    D's output is the largest of 50 softmax values. Standard layers compute it instead of the
    article's Lambda, because Keras refuses to load a Lambda from a file.
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
    """Return the article's data: noise from U(-3, 3) and real samples from N(0, 1).

    It is `{"x": noise (rows, noise_dim), "y": real samples (rows, 1)}`, float32. `seed` is for
    `numpy.random.default_rng`; None gives other data every time.
    """
    rng = np.random.default_rng(seed)
    return {
        "x": rng.uniform(-3, 3, (rows, noise_dim)).astype("float32"),
        "y": rng.standard_normal((rows, 1), dtype="float32"),
    }


# ---------------------------------------------------------------------------------------
# 4. Checks and tracing
#
# What `train` needs before it starts, and what it checks while it runs.


def whole_number(name, value, low=1, high=2**31 - 1):
    """Return a value as an int. Raise a ValueError unless it is a whole number from low to high."""
    if isinstance(value, int | np.integer) and low <= value <= high:
        return int(value)
    raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


def check_networks(gan):
    """Raise a ValueError if a network cannot be trained and saved.

    It needs layers, the right output shape, and layers that Keras can write to a file. A layer
    stands in one place only: one that stands twice in a network cannot be saved, and one in both
    networks would move in both phases.
    """
    seen = set()
    for network, width in (gan.generator_model, gan.signal_dim), (gan.discriminateor_model, 1):
        shape = network.output_shape if network.layers else "no layers: add some first"
        if shape != (None, width):
            raise ValueError(f"{network.name} must end in shape {(None, width)}, got {shape}")
        for layer in all_layers(network):
            parts = {id(layer)}
            if not isinstance(layer, keras.Model):
                parts |= set(map(id, layer.weights))
            if parts & seen:
                raise ValueError(f"layer {layer.name} is used twice: make one for each place")
            seen |= parts
        if any(weight.dtype == "bfloat16" for weight in network.weights):
            raise ValueError(
                f"{network.name} has bfloat16 weights, which .h5 files cannot hold: "
                "use mixed_bfloat16"
            )
        try:
            network.to_json()
        except Exception as error:
            raise ValueError(f"{network.name} cannot be saved: {reason(error)}") from error


def all_layers(network):
    """Return the layers of a network, each network in it before its own layers."""
    found = []
    for layer in network.layers:
        found.append(layer)
        if isinstance(layer, keras.Model):
            found += all_layers(layer)
    return found


def noise_and_real(gan, sample_list):
    """Return the two arrays of a `sample_list`, as training sees them."""
    arrays = []
    for key, width in (("x", gan.noise_dim), ("y", gan.signal_dim)):
        wanted = f'sample_list["{key}"] must be finite numbers, (n, {width}), none of them masked'
        try:
            given = np.ma.asarray(sample_list[key]).astype("float64", casting="same_kind")
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{wanted}; got {error!r}") from error
        exact = np.array(given.filled(math.nan))
        with np.errstate(over="ignore"):
            rows = exact.astype(keras.config.floatx())
        if rows.size == 0 or rows.shape[1:] != (width,):
            raise ValueError(f"{wanted}; got shape {rows.shape}")
        bad = np.sum(~np.isfinite(rows))
        if bad:
            raise ValueError(
                f"{wanted}; {bad} of {rows.size} are masked or not finite as {rows.dtype}"
            )
        if (np.std(exact - rows, axis=0) > 0.1 * np.std(exact, axis=0)).any():
            raise ValueError(f"{wanted}; they lose their spread as {rows.dtype}")
        arrays.append(rows)
    if len(arrays[0]) != len(arrays[1]):
        raise ValueError('sample_list["x"] and sample_list["y"] must have the same number of rows')
    return arrays


def cut_into_batches(gan, sample_list, batch_size):
    """Return noise and real samples as tensors, `(batch_count, batch_size, width)`."""
    arrays = noise_and_real(gan, sample_list)
    rows = len(arrays[0])
    if batch_size > rows:
        raise ValueError(f"batch_size must be at most the number of rows, {rows}, got {batch_size}")
    used = rows // batch_size * batch_size
    return [tf.constant(a[:used].reshape(-1, batch_size, a.shape[1])) for a in arrays]


def make_callbacks(gan, sample_list, epochs, plot, callbacks, verbose):
    """Return the callbacks of a training as a CallbackList, preceded by what `train` shows."""
    model = gan.generator_training_model
    if not model or not gan.discriminateor_training_model:
        raise ValueError("compile both models before train()")
    views = {}
    if verbose:
        views["the progress line"] = (partial(progress_line, as_bar=True), 0)
    if plot:
        views["the live picture"] = (live_picture, 1)
    callbacks = keras.tree.flatten(callbacks or [])
    if views:
        callbacks.insert(0, Look(gan, sample_list, views=views))
    epochs_until_seen(callbacks, 0)  # raises an error if one asks for nonsense
    return keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs, steps=1, verbose=1)


def epochs_until_seen(callbacks, done):
    """Return how many epochs may run before a callback has to see the weights."""
    waits = [math.inf]
    for callback in callbacks:
        every = getattr(callback, "sees_weights_every", 1)
        if every != math.inf:
            every = whole_number(f"sees_weights_every of {type(callback).__name__}", every)
            waits.append(every - done % every)
    return min(waits)


def traced_epochs(gan, updates):
    """Return `GANModel._run_epochs` as a TensorFlow function, with XLA if that pays off.

    One trace serves any data. `updates` are the updates of D to come; earlier ones count too.
    """
    model = gan.discriminateor_training_model
    if gan._traced is None:
        floatx = keras.config.floatx()
        signature = [
            tf.TensorSpec((None, None, gan.noise_dim), floatx),
            tf.TensorSpec((None, None, gan.signal_dim), floatx),
            tf.TensorSpec((None, None), "int32"),
            tf.TensorSpec((), "int32"),
        ]
        # A partial is a function of its own: TensorFlow warns of many traces of one function.
        run_epochs = partial(gan._run_epochs)
        plain = tf.function(run_epochs, signature, autograph=False)
        compiled = tf.function(plain, signature, autograph=False, jit_compile=True)
        gan._traced = plain, compiled
    plain, compiled = gan._traced
    can_use_xla = model.jit_compile and gan.generator_training_model.jit_compile
    if can_use_xla and int(model.optimizer.iterations) + updates >= UPDATES_FOR_XLA:
        return compiled
    return plain


def all_finite(arrays):
    return all(np.isfinite(array).all() for array in arrays)


def check_outputs(gan, epoch, records, generated, judged):
    """Raise an error if D's output is no probability, or if training has diverged."""
    if records[:, 2].max() > 0.001:  # less is due to rounding
        raise ValueError(
            "the discriminator's output is not between 0 and 1: with the article's losses it must "
            'end in a probability, such as Dense(1, activation="sigmoid")'
        )
    weights = gan.generator_training_model.get_weights()
    if not all_finite([records, generated, judged, *weights]):
        raise FloatingPointError(f"training diverged by epoch {epoch}")


# ---------------------------------------------------------------------------------------
# 5. Files and failures
#
# Files, but for training.csv, are written whole or not at all. Loading runs nothing. Whatever a run
# can do without may fail: `reported`, in app_logger.py, says so, and the run goes on.

MODEL_FILES = ("gan_generator.h5", "gan_discriminateor.h5")
TRAINING_MODELS = ("generator_training_model", "discriminateor_training_model")


@contextmanager
def replacing(*paths):
    """Give a temporary name for each path, then put the files written there in place.

    The files are written to a fresh folder beside the paths. The old files stay untouched until all
    new ones are whole and on the disk. Whatever goes wrong is an OSError that names the first path.
    """
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".gan_unfinished_", dir=folder, ignore_cleanup_errors=True
        ) as scratch:
            files = [Path(scratch, path.name) for path in paths]
            yield files
            for file in files:
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
            for file, path in zip(files, paths):
                file.replace(path)
    except Exception as error:
        raise OSError(f"cannot write {paths[0]}: {reason(error)}") from error


def write_networks(gan, folder):
    """Write the two model files; see `GANModel.save_model`."""
    slots = all_slots(gan)
    arrays = gan.generator_model.get_weights() + gan.discriminateor_model.get_weights()
    if not all_finite(arrays):
        raise ValueError("not saved: weights are not finite")
    for of_network in slots.values():
        arrays += of_network.values()
    filler = os.urandom(2**16 + sum(array.nbytes + 2**12 for array in arrays))
    save_name = uuid.uuid4().hex
    paths = [folder / name for name in MODEL_FILES]
    # A warning that is an error must not lose a model.
    with warnings.catch_warnings(action="ignore"), replacing(*paths) as files:
        for (network, _), file in zip(gan._pairs(), files):
            # Fill the room that the file needs. On a full disk, or when a quota is used up, Python
            # raises an OSError, and HDF5 would crash. Zeros take no room where disks compress.
            file.write_bytes(filler)
            network.save(file)
            with h5py.File(file, "r+") as opened:
                opened.attrs["gan_save"] = save_name
                opened.attrs["gan_trainable"] = [part.trainable for part in all_layers(network)]
                of_network = slots.get(network.name, {})
                if all_finite(of_network.values()):  # otherwise the optimizer will start afresh
                    for name, array in of_network.items():
                        opened[f"{SLOTS}/{name}"] = array


def read_networks(gan, folder):
    """Set weights and optimizers from the two model files; see `GANModel.load_model`."""
    slots = {}
    save_names = set()
    with ExitStack() as undo:
        for name, (network, _) in zip(MODEL_FILES, gan._pairs()):
            undo.callback(network.set_weights, network.get_weights())
            try:
                slots[network.name], save_name = read_network(network, folder / name)
            except Exception as error:  # Keras raises many kinds for a file that is not its own
                raise OSError(
                    f"cannot load {folder / name} with noise_dim (-n) = {gan.noise_dim}: "
                    f"{reason(error)}"
                ) from error
            save_names.add(save_name)
        undo.pop_all()  # all went well
    if len(save_names) > 1:
        LOG.warning(f"{' and '.join(MODEL_FILES)} in {folder} are of different saves")
    gan._loaded_slots = slots
    for network, model in gan._pairs():
        if model and not take_slots(gan, network, model.optimizer):
            gan._compile(model, network, model.optimizer, model.loss[0])  # its copy starts afresh


def read_network(network, path):
    """Set the weights of a network from a file. Return the slots and the save's name in it."""
    with h5py.File(path, "r") as file:
        check_contents(file)
        slots = read_slots(file)
        flags_in_file = file.attrs.get("gan_trainable", ())
        save_name = file.attrs.get("gan_save")
    # Keras writes and reads the trainable weights of a layer first, so the order of the weights in
    # a nested network depends on the `trainable` flags. Read with those of the file.
    parts = all_layers(network)
    flags = [layer.trainable for layer in parts]
    try:
        for layer, flag in zip(parts, flags_in_file):
            layer.trainable = flag
        network.load_weights(path)
    finally:
        for layer, flag in zip(parts, flags):
            layer.trainable = flag
    if not all_finite(network.get_weights()):
        raise ValueError("it holds weights that are not finite")
    return slots, save_name


def check_contents(group):
    """Raise a ValueError unless all that a group holds is in the file itself.

    The oldest Keras allowed still follows a link to another file, with some versions of h5py.
    """
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is a link")
        item = group[name]
        if isinstance(item, h5py.Group):
            check_contents(item)
        elif item.external or item.is_virtual:
            raise ValueError(f"{name} is not in the file itself")


def read_slots(file):
    """Return the state of an optimizer that is in a file, `{}` if there is none."""
    slots = {}
    for name, item in file.get(SLOTS, {}).items():
        if isinstance(item, h5py.Dataset):
            if item.id.get_storage_size() < item.nbytes:
                raise ValueError(f"{name} is larger than the file")
            slots[name] = item[()]
    if not all_finite(slots.values()):
        raise ValueError("it holds an optimizer that is not finite")
    return slots


# The state of an optimizer: its slots and its count of steps. Its settings belong to the user, who
# may go on with another learning rate.

SLOTS = "optimizer_weights"  # where Keras's own .h5 files have them


def optimizer_slots(optimizer):
    """Return the variables that make an optimizer's state, by their names in a file.

    A name has the class of the optimizer, so that the state of another kind does not fit.
    """
    kind = type(getattr(optimizer, "inner_optimizer", optimizer)).__name__
    found = {}
    for variable in optimizer.variables:
        word = variable.name.rstrip("_0123456789").split("_")[-1]  # momentum, for example
        if variable.name != "learning_rate":
            found[f"{kind}_{len(found)}_{word}"] = variable
    return found


def all_slots(gan):
    """Return the state of the optimizers as arrays, by network."""
    found = dict(gan._loaded_slots)
    for network, model in gan._pairs():
        if model:
            slots = optimizer_slots(model.optimizer)
            found[network.name] = {name: slot.numpy() for name, slot in slots.items()}
    return found


def take_slots(gan, network, optimizer):
    """Give an optimizer the state that was loaded for it. Return False if that does not fit."""
    arrays = gan._loaded_slots.pop(network.name, None)
    if arrays is None:
        return True
    slots = optimizer_slots(optimizer)
    shapes = {name: slot.shape for name, slot in slots.items()}
    if shapes != {name: array.shape for name, array in arrays.items()}:
        LOG.info(f"the optimizer of {network.name} starts afresh: no saved state fits it")
        return False
    for name, slot in slots.items():
        slot.assign(arrays[name])
    return True


def optimizer_recipe(optimizer, weights):
    """Return what `optimizer_from` needs to make another optimizer like this one.

    A configuration alone is not enough. It names a schedule or a function of the user's in a way
    that Keras cannot find, and it lacks the weights that are excluded from weight decay.
    """
    rate = optimizer._learning_rate
    if callable(rate):
        optimizer._learning_rate = 0.0  # Keras would warn of a lambda
    settings = optimizer.get_config()
    if callable(rate):
        settings["learning_rate"] = optimizer._learning_rate = rate
    if "inner_optimizer" in settings:
        settings["inner_optimizer"] = optimizer_recipe(optimizer.inner_optimizer, weights)
    decays = [optimizer._use_weight_decay(weight) for weight in weights]
    return type(optimizer), settings, decays


def optimizer_from(recipe, weights):
    """Return a fresh optimizer for weights."""
    optimizer_class, settings, decays = recipe
    if "inner_optimizer" in settings:
        inner = optimizer_from(settings["inner_optimizer"], weights)
        return optimizer_class(**settings | {"inner_optimizer": inner})
    optimizer = optimizer_class.from_config(dict(settings))
    excluded = [weight for weight, decay in zip(weights, decays) if not decay]
    optimizer.exclude_from_weight_decay(excluded)
    return optimizer


def pickled_gan(gan):
    """Return the state of a GAN to pickle or copy, with recipes in place of the wired models."""
    state = {**vars(gan), "_traced": None, "_loaded_slots": all_slots(gan)}
    for name, (network, model) in zip(TRAINING_MODELS, gan._pairs()):
        if model:
            weights = network.trainable_weights
            state[name] = optimizer_recipe(model.optimizer, weights), model.loss[0]
    return state


def unpickle_gan(gan, state):
    """Give a GAN such a state, and wire the models that train its networks anew."""
    vars(gan).update(state, log_dir=None)  # the graphs of the models were drawn before
    compile_models = gan.compile_generator_model, gan.compile_discriminateor_model
    for compile_model, (network, recipe_and_loss) in zip(compile_models, gan._pairs()):
        if recipe_and_loss:
            recipe, loss = recipe_and_loss
            compile_model(optimizer_from(recipe, network.trainable_weights), loss)
    gan.log_dir = state["log_dir"]


# ---------------------------------------------------------------------------------------
# 6. Pictures
#
# Measures turns what a GAN says into a State, and a Picture draws States: generated green, real
# black, D red.

SHOWN = 20_000  # rows of a data set, at most
BINS = 40
POINTS = {1: 201, 2: 60}  # points along each axis at which D is asked, by the numbers of a sample
TRAIL = 20  # epochs
STAGES = (0.025, 0.05, 0.1, 0.25, 0.5, 1)  # parts of a run that the strip shows
SIZE = (8, 4.5)  # inches
STRIP_HEIGHT = 1.7  # inches
STYLE = [
    "default",
    {
        "axes.titlesize": "medium",
        "legend.fontsize": "small",
        "lines.markersize": 3,
    },
]


class State(collections.namedtuple("State", "epoch w1 generated decision")):
    """What there is to see of a GAN after an epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        w1: distance of the generated samples from the real ones; see `wasserstein`.
        generated: for samples of one number, the share of samples in each bin, `(BINS,)`;
            otherwise the two numbers of each sample that the picture shows, `(n, 2)`.
        decision: D's output at the points of the Measures, `(points,)`.
    """


class Measures:
    """What is measured of a GAN, prepared once for real samples `(n, signal_dim)`.

    Attributes:
        real: the real samples.
        dim: dimension of a sample, `signal_dim`.
        limits: the ends of each number's axis, `(signal_dim, 2)`.
        shown: which numbers of a sample a scatter shows: the two that vary most.
        points: the points at which D is asked, `(points, signal_dim)`: along the axis of samples of
            one number, all over the plane of two, one of more.
        edges: the edges of the bins of samples of one number, `(BINS + 1,)`.
        sliced: what the name of the distance begins with for samples of several numbers.
    """

    def __init__(self, real):
        dim = real.shape[1]
        low, high = np.quantile(real.astype("float64"), (0.005, 0.995), axis=0)
        margin = np.where(high > low, (high - low) / 3, 1)
        self.real = real
        self.dim = dim
        self.limits = np.stack([low - margin, high + margin], axis=1)
        self.shown = np.sort(np.argsort(-real.std(axis=0), kind="stable")[:2])
        self.edges = np.linspace(*self.limits[0], BINS + 1)
        self.points = real[:1]
        if dim in POINTS:
            axes = [np.linspace(*ends, POINTS[dim], dtype="float32") for ends in self.limits]
            self.points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, dim)
        self.sliced = "sliced " if dim > 1 else ""
        self._sorted_real = along_directions(real)

    def distance(self, generated):
        """Return the distance of as many generated samples; see `wasserstein`."""
        gaps = np.abs(along_directions(generated) - self._sorted_real)
        return float(gaps.mean(dtype="float64"))

    def shares(self, samples):
        """Return the share of samples in each bin. The outermost bins include all beyond."""
        inside = np.clip(samples.astype("float64"), *self.edges[[0, -1]])
        return np.histogram(inside, self.edges)[0] / len(samples)

    def state(self, generated, decision, epoch=0):
        """Return the State of a GAN from what `predict` says of it."""
        generated = np.asarray(generated)
        shown = self.shares(generated) if self.dim == 1 else generated[:, self.shown]
        return State(epoch, self.distance(generated), shown, np.asarray(decision)[:, 0])


def predict(gan, noise, points):
    """Return what G makes of noise `(n, noise_dim)`, and D's output at points `(n, signal_dim)`."""
    return gan.generator_model(noise), gan.discriminateor_model(points)


def wasserstein(a, b):
    """Return the Wasserstein-1 distance of two sets of n samples, `(n, dim)`.

    For samples of one number it is the mean distance of the sorted numbers (Villani, "Optimal
    Transport", 2009, remark 2.19). For several numbers it is the sliced Wasserstein-1 distance: the
    mean of the distances along directions all around (Rabin et al., "Wasserstein Barycenter and Its
    Application to Texture Mixing", 2012; Bonneel et al., "Sliced and Radon Wasserstein Barycenters
    of Measures", 2015). It is smaller than the Wasserstein-1 distance: for a shift in the plane by
    a factor of 2/pi.
    """
    return Measures(b).distance(a)


def along_directions(samples):
    """Return samples `(n, dim)` along unit vectors all around, sorted, `(directions, n)`."""
    dim = samples.shape[1]
    vectors = np.ones((1, 1))
    if dim == 2:
        angles = np.arange(16) * np.pi / 16
        vectors = np.column_stack([np.cos(angles), np.sin(angles)])
    elif dim > 2:
        vectors = np.random.default_rng(0).standard_normal((64, dim))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.sort(vectors.astype(np.result_type(samples, "float32")) @ samples.T, axis=1)


def shown_rows(gan, sample_list):
    """Return noise and real samples as arrays: all rows, or evenly spread ones of too many."""
    noise, real = noise_and_real(gan, sample_list)
    step = math.ceil(len(real) / SHOWN)
    return noise[::step], real[::step]


def use_plain_numbers(axis):
    """Let an axis have few ticks and no power of ten beside it: its numbers may be long."""
    axis.get_major_locator().set_params(nbins=5)
    axis.set_major_formatter("{x:.7g}")


def add_curve(axes, x, form, label):
    """Add a curve that moves. Returns a function that shows it, with earlier ones as its trail."""
    (line,) = axes.plot([], [], form, label=label, animated=True)
    trail = LineCollection([], color=line.get_color(), linewidths=0.7, animated=True)
    axes.add_collection(trail, autolim=False)

    def show(curves, alphas):
        *earlier, now = [np.c_[x, curve] for curve in curves]
        line.set_data(*now.T)
        trail.set(segments=earlier, alpha=alphas or None)

    return show


def draw_histograms(upper, lower, measures):
    """Draw samples of one number: the share in each bin on one axes, D's output on another.

    Returns a function that shows States: the last one, and those before it as its trail.
    """
    centres, real, top = real_histogram(measures)
    upper.plot(centres, real, "ko-", label="real")
    show_generated = add_curve(upper, centres, "go-", "generated")
    upper.set(ylim=(0, 1.02 * top), xticklabels=[], ylabel="share of samples")
    lower.axhline(0.5, color="0.6", linestyle=":", linewidth=1, label="0.5: cannot tell")
    (optimal,) = lower.plot([], [], color="0.6", label="optimal D", animated=True)
    show_decision = add_curve(lower, measures.points[:, 0], "r--", "D")
    lower.set(ylim=(-0.05, 1.45), yticks=(0, 0.5, 1), ylabel="D's output")
    lower.set_xlabel("sample (the outermost bins include everything beyond)")
    use_plain_numbers(lower.xaxis)
    for axes in (upper, lower):
        axes.set_xlim(measures.edges[[0, -1]])
        axes.legend(loc="upper right", ncols=3)

    def show(states):
        now = states[-1]
        # The D that is optimal for the two histograms says real / (real + generated) in each bin
        # (Goodfellow et al. 2014, proposition 1), and nothing where there are no samples.
        with np.errstate(invalid="ignore"):
            optimal.set_data(centres, real / (real + now.generated))
        recent = [state for state in states if now.epoch - state.epoch <= TRAIL]
        alphas = [0.35 - 0.3 * (now.epoch - state.epoch) / TRAIL for state in recent[:-1]]
        show_generated([np.minimum(state.generated, top) for state in recent], alphas)
        show_decision([state.decision for state in recent], alphas)

    return show


def real_histogram(measures):
    """Return the centres of the bins, the shares of real samples, and the highest share drawn."""
    shares = measures.shares(measures.real)
    return (measures.edges[:-1] + measures.edges[1:]) / 2, shares, 3 * shares.max()


def draw_plane(axes, measures, markersize=1.5):
    """Draw samples of several numbers: a scatter of two, over D's output if there are no others.

    Returns a function that shows the last of some States.
    """
    limits = measures.limits[measures.shown]
    sides = np.diff(limits)
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.spines[:].set_animated(True)
    image = axes.imshow(
        np.zeros((1, 1)),
        cmap="bwr",  # its upper half goes from white at 0 to red at 1
        aspect="equal" if sides.max() <= 5 * sides.min() else "auto",
        interpolation="bilinear",
        vmin=-1,
        vmax=1,
        origin="lower",
        extent=limits.ravel(),
        animated=True,
    )

    dots = {"markersize": markersize, "alpha": 0.5, "animated": True}
    real = np.clip(measures.real[:, measures.shown], *limits.T)
    axes.plot(*real.T, "ko", label="real", **dots)
    (generated_dots,) = axes.plot([], [], "go", label="generated", **dots)

    def show(states):
        now = states[-1]
        generated_dots.set_data(*np.clip(now.generated, *limits.T).T)  # on the edge, if beyond
        if measures.dim == 2:
            image.set_data(now.decision.reshape(POINTS[2], POINTS[2]))

    return show


def draw_small(axes, measures, state):
    """Draw a State in a panel of the strip."""
    if measures.dim > 1:
        draw_plane(axes, measures, markersize=0.7)([state])
        return
    centres, real, top = real_histogram(measures)
    points = measures.points[:, 0]
    axes.fill_between(centres, real, color="0.75")
    axes.plot(centres, np.minimum(state.generated, top), "g", linewidth=1.2)
    axes.plot(points, state.decision * top, "r--", linewidth=0.9)
    axes.set(xlim=points[[0, -1]], ylim=(0, 1.04 * top))


class Picture:
    """A figure of a GAN: samples, D's output and, with a number of epochs, the distance over them.

    What does not move is the background; the rest is drawn over it again and again (blitting). The
    user's style is ignored.

    Args:
        measures: Measures of the real samples.
        epochs: length of the distance's axis. Default: 0, no distance.
        figure: an empty figure. Default: a new one.
    """

    @style.context(STYLE)
    def __init__(self, measures, epochs=0, figure=None):
        figure = self.figure = figure or FigureCanvasAgg(plt.Figure(SIZE)).figure
        self.measures = measures
        width = 0.52 if epochs else 0.855
        self.distance = None
        if epochs:
            self._add_distance(epochs)
        if measures.dim == 1:
            samples = figure.add_axes((0.11, 0.46, width, 0.46))
            decision = figure.add_axes((0.11, 0.12, width, 0.3))
            self.show = draw_histograms(samples, decision, measures)
        else:
            samples = figure.add_axes((0.11, 0.19, width, 0.73))
            self.show = draw_plane(samples, measures)
            first, second = measures.shown + 1
            shades = " (white to red: D's output, 0 to 1)" if measures.dim == 2 else ""
            samples.set(
                xlabel=f"number {first} of a sample{shades}", ylabel=f"number {second} of a sample"
            )
            use_plain_numbers(samples.xaxis)
            use_plain_numbers(samples.yaxis)
            figure.legend(loc=(0.11, 0.01), ncols=2, markerscale=4)  # it must not cover samples
        self.title = samples.set_title(" ", loc="left", animated=True)
        self.moving = figure.findobj(lambda artist: artist.get_animated())
        self.moving.sort(key=lambda artist: artist.get_zorder())
        self.background = None
        figure.canvas.mpl_connect("draw_event", self._on_draw)

    def _add_distance(self, epochs):
        axes = self.figure.add_axes((0.725, 0.12, 0.24, 0.8))
        spread = self.measures.real.std(axis=0, dtype="float64").mean() or 1
        axes.set(xlim=(0, epochs), xlabel="epoch")
        axes.set(ylim=(0.01 * spread, 30 * spread), yscale="log")
        axes.set_title(f"{self.measures.sliced}Wasserstein-1 distance", fontsize="small")
        axes.locator_params("x", nbins=4, integer=True)
        axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(color="0.9")
        (self.distance,) = axes.plot([], [], ".-", color="0.3", markersize=2, animated=True)

    def set_states(self, states, title=None):
        """Take what is to be drawn next: the last State, with the earlier ones as its history."""
        if title is None:
            title = f"epoch = {states[-1].epoch}"
        self.title.set_text(title)
        self.show(states)
        if self.distance is None:
            return
        axes = self.distance.axes
        low, high = axes.get_ylim()
        distances = [state.w1 or low for state in states]
        self.distance.set_data([state.epoch for state in states], distances)
        if min(distances) < low or max(distances) > high:  # open the axis
            axes.set_ylim(min(low, min(distances) / 3), max(high, max(distances) * 3))
            self.background = None

    @style.context(STYLE)
    def render(self):
        """Draw the state on the canvas, over the background."""
        canvas = self.figure.canvas
        if self.background is None:
            canvas.draw()
        else:
            canvas.restore_region(self.background)
            self._draw_moving()

    def _on_draw(self, event):
        """Take the background whenever matplotlib draws the figure, so also after a zoom."""
        if not event.canvas.is_saving():
            self.background = event.canvas.copy_from_bbox(self.figure.bbox)
            self._draw_moving()

    def _draw_moving(self):
        for artist in self.moving:
            self.figure.draw_artist(artist)

    def image(self):
        """Return the state as a Pillow image. This is for a figure that is not in a window."""
        self.render()
        return Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())).convert("RGB")


def stages(states):
    """Choose the States of a run that the strip shows: six, or all if there are fewer."""
    rest = list(states)
    chosen = []
    for part in STAGES[: len(states)]:
        distances = [abs(state.epoch - part * states[-1].epoch) for state in rest]
        chosen.append(rest.pop(np.argmin(distances)))
    return sorted(chosen)


def draw_strip(figure, measures, states):
    """Draw States in small panels beside each other."""
    for column, state in enumerate(states):
        axes = figure.add_axes((0.11 + 0.144 * column, 0.06, 0.135, 0.7), xticks=[], yticks=[])
        w1 = np.format_float_positional(state.w1, 2, fractional=False, trim="-")
        axes.set_title(f"epoch {state.epoch}\n{measures.sliced}W1 {w1}", fontsize=7)
        draw_small(axes, measures, state)


@style.context(STYLE)
def save_picture(gan, sample_list, path, title, history=()):
    """Save a picture of the GAN. If its history is known, a strip below shows how it came there.

    Args:
        gan: a GANModel.
        sample_list: as `GANModel.train` takes it.
        path: a file whose name ends in a format that matplotlib writes.
        title: of the picture.
        history: States of the training that made the GAN what it is, as a Look keeps them.
            Default: none.

    Raises:
        OSError: if the file cannot be written.
    """
    noise, real = shown_rows(gan, sample_list)
    measures = Measures(real)
    epochs = history[-1].epoch if history else 0
    now = measures.state(*predict(gan, noise, measures.points), epochs)
    states = [*history[:-1], now]  # the GAN may have changed since it was looked at last
    width, height = SIZE
    strip = STRIP_HEIGHT if history else 0
    figure = plt.Figure((width, height + strip))
    upper, lower = figure.subfigures(2, 1, height_ratios=(height, strip))
    picture = Picture(measures, epochs, upper)
    picture.set_states(states, title)
    if history:
        draw_strip(lower, measures, stages(states))
    with replacing(Path(path)) as (file,):
        figure.savefig(file)
    LOG.info(f"picture saved in {path}")


def draw_graph(model, log_dir):
    """Draw the graph of a Keras model, with its networks and shapes, by Graphviz."""
    if log_dir is None:
        return
    path = Path(log_dir, f"{model.name}.png")
    silent = redirect_stdout(None)  # pydot prints what goes wrong, too
    with reported(f"cannot draw the graph {path}"), replacing(path) as (file,), silent:
        keras.utils.plot_model(model, file, show_shapes=True, expand_nested=True, dpi=72)


# ---------------------------------------------------------------------------------------
# 7. Watching
#
# One callback, Look, looks at the GAN while it trains, keeps what it saw, and sends it to its
# views. Window, notebook and animation are pictures and stand here. CSV file and progress line are
# text and stand in app_logger.py. A view that fails is dropped, and training goes on.

LOOKS = 40  # at a run without views, and some more near its start
PERIODS = [step * 10**power for power in range(9) for step in (1, 2, 5)]  # epochs between two looks
HISTORY = 400  # States that a Look keeps, at most
FRAME_SECONDS = 0.05  # the article's pace
LAST_SECONDS = 2  # how long the last frame stays
MOST_FRAMES = 1000  # frames of an animation, which are held in memory
HELD = ", held (space: go on, right arrow: next)"


class Look(keras.callbacks.Callback):
    """Looks at the GAN while it trains, keeps what it saw, and sends it to its views.

    A view is a generator function of the Look. What stands before its first `yield` opens it, and
    `finally` closes it. Each `yield` waits for the next epoch and receives `(epoch, logs, state)`.
    The State is None except after the view's every N-th epoch and after the last one. If training
    was stopped in between, the last State comes alone, with None for `logs`. A view that returns
    has left.

    In the `logs` of the epochs it looks at, the Look adds the distance as `w1`, for the callbacks
    that come after it.

    Args:
        gan: a GANModel.
        sample_list: as `GANModel.train` takes it.
        every: epochs between two looks. Default: None, as many as the views need. If none needs
            any, the Look takes at most 130 looks, most of them in the beginning.
        views: `{name: (view, every)}`, where `every` is the number of epochs between two States
            that the view needs, 0 for never. The log uses the name. Default: none.

    Attributes:
        history: the States of the last training, at most `HISTORY`, evenly thinned.
        measures: Measures of the real samples.
        noise: the noise of the generated samples.
        epoch: how many epochs of this training are over.
        sees_weights_every: see `GANModel.train`.
    """

    epoch = 0
    trained_before = 0
    sees_weights_every = 1

    def __init__(self, gan, sample_list, every=None, views=None):
        super().__init__()
        self.gan = gan
        self.noise, real = shown_rows(gan, sample_list)
        self.measures = Measures(real)
        self.every = 0 if every is None else whole_number("every", every)
        self.registered = dict(views or {})
        for name, (_, view_every) in self.registered.items():
            whole_number(f"every of {name}", view_every, low=0)
        self.views = {}
        self.history = []

    def on_train_begin(self, logs=None):
        self.history = []
        self.epoch = 0
        self.epochs = self.params["epochs"]
        self.trained_before = len(self.gan.train_status["gen_loss"])
        # As a TensorFlow function it takes a third of the time.
        self.predict = tf.function(partial(predict, self.gan), autograph=False)
        self.views = {name: view(self) for name, (view, _) in self.registered.items()}
        self._send()
        self._plan()

    def on_epoch_end(self, epoch, logs=None):
        self.epoch = epoch + 1
        state = None
        if self.epoch == self.epochs or self.epoch % self.sees_weights_every == 0:
            state = self._look(logs)
        self._send((self.epoch, logs), state)

    def on_train_end(self, logs=None):
        trained = len(self.gan.train_status["gen_loss"]) - self.trained_before
        seen = self.history[-1].epoch if self.history else 0
        # After an error the networks may be ahead of the last epoch that was reported.
        if 0 < self.epoch == trained < self.epochs:
            state = self._look({}) if seen < self.epoch else self.history[-1]
            self._send((self.epoch, None), state, is_late=True)
        for name, view in self.views.items():
            with reported(f"{name} failed"):
                view.close()

    def _look(self, logs):
        """Return the State, or None if measuring it fails or has failed earlier."""
        if self.sees_weights_every == math.inf:
            return None
        with reported("cannot measure the GAN, so the picture stops here"):
            outputs = self.predict(self.noise, self.measures.points)
            state = self.measures.state(*outputs, self.epoch)
            self.history.append(state)
            if len(self.history) > HISTORY:
                # Drop the State closest to its neighbours, but none of the last `TRAIL`.
                epochs = np.array([seen.epoch for seen in self.history[:-TRAIL]])
                del self.history[1 + np.argmin(epochs[2:] - epochs[:-2])]
            logs["w1"] = state.w1
            self._plan()
            return state
        # The history would have a hole from here on, so stop looking.
        self.history = []
        self.sees_weights_every = math.inf
        return None

    def _plan(self):
        """Set how many epochs lie between two looks.

        Only a look changes this. Between two looks the epochs up to the next one may have run
        already, so looking earlier would show their weights under the name of another epoch.
        """
        needed = math.gcd(self.every, *(self.registered[name][1] for name in self.views))
        most = max(1, min(self.epochs // LOOKS, self.epoch // 5))
        by_itself = max(period for period in PERIODS if period <= most)
        self.sees_weights_every = needed or by_itself

    def _send(self, news=None, state=None, is_late=False):
        """Send news to all views, and the State to those whose turn it is.

        If it is late, the last epoch was told before, and it is the turn of those that got no State
        then. A view that returns or fails is not put back.
        """
        for name, view in list(self.views.items()):
            every = self.registered[name][1]
            is_last = self.epoch == self.epochs
            is_turn = every > 0 and (is_last or (self.epoch % every > 0) == is_late)
            del self.views[name]
            with reported(f"{name} failed"), suppress(StopIteration):
                view.send(news and (*news, state if is_turn else None))
                self.views[name] = view


def next_state(look, picture):
    """Within a view, wait for a State and set the picture to it."""
    state = None
    while state is None:
        _, _, state = yield
    picture.set_states(look.history)


def live_picture(look):
    """View: the picture in a window, or updated in place below a notebook's cell."""
    figure = window_figure()
    ipython = sys.modules.get("IPython")
    if figure is not None:
        yield from window(look, figure)
    elif ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        picture = Picture(look.measures, look.epochs)
        cell = ipython.display.display(picture.image(), display_id=True)
        while True:
            yield from next_state(look, picture)
            due = time.perf_counter() + FRAME_SECONDS
            cell.update(picture.image())
            time.sleep(max(0, due - time.perf_counter()))


def window(look, figure):
    """View: the picture in a window, until it is closed or training is over."""
    keys = []
    try:
        picture = Picture(look.measures, look.epochs, figure)
        picture.title.set_text("compiling")
        canvas = figure.canvas
        canvas.mpl_connect("key_press_event", lambda event: keys.append(event.key))
        canvas.manager.set_window_title("A generator learns")
        canvas.manager.show()
        canvas.flush_events()  # now the window has its size
        due = show_frame(look, picture, keys, time.perf_counter())
        while plt.fignum_exists(figure.number):
            yield from next_state(look, picture)
            due = show_frame(look, picture, keys, due + FRAME_SECONDS)
        LOG.info("the window is closed: training goes on without it, and Ctrl-C ends it")
    except GeneratorExit:
        if look.epoch == look.epochs:
            show_frame(look, picture, keys, due + LAST_SECONDS)
    finally:
        plt.close(figure)


def show_frame(look, picture, keys, due):
    """Show the picture in its window until its time is up, and longer while it is held.

    The space bar holds it and lets it go; the right arrow lets it go for one frame. It is also let
    go when the window is closed and when training has been stopped.

    Args:
        look: the Look.
        picture: the Picture.
        keys: list of the keys pressed so far. The window's events append to it.
        due: when its time is up, in seconds of `time.perf_counter`.

    Returns:
        When its time ended, so that the next one can keep the pace.
    """
    figure = picture.figure
    title = picture.title.get_text()
    is_over = False
    while not is_over and plt.fignum_exists(figure.number) and not look.model.stop_training:
        is_held = keys.count(" ") % 2 == 1
        picture.title.set_text(title + HELD if is_held else title)
        picture.render()
        figure.canvas.blit(figure.bbox)
        rest = FRAME_SECONDS if is_held else min(FRAME_SECONDS, due - time.perf_counter())
        figure.canvas.start_event_loop(max(0.001, rest))  # 0 would wait for ever
        is_over = "right" in keys if is_held else time.perf_counter() >= due
    keys[:] = [key for key in keys if key == " "]
    return max(due, time.perf_counter())


def window_figure():
    """Return a figure in a new window that is not shown yet, or None where there can be none."""
    if threading.current_thread() is not threading.main_thread():
        return None
    chosen = matplotlib.get_backend(auto_select=False)
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        plt.draw_if_interactive()  # loads the backend; in a notebook it makes the user's plots show
        with style.context("default"), plt.ioff():
            figure = plt.figure(figsize=SIZE)
    except ImportError:
        return None
    finally:
        if on_interrupt:  # wx lets Ctrl-C kill the program
            signal.signal(signal.SIGINT, on_interrupt)
    canvas = figure.canvas
    can_blit = isinstance(canvas, FigureCanvasAgg) and canvas.supports_blit
    if can_blit and canvas.required_interactive_framework:
        return figure
    plt.close(figure)
    if chosen is None and os.environ.get("DISPLAY") and not importlib.util.find_spec("_tkinter"):
        LOG.info("no live window: there is no tkinter (on Debian, install python3-tk)")
    return None


def animation(look, path):
    """View: writes its States to a GIF file when training ends. The last one stays for a while."""
    picture = Picture(look.measures, look.epochs)
    picture.figure.set_dpi(90)  # a frame is smaller than the window, to be drawn and sent faster
    frames = []
    try:
        while True:
            yield from next_state(look, picture)
            frames.append(picture.image().quantize(64, Image.Quantize.FASTOCTREE))
    finally:
        if frames:
            first, *others = frames
            durations = [1000 * FRAME_SECONDS] * len(others) + [1000 * LAST_SECONDS]
            with replacing(Path(path)) as (file,):
                first.save(file, save_all=True, append_images=others, duration=durations, loop=0)
            LOG.info(f"animation saved in {path}")


# ---------------------------------------------------------------------------------------
# 8. The program
#
# It tries the places it will write to, trains, saves what was trained, and draws it. Where failures
# are decided (each makes the exit status 1, if nothing else is said):
#
# - A place that cannot be written ends the run before training: `make_and_try_places`.
# - A window, notebook, CSV file or animation that fails is dropped, and training goes on:
#   `Look._send`, or `Look.on_train_end` while it closes. A GAN that cannot be measured:
#   `Look._look`. A missing display is no failure: `window_figure`.
# - A graph that cannot be drawn is left out: `draw_graph`. So is the picture of the end: `run`.
# - Weights that are not finite end training: `check_outputs`. What is saved then, after a signal,
#   and on a full disk: `Keeper`. The status after a signal is 128 plus its number.
# - `kill -9` leaves what was saved in the last minute or before. Of two runs in one folder the last
#   save wins; if their files are mixed, `read_networks` says so.

CSV_FILE = "training.csv"
SAVE_SECONDS = 60  # between two saves during training


def parse_args(argv=None):
    """Read the command line. A bad one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        description="Train a GAN that turns uniform noise into samples of a Gaussian.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    # fmt: off
    add("-e", "--epoch", type=int, default=10, help="epochs to train; the article's ten end "
         "at a W1 of 0.5 to 2, 200 at about 0.1")
    add("-b", "--batch_size", type=int, default=32, help="samples in a batch; the data "
         "set has 100 batches")
    add("-m", "--model_dir", default="models", help="folder of the two .h5 files")
    add("-log", "--log_dir", help="folder for model graphs and training.csv")
    add("-log_lvl", "--log_lvl", type=str.lower, default="info", help="log level",
        choices=("info", "debug", "warn", "warning", "error", "err"))
    add("-k", "--step_per", type=int, default=20, help="updates of the discriminator per epoch")
    add("-n", "--noise_dim", type=int, default=4, help="random numbers that make one sample")
    add("-s", "--seed", type=int, help="the same seed repeats a run on the same machine")
    add("-o", "--output", default="img/gan_results.png", help=".png, .pdf or .svg")
    add("-gif", "--gif", help="animation of the training")
    add("-every", "--plot_every", type=int, default=1, help="draw a frame every N epochs")
    add("-r", "--resume", action="store_true", help="go on from the models in --model_dir; with "
         "-e 0, just draw them")
    # fmt: on
    args = parser.parse_args(argv)
    # Without epochs the saved models can be drawn, but there is no frame for an animation.
    least = 0 if args.resume and args.gif is None else 1
    try:
        whole_number("-e/--epoch", args.epoch, least)
        for name in ("batch_size", "step_per", "noise_dim", "plot_every"):
            whole_number(f"--{name}", getattr(args, name))
        whole_number("-s/--seed", args.seed or 0, 0, 2**32 - 1)
        if Path(args.output).suffix.lower() not in (".png", ".pdf", ".svg"):
            raise ValueError(f"-o/--output: expected .png, .pdf or .svg, got {args.output!r}")
        if args.gif is not None:
            if Path(args.gif).suffix.lower() != ".gif":
                raise ValueError(f"-gif/--gif: expected .gif, got {args.gif!r}")
            enough = math.ceil(args.epoch / MOST_FRAMES)
            if args.plot_every < enough:
                raise ValueError(f"-gif/--gif: at most {MOST_FRAMES} frames, use -every {enough}")
    except ValueError as error:
        parser.error(f"argument {error}")
    return args


def make_and_try_places(args):
    """Make the folders of all that the run will write, and try to write there."""
    models = [Path(args.model_dir, name) for name in MODEL_FILES]
    if args.resume:
        for path in models:
            if not path.exists():
                raise FileNotFoundError(f"-r/--resume: {path} is missing")
    logs = ["gan_generator_model.png", "gan_discriminateor_model.png"]
    places = [("-o/--output", Path(args.output))]
    if args.epoch:
        logs.append(CSV_FILE)
        places += [("-m/--model_dir", path) for path in models]
    if args.gif is not None:
        places.append(("-gif/--gif", Path(args.gif)))
    if args.log_dir is not None:
        places += [("-log/--log_dir", Path(args.log_dir, name)) for name in logs]
    for flag, path in places:
        try:
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent) as file:
                file.write(b"tried")
            if path.name == CSV_FILE:  # written in place, row by row
                path.open("a").close()
        except OSError as error:
            raise OSError(f"{flag}: cannot write {path}: {reason(error)}") from error


class Keeper(keras.callbacks.Callback):
    """Saves what was trained, whatever ends the run.

    One rule decides: the models are saved if an epoch finished before the first signal and all
    weights are finite. Otherwise the files stay as they are. A signal ends training when the
    running call of `_run_epochs` ends, and a second Ctrl-C ends the program.

    Attributes:
        gan: the GANModel to save, once a minute and when training ends.
        came: the numbers of the signals that came.
        trained: how many epochs were trained.
        trained_in_time: whether one was done before any signal came.
        has_models: whether training left something to save.
        saved_in: the folder, when training has ended and the models are saved there.
    """

    sees_weights_every = math.inf
    gan = None
    trained = 0
    trained_in_time = False
    has_models = False
    saved_in = None

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.due = time.monotonic() + SAVE_SECONDS
        self.came = []

    @contextmanager
    def hear_signals(self):
        """Within this context signals end training. Outside the main thread there are none."""
        is_main_thread = threading.current_thread() is threading.main_thread()
        with ExitStack() as undo:
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                # nohup ignores SIGHUP, and so do we then.
                if number and is_main_thread and signal.getsignal(number) != signal.SIG_IGN:
                    handler = signal.signal(number, self._on_signal)
                    undo.callback(signal.signal, number, handler)
            yield

    def _on_signal(self, number, frame):
        # Raise nothing here: TensorFlow swallows an exception that is raised while it compiles.
        self.came.append(number)
        if number == signal.SIGINT:  # only this one: closing a terminal sends SIGHUP twice
            signal.signal(number, signal.SIG_DFL)
        if self.model:
            self.model.stop_training = True

    def on_train_begin(self, logs=None):
        self.model.stop_training = bool(self.came)

    def on_epoch_end(self, epoch, logs=None):
        self.trained = epoch + 1
        if not self.came:
            self.trained_in_time = True
        if self.trained_in_time and time.monotonic() >= self.due:
            self.due = time.monotonic() + SAVE_SECONDS
            try:
                self.gan.save_model(self.folder)
            except Exception as error:  # it is tried again
                LOG.warning("the models are not saved yet: %s", reason(error))

    def on_train_end(self, logs=None):
        """Save in the folder or, if that fails, in a new temporary one."""
        self.has_models = self.trained_in_time and all_finite(self.model.get_weights())
        if not self.has_models:
            why = "training failed at once"
            if self.trained_in_time:
                why = "weights are not finite"
            elif self.came:
                why = "interrupted before the first epoch was done"
            LOG.warning(f"nothing saved: {why}; {self.folder} stays as it is")
            return
        with reported(f"cannot save the models in {self.folder}"):
            self.gan.save_model(self.folder)
            self.saved_in = self.folder
            return
        # An error was reported: try another folder.
        with reported("cannot save the models elsewhere"), ExitStack() as undo:
            folder = tempfile.mkdtemp(prefix="gan_models_")
            undo.callback(os.rmdir, folder)
            self.gan.save_model(folder)
            undo.pop_all()
            LOG.error(f"the models are saved in {folder} instead")


def run(args):
    """Try the places, train, save what was trained, and draw it. Returns the exit status."""
    keeper = Keeper(args.model_dir)
    with keeper.hear_signals():
        make_and_try_places(args)
        if args.seed is not None:
            keras.utils.set_random_seed(args.seed)
        samples = make_samples(args.batch_size * BATCHES, args.noise_dim, args.seed)
        gan = keeper.gan = make_gan(args.noise_dim, args.log_dir)
        if args.resume:
            gan.load_model(args.model_dir)
        look = Look(gan, samples, views=make_views(args))
        if args.epoch:
            settings = args.epoch, args.batch_size, args.step_per
            with reported("training failed"):
                gan.train(samples, *settings, callbacks=[keeper, look])
            if keeper.came and keeper.trained_in_time:
                LOG.warning(f"interrupted after {keeper.trained} of {args.epoch} epochs")
            if keeper.saved_in:
                LOG.info(f"models saved in {keeper.saved_in}")
        if not args.epoch or keeper.has_models:
            with reported(f"cannot draw the picture {args.output}"):
                title = make_title(args, keeper.trained, log_result(gan, look))
                save_picture(gan, samples, args.output, title, look.history)
    if FAILED:
        return 1
    return 128 + keeper.came[0] if keeper.came else 0


def make_views(args):
    """Return the views of a run, as a Look takes them."""
    views = {
        "the progress line": (progress_line, 0),
        "the live picture": (live_picture, args.plot_every),
    }
    if args.gif is not None:
        views[args.gif] = (partial(animation, path=args.gif), args.plot_every)
    if args.log_dir is not None:
        path = Path(args.log_dir, CSV_FILE)
        views[str(path)] = (partial(training_csv, path=path), 0)
    return views


def make_title(args, trained, w1):
    result = f"noise_dim = {args.noise_dim}, W1 = {w1:.3g}"
    if args.epoch == 0:
        return result
    epochs = "more epochs" if args.resume else "epochs"
    return f"K = {args.step_per}, {trained} {epochs}, {result}"


def log_result(gan, look):
    """Log in one line what the generator has learned. Returns W1."""
    generated = gan.generator_model(look.noise).numpy()
    judged = gan.discriminateor_model(generated).numpy()
    real = look.measures.real
    w1 = look.measures.distance(generated)
    LOG.info(
        f"generated: mean {generated.mean():.3f}, standard deviation {generated.std():.3f}; "
        f"real: mean {real.mean():.3f}, standard deviation {real.std():.3f}; "
        f"Wasserstein-1 distance {w1:.3f}; D's mean output {judged.mean():.3f}"
    )
    return w1


def main(argv=None):
    """Run the program. Returns 0, 1 if something failed, or 128 plus the number of a signal."""
    args = parse_args(argv)
    level = "ERROR" if args.log_lvl == "err" else args.log_lvl.upper()
    app_logger.init("INFO" if level == "DEBUG" else level)  # the libraries have much to say
    LOG.setLevel(level)
    keras.config.set_floatx("float32")  # whatever keras.json says
    keras.config.set_epsilon(1e-7)
    # Everything the imports made lives as long as the program. Keep the garbage collector from
    # scanning it.
    gc.freeze()
    FAILED.clear()
    with reported("the run failed"):
        return run(args)
    return 1


if __name__ == "__main__":
    sys.exit(main())
