"""``medbridge cache``: what the frozen features take on disk, and how to get rid of them."""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from medbridge.errors import CacheError
from medbridge.features.cache import cache_limit, features_folder
from medbridge.features.shards import FeatureStore, is_sound

__all__ = ["Folder", "clean", "folders", "register"]

_DAY = 86400.0


@dataclass
class Folder:
    """One expert's features: path, files, bytes, days since the last shard was written, and files that were never finished."""

    path: Path
    files: list[Path]
    size: int
    days: float
    unfinished: list[Path]


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command group ``cache``."""
    group = commands.add_parser("cache", help="frozen features on disk: how large they are, and cleaning").add_subparsers(
        dest="what", required=True)
    one = group.add_parser("info", help="one line an expert: shards, size, age")
    one.add_argument("--cache", help="folder of the frozen features (default: MEDBRIDGE_CACHE or ~/.cache/medbridge)")
    one.add_argument("--verify", action="store_true", help="read every shard and compare its checksum")
    one.set_defaults(run=_info)
    one = group.add_parser("clean", help="delete features, and what interrupted fills left; without a choice only the latter")
    one.add_argument("--cache", help="as for info")
    one.add_argument("--expert", action="append", metavar="NAME", help="features of this expert; repeat for more")
    one.add_argument("--older-than", type=float, metavar="DAYS", help="shards written longer ago than this")
    one.add_argument("--all", action="store_true", help="all features")
    one.add_argument("--dry-run", action="store_true", help="say what would go, and delete nothing")
    one.set_defaults(run=_clean)


def folders(root: Path) -> list[Folder]:
    """The experts' folders under ``root``, by name."""
    found = []
    for path in sorted(p for p in root.glob("*") if p.is_dir()):
        files = FeatureStore(path).shards()
        status = [f.stat() for f in files]
        newest = max((s.st_mtime for s in status), default=path.stat().st_mtime)
        unfinished = sorted(path.glob("*.part"))
        found.append(Folder(path, files, sum(s.st_size for s in status), (time.time() - newest) / _DAY, unfinished))
    return found


def clean(
    root: Path, experts: list[str] | None = None, older_than: float | None = None, everything: bool = False,
    dry_run: bool = False,
) -> list[Path]:
    """Delete shards by expert and age, or all; and unfinished files that nobody has written to for an hour.

    Args:
        root: of the features.
        experts: names of experts; ``None``: any.
        older_than: days; ``None``: any age.
        everything: all shards, when neither is given.
        dry_run: delete nothing.

    Returns:
        The files that went, or would go.

    Raises:
        CacheError: an expert of which nothing is there, or ``everything`` together with a choice.
    """
    here = folders(root)
    chosen = experts is not None or older_than is not None
    if everything and chosen:
        raise CacheError("--all deletes all features; leave out --expert and --older-than, or --all")
    names = [name.replace("/", "-").replace(":", "-") for name in experts or []]
    owner = {f.path: f.path.name.rpartition("-")[0] for f in here}  # after it comes the digest of what made the features
    if unknown := [n for n in names if n not in owner.values()]:
        there = ", ".join(f.path.name for f in here) or "nothing"
        raise CacheError(f"{root}: no features of {', '.join(unknown)}; there is {there}")
    now, gone = time.time(), []
    for f in here:
        if (everything or chosen) and (experts is None or owner[f.path] in names):
            gone += [p for p in f.files if older_than is None or now - p.stat().st_mtime > older_than * _DAY]
        gone += [p for p in f.unfinished if now - p.stat().st_mtime > 3600]
    if not dry_run:
        for path in gone:
            path.unlink(missing_ok=True)
        for f in here:
            if (everything or chosen) and not FeatureStore(f.path).shards() and not any(f.path.glob("*.part")):
                shutil.rmtree(f.path)
    return gone


def _info(args: argparse.Namespace) -> int:
    root = features_folder(args.cache)
    here = folders(root)
    limit = cache_limit()
    print(f"{root}: {sum(f.size for f in here) / 1e9:.3f} GB" + ("" if limit is None else f" of at most {limit / 1e9:.3f} GB"))
    damaged = 0
    for f in here:
        line = f"  {f.path.name}: {len(f.files)} shards, {f.size / 1e9:.3f} GB, last written {f.days:.1f} days ago"
        if f.unfinished:
            line += f", {len(f.unfinished)} unfinished files"
        if args.verify:
            bad = [p.name for p in f.files if not is_sound(p)]
            damaged += len(bad)
            line += ", all sound" if not bad else f", damaged: {', '.join(bad)}"
        print(line)
    if damaged:
        print("Delete the damaged shards; their films are computed again when they are next needed.")
    return 1 if damaged else 0


def _clean(args: argparse.Namespace) -> None:
    root = features_folder(args.cache)
    size = sum(f.size for f in folders(root))
    gone = clean(root, args.expert, args.older_than, args.all, args.dry_run)
    if args.dry_run:
        for path in gone:
            print(path)
        print(f"{len(gone)} files would go")
        return
    print(f"{root}: {len(gone)} files deleted, {(size - sum(f.size for f in folders(root))) / 1e9:.3f} GB of features")
