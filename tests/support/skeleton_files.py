"""Files in NTU RGB+D's own format, written by tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

BODY = "0 1 1 0 0 0 0.25 -0.5 2"  # what follows a body's id
JOINT = "-inf 200.5 nan 540.25 1 0 0 0 2"  # what follows x y z; a sensor writes such things where it has lost a joint


def write_skeleton(path: Path, frames: Sequence[Sequence[tuple[int | str, np.ndarray]]], newline: str = "\n") -> Path:
    """A clip of frames of bodies (id, (25, 3) joints in metres); a float32 is read back as it
    was."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for body, joints in bodies:
            lines += [f"{body} {BODY}", str(len(joints))]
            lines += [" ".join(repr(float(value)) for value in joint) + f" {JOINT}" for joint in joints]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((newline.join(lines) + newline).encode("ascii"))
    return path
