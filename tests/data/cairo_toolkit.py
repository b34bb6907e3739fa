"""A toolkit that cannot draw single artists, as GTK3Cairo. Nobody should open a window of it."""

from matplotlib.backend_bases import FigureCanvasBase


class FigureCanvas(FigureCanvasBase):
    supports_blit = True

    def __init__(self, figure):
        raise AssertionError("a window is opened")
