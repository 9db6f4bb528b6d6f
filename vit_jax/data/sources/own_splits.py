"""The splits that a data set has of its own, and which of them is for scoring."""

from vit_jax.data.sources.open import is_folder, is_registered, is_table
from vit_jax.data.sources.shard_paths import is_parquet, is_tars
from vit_jax.errors import UserError

# What the examples for scoring are called, the first choice first.
_FOR_SCORING = ("test", "val", "validation", "valid")


def split_to_score(dataset: str, data_dir: str | None = None, label: str | None = None) -> str:
    """The split to score a model on where none is named.

    Args:
      dataset, data_dir, label: as in `open_source`.

    Returns:
      `test`; if there is none, `val`, `validation` or `valid`; `all` for a folder or a table
      without splits.
      `test` for a source of a registered kind, whose splits are not known.

    Raises:
      NoDataError: there is no such TFDS data set, or it is not prepared.
      UserError: the folder or table does not exist, or has splits but none of these.
    """
    if is_registered(dataset):
        return _FOR_SCORING[0]
    splits = own_splits(dataset, data_dir, label)
    if not splits:
        return "all"
    for name in _FOR_SCORING:
        if name in splits:
            return name
    raise UserError(
        f"data set {dataset!r} has no split test or val; name one of its splits with --split: "
        f"{', '.join(splits)}"
    )


def own_splits(
    dataset: str, data_dir: str | None = None, label: str | None = None
) -> tuple[str, ...]:
    """The splits of a data set; none for a folder or a table without.

    Raises:
      NoDataError: there is no such TFDS data set, or it is not prepared.
      UserError: the folder or table does not exist.
    """
    if is_table(dataset):
        from vit_jax.data.sources.table import table_splits

        return table_splits(dataset, label)
    if is_tars(dataset):
        from vit_jax.data.sources.webdataset import webdataset_splits

        return webdataset_splits(dataset)
    if is_parquet(dataset):
        from vit_jax.data.sources.parquet import parquet_splits

        return parquet_splits(dataset)
    if is_folder(dataset):
        from vit_jax.data.sources.folder import split_folders

        return split_folders(dataset)
    from vit_jax.data.sources.tfds import tfds_split_sizes

    return tuple(tfds_split_sizes(dataset, data_dir))
