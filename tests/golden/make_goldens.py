#!/usr/bin/env python3
"""Makes the .safetensors files beside it, the numbers that tests/spec/golden_spec.lua compares the engine with.

An implementation of its own in PyTorch (NCHW inside), after the papers and the descriptions in engine/ops.def; nothing is
shared with the engine. Everything is computed in float64 from float32 inputs and written as float32, so what the spec
measures is the engine's rounding alone. Files hold our conventions: activations NHWC, conv weights KRSC, spectral norm's v
in the order of the KRSC matrix, parameter names of the networks' state_dict. Needed only to make the files anew:

    python tests/golden/make_goldens.py            # torch, numpy, safetensors; or with names of files: only these

Seeds of the networks are searched for one at which no ReLU, maximum or hinge sits within rounding distance of its kink:
there the gradient jumps, and two right implementations may differ.
"""
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def wanted(name):
    return len(sys.argv) < 2 or name in sys.argv[1:]


def f32(x):
    """float32 values in a float64 tensor: what the engine will read."""
    return torch.tensor(np.asarray(x, dtype=np.float32).astype(np.float64))


def nhwc(x):
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def nchw(x):
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x


def write(name, tensors, metadata):
    out = {}
    for key, t in tensors.items():
        if isinstance(t, torch.Tensor):
            t = t.detach().numpy()
        if t.dtype == np.float64:
            t = t.astype(np.float32)
        elif t.dtype == np.int64:
            t = t.astype(np.int32)
        out[key] = np.ascontiguousarray(t.reshape(1) if t.ndim == 0 else t)
    path = os.path.join(HERE, name + ".safetensors")
    save_file(out, path, {k: str(v) for k, v in sorted(metadata.items())})
    os.chmod(path, 0o644)
    print(f"{name}: {len(out)} tensors, {os.path.getsize(path) / 1024:.0f} KiB")


# ------------------------------------------------------------------------------------------------------- single ops
class Ops:
    """Cases "name/tensor"; the metadata says how to call the op: "op|inputs|attributes|differentiable|written"."""

    def __init__(self, seed):
        self.rng, self.tensors, self.meta = np.random.default_rng(seed), {}, {}

    def normal(self, *shape, scale=1.0):
        return f32(self.rng.standard_normal(shape) * scale)

    def case(self, name, op, inputs, attributes, fn, grads=None, written=()):
        """inputs: {name: tensor} in the engine's layout and order; fn(inputs) -> y, or (y, {written: value})."""
        floats = [k for k, t in inputs.items() if t.dtype == torch.float64]
        grads = [k for k in floats if k not in written] if grads is None else grads
        for k, t in inputs.items():
            self.tensors[f"{name}/{k}"] = t.clone()
        live = {k: t.clone().requires_grad_(k in grads) for k, t in inputs.items()}
        y = fn(live)
        after = {}
        if isinstance(y, tuple):
            y, after = y
        self.tensors[f"{name}/=y"] = y
        for k, t in after.items():
            self.tensors[f"{name}/=after_{k}"] = t
        if grads:
            dy = self.normal(*y.shape) if y.dim() else torch.tensor(1.0)
            for k, g in zip(grads, torch.autograd.grad(y, [live[k] for k in grads], dy, allow_unused=True)):
                self.tensors[f"{name}/=d{k}"] = torch.zeros_like(live[k]) if g is None else g
            self.tensors[f"{name}/=dy"] = dy
        text = " ".join(f"{k}={v}" for k, v in attributes.items())
        self.meta["case." + name] = "|".join([op, " ".join(inputs), text, " ".join(grads), " ".join(after)])


def conv(x, w, b=None, stride=1, pad=(0, 0)):
    return nhwc(F.conv2d(nchw(x), nchw(w), b, stride, pad))  # KRSC -> KCRS is the same permutation


def upconv(t):
    return nhwc(F.conv2d(F.interpolate(nchw(t["x"]), scale_factor=2), nchw(t["w"]), t.get("b"), 1, 1))


def convpool(t):
    return nhwc(F.avg_pool2d(F.conv2d(nchw(t["x"]), nchw(t["w"]), t.get("b"), 1, 1), 2))


