"""A generator learns a Gaussian: the smallest GAN worth watching, in Keras.

Two networks play against each other (Goodfellow et al., "Generative Adversarial Nets", 2014,
https://arxiv.org/abs/1406.2661). The generator G turns uniform noise into samples. The
discriminator D says how likely it is that a sample is real. D learns to tell real samples from
generated ones, and G learns to make that hard, until G's samples follow the Gaussian and D says
0.5 everywhere.

This is a port of an article's program for Keras 2 on TensorFlow 1. It keeps the article's names,
including the spelling `discriminateor`. README.md lists what differs from the article, and why.

Sections 1 to 3 are the lesson. The later sections check input, compile, write files, draw, and show
progress. app_logger.py sends log lines and says what failed.
"""

import argparse
import collections
import copy
import gc
import hashlib
import importlib.util
import io
import logging
import math
import mmap
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from functools import cached_property, partial
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
from matplotlib.backends import backend_registry
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from PIL import Image

import app_logger
from app_logger import FAILURES, LOG, REPORTABLE, reason, report, reported

if keras.config.backend() != "tensorflow":
    raise ImportError("demo_gan needs Keras on TensorFlow: import demo_gan before keras")
# Keras advises against .h5 whenever it writes one, but that is the article's format.
logging.getLogger("absl").addFilter(lambda record: "HDF5" not in record.getMessage())

# ---------------------------------------------------------------------------------------
# 1. The losses
#
# D maximises mean(log D(x)) + mean(log(1 - D(G(z)))) and G minimises mean(log(1 - D(G(z)))). This
# is equation 1 of the paper, where x is real and z is noise. From here on the names are the
# article's: real samples are y, and noise is x. D's training model outputs D(y) and 1 - D(G(x)).
# Each says how sure D is of the right answer, so one loss, -log p, serves both outputs. The losses
# ignore `y_true`.


@keras.saving.register_keras_serializable("demo_gan")
def log_loss_discriminator(y_true, y_pred):
    """Return the discriminator's loss, -log p, `(batch, 1)`.

    `y_pred`, `(batch, 1)`, is p, how sure D is of the right answer: D(y) or 1 - D(G(x)). It is
    clipped from below at Keras's epsilon.
    """
    return -ops.log(ops.maximum(keras.config.epsilon(), y_pred))


