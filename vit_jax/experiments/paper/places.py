"""Which figure of a published table a score of ours is to be compared with."""

from collections.abc import Iterable

from vit_jax.analysis.published import augreg
from vit_jax.analysis.published.leaderboards import LEADERBOARDS, VIZWIZ_ALL
from vit_jax.analysis.published.results import (
    AVERAGE_5,
    CORE_DAYS,
    EXAFLOPS,
    H14_JFT,
    L16_IMAGENET21K,
    L16_JFT,
    TABLE_2,
    TABLE_2_IMAGENET_SIZES,
    TABLE_5,
    TABLE_6,
    TABLE_7_MODELS,
    TABLE_8_CELLS,
    VTAB_GROUPS,
)
from vit_jax.analysis.published.timm import RELEASED, TIMM
from vit_jax.data.sources.published import DATASETS
from vit_jax.errors import UserError
from vit_jax.experiments.paper.comparison import Cell, NoRowError
from vit_jax.experiments.paper.lineage import Stage, released, timm_name
from vit_jax.experiments.paper.scored import COST, LABEL_SETS, Scored
from vit_jax.models.sizes import parse_name

# Pixels of fine-tuning and of pre-training in the paper, unless a table says otherwise.
_FINE_TUNED, _PRE_TRAINED = 384, 224
_OPTIMIZERS = {"adamw": "Adam", "sgd": "SGD"}
# The row and the column of Table 8 by `model.positions`; a run from scratch inherits learned ones.
_POSITIONS = {**TABLE_8_CELLS, "inherit": TABLE_8_CELLS["learned"]}


def table_2(scored: Scored) -> tuple[Cell, float]:
    """Table 2, by pre-training data, model and scored data; VTAB by its tasks."""
    is_cost = scored.dataset == COST
    first = _only(scored) if is_cost else _pre_trained(scored)
    model = _model(scored, ("ViT-H/14", "ViT-L/16"))
    column = f"{first.dataset} {model}"
    if column not in (H14_JFT, L16_JFT, L16_IMAGENET21K):
        raise NoRowError(f"the table has no {model} that was pre-trained on {first.dataset}")
    if is_cost:
        return ((CORE_DAYS,), column), _cost(scored, "core_days")
    if scored.dataset.startswith("vtab:"):
        return ((_task(scored)[1],), column), _percent(scored)
    is_imagenet = scored.dataset in ("imagenet", "imagenet_real")
    _require_size(scored, TABLE_2_IMAGENET_SIZES[model] if is_imagenet else _FINE_TUNED)
    return ((_listed(scored, (row for (row,) in TABLE_2.rows)),), column), _percent(scored)


def table_5(scored: Scored) -> tuple[Cell, float]:
    """Table 5, by pre-training data, model and scored data."""
    first = _pre_trained(scored)
    model = _model(scored, TABLE_5.columns)
    _require_size(scored, _FINE_TUNED)
    row = (first.dataset, _whole_test(scored))
    if row not in TABLE_5.rows:
        raise NoRowError(f"the table has no {row[1]} after pre-training on {row[0]}")
    return (row, model), _percent(scored)


def table_6(scored: Scored) -> tuple[Cell, float]:
    """Table 6, by model, epochs of pre-training and scored data."""
    row, first = _run_on_jft(scored, (model for model, _ in TABLE_6.rows))
    if first.optimizer not in (None, "adamw"):
        raise NoRowError(f"it was pre-trained with {first.optimizer}, and the table's with Adam")
    if row not in TABLE_6.rows:
        raise NoRowError(f"the table has no {row[0]} that was pre-trained for {row[1]} epochs")
    if scored.dataset == COST:
        return (row, EXAFLOPS), _cost(scored, "exaflops")
    return (row, _listed(scored, TABLE_6.columns)), _percent(scored)


def table_7(scored: Scored) -> tuple[Cell, float]:
    """Table 7, by model, optimizer of pre-training and scored data."""
    (model, epochs), first = _run_on_jft(scored, TABLE_7_MODELS)
    if epochs != "7":
        raise NoRowError(f"it was pre-trained for {epochs} epochs, and the table's for 7")
    optimizer = _OPTIMIZERS.get(first.optimizer or "")
    if optimizer is None:
        raise NoRowError("nothing tells the optimizer of its pre-training")
    return ((_listed(scored, AVERAGE_5),), f"{model} {optimizer}"), _percent(scored)