def conv_cases(o):
    for name, n, h, w, c, k, r, s, stride, pad, bias in [
        ("1x1", 2, 5, 7, 13, 6, 1, 1, 1, (0, 0), True),
        ("3x3", 2, 9, 7, 5, 12, 3, 3, 1, (1, 1), True),
        ("3x3_wide", 2, 16, 16, 16, 32, 3, 3, 1, (1, 1), True),
        ("3x3_from_rgb", 2, 10, 9, 3, 16, 3, 3, 1, (1, 1), True),
        ("3x3_to_rgb", 2, 10, 9, 16, 3, 3, 3, 1, (1, 1), True),
        ("3x3_stride2_valid", 2, 11, 13, 6, 8, 3, 3, 2, (0, 0), False),
        ("3x3_stride2", 2, 8, 10, 6, 8, 3, 3, 2, (1, 1), True),
        ("4x4_stride2", 2, 8, 10, 7, 9, 4, 4, 2, (1, 1), True),
        ("5x5", 1, 9, 6, 4, 5, 5, 5, 1, (2, 2), False),
        ("1x7", 1, 6, 9, 4, 5, 1, 7, 1, (0, 3), False),
        ("7x1", 1, 9, 6, 4, 5, 7, 1, 1, (3, 0), False),
        ("one_pixel", 3, 1, 1, 8, 4, 3, 3, 1, (1, 1), True),
    ]:
        inputs = {"x": o.normal(n, h, w, c), "w": o.normal(k, r, s, c, scale=(r * s * c) ** -0.5)}
        if bias:
            inputs["b"] = o.normal(k)
        o.case("conv2d_" + name, "conv2d", inputs, dict(stride=stride, pad_h=pad[0], pad_w=pad[1]),
               lambda t: conv(t["x"], t["w"], t.get("b"), stride, pad))

    for name, n, h, w, c, k, bias in [("odd", 2, 5, 7, 3, 5, True), ("wide", 2, 8, 8, 16, 24, True), ("one_pixel", 2, 1, 1, 6, 4, False),
                                      ("one_row", 1, 1, 6, 4, 16, True)]:
        inputs = {"x": o.normal(n, h, w, c), "w": o.normal(k, 3, 3, c, scale=(9 * c) ** -0.5)}
        if bias:
            inputs["b"] = o.normal(k)
        o.case("upconv_" + name, "upconv", inputs, {}, upconv)
        inputs = dict(inputs, x=o.normal(n, 2 * h, 2 * w, c))
        o.case("convpool_" + name, "convpool", inputs, {}, convpool)


def norm_cases(o):
    for name, shape, affine, train, relu, offset, momentum, eps in [
        ("train", (4, 5, 3, 6), True, 1, 0, 0, 0.1, 1e-5), ("train_relu", (4, 5, 3, 6), True, 1, 1, 0, 0.1, 1e-5),
        ("train_plain", (2, 8, 8, 3), False, 1, 0, 0, 0.01, 1e-4), ("train_offset", (3, 4, 4, 7), True, 1, 1, 1, 0.1, 1e-5),
        ("rows", (16, 5), True, 1, 0, 0, 0.1, 1e-5), ("eval", (4, 5, 3, 6), True, 0, 0, 0, 0.1, 1e-5),
        ("eval_relu_offset", (2, 5, 3, 17), True, 0, 1, 1, 0.1, 1e-3),
    ]:
        c = shape[-1]
        inputs = {"x": o.normal(*shape, scale=2) + 0.5}
        inputs["x"] = f32(inputs["x"])
        if affine:
            inputs["gain"], inputs["bias"] = o.normal(c), o.normal(c)
        inputs["running_mean"], inputs["running_var"] = o.normal(c), f32(o.rng.uniform(0.5, 2, c))
        o.case("batch_norm_" + name, "batch_norm", inputs,
               dict(train=train, momentum=momentum, eps=eps, relu=relu, gain_offset=offset),
               lambda t: normalise(t["x"], t.get("gain"), t.get("bias"), t["running_mean"], t["running_var"], train, momentum,
                                   eps, relu, offset), written=("running_mean", "running_var"))
    for name, train, relu, offset in [("train", 1, 0, 0), ("train_relu_offset", 1, 1, 1), ("eval", 0, 0, 0), ("eval_relu", 0, 1, 0)]:
        c, labels = 6, torch.tensor([2, 0, 2, 4, 2])  # one class repeats, two are absent
        inputs = {"x": o.normal(5, 3, 4, c), "gain": o.normal(5, c), "bias": o.normal(5, c), "labels": labels,
                  "running_mean": o.normal(c), "running_var": f32(o.rng.uniform(0.5, 2, c))}

        def conditional(t):
            pick = (labels, None, None)
            return normalise(t["x"], t["gain"][pick], t["bias"][pick], t["running_mean"], t["running_var"], train, 0.1, 1e-5,
                             relu, offset)
        o.case("cond_batch_norm_" + name, "cond_batch_norm", inputs,
               dict(train=train, momentum=0.1, eps=1e-5, relu=relu, gain_offset=offset), conditional,
               grads=["x", "gain", "bias"], written=("running_mean", "running_var"))


def attend(q, k, v, scale=1.0):
    return torch.softmax(scale * q @ k.transpose(1, 2), -1) @ v