@keras.saving.register_keras_serializable("demo_gan")
def log_loss_generator(y_true, y_pred):
    """Return the generator's saturating loss, log(1 - D(G(x))), `(batch, 1)`.

    `y_pred`, `(batch, 1)`, is D(G(x)). 1 - D(G(x)) is clipped from below at Keras's epsilon.
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
# In a GANModel, `_run_epoch` is one pass of the outer loop. `train` runs up to 50 of them in one
# call into TensorFlow, by `_run_epochs`, and then tells the callbacks: the networks are so small
# that calling TensorFlow for every update would take ten times as long as the arithmetic. Keras's
# `fit(steps_per_execution=...)`, with an epoch as its step, would draw the batches in another
# order, and tell its callbacks only of each call's last epoch.
#
# A network is what plays, G or D. A training model is what trains it: the network, its opponent, a
# loss and an optimizer. A player has one of each. The article's names do not follow this:
# `generator_model` is the network G, and `compile_generator_model` compiles its training model.

EPOCHS_PER_CALL = 50  # Calls are short, so that Ctrl-C and `stop_training` soon take effect.
ROWS_PER_CALL = 2**15  # rows of noise for D's updates, so that large batches make no call long


class Player:
    """One of the two players.

    Attributes:
        network: the network that plays, a Keras model.
        training_model: the compiled Keras model that trains it. None before it is compiled.
        fresh_state: the state of its optimizer before it has learned. `load_model` uses it if a
            file has no state that fits.
    """

    def __init__(self, network):
        self.network = network
        self.training_model = None
        self.fresh_state = {}

    def compile(self, inputs, outputs, optimizer, loss):
        """Make the model that trains the network; see `GANModel.compile_generator_model`."""
        optimizer = keras.optimizers.get(optimizer or "adam")
        if optimizer.built:  # it is in use, here or elsewhere
            optimizer = fresh_copy(optimizer)
        loss = checked_loss(loss)
        model = keras.Model(inputs, outputs, name=f"{self.network.name}_model")
        # Nothing calls its `fit`: it holds the optimizer and the losses. Keras sets jit_compile to
        # False if a layer does not support XLA, which TracedEpochs reads.
        model.compile(optimizer, [loss] * len(model.outputs), jit_compile=True)
        # Build it now. Building it inside the traced function would force a second trace.
        model.optimizer.build(self.network.trainable_weights)
        self.training_model = model
        self.fresh_state = optimizer_state(self)

    # AutoGraph need not convert what calls Keras: it would only make the start slower.
    @tf.autograph.experimental.do_not_convert
    def update(self, inputs):
        """Take one step of the optimizer, with the weights of the network. Returns the loss.

        Naming the weights is what keeps the other network as it is. The article set
        `trainable = False` on it before compiling, and Keras 2 remembered that. Keras 3 looks at
        the flags when it traces a step, and finds the values set last, with D trainable only.
        Translated literally, both phases train D, and G's phase trains it to take generated samples
        for real ones. G never moves, and nothing warns.

        BatchNormalization layers run in training mode in both phases: they normalize by the batch
        and update their moving averages, even in the network that is not being trained.
        """
        model = self.training_model
        with tf.GradientTape() as tape:
            outputs = keras.tree.flatten(model(inputs, training=True))
            # The weight penalties are those of this network alone.
            loss = ops.cast(sum(self.network.losses), keras.config.floatx())
            for loss_function, output in zip(model.loss, outputs):
                output = ops.cast(output, loss.dtype)
                loss += ops.mean(loss_function(ops.ones_like(output), output))
            # A LossScaleOptimizer scales the loss; others return it unchanged.
            scaled = model.optimizer.scale_loss(loss)
        weights = self.network.trainable_weights
        model.optimizer.apply(tape.gradient(scaled, weights), weights)
        return loss

    @tf.autograph.experimental.do_not_convert
    def output(self, inputs):
        """Return the output of the network in inference mode."""
        return self.network(inputs, training=False)

    def finish(self):
        """Put averages of the weights in place, if the optimizer makes them, as `fit` does."""
        self.training_model.optimizer.finalize_variable_values(self.network.trainable_weights)


class GANModel:
    """A GAN made of two lists of Keras layers.

    Args:
        input_dim: `[signal_dim, noise_dim]`, the sizes of a sample and its noise, or one for both.
        log_dir: folder for graphs of the two training models. Default: None, no graphs.

    Attributes:
        generator_model: the network G, `(batch, noise_dim)` to `(batch, signal_dim)`.
        discriminateor_model: the network D, `(batch, signal_dim)` to `(batch, 1)`.
        generator_training_model, discriminateor_training_model: the compiled models that train G
            and D. None before they are compiled, and again after a layer is added. Their Keras
            names are the article's: `gan_generator_model`.
        generator, discriminator: the two players.
        train_status: `defaultdict(list)`. Each epoch appends a float to `"dis_loss"`, the mean of
            its updates, and one to `"gen_loss"`. With `plot=True` it also appends the generated
            batch to `"gen_result"`, and D's output on it, `(batch_size, 1)`, to `"dis_result"`.
        epochs_done: how many epochs of the last training have changed the weights. The epochs of a
            call into TensorFlow are counted when it starts, so while the callbacks are told of them
            one by one, this is ahead.
        is_training: whether `train` is running.
    """

    def __init__(self, input_dim, log_dir=None):
        self.signal_dim, self.noise_dim = two_sizes(input_dim)
        self.log_dir = folder_name(log_dir)
        noise = keras.Input((self.noise_dim,))
        real = keras.Input((self.signal_dim,))
        self.generator_model = keras.Sequential([noise], name="gan_generator")
        self.discriminateor_model = keras.Sequential([real], name="gan_discriminateor")
        self.generator = Player(self.generator_model)
        self.discriminator = Player(self.discriminateor_model)
        self.train_status = collections.defaultdict(list)
        self.epochs_done = 0
        self.is_training = False
        self._traced = None  # `_run_epochs` as TensorFlow functions; the first `train` makes them

    @property
    def generator_training_model(self):
        return self.generator.training_model

    @property
    def discriminateor_training_model(self):
        return self.discriminator.training_model

    def add_gen_layer(self, layer):
        """Append any Keras layer to the generator. The last one outputs `signal_dim` numbers."""
        self._add_layer(self.generator, layer)

    def add_discr_layer(self, layer):
        """Append any Keras layer to the discriminator. The last one outputs one number."""
        self._add_layer(self.discriminator, layer)

    def _add_layer(self, player, layer):
        refuse_in_training(self)
        count = len(player.network.layers)
        try:
            player.network.add(layer)
        except Exception:
            if len(player.network.layers) > count:
                player.network.pop()  # Keras keeps a layer that does not fit
            raise
        # Both models contain this network.
        self.generator.training_model = None
        self.discriminator.training_model = None

    def compile_generator_model(self, optimizer=None, loss=log_loss_generator):
        """Wire and compile the model that trains the generator. It can be compiled again.

        Args:
            optimizer: Keras optimizer, or its name. One in use is copied. Default: a fresh Adam.
            loss: Keras loss function of `(y_true, y_pred)`, or its name. `y_pred`, `(batch, 1)`, is
                D(G(x)); `y_true` is all ones. Default: the article's, `log_loss_generator`.

        Raises a ValueError if a network is incomplete, has a layer twice, or cannot be saved; if
        the loss wants logits; or if Keras cannot copy an optimizer in use.
        """
        check_networks(self)
        x = keras.Input((self.noise_dim,), name="x")
        self._compile(self.generator, x, self._d_of_g(x), optimizer, loss)

    def compile_discriminateor_model(self, optimizer=None, loss=log_loss_discriminator):
        """Wire and compile the model that trains the discriminator, as `compile_generator_model`.

        Its loss is the loss of D(y) plus the loss of 1 - D(G(x)).
        """
        check_networks(self)
        y = keras.Input((self.signal_dim,), name="y")
        x = keras.Input((self.noise_dim,), name="x")
        outputs = [self.discriminateor_model(y), 1 - self._d_of_g(x)]
        self._compile(self.discriminator, [y, x], outputs, optimizer, loss)

    def _d_of_g(self, x):
        return self.discriminateor_model(self.generator_model(x))

    def _compile(self, player, inputs, outputs, optimizer, loss):
        refuse_in_training(self)
        player.compile(inputs, outputs, optimizer, loss)
        self._traced = None
        draw_graph(player.training_model, self.log_dir)

    def _run_epoch(self, noise, real, picks):
        """Train one epoch: the algorithm above. AutoGraph turns its loop into a TensorFlow loop.

        `noise` and `real` are all batches, `(batch_count, batch_size, width)`. `picks`, `(2 * K +
        1,)`, are the numbers of the batches to use: K times one of noise and one of real samples,
        then one of noise. Returns D's loss, the mean of its updates, and G's.
        """
        # XLA would compile batches[i] anew for every i, so `tf.gather` takes the batches. The shape
        # of picks fixes K, unlike the count of `_run_epochs`, so this loop can be a `for`.
        step_per = tf.size(picks) // 2
        dis_loss = tf.zeros((), noise.dtype)
        for step in tf.range(step_per):
            x = tf.gather(noise, tf.gather(picks, 2 * step))
            y = tf.gather(real, tf.gather(picks, 2 * step + 1))
            dis_loss += self.discriminator.update([y, x])
        x = tf.gather(noise, tf.gather(picks, 2 * step_per))
        gen_loss = self.generator.update(x)
        return tf.stack([dis_loss / tf.cast(step_per, noise.dtype), gen_loss])

    def _run_epochs(self, noise, real, picks, count):
        """Run `count` epochs, each with its row of picks.

        Returns the losses of each epoch, in a row for each row of picks; what G makes of the last
        batch of noise afterwards; and D's outputs on that and on a batch of real samples.

        XLA compiles once for each shape, so picks always has equally many rows, of which the first
        `count` are used. `for` would make it compile once for each count, and `while` does not. A
        count of 0 only compiles.
        """
        losses = tf.zeros((tf.shape(picks)[0], 2), noise.dtype)
        epoch = 0
        while epoch < count:
            epoch_losses = self._run_epoch(noise, real, tf.gather(picks, epoch))
            losses = tf.tensor_scatter_nd_update(losses, [[epoch]], [epoch_losses])
            epoch += 1
        last_picks = tf.gather(picks, tf.maximum(count, 1) - 1)
        x = tf.gather(noise, tf.gather(last_picks, tf.size(last_picks) - 1))
        generated = self.generator.output(x)
        d_generated = self.discriminator.output(generated)
        d_real = self.discriminator.output(real[0])
        return losses, generated, d_generated, d_real

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
        are left out. Python's `random` picks the batches; see `pick_batches`.

        Args:
            sample_list: `{"x": noise (n, noise_dim), "y": real samples (n, signal_dim)}`.
            epoch: number of epochs. Default: 3.
            batch_size: rows of a batch. Default: 32.
            step_per: updates of the discriminator per epoch, the article's K. Default: 10.
            plot: whether to keep each epoch's generated batch in `train_status`, and to show each
                epoch for 0.05 s in a window or a notebook's cell. Default: False.
            callbacks: Keras callback, or list of them. They are called as by `fit`, as if each
                epoch had one batch, with `dis_loss` and `gen_loss` in `logs`. Their `model` is
                `generator_training_model`, which contains both networks. A callback that reads the
                weights only after every N-th epoch can set `sees_weights_every = N`, or `math.inf`.
                Training is then faster, because the epochs in between run in one call.
            verbose: 1 shows a progress line. Default: 0.

        Returns a Keras `History`. Raises a ValueError, before anything has changed, if an argument
        is wrong or a model is not compiled; later, a ValueError if D's output leaves 0 to 1 under
        the article's losses, and a FloatingPointError if training diverges.
        """
        refuse_in_training(self)
        epochs = whole_number("epoch", epoch)
        batch_size = whole_number("batch_size", batch_size)
        step_per = whole_number("step_per", step_per)
        noise, real = cut_into_batches(self, sample_list, batch_size)
        callbacks = with_views(self, sample_list, callbacks, plot, verbose)
        callback_list, history = make_callbacks(self, epochs, callbacks)
        if self._traced is None:
            self._traced = TracedEpochs(self, self._run_epochs)
        epochs_per_call = max(1, min(EPOCHS_PER_CALL, ROWS_PER_CALL // (batch_size * step_per)))
        if plot:
            epochs_per_call = 1  # to keep what every epoch generated
        picks = np.zeros((epochs_per_call, 2 * step_per + 1), "int32")
        self.epochs_done = 0
        logs = None
        with in_training(self, callback_list):
            run_epochs = self._traced.function_for(noise, real, picks, epochs * step_per)
            while self.epochs_done < epochs and not self.generator_training_model.stop_training:
                first = self.epochs_done
                until_seen = epochs_until_seen(callback_list, first)
                count = min(epochs_per_call, epochs - first, until_seen)
                pick_batches(picks[:count], len(noise))
                begin_epoch(callback_list, first)  # here a callback can set the learning rate
                self.epochs_done += count
                results = run_epochs(noise, real, picks, count)
                losses = self._keep_and_check(results, count, plot)
                for number, (dis_loss, gen_loss) in enumerate(losses, first):
                    if number > first:  # this epoch has run in the call above
                        begin_epoch(callback_list, number)
                    logs = {"dis_loss": dis_loss, "gen_loss": gen_loss}
                    end_epoch(callback_list, number, logs)
            if self.epochs_done > 0:
                self.generator.finish()
                self.discriminator.finish()
            callback_list.on_train_end(logs)
        return history

    def _keep_and_check(self, results, count, plot):
        """Keep what `_run_epochs` returned, and check it. Returns both losses of each epoch."""
        losses, generated, d_generated, d_real = (tensor.numpy() for tensor in results)
        losses = losses[:count]
        self.train_status["dis_loss"] += losses[:, 0].tolist()
        self.train_status["gen_loss"] += losses[:, 1].tolist()
        if plot:
            self.train_status["gen_result"].append(generated)
            self.train_status["dis_result"].append(d_generated)
        check_results(self, losses, generated, np.concatenate([d_generated, d_real]))
        return losses.tolist()

    def save_model(self, path_dir):
        """Write `gan_generator.h5` and `gan_discriminateor.h5` to a folder.

        They are Keras models, and also hold the state of the optimizers, but not their settings.
        Both are complete before either replaces an old file. Plain Keras reads them, except where
        only parts of a layer are frozen: Keras cannot read such files, not even its own.

        Raises a ValueError if a network is incomplete or weights are not finite, and an OSError if
        the files cannot be written.
        """
        check_networks(self)
        write_players([self.generator, self.discriminator], Path(path_dir))

    def load_model(self, path_dir):
        """Read the weights of both networks and the state of their optimizers from a folder.

        Compile first: the state goes into compiled models, and compiling anew makes fresh
        optimizers. To go on with another learning rate, compile with it and then load. Files of the
        article's program work too. An optimizer whose state is not in its file starts afresh, and
        the log says so. What is frozen stays frozen, and nothing else becomes so.

        Raises a ValueError if a network is incomplete, and an OSError if a file cannot be read or
        does not fit; the GAN is unchanged then.
        """
        check_networks(self)
        read_players([self.generator, self.discriminator], Path(path_dir))
        self._traced = None  # the numbers of a Normalization layer are constants in it

    def __getstate__(self):  # to pickle and to copy
        # Keras cannot copy training models, so the players are taken apart.
        parts = {**vars(self), "_traced": None, "is_training": False}
        del parts["generator"]
        del parts["discriminator"]
        return parts, parts_to_copy(self.generator), parts_to_copy(self.discriminator)

    def __setstate__(self, state):
        parts, g_parts, d_parts = state
        vars(self).update(parts, log_dir=None)  # compiling would draw the graphs again
        self.generator = Player(self.generator_model)
        self.discriminator = Player(self.discriminateor_model)
        give_parts(self.generator, g_parts, self.compile_generator_model)
        give_parts(self.discriminator, d_parts, self.compile_discriminateor_model)
        self.log_dir = parts["log_dir"]


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
# 4. Checks, callbacks and tracing
#
# What `train` checks before it starts and while it runs, how it tells the callbacks, and how
# TensorFlow runs its epochs.

UPDATES_FOR_XLA = 10_000  # With so many updates of D, XLA saves more time than it needs to compile.
ROWS_COMPARED = 2**16  # rows of samples that are checked for loss by rounding


def whole_number(name, value, low=1, high=2**31 - 1):
    """Return a value as an int. Raise a ValueError unless it is a whole number from low to high."""
    if isinstance(value, int | np.integer) and low <= value <= high:
        return int(value)
    raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


def two_sizes(input_dim):
    """Return `signal_dim` and `noise_dim`, which may be given as one number."""
    if np.ndim(input_dim) == 0:
        input_dim = [input_dim, input_dim]
    if np.shape(input_dim) != (2,):
        raise ValueError(f"input_dim must be [signal_dim, noise_dim] or one size, got {input_dim}")
    signal_dim, noise_dim = input_dim
    return whole_number("signal_dim", signal_dim), whole_number("noise_dim", noise_dim)


def folder_name(log_dir):
    """Return `log_dir`. Raise a ValueError unless it is the name of a folder, or None."""
    if log_dir is None or isinstance(log_dir, str | os.PathLike):
        return log_dir
    raise ValueError(
        f"log_dir must be the name of a folder, got {log_dir!r}; both sizes go into one list: "
        "GANModel([signal_dim, noise_dim])"
    )


def check_networks(gan):
    """Raise a ValueError if a network cannot be trained and saved.

    It needs layers, the right output shape, and layers that Keras can write to a file. A layer may
    be used only once: one that stands twice in a network cannot be saved, and one in both networks
    would move in both phases.
    """
    seen = set()
    for network, width in (gan.generator_model, gan.signal_dim), (gan.discriminateor_model, 1):
        if not network.layers:
            raise ValueError(f"{network.name} has no layers: add some first")
        if network.output_shape != (None, width):
            raise ValueError(
                f"{network.name} must end in shape {(None, width)}, got {network.output_shape}"
            )
        for layer in all_layers(network):
            parts = {id(layer)}
            # A wrapper has the weights of the layer in it, so weights count, too. The weights of a
            # network are counted at its layers.
            if not isinstance(layer, keras.Model):
                parts |= {id(weight) for weight in layer.weights}
            if parts & seen:
                raise ValueError(f"layer {layer.name} is used twice: make one for each place")
            seen |= parts
        check_can_be_saved(network)


def check_can_be_saved(network):
    """Raise a ValueError if Keras cannot write a network to an .h5 file."""
    if any(weight.dtype == "bfloat16" for weight in network.weights):
        raise ValueError(
            f"{network.name} has bfloat16 weights, which .h5 files cannot hold: use mixed_bfloat16"
        )
    try:
        network.to_json()
        # Make in memory what Keras will write: two arrays cannot have one name.
        with h5py.File(io.BytesIO(), "w") as file:
            for layer in network.layers:
                for weight in layer.weights:
                    name = f"{layer.name}/{weight.path}"
                    file.create_dataset(name, weight.shape, weight.dtype)
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


def checked_loss(loss):
    """Return a Keras loss, given it or its name. Raise a ValueError if it wants logits."""
    loss = keras.losses.get(loss)
    # A partial has its settings in `keywords`, and a keras Loss as attributes.
    settings = getattr(loss, "keywords", None) or getattr(loss, "__dict__", {})
    if settings.get("from_logits"):
        raise ValueError("loss must take probabilities: D ends in one, so use from_logits=False")
    return loss


def noise_and_real(gan, sample_list):
    """Return the two arrays of a `sample_list`, as training sees them."""
    if not isinstance(sample_list, Mapping) or not {"x", "y"} <= set(sample_list):
        raise ValueError(
            f'sample_list must be {{"x": noise (n, {gan.noise_dim}), "y": real samples '
            f"(n, {gan.signal_dim})}}, got {type(sample_list).__name__}"
        )
    noise = checked_rows(sample_list, "x", gan.noise_dim)
    real = checked_rows(sample_list, "y", gan.signal_dim)
    if len(noise) != len(real):
        raise ValueError('sample_list["x"] and sample_list["y"] must have the same number of rows')
    return noise, real


def checked_rows(sample_list, key, width):
    """Return rows of numbers as an array of Keras's float type, `(n, width)`.

    Raises a ValueError that names the key if training cannot use them.
    """
    wanted = f'sample_list["{key}"] must be finite numbers, (n, {width}), none of them masked'
    try:
        values = np.ma.asarray(sample_list[key])
        with np.errstate(over="ignore"):
            rows = values.astype(keras.config.floatx(), casting="same_kind").filled(math.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wanted}; got {reason(error)}") from error
    rows = np.asarray(rows)
    if rows.ndim == 1:
        raise ValueError(f"{wanted}; got a vector, use {key}[:, None]")
    if rows.size == 0 or rows.shape[1:] != (width,):
        raise ValueError(f"{wanted}; got shape {rows.shape}")
    bad = rows.size - np.count_nonzero(np.isfinite(rows))
    if bad:
        raise ValueError(f"{wanted}; {bad} of {rows.size} are masked or not finite as {rows.dtype}")
    some = slice(None, None, math.ceil(len(rows) / ROWS_COMPARED))
    exact = np.asarray(values[some], "float64")
    lost = np.std(exact - rows[some], axis=0)
    if (lost > 0.1 * np.std(exact, axis=0)).any():
        raise ValueError(
            f"{wanted}; rounding to {rows.dtype} changes them by more than a tenth of their "
            "variation: subtract their mean first"
        )
    return rows


def cut_into_batches(gan, sample_list, batch_size):
    """Return noise and real samples as tensors, `(batch_count, batch_size, width)`."""
    arrays = noise_and_real(gan, sample_list)
    rows = len(arrays[0])
    if batch_size > rows:
        raise ValueError(f"batch_size must be at most the number of rows, {rows}, got {batch_size}")
    used = rows // batch_size * batch_size
    return [tf.constant(a[:used].reshape(-1, batch_size, a.shape[1])) for a in arrays]


def pick_batches(picks, batch_count):
    """Fill rows with the numbers of random batches, in the order in which the article drew them.

    Python's `random` picks for each update of D one batch of noise, then one of real samples; and
    last one of noise for G's update.
    """
    for row in picks:
        row[:] = [random.randint(0, batch_count - 1) for _ in row]


def make_callbacks(gan, epochs, callbacks):
    """Return the callbacks of a training as a CallbackList, and the History at its end.

    Raises a ValueError if a model is not compiled, or a callback cannot work.
    """
    model = gan.generator_training_model
    if None in (model, gan.discriminateor_training_model):
        raise ValueError("compile both models before train()")
    history = keras.callbacks.History()
    history.sees_weights_every = math.inf
    callbacks = [*callbacks, history]
    for callback in callbacks:
        period_of(callback)  # raises if it is no whole number
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "BackupAndRestore knows one optimizer of two: call save_model in a callback instead"
            )
    params = {"epochs": epochs, "steps": 1, "verbose": 1}  # as `fit` has them, for one batch
    return keras.callbacks.CallbackList(callbacks, model=model, **params), history


def period_of(callback):
    """Return how many epochs it is from one at which a callback sees the weights to the next."""
    every = getattr(callback, "sees_weights_every", 1)
    if every == math.inf:
        return every
    return whole_number(f"sees_weights_every of {type(callback).__name__}", every)


def epochs_until_seen(callback_list, done):
    """Return how many epochs may run before a callback has to see the weights."""
    periods = [period_of(callback) for callback in callback_list.callbacks]
    return min(period - done % period for period in periods)


def begin_epoch(callback_list, epoch):
    """Tell the callbacks that an epoch begins, and its one batch."""
    callback_list.on_epoch_begin(epoch)
    callback_list.on_train_batch_begin(0)


def end_epoch(callback_list, epoch, logs):
    """Tell the callbacks that the one batch of an epoch ends, and the epoch."""
    callback_list.on_train_batch_end(0, logs)
    callback_list.on_epoch_end(epoch, logs)


@contextmanager
def in_training(gan, callback_list):
    """Within this context a GAN is trained.

    After an exception `fit` does not call `on_train_end`. Here it is called for callbacks with an
    attribute `hears_every_end`, which have something to save or to close. If an `on_train_end`
    raised the exception, they may hear of the end twice.
    """
    gan.generator_training_model.stop_training = False
    gan.is_training = True
    try:
        callback_list.on_train_begin()
        yield
    except BaseException:
        for callback in callback_list.callbacks:
            if getattr(callback, "hears_every_end", False):
                with reported(f"{type(callback).__name__} failed at the end"):
                    callback.on_train_end()
        raise
    finally:
        gan.is_training = False


def refuse_in_training(gan):
    """Raise a RuntimeError if a callback compiles, extends or trains a GAN in its training."""
    if gan.is_training:
        raise RuntimeError("a GAN cannot be compiled, extended or trained while it is trained")


class TracedEpochs:
    """The epochs of a GAN as TensorFlow functions, with and without XLA. One trace serves any data.

    At a batch size of 32 XLA makes an epoch about three times as fast, but it needs about a second
    to compile. So short trainings run without it.
    """

    def __init__(self, gan, run_epochs):
        models = gan.generator_training_model, gan.discriminateor_training_model
        self.can_use_xla = all(model.jit_compile for model in models)
        self.updates = 0
        floatx = keras.config.floatx()
        signature = [
            tf.TensorSpec((None, None, gan.noise_dim), floatx),
            tf.TensorSpec((None, None, gan.signal_dim), floatx),
            tf.TensorSpec((None, None), "int32"),
            tf.TensorSpec((), "int32"),
        ]
        # TensorFlow warns if one Python function is traced again and again. A partial is a new
        # function to it.
        self.plain = tf.function(partial(run_epochs), signature)
        self.with_xla = tf.function(self.plain, signature, autograph=False, jit_compile=True)

    def function_for(self, noise, real, picks, updates):
        """Return the function for a training of so many updates of D. Earlier ones count too."""
        self.updates += updates
        if self.can_use_xla and self.updates >= UPDATES_FOR_XLA:
            try:
                self.with_xla(noise, real, picks, 0)  # compiles, and trains nothing
                return self.with_xla
            except Exception as error:
                self.can_use_xla = False
                LOG.debug(f"XLA cannot compile this GAN, so it runs without: {reason(error)}")
        return self.plain


def all_finite(arrays):
    return all(np.isfinite(array).all() for array in arrays)


def check_results(gan, losses, generated, d_output):
    """Raise an error if D's output is no probability, or if training has diverged."""
    used = gan.generator_training_model.loss + gan.discriminateor_training_model.loss
    takes_logarithms = log_loss_generator in used or log_loss_discriminator in used
    is_outside = (d_output < -0.001) | (d_output > 1.001)  # less is due to rounding
    if takes_logarithms and is_outside.any():
        raise ValueError(
            "the discriminator's output is not between 0 and 1: with the article's losses it must "
            'end in a probability, such as Dense(1, activation="sigmoid")'
        )
    weights = gan.generator_training_model.get_weights()  # those of both networks
    if not all_finite([losses, generated, d_output, *weights]):
        raise FloatingPointError("training diverged: a loss, an output or a weight is not finite")


# ---------------------------------------------------------------------------------------
# 5. Files and copies
#
# All files except training.csv are written whole or not at all. A file that is loaded may come from
# anywhere: it executes no code, opens no other file, and its arrays take no more memory than it is
# long. So everything is read by a NumberReader, and checked before anything changes.
#
# The state of an optimizer is what it has learned: a few slots for each weight, such as a momentum,
# and its count of steps. Its settings, such as the learning rate, are not part of it.

MODEL_FILES = ("gan_generator.h5", "gan_discriminateor.h5")
STATE_GROUP = "optimizer_weights"  # in which Keras's own .h5 files have an optimizer's state
NUMBERS = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM)  # h5py writes bool as ENUM
TEXT_BLOCK = b"GCOL\1\0\0\0"  # how HDF5 marks a block of texts
LONGEST_NAME = 1000  # characters of a name in a file, with its groups
SLOTS_PER_ITEM = 8  # more than any optimizer has for a weight
LARGEST_COUNT = 2**62  # of steps: an optimizer that counts in 64 bits can go on from here

