"""A generator learns a Gaussian: the smallest GAN worth watching, in Keras.

Two networks play against each other (Goodfellow et al., "Generative Adversarial Nets", 2014,
https://arxiv.org/abs/1406.2661). The generator G turns uniform noise into samples, the
discriminator D says how likely it is that a sample is real. D learns to tell the two apart,
G learns to make that hard, until G's samples follow the Gaussian and D says 0.5 everywhere.

This is a port of a published article's program for Keras 2 on TensorFlow 1, and keeps its names,
the spelling `discriminateor` included. Sections 1 to 3 are the lesson: the losses, the GAN and its
training, the article's networks. Files, pictures and the command line follow.
"""

import argparse
import collections
import contextlib
import csv
import functools
import gc
import importlib.util
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

try:
    import keras
    import matplotlib
    import matplotlib.pyplot as plt
    import numpy as np
    import tensorflow as tf
    from keras import layers, ops
    from matplotlib import colors, style, ticker
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import LineCollection
    from PIL import Image
except KeyboardInterrupt as interrupt:  # the program has nothing to lose yet, and nothing to say
    raise (SystemExit(130) if __name__ == "__main__" else interrupt) from None

import app_logger

if keras.config.backend() != "tensorflow":
    raise ImportError("demo_gan needs Keras on TensorFlow: import demo_gan before keras")

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
UPDATES_FOR_XLA = 10_000  # of D; from there on XLA makes up for its second of compiling


