#!/usr/bin/env python3
"""Writes metrics_published.json: scores of published packages, to which tests/metrics_published.rs holds u2seg's own.

    pip install monai==1.6.1 torch medpy==0.5.2 surface-distance==0.1 nibabel
    python3 tests/data/make_metrics.py ../shared/data > tests/data/metrics_published.json

A mask is a recipe: voxels of a class in a label file, or a solid by formula; then resampled to a shape by nearest
neighbour, shifted, eroded, dilated. The test follows the same recipes. Axes are D,H,W of the canonical orientation.
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import surface_distance
import torch
from medpy.metric import binary as medpy
from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance, compute_iou
from monai.metrics import compute_surface_dice
from scipy.ndimage import binary_dilation, binary_erosion

TOLERANCE = 1.0
np.Inf, np.NaN = np.inf, np.nan  # surface-distance 0.1 knows no NumPy 2


def solid(recipe):
    """An ellipsoid with rough edges: voxels whose hash is a multiple of `flip` change sides near it; 0 changes none."""
    shape, centre, radii = recipe["shape"], recipe["centre"], recipe["radii"]
    z, y, x = np.indices(shape, dtype=np.int64)
    a, b, c = (r * r for r in radii)
    level = (z - centre[0]) ** 2 * b * c + (y - centre[1]) ** 2 * a * c + (x - centre[2]) ** 2 * a * b
    inside = level <= a * b * c
    if recipe["flip"]:
        index = (z * shape[1] + y) * shape[2] + x
        hashed = (index * 2654435761) % 2**32 // 65536
        inside ^= (hashed % recipe["flip"] == 0) & (level <= 2 * a * b * c)
    return inside


def mask_of(recipe, data):
    if "file" in recipe:
        image = nibabel.as_closest_canonical(nibabel.load(data / recipe["file"]))
        mask = np.asarray(image.dataobj).T == recipe["class"]
    else:
        mask = solid(recipe)
    if "fit" in recipe:
        picks = [(2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip(recipe["fit"], mask.shape)]
        mask = mask[np.ix_(*picks)]
    for axis, by in enumerate(recipe.get("shift", [])):
        mask = np.roll(mask, by, axis)
        if by:
            hidden = [slice(None)] * 3
            hidden[axis] = slice(0, by) if by > 0 else slice(by, None)
            mask[tuple(hidden)] = False
    if recipe.get("erode"):
        mask = binary_erosion(mask, iterations=recipe["erode"])
    if recipe.get("dilate"):
        mask = binary_dilation(mask, iterations=recipe["dilate"])
    return mask


def number(value):
    """JSON has neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None


def scores(truth, prediction, spacing):
    y, p = (torch.from_numpy(m[None, None].astype(np.float32)) for m in (truth, prediction))
    more = {"include_background": True}
    monai = {
        "Dice": compute_dice(p, y, **more),
        "IoU": compute_iou(p, y, **more),
        "HD95": compute_hausdorff_distance(p, y, percentile=95, spacing=spacing, **more),
        "ASSD": compute_average_surface_distance(p, y, symmetric=True, spacing=spacing, **more),
        "NSD": compute_surface_dice(p, y, [TOLERANCE], spacing=spacing, **more),
    }
    told = {
        "n_ref": int(truth.sum()),
        "n_pred": int(prediction.sum()),
        "TP": int((truth & prediction).sum()),
        "monai": {name: number(value.item()) for name, value in monai.items()},
    }
    if truth.any() and prediction.any():
        told["medpy"] = {
            "Dice": number(medpy.dc(prediction, truth)),
            "IoU": number(medpy.jc(prediction, truth)),
            "ASSD": number(medpy.assd(prediction, truth, spacing)),
        }
    surfaces = surface_distance.compute_surface_distances(truth, prediction, spacing)
    told["surface-distance"] = {
        "Dice": number(surface_distance.compute_dice_coefficient(truth, prediction)),
        "HD95 of surface elements": number(surface_distance.compute_robust_hausdorff(surfaces, 95)),
        "NSD of surface elements": number(surface_distance.compute_surface_dice_at_tolerance(surfaces, TOLERANCE)),
    }
    return told


