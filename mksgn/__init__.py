"""Train MK-SGN, export it to NIR, run it in Loihi's arithmetic, and compare counted events with theoretical energy."""

__version__ = "0.1.0"
