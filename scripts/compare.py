"""Helps scripts/compare.sh: `ours` turns a report of `u2seg bench` into the peers' lines, `table` prints ratios."""

import json
import statistics
import sys


def ours():
    report = json.load(sys.stdin)
    for c in report["configurations"]:
        line = {"config": c["name"], "variant": "u2seg", "adapter": report["adapter"]}
        print(json.dumps(line | {"step_ms": c["step_ms"], "forward_ms": c["forward_ms"]}))


def table():
    rounds = {}
    for line in sys.stdin:
        result = json.loads(line)
        for what in ("step_ms", "forward_ms"):
            if result.get(what) is not None:
                key = (result["config"], what)
                rounds.setdefault(key, {}).setdefault(result["variant"], []).append(result[what])
    print("| configuration | what | u2seg ms | peer | peer ms | u2seg / peer | smallest | largest |")
    print("|---|---|---|---|---|---|---|---|")
    for (config, what), variants in rounds.items():
        mine = variants.pop("u2seg")
        for name, theirs in variants.items():
            ratios = [m / t for m, t in zip(mine, theirs)]
            cells = [config, what.removesuffix("_ms"), f"{statistics.median(mine):.1f}", name]
            cells += [f"{statistics.median(theirs):.1f}", f"{statistics.median(ratios):.2f}"]
            cells += [f"{min(ratios):.2f}", f"{max(ratios):.2f}"]
            print("| " + " | ".join(cells) + " |")


{"ours": ours, "table": table}[sys.argv[1]]()
