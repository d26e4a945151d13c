"""``medbridge cache``: what the frozen features take on disk, and how to get rid of them."""

import argparse
import shutil
import time
from pathlib import Path

from medbridge.cli.options import add_action
from medbridge.errors import CacheError
from medbridge.features.cache import cache_limit, features_folder
from medbridge.features.shards import FeatureStore, is_sound

DAY = 86400.0


def register(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    info = add_action(actions, _info, "one line per expert: shards, size, age", "cache")
    info.add_argument("--verify", action="store_true", help="read every shard and compare its checksum")
    delete = add_action(actions, _clean, "delete features, and what interrupted fills left; without a choice only the latter",
                        "cache expert", expert={"required": False, "help": "features of this expert; repeat for more"})
    delete.add_argument("--older-than", type=float, metavar="DAYS", help="shards written longer ago than this")
    delete.add_argument("--all", action="store_true", help="all features")
    delete.add_argument("--dry-run", action="store_true", help="say what would go, and delete nothing")


def clean(
    root: Path, experts: list[str] | None = None, older_than: float | None = None, everything: bool = False, dry_run: bool = False
) -> list[Path]:
    """Delete shards by expert and age in days, or all; and unfinished files that nobody has written to for an hour.

    Returns the files that went, or with ``dry_run`` would go. CacheError for an expert of which nothing is there, or for
    ``everything`` together with a choice.
    """
    chosen = experts is not None or older_than is not None
    if everything and chosen:
        raise CacheError("--all deletes all features; leave out --expert and --older-than, or --all")
    names = [name.replace("/", "-").replace(":", "-") for name in experts or []]
    owners = {folder: folder.name.rpartition("-")[0] for folder in _folders(root)}  # then comes the digest of what made them
    if unknown := [name for name in names if name not in owners.values()]:
        there = ", ".join(folder.name for folder in owners) or "nothing"
        raise CacheError(f"{root}: no features of {', '.join(unknown)}; there is {there}")
    now, gone = time.time(), []
    for folder, owner in owners.items():
        if everything or (chosen and (experts is None or owner in names)):
            gone += [p for p in FeatureStore(folder).shards() if older_than is None or now - p.stat().st_mtime > older_than * DAY]
        gone += [p for p in sorted(FeatureStore(folder).unfinished()) if now - p.stat().st_mtime > 3600]
    if not dry_run:
        for path in gone:
            path.unlink(missing_ok=True)
        for folder in owners if everything or chosen else ():
            if not FeatureStore(folder).shards() and not any(FeatureStore(folder).unfinished()):
                shutil.rmtree(folder)
    return gone


def _info(args: argparse.Namespace) -> int:
    root, limit, damaged = features_folder(args.cache), cache_limit(), []
    print(f"{root}: {_gigabytes(root):.3f} GB" + ("" if limit is None else f" of at most {limit / 1e9:.3f} GB"))
    for folder in _folders(root):
        shards, unfinished = FeatureStore(folder).shards(), len(FeatureStore(folder).unfinished())
        days = (time.time() - max(p.stat().st_mtime for p in shards or [folder])) / DAY
        notes = [f"{len(shards)} shards", f"{_gigabytes(folder):.3f} GB", f"last written {days:.1f} days ago"]
        if unfinished:
            notes.append(f"{unfinished} unfinished files")
        if args.verify:
            bad = [p.name for p in shards if not is_sound(p)]
            notes.append(f"damaged: {', '.join(bad)}" if bad else "all sound")
            damaged += bad
        print(f"  {folder.name}: {', '.join(notes)}")
    if damaged:
        print("Delete the damaged shards; their films are computed again when they are next needed.")
    return 1 if damaged else 0


def _clean(args: argparse.Namespace) -> None:
    root = features_folder(args.cache)
    before = _gigabytes(root)
    gone = clean(root, args.expert, args.older_than, args.all, args.dry_run)
    if args.dry_run:
        print(*gone, f"{len(gone)} files would go", sep="\n")
    else:
        print(f"{root}: {len(gone)} files deleted, {before - _gigabytes(root):.3f} GB of features")


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.glob("*") if p.is_dir())


def _gigabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*.safetensors")) / 1e9
