"""``medbridge cache``: what the frozen features take on disk, and how to get rid of them."""

import argparse
import shutil
import time
from pathlib import Path

from medbridge.errors import CacheError
from medbridge.features.cache import cache_limit, features_folder
from medbridge.features.shards import FeatureStore, is_sound


def _info(args: argparse.Namespace) -> int:
    root, limit, damaged = features_folder(args.cache), cache_limit(), []
    print(f"{root}: {_gigabytes(root):.3f} GB" + ("" if limit is None else f" of at most {limit / 1e9:.3f} GB"))
    for store in _stores(root):
        shards, unfinished = store.shards(), len(store.unfinished())
        days = (time.time() - max(p.stat().st_mtime for p in shards or [store.folder])) / 86_400
        notes = [f"{len(shards)} shards", f"{_gigabytes(store.folder):.3f} GB", f"last written {days:.1f} days ago"]
        if unfinished:
            notes.append(f"{unfinished} unfinished files")
        if args.verify:
            bad = [p.name for p in shards if not is_sound(p)]
            notes.append(f"damaged: {', '.join(bad)}" if bad else "all sound")
            damaged += bad
        print(f"  {store.folder.name}: {', '.join(notes)}")
    if damaged:
        print("Delete the damaged shards; their films are computed again when they are next needed.")
    return 1 if damaged else 0


def _clean(args: argparse.Namespace) -> None:
    """Delete shards by expert, or all; and unfinished files that nobody has written to for an hour."""
    root, now, gone = features_folder(args.cache), time.time(), 0
    if args.all and args.expert:
        raise CacheError("--all deletes all features; leave out --expert, or --all")
    names = [name.replace("/", "-").replace(":", "-") for name in args.expert or []]
    owners = {store: store.folder.name.rpartition("-")[0] for store in _stores(root)}  # then comes the digest of what made them
    if unknown := [name for name in names if name not in owners.values()]:
        there = ", ".join(store.folder.name for store in owners) or "nothing"
        raise CacheError(f"{root}: no features of {', '.join(unknown)}; there is {there}")
    before = _gigabytes(root)
    for store, owner in owners.items():
        chosen = args.all or owner in names
        stale = [path for path in store.unfinished() if now - path.stat().st_mtime > 3600]
        for path in [*(store.shards() if chosen else []), *stale]:
            path.unlink(missing_ok=True)
            gone += 1
        if chosen and not store.shards() and not store.unfinished():
            shutil.rmtree(store.folder)
    print(f"{root}: {gone} files deleted, {before - _gigabytes(root):.3f} GB of features")


def _stores(root: Path) -> list[FeatureStore]:
    return [FeatureStore(path) for path in sorted(root.glob("*")) if path.is_dir()]


def _gigabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*.safetensors")) / 1e9
