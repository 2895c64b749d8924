#!/bin/sh
# Trains the model that u2seg ships, models/hippocampus.safetensors, scores it on 20 cases that it does not see, and writes its
# card beside it, models/hippocampus.json:
#
#   sh scripts/train_hippocampus.sh [FOLDER] [RUN]
#
# FOLDER is Task04_Hippocampus (`u2seg fetch hippocampus`), RUN the folder of the run, which goes on where it was stopped. The
# 20 cases are in every copy of the dataset. It takes about 9 minutes on two cores. Needs python3 for the card.
set -eu
cd "$(dirname "$0")/.."
data=${1:-${U2SEG_DATA:-../shared/data}/Task04_Hippocampus}
run=${2:-runs/hippocampus}
program=${U2SEG:-target/release/u2seg}
held=$(sed 's/#.*//' scripts/train_hippocampus.txt)

if [ -e "$run/config.toml" ]; then
    "$program" train --continue --out "$run"
else
    # small enough to ship: eight channels at the first level, of which separable adapters are the domain's own
    # shellcheck disable=SC2086
    "$program" train --data "$data" --out "$run" --mode universal --adapter separable --base 8 \
        --patch-voxels 40000 --steps 1500 --seed 0 --hold-out $held
fi
cp "$run/model.safetensors" models/hippocampus.safetensors
python3 - "$run" "$data" <<'PYTHON'
import json, pathlib, sys

run, data = map(pathlib.Path, sys.argv[1:])
summary = json.loads((run / "validation/Hippocampus/summary.json").read_text())
labels = json.loads((data / "dataset.json").read_text())["labels"]
names = {str(k): v for k, v in labels.items()} if "0" in labels else {str(v): k for k, v in labels.items()}
cases = [pathlib.Path(case["reference_file"]).name.split(".")[0] for case in summary["metric_per_case"]]
card = {
    "about": "The hippocampus in T1 MR, cropped about it as the Decathlon's images are: anterior and posterior part",
    "modality": "T1 MR, about 35x50x35 voxels of 1 mm",
    "data": f"Medical Segmentation Decathlon, Task04_Hippocampus: {len(list((data / 'labelsTr').glob('[!.]*.nii.gz'))) - len(cases)} cases",
    "licence": "CC-BY-SA-4.0",
    "held_out": {
        "dice": round(summary["foreground_mean"]["Dice"], 4),
        "classes": {names[value]: round(scores["Dice"], 4) for value, scores in summary["mean"].items()},
        "cases": sorted(cases),
    },
}
text = json.dumps(card, indent=2, ensure_ascii=False)
pathlib.Path("models/hippocampus.json").write_text(text + "\n")
print(f"Dice {card['held_out']['dice']} on {len(cases)} cases")
PYTHON
