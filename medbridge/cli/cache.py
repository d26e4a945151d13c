"""``medbridge cache``: what the frozen features take on disk, and how to get rid of them."""

import argparse
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from medbridge.cli.options import add_options
from medbridge.errors import CacheError
from medbridge.features.cache import cache_limit, features_folder
from medbridge.features.shards import FeatureStore, is_sound

DAY = 86400.0


@dataclass
class Folder:
    """One expert's features: its shards, and files that were never finished."""

    path: Path
    shards: list[Path]
    unfinished: list[Path]

    @property
    def bytes(self) -> int:
        return sum(shard.stat().st_size for shard in self.shards)


def register(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    one = actions.add_parser("info", help="one line per expert: shards, size, age")
    add_options(one, "cache")
    one.add_argument("--verify", action="store_true", help="read every shard and compare its checksum")
    one.set_defaults(run=_info)
    one = actions.add_parser("clean", help="delete features, and what interrupted fills left; without a choice only the latter")
    add_options(one, "cache expert", expert={"required": False, "help": "features of this expert; repeat for more"})
    one.add_argument("--older-than", type=float, metavar="DAYS", help="shards written longer ago than this")
    one.add_argument("--all", action="store_true", help="all features")
    one.add_argument("--dry-run", action="store_true", help="say what would go, and delete nothing")
    one.set_defaults(run=_clean)


def folders(root: Path) -> list[Folder]:
    """The experts' folders under ``root``, by name."""
    return [Folder(p, FeatureStore(p).shards(), sorted(p.glob("*.part"))) for p in sorted(root.glob("*")) if p.is_dir()]


def clean(
    root: Path, experts: list[str] | None = None, older_than: float | None = None, everything: bool = False,
    dry_run: bool = False,
) -> list[Path]:
    """Delete shards by expert and age in days, or all; and unfinished files that nobody has written to for an hour.

    Returns:
        The files that went, or with ``dry_run`` would go.

    Raises:
        CacheError: an expert of which nothing is there, or ``everything`` together with a choice.
    """
    chosen = experts is not None or older_than is not None
    if everything and chosen:
        raise CacheError("--all deletes all features; leave out --expert and --older-than, or --all")
    held = folders(root)
    names = [name.replace("/", "-").replace(":", "-") for name in experts or []]
    owner = {f.path: f.path.name.rpartition("-")[0] for f in held}  # after it comes the digest of what made the features
    if unknown := [n for n in names if n not in owner.values()]:
        there = ", ".join(f.path.name for f in held) or "nothing"
        raise CacheError(f"{root}: no features of {', '.join(unknown)}; there is {there}")
    now, gone = time.time(), []
    for f in held:
        if (everything or chosen) and (experts is None or owner[f.path] in names):
            gone += [p for p in f.shards if older_than is None or now - p.stat().st_mtime > older_than * DAY]
        gone += [p for p in f.unfinished if now - p.stat().st_mtime > 3600]
    if not dry_run:
        for path in gone:
            path.unlink(missing_ok=True)
        for f in folders(root):
            if (everything or chosen) and not f.shards and not f.unfinished:
                shutil.rmtree(f.path)
    return gone


def _info(args: argparse.Namespace) -> int:
    root, limit = features_folder(args.cache), cache_limit()
    held, damaged = folders(root), []
    most = "" if limit is None else f" of at most {limit / 1e9:.3f} GB"
    print(f"{root}: {sum(f.bytes for f in held) / 1e9:.3f} GB{most}")
    for f in held:
        days = (time.time() - max(p.stat().st_mtime for p in f.shards or [f.path])) / DAY
        line = f"  {f.path.name}: {len(f.shards)} shards, {f.bytes / 1e9:.3f} GB, last written {days:.1f} days ago"
        if f.unfinished:
            line += f", {len(f.unfinished)} unfinished files"
        if args.verify:
            bad = [p.name for p in f.shards if not is_sound(p)]
            damaged += bad
            line += f", damaged: {', '.join(bad)}" if bad else ", all sound"
        print(line)
    if damaged:
        print("Delete the damaged shards; their films are computed again when they are next needed.")
    return 1 if damaged else 0


def _clean(args: argparse.Namespace) -> None:
    root = features_folder(args.cache)
    before = sum(f.bytes for f in folders(root))
    gone = clean(root, args.expert, args.older_than, args.all, args.dry_run)
    if args.dry_run:
        print(*gone, f"{len(gone)} files would go", sep="\n")
        return
    print(f"{root}: {len(gone)} files deleted, {(before - sum(f.bytes for f in folders(root))) / 1e9:.3f} GB of features")