# Warnings, standard output and matplotlib's style belong to the whole process. Whoever changes them
# for a while holds this lock, so that no other thread changes or restores them in between.
PROCESS_LOCK = threading.RLock()


@contextmanager
def quiet():
    """Ignore warnings, also those that would raise."""
    with PROCESS_LOCK, warnings.catch_warnings(action="ignore"):
        yield


@contextmanager
def replacing(*paths):
    """Give a temporary name for each path, then put the files written there in place.

    The files are written to a fresh folder beside the paths, which are in one folder. The old files
    stay untouched until all new ones are whole and on the disk. A new file has the mode of the old
    one. Whatever goes wrong is an OSError that names the paths: HDF5 and Pillow raise errors of
    many kinds on a full disk. A process that is killed leaves its fresh folder, which can be
    deleted.
    """
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".gan_unfinished_", dir=folder, ignore_cleanup_errors=True
        ) as scratch:
            files = [Path(scratch, path.name) for path in paths]
            yield files
            for file, path in zip(files, paths):
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
                if path.is_file():
                    with suppress(OSError):  # some file systems have no modes
                        shutil.copymode(path, file)
            for file, path in zip(files, paths):
                file.replace(path)
    except Exception as error:
        names = " and ".join(str(path) for path in paths)
        raise OSError(f"cannot write {names}: {reason(error)}") from error


def write_players(players, folder):
    """Write the two model files; see `GANModel.save_model`."""
    arrays = [array for player in players for array in player.network.get_weights()]
    if not all_finite(arrays):
        raise ValueError("weights are not finite")
    states = [finite_state(player) for player in players]
    for state in states:
        arrays += state.values()
    save_id = hashlib.sha256()
    size = 2**16  # more than what describes the layers
    for array in arrays:
        save_id.update(array.tobytes())
        size += array.nbytes + 2**12  # with what describes the array
    paths = [folder / name for name in MODEL_FILES]
    with quiet(), replacing(*paths) as files:
        for player, state, file in zip(players, states, files):
            # On a full disk HDF5 would crash, and Python raises an OSError. So try whether there is
            # room, with random bytes, because zeros take none on disks that compress.
            file.write_bytes(os.urandom(size))
            player.network.save(file)  # starts the file anew
            with h5py.File(file, "r+") as opened:
                opened.attrs["gan_save"] = np.bytes_(save_id.hexdigest())
                opened.attrs["gan_order"] = file_order(player.network)
                for name, array in state.items():
                    opened[f"{STATE_GROUP}/{name}"] = array


def finite_state(player):
    """Return the state of a player's optimizer, `{}` if it is not finite."""
    state = optimizer_state(player)
    if all_finite(state.values()):
        return state
    LOG.warning(f"the optimizer of {player.network.name} is not finite, and so is not saved")
    return {}


def file_order(network):
    """Return the order in which Keras writes the weights of a network, as indices of `weights`.

    It depends on what is frozen, at every depth. The order of `weights` does not.
    """
    places = {id(weight): place for place, weight in enumerate(network.weights)}
    order = []
    for layer in network.layers:
        for weight in layer.trainable_weights + layer.non_trainable_weights:
            order.append(places[id(weight)])
    return np.array(order, "int32")


def optimizer_variables(player):
    """Return the variables that make the state of a player's optimizer, by their names in a file.

    A name has the class of the optimizer, so that the state of another kind does not fit.
    `Adam_2_momentum` belongs to `network.weights[2]`. `Adam_at_0_iteration` is the first one, and
    belongs to no weight; the slots of a second weight of one path are named like that, too. Before
    compiling there are none.
    """
    if player.training_model is None:
        return {}
    optimizer = player.training_model.optimizer
    kind = type(getattr(optimizer, "inner_optimizer", optimizer)).__name__
    places = {}
    for place, weight in enumerate(player.network.weights):
        places[weight.path.replace("/", "_")] = place
    found = {}
    for variable in optimizer.variables:
        if variable.name == "learning_rate":
            continue
        slot = slot_of(variable, places)
        if slot is not None and f"{kind}_{slot}" not in found:
            name = f"{kind}_{slot}"
        else:  # of no weight, or of the second of two with one path
            word = variable.name.rstrip("_0123456789")  # Keras numbers what has no name: variable_2
            name = f"{kind}_at_{len(found)}_{word}"
        found[name] = variable
    return found


def slot_of(variable, places):
    """Return "2_momentum" for the momentum of weight 2, None for what belongs to no weight.

    Keras calls it dense_kernel_momentum, after the path dense/kernel of the weight. `places` has
    the numbers of the weights by their paths, such as dense_kernel.
    """
    paths = [path for path in places if variable.name.startswith(f"{path}_")]
    if not paths:
        return None
    path = max(paths, key=len)
    return f"{places[path]}{variable.name.removeprefix(path)}"


def optimizer_state(player):
    """Return the state of a player's optimizer, as arrays by their names in a file."""
    return {name: variable.numpy() for name, variable in optimizer_variables(player).items()}


def set_optimizer_state(player, state):
    """Set the state of a player's optimizer."""
    for name, variable in optimizer_variables(player).items():
        variable.assign(state[name])


class ModelFile(collections.namedtuple("ModelFile", "weights state save_id")):
    """What a model file has for a player.

    Attributes:
        weights: arrays, in the order of `network.weights`.
        state: the state of its optimizer, `{}` if there is none that fits.
        save_id: a hash of all that was saved, the same in both files. None in files that this
            program did not write.
    """


def read_players(players, folder):
    """Set weights and optimizers from the two model files; see `GANModel.load_model`."""
    contents = [read_player(player, folder / name) for player, name in zip(players, MODEL_FILES)]
    if contents[0].save_id != contents[1].save_id:
        LOG.warning(f"{' and '.join(MODEL_FILES)} in {folder} are of different saves")
    with ExitStack() as undo:
        for player, content in zip(players, contents):
            undo.callback(set_weights, player.network, player.network.get_weights())
            undo.callback(set_optimizer_state, player, optimizer_state(player))
            set_weights(player.network, content.weights)
            set_optimizer_state(player, content.state or player.fresh_state)
        undo.pop_all()  # keep the new weights
    uncompiled = [player.network.name for player in players if player.training_model is None]
    if uncompiled:
        names = " and ".join(uncompiled)
        LOG.warning(f"the optimizer's state of {names} is not loaded: compile first, then load")
    for player, content in zip(players, contents):
        if player.training_model is not None and not content.state:
            LOG.info(f"the optimizer of {player.network.name} starts afresh: no saved state fits")


