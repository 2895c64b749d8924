#!/usr/bin/env python3
"""Lets a training of two domains run for long, with predictions and evaluations beside it, kills and lost devices at random.

    sh scripts/soak.sh [--minutes 60] [--quiet-share 0.4] [--out FOLDER] [--seed N]

For a share of the time the training runs undisturbed, and its memory and open files must stay as they are once it is under way. For
the rest it is ended by SIGKILL, SIGTERM or SIGINT, or loses its device at a random call, and goes on each time. Predictions over a
folder are ended at random, too, go on, and must give the masks that the first one gave; `evaluate` scores them. In the end
log.jsonl and TensorBoard's files must have each step once, all weights are finite, and no temporary file is left.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import kills

CODES = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
# growth that is noise: of the measured memory, and MiB
GROWTH, NOISE = 1.05, 8.0


def memory(process):
    """MiB in memory and open files of a process; none where it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        return resident / 1024, len(list(Path(f"/proc/{process}/fd").iterdir()))
    except (OSError, StopIteration):
        return None


class Soak:
    def __init__(self, place, minutes, chance):
        self.place, self.chance = place, chance
        self.end = time.monotonic() + 60 * minutes
        self.counts = {"kills": 0, "lost devices": 0, "predictions": 0, "evaluations": 0}
        self.failure = None
        self.data = {name: place.folder / name for name in ("A", "B")}
        for (name, folder), level in zip(self.data.items(), (90, -90)):
            kills.dataset(folder, name, 6, level)
        self.run = place.folder / "run"

    def left(self):
        return self.end - time.monotonic()

    def check(self, held, words):
        if not held:
            raise AssertionError(words)

    def start(self, args, out, lost_at=None):
        self.place.environment.pop("U2SEG_FAULTS", None)
        environment = {**self.place.environment, **({"U2SEG_FAULTS": f"loss@{lost_at}"} if lost_at else {})}
        return subprocess.Popen(
            [kills.BINARY, *args], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def train(self, lost_at=None):
        data = [str(folder) for folder in self.data.values()]
        new = ["train", "--data", *data, *kills.SMALL, "--steps", "10000000", "--checkpoint-every", "25", "--out", str(self.run)]
        going_on = (self.run / "config.toml").exists()
        return self.start(["train", "--continue", "--out", str(self.run)] if going_on else new, self.run, lost_at)

    def ended(self, child, allowed, words):
        _, told = child.communicate(timeout=120)
        self.check(child.returncode in allowed, f"{words} ended with {child.returncode}, not with one of {allowed}:\n{told}")
        self.check("panicked" not in told and "internal error" not in told, told)
        return told

    def undisturbed(self, seconds):
        """A training whose memory is read every second."""
        child, readings = self.train(), []
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.failure is None:
            time.sleep(1)
            self.check(child.poll() is None, f"the training ended by itself: {child.returncode}")
            readings.append(memory(child.pid))
        child.send_signal(signal.SIGTERM)
        self.ended(child, [143], "the undisturbed training")
        # once all programs have run
        readings = [reading for reading in readings if reading][len(readings) // 4 :]
        quarter = max(1, len(readings) // 4)
        mean = lambda part, at: sum(reading[at] for reading in part) / len(part)
        (first, files), (last, more) = [[mean(p, at) for at in (0, 1)] for p in (readings[:quarter], readings[-quarter:])]
        print(f"undisturbed for {seconds:.0f} s: {first:.1f} MiB at first, {last:.1f} MiB in the end; {files:.0f} and {more:.0f} files")
        self.check(last <= max(first * GROWTH, first + NOISE), f"memory grew from {first:.1f} to {last:.1f} MiB")
        self.check(more <= files + 2, f"open files grew from {files:.0f} to {more:.0f}")

    def disturbed(self):
        """Trainings that are ended, or lose their device, and go on."""
        peak = 0.0
        while self.left() > 20 and self.failure is None:
            lost_at = self.chance.randint(1, 4000) if self.chance.random() < 0.4 else None
            child, end = self.train(lost_at), time.monotonic() + min(self.chance.uniform(1, 60), self.left())
            while time.monotonic() < end and child.poll() is None:
                peak = max(peak, (memory(child.pid) or (0.0, 0))[0])
                time.sleep(0.25)
            if child.poll() is not None:
                raise AssertionError(f"the training ended by itself: {child.returncode}: {child.stderr.read()}")
            how = self.chance.choice(list(CODES))
            child.send_signal(how)
            # before its handlers are there a signal ends it as any program
            told = self.ended(child, [CODES[how], -how], "a training")
            self.counts["kills"] += 1
            self.counts["lost devices"] += told.count("the training goes on from step")
        print(f"disturbed: at most {peak:.1f} MiB")

    def predict(self, model):
        """Predictions over a folder, ended at random, and their scores."""
        expected = None
        images, labels = [str(self.data["A"] / part) for part in ("imagesTr", "labelsTr")]
        while self.left() > 20 and self.failure is None:
            out = self.place.folder / "masks"
            args = ["predict", "-m", str(model), "-i", images, "--domain", "A", "--tune", "off", "-o", str(out)]
            if expected is not None and self.chance.random() < 0.5:
                child = self.start(args, out)
                how = self.chance.choice(list(CODES))
                time.sleep(self.chance.uniform(0.05, 3))
                child.send_signal(how)
                self.ended(child, [0, CODES[how], -how], "a prediction")
                self.counts["kills"] += 1
                args.append("--continue")
            lost_at = self.chance.randint(1, 400) if expected is not None and self.chance.random() < 0.3 else None
            self.ended(self.start(args, out, lost_at), [0], "a prediction")
            masks = {path.name: path.read_bytes() for path in sorted(out.iterdir())}
            expected = expected or masks
            self.check(masks == expected, f"masks differ from those of the first prediction: {sorted(masks)}")
            self.counts["predictions"] += 1
            scores = self.place.folder / "scores.json"
            told = ["evaluate", "-p", str(out), "-g", labels, "-o", str(scores)]
            self.ended(self.start(told, scores), [0], "an evaluation")
            json.loads(scores.read_text())
            self.counts["evaluations"] += 1
            shutil.rmtree(out)

    def beside(self, work, *args):
        def guarded():
            try:
                work(*args)
            except Exception as error:  # told at the end, whatever it is
                self.failure = self.failure or error

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    def whole(self):
        """What the training leaves."""
        found = kills.left(self.run)
        steps = [step for step, _, _ in found["log.jsonl"]]
        self.check(steps == sorted(set(steps)), "log.jsonl has a step twice")
        events = set(found["events"])
        self.check(events == set(steps), "TensorBoard's files have other steps than log.jsonl")
        _, state, _ = found["last.safetensors"]
        print(f"{state['steps'] if 'steps' in state else max(steps)} steps")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--quiet-share", type=float, default=0.4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # what a script starts in the background ignores SIGINT, and so would all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    work = Path(tempfile.mkdtemp(prefix="u2seg-soak-", dir=args.out)).resolve()
    soak = Soak(kills.Place(work), args.minutes, random.Random(args.seed))
    model = work / "model"
    first = ["train", "--data", str(soak.data["A"]), *kills.SMALL, "--steps", "60", "--out", str(model)]
    soak.ended(soak.start(first, model), [0], "the first training")
    beside = soak.beside(soak.predict, model / "model.safetensors")
    try:
        soak.undisturbed(60 * args.minutes * args.quiet_share)
        soak.disturbed()
    except BaseException as error:
        soak.failure = soak.failure or error
    beside.join()
    if soak.failure:
        sys.exit(f"error: {soak.failure}\n{work} is left")
    soak.whole()
    print(", ".join(f"{count} {name}" for name, count in soak.counts.items()) + ": nothing was lost")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
