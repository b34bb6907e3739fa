"""Runs the program where there is no display, with a broken toolkit, and without tkinter."""

import sys

sys.modules.update(matplotlib_inline=None)

import demo_gan  # noqa: E402, which chooses a backend before it imports Matplotlib

rc = demo_gan.plt.rcParams
demo_gan.FRAME_SECONDS = demo_gan.LAST_SECONDS = 3600  # without a window nothing waits
default = dict.__getitem__(rc, "backend")  # Matplotlib's own choice
for backend in ("TkAgg", "module://broken_toolkit", default):
    print("A run", file=sys.stderr)
    dict.__setitem__(rc, "backend", backend)
    if backend is default:
        sys.modules.update(tkinter=None, _tkinter=None)
    print(demo_gan.main(["-e", "2", "-k", "1"]))
