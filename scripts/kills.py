#!/usr/bin/env python3
"""Kills runs, fills their disk, and checks that nothing is lost: for nights, on Linux.

    python3 scripts/kills.py --kills 200 --full 2 [--kinds two,predict] [--out FOLDER] [--seed N]

Kinds of runs: `two` domains, `held` (whose held-out patches are scored while it trains), `adapt`, `folds` (--fold all), `f16`, `u2net` (its recipe), `predict` over a folder. Each runs to its
end once, undisturbed. Then it is ended --kills times in all by SIGKILL, SIGTERM and SIGINT, at random times and, by the library of
scripts/faults.c, right before the n-th call that makes, writes, flushes or renames a file; some are ended again when they go on. After
each the run goes on to its end, and must leave what the undisturbed one left: the same tensors, masks and scores bit for bit, each step
once in log.jsonl and TensorBoard's files, and no temporary file. --full K fills the disk at every K-th of those calls (0: never):
the program must not end well with a broken file, and the run must go on once there is room.
U2SEG names another program than the checkout's. Needs `cc` and a Vulkan adapter, such as llvmpipe.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = Path(os.environ.get("U2SEG", ROOT / "target" / "release" / "u2seg"))
SHAPE = (18, 22, 20)
SMALL = ["--base", "4", "--patch", "16,16,16", "--batch", "1", "--tune", "off", "--cache", "none"]
STEPS = ["--steps", "18", "--checkpoint-every", "5"]
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


# data


def nifti(path, code, values):
    """A volume of 1 mm voxels, D slowest."""
    d, h, w = SHAPE
    bits = {16: 32, 2: 8}[code]
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, w, h, d, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    struct.pack_into("<2h", header, 252, 0, 1)
    for row in range(3):
        struct.pack_into("<4f", header, 280 + 16 * row, *[float(row == column) for column in range(4)])
    header[344:348] = b"n+1\0"
    packed = struct.pack(f"<{len(values)}{'f' if code == 16 else 'B'}", *values)
    path.write_bytes(gzip.compress(bytes(header) + packed, mtime=0))


def dataset(folder, name, count, level):
    """Bright balls in noise."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    d, h, w = SHAPE
    for index in range(count):
        noise, shift = random.Random(f"{name} {index}"), index % 5 - 2
        places = [(z - d / 2, y - h / 2 + shift, x - w / 2 - shift) for z in range(d) for y in range(h) for x in range(w)]
        label = [int(z * z + y * y + x * x < 36) for z, y, x in places]
        image = [100 + 40 * (noise.random() - 0.5) + level * inside for inside in label]
        nifti(folder / "imagesTr" / f"case_{index:02}.nii.gz", 16, image)
        nifti(folder / "labelsTr" / f"case_{index:02}.nii.gz", 2, label)
    cases = [{part: f"./{part}sTr/case_{index:02}.nii.gz" for part in ("image", "label")} for index in range(count)]
    text = {"name": name, "modality": {"0": "MR"}, "labels": {"0": "background", "1": "ball"}, "training": cases}
    (folder / "dataset.json").write_text(json.dumps(text))


# what a run leaves


def tensors(path):
    """A safetensors file without what tells of time."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header["__metadata__"]
    state = json.loads(metadata.pop("state", "{}"))
    state.pop("seconds", None)
    state.pop("validating", None)
    metadata.pop("checksum")
    return header, state, data[8 + length :]


def logged(run):
    """Steps of log.jsonl with domain, and loss or scores of held-out patches."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["domain"], line["validation"] if "validation" in line else line["loss"]) for line in lines]


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def events(run):
    """Steps of TensorBoard's files, sorted."""
    steps = []
    for file in run.glob("events.out.tfevents.*"):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack("<Q", data[at : at + 8])
            event = data[at + 12 : at + 12 + length]
            assert len(event) == length, f"{file} has a torn record"
            if event[9] == 2 << 3:
                steps.append(varint(event, 10)[0])
            at += 16 + length
    return sorted(steps)


def told(path):
    """What a run says of itself, without times and the command."""
    record = json.loads(path.read_text())
    if "starts" in record:
        return record["starts"][-1]["last_step"]
    return {name: value for name, value in record.items() if name not in ("began", "command")}


