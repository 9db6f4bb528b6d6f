"""Checkpoints of a run in a bucket, saved and restored alike wherever the bucket is."""

from tests.runs.saved_states import assert_same_state, draw_state, training_shapes
from vit_jax.runs.checkpoints import CheckpointConfig, Checkpoints


def open_in_bucket(run: str) -> Checkpoints:
    """The checkpoints of a run, of which two stay."""
    return Checkpoints(f"{run}/checkpoints", CheckpointConfig(keep=2), {"run": "a"})


def save_three(run: str) -> None:
    """Saves steps 1 to 3; 2 and 3 stay."""
    with open_in_bucket(run) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, draw_state(step, training_shapes()), {"step": step})
        checkpoints.wait()


def restored_in_bucket(run: str) -> int | None:
    """The step that is restored, with the state and notes that were saved; None if none is."""
    with open_in_bucket(run) as checkpoints:
        restored = checkpoints.restore(training_shapes())
    if restored is None:
        return None
    assert_same_state(restored.state, draw_state(restored.step, training_shapes()))
    assert restored.notes == {"step": restored.step}
    return restored.step
