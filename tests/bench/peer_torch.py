#!/usr/bin/env python3
"""The training step of `sagan-lua bench` in PyTorch, tuned, to compare with. Not needed by anything else.

One step: G without gradient, D on real and fake in one pass, hinge, Adam on D; then G, D with frozen weights, hinge, Adam on
G, moving average of G. Spectral norm on both networks (u, v constants, one iteration a pass), conditional batch norm and
projection, attention in the paper's form (C/8, C/8, C; no pooling, no 1/sqrt(d)). Times are medians over --steps steps.

Tuning: layout (contiguous or channels_last) and the form of attention's products are tried and the fastest is kept
(--layout auto, --products auto); fused Adam; flushed denormals. For a fair CPU run also, from outside: one OpenMP pool
(OMP_NUM_THREADS = --threads) and a caching allocator:

    LD_PRELOAD=libtcmalloc_minimal.so.4 OMP_NUM_THREADS=2 python tests/bench/peer_torch.py \
        --res 64 --width 32 --batch 16 --attention 32 --steps 5 --threads 2

On CUDA: bf16 autocast, channels_last, cudnn.benchmark, and torch.compile with --compile.
"""
import argparse
import json
import resource
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

G_CHANNELS = {32: [4, 4, 4, 4], 64: [16, 8, 4, 2, 1], 128: [16, 16, 8, 4, 2, 1], 256: [16, 16, 8, 8, 4, 2, 1]}
D_BLOCKS = {
    32: [(2, True), (2, True), (2, False), (2, False)],
    64: [(1, True), (2, True), (4, True), (8, True), (16, False)],
    128: [(1, True), (2, True), (4, True), (8, True), (16, True), (16, False)],
    256: [(1, True), (2, True), (4, True), (8, True), (8, True), (16, True), (16, False)],
}


class Spectral:
    """Mixin: weight / sigma, sigma by one power iteration from the stored u, which moves on in training mode."""

    def init_spectral(self):
        nn.init.xavier_uniform_(self.weight)
        self.register_buffer("u", F.normalize(torch.randn(self.weight.shape[0]), dim=0))

    def normalised(self):
        m = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(torch.mv(m.t(), self.u), dim=0)
            wv = torch.mv(m, v)
            u = F.normalize(wv, dim=0)
            self.u.copy_(u)
        return self.weight / torch.dot(u, torch.mv(m, v))


