#!/usr/bin/env python3
"""Trains on the test images with one budget of steps and prints the tables of docs/RESULTS.md.

    python3 scripts/results.py --out runs/results --steps 100 --write docs/RESULTS.md [-- MORE FLAGS OF u2seg train]

Tables: `modes` (every mode and adapter), `adaptation` (a new domain against training from scratch), `recipe` (u2seg's own settings
and the published ones) and `unify` (patches of each domain's own size and resized ones). Run it again to go on where it stopped: finished
runs in --out are not repeated. --plan prints the runs and their steps, and trains nothing. U2SEG names another program than the checkout's.
"""

import argparse
import filecmp
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

FOLDERS = ["Task04_Hippocampus", "Task09_Spleen", "Task21_MSLesion", "Task22_SpinalCord"]
MODES = {
    "independent": ["--mode", "independent"],
    "shared": ["--mode", "shared"],
    "universal, separable": ["--adapter", "separable"],
    "universal, separable samplers too": ["--adapter", "separable", "--downsample", "separable"],
    "universal, series": ["--adapter", "series"],
    "universal, parallel": ["--adapter", "parallel"],
}
RECIPES = {"u2seg's own": [], "published": ["--recipe", "u2net"]}
TABLES = ("modes", "adaptation", "recipe", "unify")
BINARY = Path(os.environ.get("U2SEG", Path(__file__).parent.parent / "target" / "release" / "u2seg"))
FINISHED = "finished.json"


def u2seg(*args):
    """Runs the program; its output, and the MiB of memory that its process had at most."""
    command = [str(BINARY), *map(str, args)]
    print("+", " ".join(command[1:]), file=sys.stderr, flush=True)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"u2seg {args[0]} failed; run this again to go on")
    return output, usage.ru_maxrss / 1024


def cells(*values):
    return "| " + " | ".join(map(str, values)) + " |"


def table(head, rows):
    return "\n".join([cells(*head), cells(*["---"] * len(head)), *(cells(*row) for row in rows)])


def dataset(folder):
    return json.loads((folder / "dataset.json").read_text())


def name(folder):
    return dataset(folder)["name"]


def without(flags, words):
    """Words of a command without flags that take one value."""
    skipped = {at + step for at, word in enumerate(words) if word in flags for step in (0, 1)}
    return [word for at, word in enumerate(words) if at not in skipped]


