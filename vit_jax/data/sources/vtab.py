"""VTAB-1k as data sets: `vtab:TASK`, with the splits of the benchmark's authors.

VTAB (arXiv 1910.04867) has 19 tasks in three groups. In VTAB-1k a model learns each from 1,000
examples: 800 of train and 200 held out. Splits and labels are those of the authors' code
(google-research/task_adaptation).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from vit_jax.data.sources.open import register_source
from vit_jax.data.sources.records import Source
from vit_jax.data.sources.tfds import open_tfds, tfds_split_sizes
from vit_jax.errors import UserError
from vit_jax.spelling import nearest

Group = Literal["natural", "specialized", "structured"]
_HELD_OUT = 200


class Task(NamedTuple):
    """One task of VTAB.

    Attributes:
      dataset: its name in TFDS.
      held_out: the split whose first 200 examples are held out; for a number, those of train that
        follow this share of it, in percent.
      test: the split of the final score, in TFDS syntax.
      label: the feature that is the label or a computed one; None is the only one.
      flips: whether an image that is mirrored keeps its label.
      crops: whether a part of an image does.
      by_hand: whether files must be fetched by hand.
    """

    group: Group
    dataset: str
    held_out: int | Literal["validation", "test"]
    test: str
    label: str | None = None
    flips: bool = True
    crops: bool = True
    by_hand: bool = False


# In the order of Table 9. What is neither mirrored nor cropped is that of BiT (arXiv 1912.11370,
# appendix F).
TASKS = {
    "caltech101": Task("natural", "caltech101", 90, "test"),
    "cifar100": Task("natural", "cifar100", 90, "test"),
    "dtd": Task("natural", "dtd", "validation", "test"),
    "flowers": Task("natural", "oxford_flowers102", "validation", "test"),
    "pets": Task("natural", "oxford_iiit_pet", 80, "test"),
    "sun397": Task("natural", "sun397/tfds", "validation", "test"),
    "svhn": Task("natural", "svhn_cropped", 90, "test"),
    "camelyon": Task("specialized", "patch_camelyon", "validation", "test"),
    "eurosat": Task("specialized", "eurosat/rgb", 60, "train[80%:]"),
    "resisc45": Task("specialized", "resisc45", 60, "train[80%:]", by_hand=True),
    "retinopathy": Task(
        "specialized",
        "diabetic_retinopathy_detection/btgraham-300",
        "validation",
        "test",
        by_hand=True,
    ),
    "clevr_count": Task("structured", "clevr", 90, "validation", "count", crops=False),
    "clevr_distance": Task("structured", "clevr", 90, "validation", "distance", crops=False),
    "dmlab": Task("structured", "dmlab", "validation", "test", crops=False),
    "dsprites_location": Task(
        "structured", "dsprites", 80, "train[90%:]", "location", flips=False, crops=False
    ),
    "dsprites_orientation": Task(
        "structured", "dsprites", 80, "train[90%:]", "orientation", flips=False
    ),
    "kitti_distance": Task("structured", "kitti", "validation", "test", "distance", crops=False),
    "smallnorb_azimuth": Task(
        "structured", "smallnorb", "test", "test[50%:]", "label_azimuth", flips=False
    ),
    "smallnorb_elevation": Task("structured", "smallnorb", "test", "test[50%:]", "label_elevation"),
}


def task_splits(task: Task, train_examples: int) -> dict[str, str]:
    """The splits of a task by the names of the authors' code, in TFDS syntax.

    Args:
      train_examples: of the TFDS data set.
    """
    if isinstance(task.held_out, int):
        first = train_examples * task.held_out // 100
        held_out = f"train[{first}:{first + _HELD_OUT}]"
    else:
        held_out = f"{task.held_out}[:{_HELD_OUT}]"
    train = "train[:800]"
    return {
        "train800": train,
        "val200": held_out,
        "train800val200": f"{train}+{held_out}",
        "test": task.test,
    }


def task_named(name: str) -> Task:
    """A task by its name in `TASKS`.

    Raises:
      UserError: there is none.
    """
    if name not in TASKS:
        raise UserError(
            f"VTAB has no task {name!r}{nearest(name, TASKS)}; its tasks are {', '.join(TASKS)}"
        )
    return TASKS[name]


@register_source("vtab")
def open_task(name: str, split: str, data_dir: str | None) -> Source:
    """Opens one split of a task.

    Raises:
      NoDataError: its TFDS data set is not prepared.
      UserError: there is no such task or split.
    """
    task = task_named(name)
    splits = task_splits(task, tfds_split_sizes(task.dataset, data_dir).get("train", 0))
    if split not in splits:
        raise UserError(f"data set 'vtab:{name}' has no split {split!r}, but {', '.join(splits)}")
    return open_tfds(task.dataset, splits[split], data_dir, label=task.label)
