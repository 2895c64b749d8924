#!/usr/bin/env python3
"""Trains every mode on the test images with the same budget of steps and prints the tables of docs/RESULTS.md.

    python3 scripts/results.py --steps 100 --out runs/results [--data ../shared/data] [-- MORE FLAGS OF u2seg train]

Runs that are finished in --out are not repeated.
"""

import argparse
import filecmp
import json
import statistics
import subprocess
from pathlib import Path

FOLDERS = ["Task04_Hippocampus", "Task09_Spleen", "Task21_MSLesion", "Task22_SpinalCord"]
MODES = {
    "independent": ["--mode", "independent"],
    "shared": ["--mode", "shared"],
    "universal, separable": ["--adapter", "separable"],
    "universal, series": ["--adapter", "series"],
    "universal, parallel": ["--adapter", "parallel"],
}
BINARY = Path(__file__).parent.parent / "target" / "release" / "u2seg"


def u2seg(*args):
    command = [str(BINARY), *map(str, args)]
    print("+", " ".join(command[1:]), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"u2seg {args[0]} failed")
    return done.stdout


def held_out(folder):
    """The last case of a small dataset; of a larger one every tenth."""
    cases = sorted(Path(c["label"]).name.split(".")[0] for c in json.loads((folder / "dataset.json").read_text())["training"])
    small = {"Task09_Spleen": ["spleen_2"]}.get(folder.name, cases[-1:])
    return cases[5::10] if len(cases) >= 20 else small


def name(folder):
    return json.loads((folder / "dataset.json").read_text())["name"]


class Results:
    def __init__(self, args):
        self.out, self.flags, self.steps = args.out, args.flags, args.steps
        self.folders = [args.data / folder for folder in FOLDERS]

    def train(self, run, folders, steps, mode, command="train"):
        run = self.out / run
        if not any(run.rglob("summary.json")):
            held = [case for folder in folders for case in held_out(folder)]
            u2seg(command, *mode, "--data", *folders, "--steps", steps, "--out", run, "--hold-out", *held, *self.flags)
        return run

    def scores(self, run, folders):
        """Mean foreground Dice of each folder's held-out cases."""
        files = {f.parent.name: f for f in run.rglob("summary.json")}
        summaries = {domain: json.loads(file.read_text()) for domain, file in files.items()}
        return [summaries[name(folder)]["foreground_mean"]["Dice"] for folder in folders]

    def pace(self, run):
        """Median seconds of a step of each domain, then their mean: a step of every domain counts alike."""
        times = {}
        for file in run.rglob("log.jsonl"):
            for line in map(json.loads, file.read_text().splitlines()[2:]):
                times.setdefault(line["domain"], []).append(line["seconds_per_step"])
        return statistics.mean(statistics.median(t) for t in times.values())

    def parameters(self, run):
        models = sorted(run.rglob("model.safetensors"))
        return sum(json.loads(u2seg("info", "--json", model))[0]["total"] for model in models)

    def memory(self, mode, folders):
        """MiB of GPU memory that training takes; the largest one of runs that train one after another."""
        groups = [[f] for f in folders] if "independent" in mode else [folders]
        plan = lambda group: json.loads(u2seg("plan", "--dry-run", "--json", *mode, "--data", *group, *self.flags))["memory"]
        return max(sum(plan(group).values()) for group in groups) / 2**20

    def modes(self):
        lines = []
        for title, mode in MODES.items():
            steps = self.steps if title == "independent" else self.steps * len(self.folders)
            run = self.train(title.split(", ")[-1], self.folders, steps, mode)
            cells = [title] + [f"{dice:.3f}" for dice in self.scores(run, self.folders)]
            cells += [f"{self.parameters(run):,}", f"{self.pace(run):.2f}", f"{self.memory(mode, self.folders):.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
        names = " | ".join(map(name, self.folders))
        print(f"\n| mode | {names} | parameters | s/step | MiB |\n|---|{'---|' * (len(FOLDERS) + 3)}", *lines, sep="\n")

    def adaptation(self):
        new, old = self.folders[0], self.folders[1:]
        before = self.train("without", old, self.steps * len(old), [])
        adapted = self.train("adapted", [new], self.steps, ["-m", before], "adapt")
        scratch = self.train("scratch", [new], self.steps, [])
        same = True
        for folder in old:
            images = sorted((folder / "imagesTr").glob("*.nii.gz"))
            masks = []
            for run in (before, adapted):
                masks.append(self.out / f"{run.name}_{folder.name}")
                u2seg("predict", "-m", run, "--domain", name(folder), "-i", folder / "imagesTr", "-o", masks[-1])
            pairs = [(masks[0] / image.name, masks[1] / image.name) for image in images]
            same = same and all(filecmp.cmp(a, b, shallow=False) for a, b in pairs)
        print(f"\n| {name(new)} | Dice | parameters trained |\n|---|---|---|")
        added = json.loads(u2seg("info", "--json", adapted / "domain.safetensors"))[0]
        own = sum(sum(part["domains"]) for part in added["parts"])
        for title, run, count in (("adapted", adapted, own), ("from scratch", scratch, self.parameters(scratch))):
            print(f"| {title} | {self.scores(run, [new])[0]:.3f} | {count:,} |")
        print(f"\nOld domains' masks before and after: {'identical' if same else 'DIFFERENT'}, byte for byte.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="steps for each domain")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("flags", nargs="*", help="more flags of u2seg train")
    results = Results(parser.parse_args())
    results.adaptation()
    results.modes()


if __name__ == "__main__":
    main()