def table_8(scored: Scored) -> tuple[Cell, float]:
    """Table 8, by positions; the 5-shot score during or after pre-training."""
    _model(scored, ("ViT-B/16",))
    _only(scored)
    if scored.dataset != "imagenet" or "top1_5_shot" not in scored.values:
        raise NoRowError("it has no 5-shot score on ImageNet (evaluation kind few_shot)")
    _require_size(scored, _PRE_TRAINED)
    if scored.positions not in _POSITIONS:
        raise NoRowError(f"positions={scored.positions} are none of the table's")
    row, column = _POSITIONS[scored.positions]
    return ((row,), column), scored.values["top1_5_shot"]


def table_9(scored: Scored) -> tuple[Cell, float]:
    """Table 9, by pre-training data, model and task."""
    task = _task(scored)
    first = _pre_trained(scored)
    column = f"{first.dataset} {_model(scored, ('ViT-H/14', 'ViT-L/16'))}"
    if column not in (H14_JFT, L16_JFT, L16_IMAGENET21K):
        raise NoRowError(f"the table has no {column}")
    return (task, column), _percent(scored)


def augreg_table_3(scored: Scored) -> tuple[Cell, float]:
    """AugReg's Table 3, by model, data and epochs of pre-training, and pixels."""
    model = _model(scored, (model for (model,) in augreg.TABLE_3.rows))
    if not scored.stages:
        raise NoRowError(scored.unknown)
    if _whole_test(scored) != "imagenet" or scored.stages[-1].dataset != "imagenet":
        raise NoRowError("the table has scores on ImageNet after training on it")
    _refuse_collections(scored, "augreg")
    first, epochs = scored.stages[0], scored.stages[0].epochs
    for name, column in augreg.TABLE_3_COLUMNS.items():
        stages = 2 if column.fine_tuned else 1
        same_data = first.dataset == column.data and len(scored.stages) == stages
        if same_data and scored.image_size == column.size and _same(epochs, column.epochs):
            return ((model,), name), _percent(scored)
    raise NoRowError(f"the table has no column for {_history(scored)}, scored at {_size(scored)}")


def timm(scored: Scored) -> tuple[Cell, float]:
    """timm's results, by the weights and the scored data."""
    by_release = {release: name for name, release in RELEASED.items()}
    release = released(scored.weights)
    name = timm_name(scored.weights) or (by_release.get(release.name) if release else None)
    if name is None:
        raise NoRowError(f"{scored.weights} are none of the table's weights")
    _require_size(scored, int(name.partition(".")[0].rpartition("_")[2]))
    return ((name,), _listed(scored, TIMM.columns)), _percent(scored)


def leaderboard(scored: Scored) -> tuple[Cell, float]:
    """Leaderboards, by scored data and model; all but VizWiz's are the paper's models."""
    if scored.dataset == "vizwiz":
        _model(scored, ("ViT-L/16",))
        _require_size(scored, _PRE_TRAINED)
        return (VIZWIZ_ALL, "published"), _percent(scored)
    if scored.dataset == "objectnet":
        model, metric = _model(scored, ("ViT-H/14",)), "top-5"
        column, value = f"{_pre_trained(scored).dataset} {model}", _percent(scored, "top5")
    else:
        (_, column), value = table_2(scored)
        metric = "top-1"
    row = (scored.dataset, metric, column.removeprefix("jft "))
    if row not in LEADERBOARDS.rows:
        raise NoRowError(f"the table has no {column} on {scored.dataset}")
    return (row, "published"), value


def _run_on_jft(scored: Scored, models: Iterable[str]) -> tuple[tuple[str, str], Stage]:
    """Model and epochs of a run that was pre-trained on JFT-300M, and that stage."""
    is_cost = scored.dataset == COST
    first = _only(scored) if is_cost else _pre_trained(scored)
    if first.dataset != "jft":
        raise NoRowError(f"it was pre-trained on {first.dataset}, and the table's on jft")
    if first.epochs is None:
        raise NoRowError("nothing tells the epochs of its pre-training")
    _require_size(scored, _PRE_TRAINED if is_cost else _FINE_TUNED)
    return (_model(scored, dict.fromkeys(models)), f"{first.epochs:.3g}"), first