def attention_cases(o):
    for name, b, nq, nk, d, e, scale, spread in [
        ("slides", 2, 64, 64, 4, 32, 1, 1), ("pooled", 2, 64, 16, 2, 8, 1, 1), ("ragged", 3, 37, 21, 3, 5, 0.7, 1),
        ("one_channel", 2, 100, 100, 1, 8, 1, 2), ("peaked", 1, 48, 80, 8, 16, 1, 3),
    ]:
        inputs = {"q": o.normal(b, nq, d, scale=spread), "k": o.normal(b, nk, d, scale=spread), "v": o.normal(b, nk, e)}
        o.case("attention_" + name, "attention", inputs, dict(scale=scale), lambda t: attend(t["q"], t["k"], t["v"], scale))
    for name, shape in [("", (5, 13)), ("_long", (2, 3, 1000))]:
        x = o.normal(*shape, scale=4)
        o.case("softmax" + name, "softmax", {"x": x}, {}, lambda t: torch.softmax(t["x"], -1))
        o.case("log_softmax" + name, "log_softmax", {"x": x}, {}, lambda t: torch.log_softmax(t["x"], -1))
    big = f32([[1000, 999, -1000], [-1e4, -1e4, -1e4]])
    o.case("softmax_large", "softmax", {"x": big}, {}, lambda t: torch.softmax(t["x"], -1))
    o.case("log_softmax_large", "log_softmax", {"x": big}, {}, lambda t: torch.log_softmax(t["x"], -1))
    o.case("gated_add", "gated_add", {"x": o.normal(2, 3, 4, 5), "o": o.normal(2, 3, 4, 5), "gamma": f32([0.6])}, {},
           lambda t: t["gamma"] * t["o"] + t["x"])


def power_iteration(w, u, iterations, eps):
    """v = W^T u / |.|, u = W v / |.|, sigma = u^T W v (Miyato et al. 2018, algorithm 1)."""
    v = None
    for _ in range(iterations):
        v = w.t() @ u
        v = v / (v.norm() + eps)
        u = w @ v
        u = u / (u.norm() + eps)
    return u, v, u @ (w @ v)


def spectral_cases(o):
    shapes, rows, at, u_at, v_at = [(8, 27), (1, 16), (20, 5)], [], 3, 0, 0
    for r, c in shapes:  # gaps in the slab
        rows.append([at, r, c, u_at, v_at])
        at, u_at, v_at = at + r * c + 5, u_at + r + 1, v_at + c
    slab, u, v, layers = o.normal(at), o.normal(u_at), o.normal(v_at), torch.tensor(rows)
    for name, iterations, through, eps, update in [("1", 1, 0, 1e-12, 1), ("1_through", 1, 1, 1e-12, 1), ("3_through", 3, 1, 1e-12, 1),
                                                   ("frozen_uv", 1, 0, 1e-12, 0), ("eps", 2, 0, 1e-1, 1), ("300", 300, 0, 1e-12, 1)]:
        def singular(t):
            found, after = [], {"u": u.clone(), "v": v.clone(), "sigma": torch.zeros(3)}
            for i, (a, r, c, ua, va) in enumerate(rows):
                m = t["w"][a:a + r * c].view(r, c)
                if through:
                    _, _, s = power_iteration(m, u[ua:ua + r], iterations, eps)
                else:
                    with torch.no_grad():
                        un, vn, _ = power_iteration(m, u[ua:ua + r], iterations, eps)
                    s = un @ (m @ vn)
                with torch.no_grad():
                    un, vn, _ = power_iteration(m, u[ua:ua + r], iterations, eps)
                found.append(s)
                after["sigma"][i] = s.detach()
                if update:
                    after["u"][ua:ua + r], after["v"][va:va + c] = un, vn
                if iterations == 300:  # many iterations: the largest singular value of a full decomposition
                    assert abs(s.item() / torch.linalg.svdvals(m.detach())[0].item() - 1) < 1e-9
            return torch.stack(found), after
        o.case("spectral_norm_" + name, "spectral_norm", {"w": slab, "u": u, "v": v, "sigma": torch.zeros(3), "layers": layers},
               dict(iterations=iterations, eps=eps, update=update, through=through), singular, grads=["w"])


