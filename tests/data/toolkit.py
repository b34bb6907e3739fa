"""A toolkit whose windows need no display. At each moment it does what a test tells it to."""

import signal
import time

from matplotlib.backend_bases import CloseEvent, FigureManagerBase, KeyEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg

moments = []  # what was done
actions = {}  # functions that are called then, with how many times it was done
titles = []  # of all frames that were shown
canvases = []


def at(moment):
    moments.append(moment)
    assert len(moments) < 20_000, "it hangs"
    if moment in actions:
        actions[moment](moments.count(moment))


def press(key):
    canvas = canvases[-1]
    canvas.callbacks.process("key_press_event", KeyEvent("key_press_event", canvas, key))


def close():
    """Do what the button of a window does."""
    canvases[-1].manager.destroy()


class FigureManager(FigureManagerBase):
    def show(self):
        at("show")

    def destroy(self):
        self.canvas.callbacks.process("close_event", CloseEvent("close_event", self.canvas))
        at("close")


class FigureCanvas(FigureCanvasAgg):
    manager_class = FigureManager
    supports_blit = True

    def __init__(self, figure):
        super().__init__(figure)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as wx does
        canvases.append(self)
        at("figure")

    def blit(self, box=None):
        titles.append("".join(axes.get_title("left") for axes in self.figure.axes).strip())
        at("blit")

    def start_event_loop(self, timeout=0):
        time.sleep(timeout)
        at("wait")
