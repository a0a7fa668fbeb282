"""Procedural clips: an articulated figure of 25 joints performs actions in front of a depth sensor;
there is no data to download.

The classes are chosen so that neither half of a spatio-temporal network suffices. Sit down and stand
up, and raise arms and lower arms, are one motion played forwards and backwards: the same poses, told
apart by order alone. Squat goes through the poses of both sit down and stand up. Wave hand and swing
foot, and bow and squat, share a rhythm: told apart by *which* joints move. Everything here is ours;
segment lengths are near those of Drillis and Contini (1966), as in Winter's Biomechanics and Motor
Control of Human Movement, narrowed at hips and shoulders to where a Kinect v2 places those joints.
"""

from collections.abc import Callable, Sequence

import numpy as np

from mksgn.common.counts import MOST_CLIPS
from mksgn.common.errors import BadInputError
from mksgn.common.quoting import quoted
from mksgn.train.datasets.clips import Clip, ClipSet, LazyClips, check_selection

SOURCE = SPLIT = "synthetic"
GRAPH = "ntu-25"
PARTS = {"train": 0, "test": 1}  # numbers of their random streams
DEFAULT_LIMIT = {"train": 1000, "test": 200}
HELD = 2000  # most clips held in memory, 20 kB each

FRAMES = (32, 64)  # length of a clip, inclusive
STATURE = (1.5, 1.95)  # metres
YAW = 30.0  # degrees to either side of facing the sensor
TILT = 6.0  # degrees of the sensor's pitch; its roll is a third of that
DISTANCE = (2.5, 4.0)  # metres along the sensor's axis
SENSOR_HEIGHT = (0.8, 1.2)  # metres above the floor
NOISE = (0.005, 0.012)  # metres, standard deviation per coordinate: 1 to 2 cm in space
BYSTANDER_SHARE = 0.1  # clips with a second body, who stands next to the first and does nothing

# joint: (parent, offset from it in the rest pose). Body frame: x to the figure's left, y up, z
# forward; lengths are shares of stature. Parents come before children. Offsets of the right side
# mirror the left.
_SPINE = {
    0: (0, (0, 0, 0)), 1: (0, (0, 0.145, 0)), 20: (1, (0, 0.145, 0)), 2: (20, (0, 0.045, 0)), 3: (2, (0, 0.085, 0.01)),
}  # fmt: skip
_LEFT = {
    4: (20, (0.105, -0.01, 0)), 5: (4, (0, -0.172, 0)), 6: (5, (0, -0.146, 0)), 7: (6, (0, -0.045, 0)),
    21: (7, (0, -0.05, 0)), 22: (7, (-0.01, -0.025, 0.025)),
    12: (0, (0.05, -0.015, 0)), 13: (12, (0, -0.245, 0)), 14: (13, (0, -0.235, 0)), 15: (14, (0, -0.04, 0.07)),
}  # fmt: skip
_MIRROR = {4: 8, 5: 9, 6: 10, 7: 11, 21: 23, 22: 24, 12: 16, 13: 17, 14: 18, 15: 19}
_RIGHT = {_MIRROR[j]: (_MIRROR.get(p, p), (-x, y, z)) for j, (p, (x, y, z)) in _LEFT.items()}
_TREE = _SPINE | _LEFT | _RIGHT
_ARM, _LEG = (5, 6, 7, 21, 22, 9, 10, 11, 23, 24), (13, 14, 15, 17, 18, 19)
_ANKLES = (14, 18)

# anatomical angle: (joint, axis of its rotation, sign). Axes 0, 1, 2 are x, y, z; a positive angle
# bends forward (a knee: back), raises sideways, or turns to the left. On the right side the signs
# about y and z change.
_ANGLES = {"pitch": (0, 0, 1), "lean": (1, 0, 1), "turn": (1, 1, 1), "tilt": (1, 2, -1), "nod": (2, 0, 1)} | {
    f"{side}_{name}": (left if side == "l" else _MIRROR[left], axis, sign if side == "l" or axis == 0 else -sign)
    for side in "lr"
    for name, (left, axis, sign) in {
        "shoulder_flex": (4, 0, -1),
        "shoulder_abduct": (4, 2, 1),
        "shoulder_twist": (4, 1, 1),
        "elbow": (5, 0, -1),
        "hip_flex": (12, 0, -1),
        "hip_abduct": (12, 2, 1),
        "knee": (13, 0, 1),
    }.items()
}
Motion = dict[str, np.ndarray]  # degrees by anatomical angle, (T,) each; "lift": metres of both feet above the floor


