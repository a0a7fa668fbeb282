"""Evaluation: logits in batches, accuracy, copies of training clips, and a student's firing rate."""

import numpy as np
import pytest
import torch

from mksgn.train import evaluate
from mksgn.train.datasets import synthetic
from mksgn.train.evaluate import predict, top1
from mksgn.train.parallel import Group
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import SpikeCount, Student, StudentConfig
from mksgn.train.teacher import Teacher, TeacherConfig
from mksgn.train.transforms import body_inputs

CLIPS = synthetic.read(12, "train")
NORMALISER = StreamNormaliser.fit(CLIPS.clips, 4)


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    config = StudentConfig("ntu-25", CLIPS.classes, frames=4, stream_channels=2, widths=(4, 8), heads=2, kernel=3)
    student = Student(config)
    with torch.no_grad():
        student.train()(torch.from_numpy(body_inputs(CLIPS.clips, NORMALISER)[0]))
    return student


def no_copies(clips):
    return np.zeros(len(clips), dtype=bool)


def test_predict_in_batches_is_predict_at_once(student, monkeypatch):
    x, clip_of = body_inputs(CLIPS.clips, NORMALISER)
    assert len(x) > len(CLIPS)  # some clips have a second body
    at_once = predict(student.train(), x, clip_of, len(CLIPS))
    assert not student.training
    assert at_once.shape == (12, 12)
    monkeypatch.setattr(evaluate, "EVALUATION_BODIES", 5)
    torch.testing.assert_close(predict(student, x, clip_of, len(CLIPS)), at_once, atol=1e-6, rtol=1e-6)
    body = student(torch.from_numpy(x)).detach()
    for clip in range(12):
        torch.testing.assert_close(at_once[clip], body[clip_of == clip].mean(0))


def test_top1():
    logits = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.4], [0.0, -1.0]])
    assert top1(logits, np.array([1, 0, 0, 1])) == 0.5


def test_accuracy_and_firing_rate_of_a_student(student):
    x, clip_of = body_inputs(CLIPS.clips, NORMALISER)
    count = SpikeCount()
    accuracy = top1(predict(student, x, clip_of, len(CLIPS), spikes=count), CLIPS.labels)
    assert evaluate.evaluate(student, NORMALISER, CLIPS, no_copies, Group()) == {
        "held_out_top1": accuracy,
        "held_out_firing_rate": count.spikes / count.decisions,
    }


def test_evaluation_in_pieces_is_evaluation_at_once(student, monkeypatch):
    at_once = evaluate.evaluate(student, NORMALISER, CLIPS, no_copies, Group())
    monkeypatch.setattr(evaluate, "EVALUATION_CLIPS", 5)
    assert evaluate.evaluate(student, NORMALISER, CLIPS, no_copies, Group()) == pytest.approx(at_once, abs=1e-12)


def test_copies_of_training_clips_are_counted_and_left_out(student):
    def last_three(clips):
        return np.arange(len(clips)) >= len(clips) - 3

    results = evaluate.evaluate(student, NORMALISER, CLIPS, last_three, Group())
    x, clip_of = body_inputs(CLIPS.clips, NORMALISER)
    hit = predict(student, x, clip_of, 12).argmax(1).numpy() == CLIPS.labels
    assert results["held_out_copies"] == 3
    assert results["held_out_top1_without_copies"] == pytest.approx(hit[:-3].mean())


def test_a_teacher_has_no_firing_rate():
    teacher = Teacher(TeacherConfig("ntu-25", CLIPS.classes, frames=4, widths=(2,) * 10, kernel=3))
    assert set(evaluate.evaluate(teacher, NORMALISER, CLIPS, no_copies, Group())) == {"held_out_top1"}
