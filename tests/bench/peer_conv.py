#!/usr/bin/env python3
"""The convolutions of bench_conv.c in PyTorch (oneDNN): GFLOP/s of the direct method, by shape and direction, the better
of contiguous and channels_last, medians. Beside them the bare matrix product of im2col by the BLAS that numpy has
(OpenBLAS in its wheels), which an im2col convolution cannot exceed.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python tests/bench/peer_conv.py [threads] [conv:N,H,C,K up:.. pool:..]...
"""
import sys
import time

import numpy
import torch
import torch.nn.functional as F

SHAPES = ["conv:16,64,64,64", "conv:16,32,128,128", "conv:16,16,256,256", "conv:16,4,512,512", "conv:16,64,32,32",
          "conv:16,64,16,16", "conv:16,64,3,64", "conv:16,64,64,3", "up:16,32,64,64", "up:16,16,128,64",
          "up:16,32,16,16", "up:8,4,512,512", "pool:16,64,64,64", "pool:16,64,16,16", "pool:8,8,512,512"]


def seconds(fn):
    fn()
    times, begin = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < 0.4:
        before = time.perf_counter()
        fn()
        times.append(time.perf_counter() - before)
    return sorted(times)[len(times) // 2]


def directions(form, n, h, c, k, layout):
    x = torch.randn(n, c, h, h).contiguous(memory_format=layout).requires_grad_()
    w = (torch.randn(k, c, 3, 3) * 0.1).contiguous(memory_format=layout).requires_grad_()
    b = torch.zeros(k)

    def forward():
        if form == "up":
            return F.conv2d(F.interpolate(x, scale_factor=2), w, b, padding=1)
        y = F.conv2d(x, w, b, padding=1)
        return F.avg_pool2d(y, 2) if form == "pool" else y

    with torch.no_grad():
        times = [seconds(forward)]
    y = forward()
    dy = torch.randn_like(y)
    for wanted in (x, w):
        times.append(seconds(lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)))
    return times


def main():
    words = sys.argv[1:]
    threads = int(words.pop(0)) if words and words[0].isdigit() else 1
    torch.set_num_threads(threads)
    print(f"torch {torch.__version__}, {threads} threads; GFLOP/s of the direct method at the resolution of the 3x3 kernel")
    print(f"{'shape':24} {'fwd':>8} {'bwd_x':>8} {'bwd_w':>8} {'im2col product':>15}")
    for shape in words or SHAPES:
        form, numbers = shape.split(":")
        n, h, c, k = map(int, numbers.split(","))
        side = 2 * h if form == "up" else h
        flop = 2e-9 * 9 * n * side * side * c * k
        layouts = [directions(form, n, h, c, k, m) for m in (torch.contiguous_format, torch.channels_last)]
        rates = [flop / min(pair) for pair in zip(*layouts)]
        a = numpy.random.rand(n * side * side, 9 * c).astype("f")
        b = numpy.random.rand(9 * c, k).astype("f")
        product = flop / seconds(lambda: a @ b)
        print(f"{shape:24} " + " ".join(f"{r:8.1f}" for r in rates) + f" {product:15.1f}", flush=True)


if __name__ == "__main__":
    main()
