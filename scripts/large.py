"""Times work on large volumes and the memory that it takes: this program and, by turns, another one.

    python3 scripts/large.py [--rounds 3] [--other PATH] [--data FOLDER] [WHAT ...]

WHAT is one of (all of them where nothing is given):
    predict          512x512x600 voxels, 3 classes, grid of 8 mm    predict-two      with two models
    predict-many     the same with 25 classes                       probabilities    with --save-probabilities
    predict-windows  the same, grid of 1.5 mm, windows of 96^3      evaluate, evaluate-stray    5 classes
    train-few        8 CTs of 256x256x128, with prepared data       train-many       48 of them

Volumes and models are made where FOLDER (default: u2seg-large in the temporary folder) has none; that takes 3 GB.
--other names a u2seg to compare with, such as that of a release before. The models are made by it where it is given, as a
program reads models of those before it. Every figure is a median of the rounds.
"""

import argparse
import gzip
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "target/release/u2seg"
LARGE = ["--shape", "600,512,512", "--spacing", "1,0.8,0.8"]
SMALL = ["--cases", "2", "--shape", "60,64,64", "--spacing", "10,6.4,6.4"]
COARSE = ["--spacing", "8,8,8", "--steps", "2", "--base", "4", "--patch-voxels", "40000"]
WINDOWS = ["--spacing", "1.5,1.5,1.5", "--steps", "1", "--base", "4", "--patch", "96,96,96", "--batch", "1"]


def say(text):
    print(f"large: {text}", file=sys.stderr)


def quiet(*command):
    """Runs what must succeed."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} failed:\n{done.stderr}")


class Data:
    """Volumes and models, made when they are first asked for."""

    def __init__(self, folder, maker):
        self.folder, self.maker = folder, maker
        folder.mkdir(parents=True, exist_ok=True)

    def made(self, name, make):
        """A file or folder that `make` writes under another name first."""
        path, aside = self.folder / name, self.folder / f"{name}.part"
        if not path.exists():
            say(f"making {name}")
            shutil.rmtree(aside, ignore_errors=True)
            make(aside)
            aside.rename(path)
        return path

    def cohort(self, name, *arguments):
        example = ROOT / "target/release/examples/synthetic_cohort"
        return self.made(name, lambda out: quiet(example, "--out", out, *arguments))

    def model(self, name, classes, *arguments):
        cases = self.cohort(f"small-{classes}", *SMALL, "--classes", classes)
        train = [self.maker, "train", "--data", cases, *arguments]
        return self.made(f"model-{name}", lambda out: quiet(*train, "--out", out)) / "model.safetensors"

    def scan(self, classes):
        cases = self.cohort(f"ct-{classes}", "--cases", "1", *LARGE, "--classes", classes, "--seed", classes)
        return cases / "imagesTr/case_000.nii.gz"

    def masks(self, stray):
        """Labels of one patient, and those of another as prediction; stray voxels of each class in two corners."""
        cases = self.cohort("ct-5", "--cases", "2", *LARGE, "--classes", "5", "--seed", "5") / "labelsTr"
        if not stray:
            return cases / "case_001.nii.gz", cases / "case_000.nii.gz"

        def make(out):
            voxels = bytearray(gzip.open(cases / "case_001.nii.gz").read())
            for label in range(1, 5):
                voxels[352 + label] = voxels[-1 - label] = label
            with gzip.open(out, "wb", compresslevel=1) as file:
                file.write(voxels)

        return self.made("stray.nii.gz", make), cases / "case_000.nii.gz"


def predict(data, out, classes, models, *arguments):
    return ["predict", "-m", *models, "-i", data.scan(classes), "-o", out / "mask.nii.gz", *arguments]


def coarse(data, count=1):
    return [data.model(f"3-{seed}", "3", *COARSE, "--seed", str(seed)) for seed in range(count)]


def train(data, out, cases):
    cohort = data.cohort(f"cohort-{cases}", "--cases", str(cases), "--shape", "128,256,256")
    return ["train", "--data", cohort, "--out", out / "run", "--base", "8", "--steps", "40", "--tune", "off"]


def evaluate(data, out, stray):
    prediction, reference = data.masks(stray)
    return ["evaluate", "-p", prediction, "-g", reference, "-o", out / "summary.json", "--labels", "none"]


WHAT = {
    "predict": lambda data, out: predict(data, out, "3", coarse(data)),
    "predict-two": lambda data, out: predict(data, out, "3", coarse(data, 2)),
    "predict-many": lambda data, out: predict(data, out, "25", [data.model("25", "25", *COARSE)]),
    "probabilities": lambda data, out: predict(data, out, "3", coarse(data), "--save-probabilities"),
    "predict-windows": lambda data, out: predict(data, out, "3", [data.model("windows", "3", *WINDOWS)]),
    "evaluate": lambda data, out: evaluate(data, out, False),
    "evaluate-stray": lambda data, out: evaluate(data, out, True),
    "train-few": lambda data, out: train(data, out, 8),
    "train-many": lambda data, out: train(data, out, 48),
}


def measured(program, arguments):
    """Seconds, seconds of all cores, and the peak of its memory in MiB."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as told:
        child = subprocess.Popen([str(part) for part in [program, *arguments]], stdout=told, stderr=told)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            told.seek(0)
            sys.exit(f"error: {program} {arguments[0]} failed:\n{told.read().decode(errors='replace')}")
    # in KiB, but on macOS in bytes
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="WHAT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "u2seg-large")
    args = parser.parse_args()
    if unknown := set(args.what) - set(WHAT):
        parser.error(f"found {', '.join(sorted(unknown))}; expected {', '.join(WHAT)}")
    quiet("cargo", "build", "--release", "--locked", "--manifest-path", ROOT / "Cargo.toml", "--bins", "--examples")
    data = Data(args.data.resolve(), args.other or OURS)
    programs = {"this": OURS} | ({"other": args.other} if args.other else {})
    print("| what | program | s | CPU s | peak MiB | s / other | smallest | largest |")
    print("|---|---|---|---|---|---|---|---|")
    for what in args.what or WHAT:
        found = {name: [] for name in programs}
        for turn in range(args.rounds):
            # each goes first in half of the rounds
            for name, program in list(programs.items())[:: -1 if turn % 2 else 1]:
                with tempfile.TemporaryDirectory(dir=data.folder) as out:
                    found[name].append(measured(program, WHAT[what](data, Path(out))))
                    say(f"{what}, round {turn + 1}, {name}: {found[name][-1][0]:.1f} s")
        for name, runs in found.items():
            seconds, cores, peak = (statistics.median(column) for column in zip(*runs))
            row = f"| {what} | {name} | {seconds:.1f} | {cores:.1f} | {peak:.0f} |"
            if name == "this" and "other" in found:
                ratios = [mine[0] / theirs[0] for mine, theirs in zip(runs, found["other"])]
                row += f" {statistics.median(ratios):.2f} | {min(ratios):.2f} | {max(ratios):.2f} |"
            else:
                row += " | | |"
            print(row, flush=True)


main()