class Results:
    def __init__(self, args):
        self.args, self.planned = args, []
        self.folders = [args.data / folder for folder in args.folders]

    def held_out(self, folder):
        """The last case of a small dataset; of a larger one every tenth, as many as --held."""
        cases = sorted(Path(case["label"]).name.split(".")[0] for case in dataset(folder)["training"])
        # The other spleen's labels were drawn by a network.
        small = {"Task09_Spleen": ["spleen_2"]}.get(folder.name, cases[-1:])
        return cases[5::10][: self.args.held] if len(cases) >= 20 else small

    def run(self, out, command, folders, steps, more):
        """Trains in a folder, goes on where a training was stopped, or finds it finished; the finished run's folder."""
        out = self.args.out / out
        held = [case for folder in folders for case in self.held_out(folder)]
        flags = without([flag for flag in ("--patch", "--patch-voxels") if flag in more], self.args.flags)
        args = [command, *more, "--data", *folders, "--steps", steps, "--hold-out", *held, *flags]
        # the final weights, not those that the held-out cases choose
        args += ["--validate-every", "0"]
        if command == "train":
            args += ["--base", self.args.base]
        args = [str(arg) for arg in args]
        self.planned.append((out, steps, args))
        if self.args.plan:
            return out
        finished = out / FINISHED
        if finished.exists():
            if json.loads(finished.read_text())["args"] != args:
                raise SystemExit(f"{out} was made with other settings; give another --out or take it away")
            return out
        resume = (out / "last.safetensors").exists()
        _, memory = u2seg(*([command, "--continue"] if resume else args), "--out", out)
        if not (out / "model.safetensors").exists():
            raise SystemExit(f"{out} has no model")
        finished.write_text(json.dumps({"args": args, "process_mib": memory}))
        return out

    def train(self, out, folders, steps, mode):
        """Runs of `steps` a domain: one of all folders, or one for each folder in the independent mode."""
        if "independent" in mode:
            return [self.run(f"{out}/{folder.name}", "train", [folder], steps, mode) for folder in folders]
        return [self.run(out, "train", folders, steps * len(folders), mode)]

    def scores(self, runs, folders):
        """Mean foreground Dice of each folder's held-out cases."""
        files = [file for run in runs for file in run.glob("validation/*/summary.json")]
        means = {file.parent.name: json.loads(file.read_text())["foreground_mean"]["Dice"] for file in files}
        dice = [means[name(folder)] for folder in folders]
        return ["–" if value is None else f"{value:.3f}" for value in dice]

    def pace(self, runs):
        """Seconds of a step: the median reading, without the first, where everything is compiled."""
        times = []
        for run in runs:
            lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
            # lines of validation have none
            steps = [line["seconds_per_step"] for line in lines if "seconds_per_step" in line]
            times.append(statistics.median(steps[1:] or steps))
        return statistics.mean(times)

    def parameters(self, runs):
        return sum(json.loads(u2seg("info", "--json", run / "model.safetensors")[0])["total"] for run in runs)

    def memory(self, runs):
        """MiB of GPU memory that training takes by plan; the largest one of runs that train one after another."""
        planned = []
        for run in runs:
            _, *args = json.loads((run / FINISHED).read_text())["args"]
            memory = json.loads(u2seg("plan", "--json", *args)[0])["memory"]
            planned.append(sum(memory[part] for part in ("parameters", "activations", "uniforms", "read_back")))
        return max(planned) / 2**20

    def process(self, runs):
        return max(json.loads((run / FINISHED).read_text())["process_mib"] for run in runs)

    def costs(self, runs):
        return [
            f"{self.parameters(runs):,}",
            f"{self.pace(runs):.2f}",
            f"{self.memory(runs):.0f}",
            f"{self.process(runs):.0f}",
        ]

    COSTS = ["parameters", "s/step", "planned MiB", "process MiB"]

    def compared(self, kinds, what, folders, prefix=""):
        """A row for each kind of training, by its flags."""
        rows = []
        for title, flags in kinds.items():
            out = "-".join("".join(c if c.isalnum() else " " for c in prefix + title).split())
            runs = self.train(out, folders, self.args.steps, flags)
            if not self.args.plan:
                rows.append([title, *self.scores(runs, folders), *self.costs(runs)])
        return table([what, *map(name, folders), *self.COSTS], rows)

    def modes(self):
        kinds = {title: flags for title, flags in MODES.items() if not self.args.modes or title in self.args.modes}
        return self.compared(kinds, "mode", self.folders)

    def recipe(self):
        """The recipes with the same patches a step; everything else is the recipe's."""
        batch = ["--batch", str(self.args.recipe_batch)]
        kinds = {title: flags + batch for title, flags in RECIPES.items()}
        return self.compared(kinds, "recipe", self.folders[:1], "recipe ")

    def unify(self):
        """Each domain's own patches, also with as many voxels a step as the resized ones have."""
        native = MODES["universal, separable"]
        # The first one is the universal network of the table of modes.
        own = self.compared({"universal, separable": native}, "patches", self.folders)
        voxels = math.prod(int(extent) for extent in self.args.common_patch.split(","))
        kinds = {"each domain's own, as many voxels": [*native, "--patch-voxels", voxels]}
        kinds["resized"] = ["--unify", "resize", "--patch", self.args.common_patch]
        same = self.compared(kinds, "patches", self.folders, "unify ")
        rows = own.splitlines() + same.splitlines()[2:]
        return "\n".join(rows).replace("| universal, separable |", "| each domain's own |")

    def adaptation(self):
        new, old = self.folders[0], self.folders[1:]
        steps = self.args.steps
        [before] = self.train("without-the-first", old, steps, [])
        adapted = self.run("adapted", "adapt", [new], steps, ["-m", before])
        [scratch] = self.train("scratch", [new], steps, [])
        if self.args.plan:
            return ""
        masks = lambda run, folder: self.args.out / f"masks-{run.name}-{folder.name}"
        same = []
        for folder in old:
            images = sorted((folder / "imagesTr").glob("*.nii.gz"))
            for run in (before, adapted):
                more = ["-i", folder / "imagesTr", "-o", masks(run, folder), "--continue"]
                u2seg("predict", "-m", run, "--domain", name(folder), *more)
            pairs = [(masks(before, folder) / image.name, masks(adapted, folder) / image.name) for image in images]
            same += [filecmp.cmp(*pair, shallow=False) for pair in pairs]
        added = json.loads(u2seg("info", "--json", adapted / "domain.safetensors")[0])
        own = sum(sum(part["domains"]) for part in added["parts"])
        rows = [
            ["adapted", *self.scores([adapted], [new]), f"{own:,}", f"{self.pace([adapted]):.2f}"],
            ["from scratch", *self.scores([scratch], [new]), f"{self.parameters([scratch]):,}", f"{self.pace([scratch]):.2f}"],
        ]
        head = [f"{name(new)}, new", "Dice", "parameters trained", "s/step"]
        verdict = f"{sum(same)} of {len(same)} masks of the old domains are the same bytes before and after."
        return f"{table(head, rows)}\n\n{verdict}"

    def told(self):
        """How these numbers came to be."""
        words = without(["--out", "--write", "--data"], sys.argv[1:])
        adapter = json.loads(u2seg("devices", "--json")[0])[0]
        held = ", ".join(f"{len(self.held_out(folder))} {name(folder)}" for folder in self.folders)
        return (
            f"`python3 scripts/results.py {shlex.join(words)}`: {u2seg('--version')[0].splitlines()[0]} on {adapter['name']}, "
            f"{adapter['driver_info']}; {self.args.steps} steps for each domain.\nDice of held-out cases ({held}), by the final weights."
        )