class GANModel:
    """A GAN made of two lists of Keras layers.

    Args:
        input_dim: `[signal_dim, noise_dim]`, sizes of a sample and its noise, or one for both.
        log_dir: folder for graphs of the models that train. Default: None, no graphs.

    Attributes:
        generator_model: G as a Keras model, `(batch, noise_dim)` to `(batch, signal_dim)`.
        discriminateor_model: D, `(batch, signal_dim)` to a probability, `(batch, 1)`.
        generator_training_model, discriminateor_training_model: the compiled models.
        train_status: `defaultdict(list)`. Each epoch appends a float to `"dis_loss"` (the mean of
            its updates) and `"gen_loss"`; with `plot=True` also the generated batch to
            `"gen_result"`, and D's output on it, `(batch_size, 1)`, to `"dis_result"`.
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

        A ValueError names a network without layers or of a wrong shape, or a layer used twice.
        """
        check_networks(self)
        x = keras.Input((self.noise_dim,), name="x")
        d_generated = self.discriminateor_model(self.generator_model(x))
        model = keras.Model(x, d_generated, name="gan_generator_model")
        self._compile(model, self.generator_model, log_loss_generator, optimizer)
        self.generator_training_model = model

    def compile_discriminateor_model(self, optimizer=None):
        """Wire and compile the model that trains the discriminator, as for the generator's."""
        check_networks(self)
        y = keras.Input((self.signal_dim,), name="y")
        x = keras.Input((self.noise_dim,), name="x")
        d_real = self.discriminateor_model(y)
        d_generated = self.discriminateor_model(self.generator_model(x))
        model = keras.Model([y, x], [d_real, 1 - d_generated], name="gan_discriminateor_model")
        self._compile(model, self.discriminateor_model, [log_loss_discriminator] * 2, optimizer)
        self.discriminateor_training_model = model

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
        samples for each update of D; `gen_draws`, `(rows,)`, one of noise for G's; rows from
        `count` on are spare. Returns the losses, `(rows, 2)`, the last generated batch, D's output.
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
            plot: whether to keep each epoch's generated batch in `train_status`, and to show
                training in a window or notebook if there is one. Default: False.
            callbacks: Keras callback, or list of them. All hear of every epoch, with `dis_loss`
                and `gen_loss` in `logs`, and see the networks as the epoch left them. One with an
                attribute `sees_weights_every = N` does so after every N-th epoch, and is faster:
                the epochs up to there run in one call. Their `model` is the generator's training
                model; D's learning rate is `discriminateor_training_model.optimizer.learning_rate`.

        Raises:
            ValueError: before anything has changed, if a number, the samples or a model is wrong.
            FloatingPointError: when a loss, an output or a weight is not finite any more.
        """
        generator, discriminator = self.generator_training_model, self.discriminateor_training_model
        if generator is None or discriminator is None:
            raise ValueError("compile both models before train()")
        sizes = {"epoch": epoch, "batch_size": batch_size, "step_per": step_per}
        epoch, batch_size, step_per = (whole_number(*size) for size in sizes.items())
        noise, real = cut_into_batches(self, sample_list, batch_size)
        if plot:
            live = Look(self, sample_list, every=0, views={"the live picture": live_picture})
            callbacks = [live, *keras.tree.flatten(callbacks or [])]
        if self._run_epochs is None:
            self._run_epochs = trace(self._epochs, generator, discriminator)
        updates = int(discriminator.optimizer.iterations) + epoch * step_per  # earlier calls count
        can_use_xla = generator.jit_compile and discriminator.jit_compile
        run_epochs = self._run_epochs[can_use_xla and updates >= UPDATES_FOR_XLA]
        at_most = max(1, min(EPOCHS_PER_CALL, ROWS_PER_CALL // (batch_size * step_per)))
        dis_draws, gen_draws = np.zeros((at_most, step_per, 2), "int32"), np.zeros(at_most, "int32")
        draw = functools.partial(random.randint, 0, len(noise) - 1)
        done, logs, generator.stop_training = 0, None, False
        watchers = keras.callbacks.CallbackList(
            callbacks, model=generator, epochs=epoch, steps=1, verbose=1
        )
        try:
            watchers.on_train_begin()
            while done < epoch and not generator.stop_training:
                often = [getattr(one, "sees_weights_every", 1) for one in watchers.callbacks]
                often += [1] * bool(plot)
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
                    logs = {"dis_loss": dis_loss, "gen_loss": gen_loss}
                    watchers.on_epoch_end(done + i, logs)
                done += count
            if done > 0:  # an optimizer that averages weights puts the averages in place, as in fit
                networks = self.generator_model, self.discriminateor_model
                for model, network in zip((generator, discriminator), networks):
                    model.optimizer.finalize_variable_values(network.trainable_weights)
        finally:
            watchers.on_train_end(logs)

    def save_model(self, path_dir):
        """Write `gan_generator.h5` and `gan_discriminateor.h5` to a folder, when both are whole.

        Raises a ValueError if there are no layers, or weights that are not finite; an OSError if
        the files cannot be written.
        """
        check_networks(self)
        write_networks(self, pathlib.Path(path_dir))

    def load_model(self, path_dir):
        """Read both networks' weights from a folder, also from files the article's program wrote.

        Raises an OSError if a file cannot be read or does not fit the layers; a ValueError if there
        are none. Then the GAN is as it was.
        """
        check_networks(self)
        read_networks(self, pathlib.Path(path_dir))


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
# 4. Data, tracing, files, failures
#
# Files are written whole or not at all, and read without running what is in them. What a run can
# do without may fail: `reported` says so.

MODEL_FILES = ("gan_generator.h5", "gan_discriminateor.h5")
LOG = logging.getLogger(__name__)
FAILED = []  # what `reported` reported; the program's exit status is 1 if there is something
# Keras advises against .h5, which is the article's format.
logging.getLogger("absl").addFilter(lambda record: "HDF5" not in record.getMessage())


def whole_number(name, value, low=1, high=2**31 - 1):
    """Return a value as an int; a ValueError names what is no whole number from low to high."""
    if isinstance(value, int | np.integer) and low <= value <= high:
        return int(value)
    raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


def check_networks(gan):
    """Raise a ValueError if a network has no layers, a wrong shape, or a layer used twice.

    A layer that stands twice in a network cannot be saved; one in both would move in both phases.
    """
    seen = set()
    for network, width in (gan.generator_model, gan.signal_dim), (gan.discriminateor_model, 1):
        shape = network.output_shape if network.layers else "no layers, add some first"
        if shape != (None, width):
            raise ValueError(f"{network.name} must end in shape {(None, width)}, got {shape}")
        for layer in innermost_layers(network):
            parts = {id(layer), *map(id, layer.weights)}
            if parts & seen:
                raise ValueError(f"layer {layer.name} is used twice: make one for each place")
            seen |= parts


def innermost_layers(layer):
    inner = layer.layers if isinstance(layer, keras.Model) else []
    return [part for one in inner for part in innermost_layers(one)] or [layer]


def noise_and_real(gan, sample_list):
    """Return the two arrays of a `sample_list`, as training sees them.

    A ValueError names what is not finite, visible and of its shape, or is all the same as floats.
    """
    arrays = []
    for key, width in (("x", gan.noise_dim), ("y", gan.signal_dim)):
        wanted = f'sample_list["{key}"] must be finite numbers, (n, {width}), none of them masked'
        try:
            given = np.ma.asarray(sample_list[key], "float64")
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{wanted}; got {error!r}") from error
        exact, rows = given.data, given.data.astype(keras.config.floatx())
        is_finite = np.isfinite(rows).all() and not np.ma.is_masked(given)
        if rows.size == 0 or rows.shape[1:] != (width,) or not is_finite:
            raise ValueError(f"{wanted}; got shape {rows.shape}")
        if (np.std(exact - rows, axis=0) > 0.1 * np.std(exact, axis=0)).any():
            raise ValueError(f'sample_list["{key}"] loses its spread as {rows.dtype}')
        arrays.append(rows)
    if len(arrays[0]) != len(arrays[1]):
        raise ValueError('sample_list["x"] and sample_list["y"] must have as many rows')
    return arrays


def cut_into_batches(gan, sample_list, batch_size):
    """Return noise and real samples as tensors `(batch_count, batch_size, width)`."""
    arrays = noise_and_real(gan, sample_list)
    rows = len(arrays[0])
    if batch_size > rows:
        raise ValueError(f"batch_size must be at most {rows}, the rows, got {batch_size}")
    used = rows // batch_size * batch_size
    return [tf.constant(a[:used].reshape(-1, batch_size, a.shape[1])) for a in arrays]


def trace(epochs, generator, discriminator):
    """Return `GANModel._epochs` traced for any data, without XLA and, calling that, with it."""
    for model in (generator, discriminator):
        # Makes the means in which Keras counts losses; later it would cost a second trace.
        outputs = keras.tree.map_structure(lambda output: ops.zeros((1, 1)), model.output)
        model.compute_loss(y=outputs, y_pred=outputs)
    real, noise = discriminator.input_shape
    data, draws = [(None, *noise), (None, *real)], [(None, None, 2), (None,), ()]
    signature = [tf.TensorSpec(shape, keras.config.floatx()) for shape in data]
    signature += [tf.TensorSpec(shape, "int32") for shape in draws]
    epochs = functools.partial(epochs)  # of its own: TensorFlow warns of many traces of a function
    plain = tf.function(epochs, signature, autograph=False)
    return plain, tf.function(plain, signature, autograph=False, jit_compile=True)


def packed(gan):
    """The state of a GAN to pickle or copy: nothing traced, optimizers in place of wired models."""
    state = {**vars(gan), "_run_epochs": None}
    for name in ("generator_training_model", "discriminateor_training_model"):
        if state[name] is not None:
            optimizer = state[name].optimizer
            values = [variable.numpy() for variable in optimizer.variables]
            state[name] = type(optimizer), optimizer.get_config(), values
    return state


def unpack(gan, state):
    """Give a GAN such a state, and wire the models that train its networks anew."""
    vars(gan).update(state, log_dir=None)  # the graphs were drawn
    for name in ("generator", "discriminateor"):
        if state[f"{name}_training_model"] is not None:
            optimizer_class, config, values = state[f"{name}_training_model"]
            getattr(gan, f"compile_{name}_model")(optimizer_class.from_config(config))
            optimizer = getattr(gan, f"{name}_training_model").optimizer
            for variable, value in zip(optimizer.variables, values, strict=True):
                variable.assign(value)
    gan.log_dir = state["log_dir"]


GANModel.__getstate__, GANModel.__setstate__ = packed, unpack


def all_finite(arrays):
    return all(np.isfinite(array).all() for array in arrays)


@contextlib.contextmanager
def replacing(*paths):
    """Give a temporary name for each path; afterwards put the files written there in place.

    They are written in a fresh folder beside the paths. Until all are whole and on the disk the old
    files are untouched. Whatever goes wrong is an OSError that names the first path.
    """
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".gan_unfinished_", dir=paths[0].parent, ignore_cleanup_errors=True
        ) as folder:
            files = [pathlib.Path(folder, path.name) for path in paths]
            yield files
            for file in files:
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
            for file, path in zip(files, paths):
                file.replace(path)
    except Exception as error:
        raise OSError(f"cannot write {paths[0]}: {first_line(error)}") from error


def write_networks(gan, folder):
    """Write .h5 files that `keras.models.load_model` reads; see `GANModel.save_model`."""
    networks = gan.generator_model, gan.discriminateor_model
    if not all_finite(networks[0].get_weights() + networks[1].get_weights()):
        raise ValueError("not saved, as weights are not finite")
    with warnings.catch_warnings(), replacing(*(folder / name for name in MODEL_FILES)) as files:
        warnings.simplefilter("ignore")  # no warning that is an error loses a model
        needed = 2**20 + 8 * sum(network.count_params() for network in networks)
        if shutil.disk_usage(files[0].parent).free < needed:  # HDF5 may crash on a full disk
            raise OSError(f"no room for {needed} bytes")
        for network, file in zip(networks, files):
            network.save(file)


def read_networks(gan, folder):
    """Set the networks' weights from .h5 files, by order and shape; see `GANModel.load_model`."""
    networks = gan.generator_model, gan.discriminateor_model
    old_weights = [network.get_weights() for network in networks]
    try:
        for network, path in zip(networks, (folder / name for name in MODEL_FILES)):
            network.load_weights(path)
            if not all_finite(network.get_weights()):
                raise ValueError("it holds weights that are not finite")
    except BaseException as error:
        for network, weights in zip(networks, old_weights):
            network.set_weights(weights)
        if not isinstance(error, Exception):
            raise
        # Keras stumbles in many ways over a file that is not its own.
        problem = f"cannot load {path} with noise_dim (-n) = {gan.noise_dim}: {first_line(error)}"
        raise OSError(problem) from error