def set_weights(network, arrays):
    """Set the weights of a network, and what layers such as Normalization make of theirs."""
    network.set_weights(arrays)
    for layer in all_layers(network):
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def read_player(player, path):
    """Return what a model file has for a player, checked, without changing the player.

    Raises an OSError that names the file.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    if not path.is_file():  # to open a pipe could hang
        raise OSError(f"{path} is not a file")
    network = player.network
    try:
        check_texts(path)
        with h5py.File(path) as file:
            max_items = len(all_layers(network)) + len(network.weights)
            reader = NumberReader(file, max_items)
            (save_id,) = reader.attribute(file, "gan_save") or [None]
            order = reader.attribute(file, "gan_order")
            flags = reader.attribute(file, "gan_trainable")  # of an older version
            arrays = reader.weights()
            state = reader.optimizer_state()
        if order is None:  # not written by this version
            order = order_by_flags(network, flags)
            state = renamed(state, optimizer_variables(player))
        return ModelFile(
            fitted_weights(network, arrays, order), fitted_state(player, state), save_id
        )
    except Exception as error:  # HDF5 raises many kinds for a file that is not its own
        raise OSError(f"cannot load {path}: {reason(error)}") from error


def check_texts(path):
    """Raise a ValueError if the lengths of texts in an .h5 file are wrong. HDF5 would hang.

    Texts stand in blocks, which HDF5's file format calls global heap collections:

        block: mark (8 bytes), size of the block (8), then texts
        text: number (2), not used here (6), length (8), characters up to a multiple of 8 bytes

    The text of number 0 is the rest of the block, and its length includes its own head. A mark that
    stands in other data by chance can make this refuse a file, but not accept one.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        texts_left = len(content) // 16  # a text takes 16 bytes or more, and blocks do not overlap
        block = content.find(TEXT_BLOCK)
        while block >= 0:
            (size,) = struct.unpack_from("<Q", content, block + 8)
            end = block + size
            place = block + 16
            is_damaged = not place <= end <= len(content)
            while place + 16 <= end and not is_damaged:
                number, length = struct.unpack_from("<H6xQ", content, place)
                if number > 0:
                    length = 16 + 8 * math.ceil(length / 8)
                place += length
                texts_left -= 1
                is_damaged = length < 16 or place > end or texts_left < 0
            if is_damaged:
                raise ValueError("its texts are damaged")
            block = content.find(TEXT_BLOCK, block + 1)


class NumberReader:
    """Reads numbers and names from an open .h5 file, and nothing else.

    A crafted file can link to other files, name one array many times, or announce more than it
    holds. So no link is followed, arrays must be stored in full, and all that is read is together
    no longer than the file. Names can only be counted after they are read, so for a moment a file
    in which many names are one text takes that text's length for each of them.

    Args:
        file: the open file.
        max_items: how many names or numbers an attribute may have.
    """

    def __init__(self, file, max_items):
        self.file = file
        self.bytes_left = file.id.get_filesize()
        self.max_items = max_items

    def find(self, group, name, kind=h5py.Group):
        """Return what has a name in a group."""
        if len(name) > LONGEST_NAME:
            raise ValueError("it has a name that is too long")
        for part in name.split("/"):
            if not isinstance(group.get(part, getlink=True), h5py.HardLink):
                raise ValueError(f"{name} is missing, or a link")
            group = group[part]
        if not isinstance(group, kind):
            raise ValueError(f"{name} is a {type(group).__name__}, not a {kind.__name__}")
        return group

    def count_bytes(self, size):
        """Count bytes that are read, and refuse more than the file has."""
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise ValueError("it announces more than it holds")

    def array(self, group, name):
        """Return an array of numbers."""
        array = self.find(group, name, h5py.Dataset)
        # The class comes first: to make a dtype of lists in lists takes gigabytes.
        is_number = array.id.get_type().get_class() in NUMBERS and array.dtype.itemsize <= 8
        if not is_number or array.chunks or array.external or array.is_virtual:
            raise ValueError(f"{name} does not hold plain numbers that are stored in full")
        self.count_bytes(array.nbytes)
        return array[()]

    def attribute(self, item, key):
        """Return an attribute as a list of names or whole numbers, None if there is none."""
        if key not in item.attrs:
            return None
        found = item.attrs.get_id(key)
        count = math.prod(found.shape)
        if count == 0:
            return []
        if found.get_type().get_class() not in (*NUMBERS, h5py.h5t.STRING):
            raise ValueError(f"its {key} is not a list of names or numbers")
        if count > self.max_items:
            raise ValueError(f"its {key} has {count} entries, too many for these layers")
        self.count_bytes(found.get_storage_size())
        values = np.ravel(item.attrs[key]).tolist()
        values = [value.decode() if isinstance(value, bytes) else value for value in values]
        self.count_bytes(sum(len(value) for value in values if isinstance(value, str)))
        return values

    def names(self, item, key):
        """Return a list of names. Keras splits a long one: weight_names0, weight_names1, ..."""
        found = self.attribute(item, key) or []
        part = 0
        while f"{key}{part}" in item.attrs and part < self.max_items:
            found += self.attribute(item, f"{key}{part}")
            part += 1
        return found

    def weights(self):
        """Return the arrays of a network in the order in which Keras wrote them."""
        group = self.file
        if "layer_names" not in group.attrs:
            group = self.find(group, "model_weights")
        arrays = []
        for layer_name in self.names(group, "layer_names"):
            layer = self.find(group, layer_name)
            arrays += [self.array(layer, name) for name in self.names(layer, "weight_names")]
        return arrays

    def optimizer_state(self):
        """Return the state of an optimizer, `{}` if there is none.

        What Keras itself writes of an optimizer stands in groups, and is not read.
        """
        if STATE_GROUP not in self.file:
            return {}
        group = self.find(self.file, STATE_GROUP)
        if len(group) > SLOTS_PER_ITEM * self.max_items:
            raise ValueError("it has too many arrays")
        state = {}
        for name in group:
            found = self.find(group, name, object)  # whatever it is, but not a link
            if not isinstance(found, h5py.Group):
                state[name] = self.array(group, name)
        return state


def order_by_flags(network, flags):
    """Return the order of the weights in a file without `gan_order`.

    It follows from what was frozen when the file was written. An older version of this program
    wrote the flag of each layer; plain Keras wrote none.
    """
    flags_now = [layer.trainable for layer in all_layers(network)]
    if not flags or flags == flags_now:
        return file_order(network)
    with quiet():
        twin = copy.deepcopy(network)
    for layer, flag in zip(all_layers(twin), flags):
        layer.trainable = flag
    return file_order(twin)


def renamed(state, variables):
    """Return a state under the names of today, `{}` if it is of another optimizer.

    An older version named a variable by its place in the state: what was Adam_0_iteration and
    Adam_1_momentum is Adam_at_0_iteration and Adam_0_momentum today.
    """
    pattern = r"(?P<kind>.+)_(?P<place>\d+)_(?P<word>[a-z]+)"
    old_names = [re.fullmatch(pattern, name) for name in state]
    if None in old_names or len(old_names) != len(variables):
        return {}
    old_names.sort(key=lambda old: int(old["place"]))
    for old, name in zip(old_names, variables):
        word = name.rstrip("_0123456789")
        if not (name.startswith(f"{old['kind']}_") and word.endswith(old["word"])):
            return {}
    return {name: state[old.string] for old, name in zip(old_names, variables)}


def fitted_weights(network, arrays, order):
    """Return arrays in the order of `network.weights`, or raise a ValueError."""
    variables = network.weights
    if len(arrays) != len(variables):
        raise ValueError(f"it has {len(arrays)} arrays, and the layers have {len(variables)}")
    if sorted(order) != list(range(len(variables))):
        raise ValueError("its gan_order does not name each weight once")
    found = dict(zip(order, arrays))
    return [fitted(found[place], variable) for place, variable in enumerate(variables)]


def fitted_state(player, state):
    """Return a state as a player's optimizer takes it, `{}` if it is of another optimizer.

    Raises a ValueError if a number in it cannot be used.
    """
    variables = optimizer_variables(player)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    if shapes != {name: array.shape for name, array in state.items()}:
        return {}
    found = {name: fitted(state[name], variable) for name, variable in variables.items()}
    for array in found.values():
        if array.dtype.kind == "i" and not 0 <= array.min() <= array.max() < LARGEST_COUNT:
            raise ValueError(f"its count of an optimizer's steps is out of range: {array}")
    return found


def fitted(array, variable):
    """Return an array in the type of a variable, or raise a ValueError."""
    dtype = np.dtype(variable.dtype)
    if array.shape != tuple(variable.shape) or array.dtype.kind != dtype.kind:
        raise ValueError(
            f"it has {array.dtype} {array.shape} where {variable.path} needs {dtype} "
            f"{tuple(variable.shape)}: other layers, or another noise_dim"
        )
    with np.errstate(over="ignore"):
        found = array.astype(dtype)
    if not np.isfinite(found).all():
        raise ValueError("it holds numbers that are not finite")
    return found


def parts_to_copy(player):
    """Return what a copy of a player needs besides its network: flags, optimizer, loss and state.

    Both training models share both networks, so they are wired anew. Before compiling there are
    only flags: Keras copies those of layers, and not those of single weights.
    """
    flags = [weight.trainable for weight in player.network.weights]
    model = player.training_model
    if model is None:
        return flags, None, None, None
    return flags, fresh_copy(model.optimizer), model.loss[0], optimizer_state(player)


def give_parts(player, parts, compile_model):
    """Give a player what `parts_to_copy` returned. `compile_model` compiles it."""
    flags, optimizer, loss, state = parts
    for weight, flag in zip(player.network.weights, flags):
        weight.trainable = flag
    if optimizer is not None:
        compile_model(optimizer, loss)
        set_optimizer_state(player, state)


def fresh_copy(optimizer):
    """Return an optimizer with the same settings that has learned nothing.

    Raises a ValueError if Keras cannot copy it.
    """
    try:
        with quiet():  # Keras warns that it does not copy the slots
            copied = copy.deepcopy(optimizer)
    except Exception as error:
        raise ValueError(
            f"Keras cannot copy the optimizer: make one for each model ({reason(error)})"
        ) from error
    for variable in copied.variables:  # only its count of steps: the rest comes when it is built
        if variable.name != "learning_rate":
            variable.assign(ops.zeros_like(variable))
    if getattr(optimizer, "inner_optimizer", optimizer).weight_decay:
        LOG.warning(
            f"the copy of {optimizer.name} decays all weights: what was excluded from weight decay "
            "must be excluded again"
        )
    return copied


# ---------------------------------------------------------------------------------------
# 6. Pictures
#
# Measures turns the outputs of a GAN into a State, and a Picture draws States: generated green,
# real black, D red.

ROWS_SHOWN = 20_000  # rows of a data set, at most
BINS = 40  # at most
ENOUGH = 20  # samples in a bin, real and generated together, from which the optimal D is drawn
POINTS = {1: 201, 2: 60}  # points along each axis at which D is asked, keyed by signal_dim
TRAIL = 20  # epochs before the last one that a curve's trail shows
STAGES = (0.025, 0.05, 0.1, 0.25, 0.5, 1)  # parts of a run that the strip shows
SIZE = (8, 4.5)  # inches
STRIP_HEIGHT = 1.7  # inches
# Where the panels are, in parts of the figure, and in parts of the strip.
MARGINS = {"left": 0.13, "right": 0.965, "bottom": 0.12, "top": 0.87}
STRIP_MARGINS = {"left": 0.13, "right": 0.965, "bottom": 0.06, "top": 0.76}
ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3}  # legends that cover no data
LEGEND_HEIGHT = 19  # points
ROOM_FOR_MARKS = 1.05  # how far an axis of shares goes beyond its top
PLAIN = "{x:.7g}"  # numbers as precise as float32, with no common factor beside the axis
DIGIT_WIDTH = 0.085  # inches
GREY = "0.6"  # what D and the distance are compared with
# D's output over the plane. The colour-blind, too, tell magenta from green dots and black dots.
SHADES = matplotlib.colors.LinearSegmentedColormap.from_list("D", ["white", "magenta"])
STYLE = {
    "axes.titlesize": "medium",
    "legend.borderaxespad": 0.2,
    "legend.fontsize": "small",
    "legend.frameon": False,
    "lines.markersize": 3,
    "xtick.labelsize": "small",
    "ytick.labelsize": "small",
}
# The user's fonts stay, because other fonts may lack the letters of the user's title. A font that
# lacks the minus sign needs `axes.unicode_minus`.
KEPT = r"^font\.(family|serif|sans-serif|cursive|fantasy|monospace)$|^axes\.unicode_minus$"


