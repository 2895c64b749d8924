"""Helps scripts/compare.sh: `ours` turns a report of `u2seg bench` into the peers' lines, `round N` numbers lines,
`show` says what lines measured, `table` prints ratios of all rounds."""

import json
import statistics
import sys

OURS = "u2seg"


def ours():
    report = json.load(sys.stdin)
    for c in report["configurations"]:
        line = {"config": c["name"], "variant": OURS, "adapter": report["adapter"]}
        print(json.dumps(line | {"step_ms": c["step_ms"], "forward_ms": c["forward_ms"]}))


def number(index):
    for line in sys.stdin:
        print(json.dumps({"round": int(index)} | json.loads(line)))


def show():
    for result in map(json.loads, sys.stdin):
        times = [f"{what} {result[f'{what}_ms']:.1f} ms" for what in ("step", "forward") if result.get(f"{what}_ms") is not None]
        print(f"  {result['config']}, {result['variant']}: {', '.join(times)}", file=sys.stderr)


def table():
    times, losses, adapters = {}, {}, set()
    for result in map(json.loads, sys.stdin):
        adapters |= {result["adapter"]} if "adapter" in result else set()
        if result.get("loss") is not None:
            losses.setdefault(result["config"], {})[result["variant"]] = (result["loss"], result["last_loss"])
        for what in ("step_ms", "forward_ms"):
            if result.get(what) is not None:
                rounds = times.setdefault((result["config"], what), {}).setdefault(result["variant"], {})
                rounds[result["round"]] = result[what]
    print(f"u2seg on {', '.join(sorted(adapters)) or 'nothing'}\n")
    print("| configuration | what | u2seg ms | peer | peer ms | u2seg / peer | smallest | largest | rounds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (config, what), variants in times.items():
        mine = variants.pop(OURS, {})
        for name, theirs in variants.items():
            both = [index for index in mine if index in theirs]
            if not both:
                continue
            ratios = [mine[index] / theirs[index] for index in both]
            median = lambda rounds: f"{statistics.median(rounds[index] for index in both):.1f}"
            cells = [config, what.removesuffix("_ms"), median(mine), name, median(theirs)]
            cells += [f"{value:.3g}" for value in (statistics.median(ratios), min(ratios), max(ratios))]
            print("| " + " | ".join(cells + [str(len(both))]) + " |")
    for config, variants in losses.items():
        # The peers start from the same weights and see the same batch.
        print(f"\nLosses of {config}, before the first update and before the last:")
        for name, (first, last) in variants.items():
            print(f"- {name}: {first:.6f}, {last:.6f}")


{"ours": ours, "round": number, "show": show, "table": table}[sys.argv[1]](*sys.argv[2:])
