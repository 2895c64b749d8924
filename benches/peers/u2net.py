"""The 3D U²-Net in PyTorch, with the tensor names of the published code, so that state dicts travel both ways.

    net = U2Net.of_model("model.safetensors")                                     # the shape of a model of u2seg
    net.load_state_dict(load_file("model.safetensors"), strict=True)              # and its weights
    net = U2Net("universal", "separable", base=16, domains=[Domain(channels=1, classes=3, pools=(3, 3, 3))])
    logits = net(image, 0)                                                        # N,C,D,H,W of domain 0
"""

import json
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Domain(NamedTuple):
    """A domain: image channels, classes with background, and halvings of D, H, W."""

    channels: int
    classes: int
    pools: tuple

    @property
    def depth(self):
        """Levels of the U."""
        return max(self.pools) + 1

    def stride(self, level):
        """From a level to the next."""
        return tuple(2 if level < pools else 1 for pools in self.pools)


def conv(cin, cout, kernel):
    return nn.Conv3d(cin, cout, kernel)


def same(cin, cout, kernel, groups=1):
    return nn.Conv3d(cin, cout, kernel, padding=kernel // 2, groups=groups)


def norm(channels):
    return nn.InstanceNorm3d(channels, eps=1e-5, affine=True)


def act():
    return nn.LeakyReLU(0.01)


def each(domains, make):
    """A module of each domain under its index, as a ModuleList of all domains would name it."""
    return nn.ModuleDict({str(index): make(domain) for index, domain in domains.items()})


class Adapter(nn.Module):
    """A domain's part of a unit: `conv1` and `op1`, whichever it has."""

    def __init__(self, op1, conv1=None):
        super().__init__()
        if conv1 is not None:
            self.conv1 = conv1
        self.op1 = op1

    def forward(self, x):
        return self.op1(self.conv1(x) if hasattr(self, "conv1") else x)


class Pointwise(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv1 = conv(cin, cout, 1)

    def forward(self, x):
        return self.conv1(x)


class Unit(nn.Module):
    """Channels cin → cout, then the domain's norm. The separable unit always has 3³ kernels."""

    def __init__(self, adapter, domains, cin, cout, kernel=3):
        super().__init__()
        self.adapter = adapter
        if adapter == "separable":
            depthwise = lambda: same(cin, cin, 3, groups=cin)
            self.adapOps = each(domains, lambda _: Adapter(nn.Sequential(norm(cin), act()), depthwise()))
            self.pwise = Pointwise(cin, cout)
        else:
            self.conv = same(cin, cout, kernel)
        if adapter == "series":
            self.adapOps = each(domains, lambda _: Adapter(nn.Sequential(norm(cout), conv(cout, cout, 1))))
        if adapter == "parallel":
            self.adapOps = each(domains, lambda _: Adapter(conv(cin, cout, 1)))
        self.op = each(domains, lambda _: norm(cout))

    def forward(self, x, d):
        if self.adapter == "separable":
            y = self.pwise(self.adapOps[d](x))
        else:
            y = self.conv(x)
        if self.adapter == "series":
            y = y + self.adapOps[d](y)
        if self.adapter == "parallel":
            y = y + self.adapOps[d](x)
        return self.op[d](y)


class Strided(nn.Module):
    """A unit that halves the grid: an ordinary convolution, padded at the end, or a separable one."""

    def __init__(self, separable, domains, cin):
        super().__init__()
        self.separable = separable
        if separable:
            depthwise = lambda: same(cin, cin, 3, groups=cin)
            self.adapOps = each(domains, lambda _: Adapter(nn.Sequential(norm(cin), act()), depthwise()))
            self.pwise = Pointwise(cin, 2 * cin)
        else:
            self.conv = conv(cin, 2 * cin, 3)
        self.op = each(domains, lambda _: norm(2 * cin))

    def forward(self, x, d, stride):
        if self.separable:
            y, weights = self.adapOps[d](x), self.pwise.conv1
        else:
            # Zeros (0, 1) where the stride is 2, (1, 1) where it is 1; F.pad counts from the last axis.
            y, weights = F.pad(x, [p for s in reversed(stride) for p in (2 - s, 1)]), self.conv
        return self.op[d](F.conv3d(y, weights.weight, weights.bias, stride=stride))


class InputTransition(nn.Module):
    def __init__(self, domain, base):
        super().__init__()
        self.op1 = nn.Sequential(same(domain.channels, base, 3), nn.Sequential(norm(base), act()))

    def forward(self, x):
        return self.op1(x)


class DownBlock(nn.Module):
    def __init__(self, unit, domains, channels):
        super().__init__()
        self.op1 = unit(domains, channels, channels)
        self.op2 = unit(domains, channels, channels)

    def forward(self, x, d):
        return F.leaky_relu(self.op2(F.leaky_relu(self.op1(x, d), 0.01), d) + x, 0.01)


class DownSample(nn.Module):
    def __init__(self, separable, domains, channels):
        super().__init__()
        self.op1 = Strided(separable, domains, channels)

    def forward(self, x, d, stride):
        return F.leaky_relu(self.op1(x, d, stride), 0.01)


class UpSample(nn.Module):
    def __init__(self, unit, domains, channels):
        super().__init__()
        self.op = unit(domains, 2 * channels, channels)

    def forward(self, x, d, stride):
        return F.leaky_relu(self.op(F.interpolate(x, scale_factor=stride, mode="nearest"), d), 0.01)


class UpBlock(nn.Module):
    def __init__(self, unit, domains, channels):
        super().__init__()
        self.op1 = unit(domains, 2 * channels, channels)
        self.op2 = unit(domains, channels, channels, 1)

    def forward(self, up, skip, d):
        x = F.leaky_relu(self.op1(torch.cat([up, skip], 1), d), 0.01)
        return F.leaky_relu(self.op2(x, d), 0.01)


class DeepSupervision(nn.Module):
    def __init__(self, domain, channels):
        super().__init__()
        self.op1 = nn.Sequential(conv(channels, domain.classes, 1), nn.Sequential(norm(domain.classes), act()))

    def forward(self, x):
        return self.op1(x)


class U2Net(nn.Module):
    """One network over its domains. `mode` is independent, shared or universal; `adapter` counts in the last."""

    def __init__(self, mode, adapter, base, domains, downsample="full"):
        super().__init__()
        kind = adapter if mode == "universal" else None
        unit = lambda *args: Unit(kind, *args)
        self.domains = [Domain(d.channels, d.classes, tuple(d.pools)) for d in domains]
        every = dict(enumerate(self.domains))
        depth = max(domain.depth for domain in self.domains)
        width = [base << level for level in range(depth)]
        # Domains with fewer halvings leave out the lowest levels.
        at = lambda level: {i: d for i, d in every.items() if level < d.depth}
        below = lambda level: at(level + 1)
        self.in_tr_list = each(every, lambda domain: InputTransition(domain, base))
        self.down_blocks = nn.ModuleList(DownBlock(unit, at(l), width[l]) for l in range(depth))
        upper = range(depth - 1)
        self.down_samps = nn.ModuleList(DownSample(downsample == "separable", below(l), width[l]) for l in upper)
        self.up_samps = nn.ModuleList(UpSample(unit, below(l), width[l]) for l in upper)
        self.up_blocks = nn.ModuleList(UpBlock(unit, below(l), width[l]) for l in upper)
        # From the deepest level up.
        self.deep_levels = [level for level in (2, 1) if level < depth - 1]
        self.dSupers = nn.ModuleList(
            each(below(l), lambda domain, l=l: DeepSupervision(domain, width[l])) for l in self.deep_levels
        )
        self.out_tr_list = each(every, lambda domain: Pointwise(base, domain.classes))
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)

    @classmethod
    def of_model(cls, path):
        """The network that a model of u2seg describes, with random weights."""
        from safetensors import safe_open

        with safe_open(str(path), "pt") as file:
            network = json.loads(file.metadata()["network"])
        domains = [Domain(d["channels"], d["classes"], tuple(d["pools"])) for d in network["domains"]]
        return cls(network["mode"], network["adapter"], network["base"], domains, network.get("downsample", "full"))

    def forward(self, x, d):
        """Logits N,K,D,H,W of an image N,C,D,H,W of domain d."""
        domain, d = self.domains[d], str(d)
        x = self.in_tr_list[d](x)
        skips = []
        for level in range(domain.depth):
            x = self.down_blocks[level](x, d)
            if level + 1 < domain.depth:
                skips.append(x)
                x = self.down_samps[level](x, d, domain.stride(level))
        running = None
        for level in reversed(range(domain.depth - 1)):
            x = self.up_blocks[level](self.up_samps[level](x, d, domain.stride(level)), skips[level], d)
            if level in self.deep_levels:
                y = self.dSupers[self.deep_levels.index(level)][d](x)
                y = y if running is None else y + running
                running = F.interpolate(y, scale_factor=domain.stride(level - 1), mode="nearest")
        y = self.out_tr_list[d](x)
        return y if running is None else y + running
