import numpy as np
import pytest

from pcamjax.data.batches import epoch_permutation, eval_batches, steps_per_epoch, train_batches
from pcamjax.errors import InputError

# An image tells its own row, so that a batch shows which rows it holds.
IMAGES = np.broadcast_to(np.arange(50, dtype=np.uint8)[:, None, None, None], (50, 96, 96, 3))
LABELS = (np.arange(50) % 2).astype(np.int8)
INDICES = np.arange(5, 48)


def rows(batches) -> list[list[int]]:
    return [batch.images[:, 0, 0, 0].tolist() for batch in batches]


def train(first=0, last=12, process=(0, 1), seed=3):
    return train_batches(IMAGES, LABELS, INDICES, batch_size=8, seed=seed, first_step=first, last_step=last,
                         process=process)


def test_an_epoch_visits_each_example_once_in_a_new_order():
    batches = rows(train())
    assert steps_per_epoch(len(INDICES), 8) == 5
    first, second = sum(batches[:5], []), sum(batches[5:10], [])
    assert len(set(first)) == 40 and set(first) <= set(INDICES.tolist())
    assert len(set(second)) == 40 and first != second


def test_labels_follow_their_images():
    for batch in train():
        assert (batch.labels == batch.images[:, 0, 0, 0] % 2).all()


def test_batches_depend_on_seed_epoch_and_step_alone():
    assert rows(train(first=7)) == rows(train())[7:]
    assert rows(train(seed=4)) != rows(train())
    assert (epoch_permutation(0, 1, 9) == epoch_permutation(0, 1, 9)).all()


def test_processes_read_consecutive_pieces_of_the_same_batches():
    pieces = [rows(train(process=(i, 2))) for i in range(2)]
    assert [a + b for a, b in zip(*pieces, strict=True)] == rows(train())


@pytest.mark.parametrize("count", [1, 7, 8, 9, 43])
def test_evaluation_counts_each_example_once(count):
    seen = []
    for batch in eval_batches(IMAGES, INDICES[:count], batch_size=8):
        assert len(batch.images) == 8
        seen += batch.images[batch.mask][:, 0, 0, 0].tolist()
    assert seen == INDICES[:count].tolist()


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(InputError, match="batch_size 64 is larger than the 43"):
        steps_per_epoch(43, 64)