def left(out):
    """All that must be the same whatever happened on the way, by the path of its file."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_dir():
            continue
        if name.startswith(".") or "/." in name or path.name in ("lock", "planning", "damaged.safetensors"):
            raise AssertionError(f"{path} is left")
        if path.name.startswith("events.out"):
            found[str(path.parent.relative_to(out) / "events")] = events(path.parent)
        elif path.name == "log.jsonl":
            found[name] = logged(path.parent)
        elif path.name == "last.safetensors":
            found[name] = tensors(path)
        elif path.name == "previous.safetensors":
            tensors(path)
        elif path.name == "summary.json":
            found[name] = path.read_text().replace(str(out), "OUT")
        elif path.name == "config.toml":
            found[name] = [line for line in path.read_text().splitlines() if not line.startswith("cache")]
        elif path.name in ("run.json", "prediction.json"):
            found[name] = told(path)
        elif path.name == "report.html":
            found[name] = path.read_text().rstrip().endswith("</html>")
        elif path.name != "progress.png":
            found[name] = path.read_bytes()
    return found


def differences(one, other):
    names = [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
    return ", ".join(sorted(names))


# runs


class Kind:
    """A kind of run: its command, and the one that goes on."""

    def __init__(self, name, args, again=None):
        self.name, self.args, self.again = name, args, again
        self.expected, self.calls, self.seconds = None, 0, 0.0

    def command(self, out, going_on):
        if self.again is not None:
            return [*self.args, *self.again[: going_on and 1], "-o", str(out)]
        # "planning" is there while not all folds are
        if going_on and next(out.rglob("config.toml"), None) and not next(out.rglob("planning"), None):
            return [self.args[0], "--continue", "--out", str(out)]
        return [*self.args, "--out", str(out)]


class Place:
    """Where runs lie, and the library of faults."""

    def __init__(self, folder):
        self.folder = folder
        self.library = folder / "faults.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self.library, ROOT / "scripts" / "faults.c", "-ldl"], check=True)
        (folder / "tmp").mkdir()
        self.environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "U2SEG_CACHE": str(folder / "cache")}

    def start(self, args, out, fault=None):
        environment = dict(self.environment)
        if fault:
            environment |= {"LD_PRELOAD": str(self.library), "U2SEG_FAULT": fault, "U2SEG_FAULT_UNDER": str(out)}
        return subprocess.Popen([BINARY, *args], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def run(self, args, out, fault=None):
        child = self.start(args, out, fault)
        _, told = child.communicate()
        return child.returncode, told


def kinds(place, chosen):
    data = {name: place.folder / name for name in ("A", "B", "C")}
    for (name, folder), (count, level) in zip(data.items(), [(3, 90), (2, -90), (3, 60)]):
        dataset(folder, name, count, level)
    a, b, c = map(str, data.values())
    model = place.folder / "model"
    code, told = place.run(["train", "--data", a, b, *SMALL, "--steps", "12", "--out", str(model)], model)
    assert code == 0, told
    all_kinds = [
        Kind("two", ["train", "--data", a, b, *SMALL, *STEPS, "--hold-out", "case_02", "--schedule", "loss"]),
        Kind("held", ["train", "--data", a, b, *SMALL, *STEPS, "--hold-out", "1", "--validate-every", "3"]),
        Kind("adapt", ["adapt", "-m", str(model), "--data", c, *SMALL[2:], *STEPS, "--hold-out", "case_00"]),
        Kind("folds", ["train", "--data", a, *SMALL, "--steps", "8", "--checkpoint-every", "3", "--fold", "all"]),
        Kind("f16", ["train", "--data", a, *SMALL, *STEPS, "--precision", "f16"]),
        Kind("u2net", ["train", "--data", a, *SMALL, *STEPS, "--recipe", "u2net", "--preset", "none", "--pools", "2,2,2"]),
        Kind(
            "predict",
            ["predict", "-m", str(model), "-i", f"{c}/imagesTr", "--domain", "A", "--save-probabilities", "--tune", "off"],
            ["--continue"],
        ),
    ]
    return [kind for kind in all_kinds if not chosen or kind.name in chosen]


def measure(place, kind):
    """Runs a kind undisturbed."""
    out, count = place.folder / kind.name / "whole", place.folder / "count"
    start = time.monotonic()
    code, told = place.run(kind.command(out, False), out, f"count:{count}")
    assert code == 0, told
    kind.seconds = time.monotonic() - start
    kind.calls, kind.expected = int(count.read_text()), left(out)
    print(f"{kind.name}: {kind.seconds:.1f} s, {kind.calls} calls that change files", flush=True)


def check_end(kind, code, told, allowed):
    assert code in allowed, f"{kind.name} ended with {code}, not with one of {allowed}:\n{told}"
    assert "panicked" not in told and "internal error" not in told, told


def kill(place, kind, out, chance):
    """Starts or goes on, and ends the program on the way; gives words for it."""
    going_on = out.exists()
    with_signal = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    allowed = [0, -signal.SIGKILL if with_signal == signal.SIGKILL else CODES[with_signal], -with_signal]
    args = kind.command(out, going_on)
    if chance.random() < 0.6:
        call = chance.randint(1, kind.calls)
        name = {signal.SIGKILL: "kill", signal.SIGTERM: "term", signal.SIGINT: "int"}[with_signal]
        code, told = place.run(args, out, f"{name}:{call}")
        check_end(kind, code, told, allowed)
        return f"{name} before call {call} ({code})"
    child = place.start(args, out)
    wait = chance.uniform(0.02, kind.seconds)
    try:
        _, told = child.communicate(timeout=wait)
    except subprocess.TimeoutExpired:
        child.send_signal(with_signal)
        _, told = child.communicate()
    check_end(kind, child.returncode, told, allowed)
    return f"{with_signal.name} after {wait:.2f} s ({child.returncode})"


def finish(place, kind, out, story):
    """Goes on to the end, and compares."""
    code, told = place.run(kind.command(out, True), out)
    assert code == 0, f"{kind.name}, {story}: does not go on:\n{told}"
    other = differences(kind.expected, left(out))
    assert not other, f"{kind.name}, {story}: {other} differ from those of the undisturbed run"
    remains = [path for path in (place.folder / "tmp").iterdir()]
    assert not remains, f"{kind.name}, {story}: {remains} are left"
    shutil.rmtree(out)


def fill(place, kind, call):
    """Fills the disk at a call, then makes room."""
    out, fault = place.folder / kind.name / "full", f"full:{call}"
    code, told = place.run(kind.command(out, False), out, fault)
    assert code in (0, 1), f"{kind.name}, {fault}: ended with {code}:\n{told}"
    assert "panicked" not in told and "internal error" not in told, told
    if code == 0:
        # pages and pictures may be missing and the record of starts may lack its end, which is told: weights, scores and masks are
        # worth more than they, and going on completes them
        found = left(out)
        missing = [name for name in kind.expected if name not in found and name.endswith((".png", ".html"))]
        missing += [name for name in found if Path(name).name == "run.json" and found[name] != kind.expected.get(name)]
        assert not missing or "warn" in told, f"{kind.name}, {fault}: ended well without {missing}, and does not tell"
        other = differences(kind.expected, {**found, **{name: kind.expected[name] for name in missing}})
        assert not other, f"{kind.name}, {fault}: ended well, but {other} differ"
    finish(place, kind, out, fault)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--full", type=int, default=2)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # what a script starts in the background ignores SIGINT, and so would all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="u2seg-kills-", dir=args.out)).resolve()
    place, chance = Place(work), random.Random(args.seed)
    chosen = kinds(place, args.kinds)
    for kind in chosen:
        measure(place, kind)
    done = 0
    while done < args.kills:
        kind = chosen[done % len(chosen)]
        out, story = place.folder / kind.name / "killed", []
        # some are ended again on their way on
        for _ in range(min(args.kills - done, chance.choice([1, 1, 2, 3]))):
            story.append(kill(place, kind, out, chance))
            done += 1
        finish(place, kind, out, "; ".join(story))
        print(f"{done} of {args.kills}: {kind.name}: {'; '.join(story)}: goes on", flush=True)
    filled = 0
    for kind in chosen if args.full else []:
        for call in range(1, kind.calls + 1, args.full):
            fill(place, kind, call)
            filled += 1
        print(f"{kind.name}: the disk was full at {len(range(1, kind.calls + 1, args.full))} calls", flush=True)
    shutil.rmtree(work)
    print(f"{done} kills, {filled} full disks: nothing was lost")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"error: {error}")
