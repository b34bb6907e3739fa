"""What tests share: GANs that fail or whose outputs are known, and the pixels of an axes."""

import functools
import math

import keras
import numpy as np
import tensorflow as tf
from conftest import compile_both, small_gan, uncompiled
from matplotlib.backend_bases import register_backend
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

import demo_gan

BLACK = (0, 0, 0)
GREEN = (0, 128, 0)
RED = (255, 0, 0)
GREY = (77, 77, 77)  # the distance over the epochs
DOTTED = (153, 153, 153)  # D's output of 0.5
FILL = (191, 191, 191)  # real samples in the strip


def opened(file, frame=0):
    """Return the picture in a file."""
    with Image.open(file) as image:
        if frame:
            image.seek(frame % image.n_frames)
        return image.convert("RGB")


def frames_in(file):
    with Image.open(file) as image:
        return image.n_frames


def axes_of(picture, curve):
    """Return the axes of a figure that has a curve of this name, or is of the distance."""
    for axes in picture.axes:
        names = [line.get_label() for line in axes.lines]
        if curve in names or axes.get_yscale() == curve:
            return axes
    raise LookupError(curve)


def part(image, axes):
    """Return what an image shows inside of an axes, below its legend."""
    box = axes.get_window_extent()
    top = box.y1
    legend = axes.get_legend()
    if legend is not None:
        top = min(top, legend.get_window_extent().y0)
    upper = image.height - top
    lower = image.height - box.y0
    return image.crop((box.x0 + 3, upper + 3, box.x1 - 3, lower - 3))


def mask(image, color):
    """Return which pixels have about a colour."""
    distance = np.abs(np.asarray(image, "int") - color)
    return distance.max(axis=2) < 40


def pixels(image, color):
    return int(mask(image, color).sum())


def redness(image):
    """Return how much redder than black, grey and white each pixel is; negative for green."""
    rgb = np.asarray(image, "int")
    return rgb[:, :, 0] - rgb[:, :, 1]


def difference(one, other):
    """Return how different the pixels of two images are on average."""
    return np.abs(np.asarray(one, "int") - np.asarray(other, "int")).mean()


class SeenCanvas(FigureCanvasAgg):
    """A file format of the tests: a PNG file, whose figure is kept to say where its axes are."""

    def print_seen(self, file, **options):
        SeenCanvas.last_figure = self.figure
        self.print_png(file)


register_backend("seen", SeenCanvas)


class SavedPicture:
    """A saved picture, with the figure that it is made of."""

    def __init__(self, folder, gan, samples, history=(), title="title"):
        path = folder / "picture.seen"
        demo_gan.save_picture(gan, samples, path, title, history)
        self.figure = SeenCanvas.last_figure
        self.image = opened(path)
        self.texts = [text.get_text() for text in self.figure.findobj(Text)]

    def part(self, curve):
        return part(self.image, axes_of(self.figure, curve))

    def strip(self):
        """Return what the panels of the strip show."""
        below = self.image.height - 100 * demo_gan.SIZE[1]
        axes = [axes for axes in self.figure.axes if axes.get_window_extent().y1 <= below]
        return [part(self.image, panel) for panel in axes]


def set_bias(network, bias):
    """Let a network of `small_gan` answer everything with one number."""
    shapes = [weight.shape for weight in network.get_weights()]
    *zeros, last = [np.zeros(shape) for shape in shapes]
    network.set_weights([*zeros, last + bias])


MOST_ROWS = tf.Variable(100)


class FailsOnManyRows(keras.layers.Layer):
    """An operation of TensorFlow fails if there are more rows."""

    def call(self, inputs):
        tf.debugging.assert_less(tf.shape(inputs)[0], MOST_ROWS)
        return inputs


def failing_gan(most_rows, noise_dim=2):
    """Return a GAN whose generator fails on so many rows, and on more."""
    MOST_ROWS.assign(most_rows)
    gan = small_gan(noise_dim)
    gan.add_gen_layer(FailsOnManyRows())
    return compile_both(gan, "sgd")


class End(keras.callbacks.Callback):
    """Stops a training or raises, also while a call into TensorFlow is told of."""

    sees_weights_every = math.inf

    def __init__(self, at, raises=False):
        super().__init__()
        self.at = at
        self.raises = raises

    def on_train_begin(self, logs=None):
        self.model.stop_training = self.at == 0

    def on_epoch_end(self, epoch, logs=None):
        self.epoch = epoch + 1
        if self.epoch == self.at:
            self.model.stop_training = True
            if self.raises:
                raise ZeroDivisionError


@functools.cache
def still_gan(signal_dim):
    """Return a GAN that stays as it is when it trains."""
    return small_gan(signal_dim=signal_dim, optimizer=keras.optimizers.SGD(0.0))


def constant_gan(generated, judged, signal_dim=1):
    """Return a GAN that always generates one number and always says one probability."""
    gan = still_gan(signal_dim)
    set_bias(gan.generator_model, generated)
    set_bias(gan.discriminateor_model, np.log(judged / (1 - judged)))
    return gan


def settled_gan():
    """Return a GAN whose generated samples are its noise, and whose D always says 0.5."""
    gan = compile_both(uncompiled(noise_dim=1))
    gan.generator_model.set_weights([np.ones((1, 1)), np.zeros(1)])
    set_bias(gan.discriminateor_model, 0)
    return gan


def constant_state(measures, generated, judged, epoch=0):
    """Return the State of such a GAN."""
    samples = np.full_like(measures.real, generated)
    d_output = np.full((len(measures.points), 1), judged)
    return measures.state(samples, d_output, epoch)


def state_of(gan, samples, epoch=0):
    """Return the State of a GAN."""
    measures = demo_gan.Measures(samples["y"])
    generated, d_output = demo_gan.outputs_at(gan, samples["x"], measures.points)
    return measures.state(generated, d_output, epoch)
