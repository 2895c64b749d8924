#!/usr/bin/env python3
"""Times the 3D U²-Net in PyTorch on the configurations of `u2seg bench`: same network, loss, batch and patch.

Prints one JSON object a line: configuration, variant (device, eager or compiled, f32 or autocast), the median
milliseconds of a forward pass without gradients and of a training step (cross-entropy, Adam), each synchronised, and the
loss before the first update and before the last. Weights, image and labels are formulas of their index, the same as in
the other peers, so that their losses can be compared.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from u2net import Domain, U2Net

CONFIGURATIONS = {
    # mode, domains, classes, pools, batch, patch, whether training is timed
    "hippo": ("universal", 1, 3, (3, 3, 3), 2, (40, 56, 40), True),
    "hippo-plain": ("independent", 1, 3, (3, 3, 3), 2, (40, 56, 40), True),
    "cube64": ("universal", 1, 2, (4, 4, 4), 2, (64, 64, 64), True),
    "paper": ("universal", 5, 3, (5, 5, 5), 2, (128, 128, 128), True),
    "spleen-infer": ("universal", 1, 2, (4, 5, 5), 1, (96, 160, 128), False),
}


def fixed(shape, scale=1.0):
    """Values in [-1, 1), times a scale, by their index."""
    count = torch.Size(shape).numel()
    return ((torch.arange(count) * 7919 % 1000).float() / 500 - 1).mul(scale).reshape(shape)


def network(mode, domains, classes, pools):
    net = U2Net(mode, "separable", 16, [Domain(1, classes, pools)] * domains)
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            fan_in = module.weight[0].numel()
            module.weight.data = fixed(module.weight.shape, (6 / fan_in) ** 0.5)
    return net


def median_ms(run, repeats, synchronise):
    times = []
    for index in range(repeats + 2):
        start = time.perf_counter()
        run()
        synchronise()
        if index >= 2:
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def measure(name, device, compiled, autocast, repeats):
    mode, domains, classes, pools, batch, patch, train = CONFIGURATIONS[name]
    net = network(mode, domains, classes, pools).to(device)
    image = fixed((batch, 1, *patch)).to(device)
    label = (torch.arange(batch * patch[0] * patch[1] * patch[2]) // 97 % classes).reshape(batch, *patch).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=5e-4)
    forward = torch.compile(net) if compiled else net
    kind = torch.float16 if device == "cuda" else torch.bfloat16
    context = lambda: torch.autocast(device, dtype=kind, enabled=autocast)
    scaler = torch.amp.GradScaler(device, enabled=autocast and device == "cuda")
    synchronise = {"cuda": torch.cuda.synchronize, "mps": getattr(torch, "mps", None) and torch.mps.synchronize}.get(
        device, lambda: None
    )

    def infer():
        with torch.no_grad(), context():
            forward(image, 0)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with context():
            loss = F.cross_entropy(forward(image, 0).float(), label)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    losses = []
    report = {
        "config": name,
        "variant": f"torch {torch.__version__} {device} {'compiled' if compiled else 'eager'} "
        f"{'autocast' if autocast else 'f32'}",
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in net.parameters()),
        "step_ms": median_ms(lambda: losses.append(step()), repeats, synchronise) if train else None,
    }
    net.eval()
    report["forward_ms"] = median_ms(infer, repeats, synchronise)
    if train:
        report |= {"loss": losses[0].item(), "last_loss": losses[-1].item()}
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", nargs="+", choices=CONFIGURATIONS, default=["hippo", "hippo-plain"])
    parser.add_argument("--device", default="auto", help="cpu, cuda (also ROCm), mps")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves PyTorch's choice")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="time torch.compile too")
    parser.add_argument("--autocast", action="store_true", help="time autocast too")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = args.device
    if device == "auto":
        mps = getattr(torch.backends, "mps", None)
        device = "cuda" if torch.cuda.is_available() else "mps" if mps and mps.is_available() else "cpu"
    for name in args.config:
        for compiled in [False, True][: 1 + args.compiled]:
            for autocast in [False, True][: 1 + args.autocast]:
                print(json.dumps(measure(name, device, compiled, autocast, args.repeats)), flush=True)


if __name__ == "__main__":
    main()