def first_line(error):
    """What went wrong, in one line of at most 300 characters."""
    line = (str(error).splitlines() or [type(error).__name__])[0][:300]
    if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
        line = f"too much for the memory, try a smaller -b/--batch_size or -n/--noise_dim: {line}"
    return line


@contextlib.contextmanager
def reported(what):
    """In its context is what may fail: whatever it raises is reported, and all else goes on."""
    try:
        yield
    except (Exception, SystemExit) as error:  # wx raises SystemExit where there is no display
        FAILED.append(what)
        LOG.error("%s failed: %s", what, first_line(error))
        LOG.debug("it happened here:", exc_info=True)


# ---------------------------------------------------------------------------------------
# 5. Pictures
#
# `gan_state` gathers what there is to see of a GAN, a Picture draws it: generated green, real
# black, D red. While it trains one callback, Look, looks at it, keeps what it saw, and tells its
# views. A view that fails it puts away, and training goes on.

SHOWN = 20_000  # rows of a data set, at most
BINS = 40
POINTS = {1: 201, 2: 60}  # at which D is asked, along each axis of samples of so many numbers
TRAIL = 20  # epochs
LOOKS = 40  # at a run that nobody watches, and some more in its beginning
HISTORY = 400  # States that a Look keeps, at most
STAGES = (1 / 40, 1 / 20, 1 / 10, 1 / 4, 1 / 2, 1)  # of a run, in the strip
FRAME_SECONDS = 0.05  # the article's pace
MOST_FRAMES = 1000  # of an animation; they are held in memory
SIZE, STRIP_HEIGHT = (8, 4.5), 1.7  # inches
FEW = {"nbins": 4, "steps": (1, 2, 5, 10)}  # numbers at an axis: they may be long


class State(collections.namedtuple("State", ["epoch", "w1", "generated", "decision"])):
    """What there is to see of a GAN after so many epochs.

    `w1` is the Wasserstein-1 distance of generated and real samples. `generated` is of samples of
    one number the share in each bin, `(BINS,)`, else the first two of each sample, `(n, 2)`.
    `decision` is D's output at `points_for_d`, `(points,)`.
    """


def predict(gan, noise, points):
    """Return what G makes of noise `(n, noise_dim)`, what D says at points `(n, signal_dim)`."""
    generated = gan.generator_model(noise, training=False)
    return generated, gan.discriminateor_model(points, training=False)


def gan_state(generated, decision, real, epoch=0):
    """Return the State of a GAN, from what `predict` says of it and the real samples."""
    generated, decision = np.asarray(generated), np.asarray(decision)[:, 0]
    shown = histogram(generated, bin_edges(real)) if real.shape[1] == 1 else generated[:, :2]
    return State(epoch, wasserstein(generated, real), shown, decision)


def shown_rows(gan, sample_list):
    """Return noise and real samples as arrays: all rows, or evenly spread ones of too many."""
    noise, real = noise_and_real(gan, sample_list)
    step = math.ceil(len(real) / SHOWN)
    return noise[::step], real[::step]


def wasserstein(a, b):
    """The Wasserstein-1 distance of two samples `(n, dim)`, averaged over the dimensions.

    It is the mean distance of the sorted numbers (Villani, "Optimal Transport", 2009, remark 2.19).
    """
    return float(np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean(dtype="float64"))


