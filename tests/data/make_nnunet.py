#!/usr/bin/env python3
"""Writes nnunet.json: small masks and nnU-Net's own summary of them, to which tests/evaluate.rs holds `u2seg evaluate`.

    pip install nnunetv2==2.8.1
    python3 tests/data/make_nnunet.py > tests/data/nnunet.json

A mask is a text with a digit a voxel, x fastest, then y, then z. NaN is written as null.
"""

import json
import math
import sys
import tempfile
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

SHAPE = (12, 10, 8)


def box(labels, value, low, high):
    labels[tuple(slice(a, b) for a, b in zip(low, high))] = value


def masks(boxes, noise, seed, values):
    """A reference of boxes, and a prediction that differs in a share of its voxels."""
    reference = np.zeros(SHAPE, np.uint8)
    for value, low, high in boxes:
        box(reference, value, low, high)
    random = np.random.default_rng(seed)
    prediction = np.where(random.random(SHAPE) < noise, random.choice(values, SHAPE), reference)
    return reference, prediction.astype(np.uint8)


def without(labels, value):
    return np.where(labels == value, 0, labels).astype(np.uint8)


def gaps():
    """Cases of the labels 2 and 5; the classes of one or both masks are taken away."""
    two, five = (2, (2, 2, 2), (7, 6, 6)), (5, (7, 4, 1), (11, 9, 5))
    reference, prediction = masks([two, five], 0.1, 1, [0, 2, 5])
    yield "ordinary", reference, prediction
    reference, prediction = masks([two], 0.15, 2, [0, 2])
    yield "without_5", reference, prediction
    reference, prediction = masks([two, five], 0.1, 3, [0, 2, 5])
    yield "5_only_predicted", without(reference, 5), prediction
    reference, prediction = masks([two, five], 0.2, 4, [0, 2, 5])
    yield "2_only_in_reference", reference, without(prediction, 2)


def ignored():
    """The same, where parts of the references carry 3: across both classes, over all of one, and nowhere."""
    parts = [((0, 0, 0), (12, 3, 8)), ((6, 5, 0), (12, 10, 8)), ((0, 0, 0), (8, 10, 7)), None]
    for (name, reference, prediction), part in zip(gaps(), parts):
        if part is not None:
            box(reference, 3, *part)
        yield name, reference, prediction


def regions():
    """The regions 1 and 2 together, and 2; parts of the references carry 3."""
    one, two = (1, (2, 2, 1), (10, 8, 7)), (2, (4, 3, 2), (8, 6, 5))
    yield "ordinary", *masks([one, two], 0.1, 5, [0, 1, 2])
    reference, prediction = masks([one, two], 0.2, 6, [0, 1, 2])
    box(reference, 3, (0, 0, 3), (12, 10, 5))
    yield "ignored", reference, prediction
    yield "without_2", *masks([one], 0.1, 7, [0, 1])
    reference, prediction = masks([one, two], 0.1, 8, [0, 1, 2])
    yield "2_only_predicted", np.where(reference == 2, 1, reference), prediction
    yield "empty", *masks([], 0, 9, [0])


SETS = [
    ("labels with gaps", {"background": 0, "organ": 2, "vessel": 5}, None, gaps),
    ("a class in no case, and ignored voxels",
     {"background": 0, "organ": 2, "vessel": 5, "never": 7, "ignore": 3}, None, ignored),
    ("regions", {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2], regions),
]


def scored(labels):
    """As nnU-Net's LabelManager: lists are tuples."""
    named = [value for name, value in labels.items() if name not in ("background", "ignore")]
    return [tuple(value) if isinstance(value, list) else value for value in named]


def plain(value):
    if isinstance(value, dict):
        return {key: plain(value) for key, value in value.items()}
    if isinstance(value, list):
        return [plain(value) for value in value]
    if isinstance(value, str):
        return Path(value).name
    return None if isinstance(value, float) and math.isnan(value) else value


def digits(labels):
    return "".join(str(value) for value in labels.T.ravel())


def evaluate(cases, labels):
    with tempfile.TemporaryDirectory() as folder:
        references, predictions = Path(folder, "references"), Path(folder, "predictions")
        for path in references, predictions:
            path.mkdir()
        for name, reference, prediction in cases:
            for path, mask in (references, reference), (predictions, prediction):
                nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), path / f"{name}.nii.gz")
        summary = Path(folder, "summary.json")
        compute_metrics_on_folder(
            str(references), str(predictions), str(summary), NibabelIO(), ".nii.gz", scored(labels),
            labels.get("ignore"), num_processes=1,
        )
        # the file, with the keys that nnU-Net writes
        return plain(json.loads(summary.read_text()))


def main():
    sets = []
    with redirect_stdout(sys.stderr):
        for name, labels, order, made in SETS:
            cases = list(made())
            description = {"labels": labels}
            if order:
                description["regions_class_order"] = order
            sets.append({
                "name": name,
                "description": description,
                "cases": [
                    {"name": name, "reference": digits(reference), "prediction": digits(prediction)}
                    for name, reference, prediction in cases
                ],
                "summary": evaluate(cases, labels),
            })
    print(json.dumps({"nnunetv2": version("nnunetv2"), "shape": SHAPE[::-1], "sets": sets}, indent=1))


if __name__ == "__main__":
    main()
