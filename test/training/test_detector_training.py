"""The parts of the detector's training that a falling loss would not show to be wrong."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason="workshop only: pip install '.[export]'")

TRAINING = Path(__file__).parents[2] / 'training'


@pytest.fixture(autouse=True)
def training_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TRAINING))


def white_boxes(image):
    rows, columns = np.nonzero((image > 0.9).all(axis=0))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_boxes_move_with_their_pictures():
    from pictures import Augmentation

    class Still(Augmentation):
        contrast = brightness = colour = 0.0

    torch.manual_seed(0)
    images = torch.full((24, 3, 96, 96), 20, dtype=torch.uint8)
    images[:, :, 30:60, 20:70] = 255
    boxes = torch.tensor([20.0, 30.0, 70.0, 60.0]).expand(24, 2, 4)
    valid = torch.tensor([True, False]).expand(24, 2)
    moved, where, there = Still(96)(images, boxes, valid)
    assert not there[:, 1].any()
    assert there[:, 0].sum() > 15
    places = set()
    for image, box, known in zip(moved.numpy(), where[:, 0].numpy(), there[:, 0], strict=True):
        if known:
            assert box == pytest.approx(white_boxes(image), abs=2.0)
            places.add(tuple(box.round().tolist()))
    assert len(places) > 15


def test_what_leaves_the_picture_is_no_object():
    from pictures import Augmentation

    class Far(Augmentation):
        flip, scale, shift = 0.0, (1.0, 1.0), 0.0

    images = torch.zeros((1, 3, 64, 64), dtype=torch.uint8)
    boxes = torch.tensor([[[-30.0, 10, 5, 30], [50, 10, 70, 30], [10, 10, 11, 30]]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    _, where, there = Far(64)(images, boxes, valid)
    assert there[0].tolist() == [False, True, False]
    assert where[0, 1].tolist() == [50, 10, 64, 30]


def test_the_heat_peaks_where_the_centre_is():
    from train_detector import Recipe, peaks

    boxes = torch.zeros(1, 2, 4)
    boxes[0, 1] = torch.tensor([16.0, 40.0, 60.0, 60.0])
    heat = peaks(boxes, torch.tensor([[False, True]]), 12, Recipe())
    assert heat[0, 0].max() == 0
    row, column = divmod(int(heat[0, 1].argmax()), 12)
    assert (row, column) == (50 // 8, 38 // 8)
    assert heat[0, 1, row, column] == 1
    assert (heat[0, 1] == 1).sum() == 1
    assert heat[0, 1, row, column + 1] > heat[0, 1, row, column + 2] > 0


def test_the_right_box_costs_nothing_and_a_wrong_one_pulls_the_right_way():
    from train_detector import Recipe, box_loss

    recipe = Recipe()
    boxes = torch.tensor([[[16.0, 40.0, 60.0, 60.0]]])
    wanted = torch.zeros(1, 1, 12, 12)
    wanted[0, 0, 6, 4] = 1
    right = torch.ones(1, 4, 1, 12, 12)
    right[0, :, 0, 6, 4] = torch.tensor([20.0, 12.0, 24.0, 8.0])
    assert box_loss(right, boxes, wanted, recipe).item() == pytest.approx(0, abs=1e-5)
    wrong = right.clone()
    wrong[0, 0, 0, 6, 4] = 30.0  # the left edge too far out
    wrong.requires_grad_(True)
    loss = box_loss(wrong, boxes, wanted, recipe)
    loss.backward()
    assert loss.item() > 0.1
    assert wrong.grad[0, 0, 0, 6, 4] > 0
    assert wrong.grad[0, :, 0, 5, 4].abs().sum() == 0


def test_an_object_that_is_missed_costs_more_than_one_that_is_seen():
    from train_detector import heat_loss

    wanted = torch.zeros(1, 1, 6, 6)
    wanted[0, 0, 3, 3] = 1
    empty, seen = torch.full((1, 1, 6, 6), -6.0), torch.full((1, 1, 6, 6), -6.0)
    seen[0, 0, 3, 3] = 6.0
    beside = torch.full((1, 1, 6, 6), -6.0)
    beside[0, 0, 0, 0] = 6.0
    seen_loss, empty_loss, beside_loss = (
        heat_loss(x, wanted).item() for x in (seen, empty, beside)
    )
    assert seen_loss < 0.01 < 1 < empty_loss < beside_loss


def scene(image, boxes, labels, opening, gripper):
    from scenes import Scene

    names = ('gripper', 'puck', 'drawer')
    return Scene(
        image,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        'near',
        opening,
        gripper,
        names,
    )


def test_what_a_crop_shows_is_known_or_left_out():
    from crops import boxes_with_state, cut

    image = np.zeros((60, 60, 3), np.uint8)
    image[10:30, 10:30] = 255
    drawer, gripper = (10, 10, 30, 30), (40, 40, 50, 50)
    wide = scene(image, [drawer, gripper], [2, 0], opening=0.9, gripper=0.1)
    half = scene(image, [drawer, gripper], [2, 0], opening=0.5, gripper=0.5)
    none = scene(image, [gripper], [0], opening=-1.0, gripper=1.0)
    assert [state for _, state in boxes_with_state(wide, ('drawer',))] == [1]
    assert [state for _, state in boxes_with_state(wide, ('gripper',))] == [0]
    assert list(boxes_with_state(half, ('drawer', 'gripper'))) == []
    assert [state for _, state in boxes_with_state(none, ('drawer', 'gripper'))] == [1]
    crops, states = cut([wide, half, none], ('drawer',), 16, margin=0.0, copies=3, jitter=0.1)
    assert crops.shape == (3, 16, 16, 3)
    assert states.tolist() == [1, 1, 1]
    assert (crops.mean(axis=(1, 2, 3)) > 200).all()
    assert len({crop.tobytes() for crop in crops}) > 1


def test_scenes_are_saved_and_read_again(tmp_path, simulator):
    import scenes

    scenes.write(tmp_path / 's.npz', 8, 3)
    saved = scenes.read(tmp_path / 's.npz')
    drawn = list(scenes.scenes(8, 3))
    assert len(saved) == 8
    for ours, theirs in zip(saved, drawn, strict=True):
        assert (ours.boxes == theirs.boxes).all()
        assert (ours.labels == theirs.labels).all()
        assert ours.names == theirs.names
        assert ours.opening == pytest.approx(theirs.opening)
        difference = np.abs(ours.image.astype(int) - theirs.image.astype(int))
        assert difference.mean() < 4
    assert len({view for view in (s.view for s in drawn)}) >= 1
    assert sum(len(s.labels) for s in saved) >= 8
