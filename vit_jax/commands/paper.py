"""`paper`: prints a table of the paper beside our own figures."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument(
        "--table", required=True, type=int, choices=(1, 6), help="1: the models; 6: compute"
    )


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    del overrides  # It has no --config, so there are none.
    _print_table_1() if arguments.table == 1 else _print_table_6()


def _print_table_1() -> None:
    from vit_jax.analysis.macs import count_params
    from vit_jax.analysis.published.recipes import TABLE_1
    from vit_jax.models.config import ModelConfig

    print("Table 1: parameters with 1,000 classes at 224 pixels")
    header = ("layers", "width", "MLP", "heads", "paper")
    print(f"{'model':<10} {' '.join(f'{name:>6}' for name in header)} {'ours':>12}")
    for row in TABLE_1:
        config = ModelConfig(name=row.model, num_classes=1000)
        ours = sum(count_params(config).values())
        depth, width, mlp_dim, heads = config.size
        print(
            f"{row.model:<10} {depth:>6} {width:>6} {mlp_dim:>6} {heads:>6} {row.params:>5.0f}M "
            f"{ours:>12,}"
        )


def _print_table_6() -> None:
    from vit_jax.analysis.macs import exaflops
    from vit_jax.analysis.published.results import EXAFLOPS, TABLE_6
    from vit_jax.data.sources.published import DATASETS
    from vit_jax.models.config import ModelConfig

    print("Table 6: exaFLOPs of pre-training on JFT-300M at 224 pixels, 6 x multiply-adds x images")
    print(f"{'model':<14} {'epochs':>6} {'paper':>7} {'ours':>8} {'ours / paper':>13}")
    images = DATASETS["jft"].sizes["train"]
    for model, epochs in TABLE_6.rows:
        paper = TABLE_6.value((model, epochs), EXAFLOPS)
        ours = exaflops(ModelConfig(name=model, num_classes=0), int(epochs) * images)
        print(f"{model:<14} {epochs:>6} {paper:>7,.0f} {ours:>8,.1f} {ours / paper - 1:>+12.1%}")
