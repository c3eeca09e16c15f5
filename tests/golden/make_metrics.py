#!/usr/bin/env python3
"""Makes metrics.safetensors beside it: features, and the scores that other implementations give them, which
tests/spec/metrics_spec.lua compares sagan.metrics with. Needed only to make the file anew:

    python tests/golden/make_metrics.py      # torch, numpy, scipy, safetensors, pytorch-fid, torch-fidelity, prdc

Every implementation is given the float32 features as float64, so what the spec measures is the engine. Scores are in the
metadata as decimal numbers of full length. Where covariances are singular the field's implementations carry the noise of
square roots of rounding errors; there the exact value is added, tr (S1 S2)^(1/2) as the sum of the singular values of
X1 X2' / sqrt((n1 - 1)(n2 - 1)), X the centred features: no covariance, no root of an eigenvalue.
"""
import os

import numpy as np
import torch
from safetensors.numpy import save_file
from prdc import compute_prdc
from pytorch_fid.fid_score import calculate_frechet_distance
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

HERE = os.path.dirname(os.path.abspath(__file__))
N, D = 400, 64
rng = np.random.default_rng(2024)
MIX = rng.standard_normal((D, D)) * (0.9 ** np.arange(D))[:, None]


def spread(n, d, rank=None):
    """Features with a falling spectrum, of the given rank at most; all of one distribution but for the rank."""
    return (rng.standard_normal((n, rank or d)) @ MIX[:rank or d, :d]).astype(np.float32)


def pairs():
    base = spread(N, D)
    yield "plain", base, (0.8 * spread(N, D) + 0.3).astype(np.float32)
    # as Inception's: not negative, with many values near 0, of different counts
    yield "rectified", np.maximum(spread(N, D), 0), np.maximum(0.7 * spread(300, D) + 0.2, 0).astype(np.float32)
    # means thousands of deviations away from 0: sums of squares would lose the covariance
    yield "shifted", (base[:200] + 4000).astype(np.float32), (0.8 * spread(200, D) + 4001).astype(np.float32)
    yield "low_rank", spread(300, D, 8), (0.9 * spread(300, D, 12)).astype(np.float32)
    yield "few", spread(40, D), spread(30, D)
    yield "collapsed", base[:200], np.repeat(spread(1, D), 50, axis=0)


def exact_frechet(x, y):
    cx, cy = x - x.mean(0), y - y.mean(0)
    root = np.linalg.svd(cx @ cy.T / np.sqrt((len(x) - 1) * (len(y) - 1)), compute_uv=False).sum()
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + cx.var(0, ddof=1).sum() + cy.var(0, ddof=1).sum() - 2 * root


def scores_of(name, x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    sx, sy = (fid_features_to_statistics(t) for t in (tx, ty))
    out = {
        "frechet.exact": exact_frechet(x, y),
        "frechet.pytorch_fid": calculate_frechet_distance(sx["mu"], sx["sigma"], sy["mu"], sy["sigma"]),
        "frechet.torch_fidelity": fid_statistics_to_metric(sx, sy, False)["frechet_inception_distance"],
    }
    for k in (3, 5):
        out.update({f"prdc.{k}.{score}": v for score, v in compute_prdc(x, y, k).items()})
    prc = prc_features_to_metric(ty, tx, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False, verbose=False)
    out.update({f"prc.{score}": prc[score] for score in ("precision", "recall")})
    if name == "shifted" or len(x) != len(y):
        return out  # a kernel of values around 1e20 leaves no digits; subsets of all are of equal size
    options = dict(kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1.0)
    other = dict(options, kid_kernel_poly_degree=2, kid_kernel_poly_gamma=0.05, kid_kernel_poly_coef0=0.5)
    # one subset of everything: no draw is left
    out["kid.all"], out["kid.other"] = kernel_mmd(x, y, **options), kernel_mmd(x, y, **other)
    if name == "plain":
        kid = kid_features_to_metric(tx, ty, kid_subsets=100, kid_subset_size=100, rng_seed=2020, verbose=False, **options)
        out["kid.mean"], out["kid.std"] = kid["kernel_inception_distance_mean"], kid["kernel_inception_distance_std"]
    return out


def main():
    tensors, metadata = {}, {}
    for name, x, y in pairs():
        tensors[f"{name}.x"], tensors[f"{name}.y"] = x, y
        metadata.update({f"{name}.{key}": repr(float(v)) for key, v in scores_of(name, x, y).items()})
    logits = (spread(203, 20) + 3 * rng.standard_normal(20)).astype(np.float32)
    logits[::7] *= 20  # sure predictions: probabilities that are 0 in f32
    tensors["logits"] = logits
    tensors["order"] = np.random.RandomState(2020).permutation(len(logits)).astype(np.int32)  # as torch-fidelity shuffles
    for splits in (1, 10):
        for shuffle in (False, True):
            s = isc_features_to_metric(torch.from_numpy(logits), splits, shuffle, 2020)
            key = f"isc.{splits}.{'shuffled' if shuffle else 'ordered'}"
            metadata[f"{key}.mean"] = repr(s["inception_score_mean"])
            metadata[f"{key}.std"] = repr(s["inception_score_std"])
    path = os.path.join(HERE, "metrics.safetensors")
    save_file({k: np.ascontiguousarray(t) for k, t in tensors.items()}, path, dict(sorted(metadata.items())))
    os.chmod(path, 0o644)
    print(f"metrics: {len(tensors)} tensors, {os.path.getsize(path) / 1024:.0f} KiB")
    for key in sorted(metadata):
        print(f"  {key} = {metadata[key]}")


if __name__ == "__main__":
    main()
