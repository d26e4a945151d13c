"""What the intensity scale of 8-bit DICOM without a window does to a score in another hospital.

The same 8 bits are a PNG in one archive (NIH) and a DICOM without a window in another (RSNA). MedBridge divides both by 255. Here
PhantomCXR films (synthetic) of hospitals that the shipped adapter did not train on are scored so, and once more stretched from
their 0.5th to their 99.5th percentile, as deeper films without a window are.

    python bench/intensity.py --films 70
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm import tqdm

from medbridge import load_benchmark
from medbridge.adapter import load_adapter
from medbridge.data.pixels import limits
from medbridge.metrics.evaluate import evaluate, paired_difference
from medbridge.predict import predict_film


def stretched(film: np.ndarray) -> np.ndarray:
    low, high = limits(film.reshape(-1), (film.min(), film.max()))
    return np.clip((film - low) / (high - low), 0, 1).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", default="data/quickstart")
    parser.add_argument("--films", type=int, default=300, help="of each hospital")
    parser.add_argument("--seed", type=int, default=7, help="of the films")
    args = parser.parse_args()
    model = load_adapter(args.adapter)
    for hospital in ("phantom-B", "phantom-C"):
        films = load_benchmark(hospital, n_films=args.films, seed=args.seed)
        y, mask = films.targets()
        columns = [films.labels.index(label) for label in model.labels]
        y, mask, patients = y[:, columns], mask[:, columns], films.table["patient_id"].tolist()
        scores = [], []
        for i in tqdm(range(len(films)), hospital, unit="film"):
            film = films.read(i)
            scores[0].append(predict_film(model, film))
            scores[1].append(predict_film(model, stretched(film)))
        plain, wide = map(np.stack, scores)
        aucs = [evaluate(y, s, mask, patients).macro for s in (plain, wide)]
        print(f"{films.name}: /255 {aucs[0]['auc']:.3f}, stretched {aucs[1]['auc']:.3f}; mean change of a probability "
              f"{np.abs(plain - wide).mean():.3f}")
        print(paired_difference(y, plain, wide, mask, patients).verdict)


if __name__ == "__main__":
    main()
