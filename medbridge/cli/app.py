"""``medbridge COMMAND``: finds the command's module, and turns errors into one line and an exit status."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from medbridge import __version__
from medbridge.errors import MedBridgeError

COMMANDS = {
    "adapt": "adapt MedBridge to a benchmark and compare it with its baselines",
    "evaluate": "AUC of a saved adapter on a benchmark's split",
    "predict": "label probabilities of films (PNG, JPEG, DICOM ...)",
    "quickstart": "the embedded default: synthetic films, shipped tiny experts, a report",
    "ablate": "does each part earn its place? One factor at a time, with paired intervals; resumable",
    "cache": "frozen features on disk: how large they are, and cleaning",
    "course": "the exercises of the notebooks",
    "data": "check a benchmark's folder; prepare a resized copy of it",
    "experiment": "run the tasks of a YAML file; resumes where it stopped",
    "experts": "foundation models by name, and the experts of a mixture",
    "labels": "the findings that benchmarks share, by each benchmark's own names",
    "leaderboard": "MedBridge and all baselines on one benchmark, with intervals; resumable",
    "prompts": "the prompts of labels, and their similarity in an expert's text space",
    "published": "published results as context, with their sources; not measured here",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0; 1 where ``data check`` or ``cache info`` finds a fault; 2 for an error that names its fix; 130 when stopped by the user.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="medbridge", description="MedBridge (arXiv 2505.21698). For research and education, not for clinical use.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    named = next((word for word in argv if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name == named:  # the modules of the other commands are not even imported
            module = import_module(f"medbridge.cli.{name}")
            module.register(command)
    args = parser.parse_args(argv)
    try:
        return (args.run if "run" in args else module.run)(args) or 0
    except (MedBridgeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; what was finished is kept, the same command goes on from there", file=sys.stderr)
        return 130
