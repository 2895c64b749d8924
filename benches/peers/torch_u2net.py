#!/usr/bin/env python3
"""Times the 3D U²-Net in PyTorch on the configurations of `u2seg bench`: same network, loss, batch and patch.

Prints one JSON object a line: configuration, variant (device, eager or compiled, f32 or autocast), the median
milliseconds of a forward pass without gradients and of a training step (cross-entropy, Adam), each synchronised.
"""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

CONFIGURATIONS = {
    # mode, domains, classes, pools, batch, patch, whether training is timed
    "hippo": ("universal", 1, 3, (3, 3, 3), 2, (40, 56, 40), True),
    "hippo-plain": ("plain", 1, 3, (3, 3, 3), 2, (40, 56, 40), True),
    "cube64": ("universal", 1, 2, (4, 4, 4), 2, (64, 64, 64), True),
    "paper": ("universal", 5, 3, (5, 5, 5), 2, (128, 128, 128), True),
    "spleen-infer": ("universal", 1, 2, (4, 5, 5), 1, (96, 160, 128), False),
}
BASE = 16


def act(x):
    return F.leaky_relu(x, 0.01)


def norms(domains, channels):
    return nn.ModuleList(nn.InstanceNorm3d(channels, affine=True) for _ in range(domains))


class Unit(nn.Module):
    """A convolution of the mode, then the domain's instance norm."""

    def __init__(self, mode, domains, cin, cout, kernel=3):
        super().__init__()
        self.universal = mode == "universal"
        if self.universal:
            self.depthwise = nn.ModuleList(nn.Conv3d(cin, cin, 3, padding=1, groups=cin) for _ in range(domains))
            self.inner = norms(domains, cin)
            self.conv = nn.Conv3d(cin, cout, 1)
        else:
            self.conv = nn.Conv3d(cin, cout, kernel, padding=kernel // 2)
        self.norm = norms(domains, cout)

    def forward(self, x, d):
        if self.universal:
            x = act(self.inner[d](self.depthwise[d](x)))
        return self.norm[d](self.conv(x))


class Down(nn.Module):
    def __init__(self, domains, cin, stride):
        super().__init__()
        self.conv = nn.Conv3d(cin, 2 * cin, 3, stride=stride)
        self.norm = norms(domains, 2 * cin)
        # zeros (0, 1) where the stride is 2, (1, 1) where it is 1; F.pad counts from the last axis
        self.pad = [p for s in reversed(stride) for p in ((0, 1) if s == 2 else (1, 1))]

    def forward(self, x, d):
        return act(self.norm[d](self.conv(F.pad(x, self.pad))))


class U2Net(nn.Module):
    def __init__(self, mode, domains, classes, pools):
        super().__init__()
        depth = max(pools) + 1
        width = [BASE << level for level in range(depth)]
        self.strides = [tuple(2 if level < p else 1 for p in pools) for level in range(depth - 1)]
        unit = lambda *args: Unit(mode, domains, *args)
        self.first = nn.ModuleList(nn.Conv3d(1, BASE, 3, padding=1) for _ in range(domains))
        self.first_norm = norms(domains, BASE)
        self.down = nn.ModuleList(nn.ModuleList([unit(c, c), unit(c, c)]) for c in width)
        self.shrink = nn.ModuleList(Down(domains, c, s) for c, s in zip(width, self.strides))
        self.grow = nn.ModuleList(unit(2 * c, c) for c in width[:-1])
        self.up = nn.ModuleList(nn.ModuleList([unit(2 * c, c), unit(c, c, 1)]) for c in width[:-1])
        deep = [level for level in (2, 1) if level < depth - 1]
        self.deep = nn.ModuleDict(
            {str(l): nn.ModuleList(nn.Conv3d(width[l], classes, 1) for _ in range(domains)) for l in deep}
        )
        self.deep_norm = nn.ModuleDict({str(l): norms(domains, classes) for l in deep})
        self.last = nn.ModuleList(nn.Conv3d(BASE, classes, 1) for _ in range(domains))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x, d):
        x = act(self.first_norm[d](self.first[d](x)))
        skips = []
        for level, (one, two) in enumerate(self.down):
            x = act(two(act(one(x, d)), d) + x)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x, d)
        running = None
        for level in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=self.strides[level], mode="nearest")
            x = torch.cat([act(self.grow[level](x, d)), skips[level]], 1)
            one, two = self.up[level]
            x = act(two(act(one(x, d)), d))
            if str(level) in self.deep:
                y = act(self.deep_norm[str(level)][d](self.deep[str(level)][d](x)))
                y = y if running is None else y + running
                running = F.interpolate(y, scale_factor=self.strides[level - 1], mode="nearest")
        y = self.last[d](x)
        return y if running is None else y + running


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
    torch.manual_seed(0)
    net = U2Net(mode, domains, classes, pools).to(device)
    image = torch.randn(batch, 1, *patch, device=device)
    label = torch.randint(classes, (batch, *patch), device=device)
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

    report = {
        "config": name,
        "variant": f"torch {torch.__version__} {device} {'compiled' if compiled else 'eager'} "
        f"{'autocast' if autocast else 'f32'}",
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in net.parameters()),
        "step_ms": median_ms(step, repeats, synchronise) if train else None,
    }
    net.eval()
    report["forward_ms"] = median_ms(infer, repeats, synchronise)
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