def cases():
    def hippocampus(case, label, **more):
        return {"file": f"Task04_Hippocampus/labelsTr/hippocampus_{case}.nii.gz", "class": label, **more}

    spleen = lambda **more: {"file": "Task09_Spleen/labelsTr/spleen_2.nii.gz", "class": 1, **more}
    fit = {"fit": [35, 51, 35]}
    iso, thick, uneven = [1.0, 1.0, 1.0], [3.6, 0.625, 0.625], [5.0, 0.8, 1.3]
    yield "one voxel off along depth", hippocampus("003", 1, **fit), hippocampus("003", 1, **fit, shift=[1, 0, 0]), iso
    yield "three voxels off in plane", hippocampus("003", 2, **fit), hippocampus("003", 2, **fit, shift=[0, 2, -3]), thick
    yield "eroded", hippocampus("004", 1, **fit), hippocampus("004", 1, **fit, erode=1), iso
    yield "dilated, thick slices", hippocampus("004", 2, **fit), hippocampus("004", 2, **fit, dilate=1), thick
    yield "another person's", hippocampus("006", 1, **fit), hippocampus("007", 1, **fit), iso
    yield "another person's, thick slices", hippocampus("006", 2, **fit), hippocampus("008", 2, **fit), thick
    yield "another structure", hippocampus("011", 1, **fit), hippocampus("011", 2, **fit), iso
    yield "a spleen, eroded twice", spleen(), spleen(erode=2), uneven
    yield "a spleen, off and dilated", spleen(), spleen(shift=[1, 4, -2], dilate=1), uneven
    ball = lambda shape, centre, radii, flip=0, **more: {
        "shape": shape, "centre": centre, "radii": radii, "flip": flip, **more
    }
    shape, centre = [24, 30, 28], [11, 14, 13]
    yield "the same", ball(shape, centre, [6, 8, 7]), ball(shape, centre, [6, 8, 7]), thick
    yield "smooth solids", ball(shape, centre, [6, 8, 7]), ball(shape, [12, 15, 12], [7, 8, 6]), iso
    yield "rough solids", ball(shape, centre, [6, 8, 7], 11), ball(shape, [12, 15, 12], [7, 8, 6], 13), iso
    yield "rough solids, uneven", ball(shape, centre, [6, 8, 7], 7), ball(shape, [12, 13, 13], [6, 9, 7], 5), uneven
    yield "touching the border", ball(shape, [0, 29, 5], [6, 8, 7]), ball(shape, [2, 28, 3], [6, 8, 7], 9), thick
    yield "far apart", ball(shape, [4, 5, 5], [3, 3, 3]), ball(shape, [19, 24, 22], [3, 4, 3]), uneven
    yield "a single voxel", ball(shape, centre, [6, 8, 7]), ball(shape, [12, 15, 12], [1, 1, 1], erode=1), iso
    empty = ball(shape, [90, 90, 90], [1, 1, 1])
    yield "nothing predicted", ball(shape, centre, [6, 8, 7]), empty, iso
    yield "nothing there", empty, ball(shape, centre, [6, 8, 7]), iso
    yield "nothing at all", empty, empty, iso


def main():
    warnings.simplefilter("ignore")
    data = Path(sys.argv[1])
    made = []
    for name, truth, prediction, spacing in cases():
        told = scores(mask_of(truth, data), mask_of(prediction, data), spacing)
        made.append({"name": name, "truth": truth, "prediction": prediction, "spacing": spacing, **told})
    packages = {name: version(name) for name in ("monai", "medpy", "surface-distance")}
    lines = ",\n".join("  " + json.dumps(case) for case in made)
    print(f'{{"packages": {json.dumps(packages)},\n "tolerance": {TOLERANCE},\n "cases": [\n{lines}\n]}}')


if __name__ == "__main__":
    main()
