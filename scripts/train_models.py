#!/usr/bin/env python3
"""What scripts/train_models.sh does not do in the shell.

  train_models.py table PROGRAM OUT         prints the table of all finished parts, and writes it to OUT/table.md: Dice of the held-out cases by
                                            task and class, parameters, and their ratio to independent networks for the same tasks
  train_models.py held SPLITS TASK...       prints the cases that the published fold_splits.json leaves out of training in its fold0
"""

import json
import subprocess
import sys
from pathlib import Path

ORDER = ["shared", "universal-separable", "universal-series", "universal-parallel", "adapted-shared", "adapted-universal-separable"]


def held(splits, tasks):
    splits = json.loads(Path(splits).read_text())
    missing = [task for task in tasks if task not in splits]
    if missing:
        raise SystemExit(f"train_models: the splits name no {', '.join(missing)}")
    return " ".join(case for task in tasks for case in splits[task]["fold0"]["val"])


def dice(run):
    """Of a run, by task and class; the mean of a task stands under the empty name."""
    domains = json.loads((run / "plan.json").read_text())
    names = {domain["name"]: {str(c["value"]): c["name"] for c in domain["labels"]["classes"]} for domain in domains}
    scores = {}
    for file in sorted(run.glob("validation/*/summary.json")):
        summary = json.loads(file.read_text())
        task = file.parent.name
        scores[task, ""] = summary["foreground_mean"]["Dice"]
        for value, mean in summary["mean"].items():
            scores[task, names[task].get(value, value)] = mean["Dice"]
    return scores


def parameters(program, run):
    """Those of the whole model, or where a model was adapted those that the new domain adds to it."""
    told = subprocess.run([program, "info", "--json", run / "model.safetensors"], check=True, capture_output=True).stdout
    report = json.loads(told)
    if not run.name.startswith("adapted-"):
        return report["total"]
    return sum(part["domains"][-1] for part in report["parts"])


def table(program, out):
    runs = {}
    for run in sorted(out.glob("independent-*")) + [out / name for name in ORDER]:
        if (run / "finished").exists():
            runs[run.name] = (dice(run), parameters(program, run))
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

    columns = sorted({key for scores, _ in rows.values() for key in scores})
    heads = [f"{task} {name}".strip() for task, name in columns]
    lines = ["| Dice, % | " + " | ".join(heads) + " | parameters | of independent |", "|" + "---|" * (len(heads) + 3)]
    for name, (scores, count) in rows.items():
        base = of_tasks(scores)
        ratio = f"{100 * count / base:.2f} %" if base else "–"
        cells = [number(scores[key]) if key in scores else "" for key in columns]
        added = "+ " if name.startswith("adapted-") else ""
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {added}{count:,} | {ratio} |")
    text = "\n".join(lines) + "\n"
    (out / "table.md").write_text(text)
    print(text, end="")


if sys.argv[1:2] == ["held"]:
    print("", held(sys.argv[2], sys.argv[3:]))
elif sys.argv[1:2] == ["table"] and len(sys.argv) == 4:
    table(sys.argv[2], Path(sys.argv[3]))
else:
    raise SystemExit(__doc__)
