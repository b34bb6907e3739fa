"""A backend for Matplotlib: Tk, whose window is used with mouse and keys, and then Ctrl-C."""

import os
import re
import signal
import subprocess

import numpy as np
from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg
from PIL import Image


def do(*words):
    subprocess.run(["xdotool", *map(str, words)], check=True)


class FigureCanvas(FigureCanvasTkAgg):
    """Its story goes on when what it yielded has become true."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.story = self.use()
        self.condition = next(self.story)
        self.timer = self.new_timer(20)
        self.timer.add_callback(self.go_on)
        self.timer.start()

    def go_on(self):
        if self.condition():
            self.condition = next(self.story)

    def title(self):
        return "".join(axes.get_title(loc="left") for axes in self.figure.axes)

    def epoch(self):
        return int((re.findall(r"epoch = (\d+)", self.title()) or [0])[0])

    def is_held(self):
        return ", held" in self.title()

    def use(self):
        yield lambda: self.epoch() >= 30
        axes = next(axes for axes in self.figure.axes if "sample" in axes.get_ylabel())
        limits = axes.get_xlim()
        corners = axes.transAxes.transform([(0.2, 0.6), (0.7, 0.02)]).astype(int)
        do("mousemove", 300, 200, "key", "o")
        height = self.figure.bbox.height
        do("mousemove", corners[0][0], height - corners[0][1], "mousedown", 1)
        do("mousemove", corners[1][0], height - corners[1][1], "mouseup", 1)
        yield lambda: axes.get_xlim() != limits
        do("key", "space")
        yield self.is_held
        self.manager.window.update_idletasks()  # draws what is due
        subprocess.run(["import", "-window", "root", "screen.png"], check=True)
        self.draw()
        Image.fromarray(np.asarray(self.buffer_rgba())).convert("RGB").save("drawn.png")
        epoch = self.epoch()
        do("key", "Right")
        yield lambda: self.is_held() and self.epoch() == epoch + 1
        do("key", "space")
        yield lambda: not self.is_held() and self.epoch() > epoch + 2
        do("key", "space")
        yield self.is_held
        os.kill(os.getpid(), signal.SIGINT)
        yield lambda: False
