"""A generator learns a Gaussian: the smallest GAN worth watching, in Keras.

Two networks play against each other (Goodfellow et al., "Generative Adversarial Nets", 2014,
https://arxiv.org/abs/1406.2661). The generator G turns uniform noise into samples, the
discriminator D says how likely it is that a sample is real. D learns to tell the two apart,
G learns to make that hard, until G's samples follow the Gaussian and D says 0.5 everywhere.

Read it from top to bottom: the losses, the GAN, the pictures, the demo.
"""

import os
import signal

if __name__ == "__main__":
    # As long as there is nothing to save, Ctrl-C just ends the program.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

# Keras and TensorFlow read these when they are imported.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import collections
import contextlib
import functools
import io
import json
import logging
import math
import numbers
import pathlib
import random
import sys
import tempfile
import threading
import time

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from keras.src.legacy.saving import legacy_h5_format
from matplotlib.animation import PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

import app_logger

try:
    import fcntl
except ImportError:  # Windows has no file locks of this kind
    fcntl = None

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "demo_gan needs Keras on TensorFlow, but this process runs Keras on "
        f"{keras.backend.backend()} already: import demo_gan before keras"
    )

LOG = logging.getLogger(__name__)


# ---------------------------------------------------------------------------------------
# 1. The losses
#
# D maximises mean(log D(x)) + mean(log(1 - D(G(z)))), G minimises mean(log(1 - D(G(z)))):
# equation 1 of the paper. D's training model outputs D(x) and 1 - D(G(z)), so that one loss
# serves both terms. There is nothing to compare the outputs with, so `y_true` is ignored.
# ---------------------------------------------------------------------------------------


def log_loss_discriminator(y_true, y_pred):
    """The discriminator's loss, -log p (Goodfellow et al. 2014, equation 1).

    Args:
        y_true: ignored.
        y_pred: the probability D gives to the truth, D(x) of real samples and 1 - D(G(z)) of
            generated ones; shape `(batch, 1)`, values in [0, 1].

    Returns:
        A tensor of the shape of `y_pred`. p is clipped from below at Keras's epsilon.
    """
    return -ops.log(ops.maximum(keras.config.epsilon(), y_pred))


def log_loss_generator(y_true, y_pred):
    """The generator's saturating loss, log(1 - p) (Goodfellow et al. 2014, equation 1).

    Args:
        y_true: ignored.
        y_pred: the probability D(G(z)); shape `(batch, 1)`, values in [0, 1].

    Returns:
        A tensor of the shape of `y_pred`. 1 - p is clipped from below at Keras's epsilon.
    """
    return ops.log(ops.maximum(keras.config.epsilon(), 1 - y_pred))


# ---------------------------------------------------------------------------------------
# 2. The GAN
#
# Two lists of layers make two networks, and the same layers make two models to train:
#
#   the discriminator's:  real y, noise x  ->  D(y), 1 - D(G(x))     with G frozen
#   the generator's:      noise x          ->  D(G(x))               with D frozen
#
# An epoch is `step_per` updates of D, then one of G. The networks are so small that calling
# Python for every update would cost ten times the arithmetic, so whole epochs are compiled.
# ---------------------------------------------------------------------------------------

GENERATOR_FILE = "gan_generator.h5"
DISCRIMINATEOR_FILE = "gan_discriminateor.h5"

# One compiled call runs epochs until a callback wants to look, but at most so many epochs,
# about so many seconds, and so many numbers in and out.
EPOCHS_PER_CALL = 50
SECONDS_PER_CALL = 0.1
NUMBERS_PER_CALL = 2**23


class Watcher(keras.callbacks.Callback):
    """A Keras callback that says how often it looks at the networks.

    `train` hands control back only when a callback wants to look. A callback of any other
    class may look after every epoch; a Watcher looks after every `every`-th one, or never if
    `every` is None, the default. Either way its `on_epoch_end` is called for each epoch, with
    the `logs` of that epoch.
    """

    every = None


@contextlib.contextmanager
def frozen(network):
    """In this context the layers of `network` do not train, and afterwards all is as before.

    Frozen as Keras means it: weights stay as they are, and so do the moving statistics of a
    BatchNormalization, which works with them as it does in inference.
    """
    parts = [part for layer in network for part in (*layer._flatten_layers(), *layer.variables)]
    flags = [part.trainable for part in parts]
    try:
        for layer in network:
            layer.trainable = False
        yield
    finally:
        for part, flag in zip(parts, flags):
            part.trainable = flag


def _like_outputs(model, target):
    return keras.tree.map_structure(lambda output: target, model.output)


def _epochs_to_next_look(callback, done):
    every = callback.every if isinstance(callback, Watcher) else 1
    return every - done % every if every else math.inf


