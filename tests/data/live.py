"""Trains in a window: to the end, until training fails, and until the window is closed.

Says, for each training, what the window showed when, and how many pixels have the curves' colours.

In two more trainings a user draws figures of his own by pyplot; and he presses q in a window that
shows one frame in 20,000 epochs. Says last what he saw.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
import time

import IPython  # noqa: F401, which makes no notebook of this process
import keras
import matplotlib.pyplot as plt
from images import BLACK, GREEN, GREY, RED, axes_of, opened, part, pixels

import app_logger
import demo_gan

os.environ["DISPLAY"] = sys.argv[1]  # conftest hides it
SECONDS = 60  # then the window has not heard the key
CURVES = {"real": BLACK, "generated": GREEN, "D": RED, "log": GREY}


def is_on_screen(*words):
    """Return whether the window is there, and do with it what these words say."""
    command = ["xdotool", "search", "--onlyvisible", "--name", "A generator learns", *words]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0


class Report(keras.callbacks.Callback):
    """Notes what the window behind which it stands shows, and does something after epoch 5."""

    def __init__(self, window, action):
        super().__init__()
        self.window = window
        self.action = action
        self.times = []
        self.titles = []
        self.pixels = []

    def note(self):
        self.times.append(time.monotonic())
        self.titles.append([])
        if self.window.is_open:
            manager = self.window.picture.figure.canvas.manager
            self.titles[-1] += [self.window.picture.title.get_text(), manager.get_window_title()]

    def take_screenshot(self):
        figure = self.window.picture.figure
        subprocess.run(["import", "-window", "root", "screen.png"], check=True)
        image = opened("screen.png").crop((0, 0, *figure.bbox.size))
        for curve, color in CURVES.items():
            self.pixels.append(pixels(part(image, axes_of(figure, curve)), color))

    def on_train_begin(self, logs=None):
        self.note()
        assert is_on_screen()
        self.take_screenshot()

    def on_epoch_end(self, epoch, logs=None):
        self.note()
        if epoch == 4:
            self.action(self)
        if not self.window.is_open:  # then nothing may wait for a frame
            demo_gan.FRAME_SECONDS = demo_gan.LAST_SECONDS = 3600
        elif epoch == 35:
            self.take_screenshot()

    def on_train_end(self, logs=None):
        self.note()


class User(keras.callbacks.Callback):
    """Draws, looks at what is open, and closes all figures."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            plt.plot([0, 1], "b")
            plt.savefig("own.png")
            facts["green"] = pixels(opened("own.png"), GREEN)
        if epoch == 3:
            facts["figures"] = plt.get_fignums()
            plt.close("all")
        if epoch == 5:
            facts["shown after close"] = is_on_screen()


class PressesQ(keras.callbacks.Callback):
    """Presses q, waits until the window has closed, and lets training go on for a while."""

    sees_weights_every = math.inf
    end = math.inf

    def __init__(self, window):
        super().__init__()
        self.window = window

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1000:
            is_on_screen("windowraise")
            subprocess.run(["xdotool", "mousemove", "300", "200", "key", "q"], check=True)
            self.start = time.monotonic()
        if epoch > 1000 and self.end == math.inf:
            facts["seconds"] = time.monotonic() - self.start
            facts["frames"] = len(self.window.states)
            if not self.window.is_open or facts["seconds"] > SECONDS:
                self.end = epoch + 500
        if epoch == self.end:
            self.model.stop_training = True


def go_on(report):
    pass


def fail(report):
    raise ZeroDivisionError


def close(report):
    """Do what a window manager's button does, a moment later, while a frame is shown."""
    window = report.window.picture.figure.canvas.manager.window
    window.after(10, lambda: window.tk.eval(window.protocol("WM_DELETE_WINDOW")))


def train(action):
    look = demo_gan.Look(gan, samples)
    window = demo_gan.Window(look)
    report = Report(window, action)
    pyplot = plt.isinteractive(), plt.get_fignums()
    with contextlib.suppress(ZeroDivisionError):
        gan.train(samples, 40, step_per=1, callbacks=[look, window, report])
    assert (plt.isinteractive(), plt.get_fignums()) == pyplot
    assert not is_on_screen()
    return report.titles, report.times, report.pixels


app_logger.init("INFO")
plt.style.use("dark_background")
gan = demo_gan.make_gan()
samples = demo_gan.make_samples(500, seed=0)
facts = {}
trainings = [train(go_on)]
gan.train(samples, 8, step_per=1, plot=True, callbacks=User())
demo_gan.LAST_SECONDS = 3600  # it waits for that at the end only
trainings.append(train(fail))
plt.figure(5)  # another window is open when ours is closed
plt.show(block=False)
seconds = demo_gan.FRAME_SECONDS
trainings.append(train(close))
demo_gan.FRAME_SECONDS = seconds
look = demo_gan.Look(gan, samples)
window = demo_gan.Window(look, every=20_000)
gan.train(samples, 10**6, 5, 1, callbacks=[look, window, PressesQ(window)])
facts["current"] = plt.gcf().number
print(json.dumps([*trainings, facts]))
