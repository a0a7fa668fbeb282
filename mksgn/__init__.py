"""Train MK-SGN, export it to NIR, run it in Loihi's arithmetic, and compare counted events with theoretical energy."""

from importlib.metadata import version

__version__ = version("mksgn")