class State(collections.namedtuple("State", "epoch w1 generated d_output")):
    """What there is to see of a GAN after an epoch.

    Attributes:
        epoch: number of the epoch, from 1.
        w1: distance of the generated samples from the real ones; see `wasserstein`.
        generated: what is drawn of the generated samples. For samples of one number it is the share
            of samples in each bin, `(bins,)`; otherwise it is the two numbers of each sample that
            the picture shows, `(n, 2)`.
        d_output: D's output at the points of the Measures, `(points,)`.
    """


class Measures:
    """What is measured of a GAN, prepared once for real samples `(n, signal_dim)`.

    Attributes:
        real: the real samples.
        dim: dimension of a sample, `signal_dim`.
        limits: the ends of each number's axis, `(signal_dim, 2)`.
        columns: the two numbers of a sample that a scatter shows; see `most_varying`.
        points: the points at which D is asked, `(points, signal_dim)`. For samples of one number
            they lie along the axis. For two numbers they are a grid over the plane. For more
            numbers there is a single one, which is not drawn.
        edges, centres: of the bins of samples of one number, `(bins + 1,)` and `(bins,)`.
        real_shares: the share of real samples in each bin, `(bins,)`.
        sliced: prefix of the distance's name, "sliced " for samples of several numbers.
    """

    def __init__(self, real):
        dim = real.shape[1]
        # The middle 99 % of the samples, and a third as much again on each side.
        low, high = np.quantile(real.astype("float64"), (0.005, 0.995), axis=0)
        margin = np.where(high > low, (high - low) / 3, 1)
        self.real = real
        self.dim = dim
        self.limits = np.stack([low - margin, high + margin], axis=1)
        self.columns = most_varying(real)
        if dim == 1:
            self.edges = bin_edges(real, *self.limits[0])
            self.limits = np.array([[self.edges[0], self.edges[-1]]])
            self.centres = (self.edges[:-1] + self.edges[1:]) / 2
            self.real_shares = self.shares(real)
        self.points = real[:1]
        if dim in POINTS:
            axes = [np.linspace(*ends, POINTS[dim], dtype="float32") for ends in self.limits]
            self.points = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, dim)
        self.sliced = "sliced " if dim > 1 else ""
        self._sorted_real = along_directions(real)

    @cached_property
    def floor(self):
        """Mean distance of two sets of n real samples. At this distance nothing is left to learn.

        In a set of n samples drawn from the real ones with replacement, the share that lies below a
        number varies around p. For two such sets, these shares differ by sqrt(4 * p * (1 - p) / (pi
        * n)) on average. The distance is the integral of that difference (Vallender, 1974).
        """
        rows = len(self.real)
        below = np.arange(1, rows) / rows
        differences = np.sqrt(4 / math.pi * below * (1 - below) / rows)
        gaps = np.diff(self._sorted_real, axis=1)
        return float((gaps @ differences).mean())

    def distance(self, generated):
        """Return the distance of as many generated samples; see `wasserstein`."""
        gaps = np.abs(along_directions(generated) - self._sorted_real)
        return float(gaps.mean(dtype="float64"))

    def shares(self, samples):
        """Return the share of samples in each bin. The outermost bins include all beyond."""
        inside = np.clip(samples.astype("float64"), *self.edges[[0, -1]])
        return np.histogram(inside, self.edges)[0] / len(samples)

    def state(self, generated, d_output, epoch=0):
        """Return the State of a GAN from its outputs, which `outputs_at` returns."""
        generated = np.asarray(generated)
        drawn = self.shares(generated) if self.dim == 1 else generated[:, self.columns]
        return State(epoch, self.distance(generated), drawn, np.asarray(d_output)[:, 0])


def most_varying(samples):
    """Return the two columns of samples that vary most, or the only one, in ascending order.

    Columns whose standard deviations differ by less than a tenth count as equal, and the first of
    them are taken. The order of standardized columns would be that of their rounding errors.
    """
    spread = samples.std(axis=0, dtype="float64")
    chosen = []
    for _ in range(min(2, len(spread))):
        first = np.argmax(spread >= 0.9 * spread.max())
        chosen.append(first)
        spread[first] = -1
    return np.sort(chosen)


def bin_edges(real, low, high):
    """Return the edges of bins from low to high.

    Of whole numbers every bin holds equally many. Otherwise some bins would hold one more than
    others, and a smooth hump would look like a comb.
    """
    if not np.array_equal(real, np.round(real)):
        return np.linspace(low, high, BINS + 1)
    width = np.ceil((high - low + 2) / BINS)
    return np.arange(np.floor(low) - 0.5, high + width, width)


def outputs_at(gan, noise, points):
    """Return what G makes of noise `(n, noise_dim)`, and D's output at points `(n, signal_dim)`."""
    return gan.generator_model(noise), gan.discriminateor_model(points)


def wasserstein(a, b):
    """Return the Wasserstein-1 distance of two sets of n samples, `(n, dim)`.

    For samples of one number it is the mean distance of the sorted numbers (Villani, "Optimal
    Transport", 2009, remark 2.19). For several numbers it is the sliced Wasserstein-1 distance: the
    mean of the distances along directions all around (Rabin et al., "Wasserstein Barycenter and Its
    Application to Texture Mixing", 2012; Bonneel et al., "Sliced and Radon Wasserstein Barycenters
    of Measures", 2015). It is smaller than the Wasserstein-1 distance: for a shift in the plane by
    a factor of 2/pi. Raises a ValueError if the sets are not of one shape.
    """
    a = np.asarray(a)
    b = np.asarray(b)
    if a.shape != b.shape:
        raise ValueError(f"sets must be of one shape, got {a.shape} and {b.shape}")
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
    step = math.ceil(len(real) / ROWS_SHOWN)
    return noise[::step], real[::step]


@contextmanager
def own_style():
    """Draw what the block draws in the style of these pictures, with the user's fonts."""
    with PROCESS_LOCK, style.context(["default", STYLE, dict(plt.rcParams.find_all(KEPT))]):
        yield


class RoomyLocator(ticker.AutoLocator):
    """Ticks of a horizontal axis: about five, or as many as their numbers have room."""

    def __call__(self):
        axes = self.axis.axes
        room = axes.bbox.width / (axes.figure.dpi * DIGIT_WIDTH)
        for nbins in (5, 4, 3, 2, 1):
            self.set_params(nbins=nbins, min_n_ticks=1)
            ticks = super().__call__()
            if sum(len(PLAIN.format(x=tick)) + 1 for tick in ticks) < room:
                break
        return ticks


def use_plain_numbers(axes):
    """Let axes have few ticks and no power of ten beside them: their numbers may be long."""
    axes.xaxis.set(major_locator=RoomyLocator(), major_formatter=PLAIN)
    axes.locator_params("y", nbins=5)
    axes.yaxis.set_major_formatter(PLAIN)


def add_curve(axes, x, fmt, label, top=1):
    """Add a curve that moves, and its trail. The curve is cut off at the top.

    Returns `show(curves, alphas)`, which draws the last curve, and the earlier ones as a trail, one
    alpha each.
    """
    (line,) = axes.plot([], [], fmt, label=label, animated=True)
    trail = LineCollection([], color=line.get_color(), linewidths=0.7, animated=True)
    axes.add_collection(trail, autolim=False)

    def show(curves, alphas):
        *earlier, now = curves
        line.set_data(x, np.minimum(now, top))
        # A LineCollection takes no empty list of alphas.
        trail.set(segments=[np.c_[x, curve] for curve in earlier], alpha=alphas or None)

    return show


def within_trail(states):
    """Return the last State, and those before it that stay as its trail."""
    return [state for state in states if states[-1].epoch - state.epoch <= TRAIL]


def top_share(measures, states=()):
    """Return the top of an axis of shares: three times the highest real share, 1 at most.

    Given States, it is no higher than the highest share in them and in the real samples. This is
    for a still picture.
    """
    highest = measures.real_shares.max()
    top = min(1, 3 * highest)
    if states:
        shares = [state.generated.max() for state in states]
        top = min(top, max(highest, *shares))
    return top


def where_beyond(shares, top):
    """Return the top for each share that is higher, nan for the others: where marks belong."""
    return np.where(shares > top, top, math.nan)


def optimal_d(measures, generated):
    """Return the D that is optimal for the shares of real and of generated samples.

    In each bin it says real / (real + generated) (Goodfellow et al. 2014, proposition 1). It is nan
    where both together have fewer than `ENOUGH` samples: chance would make it 0 or 1 there.
    """
    both = measures.real_shares + generated
    is_enough = np.round(len(measures.real) * both) >= ENOUGH
    return measures.real_shares / np.where(is_enough, both, math.nan)


def draw_histograms(upper, lower, measures, top):
    """Draw samples of one number: the share in each bin on one axes, D's output on another.

    Returns a function that shows States: the last one, and those before it as its trail.
    """
    centres = measures.centres
    upper.plot(centres, measures.real_shares, "ko-", label="real")
    show_generated = add_curve(upper, centres, "go-", "generated", top)
    (marks,) = upper.plot([], [], "g^", markersize=7, label="higher than shown", animated=True)
    upper.set(ylim=(0, ROOM_FOR_MARKS * top), ylabel="share of samples")
    upper.tick_params(labelbottom=False)
    upper.legend(**ABOVE)

    lower.axhline(0.5, color=GREY, linestyle=":", linewidth=1, label="0.5: cannot tell")
    (optimal,) = lower.plot([], [], ".-", color=GREY, label="optimal D", animated=True)
    show_d_output = add_curve(lower, measures.points[:, 0], "r--", "D")
    use_plain_numbers(lower)
    lower.set(ylim=(-0.05, 1.05), yticks=(0, 0.5, 1), ylabel="D's output")
    lower.set(xlim=measures.limits[0], xlabel="sample (the outermost bins include all beyond)")
    lower.legend(**ABOVE)

    def show(states):
        recent = within_trail(states)
        now = recent[-1]
        alphas = [0.35 - 0.3 * (now.epoch - state.epoch) / TRAIL for state in recent[:-1]]
        show_generated([state.generated for state in recent], alphas)
        show_d_output([state.d_output for state in recent], alphas)
        optimal.set_data(centres, optimal_d(measures, now.generated))
        marks.set_data(centres, where_beyond(now.generated, top))

    return show


def draw_plane(axes, measures, markersize=1.5):
    """Draw samples of several numbers: a scatter of two and, if there are no others, D's output.

    Returns a function that shows the last of some States.
    """
    limits = measures.limits[measures.columns]
    sides = np.diff(limits)
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.spines[:].set_animated(True)  # otherwise the image would cover them
    image = axes.imshow(
        np.zeros((1, 1)),
        cmap=SHADES,
        aspect="equal" if sides.max() <= 5 * sides.min() else "auto",
        interpolation="bilinear",
        vmin=0,
        vmax=1,
        origin="lower",
        extent=limits.ravel(),
        animated=True,
    )

    dots = {"markersize": markersize, "alpha": 0.7, "animated": True}
    real = np.clip(measures.real[:, measures.columns], *limits.T)
    axes.plot(*real.T, "ko", label="real", **dots)
    (generated_dots,) = axes.plot([], [], "go", label="generated", **dots)
    if measures.dim == 2:
        axes.plot([], [], "s", color=SHADES(1.0), label="D says 1 (white: 0)", **dots)

    def show(states):
        now = states[-1]
        generated_dots.set_data(*np.clip(now.generated, *limits.T).T)  # on the edge, if beyond
        if measures.dim == 2:
            image.set_data(now.d_output.reshape(POINTS[2], POINTS[2]))

    return show


def label_plane(axes, measures):
    """Say what a scatter shows."""
    first, second = measures.columns + 1
    axes.set_xlabel(f"number {first} of a sample")
    axes.set_ylabel(f"number {second} of a sample")
    axes.set_anchor("NW")  # if equal scales make it smaller, the title stays where it is
    use_plain_numbers(axes)
    axes.legend(markerscale=4, **ABOVE)


def draw_small(axes, measures, state, states):
    """Draw a State in a panel of the strip, which shows these States."""
    if measures.dim > 1:
        draw_plane(axes, measures, markersize=0.7)([state])
        return
    centres = measures.centres
    points = measures.points[:, 0]
    top = top_share(measures, states)
    axes.fill_between(centres, measures.real_shares, color="0.75")
    axes.plot(centres, np.minimum(state.generated, top), "g", linewidth=1.2)
    axes.plot(centres, where_beyond(state.generated, top), "g^", markersize=5)
    # D's axis goes from 0 at the bottom to 1 at the top.
    axes.axhline(0.5 * top, color=GREY, linestyle=":", linewidth=1)
    axes.plot(points, state.d_output * top, "r--", linewidth=0.9)
    axes.set(xlim=measures.limits[0], ylim=(0, ROOM_FOR_MARKS * top))


