"""`python -m vit_jax COMMAND`: the commands by name, and how they end."""

import argparse
import importlib
import logging
import sys
from typing import NoReturn

from vit_jax.commands.output import OutputError, PlainFormatter, open_streams
from vit_jax.commands.processes import (
    end_at_second_interrupt,
    explain,
    leave,
    told_by_system,
)
from vit_jax.errors import Stopped, UserError
from vit_jax.spelling import nearest
from vit_jax.version import __version__

# Each command has a module in `vit_jax.commands`, which is imported when it is called.
COMMANDS = {
    "train": "train a model, or resume a run",
    "evaluate": "score weights on a data set",
    "predict": "name the classes of images",
    "convert": "write weights in another layout, or as a program to serve",
    "describe": "show a config's or a model's parameters, MACs, schedule and first batch",
    "plan": "compile a config for TPUs or GPUs that may be absent: memory, FLOPs, time to train",
    "benchmark": "time training or inference, and find the largest batch that fits",
    "options": "list the keys of a config, with their types, defaults and meaning",
    "models": "list models and released weight files, with published accuracies",
    "miniature": "try the paper's claims with small models, and write a page of it",
    "study": "train the cells of one of the paper's ablations, and compare them",
    "sweep": "try a grid on a held-out part of train, then train the best with several seeds",
    "analyze": "look inside a model: attention, patch filters, position embeddings",
    "report": "write a page of a run, or of several side by side",
    "vtab": "fine-tune weights on the 19 tasks of VTAB-1k, and print the paper's table of them",
    "paper": "show a published table beside the results of your runs",
    "prepare": "write a data set as ArrayRecord, from archives, folders, arrays or TFDS",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns its exit code, which is 2 for a mistake of the user."""
    if argv is None:
        argv = sys.argv[1:]
        # A training goes on without its terminal.
        open_streams(needed=argv[:1] != ["train"])
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("vit_jax").setLevel(logging.INFO)
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # What fails here fails with a reason.
    except (UserError, Stopped, OutputError, BrokenPipeError, KeyboardInterrupt) as error:
        return explain(error)
    except (OSError, RuntimeError) as error:
        if told_by_system(error) is None:
            raise
        return explain(error)


def _print_commands() -> None:
    print("usage: python -m vit_jax COMMAND [--help] ...\n       python -m vit_jax --version\n")
    for name, purpose in COMMANDS.items():
        print(f"  {name:<10} {purpose}")
    print("\nCOMMAND --help shows the flags of a command.")


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        _print_commands()
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"vit_jax {__version__}")
        return 0
    name, *arguments = argv
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}{nearest(name, COMMANDS)}")
    parser = _Parser(
        prog=f"python -m vit_jax {name}",
        description=COMMANDS[name],
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command = importlib.import_module(f"vit_jax.commands.{name}")
    command.add_arguments(parser)
    parsed, rest = parser.parse_known_args(arguments)
    own = getattr(command, "OVERRIDES", ())
    overrides = [argument for argument in rest if argument.startswith(("--config.", *own))]
    unknown = [argument for argument in rest if argument not in overrides]
    flags = [option for action in parser._actions for option in action.option_strings]
    if unknown:
        flag = unknown[0].partition("=")[0]
        raise UserError(f"{name}: unknown argument {unknown[0]!r}{nearest(flag, flags)}")
    changes = [override for override in overrides if override.startswith("--config.")]
    if changes and "--config" not in flags and "--config." not in own:
        raise UserError(f"{name} takes no config, so {changes[0]!r} would be ignored")
    command.run(parsed, overrides)
    return 0


def _run_as_program() -> None:
    end_at_second_interrupt()
    code = main()
    if code:
        leave(code)


if __name__ == "__main__":
    _run_as_program()
