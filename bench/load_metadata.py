"""Seconds that the loaders of the large benchmarks take for metadata alone (files='all').

    python bench/load_metadata.py

Writes SYNTHETIC tables of the published sizes, in the owners' columns, to a temporary folder: 112,120 images of NIH
ChestX-ray14, 223,648 of CheXpert, 377,110 of MIMIC-CXR-JPG. Random values; the sizes are the real thing, nothing else.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from medbridge.data import label_names, load_benchmark
from medbridge.data.files import CARDS

LABELS = label_names()


def _cells(rng: np.random.Generator, n: int, labels: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {label: rng.choice(["1.0", "0.0", "-1.0", ""], n, p=[0.12, 0.08, 0.05, 0.75]) for label in labels}


def write_nih(root: Path, rng: np.random.Generator) -> int:
    n, n_test = sum(CARDS["nih"]["official"].values()), CARDS["nih"]["official"]["test"]
    patient = np.sort(np.append(np.arange(30_805), rng.integers(0, 30_805, n - 30_805)))
    follow_up = np.arange(n) - np.searchsorted(patient, patient)
    names = pd.Series(patient + 1).astype(str).str.zfill(8) + "_" + pd.Series(follow_up).astype(str).str.zfill(3) + ".png"
    findings = ["|".join(label for label, here in zip(LABELS["nih"], row, strict=True) if here) or "No Finding"
                for row in (rng.random((n, 14)) < 0.07).tolist()]
    pd.DataFrame({
        "Image Index": names, "Finding Labels": findings, "Follow-up #": follow_up, "Patient ID": patient + 1,
        "Patient Age": rng.integers(1, 95, n), "Patient Gender": rng.choice(["M", "F"], n),
        "View Position": rng.choice(["PA", "AP"], n), "OriginalImage[Width": 2500, "Height]": 2048,
        "OriginalImagePixelSpacing[x": 0.168, "y]": 0.168,
    }).to_csv(root / "Data_Entry_2017_v2020.csv", index=False)
    # the last patients are the test set; the one at the border goes wherever the border falls
    border = patient[n - n_test]
    test = patient > border if (patient == border).sum() > 1 else patient >= border
    (root / "test_list.txt").write_text("\n".join(names[test]))
    (root / "train_val_list.txt").write_text("\n".join(names[~test]))
    return n


def write_chexpert(root: Path, rng: np.random.Generator) -> int:
    for split, n, patients in (("train", 223_414, 64_540), ("valid", 234, 200)):
        patient = np.sort(np.append(np.arange(patients), rng.integers(0, patients, n - patients)))
        view = rng.choice(["Frontal", "Lateral"], n, p=[0.85, 0.15])
        number = pd.Series(patient + (1 if split == "train" else 64_541)).astype(str).str.zfill(5)
        film = pd.Series(np.arange(n)).astype(str)
        path = f"CheXpert-v1.0/{split}/patient" + number + "/study1/view" + film + "_" + pd.Series(view).str.lower() + ".jpg"
        pd.DataFrame({
            "Path": path, "Sex": rng.choice(["Male", "Female"], n), "Age": rng.integers(18, 91, n), "Frontal/Lateral": view,
            "AP/PA": np.where(view == "Frontal", "AP", ""), **_cells(rng, n, LABELS["chexpert"]),
        }).to_csv(root / f"{split}.csv", index=False)
    return 223_648


def write_mimic(root: Path, rng: np.random.Generator) -> int:
    n, studies, subjects = sum(CARDS["mimic"]["official"].values()), 227_835, 65_379
    study = np.sort(np.append(np.arange(studies), rng.integers(0, studies, n - studies)))
    subject_of = np.sort(np.append(np.arange(subjects), rng.integers(0, subjects, studies - subjects)))
    split_of = np.repeat(["train", "validate", "test"], [subjects - 1_400, 500, 900])
    words = rng.integers(0, 2**32, (n, 5))
    dicom = ["-".join(f"{word:08x}" for word in row) for row in words]
    subject = subject_of[study]
    ids = {"dicom_id": dicom, "subject_id": subject + 10_000_000, "study_id": study + 50_000_000}
    pd.DataFrame({
        **ids, "PerformedProcedureStepDescription": "CHEST (PA AND LAT)",
        "ViewPosition": rng.choice(["PA", "AP", "LATERAL", "LL", ""], n, p=[0.25, 0.39, 0.22, 0.09, 0.05]), "Rows": 3056,
        "Columns": 2544, "StudyDate": 21800506, "StudyTime": 213014.531, "ProcedureCodeSequence_CodeMeaning": "CHEST",
        "ViewCodeSequence_CodeMeaning": "postero-anterior", "PatientOrientationCodeSequence_CodeMeaning": "Erect",
    }).to_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz", index=False, compression={"method": "gzip", "compresslevel": 1})
    pd.DataFrame({**ids, "split": split_of[subject]}).to_csv(root / "mimic-cxr-2.0.0-split.csv.gz", index=False)
    labelled = studies - 8
    pd.DataFrame({"subject_id": subject_of[:labelled] + 10_000_000, "study_id": np.arange(labelled) + 50_000_000,
                  **_cells(rng, labelled, LABELS["mimic"])}).to_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    return n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many is printed")
    args = parser.parse_args()
    print("SYNTHETIC metadata of the published sizes")
    for name, write in (("nih", write_nih), ("chexpert", write_chexpert), ("mimic", write_mimic)):
        with tempfile.TemporaryDirectory() as folder:
            rows = write(Path(folder), np.random.default_rng(0))
            seconds = []
            for _ in range(args.repeats):
                start, cpu = time.perf_counter(), time.process_time()
                benchmark = load_benchmark(name, folder, files="all")
                seconds.append((time.perf_counter() - start, time.process_time() - cpu))
            wall, cpu = min(seconds)
            print(f"{name:<9} {rows:>8,} images listed  {len(benchmark):>8,} loaded  {wall:5.2f} s  (processor {cpu:5.2f} s)")


if __name__ == "__main__":
    main()