class Picture:
    """A figure of a GAN: samples, D's output and, with a number of epochs, the distance over them.

    What does not move is the background. What moves is drawn over it again and again (blitting):
    the artists that are marked as animated, which matplotlib leaves out when it draws a figure on
    the screen, and includes when it saves one. Of the user's style, only the fonts are kept.

    Args:
        measures: Measures of the real samples.
        epochs: length of the distance's axis. Default: 0, no distance.
        figure: an empty figure. Default: a new one.
        fit_to: the States of a still picture. The axis of shares fits the last one and its trail.
            Default: none, the axis is the same for every State.

    Attributes:
        figure: the figure.
        measures: the Measures.
        title: the title, a matplotlib Text.
    """

    @own_style()
    def __init__(self, measures, epochs=0, figure=None, fit_to=()):
        if figure is None:
            figure = FigureCanvasAgg(plt.Figure(SIZE)).figure
        self.figure = figure
        self.measures = measures
        self.distance_curve = None
        grid = figure.add_gridspec(2, 2, width_ratios=(68, 32), wspace=0.32, **MARGINS)
        columns = slice(2)
        if epochs:
            columns = 0
            self._add_distance(grid[:, 1], epochs)
        if measures.dim == 1:
            samples = figure.add_subplot(grid[0, columns])
            d_axes = figure.add_subplot(grid[1, columns], sharex=samples)
            top = top_share(measures, within_trail(fit_to))
            self.show_states = draw_histograms(samples, d_axes, measures, top)
        else:
            samples = figure.add_subplot(grid[:, columns])
            self.show_states = draw_plane(samples, measures)
            label_plane(samples, measures)
        self.title = samples.set_title(" ", loc="left", pad=LEGEND_HEIGHT, animated=True)
        self.moving = figure.findobj(lambda artist: artist.get_animated())
        self.moving.sort(key=lambda artist: artist.get_zorder())
        self.background = None
        figure.canvas.mpl_connect("draw_event", self._on_draw)

    def _add_distance(self, place, epochs):
        axes = self.figure.add_subplot(place)
        spread = self.measures.real.std(axis=0, dtype="float64").mean() or 1
        low = 0.01 * spread
        floor = self.measures.floor or low
        if floor < low:  # keep its dotted line in view
            low = floor / 3
        axes.set(xlim=(0, epochs), xlabel="epoch", ylim=(low, 30 * spread), yscale="log")
        axes.set_ylabel(f"{self.measures.sliced}Wasserstein-1 distance")
        axes.locator_params("x", nbins=4, integer=True)
        axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(color="0.9")
        axes.axhline(floor, color=GREY, linestyle=":", label="of two real sets")
        (self.distance_curve,) = axes.plot([], [], ".-", color="0.3", markersize=2, animated=True)
        axes.legend(**ABOVE)

    def set_states(self, states, title=None):
        """Take what is to be drawn next: the last State, with the earlier ones as its history."""
        if title is None:
            title = f"epoch = {states[-1].epoch}"
        self.title.set_text(title)
        self.show_states(states)
        if self.distance_curve is None:
            return
        axes = self.distance_curve.axes
        low, high = axes.get_ylim()
        distances = [state.w1 or low for state in states]
        self.distance_curve.set_data([state.epoch for state in states], distances)
        if min(distances) < low or max(distances) > high:  # open the axis
            axes.set_ylim(min(low, min(distances) / 3), max(high, max(distances) * 3))
            self.background = None

    @own_style()
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
    return sorted(chosen, key=lambda state: state.epoch)


def draw_strip(figure, measures, states):
    """Draw States in small panels beside each other, all of one scale."""
    grid = figure.add_gridspec(1, len(STAGES), **STRIP_MARGINS)
    for place, state in zip(grid, states):
        axes = figure.add_subplot(place, xticks=[], yticks=[])
        w1 = np.format_float_positional(state.w1, 2, fractional=False, trim="-")
        axes.set_title(f"epoch {state.epoch}\n{measures.sliced}W1 {w1}", fontsize=7)
        draw_small(axes, measures, state, states)


def save_picture(gan, sample_list, path, title, history=()):
    """Save a picture of the GAN. If its history is known, a strip below shows how it learned.

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
    # The last State is made anew: averages of the weights may have been put in place since.
    states = [*history[:-1], measures.state(*outputs_at(gan, noise, measures.points), epochs)]
    width, height = SIZE
    with own_style():
        figure = plt.Figure(SIZE)
        upper = figure
        if history:
            figure.set_size_inches(width, height + STRIP_HEIGHT)
            upper, lower = figure.subfigures(2, 1, height_ratios=(height, STRIP_HEIGHT))
            draw_strip(lower, measures, stages(states))
        Picture(measures, epochs, upper, fit_to=states).set_states(states, title)
        with replacing(Path(path)) as (file,):
            figure.savefig(file)
    LOG.info(f"picture saved in {path}")


def draw_graph(model, log_dir):
    """Draw the graph of a Keras model, with its networks and shapes, by Graphviz."""
    if log_dir is None:
        return
    path = Path(log_dir, f"{model.name}.png")
    with reported(f"cannot draw the graph {path} by Graphviz"):
        # Keras's plot_model raises nothing in a notebook.
        graph = keras.utils.model_to_dot(
            model, show_shapes=True, show_layer_names=False, expand_nested=True, dpi=72
        )
        with PROCESS_LOCK, redirect_stdout(io.StringIO()):  # pydot prints what goes wrong, too
            drawn = graph.create_png()
        with replacing(path) as (file,):
            file.write_bytes(drawn)


# ---------------------------------------------------------------------------------------
# 7. Watching
#
# Whatever watches a training is a Keras callback. One of them, Look, looks at the GAN and keeps
# what it sees. Its views come after it in the list of callbacks, and show what it sees.
# `sees_weights_every` says at which epochs a callback sees the weights; see `GANModel.train`.

LOOKS = 40  # of a training, evenly spread; more near its start, at most 130 in all
PERIODS = [step * 10**power for power in range(9) for step in (1, 2, 5)]  # epochs between two looks
HISTORY = 400  # States that are kept, at most
FRAME_SECONDS = 0.05  # the article's pace
LAST_SECONDS = 2  # how long the last frame stays
MOST_FRAMES = 1000  # frames of an animation, which are held in memory
HELD = ", held (space: go on, right arrow: next)"


class Watcher(keras.callbacks.Callback):
    """A callback of this project. It hears of every end. By default it need not see the weights.

    Attributes:
        failure: what the log says if training goes on without it; see `Dispensable`.
    """

    hears_every_end = True
    sees_weights_every = math.inf
    failure = "a callback failed"

    def is_last(self, epoch):
        """Return whether an epoch, which counts from 1, is the last one of the training."""
        return epoch == self.params["epochs"]


class Look(Watcher):
    """Looks at the GAN while it trains, and keeps what it saw.

    In the `logs` of the epochs at which it looks, and only there, it adds the distance as `w1`, for
    the callbacks that come after it.

    Args:
        gan: a GANModel.
        sample_list: as `GANModel.train` takes it.
        every: epochs from one look to the next. Default: None, at most 130 looks, most of them in
            the beginning.

    Attributes:
        history: the States of the last training, at most `HISTORY`, evenly thinned.
        measures: Measures of the real samples.
        noise: the noise of the generated samples.
        is_watching: whether a training is going on, and no look has failed.
        epoch: number of the epoch that ended last.
        state: the last State that was made.
        error: why a look failed, until it is raised.
    """

    failure = "the pictures stop here"

    def __init__(self, gan, sample_list, every=None):
        super().__init__()
        self.gan = gan
        self.noise, real = shown_rows(gan, sample_list)
        self.measures = Measures(real)
        self.every = every
        if every is not None:
            self.every = whole_number("every", every)
        self.sees_weights_every = 1
        self.traced_outputs = None  # `outputs_at` as a TensorFlow function, during training
        self.is_watching = False
        self.error = None
        self.epoch = 0
        self.state = None
        self.history = []

    def on_train_begin(self, logs=None):
        self.history = []
        self.error = None
        self.epoch = 0
        self.state = None
        # Traced, a look takes a third of the time.
        self.traced_outputs = tf.function(partial(outputs_at, self.gan), autograph=False)
        self.is_watching = True
        self._plan()

    def on_epoch_end(self, epoch, logs=None):
        self.epoch = epoch + 1
        is_due = self.is_last(self.epoch) or self.epoch % self.sees_weights_every == 0
        if is_due and remember(self.history, self.latest()):
            logs["w1"] = self.state.w1  # for the next callbacks, which are given the same logs
            self._plan()
        self._raise_pending()

    def on_train_end(self, logs=None):
        try:
            remember(self.history, self.latest())  # a new State if training was stopped
            self._raise_pending()
        finally:
            self.is_watching = False
            # What TensorFlow has traced and Keras has wired cannot be pickled.
            self.traced_outputs = None
            self.set_model(None)

    def latest(self):
        """Return the State of the epoch that ended last. It is made once, whoever asks first.

        Returns None before the first epoch, and while the weights are of a later epoch: one call
        trains many epochs, of which the callbacks are then told one by one. Also returns None from
        when the GAN could not be measured. It is the Look itself that raises the error then.
        """
        if self.state is not None and self.state.epoch == self.epoch:
            return self.state
        is_ahead = self.gan.epochs_done != self.epoch
        if self.epoch == 0 or is_ahead or not self.is_watching:
            return None
        try:
            outputs = self.traced_outputs(self.noise, self.measures.points)
            self.state = self.measures.state(*outputs, self.epoch)
            return self.state
        except Exception as error:
            self.is_watching = False
            self.sees_weights_every = math.inf
            self.history = []  # it would have a hole from here on
            self.error = error  # a hook of this Look raises it: the view that asked is not to blame
            return None

    def _raise_pending(self):
        """Raise the error of a look that failed, once."""
        error = self.error
        self.error = None
        if error is not None:
            raise RuntimeError(f"cannot measure the GAN: {reason(error)}") from error

    def _plan(self):
        """Set how many epochs it is to the next look.

        This is called right after a look. The next call into TensorFlow ends where the next look is
        due, so to plan an earlier one later would find weights that are too new.
        """
        most = max(1, min(self.params["epochs"] // LOOKS, self.epoch // 5))
        automatic = max(period for period in PERIODS if period <= most)
        self.sees_weights_every = self.every or automatic


def remember(states, state):
    """Append a State, unless it is None or there already. Returns whether it was appended.

    Of too many States, the one closest to its neighbours is dropped, but none of the last `TRAIL`.
    """
    if state is None or (states and states[-1].epoch == state.epoch):
        return False
    states.append(state)
    if len(states) > HISTORY:
        epochs = np.array([kept.epoch for kept in states[:-TRAIL]])
        del states[1 + np.argmin(epochs[2:] - epochs[:-2])]
    return True


class View(Watcher):
    """Shows a picture of what a Look sees, after every N-th epoch and at the end of training.

    A view stands behind its Look in the list of callbacks. A subclass defines three methods:
    `open()` makes `picture`, and sets `is_open` if there is a place to show it. `show()` shows
    `picture`, which has a new State. `close()` gives up the place, and says so in `is_open`; it may
    be called twice, and without `open`.

    Args:
        look: the Look.
        every: epochs from one State that is shown to the next. Default: 1.

    Attributes:
        picture: the Picture.
        states: the States that were shown, at most `HISTORY`, evenly thinned.
        is_open: whether there is something to show the picture in. If not, it sees no weights.
    """

    failure = "the live picture failed"
    is_open = False

    def __init__(self, look, every=1):
        super().__init__()
        self.look = look
        self.every = whole_number("every", every)
        self.states = []

    @property
    def sees_weights_every(self):
        return self.every if self.is_open else math.inf

    def on_train_begin(self, logs=None):
        if not self.look.is_watching:
            raise ValueError(f"{type(self).__name__} must stand behind its Look in the callbacks")
        self.states = []
        self.open()

    def on_epoch_end(self, epoch, logs=None):
        if self.is_last(epoch + 1) or (epoch + 1) % self.every == 0:
            self._show_latest()
        if self.is_open and not self.look.is_watching:  # it failed, and no State will come
            self.close()

    def on_train_end(self, logs=None):
        try:
            self._show_latest()  # a new State if training was stopped
        finally:
            self.close()

    def _show_latest(self):
        if self.is_open and remember(self.states, self.look.latest()):
            self.picture.set_states(self.states)
            self.show()


@contextmanager
def no_garbage_collection():
    """Collect no garbage in this context.

    Matplotlib looks at the frames of all threads when a window opens or closes, which can also be
    while it is held. Python 3.11.7 hangs if it collects TensorFlow's garbage at that moment.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Window(View):
    """Shows the picture in a window, if there is a display, until it is closed.

    The space bar holds it and lets it go; the right arrow lets it go for one frame. It is also let
    go when it is closed and when training has been stopped.

    A frame is shown until `frame_end`, `FRAME_SECONDS` after that of the frame before. If it comes
    later, the next one may follow at once. Between two frames the window hears its events every
    `FRAME_SECONDS`.

    Args:
        look, every: as of View.
        while_held: a function that is called again and again while the window is held. Default:
            None.
    """

    def __init__(self, look, every=1, while_held=None):
        super().__init__(look, every)
        self.while_held = while_held
        self.canvas = None
        self.is_held = False
        self.wants_next = False
        self.frame_end = 0.0  # when the frame shown now has had its time
        self.events_due = 0.0  # when the window hears its events next, between two frames

    @no_garbage_collection()
    def open(self):
        self.is_held = False
        canvas_class = window_canvas()
        if canvas_class is None:
            return
        self.canvas = new_window(canvas_class)
        self.is_open = True  # from here on `close` has something to close
        self.picture = Picture(self.look.measures, self.params["epochs"], self.canvas.figure)
        self.picture.title.set_text("compiling")
        self.canvas.mpl_connect("key_press_event", self._on_key)
        self.canvas.mpl_connect("close_event", self._on_close)
        self.canvas.manager.set_window_title("A generator learns")
        self.canvas.manager.show()
        self.canvas.flush_events()  # now the window has its size
        self._show_until(time.perf_counter())  # draws it once

    @no_garbage_collection()
    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        if self.is_open and time.perf_counter() >= self.events_due:
            self.canvas.flush_events()  # between two frames, too, a window can be closed
            self.events_due = time.perf_counter() + FRAME_SECONDS

    def show(self):
        if self.is_last(self.states[-1].epoch) or self.model.stop_training:
            # No frame follows. `close` shows the last epoch longer, as all others have ended then.
            self._draw()
            self.canvas.flush_events()
            self.frame_end = time.perf_counter()
        else:
            self._show_until(self.frame_end + FRAME_SECONDS)

    @no_garbage_collection()
    def close(self):
        try:
            if self.is_open and self.states and self.is_last(self.states[-1].epoch):
                self._show_until(self.frame_end + LAST_SECONDS)
        finally:
            if self.is_open:
                self.is_open = False
                self.canvas.manager.destroy()

    def _draw(self):
        self.picture.render()
        self.canvas.blit(self.canvas.figure.bbox)

    def _show_until(self, end):
        """Show the picture until a time of `time.perf_counter`, and longer while it is held."""
        title = self.picture.title.get_text()
        self.wants_next = False
        while self.is_open and not self.model.stop_training:
            if self.is_held:
                self._wait(FRAME_SECONDS, title + HELD)
                if self.while_held is not None:
                    self.while_held()
                if self.wants_next:
                    break
            else:
                self._wait(min(FRAME_SECONDS, end - time.perf_counter()), title)
                if time.perf_counter() >= end and not self.is_held:
                    break
        self.frame_end = max(end, time.perf_counter())

    def _wait(self, seconds, title):
        """Draw the picture with a title, and let the window hear its events for a while."""
        self.picture.title.set_text(title)
        self._draw()
        self.canvas.start_event_loop(max(0.001, seconds))  # 0 would wait for ever

    def _on_key(self, event):
        if event.key == " ":
            self.is_held = not self.is_held
        elif event.key == "right":
            self.wants_next = self.is_held
        elif event.key in plt.rcParams["keymap.quit"]:  # matplotlib closes pyplot's windows only
            self.canvas.manager.destroy()

    def _on_close(self, event):
        if self.is_open:  # the user closed it
            self.is_open = False
            self.canvas.stop_event_loop()
            message = "the window is closed"
            if not self.is_last(self.look.epoch):
                message += ": training goes on without it, and Ctrl-C ends it"
            LOG.info(message)


