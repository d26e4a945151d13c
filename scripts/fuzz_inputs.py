"""Feed damaged and hostile files to the readers, and see that only documented errors come back.

    python scripts/fuzz_inputs.py                    # 10,000 files
    python scripts/fuzz_inputs.py --cases 300 --seed 1

Films (PNG, JPEG, JPEG 2000, TIFF, BMP, DICOM), the tables of every loader (CSV, .csv.gz, JSON, text) and adapters are mutated:
bits and bytes, lengths and sizes, lost and doubled parts, cells with paths that climb out. DICOM headers say anything about their
bits, films end too early, tables come in the encodings and separators of other programs, folders hold odd names and links. Each
file goes to the reader that a user would give it to. Allowed is a result that keeps its promises (a film is float32 in [0, 1] of
the size that was announced; every path of a table lies inside its folder) or a MedBridgeError. Anything else is printed with its
seed: another exception, a crash of the interpreter, more than 20 seconds, more than 3 GB of memory.

Case i is made from (seed, i) alone, so `--only i` repeats it.
"""

from __future__ import annotations

import argparse
import faulthandler
import gzip
import io
import json
import multiprocessing as mp
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "data" / "fixtures"
SECONDS, MEMORY = 20, 3_000_000_000
HOSTILE = (
    "../../../etc/passwd", "/etc/passwd", "a/../../b.png", "C:\\x.png", "..\\x.png", "\\\\host\\x.png", "a\0b.png", "a\0/b.png",
    "./x.png", "~/x.png", "//x.png", "images/" + "x" * 300 + ".png", "", " ", "nan", "inf", "-inf", "1e999", "-1", "0x10",
    "9" * 400, "1.0", "0.5", "2", "=1+1", "é\u202e", "\ud7ff", '"', "'", ",", "\n", "|", ";", "true", "%s%n", "{0}", "None", "[]")
TABLES = {  # benchmark -> its files that are mutated
    "nih": ["Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"],
    "chexpert": ["CheXpert-v1.0-small/train.csv", "CheXpert-v1.0-small/valid.csv"],
    "chexpert-plus": ["df_chexpert_plus_240401.csv", "chexbert_labels/report_fixed.json"],
    "mimic": [f"mimic-cxr-2.0.0-{part}.csv.gz" for part in ("metadata", "split", "chexpert")],
    "rsna": ["stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "pneumonia-challenge-dataset-mappings_2018.json"],
    "covidx": ["train.txt", "val.txt", "test.txt"],
    "chestmnist": ["chestmnist_64.npz"],
    "folder": ["labels.csv", "boxes.csv", "prepared.json"],
}


class BrokenPromiseError(AssertionError):
    """A result that is not what the docstring says."""


def film_seeds() -> list[tuple[str, bytes]]:
    """(suffix, bytes) of whole films of every kind that is read."""
    rng = np.random.default_rng(0)
    grey = (rng.random((24, 31)) * 255).astype(np.uint8)
    deep = (rng.random((24, 31)) * 65535).astype(np.uint16)
    seeds = []
    for kind, pixels, options in (
        ("PNG", grey, {}), ("PNG", deep, {}), ("PNG", np.dstack([grey] * 4), {}), ("JPEG", grey, {}),
        ("JPEG", np.dstack([grey] * 3), {"progressive": True}), ("TIFF", deep, {}), ("TIFF", grey, {"compression": "tiff_lzw"}),
        ("TIFF", grey, {"compression": "tiff_deflate"}), ("BMP", grey, {}), ("JPEG2000", grey, {}),
    ):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind, **options)
        seeds.append((f".{kind.lower()}", stream.getvalue()))
    for path in sorted(FIXTURES.rglob("*.dcm"))[:6] + sorted(FIXTURES.rglob("*.jpg"))[:2] + sorted(FIXTURES.rglob("*.png"))[:2]:
        seeds.append((path.suffix, path.read_bytes()))
    return seeds


