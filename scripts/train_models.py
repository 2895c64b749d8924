#!/usr/bin/env python3
"""Prints the table of scripts/train_models.sh, and writes it to OUT/table.md: Dice of the held-out cases by task and class, parameters, and their
ratio to independent networks for the same tasks."""

import json
import subprocess
import sys
from pathlib import Path

program, out = sys.argv[1], Path(sys.argv[2])
ORDER = ["shared", "universal-separable", "universal-series", "universal-parallel", "adapted"]


def dice(run):
    """Of a run, by task and class; the mean of a task stands under None."""
    scores = {}
    for file in sorted(run.glob("validation/*/summary.json")):
        summary = json.loads(file.read_text())
        task = file.parent.name
        scores[task, None] = summary["foreground_mean"]["Dice"]
        for value, mean in summary["mean"].items():
            scores[task, value] = mean["Dice"]
    return scores


def parameters(model):
    report = json.loads(subprocess.run([program, "info", "--json", model], check=True, capture_output=True).stdout)[0]
    return report["total"]


runs = {}
for run in sorted(out.glob("independent-*")) + [out / name for name in ORDER]:
    if (run / "finished").exists():
        runs[run.name] = (dice(run), parameters(run / "model.safetensors"))

# independent networks are one row: each scores its own task
single = {name: value for name, value in runs.items() if name.startswith("independent-")}
rows = {}
if single:
    together = {key: value for scores, _ in single.values() for key, value in scores.items()}
    rows["independent"] = (together, sum(count for _, count in single.values()))
rows.update((name, runs[name]) for name in ORDER if name in runs)
if not rows:
    raise SystemExit("train_models: nothing is trained yet")


def of_tasks(scores):
    """Parameters of independent networks for the tasks of a row."""
    tasks = {task for task, _ in scores}
    return sum(count for other, count in single.values() if tasks & {task for task, _ in other})


def number(value):
    return "–" if value is None else f"{100 * value:.2f}"


columns = sorted({key for scores, _ in rows.values() for key in scores}, key=lambda key: (key[0], key[1] or ""))
heads = [task if value is None else f"{task} {value}" for task, value in columns]
lines = ["| Dice, % | " + " | ".join(heads) + " | parameters | of independent |", "|" + "---|" * (len(heads) + 3)]
for name, (scores, count) in rows.items():
    base = of_tasks(scores)
    ratio = f"{100 * count / base:.2f} %" if base else "–"
    cells = [number(scores[key]) if key in scores else "" for key in columns]
    lines.append(f"| {name} | " + " | ".join(cells) + f" | {count:,} | {ratio} |")
text = "\n".join(lines) + "\n"
(out / "table.md").write_text(text)
print(text, end="")