def window_canvas():
    """Return the class of canvas to open windows with, None where there can be no window."""
    if threading.current_thread() is not threading.main_thread():
        return None
    chosen = matplotlib.get_backend(auto_select=False)
    try:
        # This loads the backend that pyplot would choose. In a notebook it also makes the user's
        # later plots show.
        plt.draw_if_interactive()
        canvas_class = backend_registry.load_backend_module(matplotlib.get_backend()).FigureCanvas
    except ImportError:
        return None
    can_blit = issubclass(canvas_class, FigureCanvasAgg) and canvas_class.supports_blit
    if can_blit and canvas_class.required_interactive_framework:
        return canvas_class
    if chosen is None and os.environ.get("DISPLAY") and not importlib.util.find_spec("_tkinter"):
        LOG.info("no live window: there is no tkinter (on Debian, install python3-tk)")
    return None


def new_window(canvas_class):
    """Return the canvas of a new window that is not shown yet. pyplot does not know the window."""
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with own_style(), plt.ioff():
            return canvas_class.new_manager(plt.Figure(SIZE), 0).canvas
    finally:
        # wx replaces the handler of Ctrl-C by one that kills the program.
        if on_interrupt is not None:
            signal.signal(signal.SIGINT, on_interrupt)


class NotebookCell(View):
    """Shows the picture below a notebook's cell, updated in place."""

    def open(self):
        ipython = sys.modules["IPython"]
        self.picture = Picture(self.look.measures, self.params["epochs"])
        self.cell = ipython.display.display(self.picture.image(), display_id=True)
        self.is_open = True

    def show(self):
        due = time.perf_counter() + FRAME_SECONDS
        self.cell.update(self.picture.image())
        time.sleep(max(0, due - time.perf_counter()))

    def close(self):
        self.is_open = False


class Animation(View):
    """Writes a GIF file of the training when it ends. The last frame stays for a while.

    If training or a look fails, the file has the frames so far. If a frame cannot be drawn, an old
    file stays.

    Args:
        look: the Look.
        path: the file.
        every: epochs from one frame to the next. Default: 1. Frames are held in memory.
    """

    def __init__(self, look, path, every=1):
        super().__init__(look, every)
        self.path = Path(path)
        self.failure = f"{path} failed"
        self.frames = []

    def open(self):
        self.picture = Picture(self.look.measures, self.params["epochs"])
        self.picture.figure.set_dpi(90)  # smaller than the window, to be drawn and sent faster
        self.frames = []
        self.is_open = True

    def show(self):
        self.frames.append(self.picture.image().quantize(64, Image.Quantize.FASTOCTREE))

    def _show_latest(self):
        try:
            super()._show_latest()
        except Exception:
            self.frames = []  # then `close` writes no file
            raise

    def close(self):
        self.is_open = False
        frames = self.frames
        self.frames = []
        if frames:
            first, *others = frames
            durations = [1000 * FRAME_SECONDS] * len(others) + [1000 * LAST_SECONDS]
            with replacing(self.path) as (file,):
                first.save(file, save_all=True, append_images=others, duration=durations, loop=0)
            LOG.info(f"animation saved in {self.path}")