class GANModel:
    """A GAN made of two lists of Keras layers.

    Args:
        input_dim: `[signal_dim, noise_dim]`, the sizes of a sample and of the noise it is
            made from, or one int for both.
        log_dir: folder for the graphs of the two training models, drawn when they are
            compiled: `gan_generator_model.png` and `gan_discriminateor_model.png`.
            Default: None, no graphs.

    Attributes:
        generator_model: Keras model, noise `(batch, noise_dim)` to samples
            `(batch, signal_dim)`; None before compiling or loading.
        discriminateor_model: Keras model, samples `(batch, signal_dim)` to the probability
            that they are real, `(batch, 1)`; None before compiling or loading.
        generator_training_model: the compiled model that trains G; None before compiling.
        discriminateor_training_model: the compiled model that trains D; None before compiling.
        train_status: `defaultdict(list)`. Each epoch appends a float to `"dis_loss"` (the
            mean over its updates of D) and to `"gen_loss"`; with `plot=True` it also appends
            the generated batch, an array `(batch_size, signal_dim)`, to `"gen_result"` and
            D's output on it, `(batch_size, 1)`, to `"dis_result"`.

    Raises:
        ValueError: if `input_dim` is neither a positive int nor two of them.
    """

    def __init__(self, input_dim, log_dir=None):
        dims = [input_dim] * 2 if isinstance(input_dim, numbers.Integral) else input_dim
        try:
            self.signal_dim, self.noise_dim = (_positive_int("input_dim", dim) for dim in dims)
        except (TypeError, ValueError):
            raise ValueError(
                "input_dim must be [signal_dim, noise_dim] or one int for both, all positive, "
                f"got {input_dim!r}"
            ) from None
        self.log_dir = log_dir
        self.generator_model = self.discriminateor_model = None
        self.generator_training_model = self.discriminateor_training_model = None
        self.train_status = collections.defaultdict(list)
        self._gen_layers, self._discr_layers = [], []
        self._compiled = {}  # a function that runs epochs, per shape of the data and K

    # -- wiring ---------------------------------------------------------------------------

    def add_gen_layer(self, layer):
        """Append a Keras layer to the generator.

        Args:
            layer: any Keras layer or model; the last one outputs `(batch, signal_dim)`.

        Raises:
            ValueError: if it is no Keras layer or is in the discriminator already, or if the
                GAN has its models already.
        """
        self._add(layer, self._gen_layers, self._discr_layers)

    def add_discr_layer(self, layer):
        """Append a Keras layer to the discriminator.

        Args:
            layer: any Keras layer or model; the last one outputs `(batch, 1)`, values in
                [0, 1].

        Raises:
            ValueError: if it is no Keras layer or is in the generator already, or if the GAN
                has its models already.
        """
        self._add(layer, self._discr_layers, self._gen_layers)

    def _add(self, layer, network, other_network):
        if not isinstance(layer, keras.Layer):
            raise ValueError(f"expected a Keras layer, got {layer!r}")
        if any(layer is other for other in other_network):
            raise ValueError(f"layer {layer.name!r} is in the other network already")
        if self.generator_model is not None:
            raise ValueError("layers can be added only before compiling and loading")
        network.append(layer)

    def _wire(self):
        """Return the four models by attribute name, all made of the same layers."""
        noise = keras.Input((self.noise_dim,), name="x")
        real = keras.Input((self.signal_dim,), name="y")

        def apply(name, network, inputs, width):
            if not network:
                raise ValueError(f"the {name} has no layers, add some first")
            outputs = inputs
            for layer in network:
                outputs = layer(outputs)
            if outputs.shape != (None, width):
                raise ValueError(
                    f"the {name} must end in shape {(None, width)}, got {outputs.shape}"
                )
            return outputs

        generated = apply("generator", self._gen_layers, noise, self.signal_dim)
        d_real = apply("discriminator", self._discr_layers, real, 1)
        d_generated = apply("discriminator", self._discr_layers, generated, 1)
        shared = {id(weight) for layer in self._gen_layers for weight in layer.weights}
        if any(id(weight) in shared for layer in self._discr_layers for weight in layer.weights):
            raise ValueError("generator and discriminator must not share weights")
        return {
            "generator_model": keras.Model(noise, generated, name="gan_generator"),
            "discriminateor_model": keras.Model(real, d_real, name="gan_discriminateor"),
            "generator_training_model": keras.Model(noise, d_generated),
            "discriminateor_training_model": keras.Model([real, noise], [d_real, 1 - d_generated]),
        }

    # -- compiling ------------------------------------------------------------------------

    def compile_generator_model(self, optimizer=None):
        """Wire the layers, unless that is done, and compile the generator's training model.

        Args:
            optimizer: Keras optimizer, its name or its config. An optimizer belongs to one
                set of weights: of one that is in use already, a copy with the same settings
                is taken. Default: a fresh Adam.

        Raises:
            ValueError: if a network has no layers or ends in another shape than it should,
                if Keras does not know the optimizer, or if the GAN was loaded without layers.
        """
        self._compile("generator", self._discr_layers, optimizer, log_loss_generator)

    def compile_discriminateor_model(self, optimizer=None):
        """Wire the layers, unless that is done, and compile the discriminator's training model.

        Args:
            optimizer: as for `compile_generator_model`.

        Raises:
            ValueError: as `compile_generator_model`.
        """
        self._compile("discriminateor", self._gen_layers, optimizer, [log_loss_discriminator] * 2)

    def _compile(self, name, other_network, optimizer, loss):
        self._refuse_if_only_loaded()
        optimizer = keras.optimizers.get("adam" if optimizer is None else optimizer)
        if optimizer.built:
            optimizer = optimizer.from_config(optimizer.get_config())
        if self.generator_model is None:
            vars(self).update(self._wire())
        model = getattr(self, f"{name}_training_model")
        with frozen(other_network):
            model.compile(optimizer, loss)
            # A compiled function that has to make variables is traced twice, so have Keras
            # make the optimizer's slots and the loss's trackers now.
            model.optimizer.build(model.trainable_variables)
            zeros = _like_outputs(model, ops.zeros((1, 1)))
            model.compute_loss(y=zeros, y_pred=zeros)
        self._compiled.clear()
        if self.log_dir is not None:
            draw_graph(model, pathlib.Path(self.log_dir, f"gan_{name}_model.png"))

    def _epochs_function(self):
        """Return the function that runs epochs, to be compiled.

        It takes the noise `(batch_count, batch_size, noise_dim)`, the real samples
        `(batch_count, batch_size, signal_dim)`, the batches that each epoch uses
        `(capacity, 2 * step_per + 1)`, and how many epochs to run, at most `capacity`. It
        returns how many it ran, whether all losses and weights stayed finite (it stops after
        the epoch that spoils one), and the histories of dis_loss, gen_loss, gen_result and
        dis_result, each `capacity` long.
        """
        generator, discriminator = self.generator_training_model, self.discriminateor_training_model

        def update(model, inputs, ignored, other_network):
            # Keras 3 reads the `trainable` flags when a step is traced, whatever they were
            # when the model was compiled: each phase must say which network stays as it is.
            with frozen(other_network):
                return model.train_step((inputs, _like_outputs(model, ignored)))["loss"]

        def run_epochs(noise, real, draws, epochs):
            step_per, batch_size = draws.shape[1] // 2, noise.shape[1]
            ignored = ops.zeros((batch_size, 1))

            def one_epoch(epoch, finite, history):
                batches = draws[epoch]
                generator.reset_metrics()
                discriminator.reset_metrics()

                def discriminator_update(k, mean_loss):
                    # tf.gather, because XLA compiles noise[i] anew for every i.
                    x, y = tf.gather(noise, batches[2 * k]), tf.gather(real, batches[2 * k + 1])
                    return k + 1, update(discriminator, [y, x], ignored, self._gen_layers)

                _, dis_loss = tf.while_loop(
                    lambda k, _: k < step_per, discriminator_update, (0, tf.zeros((), noise.dtype))
                )
                x = tf.gather(noise, batches[-1])
                gen_loss = update(generator, x, ignored, self._discr_layers)

                generated = self.generator_model(x, training=False)
                judged = self.discriminateor_model(generated, training=False)
                record = dis_loss, gen_loss, generated, judged
                history = [
                    array.write(epoch, tf.cast(value, noise.dtype))
                    for array, value in zip(history, record)
                ]
                flat = [  # the generator's training model has the weights of both networks
                    tf.reshape(tf.cast(value, noise.dtype), [-1])
                    for value in (dis_loss, gen_loss, *generator.weights)
                ]
                return epoch + 1, tf.reduce_all(tf.math.is_finite(tf.concat(flat, 0))), history

            # Without their shapes XLA would compile the loop's body twice.
            shapes = (), (), (batch_size, self.signal_dim), (batch_size, 1)
            history = [tf.TensorArray(noise.dtype, draws.shape[0], element_shape=s) for s in shapes]
            epochs, finite, history = tf.while_loop(
                lambda epoch, finite, _: (epoch < epochs) & finite, one_epoch, (0, True, history)
            )
            return epochs, finite, [array.stack() for array in history]

        # XLA fuses the many small operations of an epoch; a layer may say that it cannot.
        networks = self._gen_layers + self._discr_layers
        xla = all(part.supports_jit for layer in networks for part in layer._flatten_layers())
        return tf.function(run_epochs, jit_compile=xla, autograph=False)

    # -- training -------------------------------------------------------------------------

    def train(self, sample_list, epoch=3, batch_size=32, step_per=10, plot=False, callbacks=None):
        """Train both networks; calling it again goes on training.

        Batch i is rows i * batch_size to (i + 1) * batch_size - 1 of the data; rows that do
        not fill a batch are left out. Which batches an epoch uses comes from Python's
        `random`: for each update of the discriminator one draw for the noise, then one for
        the real samples, and at last one for the generator's noise.

        Args:
            sample_list: `{"x": noise (n, noise_dim), "y": real samples (n, signal_dim)}`,
                anything numpy makes arrays of real numbers from.
            epoch: number of epochs. Default: 3.
            batch_size: rows of a batch. Default: 32.
            step_per: updates of the discriminator per epoch, the article's K. Default: 10.
            plot: whether to keep each epoch's generated batch in `train_status` and, where
                there is a display, to show the training in a window. Default: False.
            callbacks: Keras callback, or list of them. They get `on_train_begin`, `on_epoch_begin`,
                `on_epoch_end` with `dis_loss` and `gen_loss` in its `logs`, and
                `on_train_end`, however training ends; their `model` is the generator's
                training model, and setting its `stop_training` is honoured. See `Watcher`
                for callbacks that need not be asked after every epoch. Default: none.

        Raises:
            ValueError: if an argument is not what it should be, or if the GAN is not
                compiled. Nothing has changed then.
            FloatingPointError: after an epoch that left a loss or a weight that is not finite.
        """
        self._refuse_if_only_loaded()
        for name in ("generator", "discriminateor"):
            model = getattr(self, f"{name}_training_model")
            if model is None or not model.compiled:
                raise ValueError(f"call compile_{name}_model() before train()")
        epoch = _positive_int("epoch", epoch)
        batch_size = _positive_int("batch_size", batch_size)
        step_per = _positive_int("step_per", step_per)
        callbacks = keras.tree.flatten(callbacks or [])
        if not all(isinstance(callback, keras.callbacks.Callback) for callback in callbacks):
            raise ValueError(f"callbacks must be Keras callbacks, got {callbacks!r}")
        noise, real = self._check_samples(sample_list, batch_size)

        batch_count = len(noise) // batch_size
        noise, real = (
            tf.constant(rows[: batch_count * batch_size].reshape(batch_count, batch_size, -1))
            for rows in (noise, real)
        )
        numbers_per_epoch = 2 * step_per + 1 + batch_size * (self.signal_dim + 1)
        capacity = max(1, min(EPOCHS_PER_CALL, NUMBERS_PER_CALL // numbers_per_epoch))
        draws = np.zeros((capacity, 2 * step_per + 1), "int32")
        key = noise.shape, real.shape, draws.shape
        if key not in self._compiled:
            arguments = noise, real, tf.constant(draws), tf.constant(0)
            self._compiled[key] = self._epochs_function().get_concrete_function(*arguments)
        run_epochs = self._compiled[key]

        if plot:
            callbacks.insert(0, LiveWindow(self, sample_list, batch_size))
        model = self.generator_training_model
        model.stop_training = False
        params = {"epochs": epoch, "steps": 1, "verbose": 1}
        watchers = keras.callbacks.CallbackList(callbacks, model=model, **params)
        done, at_once = 0, 1
        try:
            watchers.on_train_begin()
            while done < epoch and not model.stop_training:
                looks = [_epochs_to_next_look(callback, done) for callback in watchers.callbacks]
                count = min(at_once, capacity, epoch - done, *looks)
                for i in range(count):
                    draws[i] = [random.randint(0, batch_count - 1) for _ in draws[i]]

                watchers.on_epoch_begin(done)
                start = time.perf_counter()
                count, finite, history = run_epochs(
                    noise, real, tf.constant(draws), tf.constant(count)
                )
                count, finite = int(count), bool(finite)
                at_once = max(1, int(count * SECONDS_PER_CALL / (time.perf_counter() - start)))

                dis_loss, gen_loss, gen_result, dis_result = (h.numpy()[:count] for h in history)
                self.train_status["dis_loss"] += dis_loss.tolist()
                self.train_status["gen_loss"] += gen_loss.tolist()
                if plot:
                    self.train_status["gen_result"] += list(gen_result.copy())
                    self.train_status["dis_result"] += list(dis_result.copy())
                for i in range(count):
                    if i > 0:
                        watchers.on_epoch_begin(done + i)
                    logs = {"dis_loss": float(dis_loss[i]), "gen_loss": float(gen_loss[i])}
                    watchers.on_epoch_end(done + i, logs)
                done += count
                if not finite:
                    raise FloatingPointError(
                        f"training diverged in epoch {done}: a loss or a weight is not finite "
                        f"(dis_loss = {dis_loss[-1]}, gen_loss = {gen_loss[-1]})"
                    )
        finally:
            watchers.on_train_end()

    def _check_samples(self, sample_list, batch_size):
        """Return noise and real samples as float arrays of equal length."""
        try:
            samples = [sample_list["x"], sample_list["y"]]
        except (KeyError, TypeError, IndexError):
            got = list(sample_list) if isinstance(sample_list, dict) else type(sample_list).__name__
            raise ValueError(
                f'sample_list must be {{"x": noise, "y": real samples}}, got {got}'
            ) from None
        for i, (key, width) in enumerate((("x", self.noise_dim), ("y", self.signal_dim))):
            expected = f'sample_list["{key}"] must be finite real numbers of shape (n, {width})'
            try:
                rows = np.asarray(samples[i])
            except ValueError:
                raise ValueError(f"{expected}, got rows of different lengths") from None
            if rows.ndim != 2 or rows.shape[1] != width:
                raise ValueError(f"{expected}, got shape {rows.shape}")
            if rows.dtype.kind not in "biuf":
                raise ValueError(f"{expected}, got {rows.dtype}")
            with np.errstate(over="ignore"):
                samples[i] = rows.astype(keras.config.floatx())
            if not np.isfinite(samples[i]).all():
                raise ValueError(f"{expected}, got some that are not finite")
        noise, real = samples
        if len(noise) != len(real):
            raise ValueError(
                'sample_list["x"] and sample_list["y"] must have as many rows as each other, '
                f"got {len(noise)} and {len(real)}"
            )
        if batch_size > len(noise):
            raise ValueError(
                f"batch_size must be at most the number of rows, {len(noise)}, got {batch_size}"
            )
        return noise, real

    # -- saving and loading ---------------------------------------------------------------

    def save_model(self, path_dir):
        """Write `gan_generator.h5` and `gan_discriminateor.h5`, whole or not at all.

        The files hold `generator_model` and `discriminateor_model`, as
        `keras.models.load_model` reads them.

        Args:
            path_dir: the folder; made if it does not exist.

        Raises:
            ValueError: if there are no models yet.
            OSError: if the files cannot be written; what was there is untouched.
        """
        if self.generator_model is None:
            raise ValueError("there is nothing to save before compiling or loading")
        folder = pathlib.Path(path_dir)
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / GENERATOR_FILE, folder / DISCRIMINATEOR_FILE
        with replacing(*paths) as files:
            files[0].write_bytes(_hdf5(self.generator_model))
            files[1].write_bytes(_hdf5(self.discriminateor_model))

    def load_model(self, path_dir):
        """Read both networks from a folder that `save_model`, or the article's program, wrote.

        A GAN whose layers were added takes the weights only and can go on training. A GAN
        without layers gets `generator_model` and `discriminateor_model`, for use only. Either
        way no code from the files is run, and if one file is not right the GAN stays as it was.

        Args:
            path_dir: the folder.

        Raises:
            FileNotFoundError: if one of the two files is missing.
            ValueError: if one of them is not a model that fits this GAN.
        """
        generator_file = pathlib.Path(path_dir, GENERATOR_FILE)
        discriminateor_file = pathlib.Path(path_dir, DISCRIMINATEOR_FILE)
        _check_model_file(generator_file, "gan_discriminateor")
        _check_model_file(discriminateor_file, "gan_generator")
        if self._gen_layers or self._discr_layers:
            models = self._wire() if self.generator_model is None else vars(self)
            generator, discriminateor = models["generator_model"], models["discriminateor_model"]
            before = generator.get_weights(), discriminateor.get_weights()
            try:
                _load_weights(generator, generator_file)
                _load_weights(discriminateor, discriminateor_file)
            except BaseException:
                generator.set_weights(before[0])
                discriminateor.set_weights(before[1])
                raise
            vars(self).update(models)
        else:
            generator = _load_whole_model(generator_file, self.noise_dim, self.signal_dim)
            discriminateor = _load_whole_model(discriminateor_file, self.signal_dim, 1)
            self.generator_model, self.discriminateor_model = generator, discriminateor

    def _refuse_if_only_loaded(self):
        if self.generator_model is not None and self.generator_training_model is None:
            raise ValueError(
                "this GAN was loaded without layers, for use only: "
                "to train, add layers to a new GANModel, load_model() and compile"
            )


# -- files: written whole or not at all, and read without running code -------------------


@contextlib.contextmanager
def replacing(*paths):
    """Give a temporary name for each path; afterwards put the files written there in place.

    The old files are untouched until then. One process at a time replaces files in a folder;
    one that is killed leaves temporary files, which the next to write there writes over.

    Args:
        paths: files in one folder, which exists.

    Raises:
        OSError: if a file cannot be written or put in place.
    """
    temporary = [path.with_name(f".{path.stem}.part{path.suffix}") for path in paths]
    with contextlib.ExitStack() as lock:
        if fcntl is not None:
            folder = os.open(paths[0].parent, os.O_RDONLY)
            lock.callback(os.close, folder)
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(folder, fcntl.LOCK_EX)
        try:
            yield temporary
            for file in temporary:
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
            for file, path in zip(temporary, paths):
                file.replace(path)
        finally:
            for file in temporary:
                file.unlink(missing_ok=True)


def _hdf5(model):
    """The bytes of a model's .h5 file, by the function that `model.save` calls.

    Called with a file in memory it has no full disk to trip over, where h5py leaves half-open
    files and prints tracebacks. Nor does it advise against the format, as `model.save` does.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        legacy_h5_format.save_model_to_hdf5(model, file)
    return buffer.getvalue()


def _check_model_file(path, other_name):
    """Raise unless the file is there, is HDF5 and names a model that is not `other_name`."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    try:
        with h5py.File(path) as file:
            name = json.loads(file.attrs["model_config"])["config"]["name"]
    except OSError:
        raise ValueError(f"{path} is no HDF5 file, or not a whole one") from None
    except Exception:
        raise ValueError(f"{path} is HDF5, but holds no Keras model") from None
    if name == other_name:
        raise ValueError(f"{path} holds the other network, were the two files swapped?")


def _load_weights(model, path):
    """Set the weights of `model` from a file, by order and shape; no code is read."""
    try:
        model.load_weights(path)
    except Exception as error:
        raise ValueError(f"{path} does not fit the layers: {first_line(error)}") from error
    _check_finite(model, path)


def _load_whole_model(path, input_dim, output_dim):
    """Return the model in a file, made of Keras's own layers or registered ones only."""
    try:
        model = keras.models.load_model(path, compile=False)
        shapes = model.input_shape, model.output_shape
    except Exception as error:
        raise ValueError(
            f"{path} cannot be loaded without its layers, add them first: {first_line(error)}"
        ) from error
    if shapes != ((None, input_dim), (None, output_dim)):
        raise ValueError(
            f"{path} must hold a model from shape {(None, input_dim)} to {(None, output_dim)}, "
            f"got one from {shapes[0]} to {shapes[1]}"
        )
    _check_finite(model, path)
    return model


def _check_finite(model, path):
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise ValueError(f"{path} holds weights that are not finite")


def _positive_int(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def first_line(error):
    """What went wrong, in one line of at most 300 characters."""
    if isinstance(error, OSError) and error.errno:
        return f"{os.strerror(error.errno)}" + (f": {error.filename}" if error.filename else "")
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


# ---------------------------------------------------------------------------------------
# 3. The pictures
#
# Training knows nothing of what follows, but for `plot=True` and `log_dir`. `gan_state` gathers
# what there is to see, a Picture draws it, and Keras callbacks decide when: one shows a window,
# one writes an animation. In every picture green is generated, black is real, red is what D
# says.
# ---------------------------------------------------------------------------------------

BINS = 40
TRAIL = 20  # epochs
FRAME_SECONDS = 0.05  # the article's pace
W1_LIMITS = (0.01, 30)  # in standard deviations of the real samples
MAX_PANELS = 4  # components of a sample that are shown


def wasserstein(a, b):
    """The Wasserstein-1 distance of two samples of equal size, averaged over components.

    In one dimension it is the mean distance of the sorted samples (Villani, "Optimal
    Transport", 2009, remark 2.19).

    Args:
        a: array `(n, dim)`.
        b: array `(n, dim)`.

    Returns:
        A float, in the unit of the samples; 0 when they are the same.
    """
    return float(np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean())


def histogram(samples, edges):
    """The share of samples in each bin.

    Args:
        samples: array `(n, dim)`.
        edges: array `(dim, bins + 1)`, increasing.

    Returns:
        An array `(dim, bins)` whose rows sum to 1: what lies beyond the edges counts in the
        outermost bins.
    """
    columns = np.clip(samples.T, edges[:, :1], edges[:, -1:])
    counts = [np.histogram(column, row)[0] for column, row in zip(columns, edges)]
    return np.array(counts) / len(samples)


def bin_edges(real):
    """Bins over the range of the real samples and a third as much again on either side.

    Args:
        real: array `(n, dim)`.

    Returns:
        An array `(dim, BINS + 1)`.
    """
    low, high = real.min(axis=0), real.max(axis=0)
    margin = np.maximum((high - low) / 3, 1e-3)
    return np.linspace(low - margin, high + margin, BINS + 1, axis=1)


def predict(model, rows, at_once=4096):
    """The model's output for an array of rows, as an array, without a progress bar."""
    parts = [model.predict_on_batch(rows[i : i + at_once]) for i in range(0, len(rows), at_once)]
    return np.concatenate(parts)


def _arrays(sample_list):
    return np.asarray(sample_list["x"], "float32"), np.asarray(sample_list["y"], "float32")


def gan_state(gan, noise, real, edges, whole_axis):
    """What there is to see of a GAN.

    Args:
        gan: a GANModel.
        noise: array `(n, noise_dim)`.
        real: array `(m, signal_dim)`.
        edges: as `bin_edges` returns them.
        whole_axis: whether D is asked all along the axis, or at the generated samples only.

    Returns:
        A dict of curves `(x, y)`, by name and component of the samples. `("generated", i)` and
        `("real", i)`: the share of samples in each bin. If signal_dim is 1 also
        `("decision", 0)`: D's output; and with whole_axis `("optimal", 0)`: the output, in
        each bin, of the D that is optimal for the two histograms, real / (real + generated)
        (Goodfellow et al. 2014, proposition 1), nan where there are no samples.
    """
    generated = predict(gan.generator_model, noise)
    centres = (edges[:, :-1] + edges[:, 1:]) / 2
    state = {}
    for name, samples in (("generated", generated), ("real", real)):
        for i, shares in enumerate(histogram(samples, edges)):
            state[name, i] = centres[i], shares
    if gan.signal_dim == 1:
        signal = np.linspace(*edges[0, [0, -1]], 201) if whole_axis else np.sort(generated[:, 0])
        state["decision", 0] = signal, predict(gan.discriminateor_model, signal[:, None])[:, 0]
        if whole_axis:
            p, q = state["real", 0][1], state["generated", 0][1]
            optimal = np.divide(p, p + q, out=np.full(len(p), np.nan), where=p + q > 0)
            state["optimal", 0] = centres[0], optimal
    return state


class Picture:
    """A figure of a GAN: histograms, D's output below them, W1 over the epochs beside them.

    Args:
        figure: an empty matplotlib figure.
        real: all real samples, `(n, signal_dim)`; they fix the axes, so that nothing jumps.
            What lies beyond the axes is shown at their edge.
        epochs: how many epochs the W1 axis spans.
        every: epochs from one state to the next. Default: 1.
    """

    SIZE = (8, 4.5)  # inches

    def __init__(self, figure, real, epochs, every=1):
        self.edges = bin_edges(real)
        self.figure = figure
        self._alphas = np.linspace(0.05, 0.35, math.ceil(TRAIL / every))
        self._artists, self._background = [], None
        self._lines, self._trails, self._past = {}, {}, {}
        dims = len(self.edges)
        rows = min(dims, MAX_PANELS)
        grid = figure.add_gridspec(
            rows + (dims == 1), 2, width_ratios=(2, 1), height_ratios=(3, 2) if dims == 1 else None,
            left=0.09, right=0.97, bottom=0.11, top=0.92, wspace=0.24,
            hspace=0.1 if dims == 1 else 0.1 * (rows + 1),
        )  # fmt: skip
        self.histograms = [figure.add_subplot(grid[i, 0]) for i in range(rows)]
        top = min(1.3, 3 * histogram(real, self.edges).max())
        for i, axes in enumerate(self.histograms):
            axes.set(xlim=self.edges[i, [0, -1]], ylim=(0, top), ylabel="share of samples")
            self._curve(axes, ("real", i), "ko-", label="real")
            self._curve(axes, ("generated", i), "go-", label="generated")
            if dims > 1:
                axes.set_ylabel(f"component {i + 1}")
        self._with_legend = [self.histograms[0]]
        bottom = self.histograms[-1]
        if dims == 1:
            bottom = figure.add_subplot(grid[1, 0], sharex=self.histograms[0])
            bottom.set(ylim=(-0.05, 1.45), yticks=(0, 0.5, 1), ylabel="D's output")
            bottom.axhline(0.5, color="0.6", linestyle=":", linewidth=1, label="0.5: cannot tell")
            self._curve(bottom, ("optimal", 0), "-", color="0.6", linewidth=1, label="optimal D")
            self._curve(bottom, ("decision", 0), "r--", label="D")
            self.histograms[0].tick_params(labelbottom=False)
            self._with_legend.append(bottom)
        bottom.set_xlabel("sample (the outermost bins count all beyond)")

        distance = figure.add_subplot(grid[:, 1])
        limits = np.array(W1_LIMITS) * max(real.std(), 1e-3)
        distance.set(xlim=(0, max(epochs, 1)), yscale="log", ylim=limits, xlabel="epoch")
        distance.set_title("Wasserstein-1 distance", fontsize="medium", color="0.3")
        distance.yaxis.set_major_formatter("{x:g}")  # and not powers of ten, slow to typeset
        distance.grid(color="0.9")
        (self._w1,) = distance.plot([], [], ".-", color="0.3", linewidth=1, markersize=2)
        self._title = self.histograms[0].set_title("", loc="left")
        self._artists += [self._w1, self._title]

    def _curve(self, axes, name, style, **properties):
        (line,) = axes.plot([], [], style, markersize=3, **properties)
        trail = axes.add_collection(LineCollection([], linewidths=0.7), autolim=False)
        self._lines[name], self._trails[name] = line, trail
        self._past[name] = collections.deque(maxlen=len(self._alphas))
        self._artists += [trail, line]

    def draw(self, state, title, w1_history):
        """Show a state; those shown before stay as a fading trail.

        Args:
            state: as `gan_state` returns it.
            title: text above the picture.
            w1_history: list of `(epoch, w1)`.
        """

        def within(axes, points):
            return np.clip(points, *np.transpose([axes.get_xlim(), axes.get_ylim()]))

        for name, line in self._lines.items():
            if name in state:
                past, trail = self._past[name], self._trails[name]
                alphas = self._alphas[len(self._alphas) - len(past) :]
                trail.set_segments(list(past))
                trail.set_color([to_rgba(line.get_color(), alpha) for alpha in alphas])
                past.append(within(line.axes, np.column_stack(state[name])))
                line.set_data(*past[-1].T)
        if w1_history:
            self._w1.set_data(*within(self._w1.axes, w1_history).T)
        self._title.set_text(title)
        for axes in self._with_legend:
            if axes.get_legend() is None:
                shown = [line for line in axes.lines if len(line.get_xdata())]
                axes.legend(handles=shown, loc="upper right", ncols=3, fontsize="small")

    def animate(self):
        """Prepare for many frames: axes and text are drawn once, only the curves each time."""
        for artist in self._artists:
            artist.set_animated(True)
        self.figure.canvas.mpl_connect("draw_event", self._keep_background)

    def render(self):
        """Draw the next frame on the canvas, after `animate`."""
        canvas = self.figure.canvas
        if self._background is None:
            canvas.draw()
        else:
            canvas.restore_region(self._background)
            self._draw_artists()

    def _keep_background(self, event):
        # Everything was drawn anew: the first frame, or the window has another size.
        self._background = self.figure.canvas.copy_from_bbox(self.figure.bbox)
        self._draw_artists()

    def _draw_artists(self):
        for artist in self._artists:
            self.figure.draw_artist(artist)


def save_picture(gan, sample_list, path, title, w1_history=()):
    """Save a picture of the GAN on the whole data set.

    Args:
        gan: a GANModel.
        sample_list: as `GANModel.train` takes it.
        path: the file; its ending says the format, any that matplotlib writes.
        title: text above the picture.
        w1_history: list of `(epoch, w1)`.

    Raises:
        OSError: if the file cannot be written; what was there is untouched.
    """
    noise, real = _arrays(sample_list)
    picture = Picture(Figure(Picture.SIZE), real, w1_history[-1][0] if w1_history else 1)
    state = gan_state(gan, noise, real, picture.edges, whole_axis=True)
    for i, axes in enumerate(picture.histograms):
        axes.set_ylim(0, 1.3 * max(state["real", i][1].max(), state["generated", i][1].max()))
    picture.draw(state, title, w1_history)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as (file,):
        picture.figure.savefig(file)


class Distance(Watcher):
    """Measures the Wasserstein-1 distance, on 20,000 samples at most.

    It adds `w1` to the `logs` of the epochs in which it looks, every `every`-th and the last,
    for the callbacks that come after it.

    Args:
        gan: a GANModel.
        sample_list: as `GANModel.train` takes it.
        every: epochs from one look to the next. Default: 1.

    Attributes:
        history: list of `(epoch, w1)`; epochs count from 1.
    """

    def __init__(self, gan, sample_list, every=1):
        super().__init__()
        self.gan, self.every, self.history = gan, every, []
        self.noise, self.real = _arrays(sample_list)

    def on_epoch_end(self, epoch, logs=None):
        epoch += 1
        if self.every and (epoch % self.every == 0 or epoch == self.params["epochs"]):
            if "w1" not in logs:
                some = slice(None, None, math.ceil(len(self.real) / 20_000))
                generated = predict(self.gan.generator_model, self.noise[some])
                logs["w1"] = wasserstein(generated, self.real[some])
            self.history.append((epoch, logs["w1"]))
            self.look(epoch)

    def look(self, epoch):
        """Called after measuring; epochs count from 1."""


class Frames(Distance):
    """Draws a frame every `every` epochs: a batch as the article shows it, not all data.

    Args:
        gan, sample_list, every: as for `Distance`.
        batch_size: samples in a frame. Default: 32.
    """

    def __init__(self, gan, sample_list, batch_size=32, every=1):
        super().__init__(gan, sample_list, every)
        self.batch_size = batch_size

    def look(self, epoch):
        start = epoch % (len(self.real) // self.batch_size) * self.batch_size
        batch = slice(start, start + self.batch_size)
        state = gan_state(
            self.gan, self.noise[batch], self.real[batch], self.picture.edges, whole_axis=False
        )
        self.picture.draw(state, f"epoch = {epoch}", self.history)
        self.show()


class LiveWindow(Frames):
    """Shows the frames in a window, 20 a second; without a display it does nothing."""

    def __init__(self, gan, sample_list, batch_size=32, every=1):
        super().__init__(gan, sample_list, batch_size, every)
        self.figure, self.frame_every = None, every

    def on_train_begin(self, logs=None):
        import matplotlib.pyplot as plt

        self.every = None
        try:
            with plt.ioff():
                figure = plt.figure(figsize=Picture.SIZE)
        except Exception as error:  # each toolkit has its own for a display it cannot use
            LOG.debug("no live window: %s", first_line(error))
            return
        canvas = figure.canvas
        if canvas.required_interactive_framework is None or not canvas.supports_blit:
            plt.close(figure)
            return
        self.figure, self.every = figure, self.frame_every
        self.picture = Picture(figure, self.real, self.params["epochs"], self.every)
        self.picture.animate()
        canvas.mpl_connect("close_event", self._forget_window)
        canvas.manager.show()
        self.due = time.perf_counter()

    def _forget_window(self, event):
        self.figure = self.every = None

    def show(self):
        canvas = self.figure.canvas
        self.picture.render()
        canvas.blit(self.figure.bbox)
        self.due = max(self.due + FRAME_SECONDS, time.perf_counter())
        while self.figure is not None:
            canvas.flush_events()
            wait = self.due - time.perf_counter()
            if wait <= 0:
                break
            time.sleep(min(wait, 0.01))

    def on_train_end(self, logs=None):
        if self.figure is not None:
            import matplotlib.pyplot as plt

            plt.close(self.figure)
        self.every = self.frame_every


class FrameWriter(PillowWriter):
    """matplotlib's GIF writer, but frames are what the canvas shows, in the picture's colours."""

    def setup(self, fig, outfile, dpi=None):
        super().setup(fig, outfile, dpi)
        ramps = [np.linspace(to_rgba(color), (1, 1, 1, 1), 30)[:, :3] for color in "kgr"]
        self.palette = Image.new("P", (1, 1))
        self.palette.putpalette((np.concatenate(ramps) * 255).astype("uint8").tobytes())

    def grab_frame(self):
        image = Image.fromarray(np.asarray(self.fig.canvas.buffer_rgba())[:, :, :3])
        self._frames.append(image.quantize(palette=self.palette, dither=Image.Dither.NONE))


class Animation(Frames):
    """Writes the frames of the live window to a GIF file when training ends.

    Args:
        gan, sample_list, batch_size, every: as for `Frames`.
        path: the file.

    Raises:
        OSError: when training ends, if the file cannot be written.
    """

    def __init__(self, gan, sample_list, path, batch_size=32, every=1):
        super().__init__(gan, sample_list, batch_size, every)
        self.path = pathlib.Path(path)

    def on_train_begin(self, logs=None):
        figure = Figure(Picture.SIZE)
        FigureCanvasAgg(figure)
        self.picture = Picture(figure, self.real, self.params["epochs"], self.every)
        self.picture.animate()
        self.writer = FrameWriter(fps=1 / FRAME_SECONDS)
        self.writer.setup(figure, self.path)

    def show(self):
        self.picture.render()
        self.writer.grab_frame()

    def on_train_end(self, logs=None):
        if self.history:
            with replacing(self.path) as (self.writer.outfile,):
                self.writer.finish()


class TrainingCSV(keras.callbacks.CSVLogger, Watcher):
    """Writes `epoch, dis_loss, gen_loss, w1` to a file, a row an epoch, epochs from 1.

    Where w1 was not measured the row says NA.

    Args:
        filename: the file; a file that is there is replaced.
    """

    def on_train_begin(self, logs=None):
        # A file of its own from the first row on, whoever else writes under this name.
        path = pathlib.Path(self.filename)
        with replacing(path) as (self.filename,):
            super().on_train_begin(logs)
        self.filename = path
        self.keys = ["dis_loss", "gen_loss", "w1"]

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch + 1, logs)


class Progress(Watcher):
    """One line that updates on a terminal; elsewhere a log line every tenth of the run."""

    def on_train_begin(self, logs=None):
        self.bar = None
        if sys.stdout is not None and sys.stdout.isatty():
            losses = ["dis_loss", "gen_loss"]
            self.bar = keras.utils.Progbar(
                self.params["epochs"], width=10, stateful_metrics=losses, unit_name="epoch"
            )

    def on_epoch_end(self, epoch, logs=None):
        epoch, epochs = epoch + 1, self.params["epochs"]
        if self.bar is not None:
            losses = [(name, logs[name]) for name in ("dis_loss", "gen_loss")]
            self.bar.update(epoch, losses, finalize=epoch == epochs or self.model.stop_training)
        elif epoch * 10 // epochs > (epoch - 1) * 10 // epochs:
            LOG.info(
                "epoch %d of %d: dis_loss = %.4f, gen_loss = %.4f",
                epoch, epochs, logs["dis_loss"], logs["gen_loss"],
            )  # fmt: skip


def draw_graph(model, path):
    """Draw a Keras model with its shapes; without Graphviz, say once what to install.

    Args:
        model: a Keras model.
        path: the PNG file.

    Raises:
        OSError: if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as (file,):
            keras.utils.plot_model(model, file, show_shapes=True)
    except ImportError:
        _warn_of_no_graphviz()


@functools.cache
def _warn_of_no_graphviz():
    LOG.warning("no model graphs: install Graphviz (its `dot` program) and pydot to get them")


# ---------------------------------------------------------------------------------------
# 4. The demo
#
# The article's networks and data, its command line, and all the care it takes that nothing
# trained is lost: everything is tried before training, and models are saved whatever happens.
# ---------------------------------------------------------------------------------------

BATCHES = 100  # in the data set
CSV_FILE = "training.csv"
LOG_LEVELS = {
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "err": logging.ERROR,
}


def make_gan(noise_dim=4, log_dir=None):
    """The article's GAN for samples of one number, compiled with Adam.

    D's output is the largest of 50 softmax values. Built-in layers say so, and not a Lambda,
    because Keras loads no Lambda from a file.

    Args:
        noise_dim: size of the noise. Default: 4.
        log_dir: as for `GANModel`.

    Returns:
        A GANModel.
    """
    gan = GANModel([1, noise_dim], log_dir)
    gan.add_gen_layer(layers.Dense(200, activation="relu"))
    gan.add_gen_layer(layers.Dense(100, activation="relu"))
    gan.add_gen_layer(layers.Dense(50, activation="relu"))
    gan.add_gen_layer(layers.Dense(1))
    gan.add_discr_layer(layers.Dense(200, activation="relu"))
    gan.add_discr_layer(layers.Dense(50, activation="softmax"))
    gan.add_discr_layer(layers.Reshape((50, 1)))
    gan.add_discr_layer(layers.GlobalMaxPooling1D())
    gan.compile_generator_model()
    gan.compile_discriminateor_model()
    return gan


def make_samples(rows, noise_dim=4, seed=None):
    """The article's data: noise from U(-3, 3), real samples from N(0, 1).

    Args:
        rows: number of rows.
        noise_dim: size of the noise. Default: 4.
        seed: for `numpy.random.default_rng`. Default: None, other data every time.

    Returns:
        `{"x": noise (rows, noise_dim), "y": real samples (rows, 1)}`, float32.
    """
    rng = np.random.default_rng(seed)
    return {
        "x": rng.uniform(-3, 3, (rows, noise_dim)).astype("float32"),
        "y": rng.standard_normal((rows, 1), dtype="float32"),
    }


def parse_args(argv=None):
    """Read the command line; a bad one ends the program with status 2."""

    def whole(low, high=2**31 - 1):
        def parse(text):
            if not (text.isdecimal() and len(text) < 20 and low <= int(text) <= high):
                raise argparse.ArgumentTypeError(
                    f"expected a whole number from {low} to {high}, got {text!r}"
                )
            return int(text)

        return parse

    parser = argparse.ArgumentParser(
        description="Train a GAN that turns uniform noise into samples of a Gaussian.",
        epilog="Ctrl-C ends training after the epoch in hand and saves what was trained.",
        allow_abbrev=False,
    )
    flag = parser.add_argument
    default = "(default: %(default)s)"
    flag("-e", "--epoch", type=whole(0), default=10, metavar="N", help=f"epochs to train {default}")
    # fmt: off
    flag("-b", "--batch_size", type=whole(1), default=32, metavar="N",
         help=f"samples in a batch, a hundredth of the data set {default}")
    flag("-m", "--model_dir", default="models", metavar="DIR",
         help=f"folder of the two .h5 files {default}")
    flag("-log", "--log_dir", metavar="DIR",
         help="folder for graphs of the models and for training.csv (default: none)")
    flag("-log_lvl", "--log_lvl", type=str.lower, choices=LOG_LEVELS, default="info",
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
    return args


def check_outputs(args):
    """Make and try every place the run will write to.

    Raises:
        OSError, ValueError: with the flag, and what is wrong with its value.
    """
    files = [("-o", args.output, ["png", "pdf", "svg"])]
    folders = []
    if args.epoch:
        folders.append(("-m", args.model_dir, [GENERATOR_FILE, DISCRIMINATEOR_FILE]))
    if args.gif is not None:
        files.append(("-gif", args.gif, ["gif"]))
    if args.log_dir is not None:
        folders.append(("-log", args.log_dir, [CSV_FILE]))
    for flag, file, formats in files:
        path = pathlib.Path(file)
        if path.suffix.lower().removeprefix(".") not in formats:
            raise ValueError(f"{flag} {file}: the name must end in one of .{', .'.join(formats)}")
        folders.append((flag, path.parent, [path.name]))
    for flag, folder, names in folders:
        try:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise OSError(f"{flag}: cannot write to {folder}: {first_line(error)}") from error
        for name in names:
            if pathlib.Path(folder, name).is_dir():
                raise OSError(f"{flag}: {pathlib.Path(folder, name)} is a folder, not a file")


class Interruption(Watcher):
    """Ends training after the epoch in hand when a signal asks for it.

    As a context manager it takes Ctrl-C (SIGINT), SIGTERM and the loss of the terminal
    (SIGHUP, unless the program was told to ignore it). A second signal ends the program at once.

    Attributes:
        status: the program's exit status, 128 plus the signal's number, or 0.
    """

    status = 0

    def __enter__(self):
        # A handler in Python waits for a compiled call to return; a thread that reads what the
        # C handler writes to a pipe does not.
        reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        threading.Thread(target=self.listen, args=(reader,), daemon=True).start()
        self.wakeup = signal.set_wakeup_fd(self.writer)
        numbers = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
        self.handlers = {
            number: signal.signal(number, lambda *_: None)
            for number in numbers
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *error):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.wakeup)
        os.close(self.writer)

    def listen(self, reader):
        """Take signal numbers from the pipe until it is closed."""
        with open(reader, "rb", buffering=0) as pipe:  # noqa: PTH123
            while number := pipe.read(1):
                if self.status:
                    os._exit(self.status)
                self.status = 128 + number[0]

    def on_epoch_end(self, epoch, logs=None):
        if self.status:
            self.model.stop_training = True


def save_somewhere(gan, folder):
    """Save the models in a folder or, if it cannot take them, in a new one elsewhere.

    Raises:
        OSError: if it was not that folder; says where the models are.
    """
    try:
        gan.save_model(folder)
        LOG.info("models saved in %s", folder)
        return
    except OSError as error:
        problem = f"cannot save the models in {folder}: {first_line(error)}"
    for parent in (tempfile.gettempdir(), pathlib.Path.home(), pathlib.Path.cwd()):
        try:
            rescue = tempfile.mkdtemp(prefix="gan_models_", dir=parent)
            gan.save_model(rescue)
        except OSError:
            continue
        raise OSError(f"{problem}; they are in {rescue}")
    raise OSError(f"{problem}, nor anywhere else")


def run(args):
    """Do what the command line asks for; returns the exit status."""
    check_outputs(args)
    if args.seed is not None:
        keras.utils.set_random_seed(args.seed)
    samples = make_samples(args.batch_size * BATCHES, args.noise_dim, args.seed)
    gan = make_gan(args.noise_dim, args.log_dir)
    if args.resume:
        gan.load_model(args.model_dir)

    problems = []

    def attempt(step, *values, **named):
        try:
            step(*values, **named)
        except Exception as problem:
            problems.append(problem)

    # Fifty looks at the distance cost little, however long the run is.
    distance = Distance(gan, samples, every=max(args.plot_every, args.epoch // 50))
    with Interruption() as interruption:
        if args.epoch:
            frames = {"batch_size": args.batch_size, "every": args.plot_every}
            callbacks = [distance, LiveWindow(gan, samples, **frames)]
            if args.gif is not None:
                callbacks.append(Animation(gan, samples, args.gif, **frames))
            if args.log_dir is not None:
                callbacks.append(TrainingCSV(pathlib.Path(args.log_dir, CSV_FILE)))
            callbacks += [Progress(), interruption]
            attempt(
                gan.train, samples, args.epoch, args.batch_size, args.step_per, callbacks=callbacks
            )
            done = len(gan.train_status["gen_loss"])
            if interruption.status:
                LOG.warning("interrupted after %d of %d epochs", done, args.epoch)
            if any(isinstance(problem, FloatingPointError) for problem in problems):
                raise FloatingPointError(f"{problems[0]}; {args.model_dir} is untouched")
            if problems and not done:
                raise problems[0]
            attempt(save_somewhere, gan, args.model_dir)

        generated, real = predict(gan.generator_model, samples["x"]), samples["y"]
        w1 = wasserstein(generated, real)
        LOG.info(
            "generated: mean %.3f, standard deviation %.3f; real: mean %.3f, standard deviation "
            "%.3f; Wasserstein-1 distance %.3f; D's mean output on generated %.3f",
            generated.mean(), generated.std(), real.mean(), real.std(), w1,
            predict(gan.discriminateor_model, generated).mean(),
        )  # fmt: skip
        title = f"noise_dim = {args.noise_dim}, W1 = {w1:.3f}"
        if args.epoch:
            more = " more" if args.resume else ""
            title = f"K = {args.step_per}, {done}{more} epochs, {title}"
        w1_history = distance.history or [(0, w1)]
        attempt(save_picture, gan, samples, args.output, title, w1_history)

    for problem in problems:
        LOG.error("%s", first_line(problem))
    return 1 if problems else interruption.status


def main(argv=None):
    """The demo as a program.

    Args:
        argv: its arguments. Default: those of the command line.

    Returns:
        The exit status: 0, 1 for a failure, 128 plus the number of the signal that ended it.
    """
    args = parse_args(argv)
    app_logger.init(LOG_LEVELS[args.log_lvl])
    try:
        return run(args)
    except Exception as problem:
        LOG.error("%s", first_line(problem))
        LOG.debug("it happened here:", exc_info=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
