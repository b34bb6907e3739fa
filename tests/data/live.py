"""Trains in a window four times: to the end, until it is stopped, until it fails, and closed.

Says, for each training, what the window showed when, and how many pixels have the curves' colours.
"""

import contextlib
import json
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
CURVES = {"real": BLACK, "generated": GREEN, "D": RED, "log": GREY}


def is_on_screen():
    command = ["xdotool", "search", "--onlyvisible", "--name", "A generator learns"]
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


def go_on(report):
    pass


def stop(report):
    report.model.stop_training = True


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
trainings = [train(go_on)]
demo_gan.LAST_SECONDS = 3600  # it waits for that at the end only
trainings += [train(stop), train(fail)]
plt.figure()  # another window is open when ours is closed
plt.show(block=False)
trainings.append(train(close))
print(json.dumps(trainings))
