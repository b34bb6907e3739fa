"""A user draws figures of his own by pyplot while a window shows the training.

Then a window shows one frame in 20,000 epochs, and the user presses q.
"""

import json
import math
import subprocess
import time

import keras
import matplotlib.pyplot as plt

import app_logger
import demo_gan

SECONDS = 60  # then the window has not heard the key


def use_window(*words):
    command = ["xdotool", "search", "--onlyvisible", "--name", "A generator learns", *words]
    return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0


class User(keras.callbacks.Callback):
    """Draws, looks at what is open, and closes all figures."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            plt.plot([0, 1], "b")
            plt.savefig("own.png")
        if epoch == 3:
            facts["figures"] = plt.get_fignums()
            plt.close("all")
        if epoch == 5:
            facts["shown after close"] = use_window()


class PressesQ(keras.callbacks.Callback):
    """Presses q, waits until the window has closed, and lets training go on for a while."""

    sees_weights_every = math.inf
    end = math.inf

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1000:
            use_window("windowraise")
            subprocess.run(["xdotool", "mousemove", "300", "200", "key", "q"], check=True)
            self.start = time.monotonic()
        if epoch > 1000 and self.end == math.inf:
            facts["seconds"] = time.monotonic() - self.start
            facts["frames"] = len(window.states)
            if not window.is_open or facts["seconds"] > SECONDS:
                self.end = epoch + 500
        if epoch == self.end:
            self.model.stop_training = True


app_logger.init("INFO")
facts = {}
gan = demo_gan.make_gan()
samples = demo_gan.make_samples(500, seed=0)
gan.train(samples, 8, step_per=1, plot=True, callbacks=User())
plt.figure(5)
plt.show(block=False)
look = demo_gan.Look(gan, samples)
window = demo_gan.Window(look, every=20_000)
gan.train(samples, 10**6, 5, 1, callbacks=[look, window, PressesQ()])
facts["current"] = plt.gcf().number
print(json.dumps(facts))
