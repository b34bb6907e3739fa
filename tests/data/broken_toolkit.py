"""A backend for Matplotlib that cannot be imported."""

raise RuntimeError("no toolkit")