def axis_limits(real):
    """The ends of each number's axis, `(dim, 2)`: the middle 99 %, a third more on each side."""
    low, high = np.quantile(real.astype("float64"), (0.005, 0.995), axis=0)
    margin = np.where(high > low, (high - low) / 3, 1)
    return np.stack([low - margin, high + margin], axis=1)


def points_for_d(real):
    """Points along the axis of samples of one number, all over the plane of two, one of more."""
    limits = axis_limits(real)
    if len(limits) not in POINTS:
        return real[:1]
    number = POINTS[len(limits)]
    points = np.meshgrid(*(np.linspace(*ends, number, dtype="float32") for ends in limits))
    return np.stack(points, axis=-1).reshape(-1, len(limits))


def bin_edges(real):
    return np.linspace(*axis_limits(real)[0], BINS + 1)


def histogram(samples, edges):
    """The share of samples `(n, 1)` in each bin; those beyond the edges are in the outermost."""
    samples = np.clip(samples.astype("float64"), *edges[[0, -1]])
    return np.histogram(samples, edges)[0] / len(samples)


class Histograms:
    """Samples of one number: the share in each bin on one axes, at most its top, D on another."""

    def __init__(self, samples, decision, real):
        edges = bin_edges(real)
        self.centres, self.points = (edges[:-1] + edges[1:]) / 2, points_for_d(real)[:, 0]
        self.real = histogram(real, edges)
        self.top = 3 * self.real.max()
        samples.plot(self.centres, self.real, "ko-", markersize=3, label="real")
        top = 1.02 * self.top
        samples.set(xlim=edges[[0, -1]], ylim=(0, top), xticklabels=[], ylabel="share of samples")
        (generated,) = samples.plot([], [], "go-", markersize=3, label="generated", animated=True)
        decision.set(xlim=edges[[0, -1]], ylim=(-0.05, 1.45), yticks=(0, 0.5, 1))
        decision.set(xlabel="sample (the outermost bins count all beyond)", ylabel="D's output")
        decision.locator_params("x", **FEW)
        decision.xaxis.set_major_formatter("{x:.7g}")  # no power of ten beside the axis
        decision.axhline(0.5, color="0.6", linestyle=":", linewidth=1, label="0.5: cannot tell")
        (self.optimal,) = decision.plot([], [], color="0.6", label="optimal D", animated=True)
        (judged,) = decision.plot([], [], "r--", label="D", animated=True)
        self.lines = generated, judged
        self.trails = [LineCollection([], linewidths=0.7, animated=True) for _ in self.lines]
        for axes, trail in zip((samples, decision), self.trails):
            axes.add_collection(trail, autolim=False)
            axes.legend(loc="upper right", fontsize="small", ncols=3)

    def set_states(self, states):
        now = states[-1]
        # In each bin the D that is optimal for the two histograms says real / (real + generated)
        # (Goodfellow et al. 2014, proposition 1); where there are no samples it has no say.
        both = self.real + now.generated
        optimal = np.divide(self.real, both, out=np.full(BINS, np.nan), where=both > 0)
        self.optimal.set_data(self.centres, optimal)
        recent = [state for state in states if now.epoch - state.epoch <= TRAIL]
        alphas = [0.35 - 0.3 * (now.epoch - state.epoch) / TRAIL for state in recent[:-1]]
        shares = [np.c_[self.centres, np.minimum(state.generated, self.top)] for state in recent]
        said = [np.c_[self.points, state.decision] for state in recent]
        for line, trail, curves in zip(self.lines, self.trails, (shares, said)):
            line.set_data(*curves[-1].T)
            trail.set_segments(curves[:-1])
            trail.set_color([colors.to_rgba(line.get_color(), alpha) for alpha in alphas])

    def draw_small(self, axes, state):
        axes.fill_between(self.centres, self.real, color="0.75")
        axes.plot(self.centres, np.minimum(state.generated, self.top), "g", linewidth=1.2)
        axes.plot(self.points, state.decision * self.top, "r--", linewidth=0.9)
        axes.set(xlim=self.points[[0, -1]], ylim=(0, 1.04 * self.top))


class Plane:
    """Samples of more numbers: the first two, at least on the edge; of exactly two, over D."""

    def __init__(self, axes, real, markersize=1.5):
        self.real, self.limits = real, axis_limits(real)[:2]
        sides = np.diff(self.limits)
        aspect = "equal" if sides.max() <= 5 * sides.min() else "auto"
        axes.set(xlim=self.limits[0], ylim=self.limits[1])
        axes.spines[:].set_animated(True)
        white_to_red = colors.LinearSegmentedColormap.from_list("", ["white", "red"])
        self.decision = axes.imshow(
            np.zeros((1, 1)), white_to_red, aspect=aspect, interpolation="bilinear", vmin=0, vmax=1,
            origin="lower", extent=self.limits.ravel(), animated=True,
        )  # fmt: skip
        dots = {"linestyle": "", "markersize": markersize, "alpha": 0.5, "animated": True}
        axes.plot(*self._inside(real), "ko", label="real", **dots)
        (self.generated,) = axes.plot([], [], "go", label="generated", **dots)

    def _inside(self, samples):
        return np.clip(samples[:, :2].T, self.limits[:, :1], self.limits[:, 1:])

    def set_states(self, states):
        self.generated.set_data(self._inside(states[-1].generated))
        if self.real.shape[1] == 2:
            self.decision.set_data(states[-1].decision.reshape(POINTS[2], POINTS[2]))

    def draw_small(self, axes, state):
        Plane(axes, self.real, markersize=0.7).set_states([state])