class Conv(nn.Conv2d, Spectral):
    def __init__(self, cin, cout, k, bias=True):
        super().__init__(cin, cout, k, padding=k // 2, bias=bias)
        self.init_spectral()

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            w = self.normalised()
        return F.conv2d(x, w, self.bias, padding=self.padding)


class Linear(nn.Linear, Spectral):
    def __init__(self, cin, cout):
        super().__init__(cin, cout)
        self.init_spectral()

    def forward(self, x):
        with torch.autocast(x.device.type, enabled=False):
            w = self.normalised()
        return F.linear(x, w, self.bias)


class Embedding(nn.Embedding, Spectral):
    def __init__(self, classes, features):
        super().__init__(classes, features)
        self.init_spectral()

    def forward(self, labels):
        with torch.autocast(labels.device.type, enabled=False):
            return F.embedding(labels, self.normalised())


class ConditionalNorm(nn.Module):
    def __init__(self, c, classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(c, affine=False)
        self.gain, self.bias = nn.Embedding(classes, c), nn.Embedding(classes, c)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x, labels):
        h = self.norm(x)
        return torch.addcmul(self.bias(labels).to(h.dtype)[:, :, None, None], h, self.gain(labels).to(h.dtype)[:, :, None, None])


class Attention(nn.Module):
    products = "rows"

    def __init__(self, c):
        super().__init__()
        d = max(1, c // 8)
        self.f, self.g, self.h = Conv(c, d, 1, False), Conv(c, d, 1, False), Conv(c, c, 1, False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        n, c, height, width = x.shape
        f, g, h = self.f(x).flatten(2), self.g(x).flatten(2), self.h(x).flatten(2)  # keys, queries, values: {N, C, HW}
        if self.products == "rows":
            beta = torch.softmax(torch.bmm(g.transpose(1, 2), f), -1)
            o = torch.bmm(beta, h.transpose(1, 2)).transpose(1, 2)
        elif self.products == "columns":
            beta = torch.softmax(torch.bmm(f.transpose(1, 2), g), 1)
            o = torch.bmm(h, beta)
        else:  # one fused call; its kernels want equal widths, so f and g are padded with zeros
            pad = (0, h.shape[1] - f.shape[1])
            q, k, v = (t.transpose(1, 2).unsqueeze(1) for t in (g, f, h))
            o = F.scaled_dot_product_attention(F.pad(q, pad), F.pad(k, pad), v.contiguous(), scale=1.0).squeeze(1).transpose(1, 2)
        return torch.addcmul(x, self.gamma.to(x.dtype), o.reshape(n, c, height, width))


class GBlock(nn.Module):
    def __init__(self, cin, cout, classes):
        super().__init__()
        self.n1, self.c1 = ConditionalNorm(cin, classes), Conv(cin, cout, 3)
        self.n2, self.c2 = ConditionalNorm(cout, classes), Conv(cout, cout, 3)
        self.s = Conv(cin, cout, 1)

    def forward(self, x, labels):
        h = self.c1(F.interpolate(F.relu(self.n1(x, labels)), scale_factor=2))
        return self.c2(F.relu(self.n2(h, labels))) + self.s(F.interpolate(x, scale_factor=2))


class DBlock(nn.Module):
    def __init__(self, cin, cout, down, first):
        super().__init__()
        self.c1, self.c2, self.down, self.first = Conv(cin, cout, 3), Conv(cout, cout, 3), down, first
        self.s = Conv(cin, cout, 1) if down or cin != cout else nn.Identity()

    def forward(self, x):
        h = self.c2(F.relu(self.c1(x if self.first else F.relu(x))))
        if not self.down:
            return h + self.s(x)
        return F.avg_pool2d(h, 2) + (self.s(F.avg_pool2d(x, 2)) if self.first else F.avg_pool2d(self.s(x), 2))


class Generator(nn.Module):
    def __init__(self, a):
        super().__init__()
        ch = [c * a.width for c in G_CHANNELS[a.res]]
        self.linear, self.first, self.blocks, self.attention = Linear(128, 16 * ch[0]), ch[0], nn.ModuleList(), nn.ModuleDict()
        for i, (cin, cout) in enumerate(zip(ch, ch[1:])):
            self.blocks.append(GBlock(cin, cout, a.classes))
            if 8 * 2**i in a.attention:
                self.attention[str(i)] = Attention(cout)
        self.norm, self.conv = nn.BatchNorm2d(ch[-1]), Conv(ch[-1], 3, 3)

    def forward(self, z, labels):
        h = self.linear(z).view(-1, self.first, 4, 4)
        for i, block in enumerate(self.blocks):
            h = block(h, labels)
            if str(i) in self.attention:
                h = self.attention[str(i)](h)
        return torch.tanh(self.conv(F.relu(self.norm(h))))


class Discriminator(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.blocks, self.attention, cin, size, wanted = nn.ModuleList(), nn.ModuleDict(), 3, a.res, set(a.attention)
        for i, (c, down) in enumerate(D_BLOCKS[a.res]):
            self.blocks.append(DBlock(cin, c * a.width, down, i == 0))
            cin, size = c * a.width, size // 2 if down else size
            if size in wanted:
                wanted.discard(size)
                self.attention[str(i)] = Attention(cin)
        self.linear, self.embedding = Linear(cin, 1), Embedding(a.classes, cin)

    def forward(self, x, labels):
        h = x
        for i, block in enumerate(self.blocks):
            h = block(h)
            if str(i) in self.attention:
                h = self.attention[str(i)](h)
        h = F.relu(h).sum((2, 3))
        return self.linear(h) + (h * self.embedding(labels)).sum(1, keepdim=True)


class Peer:
    """Networks, optimisers and one training step."""

    def __init__(self, a, layout, products):
        torch.manual_seed(1)
        Attention.products = products
        self.a, self.device = a, torch.device(a.device)
        self.format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        self.G, self.D = (net(a).to(self.device).to(memory_format=self.format) for net in (Generator, Discriminator))
        self.average = [p.detach().clone() for p in self.G.parameters()]
        adam = dict(betas=(0.0, 0.9), eps=1e-8, fused=True)
        self.opt_g = torch.optim.Adam(self.G.parameters(), lr=1e-4, **adam)
        self.opt_d = torch.optim.Adam(self.D.parameters(), lr=4e-4, **adam)
        self.pixels = torch.randint(0, 256, (a.batch, a.res, a.res, 3), dtype=torch.uint8, device=self.device).permute(0, 3, 1, 2)
        self.labels = torch.randint(0, a.classes, (a.batch,), device=self.device)
        self.d_loss, self.g_loss = self.d_forward, self.g_forward
        if a.compile:
            self.d_loss, self.g_loss = torch.compile(self.d_forward), torch.compile(self.g_forward)

    def cast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.a.precision == "bf16")

    def noise(self):
        a = self.a
        return torch.randn(a.batch, 128, device=self.device), torch.randint(0, a.classes, (a.batch,), device=self.device)

    def d_forward(self, z, labels):
        real = (self.pixels.float() * (2 / 255) - 1).contiguous(memory_format=self.format)
        with self.cast():
            with torch.no_grad():
                fake = self.G(z, labels)
            logits = self.D(torch.cat([real.to(fake.dtype), fake]), torch.cat([self.labels, labels])).float()
        return F.relu(1 - logits[: self.a.batch]).mean() + F.relu(1 + logits[self.a.batch:]).mean()

    def g_forward(self, z, labels):
        with self.cast():
            logits = self.D(self.G(z, labels), labels)
        return -logits.float().mean()

    def step(self):
        self.opt_d.zero_grad(set_to_none=True)
        self.d_loss(*self.noise()).backward()
        self.opt_d.step()
        self.D.requires_grad_(False)
        self.opt_g.zero_grad(set_to_none=True)
        self.g_loss(*self.noise()).backward()
        self.D.requires_grad_(True)
        self.opt_g.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.G.parameters()), 0.001)

    def times(self, warm, steps):
        out = []
        for i in range(warm + steps):
            start = time.perf_counter()
            self.step()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            if i >= warm:
                out.append(1e3 * (time.perf_counter() - start))
        return out


def rss_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sizes(text):
    return [] if text == "none" else [int(s) for s in text.split(",")]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--res", type=int, default=64, choices=sorted(G_CHANNELS))
    p.add_argument("--width", type=int, default=32)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--attention", type=sizes, default=[], help="none, or sizes of feature maps: 32 or 16,32")
    p.add_argument("--classes", type=int, default=10)
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--warmup", type=int, default=2)
    p.add_argument("--threads", type=int, default=0, help="0: PyTorch's choice")
    p.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    p.add_argument("--precision", choices=["f32", "tf32", "bf16"], help="f32 on the CPU, bf16 on CUDA")
    p.add_argument("--layout", default="auto", choices=["auto", "contiguous", "channels_last"])
    p.add_argument("--products", default="auto", choices=["auto", "rows", "columns", "fused"], help="form of attention's products")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--json", action="store_true", help="only the JSON line on the standard output")
    a = p.parse_args()
    a.precision = a.precision or ("bf16" if a.device == "cuda" else "f32")
    return a


def choose(a):
    """The fastest pair of layout and products by two steps each. Layout first, then the products under it."""
    on_gpu = a.device == "cuda"
    layouts = [a.layout] if a.layout != "auto" else ["channels_last"] if on_gpu else ["contiguous", "channels_last"]
    products = [a.products] if a.products != "auto" else ["rows", "columns", "fused"] if a.attention else ["rows"]

    def best(pairs):
        if len(pairs) == 1:
            return pairs[0]
        took = {pair: min(Peer(a, *pair).times(1, 2)) for pair in pairs}
        for pair, ms in took.items():
            print(f"  {pair[0]}, {pair[1]}: {ms:.1f} ms", file=sys.stderr)
        return min(took, key=took.get)
    layout = best([(x, products[0]) for x in layouts])[0]
    return best([(layout, x) for x in products])


def main():
    a = arguments()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high" if a.precision != "f32" else "highest")
    torch.backends.cudnn.allow_tf32 = a.precision != "f32"
    before = rss_mib()
    layout, products = choose(a)
    if a.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    times = Peer(a, layout, products).times(a.warmup, a.steps)
    ms = statistics.median(times)
    # The CPU's peak is that of the process, library and trials included: for a memory figure fix --layout and --products.
    peak = torch.cuda.max_memory_allocated() / 2**20 if a.device == "cuda" else rss_mib()
    print(json.dumps({
        "ms_per_step": round(ms, 3), "images_per_s": round(a.batch / ms * 1e3, 3), "peak_mib": round(peak, 1),
        "ms_min": round(min(times), 3), "ms_max": round(max(times), 3),
        "settings": {
            "res": a.res, "width": a.width, "batch": a.batch, "attention": a.attention, "classes": a.classes, "steps": a.steps,
            "threads": torch.get_num_threads(), "device": torch.cuda.get_device_name() if a.device == "cuda" else "cpu",
            "precision": a.precision, "layout": layout, "products": products, "compile": a.compile,
            "torch": torch.__version__, "rss_before_mib": round(before, 1),
        },
    }, indent=None if a.json else 2))


if __name__ == "__main__":
    main()