def live_picture(look, every=1, while_held=None):
    """Return the view that suits the place: a window or, in a notebook without one, its cell."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        # What goes wrong here goes wrong again when the Window opens, and is reported there.
        with suppress(Exception):
            if window_canvas() is None:
                return NotebookCell(look, every)
    return Window(look, every, while_held)


class TrainingCSV(Watcher):
    """Writes a row an epoch, `epoch, dis_loss, gen_loss, w1`; w1 is NA where the Look did not look.

    Keras's CSVLogger counts epochs from 0.
    """

    def __init__(self, path):
        super().__init__()
        self.path = Path(path)
        self.failure = f"{path} failed"
        self.file = None

    def on_train_begin(self, logs=None):
        self.path.write_text("")
        # Appending writes at the end of the file, even if another run has emptied it meanwhile.
        self.file = self.path.open("a", buffering=1)
        self.file.write("epoch,dis_loss,gen_loss,w1\n")
        LOG.info(f"losses go to {self.path}")

    def on_epoch_end(self, epoch, logs=None):
        w1 = logs.get("w1", "NA")
        self.file.write(f"{epoch + 1},{logs['dis_loss']},{logs['gen_loss']},{w1}\n")

    def on_train_end(self, logs=None):
        if self.file is not None:
            self.file.close()


class ProgressLine(Watcher):
    """One line that updates on a terminal; elsewhere a log line every tenth of the training.

    Args:
        as_bar: whether it is the progress bar of Keras's `fit` also where there is no terminal.
            Default: False.
        sliced: prefix of the distance's name. Default: none.
    """

    failure = "the progress line failed"

    def __init__(self, as_bar=False, sliced=""):
        super().__init__()
        self.bar = None
        self.done = 0
        self.as_bar = as_bar
        self.labels = {"dis_loss": "dis_loss", "gen_loss": "gen_loss", "w1": f"{sliced}W1"}

    def on_train_begin(self, logs=None):
        self.done = 0
        self.bar = None

    def on_epoch_end(self, epoch, logs=None):
        epochs = self.params["epochs"]
        tenths_before = self.done * 10 // epochs
        self.done = epoch + 1
        values = [(label, logs[key]) for key, label in self.labels.items() if key in logs]
        if epoch == 0:
            # Created after the first epoch, so that its estimate does not include compiling.
            self.bar = self._make_bar()
        if self.bar is not None:
            self.bar.update(self.done, values)
        elif self.done * 10 // epochs > tenths_before:
            numbers = ", ".join(f"{label} = {value:.4g}" for label, value in values)
            LOG.info(f"epoch {self.done} of {epochs}: {numbers}")

    def _make_bar(self):
        """Return a progress bar, None if log lines suit the place better."""
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
        if not self.as_bar and not is_terminal:
            return None
        latest = self.labels.values()  # not averaged
        return keras.utils.Progbar(
            self.params["epochs"], width=10, stateful_metrics=latest, unit_name="epoch"
        )

    def on_train_end(self, logs=None):
        if self.bar is not None and self.done < self.params["epochs"]:
            self.bar.update(self.done, finalize=True)
        self.bar = None


class Dispensable(Watcher):
    """Wraps a callback that training can do without.

    If the callback fails, its attribute `failure` and the reason are reported, it is ended once,
    and it is left out.

    Args:
        callback: a Watcher. It is told when training begins and ends, and of every epoch that ends.
    """

    def __init__(self, callback):
        super().__init__()
        self.callback = callback
        self.has_failed = False

    @property
    def sees_weights_every(self):
        if self.has_failed:
            return math.inf
        return self.callback.sees_weights_every

    def on_train_begin(self, logs=None):
        self.has_failed = False
        self.callback.set_model(self.model)
        self.callback.set_params(self.params)
        self._hand_on("on_train_begin", logs)

    def on_epoch_end(self, epoch, logs=None):
        self._hand_on("on_epoch_end", epoch, logs)

    def on_train_end(self, logs=None):
        self._hand_on("on_train_end", logs)

    def _hand_on(self, hook, *arguments):
        if self.has_failed:
            return
        try:
            getattr(self.callback, hook)(*arguments)
        except REPORTABLE as error:
            report(self.callback.failure, error)
            self.has_failed = True
            if hook != "on_train_end":
                with suppress(*REPORTABLE):  # one report is enough
                    self.callback.on_train_end()


def with_views(gan, sample_list, callbacks, plot, verbose):
    """Return the callbacks of a user as a list, with those that show the training.

    These use the user's Look, if there is one. Otherwise a Look stands first, so that the logs of
    all have w1. The window stands behind all others, as it waits.
    """
    callbacks = keras.tree.flatten(callbacks or [])
    if not plot and not verbose:
        return callbacks
    looks = [item for item in callbacks if isinstance(item, Look) and item.gan is gan]
    if looks:
        look = looks[0]
    else:
        look = Look(gan, sample_list)
        callbacks.insert(0, Dispensable(look))
    if verbose:
        line = ProgressLine(as_bar=True, sliced=look.measures.sliced)
        callbacks.append(Dispensable(line))
    if plot:
        callbacks.append(Dispensable(live_picture(look)))
    return callbacks


# ---------------------------------------------------------------------------------------
# 8. The program
#
# It tries the places it will write to, trains, saves what was trained, and draws it. Where failures
# are decided (each makes the exit status 1, unless noted):
#
# Before training:
# - A bad command line: `parse_args`, status 2.
# - A place that cannot be written, and with -r a model that is missing: `try_places`. A model that
#   cannot be read, or is of other layers: `read_player`.
# - A graph that cannot be drawn is left out: `draw_graph`.
#
# During training:
# - A window, notebook, CSV file or animation that fails is left out: `Dispensable`. A Look that
#   cannot measure the GAN is left out, too, and its views close: `Look.latest`. An error inside a
#   toolkit's own event handler is printed by the toolkit, and does not count.
# - These are no failures: a missing display (`window_canvas`), a closed window (`Window`), a GAN
#   that XLA cannot compile (`TracedEpochs`).
# - Weights that are not finite end it: `check_results`. Too little memory, too: `memory_advice`.
# - An error of a user's own callback, in the library, goes to the caller of `train`: `in_training`.
#
# What is saved at the end:
# - After a failure of training, after a signal, and on a full disk: `Keeper`, which comes first. So
#   the log says first what was saved, and then what failed. The status after a signal is 128 plus
#   its number, but 1 if something failed, too.
# - A second Ctrl-C raises KeyboardInterrupt, after a save in progress: `Keeper`. `main` ends with
#   130, also if something failed before.
# - `kill -9`, or a display that dies, ends the process without a message, and with a status that we
#   do not choose. The models of the last save stay: `Keeper.save_when_due`. A save in progress
#   leaves the old files and a folder `.gan_unfinished_...`: `replacing`. Between its two renames it
#   leaves one new file and one old file, and `read_players` says so when they are loaded.
# - Of two runs in one folder the last save wins.
# - A picture of the end that cannot be drawn is left out: `run`.

CSV_FILE = "training.csv"
SAVE_SECONDS = 10  # between two saves during training
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # those that end training; Windows has no SIGHUP


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
    add("-every", "--plot_every", type=int, default=1, help="draw a frame every N epochs; a "
         "window shows each for 0.05 s, so 10 is faster than 1")
    add("-r", "--resume", action="store_true", help="go on from the models in --model_dir; with "
         "-e 0, just draw them")
    # fmt: on
    args = parser.parse_args(argv)
    # Without epochs the saved models can be drawn, but there is no frame for an animation.
    least = 0 if args.resume and args.gif is None else 1
    try:
        whole_number("-e/--epoch", args.epoch, least)
        whole_number("-b/--batch_size", args.batch_size)
        whole_number("-k/--step_per", args.step_per)
        whole_number("-n/--noise_dim", args.noise_dim)
        whole_number("-every/--plot_every", args.plot_every)
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


def try_places(args):
    """Make the folders of all that the run will write, and write there once.

    Raises an OSError that names the flag if a place cannot be written, or models to resume from are
    missing.
    """
    models = [Path(args.model_dir, name) for name in MODEL_FILES]
    if args.resume:
        for path in models:
            if not path.exists():
                raise FileNotFoundError(f"-r/--resume: {path} is missing")
    in_log_dir = ["gan_generator_model.png", "gan_discriminateor_model.png"]
    places = [("-o/--output", Path(args.output))]
    if args.epoch:
        in_log_dir.append(CSV_FILE)
        places += [("-m/--model_dir", path) for path in models]
    if args.gif is not None:
        places.append(("-gif/--gif", Path(args.gif)))
    if args.log_dir is not None:
        places += [("-log/--log_dir", Path(args.log_dir, name)) for name in in_log_dir]
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
            why = error.strerror or reason(error)  # not str(error): it names a temporary file
            raise OSError(f"{flag}: cannot write {path}: {why}") from error


class Keeper(Watcher):
    """Saves what was trained, whatever ends the run.

    One rule decides: the models are saved if an epoch finished before the first signal and all
    weights are finite. Otherwise the files stay as they are. A signal ends training when the
    running call into TensorFlow ends. A second Ctrl-C goes to whoever heard Ctrl-C before the
    program, usually Python, which raises a KeyboardInterrupt. One that comes during a save takes
    effect after it. The Keeper saves whatever epoch the weights are of, so no call has to end for
    it. It serves one training.

    Attributes:
        gan: the GANModel to save, every ten seconds and when training ends. None until it is made.
        signals: the numbers of the signals, in their order.
        heard_before: who heard each signal before, by its number.
        may_save: whether an epoch finished before the first signal.
        saved_epoch: the epoch after which the models were saved last. 0 before the first save.
        next_save: when they are saved again, as a time of `time.monotonic`.
        has_ended: whether training has ended, and what is left of it was saved.
        has_result: whether something can be drawn: `may_save`, and finite weights at the end.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.gan = None
        self.signals = []
        self.heard_before = {}
        self.may_save = False
        self.saved_epoch = 0
        self.next_save = time.monotonic() + SAVE_SECONDS
        self.has_ended = False
        self.has_result = False

    @contextmanager
    def hear_signals(self):
        """Within this context signals end training. Outside the main thread there are none."""
        numbers = []
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        try:
            for number in numbers:
                # nohup ignores SIGHUP, and so do we then. None is a handler that C code has set.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self.heard_before[number] = signal.signal(number, self._on_signal)
            yield
        finally:
            for number, handler in self.heard_before.items():
                signal.signal(number, handler)

    def _on_signal(self, number, frame):
        is_second = number == signal.SIGINT and number in self.signals
        self.signals.append(number)
        if self.model is not None:
            self.model.stop_training = True
        # Raise nothing at the first one: TensorFlow swallows an exception while it compiles.
        if is_second:
            handler = self.heard_before[number]
            if not callable(handler):  # the operating system would end the process
                handler = signal.default_int_handler
            handler(number, frame)

    @contextmanager
    def _uninterrupted(self):
        """Within this context Ctrl-C waits."""
        if signal.SIGINT not in self.heard_before:
            yield
            return
        waiting = []
        signal.signal(signal.SIGINT, lambda *arguments: waiting.append(arguments))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, self._on_signal)
            for arguments in waiting:
                self._on_signal(*arguments)

    def on_train_begin(self, logs=None):
        if self.signals:  # `in_training` has just reset it
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        if not self.signals:
            self.may_save = True
        self.save_when_due()

    def save_when_due(self):
        """Save what was trained since the last save, every ten seconds until training ends."""
        is_new = self.gan.epochs_done > self.saved_epoch and not self.has_ended
        if self.may_save and is_new and time.monotonic() >= self.next_save:
            with self._uninterrupted():
                try:
                    self.gan.save_model(self.folder)
                    self.saved_epoch = self.gan.epochs_done
                except Exception as error:  # it is tried again
                    LOG.warning(f"the models are not saved yet: {reason(error)}")
                self.next_save = time.monotonic() + SAVE_SECONDS

    def on_train_end(self, logs=None):
        if self.has_ended:
            return
        with self._uninterrupted():
            self.has_result = self.may_save and all_finite(self.model.get_weights())
            if self.has_result:
                self._save_result()
            else:
                self._say_what_is_left()
            self.has_ended = True

    def _save_result(self):
        """Save in the folder or, if that fails, in a new temporary one."""
        try:
            self.gan.save_model(self.folder)
            LOG.info(f"models saved in {self.folder}")
        except REPORTABLE as error:
            report(f"cannot save the models in {self.folder}", error)
            with reported("cannot save the models elsewhere"), ExitStack() as undo:
                folder = tempfile.mkdtemp(prefix="gan_models_")
                undo.callback(shutil.rmtree, folder, ignore_errors=True)
                self.gan.save_model(folder)
                undo.pop_all()
                LOG.error(f"the models are saved in {folder} instead")

    def _say_what_is_left(self):
        why = "no epoch was finished"
        if self.may_save:
            why = "weights are not finite"
        elif self.signals:
            why = "the signal came before the first epoch was done"
        if self.saved_epoch:
            saved = f"nothing saved at the end: {why}"
            files = f"those after epoch {self.saved_epoch} of this run"
        else:
            saved = f"nothing saved: {why}"
            files = "unchanged"
        LOG.warning(f"{saved}; the files in {self.folder} are {files}")


def run(args):
    """Try the places, train, save what was trained, and draw it. Returns the exit status."""
    keeper = Keeper(args.model_dir)
    with keeper.hear_signals():
        try_places(args)
        if args.seed is not None:
            keras.utils.set_random_seed(args.seed)
        samples = make_samples(args.batch_size * BATCHES, args.noise_dim, args.seed)
        gan = keeper.gan = make_gan(args.noise_dim, args.log_dir)
        if args.resume:
            gan.load_model(args.model_dir)
        look = Look(gan, samples)
        if args.epoch:
            callbacks = list_callbacks(args, keeper, look)
            # A failure is reported, and what was saved is drawn below.
            with reported("training failed"), memory_advice():
                gan.train(samples, args.epoch, args.batch_size, args.step_per, callbacks=callbacks)
            if keeper.signals and keeper.may_save and gan.epochs_done < args.epoch:
                LOG.warning(f"interrupted after {gan.epochs_done} of {args.epoch} epochs")
        if not args.epoch or keeper.has_result:
            with reported(f"cannot draw the picture {args.output}"):
                w1 = log_result(gan, look)
                title = make_title(args, gan.epochs_done, w1)
                save_picture(gan, samples, args.output, title, look.history)
    if FAILURES:
        return 1
    return 128 + keeper.signals[0] if keeper.signals else 0


def list_callbacks(args, keeper, look):
    """Return the callbacks of a run, in the order in which they work.

    The Keeper comes first: it saves before anything fails or waits. The Look comes before those
    that show its States and distances. The window comes last, as it waits.
    """
    callbacks = [look, ProgressLine()]
    if args.log_dir is not None:
        callbacks.append(TrainingCSV(Path(args.log_dir, CSV_FILE)))
    if args.gif is not None:
        callbacks.append(Animation(look, args.gif, args.plot_every))
    callbacks.append(live_picture(look, args.plot_every, keeper.save_when_due))
    return [keeper, *(Dispensable(callback) for callback in callbacks)]


@contextmanager
def memory_advice():
    """Say what helps if the block needs too much memory."""
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise MemoryError(
            "too much for the memory, try a smaller -b/--batch_size, -k/--step_per or "
            f"-n/--noise_dim: {reason(error)}"
        ) from error


def make_title(args, trained, w1):
    """Return the title of the picture: the settings, how long it was trained, and the result."""
    result = f"noise_dim = {args.noise_dim}, W1 = {w1:.3g}"
    if args.epoch == 0:
        return result
    epochs = "more epochs" if args.resume else "epochs"
    return f"K = {args.step_per}, {trained} {epochs}, {result}"


def log_result(gan, look):
    """Log in one line what the generator has learned. Returns W1."""
    generated = gan.generator_model(look.noise).numpy()
    d_output = gan.discriminateor_model(generated).numpy()
    real = look.measures.real
    w1 = look.measures.distance(generated)
    LOG.info(
        f"generated: mean {generated.mean():.3f}, standard deviation {generated.std():.3f}; "
        f"real: mean {real.mean():.3f}, standard deviation {real.std():.3f}; "
        f"Wasserstein-1 distance {w1:.3f}; D's mean output {d_output.mean():.3f}"
    )
    return w1


def main(argv=None):
    """Run the program. Returns 0, 1 if something failed, or 128 plus the number of a signal."""
    args = parse_args(argv)
    level = "ERROR" if args.log_lvl == "err" else args.log_lvl.upper()
    # At the level DEBUG the libraries say too much, so only our own lines go that low.
    app_logger.init("INFO" if level == "DEBUG" else level)
    LOG.setLevel(level)
    keras.config.set_floatx("float32")  # whatever keras.json says
    keras.config.set_epsilon(1e-7)
    FAILURES.clear()
    try:
        with memory_advice():
            return run(args)
    except KeyboardInterrupt:
        LOG.warning("ended by a second Ctrl-C")
        return 128 + signal.SIGINT
    except REPORTABLE as error:
        report("the run failed", error)
        return 1


if __name__ == "__main__":
    # Everything the imports made lives as long as the program. Keep the garbage collector from
    # scanning it.
    gc.freeze()
    sys.exit(main())