def _listed(scored: Scored, datasets: Iterable[str]) -> str:
    """The scored data set, if it is one of a table's."""
    dataset = _whole_test(scored)
    if dataset not in datasets:
        raise NoRowError(f"the table has no {dataset}")
    return dataset


def _pre_trained(scored: Scored) -> Stage:
    """The pre-training of a model that was then fine-tuned on the data that it is scored on."""
    if not scored.stages:
        raise NoRowError(scored.unknown)
    if len(scored.stages) != 2:
        raise NoRowError(f"{_history(scored)}; the table's are pre-trained, then fine-tuned once")
    first, last = scored.stages
    _refuse_collections(scored, "vit")
    is_of_imagenet = scored.dataset in LABEL_SETS
    if last.dataset != ("imagenet" if is_of_imagenet else scored.dataset):
        raise NoRowError(f"it was fine-tuned on {last.dataset} and scored on {scored.dataset}")
    return first


def _only(scored: Scored) -> Stage:
    """The training of a model that is pre-trained and no more."""
    if len(scored.stages) != 1:
        raise NoRowError(scored.unknown or _history(scored))
    return scored.stages[0]


def _cost(scored: Scored, unit: str) -> float:
    if unit not in scored.values:
        raise NoRowError(f"it has no {unit}")
    return scored.values[unit]


def _refuse_collections(scored: Scored, own: str) -> None:
    """Refuses released files of other publications."""
    for stage in scored.stages:
        if stage.collection not in (None, own):
            raise NoRowError(f"it comes from the released files of {stage.collection}")


def _model(scored: Scored, models: Iterable[str]) -> str:
    """The model's name in a table. The order of a ResNet's units does not matter there."""
    if scored.model is None:
        raise NoRowError(f"nothing tells what model {scored.weights} are")
    try:
        own = parse_name(scored.model)._replace(order="post")
    except UserError as error:
        raise NoRowError(str(error)) from error
    for model in models:
        if parse_name(model)._replace(order="post") == own:
            if scored.changes:
                raise NoRowError(f"its model is {model} with {', '.join(scored.changes)}")
            return model
    raise NoRowError(f"the table has no {scored.model}")


def _whole_test(scored: Scored) -> str:
    """The scored data set, if it is the split on which papers report."""
    dataset = DATASETS.get(scored.dataset)
    if dataset is not None and scored.split != dataset.test:
        raise NoRowError(
            f"it was scored on {scored.split} of {scored.dataset}, and the table's on "
            f"{dataset.test}"
        )
    return scored.dataset


def _task(scored: Scored) -> tuple[str, str]:
    """Group and name of a task of VTAB-1k."""
    name = scored.dataset.removeprefix("vtab:")
    group = next((group for group, tasks in VTAB_GROUPS.items() if name in tasks), None)
    if group is None or name == scored.dataset:
        raise NoRowError(f"{scored.dataset} is no task of VTAB-1k (vtab:TASK)")
    if scored.split != "test":
        raise NoRowError(f"it was scored on {scored.split}, and the table's on test")
    _require_size(scored, _FINE_TUNED)
    return group, name


def _require_size(scored: Scored, size: int) -> None:
    if scored.image_size != size:
        raise NoRowError(f"it was scored at {_size(scored)}, and the table's at {size}")


def _size(scored: Scored) -> str:
    return f"{scored.image_size} pixels" if scored.image_size else "another size"


def _percent(scored: Scored, metric: str = "top1") -> float:
    if metric not in scored.values:
        raise NoRowError(f"it has no {metric}")
    return 100 * scored.values[metric]


def _history(scored: Scored) -> str:
    stages = [
        stage.dataset if stage.epochs is None else f"{stage.dataset} ({stage.epochs:.3g} epochs)"
        for stage in scored.stages
    ]
    return f"it was trained on {', then '.join(stages)}"


def _same(epochs: float | None, published: int) -> bool:
    return epochs is not None and round(epochs) == published