class Picture:
    """A figure of a GAN: samples, D's output, and W1 over the epochs, if there are, beside them.

    What does not move is drawn once, the rest is blitted over it; the user's style is ignored.
    `real` are the real samples, `(n, signal_dim)`; `figure` is an empty one, by default a new one.
    """

    @style.context("default")
    def __init__(self, real, epochs=0, figure=None):
        self.figure = FigureCanvasAgg(plt.Figure(SIZE)).figure if figure is None else figure
        width = 0.52 if epochs else 0.855
        samples = self.figure.add_axes((0.11, 0.12, width, 0.8))
        if real.shape[1] == 1:
            samples.set_position((0.11, 0.46, width, 0.46))
            decision = self.figure.add_axes((0.11, 0.12, width, 0.3))
            self.panel = Histograms(samples, decision, real)
        else:
            self.panel = Plane(samples, real)
            shades = " (white to red: D's output, 0 to 1)" if real.shape[1] == 2 else ""
            samples.set(xlabel=f"first number of a sample{shades}", ylabel="second number")
            samples.locator_params(**FEW)
            for axis in (samples.xaxis, samples.yaxis):
                axis.set_major_formatter("{x:.7g}")
            samples.legend(loc="upper right", fontsize="small", markerscale=4).set_animated(True)
        self.title = samples.set_title(" ", loc="left", fontsize="medium", animated=True)
        self.distance = None
        if epochs:
            distance = self.figure.add_axes((0.725, 0.12, 0.24, 0.8))
            limits = np.array((0.01, 30)) * (real.std(axis=0, dtype="float64").mean() or 1)
            distance.set(yscale="log", xlim=(0, epochs), ylim=limits, xlabel="epoch")
            distance.set_title("Wasserstein-1 distance", fontsize="medium")
            distance.xaxis.set_major_locator(ticker.MaxNLocator(**FEW, integer=True))
            distance.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
            distance.yaxis.set_major_formatter("{x:g}")
            distance.grid(color="0.9")
            (self.distance,) = distance.plot([], [], ".-", color="0.3", markersize=2, animated=True)
        moving = self.figure.findobj(lambda artist: artist.get_animated())
        self.moving = sorted(moving, key=lambda artist: artist.get_zorder())
        self.drawn_size = self.background = None

    def set_states(self, states, title=None):
        """Take what is to be drawn next: the last of some States, and how it came to it."""
        self.panel.set_states(states)
        self.title.set_text(f"epoch = {states[-1].epoch}" if title is None else title)
        if self.distance is not None:
            axes = self.distance.axes
            low, high = axes.get_ylim()
            distances = [state.w1 or low for state in states]
            self.distance.set_data([state.epoch for state in states], distances)
            if min(distances) < low or max(distances) > high:  # the curve leaves them: they open
                axes.set_ylim(min(low, min(distances) / 3), max(high, max(distances) * 3))
                self.drawn_size = None

    @style.context("default")
    def render(self):
        """Draw the state on the canvas, over what does not move."""
        canvas, box = self.figure.canvas, self.figure.bbox
        if self.drawn_size != tuple(box.size):
            canvas.draw()
            self.drawn_size, self.background = tuple(box.size), canvas.copy_from_bbox(box)
        canvas.restore_region(self.background)
        for artist in self.moving:
            self.figure.draw_artist(artist)

    def image(self):
        """Return the state as a Pillow image; not of a figure in a window."""
        self.render()
        return Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[:, :, :3])


def stages(states):
    """Choose from the States of a run those of the strip: six, or all of fewer."""
    epochs = [state.epoch for state in states]
    chosen = {min(epochs, key=lambda epoch: abs(epoch - part * epochs[-1])) for part in STAGES}
    chosen.update([epoch for epoch in epochs if epoch not in chosen][: len(STAGES) - len(chosen)])
    return [state for state in states if state.epoch in chosen]


def draw_strip(figure, panel, states):
    """Draw States in small panels beside each other."""
    for column, state in enumerate(states):
        place = (0.11 + 0.144 * column, 0.06, 0.135, 0.7)
        axes = figure.add_axes(place, xticks=[], yticks=[])
        axes.set_title(f"epoch {state.epoch}\nW1 {state.w1:.2g}", fontsize=7)
        panel.draw_small(axes, state)


@style.context("default")
def save_picture(gan, sample_list, path, title, history=()):
    """Save a picture of the GAN, and below it a strip of how it came there, if that is known.

    Args:
        gan: a GANModel.
        sample_list: as `GANModel.train` takes it.
        path: a file whose name ends in a format that matplotlib writes; an OSError says why not.
        title: of the picture.
        history: States of the training that made the GAN what it is, as a Look keeps them.
    """
    noise, real = shown_rows(gan, sample_list)
    epochs = history[-1].epoch if history else 0
    # The GAN may have changed since it was looked at last.
    states = [*history[:-1], gan_state(*predict(gan, noise, points_for_d(real)), real, epochs)]
    width, height = SIZE
    figure = upper = plt.Figure((width, height + STRIP_HEIGHT * bool(history)))
    if history:
        upper, lower = figure.subfigures(2, 1, height_ratios=(height, STRIP_HEIGHT))
    picture = Picture(real, epochs, upper)
    picture.set_states(states, title)
    if history:
        draw_strip(lower, picture.panel, stages(states))
    with replacing(pathlib.Path(path)) as (file,):
        figure.savefig(file)
    LOG.info("picture saved in %s", path)


def draw_graph(model, path):
    """Draw a Keras model with its networks and their shapes as a PNG file; that takes Graphviz."""
    silent = contextlib.redirect_stdout(None)  # pydot, too, prints what goes wrong
    with reported(f"the graph {path}"), replacing(path) as (file,), silent:
        keras.utils.plot_model(model, file, show_shapes=True, expand_nested=True, dpi=72)