def write(path, tables):
    """Puts each table between its markers; those that the file has not are appended."""
    text = path.read_text() if path.exists() else "# Results\n"
    for key, body in tables.items():
        start, end = f"<!-- results: {key} -->", f"<!-- end of {key} -->"
        block = f"{start}\n\n{body}\n\n{end}"
        if start in text and end in text:
            text = text[: text.index(start)] + block + text[text.index(end) + len(end) :]
        else:
            text += f"\n## {key.capitalize()}\n\n{block}\n"
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text)
    aside.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the datasets")
    parser.add_argument("--folders", nargs="+", default=FOLDERS, help="datasets; the first is the new one when adapting")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--modes", nargs="+", choices=MODES, help="rows of the table of modes; by default all")
    parser.add_argument("--steps", type=int, default=300, help="steps for each domain")
    parser.add_argument("--base", type=int, default=16, help="channels of the first level")
    parser.add_argument("--held", type=int, default=10, help="cases held out of a large dataset at most")
    parser.add_argument("--recipe-batch", type=int, default=2, help="samples a step when recipes are compared")
    parser.add_argument("--common-patch", default="48,48,48", help="patch that all domains are resized to")
    parser.add_argument("--write", type=Path, help="file of results to put the tables into")
    parser.add_argument("--plan", action="store_true", help="print the runs and train nothing")
    parser.add_argument("flags", nargs="*", help="more flags of u2seg train, which u2seg adapt has too")
    args = parser.parse_args()
    results = Results(args)
    for key in args.tables:
        body = getattr(results, key)()
        if args.plan:
            continue
        body = f"{results.told()}\n\n{body}"
        print(f"\n{body}", flush=True)
        if args.write:
            write(args.write, {key: body})
    if args.plan:
        runs = {out: (steps, line) for out, steps, line in results.planned}
        for out, (steps, line) in runs.items():
            print(f"{steps:6} steps {out}: u2seg {' '.join(line)}")
        print(f"{sum(steps for steps, _ in runs.values()):6} steps in all")


if __name__ == "__main__":
    main()
