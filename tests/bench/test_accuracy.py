"""mksgn/bench/accuracy: confusions, and the student in torch."""

import pytest

from mksgn.bench.accuracy import accuracy_of, torch_accuracy, wilson
from mksgn.train import checkpoint
from tests.support.bench_runs import some_clips, student_files


def test_confusion_recall_and_top_1_by_hand():
    accuracy = accuracy_of([0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 0, 2], ("wave", "sit", "throw", "never"))
    assert accuracy.confusion == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert accuracy.per_class == {"wave": 0.5, "sit": pytest.approx(2 / 3), "throw": 1.0, "never": None}
    assert (accuracy.correct, accuracy.top1) == (4, pytest.approx(4 / 6))


def test_torch_accuracy_needs_the_very_checkpoint_that_the_file_was_exported_from(tmp_path, monkeypatch):
    model, clips = student_files(tmp_path), some_clips(7)
    whole = torch_accuracy(model, clips)
    monkeypatch.setattr("mksgn.bench.accuracy.TORCH_CLIPS", 3)
    assert torch_accuracy(model, clips) == whole
    assert whole * 7 == pytest.approx(round(whole * 7))
    trained = checkpoint.load(tmp_path / "model.pt")
    checkpoint.save(trained.__class__(trained.student, trained.normaliser, {"preset": "other"}), tmp_path / "model.pt")
    assert torch_accuracy(model, clips) is None
    (tmp_path / "model.pt").unlink()
    assert torch_accuracy(model, clips) is None


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # statsmodels.stats.proportion.proportion_confint(…, method="wilson"), to its digits
        (3, 4, 0.30064184, 0.95441273),
        (0, 10, 0.0, 0.27753280),
        (10, 10, 0.72246720, 1.0),
        (81, 263, 0.25527, 0.36621),  # Newcombe, Statistics in Medicine 17 (1998), 857-872, table I
        (15, 148, 0.06239, 0.16053),
        (1, 29, 0.00611, 0.17176),
    ],
)
def test_wilsons_interval(correct, total, low, high):
    assert wilson(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_wilsons_interval_solves_its_equation_and_stays_within_0_and_1():
    for correct, total in ((0, 1), (1, 1), (3, 7), (376, 504), (16_487, 16_487)):
        low, high = wilson(correct, total, z := 1.5)
        assert 0 <= low <= correct / total <= high <= 1
        for end in {low, high} - {0.0, 1.0}:
            assert abs(correct / total - end) == pytest.approx(z * (end * (1 - end) / total) ** 0.5)