def _ramp(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rise smoothly from 0 to 1, with random onset and duration; symmetric under reversal of
    time."""
    start, end = rng.uniform(0.05, 0.35), rng.uniform(0.65, 0.95)
    x = np.clip((time - start) / (end - start), 0.0, 1.0)
    return x * x * (3 - 2 * x)


def _bump(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rise smoothly from 0 to 1 and fall back to 0."""
    x = np.clip((time - rng.uniform(0.35, 0.65)) / rng.uniform(0.5, 0.8), -0.5, 0.5)
    return np.cos(np.pi * x) ** 2


def _beat(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Oscillate between -1 and 1 two to four times: the rhythm of all rhythmic actions."""
    return np.sin(2 * np.pi * (rng.uniform(2, 4) * time + rng.uniform()))


def _both(motion: Motion) -> Motion:
    """Copy a motion to both sides."""
    return {f"{side}_{name}": value for name, value in motion.items() for side in "lr"}


def _crouch(depth: np.ndarray) -> Motion:
    """Move from standing (0) to sitting on air (1), leaning forward in between."""
    lean = 25 * np.sin(np.pi * np.clip(depth, 0, 1)) + 10 * depth
    return _both({"hip_flex": 90 * depth, "knee": 95 * depth, "shoulder_flex": 25 * depth}) | {"lean": lean}


def _sit(t: np.ndarray, rng: np.random.Generator) -> Motion:
    return _crouch(_ramp(t, rng))


def _squat(t: np.ndarray, rng: np.random.Generator) -> Motion:
    return _crouch(_bump(t, rng))


def _raise_arms(t: np.ndarray, rng: np.random.Generator) -> Motion:
    u, angle = _ramp(t, rng), ("shoulder_abduct", "shoulder_flex")[rng.integers(2)]  # sideways or forward
    return _both({angle: 150 * u, "elbow": 15 * u})


def _wave(t: np.ndarray, rng: np.random.Generator) -> Motion:
    height = rng.uniform(60, 100) + 0 * t
    return {"r_shoulder_abduct": height, "r_shoulder_twist": 90 + 0 * t, "r_elbow": 75 + 35 * _beat(t, rng)}


def _swing_foot(t: np.ndarray, rng: np.random.Generator) -> Motion:
    beat = _beat(t, rng)
    return {"r_hip_flex": 18 + 30 * beat, "r_knee": 30 - 18 * beat, "l_shoulder_abduct": 12 + 0 * t}


def _clap(t: np.ndarray, rng: np.random.Generator) -> Motion:
    height = rng.uniform(25, 50) + 0 * t
    return _both({"shoulder_flex": height, "elbow": 55 + 0 * t, "shoulder_twist": -15 - 25 * _beat(t, rng)})


def _bow(t: np.ndarray, rng: np.random.Generator) -> Motion:
    u = _bump(t, rng)
    return {"pitch": 45 * u, "lean": 25 * u, "nod": 15 * u} | _both({"hip_flex": 45 * u, "shoulder_flex": 25 * u})


def _jump(t: np.ndarray, rng: np.random.Generator) -> Motion:
    take_off, flight = rng.uniform(0.4, 0.5), rng.uniform(0.2, 0.3)
    x = (t - take_off) / flight  # 0 to 1 in the air
    crouch = np.exp(-(((x + 0.5) / 0.35) ** 2)) + 0.7 * np.exp(-(((x - 1.3) / 0.35) ** 2))  # before, and on landing
    arms = 60 * np.exp(-(((x - 0.4) / 0.5) ** 2)) - 30 * np.exp(-(((x + 0.5) / 0.4) ** 2))
    lift = rng.uniform(0.15, 0.35) * np.clip(4 * x * (1 - x), 0, None)
    limbs = _both({"hip_flex": 50 * crouch, "knee": 70 * crouch, "shoulder_flex": arms})
    return limbs | {"lean": 25 * crouch, "lift": lift}


def _throw(t: np.ndarray, rng: np.random.Generator) -> Motion:
    release = rng.uniform(0.45, 0.65)
    back = np.exp(-(((t - release + 0.18) / 0.14) ** 2))
    forth = np.exp(-(((t - release - 0.08) / 0.13) ** 2))
    return {
        "r_shoulder_flex": 110 * back + 80 * forth, "r_shoulder_abduct": 35 * back, "r_elbow": 100 * back + 10 * forth,
        "turn": 30 * (forth - back), "lean": 18 * forth - 8 * back, "l_hip_flex": 15 * forth, "l_knee": 15 * forth,
    }  # fmt: skip


def _walk(t: np.ndarray, rng: np.random.Generator) -> Motion:
    beat = _beat(t, rng)
    right, left = np.clip(beat, 0, None), np.clip(-beat, 0, None)
    legs = {"r_hip_flex": 45 * right, "r_knee": 65 * right, "l_hip_flex": 45 * left, "l_knee": 65 * left}
    return legs | {"r_shoulder_flex": -20 * beat, "l_shoulder_flex": 20 * beat}


# class: (motion, played backwards). The order is that of the labels.
_ACTIONS: dict[str, tuple[Callable[[np.ndarray, np.random.Generator], Motion], bool]] = {
    "sit down": (_sit, False), "stand up": (_sit, True),
    "raise arms": (_raise_arms, False), "lower arms": (_raise_arms, True),
    "wave hand": (_wave, False), "swing foot": (_swing_foot, False),
    "clap": (_clap, False), "bow": (_bow, False), "squat": (_squat, False),
    "jump": (_jump, False), "throw": (_throw, False), "walk in place": (_walk, False),
}  # fmt: skip
CLASSES = tuple(_ACTIONS)


def read(limit: int | None, part: str, seed: int = 0) -> ClipSet:
    """Make the first `limit` clips of a part (default: 1000 to train, 200 to test).

    If there are more than `HELD`, each is made when it is asked for, so that memory does not grow with their number.
    """
    check_selection(SOURCE, (SPLIT,), None, part, limit)
    count = DEFAULT_LIMIT[part] if limit is None else limit
    if count > MOST_CLIPS:
        raise BadInputError(f"limit {quoted(count)} of {SOURCE} clips: it must be at most {MOST_CLIPS:,}")
    clips: Sequence[Clip] = LazyClips(np.arange(count) % len(CLASSES), lambda index: clip(index, part, seed))
    if count <= HELD:
        clips = list(clips)
    return ClipSet(SOURCE, SPLIT, part, GRAPH, CLASSES, clips, validation=True)


def clip(index: int, part: str, seed: int = 0) -> Clip:
    """Make clip `index` of a part, a function of (seed, part, index) alone, with label index modulo
    the classes.

    Joints are (M, T, 25, 3) float32 metres, M 1 or 2, T 32 to 64, in the sensor's coordinates: y
    up, z away from it; the left of a figure that faces the sensor is at negative x. Raises
    BadInputError for another part or a negative number.
    """
    check_selection(SOURCE, (SPLIT,), None, part)
    if index < 0 or seed < 0:
        raise BadInputError(f"{SOURCE}: clip {index} of seed {seed} does not exist: neither may be negative")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(PARTS[part], index)))
    label = index % len(CLASSES)
    frames = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
    place = np.array([rng.uniform(-0.5, 0.5), 0.0, rng.uniform(*DISTANCE)])
    bodies = [_facing(animate(CLASSES[label], frames, rng), rng) + place]
    if rng.uniform() < BYSTANDER_SHARE:
        offset = np.array([rng.choice((-1, 1)) * rng.uniform(0.9, 1.4), 0.0, rng.uniform(-0.3, 0.3)])
        bodies.append(_facing(animate(None, frames, rng), rng) + place + offset)
    joints = np.stack(bodies)
    joints[..., 1] -= rng.uniform(*SENSOR_HEIGHT)
    tilt = _rotations(np.radians([rng.uniform(-TILT, TILT), 0.0, rng.uniform(-TILT, TILT) / 3]))
    joints = joints @ tilt.T + rng.normal(scale=rng.uniform(*NOISE), size=joints.shape)
    return Clip(f"{part}-{seed}-{index:05d}", label, joints.astype(np.float32), GRAPH)


def animate(action: str | None, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Animate a random figure that performs an action or (None) stands: (frames, 25, 3) metres in the
    body frame, floor at y = 0, no noise."""
    move, backwards = (lambda t, rng: {}, False) if action is None else _ACTIONS[action]
    time = np.linspace(0.0, 1.0, frames)
    effort, mirrored = rng.uniform(0.8, 1.15), rng.uniform() < 0.5
    motion = {name: value if name == "lift" else effort * value for name, value in move(time, rng).items()}
    angles = np.zeros((frames, 25, 3))
    # Nobody stands still: every angle drifts a few degrees, and arms hang a little out and bent.
    size, pace, phase = (rng.uniform(low, high, len(_ANGLES)) for low, high in ((0.0, 4.0), (0.3, 1.5), (0.0, 1.0)))
    drift = size * np.sin(2 * np.pi * (time[:, None] * pace + phase))
    rest = {"shoulder_abduct": rng.uniform(4, 12), "elbow": rng.uniform(5, 20)}
    for k, (name, (joint, axis, sign)) in enumerate(_ANGLES.items()):
        source, flip = name, 1
        if mirrored:  # the left does what the right would have done
            source = {"l_": "r_", "r_": "l_"}.get(name[:2], name[:2]) + name[2:]
            flip = -1 if name in ("turn", "tilt") else 1
        angles[:, joint, axis] += sign * (flip * motion.get(source, 0.0) + drift[:, k] + rest.get(name[2:], 0.0))
    for hip, knee, ankle in ((12, 13, 14), (16, 17, 18)):  # soles stay level
        angles[:, ankle, 0] = -angles[:, [0, hip, knee], 0].sum(1)
    offsets = _figure(rng)
    stand = _forward_kinematics(np.zeros((1, 25, 3)), offsets)
    body = _plant(_forward_kinematics(np.radians(angles), offsets), stand, motion.get("lift", 0.0))
    return body[::-1] if backwards else body


def _figure(rng: np.random.Generator) -> np.ndarray:
    """Draw the offsets (25, 3), in metres, of a body of random stature and proportions in the rest
    pose."""
    offsets = np.array([_TREE[joint][1] for joint in range(25)], dtype=float)
    torso, arm, leg, width = np.clip(rng.normal(1.0, 0.05, 4), 0.88, 1.12)
    scale = np.full((25, 1), torso)
    scale[list(_ARM)], scale[list(_LEG)], scale[[4, 8, 12, 16]] = arm, leg, width
    return offsets * scale * rng.uniform(*STATURE)


def _rotations(angles: np.ndarray) -> np.ndarray:
    """Compute matrices Rz Rx Ry (..., 3, 3) of angles about x, y, z (..., 3), in radians: twist,
    then flex, then sideways."""
    (cx, cy, cz), (sx, sy, sz) = np.moveaxis(np.cos(angles), -1, 0), np.moveaxis(np.sin(angles), -1, 0)
    rows = [
        [cz * cy - sz * sx * sy, -sz * cx, cz * sy + sz * sx * cy],
        [sz * cy + cz * sx * sy, cz * cx, sz * sy - cz * sx * cy],
        [-cx * sy, sx, cx * cy],
    ]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def _forward_kinematics(angles: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Compute positions (T, 25, 3), base of the spine at the origin, of local angles (T, 25, 3),
    radians, and offsets (25, 3)."""
    rotations = _rotations(angles)
    positions = np.zeros_like(angles)
    for joint, (parent, _) in _TREE.items():
        if joint != parent:
            positions[:, joint] = positions[:, parent] + rotations[:, parent] @ offsets[joint]
            rotations[:, joint] = rotations[:, parent] @ rotations[:, joint]
    return positions


def _plant(positions: np.ndarray, stand: np.ndarray, lift: np.ndarray | float) -> np.ndarray:
    """Shift each frame so that the lower foot stays where it is in `stand` (1, 25, 3), with the
    floor at y = 0.

    `lift` (T,), metres, takes both feet off the floor.
    """
    ankles = positions[:, _ANKLES]
    moved = ankles - stand[:, _ANKLES]
    height = ankles[..., 1:2]
    weight = np.exp(-(height - height.min(1, keepdims=True)) / 0.015)  # metres: how softly the weight shifts over
    planted = positions - (weight * moved).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
    planted[..., 1] -= planted[..., 1].min(1, keepdims=True)
    planted[..., 1] += np.reshape(lift, (-1, 1))
    return planted


def _facing(body: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rotate a body from its own frame towards the sensor (180 degrees), plus or minus YAW."""
    turn = _rotations(np.radians([0.0, 180.0 + rng.uniform(-YAW, YAW), 0.0]))
    return body @ turn.T