def loss_cases(o):
    e = float(np.float32(1) - np.float32(2) ** -24)  # the last float below 1
    real = f32([[0.5], [1], [1 + 2 ** -20], [e], [-3], [7], [1], [0.999]])
    fake = f32([[-0.5], [-1], [-1 - 2 ** -20], [-e], [3], [-7], [0], [-1]])
    spread = {"real": o.normal(6, 1, scale=20), "fake": o.normal(6, 1, scale=20)}

    def hinge_d(t):  # at the kink the gradient is 0, as ReLU's at 0
        return F.relu(1 - t["real"]).mean() + F.relu(1 + t["fake"]).mean()
    o.case("hinge_d_kink", "hinge_d", {"real": real, "fake": fake}, {}, hinge_d)
    o.case("hinge_d", "hinge_d", spread, {}, hinge_d)
    o.case("hinge_g", "hinge_g", {"fake": fake}, {}, lambda t: -t["fake"].mean())
    o.case("bce_d", "bce_d", spread, {}, lambda t: F.softplus(-t["real"]).mean() + F.softplus(t["fake"]).mean())
    o.case("bce_g", "bce_g", {"fake": spread["fake"]}, {}, lambda t: F.softplus(-t["fake"]).mean())
    o.case("wasserstein_d", "wasserstein_d", spread, {}, lambda t: t["fake"].mean() - t["real"].mean())
    o.case("wasserstein_g", "wasserstein_g", {"fake": fake}, {}, lambda t: -t["fake"].mean())
    labels = torch.tensor([3, 0, 6, 3, 1])
    o.case("cross_entropy", "cross_entropy", {"logits": o.normal(5, 7, scale=5), "labels": labels}, {},
           lambda t: F.cross_entropy(t["logits"], labels))
    index = torch.tensor([4, 0, 4, 2, 4])
    o.case("embedding", "embedding", {"table": o.normal(6, 9), "index": index}, {}, lambda t: t["table"][index])
    o.case("linear", "linear", {"x": o.normal(5, 19), "w": o.normal(7, 19), "b": o.normal(7)}, {}, lambda t: F.linear(t["x"], t["w"], t["b"]))
    o.case("matmul", "matmul", {"a": o.normal(3, 5, 7), "b": o.normal(3, 4, 7)}, dict(trans_b=1),
           lambda t: t["a"] @ t["b"].transpose(1, 2))
    x = o.normal(40, scale=6)
    for op, fn in [("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("softplus", lambda x: F.softplus(x, threshold=200)),
                   ("relu", torch.relu), ("leaky_relu", lambda x: F.leaky_relu(x, 0.2))]:
        o.case(op, op, {"x": x}, {}, lambda t: fn(t["x"]))


def sigma_cases(o):
    for name, fn in [("conv2d", lambda t: conv(t["x"], t["w"], t.get("b"), 1, (1, 1))), ("upconv", upconv), ("convpool", convpool)]:
        inputs = {"x": o.normal(2, 8, 8, 16), "w": o.normal(24, 3, 3, 16, scale=1 / 12), "b": o.normal(24), "sigma": f32([1.7])}
        o.case(name + "_sigma", name, inputs, dict(stride=1, pad_h=1, pad_w=1) if name == "conv2d" else {},
               lambda t: fn(dict(t, w=t["w"] / t["sigma"])))
    o.case("upsample", "upsample", {"x": o.normal(2, 3, 5, 4)}, {}, lambda t: nhwc(F.interpolate(nchw(t["x"]), scale_factor=2)))
    o.case("mean_pool", "mean_pool", {"x": o.normal(2, 6, 4, 5)}, {}, lambda t: nhwc(F.avg_pool2d(nchw(t["x"]), 2)))
    for include in (0, 1):
        o.case(f"mean_pool_3x3_{include}", "mean_pool", {"x": o.normal(2, 7, 6, 3)}, dict(size=3, stride=1, pad=1, include_pad=include),
               lambda t: nhwc(F.avg_pool2d(nchw(t["x"]), 3, 1, 1, count_include_pad=bool(include))))
    o.case("max_pool", "max_pool", {"x": o.normal(2, 6, 8, 5)}, {}, lambda t: nhwc(F.max_pool2d(nchw(t["x"]), 2)))
    o.case("max_pool_3x3_stride2", "max_pool", {"x": o.normal(2, 9, 7, 3)}, dict(size=3, stride=2),
           lambda t: nhwc(F.max_pool2d(nchw(t["x"]), 3, 2)))
    o.case("global_sum_pool", "global_sum_pool", {"x": o.normal(3, 4, 5, 6)}, {}, lambda t: t["x"].sum((1, 2)))


def normalise(x, gain, bias, mean, var, train, momentum, eps, relu, offset):
    """Over all but the last dimension; gain and bias broadcast against x. Running variance from the unbiased one."""
    after = {}
    if train:
        dims = tuple(range(x.dim() - 1))
        m, v, n = x.mean(dims), x.var(dims, unbiased=False), x.numel() // x.shape[-1]
        if mean is not None:
            after = {"running_mean": mean + momentum * (m.detach() - mean),
                     "running_var": var + momentum * (v.detach() * n / (n - 1) - var)}
    else:
        m, v = mean, var
    y = (x - m) / torch.sqrt(v + eps)
    y = y * (gain + offset) if gain is not None else y
    y = y + bias if bias is not None else y
    return (F.relu(y) if relu else y), after


def adam_cases(o):
    """w, and after each of five steps w with the gradient of that step; torch.optim for the plain form."""
    n = 37
    w0, g = o.normal(n, scale=0.1), o.normal(5, n, scale=0.01)
    g[:, 0] = 0  # never a gradient
    g[1:, 1] = 0  # one, then none
    for name, lr, b1, b2, eps, decay, tf in [("paper", 1e-4, 0, 0.9, 1e-8, 0, 0), ("momentum", 2e-4, 0.5, 0.999, 1e-6, 0, 0),
                                             ("decay", 1e-3, 0.9, 0.99, 1e-8, 0.1, 0), ("tf", 1e-3, 0, 0.999, 1e-4, 0, 1)]:
        lr, b1, b2, eps, decay = (float(np.float32(a)) for a in (lr, b1, b2, eps, decay))
        w, steps = torch.nn.Parameter(w0.clone()), []
        if tf:
            m, v = torch.zeros(n), torch.zeros(n)
            for t in range(1, 6):
                m, v = b1 * m + (1 - b1) * g[t - 1], b2 * v + (1 - b2) * g[t - 1] ** 2
                w.data -= lr * np.sqrt(1 - b2 ** t) / (1 - b1 ** t) * m / (v.sqrt() + eps)
                steps.append(w.data.clone())
        else:
            opt = torch.optim.AdamW([w], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
            for t in range(5):
                w.grad = g[t].clone()
                opt.step()
                steps.append(w.data.clone())
        o.tensors[f"adam_{name}/w"], o.tensors[f"adam_{name}/g"] = w0, g
        o.tensors[f"adam_{name}/=steps"] = torch.stack(steps)
        o.meta["adam." + name] = f"rate={lr!r} beta1={b1!r} beta2={b2!r} eps={eps!r} decay={decay!r} tf={tf}"


def make_ops():
    o = Ops(1)
    for group in (conv_cases, norm_cases, attention_cases, spectral_cases, loss_cases, adam_cases, sigma_cases):
        group(o)
    write("ops", o.tensors, o.meta)


# --------------------------------------------------------------------------------------------------------- networks
class Margin:
    """The least distance of any kink's argument from the kink, relative to the arguments' root mean square."""

    least = 1.0

    @classmethod
    def see(cls, x, distance=None):
        x = x.detach()
        d = x.abs() if distance is None else distance.detach()
        d = d[d > 0]
        if d.numel():
            cls.least = min(cls.least, (d.min() / x.square().mean().sqrt()).item())


def relu(x):
    Margin.see(x)
    return F.relu(x)


def max_pool(x):
    top = F.unfold(x.reshape(-1, 1, *x.shape[2:]), 2, stride=2).topk(2, 1)[0]
    Margin.see(x, top[:, 0] - top[:, 1])
    return F.max_pool2d(x, 2)


class Net(torch.nn.Module):
    """Parameters by our names, stored in the engine's layout, so state and gradients need no conversion."""

    def __init__(self, rng, spectral=True):
        super().__init__()
        self.rng, self.spectral, self.values, self.state, self.norms = rng, spectral, {}, {}, {}

    def add(self, name, shape, kind="weight", spectral=False):
        r = self.rng.standard_normal(shape)
        scale = {"weight": float(np.prod(shape[1:])) ** -0.5, "bias": 0.1, "gain": 0.3}[kind]
        self.values[name] = f32(r * scale + (1 if kind == "gain" else 0)).requires_grad_()
        if spectral and self.spectral:
            rows = shape[0]
            u, v = self.rng.standard_normal(rows), self.rng.standard_normal(int(np.prod(shape[1:])))
            self.state[name + "_u"], self.state[name + "_v"] = f32(u / np.linalg.norm(u)), f32(v / np.linalg.norm(v))
            self.state[name + "_sigma"] = torch.ones(1)

    def add_conv(self, name, cin, cout, r, bias=True):
        self.add(name + ".weight", (cout, r, r, cin), spectral=True)
        if bias:
            self.add(name + ".bias", (cout,), "bias")

    def add_norm(self, name, c, classes=None):
        shape = (classes, c) if classes else (c,)
        self.add(name + ".gain", shape, "gain")
        self.add(name + ".bias", shape, "bias")
        self.state[name + ".running_mean"], self.state[name + ".running_var"] = torch.zeros(c), torch.ones(c)

    def add_attention(self, name, c, form):
        d = max(1, c // 8)
        e = {"slides": c, "pooled": max(1, c // 2), "v2": d}[form]
        for part, a, b in [("f", c, d), ("g", c, d), ("h", c, e)] + ([("v", e, c)] if form != "slides" else []):
            self.add_conv(f"{name}.{part}", a, b, 1, bias=False)
        self.values[name + ".gamma"] = f32([0.7]).requires_grad_()

    def weight(self, name):
        w = self.values[name]
        if name + "_u" not in self.state:
            return w
        m = w.reshape(w.shape[0], -1)
        with torch.no_grad():
            u, v, _ = power_iteration(m, self.state[name + "_u"], 1, 1e-12)
        sigma = u @ (m @ v)
        self.state[name + "_sigma"] = sigma.detach().reshape(1)
        if self.training:
            self.state[name + "_u"], self.state[name + "_v"] = u, v
        return w / sigma

    def conv(self, name, x):
        w = self.weight(name + ".weight")
        return F.conv2d(x, nchw(w), self.values.get(name + ".bias"), 1, w.shape[1] // 2)

    def bn_relu(self, name, x, labels):
        gain, bias = self.values[name + ".gain"], self.values[name + ".bias"]
        if gain.dim() == 2:
            gain, bias = gain[labels][:, None, None], bias[labels][:, None, None]
        mean, var = self.state[name + ".running_mean"], self.state[name + ".running_var"]
        y, after = normalise(nhwc(x), gain, bias, mean, var, self.training, 0.1, 1e-5, False, 0)
        for k, t in after.items():
            self.state[f"{name}.{k}"] = t
        return relu(nchw(y))

    def attention(self, name, x, form):
        """beta_ji = softmax_i f(x_i).g(x_j), o_j = sum_i beta_ji h(x_i), y = gamma o + x."""
        n, c, hh, ww = x.shape
        f, g, h = (self.conv(f"{name}.{p}", x) for p in "fgh")
        if form == "pooled":
            f, h = max_pool(f), max_pool(h)
        f, g, h = f.flatten(2), g.flatten(2), h.flatten(2)
        beta = torch.softmax(torch.einsum("bdi,bdj->bji", f, g), -1)
        o = torch.einsum("bji,bei->bej", beta, h).reshape(n, -1, hh, ww)
        if form != "slides":
            o = self.conv(name + ".v", o)
        return self.values[name + ".gamma"] * o + x

    def everything(self):
        return {**self.values, **self.state}


G_CHANNELS = {32: [4, 4, 4, 4], 64: [16, 8, 4, 2, 1], 128: [16, 16, 8, 4, 2, 1]}
D_BLOCKS = {32: [(2, 1), (2, 1), (2, 0), (2, 0)], 64: [(1, 1), (2, 1), (4, 1), (8, 1), (16, 0)],
            128: [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (16, 0)]}


class Generator(Net):
    def __init__(self, rng, c):
        super().__init__(rng, c["spectral_norm"])
        self.c, ch = c, [k * c["width"] for k in G_CHANNELS[c["resolution"]]]
        self.add("linear.weight", (16 * ch[0], c["z_dim"]), spectral=True)
        self.add("linear.bias", (16 * ch[0],), "bias")
        for i, (a, b) in enumerate(zip(ch, ch[1:]), 1):
            self.add_norm(f"block{i}.bn1", a, c["classes"])
            self.add_conv(f"block{i}.conv1", a, b, 3)
            self.add_norm(f"block{i}.bn2", b, c["classes"])
            self.add_conv(f"block{i}.conv2", b, b, 3)
            self.add_conv(f"block{i}.shortcut", a, b, 1)
            if 4 * 2 ** i in c["attention"]:
                self.add_attention(f"attention{4 * 2 ** i}", b, c["form"])
        self.add_norm("bn", ch[-1])
        self.add_conv("conv", ch[-1], c["channels"], 3)
        self.blocks, self.first = len(ch) - 1, ch[0]

    def forward(self, z, labels):
        h = F.linear(z, self.weight("linear.weight"), self.values["linear.bias"])
        h = nchw(h.reshape(-1, 4, 4, self.first))
        for i in range(1, self.blocks + 1):
            b = f"block{i}"
            r = self.conv(b + ".conv1", F.interpolate(self.bn_relu(b + ".bn1", h, labels), scale_factor=2))
            r = self.conv(b + ".conv2", self.bn_relu(b + ".bn2", r, labels))
            h = r + self.conv(b + ".shortcut", F.interpolate(h, scale_factor=2))
            if 4 * 2 ** i in self.c["attention"]:
                h = self.attention(f"attention{4 * 2 ** i}", h, self.c["form"])
        return nhwc(torch.tanh(self.conv("conv", self.bn_relu("bn", h, None))))


class Discriminator(Net):
    def __init__(self, rng, c):
        super().__init__(rng, c["spectral_norm"])
        self.c, size, a, waiting = c, c["resolution"], c["channels"], set(c["attention_d"])
        self.stages = []
        for i, (k, down) in enumerate(D_BLOCKS[c["resolution"]], 1):
            b = k * c["width"]
            self.add_conv(f"block{i}.conv1", a, b, 3)
            self.add_conv(f"block{i}.conv2", b, b, 3)
            if down or a != b:
                self.add_conv(f"block{i}.shortcut", a, b, 1)
            size //= 2 if down else 1
            here = size in waiting
            waiting.discard(size)
            if here:
                self.add_attention(f"attention{size}", b, c["form"])
            self.stages.append((f"block{i}", down, i == 1, f"attention{size}" if here else None))
            a = b
        self.add("linear.weight", (1, a), spectral=True)
        self.add("linear.bias", (1,), "bias")
        if c["classes"]:
            self.add("embedding.weight", (c["classes"], a), spectral=True)

    def forward(self, x, labels):
        h = nchw(x)
        for name, down, first, attention in self.stages:
            r = self.conv(name + ".conv2", relu(self.conv(name + ".conv1", h if first else relu(h))))
            s = h
            if name + ".shortcut.weight" in self.values:  # block 1 pools first, the others last: the same function
                s = self.conv(name + ".shortcut", F.avg_pool2d(h, 2) if first and down else h)
            if down:
                r, s = F.avg_pool2d(r, 2), s if first else F.avg_pool2d(s, 2)
            h = r + s
            if attention:
                h = self.attention(attention, h, self.c["form"])
        h = relu(h).sum((2, 3))
        logits = F.linear(h, self.weight("linear.weight"), self.values["linear.bias"])
        if self.c["classes"]:
            logits = logits + (h * self.weight("embedding.weight")[labels]).sum(1, keepdim=True)
        return logits


def hinge(real, fake):
    for x in (1 - real, 1 + fake):
        Margin.see(torch.ones(1), x.abs().min().reshape(1))
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def images(rng, n, c):
    r, s = c["resolution"], c["channels"]
    return torch.tensor(rng.integers(0, 256, (n, r, r, s), dtype=np.uint8))


def to_float(pixels):
    return f32(pixels.numpy().astype(np.float32)) * 2 / 255 - 1


def put(out, prefix, tensors):
    out.update({f"{prefix}/{k}": t.detach().clone() for k, t in tensors.items()})


def grads_of(net, loss):
    g = torch.autograd.grad(loss, list(net.values.values()))
    return dict(zip(net.values, g))


def without_noise(grads):
    """What is 0 in exact arithmetic (biases that batch normalisation takes out again) is written as 0."""
    total = sum(g.square().sum() for g in grads.values()).sqrt()
    return {k: torch.zeros_like(g) if g.norm() < 1e-12 * total else g for k, g in grads.items()}


def labels_of(rng, n, c):
    return torch.tensor(rng.integers(0, c["classes"] or 1, n))


def one_pass(c, seed):
    """One D step's and one G step's gradients from the same state, then outputs in evaluation mode."""
    Margin.least, rng, n, out = 1.0, np.random.default_rng(seed), c["batch"], {}
    G, D = Generator(rng, c), Discriminator(rng, c)
    put(out, "G", G.everything())
    put(out, "D", D.everything())
    z, labels, real_labels = f32(rng.standard_normal((n, c["z_dim"]))), labels_of(rng, n, c), labels_of(rng, n, c)
    pixels = images(rng, n, c)
    real = to_float(pixels)
    out.update(z=z, labels=labels, pixels=pixels, real_labels=real_labels)

    fake = G(z, labels)
    logits = D(torch.cat([real, fake.detach()]), torch.cat([real_labels, labels]))
    loss_d = hinge(logits[:n], logits[n:])
    active = ((logits[:n] < 1).double().mean() + (logits[n:] > -1).double().mean()).item() / 2
    put(out, "=dD", without_noise(grads_of(D, loss_d)))
    put(out, "=D", D.state)
    on_fake = D(fake, labels)  # D's u moves on once more
    loss_g = -on_fake.mean()
    put(out, "=dG", without_noise(grads_of(G, loss_g)))
    put(out, "=G", G.state)
    out.update({"=fake": fake, "=logits": logits, "=loss_d": loss_d, "=on_fake": on_fake, "=loss_g": loss_g})
    G.eval(), D.eval()
    fake = G(z, labels)
    out.update({"=fake_eval": fake, "=logits_eval": D(fake, labels)})
    return out, Margin.least, active


def config(**changes):
    c = dict(resolution=32, width=4, channels=3, classes=3, z_dim=16, attention=[16], attention_d=[8], form="slides",
             spectral_norm=True, batch=3)
    c.update(changes)
    return c


def metadata(c, **more):
    return {**{k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in c.items()}, **more}


def make_networks():
    for name, c in {
        "net32_slides": config(width=8, batch=3, attention_d=[16]),
        "net32_pooled": config(form="pooled", attention=[8, 16]),
        "net32_v2": config(form="v2", batch=2),
        "net32_unconditional": config(classes=0, channels=1, attention=[], attention_d=[]),
        "net32_no_spectral_norm": config(spectral_norm=False, batch=4),
        "net64_slides": config(resolution=64, width=3, attention=[32], attention_d=[32], batch=2),
        "net128_pooled": config(resolution=128, width=2, form="pooled", attention=[32], attention_d=[32], batch=2),
        "net128_slides": config(resolution=128, width=1, classes=2, attention=[16, 32], attention_d=[32, 16], batch=2),
    }.items():
        if not wanted(name):
            continue
        best = None
        for seed in range(200):
            out, margin, active = one_pass(c, seed)
            if 0.2 < active < 0.95 and (best is None or margin > best[1]):
                best = (out, margin, seed)
                if margin > 5e-6:
                    break
        out, margin, seed = best
        write(name, out, metadata(c, seed=seed))
        print(f"  seed {seed}, margin {margin:.1e}, loss D {out['=loss_d'].item():.4f}, loss G {out['=loss_g'].item():.4f}")


# -------------------------------------------------------------------------------------------------------- ten steps
def make_training():
    """The seed whose ten steps stay farthest from all kinks: there, rounding would choose the way."""
    best = None
    for seed in range(200):
        done = train(seed)
        if done and (best is None or done[0] > best[0]):
            best = done
    margin, out, meta, losses = best
    write("training", out, meta)
    print(f"  seed {meta['seed']}, margin {margin:.1e}: " + ", ".join(f"{d:.4f} {g:.4f}" for d, g in losses))


def train(seed):
    """Ten iterations: D step on real and fake in one pass (fakes without gradient, G in training mode), then G step with
    fresh z through D, whose weights stand still while its u moves. EMA of all of G: a copy before step 3, then 0.9."""
    steps, decay, start, Margin.least = 10, float(np.float32(0.9)), 3, 1.0
    c, rng, out = config(batch=4, attention_d=[16]), np.random.default_rng(seed), {}
    G, D = Generator(rng, c), Discriminator(rng, c)
    put(out, "G", G.everything())
    put(out, "D", D.everything())
    n = c["batch"]
    betas = (0.0, float(np.float32(0.9)))
    eps = float(np.float32(1e-8))
    opt_g = torch.optim.Adam(G.values.values(), lr=float(np.float32(1e-4)), betas=betas, eps=eps)
    opt_d = torch.optim.Adam(D.values.values(), lr=float(np.float32(4e-4)), betas=betas, eps=eps)
    pixels = images(rng, steps * n, c).reshape(steps, n, 32, 32, 3)
    z_d, z_g = (f32(rng.standard_normal((steps, n, c["z_dim"]))) for _ in range(2))
    real_labels, d_labels, g_labels = (labels_of(rng, steps * n, c).reshape(steps, n) for _ in range(3))
    given = dict(pixels=pixels, z_d=z_d, z_g=z_g, real_labels=real_labels, d_labels=d_labels, g_labels=g_labels)
    out.update({k: t.flatten(0, 1) for k, t in given.items()})  # step after step
    losses, average, noise = [], None, set()
    for t in range(steps):
        with torch.no_grad():
            fake = G(z_d[t], d_labels[t])
        logits = D(torch.cat([to_float(pixels[t]), fake]), torch.cat([real_labels[t], d_labels[t]]))
        if ((logits[:n] < 1).sum() + (logits[n:] > -1).sum()).item() < 2:
            return None  # the hinge leaves D next to nothing to learn from
        loss_d = hinge(logits[:n], logits[n:])
        for p, g in zip(D.values.values(), grads_of(D, loss_d).values()):
            p.grad = g
        opt_d.step()
        loss_g = -D(G(z_g[t], g_labels[t]), g_labels[t]).mean()
        grads = grads_of(G, loss_g)
        noise |= {k for k, g in without_noise(grads).items() if not g.any()}
        for p, g in zip(G.values.values(), grads.values()):
            p.grad = g
        opt_g.step()
        now = {k: v.detach().clone() for k, v in G.everything().items()}
        average = now if t < start else {k: decay * average[k] + (1 - decay) * now[k] for k in now}
        losses.append([loss_d.item(), loss_g.item()])
    put(out, "=G", G.everything())
    put(out, "=D", D.everything())
    put(out, "=average", average)
    out["=losses"] = torch.tensor(losses)
    # Adam turns a gradient that is rounding noise around 0 into steps of full length: nothing to compare there, nor in the
    # running means that contain these biases.
    for k in list(noise):
        block, layer, _ = k.split(".")
        noise.add(f"{block}.bn2.running_mean" if layer == "conv1" else "bn.running_mean")
    meta = metadata(c, noise=" ".join(sorted(noise)), steps=steps, ema_decay=0.9, ema_start=start, lr_g=1e-4, lr_d=4e-4,
                    beta1=0, beta2=0.9, eps=1e-8, seed=seed)
    return Margin.least, out, meta, losses


if __name__ == "__main__":
    if wanted("ops"):
        make_ops()
    make_networks()
    if wanted("training"):
        make_training()
