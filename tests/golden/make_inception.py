#!/usr/bin/env python3
"""Makes inception.safetensors beside it: what tests/spec/inception_spec.lua and resizer_spec.lua compare the engine with.

The network is torchvision's inception_v3 with the four changes that the TensorFlow graph of 2015-12-05 needs, in float64; its
weights follow a rule that the spec follows too, so that no weights file is needed: tensor `name` is uniform in [low, high)
by Philox 4x32-10 with key SEED and stream FNV-1a(name), counted in the engine's layout (KRSC). The resizers are
F.interpolate, Pillow, and a gather after TensorFlow 1's kernel. Needs torch, torchvision, numpy, pillow, safetensors:

    python tests/golden/make_inception.py              # makes the file
    python tests/golden/make_inception.py weights.pth  # writes the rule's weights as a state dict instead (95 MB)
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20151205
torch.set_num_threads(1)


# ------------------------------------------------------------------------------------------------------------ weights
def philox(n, seed, stream):
    """n words: word i % 4 of block i / 4, counter (block, stream, 0, 0)."""
    c = [np.arange((n + 3) // 4, dtype=np.uint64)] + [np.full((n + 3) // 4, v, np.uint64) for v in (stream, 0, 0)]
    k0, k1, low = seed & 0xFFFFFFFF, seed >> 32, np.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, 1).reshape(-1)[:n]


def stream(name):
    h = 0x811C9DC5
    for b in name.encode():
        h = ((h ^ b) * 0x01000193) & 0xFFFFFFFF
    return h | 0x80000000


def bounds(name, shape):
    if name.endswith("conv.weight") or name == "fc.weight":
        b = (6 / np.prod(shape[1:])) ** 0.5
        return -b, b
    return {"bn.weight": (0.5, 1.5), "bn.bias": (-0.5, 0.5), "running_mean": (-0.5, 0.5), "running_var": (0.5, 1.5),
            "fc.bias": (-1, 1)}[next(k for k in ("bn.weight", "bn.bias", "running_mean", "running_var", "fc.bias")
                                     if name.endswith(k))]


def rule(name, shape):
    low, high = np.float32(bounds(name, shape))
    n = int(np.prod(shape))
    unit = (philox(n, SEED, stream(name)) >> np.uint64(8)).astype(np.float64) * 2.0 ** -24
    values = torch.from_numpy((unit * np.float64(np.float32(high - low)) + np.float64(low)).astype(np.float32))
    if len(shape) == 4:  # KRSC -> KCRS
        k, c, r, s = shape
        return values.reshape(k, r, s, c).permute(0, 3, 1, 2).contiguous()
    return values.reshape(shape)


# ------------------------------------------------------------------------------------------------------------ network
def patched():
    net = torchvision.models.inception_v3(weights=None, num_classes=1008, aux_logits=False, transform_input=False,
                                          init_weights=False)
    pool = F.avg_pool2d

    def branches(self, x, pooled):
        """Both kinds of mixed blocks end in branch_pool; torchvision pools inside _forward."""
        saved = F.avg_pool2d
        F.avg_pool2d = lambda t, **k: pooled(t)
        try:
            return type(self)._forward(self, x)
        finally:
            F.avg_pool2d = saved

    def mean(t):
        return pool(t, 3, stride=1, padding=1, count_include_pad=False)

    def largest(t):
        return F.max_pool2d(t, 3, stride=1, padding=1)

    for name, module in net.named_children():
        if name.startswith("Mixed") and hasattr(module, "branch_pool"):
            pooled = largest if name == "Mixed_7c" else mean
            module._forward = (lambda m, p: lambda x: branches(m, x, p))(module, pooled)
    state = net.state_dict()
    for name, t in state.items():
        if not name.endswith("num_batches_tracked"):
            state[name] = rule(name, tuple(t.shape))
    net.load_state_dict(state)
    return net.eval(), state


def features(net, x):
    """x {N,299,299,3} -> features, logits, logits without bias."""
    seen = []
    hook = net.avgpool.register_forward_hook(lambda m, i, o: seen.append(o.flatten(1)))
    with torch.no_grad():
        logits = net(torch.from_numpy(x.astype(np.float64)).permute(0, 3, 1, 2))
    hook.remove()
    return seen[0].numpy(), logits.numpy(), (logits - net.fc.bias).detach().numpy()


# ----------------------------------------------------------------------------------------------------------- resizers
def tf1(images, side):
    """image_resizer_state.h and resize_bilinear_op.cc of TensorFlow 1, align_corners false."""
    def axis(n):
        at = np.arange(side, dtype=np.float32) * np.float32(np.float32(n) / np.float32(side))
        low = at.astype(np.int64)
        return low, np.minimum(low + 1, n - 1), (at - low.astype(np.float32)).astype(np.float64)
    x = images.astype(np.float64)
    (y0, y1, fy), (x0, x1, fx) = axis(x.shape[1]), axis(x.shape[2])
    fy, fx = fy[None, :, None, None], fx[None, None, :, None]
    top = x[:, y0][:, :, x0] * (1 - fx) + x[:, y0][:, :, x1] * fx
    bottom = x[:, y1][:, :, x0] * (1 - fx) + x[:, y1][:, :, x1] * fx
    return (top * (1 - fy) + bottom * fy - 128) / 128


def half_pixel(images, side):
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
    return (2 * x - 1).permute(0, 2, 3, 1).numpy()


def clean(images, side):
    def channel(x):
        return np.asarray(Image.fromarray(x.astype(np.float32), mode="F").resize((side, side), Image.BICUBIC)).clip(0, 255)
    x = np.stack([np.stack([channel(im[:, :, k]) for k in range(3)], -1) for im in images])
    return (x - 128) / 128


RESIZERS = {"tf1": tf1, "torch": half_pixel, "clean": clean}


def main():
    net, state = patched()
    if len(sys.argv) > 1:
        torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, sys.argv[1])
        return
    net.double()
    rng, out = np.random.default_rng(7), {}

    def picture(n, h, w, c):
        """Some structure, some noise."""
        y, x = np.mgrid[0:h, 0:w]
        phase = rng.uniform(0, 6, (n, 1, 1, c))
        wave = np.sin(x[None, :, :, None] * rng.uniform(0.1, 0.9, (n, 1, 1, c)) + phase) + np.cos(y[None, :, :, None] * 0.3 + phase)
        return np.clip(128 + 70 * wave + rng.normal(0, 25, (n, h, w, c)), 0, 255).astype(np.uint8)

    for name, images in {"colour": picture(2, 32, 32, 3), "grey": picture(1, 28, 28, 1)}.items():
        out[f"{name}/images"] = images
        rgb = np.repeat(images, 3, 3) if images.shape[3] == 1 else images
        for kind, resize in RESIZERS.items():
            f, logits, unbiased = features(net, resize(rgb, 299))
            out[f"{name}/{kind}/features"], out[f"{name}/{kind}/logits"] = f, logits
            if name == "grey":
                out[f"{name}/{kind}/unbiased"] = unbiased
    for name, (n, h, w, c, side) in {"larger": (1, 7, 10, 3, 23), "smaller": (2, 90, 61, 3, 19), "same": (1, 12, 12, 3, 12),
                                     "grey": (1, 17, 40, 1, 30), "tiny": (1, 1, 2, 1, 9), "mixed": (1, 8, 80, 3, 25)}.items():
        images = rng.integers(0, 256, (n, h, w, c)).astype(np.uint8)  # noise: bicubic overshoots
        out[f"resize/{name}/images"] = images
        rgb = np.repeat(images, 3, 3) if c == 1 else images
        for kind, resize in RESIZERS.items():
            out[f"resize/{name}/{kind}"] = resize(rgb, side)
    out = {k: np.ascontiguousarray(v if v.dtype == np.uint8 else v.astype(np.float32)) for k, v in out.items()}
    path = os.path.join(HERE, "inception.safetensors")
    save_file(out, path, {"seed": str(SEED)})
    os.chmod(path, 0o644)
    print(f"inception: {len(out)} tensors, {os.path.getsize(path) / 1024:.0f} KiB")


main()