def mutate(data: bytes, rng: np.random.Generator, other: bytes = b"") -> bytes:
    """One to four damages of bytes."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        size = len(out)
        if size == 0:
            break
        # headers decide most, so half of the damage is done to the first 200 bytes
        at = int(rng.integers(min(size, 200) if rng.random() < 0.5 else size))
        length = int(rng.integers(1, 65))
        match int(rng.integers(8)):
            case 0:
                out[at] ^= 1 << int(rng.integers(8))
            case 1:
                out[at] = int(rng.integers(256))
            case 2:
                del out[at:]
            case 3:
                del out[at : at + length]
            case 4:
                out[at:at] = rng.bytes(length)
            case 5:
                out[at:at] = out[at : at + length] * int(rng.integers(1, 40))
            case 6:  # a length or a size becomes extreme
                value = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF][int(rng.integers(8))]
                width = int(rng.choice([1, 2, 4]))
                order = "big" if rng.random() < 0.5 else "little"
                out[at : at + width] = (value & (256**width - 1)).to_bytes(width, order)
            case _:
                out[at : at + length] = other[at : at + length]
    return bytes(out)


def mutate_text(text: str, rng: np.random.Generator) -> bytes:
    """Damage to rows and cells of a table, then now and then to its bytes."""
    lines = text.splitlines()
    mark = "," if lines and "," in lines[0] else " "
    for _ in range(int(rng.integers(1, 5))):
        if not lines:
            break
        row = int(rng.integers(len(lines)))
        cells = lines[row].split(mark)
        column = int(rng.integers(len(cells)))
        match int(rng.integers(7)):
            case 0 | 1 | 2:
                cells[column] = str(rng.choice(HOSTILE))
                lines[row] = mark.join(cells)
            case 3:
                del cells[column]
                lines[row] = mark.join(cells)
            case 4:
                del lines[row]
            case 5:
                lines.insert(row, lines[int(rng.integers(len(lines)))])
            case _:
                lines[row] = lines[row].swapcase()
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    return mutate(data, rng, data) if rng.random() < 0.3 else data


def mutate_json(value: object, rng: np.random.Generator) -> object:
    """One value in the tree becomes something else."""
    wrong = [None, -1, 0, 2**40, 1e308, "", "../x", [], {}, True, float("nan"), "hf:a/b", "x" * 1000, [[[]]]]
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = list(value)[int(rng.integers(len(value)))]
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: mutate_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        i = int(rng.integers(len(value)))
        return [*value[:i], mutate_json(value[i], rng), *value[i + 1 :]]
    return wrong[int(rng.integers(len(wrong)))]


class Fuzzer:
    """The seeds, a scratch folder, and one method a kind of input."""

    def __init__(self, seed: int, scratch: Path) -> None:
        from medbridge.experts import create_expert

        self.seed, self.scratch = seed, scratch
        self.films = film_seeds()
        shutil.copytree(FIXTURES, scratch / "data", dirs_exist_ok=True)
        folder = scratch / "data" / "folder"
        (folder / "prepared.json").write_text('{"benchmark": "x", "synthetic": true}')
        first = (folder / "labels.csv").read_text().splitlines()
        box = ",".join([first[1].split(",")[0], first[0].split(",")[-1], "1,1,5,5"])
        (folder / "boxes.csv").write_text(f"image,label,x0,y0,x1,y1\n{box}\n")
        self.adapter = {p.name: p.read_bytes() for p in (ROOT / "data" / "quickstart").glob("adapter.*")}
        self.experts = [create_expert(e["name"]) for e in json.loads(self.adapter["adapter.json"])["experts"]]

    def case(self, number: int) -> tuple[str, Callable[[], None]]:
        """(kind, what runs it) of one case; the files are written."""
        rng = np.random.default_rng([self.seed, number])
        kinds = {"film": (self.film, 0.4), "bits": (self.bits, 0.1), "tail": (self.tail, 0.1), "table": (self.table, 0.27),
                 "locale": (self.locale, 0.05), "folder": (self.folder, 0.05), "adapter": (self.load_adapter, 0.03)}
        kind = str(rng.choice(list(kinds), p=[share for _, share in kinds.values()]))
        return kind, kinds[kind][0](rng)

    def film(self, rng: np.random.Generator) -> Callable[[], None]:
        suffix, data = self.films[int(rng.integers(len(self.films)))]
        other = self.films[int(rng.integers(len(self.films)))][1]
        path = self.scratch / f"film{suffix}"
        path.write_bytes(mutate(data, rng, other))
        return self._read(path)

    def bits(self, rng: np.random.Generator) -> Callable[[], None]:
        """A DICOM file whose header says anything about the layout of its bits, its polarity, window and padding."""
        import pydicom
        from pydicom.uid import ExplicitVRLittleEndian, generate_uid

        allocated = int(rng.choice([8, 16]))
        stored = int(rng.integers(1, allocated + 1)) if rng.random() < 0.7 else allocated
        signed, pixels = int(rng.integers(2)), rng.integers(0, 2**allocated, (24, 31))
        if rng.random() < 0.7:
            pixels %= 2**stored
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.1"
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["fuzz"])
        film = pydicom.Dataset()
        film.file_meta, film.SamplesPerPixel, film.Rows, film.Columns = meta, 1, 24, 31
        film.SOPClassUID, film.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        film.BitsAllocated, film.BitsStored, film.PixelRepresentation = allocated, stored, signed
        film.HighBit = stored - 1 if rng.random() < 0.6 else int(rng.integers(0, allocated + 2))
        polarity = ["MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "X"]
        film.PhotometricInterpretation = str(rng.choice(polarity, p=[0.4, 0.4, 0.1, 0.05, 0.05]))
        if rng.random() < 0.5:
            film.WindowCenter, film.WindowWidth = (float(rng.choice([0, 1, 2**stored / 2, -500, 1e9])) for _ in range(2))
        if rng.random() < 0.4:
            film.RescaleSlope = float(rng.choice([1, 0, -1, 0.5, 1e-9]))
            film.RescaleIntercept = float(rng.choice([0, -1024, 1e9]))
        if rng.random() < 0.3:
            film.add_new("PixelPaddingValue", "SS" if signed else "US", int(rng.integers(0, 2**15)))
        film.PixelData = pixels.astype(f"<u{allocated // 8}").tobytes()
        path = self.scratch / "bits.dcm"
        film.save_as(path, enforce_file_format=True)
        return self._read(path)

    def tail(self, rng: np.random.Generator) -> Callable[[], None]:
        """A film that ends too early, which no reader may give out."""
        from medbridge.data.images import read_film
        from medbridge.errors import ImageError

        suffix, data = self.films[int(rng.integers(len(self.films)))]
        path = self.scratch / f"tail{suffix}"
        kept = int(len(data) * rng.uniform(0.05, 0.95))
        path.write_bytes(data[:kept])

        def run() -> None:
            try:
                read_film(path)
            except ImageError:
                return
            raise BrokenPromiseError(f"{kept} of {len(data)} bytes of a {suffix} were read as a film")

        return run

    def locale(self, rng: np.random.Generator) -> Callable[[], None]:
        """A whole table as other programs and countries write it."""
        from medbridge.data import load_benchmark

        folder = self.scratch / "data" / "folder"
        path = folder / "labels.csv"
        original = path.read_bytes()
        text = original.decode("utf-8-sig")
        text = text.replace(",", str(rng.choice([",", ";", "\t", ", "])))
        text = text.replace("\n", str(rng.choice(["\n", "\r\n", "\r", "\n\n"])))
        text = text.replace("1", str(rng.choice(["1", "1.0", "1,0", "\uff11", "TRUE"]))) if rng.random() < 0.3 else text
        encoding = str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "cp037"]))
        path.write_bytes((text + str(rng.choice(["", "\x1a", "\0", "\u00e9"]))).encode(encoding, "replace"))

        def run() -> None:
            try:
                load_benchmark("folder", folder).targets()
            finally:
                path.write_bytes(original)

        return run

    def folder(self, rng: np.random.Generator) -> Callable[[], None]:
        """Films under odd names, links and other files: each film is found once, and nothing else is called one."""
        from medbridge.data.walk import find_films

        top = self.scratch / "odd"
        shutil.rmtree(top, ignore_errors=True)
        (top / "sub" / "deeper").mkdir(parents=True)
        whole = [data for suffix, data in self.films if suffix != ".dcm"]
        films = set()
        for i in range(int(rng.integers(0, 8))):
            place = top / str(rng.choice(["", "sub", "sub/deeper"]))
            path = place / (f"{i}" + str(rng.choice(["", ".PNG", ".img", ".\u00e9", " .png", ".txt", "%20.jpg", ".001"])))
            path.write_bytes(whole[int(rng.integers(len(whole)))])
            films.add(path.name)
        for i in range(int(rng.integers(0, 6))):
            name = top / "sub" / f"other{i}"
            match int(rng.integers(6)):
                case 0:
                    name.symlink_to(top / str(rng.choice(["missing", "sub", ".", "sub/deeper"])))
                case 1:
                    name.symlink_to(name)
                case 2:
                    name.with_suffix(".csv").write_text("image,label\n")
                case 3:
                    (name.parent / f"._{i}.png").write_bytes(b"\0\5\x16\7" + bytes(82))
                case 4:
                    name.write_bytes(rng.bytes(200))
                case _:
                    name.touch()

        def run() -> None:
            found = [p.name for p in find_films(top).films]
            if len(found) != len(set(found)) or not set(found) <= films:
                raise BrokenPromiseError(f"found {sorted(found)} of {sorted(films)}")
            if missed := {name for name in films - set(found) if not name.endswith(".txt")}:
                raise BrokenPromiseError(f"missed {sorted(missed)}")

        return run

    def _read(self, path: Path) -> Callable[[], None]:
        from medbridge.data.images import probe_film, read_film

        def run() -> None:
            size = probe_film(path)
            film = read_film(path)
            if film.dtype != np.float32 or film.shape != size or not (film.min() >= 0 and film.max() <= 1):
                raise BrokenPromiseError(f"{film.dtype} {film.shape}, announced {size}, from {film.min()} to {film.max()}")

        return run

    def table(self, rng: np.random.Generator) -> Callable[[], None]:
        from medbridge.data import load_benchmark

        name = list(TABLES)[int(rng.integers(len(TABLES)))]
        folder = self.scratch / "data" / name.replace("-", "_")
        file = TABLES[name][int(rng.integers(len(TABLES[name])))]
        path, original = folder / file, (FIXTURES / name.replace("-", "_") / file)
        data = original.read_bytes() if original.exists() else path.read_bytes()
        if path.suffix == ".gz":
            whole = rng.random() < 0.7  # else the packed bytes themselves are damaged
            changed = gzip.compress(mutate_text(gzip.decompress(data).decode(), rng)) if whole else mutate(data, rng, data)
        elif path.suffix == ".npz":
            changed = mutate(data, rng, data)
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)  # what was unpacked is not unpacked again
        elif path.suffix == ".json" and rng.random() < 0.5 and "chexbert" not in file:
            changed = json.dumps(mutate_json(json.loads(data), rng)).encode()
        else:
            changed = mutate_text(data.decode("utf-8-sig"), rng)
        path.write_bytes(changed)
        options = {} if name != "folder" or rng.random() < 0.7 else {"split_seed": 0}

        def run() -> None:
            try:
                benchmark = load_benchmark(name, folder, **options)
                inside = benchmark.root.resolve()
                for film in benchmark.paths():
                    if not film.resolve().is_relative_to(inside):
                        raise BrokenPromiseError(f"{film} is outside {inside}")
                y, mask = benchmark.targets()
                if not np.isin(y, (0, 1)).all() or mask.shape != y.shape:
                    raise BrokenPromiseError("targets other than 0 and 1")
            finally:
                path.write_bytes(data)

        return run

    def load_adapter(self, rng: np.random.Generator) -> Callable[[], None]:
        from medbridge.adapter import load_adapter

        folder = self.scratch / "adapter"
        folder.mkdir(exist_ok=True)
        files = dict(self.adapter)
        if rng.random() < 0.3:
            name = str(rng.choice(sorted(files)))
            files[name] = mutate(files[name], rng)
        else:
            files["adapter.json"] = json.dumps(mutate_json(json.loads(files["adapter.json"]), rng)).encode()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return lambda: load_adapter(folder, self.experts) and None


def judge(fuzzer: Fuzzer, number: int) -> tuple[str, str, str]:
    """(kind, 'read' | 'refused' | 'FAULT', what went wrong) of a case."""
    from medbridge.errors import MedBridgeError

    kind, run = fuzzer.case(number)
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run()
        verdict, detail = "read", ""
    except MedBridgeError as error:
        verdict, detail = "refused", ""
        if not str(error).strip():
            verdict, detail = "FAULT", "an error without a message"
    except Exception as error:
        verdict, detail = "FAULT", f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-4)}"
    if (taken := time.monotonic() - began) > SECONDS:
        verdict, detail = "FAULT", f"took {taken:.0f} s"
    return kind, verdict, detail


def _work(seed: int, numbers: list[int], queue: mp.Queue, log: str) -> None:
    import torch

    torch.set_num_threads(1)  # the threads of a forked process stayed with its parent
    faulthandler.enable(open(log, "w"))  # noqa: SIM115
    with tempfile.TemporaryDirectory() as scratch:
        fuzzer = Fuzzer(seed, Path(scratch))
        for number in numbers:
            queue.put((number, None))
            queue.put((number, (*judge(fuzzer, number), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)))


def fuzz(seed: int, cases: list[int], log: str, start: str = "spawn") -> tuple[Counter, list[str], int]:
    """Run cases in a process of their own, so that a crash or a hang costs one case. (counts, faults, peak memory in bytes)

    The process starts by 'spawn', or by 'fork' where the caller has imported everything: that saves the seconds of the imports.
    """
    counts: Counter = Counter()
    faults: list[str] = []
    peak, left = 0, list(cases)
    context = mp.get_context(start)
    while left:
        queue = context.Queue()
        worker = context.Process(target=_work, args=(seed, left, queue, log), daemon=True)
        worker.start()
        at, deadline = None, time.monotonic() + 300  # the first answer takes the imports
        while left:
            try:
                number, found = queue.get(timeout=1)
            except Exception:
                if worker.is_alive() and time.monotonic() < deadline:
                    continue
                how = "hangs" if worker.is_alive() else f"the interpreter died (exit code {worker.exitcode})"
                worker.kill()
                if at is None:
                    raise RuntimeError(f"the fuzzer's worker did not start: {how}; see {log}") from None
                faults.append(f"case {at}: {how}")
                counts["FAULT"] += 1
                left.remove(at)
                break
            if found is None:
                at, deadline = number, time.monotonic() + 3 * SECONDS
                continue
            kind, verdict, detail, memory = found
            counts[f"{kind} {verdict}"] += 1
            if memory > MEMORY and peak <= MEMORY:
                verdict, detail = "FAULT", f"{memory / 1e9:.1f} GB of memory"
            peak = max(peak, memory)
            if verdict == "FAULT":
                counts["FAULT"] += 1
                faults.append(f"case {number}: {kind}: {detail}")
            left.remove(number)
        worker.join(5)
    return counts, faults, peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="this case alone")
    args = parser.parse_args()
    began = time.monotonic()
    cases = list(range(args.cases)) if args.only is None else [args.only]
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        counts, faults, peak = fuzz(args.seed, cases, log.name)
    for fault in faults:
        print(fault, end="\n\n")
    for name in sorted(set(counts) - {"FAULT"}):
        print(f"{name:<20} {counts[name]:>6}")
    print(f"{len(cases)} files, seed {args.seed}: {len(faults)} faults; peak memory {peak / 1e9:.2f} GB; "
          f"{time.monotonic() - began:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