class Look(keras.callbacks.Callback):
    """Looks at the GAN while it trains, keeps what it saw, and tells its views.

    It adds `w1` to the `logs` of the epochs it looks at, for the callbacks that come after it.

    A view is a generator function of the Look. Each `yield` says after how many epochs it wants a
    State, the same each time, 0 for never, and receives `(epoch, logs, state)` when one is over;
    `state` is None where nobody looked, `logs` at the last look of a training that was stopped. A
    view that returns has left, one that fails is reported and gone, all others are closed at last.

    Args:
        gan, sample_list: a GANModel, and samples as its `train` takes them.
        every: epochs from one look to the next, and one at the end; 0 is as often as the views
            want. Default: None, that too, or else 40 to 130 looks, most in the beginning.
        views: dict of views, by the names that the log calls them. Default: none.

    Attributes:
        history: list of the States of the last training, at most `HISTORY`, evenly thinned.
    """

    def __init__(self, gan, sample_list, every=None, views=None):
        super().__init__()
        self.gan, self.every = gan, every if every is None else whole_number("every", every, 0)
        self.noise, self.real = shown_rows(gan, sample_list)
        self.make_views, self.views, self.history, self.epoch = views or {}, {}, [], 0

    @property
    def sees_weights_every(self):
        """Epochs from one look to the next, where training stands."""
        wanted = self.every or math.gcd(*(every for _, every in self.views.values()))
        if self.is_blind or wanted == self.every == 0:
            return math.inf
        most = max(1, min(self.params["epochs"] // LOOKS, self.epoch // 5))
        power = 10 ** (len(str(most)) - 1)
        return wanted or max(step * power for step in (1, 2, 5) if step * power <= most)

    def on_train_begin(self, logs=None):
        self.history, self.epoch, self.is_blind = [], 0, False
        # Traced, it takes a third of the time.
        self.predict = tf.function(functools.partial(predict, self.gan), autograph=False)
        self.views = {name: (view(self), 0) for name, view in self.make_views.items()}
        self._tell(None)

    def on_epoch_end(self, epoch, logs=None):
        every, self.epoch = self.sees_weights_every, epoch + 1
        due = every < math.inf and (self.epoch % every == 0 or self.epoch == self.params["epochs"])
        self._tell((self.epoch, logs, self._look(logs) if due else None))

    def on_train_end(self, logs=None):
        is_seen = self.epoch == (self.history[-1].epoch if self.history else 0)
        if self.model.stop_training and not is_seen and self.sees_weights_every < math.inf:
            self._tell((self.epoch, None, self._look({})))
        for name, (view, _) in self.views.items():
            with reported(name):
                view.close()

    def _look(self, logs):
        with reported("the look at the GAN"):
            outputs = self.predict(self.noise, points_for_d(self.real))
            state = gan_state(*outputs, self.real, self.epoch)
            self.history.append(state)
            if len(self.history) > HISTORY:  # the one goes that stands closest, but for a trail's
                epochs = np.array([seen.epoch for seen in self.history[:-TRAIL]])
                del self.history[1 + np.argmin(epochs[2:] - epochs[:-2])]
            logs["w1"] = state.w1
            return state
        self.history, self.is_blind = [], True  # how the GAN goes on from there nobody knows
        return None

    def _tell(self, news):
        for name, (view, _) in list(self.views.items()):
            del self.views[name]  # and it comes back, unless it fails or returns
            with reported(name), contextlib.suppress(StopIteration):
                self.views[name] = view, whole_number("every", view.send(news), 0)


def next_state(look, picture, every):
    """Within a view, wait for a State and set the picture to it."""
    state = None
    while state is None:
        _, _, state = yield every
    picture.set_states(look.history)


def live_picture(look, every=1):
    """View: the picture in a window or else, updated in place, below a notebook's cell."""
    figure, ipython = window_figure(), sys.modules.get("IPython")
    if figure is not None:
        yield from window(look, figure, every)
    elif ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        picture, due = Picture(look.real, look.params["epochs"]), time.perf_counter()
        cell = ipython.display.display(picture.image(), display_id=True)
        while True:
            yield from next_state(look, picture, every)
            cell.update(picture.image())
            due = max(due + FRAME_SECONDS, time.perf_counter())
            time.sleep(max(0, due - time.perf_counter()))


def window(look, figure, every):
    """View: the picture in a window of matplotlib's, twenty frames a second, until it is closed."""
    canvas, due = figure.canvas, time.perf_counter()
    try:
        picture = Picture(look.real, look.params["epochs"], figure)
        canvas.manager.set_window_title("A generator learns")
        canvas.manager.show()
        canvas.flush_events()  # now it has its size
        while plt.fignum_exists(figure.number):
            picture.render()
            canvas.blit(figure.bbox)
            due = max(due + FRAME_SECONDS, time.perf_counter())
            canvas.start_event_loop(max(0.001, due - time.perf_counter()))  # 0 has no end
            yield from next_state(look, picture, every)
    finally:
        plt.close(figure)


def window_figure():
    """Return a figure in a new window that is not shown yet, None where there can be none."""
    chosen = matplotlib.get_backend(auto_select=False)
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        plt.draw_if_interactive()  # loads the backend, and a notebook's sets what plots there need
    except ImportError:
        return None
    with style.context("default"), plt.ioff():
        figure = plt.figure(figsize=SIZE)
    if signal.getsignal(signal.SIGINT) != on_interrupt:  # wx has Ctrl-C kill the program
        signal.signal(signal.SIGINT, on_interrupt)
    can_blit = isinstance(figure.canvas, FigureCanvasAgg) and figure.canvas.supports_blit
    if figure.canvas.required_interactive_framework and can_blit:
        return figure
    plt.close(figure)
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if chosen is None and has_display and not importlib.util.find_spec("_tkinter"):
        LOG.info("no live window: there is no tkinter (on Debian, install python3-tk)")
    return None


def animation(look, path, every=1):
    """View: writes the frames to a GIF file when training ends; the last one stays for a while."""
    # The picture's colours and their way to white and, for dots over D's output, to red.
    ramps = [("black", "white", 16), ("green", "white", 16), ("red", "white", 16)]
    ramps += [("black", "red", 4), ("green", "red", 4)]
    shades = [np.linspace(colors.to_rgb(a), colors.to_rgb(b), n) for a, b, n in ramps]
    palette = Image.new("P", (1, 1))
    palette.putpalette((np.concatenate(shades) * 255).astype("uint8").tobytes())
    picture, frames = Picture(look.real, look.params["epochs"]), []
    if look.real.shape[1] > 1:
        picture.figure.set_dpi(80)  # thousands of dots on shades fill many bytes
    try:
        while True:
            yield from next_state(look, picture, every)
            frames.append(picture.image().quantize(palette=palette, dither=Image.Dither.NONE))
    finally:
        if frames:
            first, *others = frames
            durations = [int(1000 * FRAME_SECONDS)] * len(others) + [2000]
            with replacing(pathlib.Path(path)) as (file,):
                first.save(file, append_images=others, save_all=True, loop=0, duration=durations)
            LOG.info("animation saved in %s", path)


# ---------------------------------------------------------------------------------------
# 6. The program
#
# It tries the places it will write to, trains, saves what was trained, draws. What fails is said by
# `reported` and makes the exit status 1; what is saved is decided by Keeper.

CSV_FILE = "training.csv"
LOSSES = ["dis_loss", "gen_loss"]
SAVE_SECONDS = 60  # from one save to the next while it trains


def parse_args(argv=None):
    """Read the command line; a bad one ends the program with status 2."""
    parser = argparse.ArgumentParser(
        description="Train a GAN that turns uniform noise into samples of a Gaussian.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    flag = parser.add_argument
    levels = ("info", "debug", "warn", "warning", "error", "err")
    # fmt: off
    flag("-e", "--epoch", type=int, default=10, metavar="N", help="epochs to train")
    flag("-b", "--batch_size", type=int, default=32, metavar="N", help="a hundredth of the data")
    flag("-m", "--model_dir", default="models", metavar="DIR", help="folder of the two .h5 files")
    flag("-log", "--log_dir", metavar="DIR", help="folder for model graphs and training.csv")
    flag("-log_lvl", "--log_lvl", type=str.lower, default="info", choices=levels, help="log level")
    flag("-k", "--step_per", type=int, default=20, metavar="K", help="updates of D in an epoch")
    flag("-n", "--noise_dim", type=int, default=4, metavar="N", help="noise for a sample")
    flag("-s", "--seed", type=int, metavar="N", help="same seed, same result")
    flag("-o", "--output", default="img/gan_results.png", metavar="FILE", help=".png, .pdf or .svg")
    flag("-gif", "--gif", metavar="FILE", help="an animation of the training")
    flag("-every", "--plot_every", type=int, default=1, metavar="N", help="epochs to a frame")
    flag("-r", "--resume", action="store_true", help="go on from --model_dir; with -e 0 just draw")
    # fmt: on
    args = parser.parse_args(argv)
    try:
        least = 0 if args.resume and args.gif is None else 1  # of 0 epochs there are no frames
        whole_number("-e/--epoch", args.epoch, low=least)
        for name in ("batch_size", "step_per", "noise_dim", "plot_every"):
            whole_number(f"--{name}", getattr(args, name))
        whole_number("-s/--seed", args.seed or 0, low=0, high=2**32 - 1)
        if pathlib.Path(args.output).suffix.lower() not in (".png", ".pdf", ".svg"):
            raise ValueError(f"-o/--output: expected a .png, .pdf or .svg, got {args.output!r}")
        if args.gif is not None:
            if pathlib.Path(args.gif).suffix.lower() != ".gif":
                raise ValueError(f"-gif/--gif: expected a .gif, got {args.gif!r}")
            if args.epoch > MOST_FRAMES * args.plot_every:
                least = math.ceil(args.epoch / MOST_FRAMES)
                raise ValueError(f"-gif/--gif: at most {MOST_FRAMES} frames, use -every {least}")
    except ValueError as error:
        parser.error(f"argument {error}")
    return args


def make_and_try_places(args):
    """Make the folders of all that the run will write, and try to write there."""
    models = [pathlib.Path(args.model_dir, name) for name in MODEL_FILES]
    for path in models if args.resume else ():
        if not path.exists():
            raise FileNotFoundError(f"-r/--resume: {path} is missing")
    places = [("-o/--output", pathlib.Path(args.output))]
    if args.epoch:
        places += [("-m/--model_dir", path) for path in models]
    if args.gif is not None:
        places.append(("-gif/--gif", pathlib.Path(args.gif)))
    if args.log_dir is not None:
        names = ["gan_generator_model.png", "gan_discriminateor_model.png"]
        names += [CSV_FILE] * bool(args.epoch)
        places += [("-log/--log_dir", pathlib.Path(args.log_dir, name)) for name in names]
    for flag, path in places:
        try:
            if path.is_dir():
                raise IsADirectoryError("it is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".gan_tried_", dir=path.parent) as folder:
                pathlib.Path(folder, path.name).write_bytes(b"tried")
            if path.name == CSV_FILE:  # written in place, row by row
                path.open("a").close()
        except OSError as error:
            raise OSError(f"{flag}: cannot write {path}: {first_line(error)}") from error


class Keeper(keras.callbacks.Callback):
    """Keeps what was trained, whatever ends the run: hears the signals, and saves the models.

    One rule decides: there is something to save once an epoch was done before any signal came, as
    long as all weights are finite; else the files stay as they are. In its context a signal ends
    training after the call in hand, a second Ctrl-C the program.

    Attributes:
        gan: the GANModel that it saves, once a minute and in the end.
        came: list of the numbers of the signals that came.
        trained: how many epochs were trained.
        worth_saving: whether one was done before any signal came.
    """

    sees_weights_every = math.inf

    def __init__(self, folder):
        super().__init__()
        self.folder, self.due = folder, time.monotonic() + SAVE_SECONDS
        self.came, self.trained, self.worth_saving = [], 0, False

    def __enter__(self):
        self.handlers = {}
        for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
            if signal.getsignal(number) != signal.SIG_IGN:  # as by nohup; Windows has no SIGHUP
                self.handlers[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *error):
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _hear(self, number, frame):
        self.came.append(number)  # and raise nothing: TensorFlow, if it is compiling, loses it
        if number == signal.SIGINT:  # a terminal that is closed hangs up twice
            signal.signal(number, signal.SIG_DFL)
        if self.model is not None:
            self.model.stop_training = True

    def on_train_begin(self, logs=None):
        if self.came:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.trained = epoch + 1
        self.worth_saving = self.worth_saving or not self.came
        if self.worth_saving and time.monotonic() >= self.due:
            self.due = time.monotonic() + SAVE_SECONDS
            try:
                self.gan.save_model(self.folder)
            except Exception as error:  # it is tried again
                LOG.warning("the models are not saved yet: %s", first_line(error))

    def save(self):
        """Save in the folder, if that fails in a new temporary one; False if there is nothing."""
        weights = self.gan.generator_training_model.get_weights()  # of both networks
        if not self.worth_saving or not all_finite(weights):
            why = "weights are not finite" if self.worth_saving else "no epoch was done in time"
            LOG.warning("nothing is saved, as %s: %s stays as it is", why, self.folder)
            return False
        with reported(f"saving the models in {self.folder}"):
            self.gan.save_model(self.folder)
            LOG.info("models saved in %s", self.folder)
            return True
        with reported("saving them elsewhere"), contextlib.ExitStack() as undo:
            folder = tempfile.mkdtemp(prefix="gan_models_")
            undo.callback(os.rmdir, folder)
            self.gan.save_model(folder)
            undo.pop_all()
            LOG.error("they are saved in %s", folder)
        return True


def training_csv(look, path):
    """View: writes `epoch, dis_loss, gen_loss, w1`, a row an epoch; NA where nobody looked."""
    with path.open("w", encoding="utf-8", newline="", buffering=1) as file:  # a row at once
        rows = csv.DictWriter(file, ["epoch", *LOSSES, "w1"], restval="NA", extrasaction="ignore")
        rows.writeheader()
        LOG.info("losses go to %s", path)
        while True:
            epoch, logs, _ = yield 0
            if logs is not None:
                rows.writerow({"epoch": epoch, **logs})


def progress_line(look):
    """View: one line that updates on a terminal; elsewhere a log line every tenth of the run."""
    done, epochs, bar = 0, look.params["epochs"], None
    try:
        while True:
            epoch, logs, _ = yield 0
            losses = {name: logs[name] for name in LOSSES if logs is not None}
            if done == 0 and sys.stdout is not None and sys.stdout.isatty():
                # Made as late as this, its time to go leaves out the compiling.
                bar = keras.utils.Progbar(epochs, 10, stateful_metrics=LOSSES, unit_name="epoch")
            if bar is not None:
                bar.update(epoch, losses.items(), finalize=False)
            elif epoch * 10 // epochs > done * 10 // epochs:
                told = epoch, epochs, *losses.values()
                LOG.info("epoch %d of %d: dis_loss = %.4f, gen_loss = %.4f", *told)
            done = epoch
    finally:
        if bar is not None:
            bar.update(done, finalize=True)


def run(args):
    """Try the places, train, save what was trained, draw; returns the exit status."""
    with Keeper(args.model_dir) as keeper:
        make_and_try_places(args)
        if args.seed is not None:
            keras.utils.set_random_seed(args.seed)
        samples = make_samples(args.batch_size * BATCHES, args.noise_dim, args.seed)
        gan = keeper.gan = make_gan(args.noise_dim, args.log_dir)
        if args.resume:
            gan.load_model(args.model_dir)
        every, title = args.plot_every, f"noise_dim = {args.noise_dim}"
        views = {"the progress line": progress_line}
        views["the live picture"] = functools.partial(live_picture, every=every)
        if args.gif is not None:
            views[args.gif] = functools.partial(animation, path=args.gif, every=every)
        if args.log_dir is not None:
            path = pathlib.Path(args.log_dir, CSV_FILE)
            views[str(path)] = functools.partial(training_csv, path=path)
        look = Look(gan, samples, views=views)
        if args.epoch:
            settings = args.epoch, args.batch_size, args.step_per
            with reported("training"):
                gan.train(samples, *settings, callbacks=[keeper, look])
            if keeper.came:
                LOG.warning("interrupted after %d of %d epochs", keeper.trained, args.epoch)
            title = f"K = {args.step_per}, {keeper.trained}{' more' * args.resume} epochs, {title}"
        if not args.epoch or keeper.save():
            with reported(f"the picture {args.output}"):
                title = f"{title}, W1 = {log_result(gan, samples):.3g}"
                save_picture(gan, samples, args.output, title, look.history)
    interrupted = 128 + keeper.came[0] if keeper.came else 0
    return 1 if FAILED else interrupted


def log_result(gan, samples):
    """Say in one line what the generator has learned; returns W1."""
    noise, real = shown_rows(gan, samples)
    generated = gan.generator_model(noise, training=False).numpy()
    judged, w1 = gan.discriminateor_model(generated, training=False), wasserstein(generated, real)
    numbers = generated.mean(), generated.std(), real.mean(), real.std(), w1, np.mean(judged)
    spread = "mean %.3f, standard deviation %.3f"
    told = f"generated: {spread}; real: {spread}; Wasserstein-1 distance %.3f; D's mean output %.3f"
    LOG.info(told, *numbers)
    return w1


def main(argv=None):
    """Run the program; returns 0, 1 if something failed, 128 plus the number of a signal."""
    args = parse_args(argv)
    level = "ERROR" if args.log_lvl == "err" else args.log_lvl.upper()
    app_logger.init("INFO" if level == "DEBUG" else level)  # the libraries have much to say
    LOG.setLevel(level)
    keras.config.set_floatx("float32")  # whatever keras.json says
    keras.config.set_epsilon(1e-7)
    gc.freeze()  # what the imports made stays: to look through it for garbage takes long
    FAILED.clear()
    with reported("the run"):
        return run(args)
    return 1


if __name__ == "__main__":
    sys.exit(main())
