#!/usr/bin/env python3
"""Makes state_*.pth beside it: one small state dict as PyTorch writes it in both containers, and zipped with deflate.
tests/c/test_pth.c and tests/spec/pth_spec.lua know its numbers. Needs torch; needed only to make the files anew."""
import collections
import os
import zipfile

import torch

HERE = os.path.dirname(os.path.abspath(__file__))


def state():
    base = torch.arange(24, dtype=torch.float32) / 8 - 1
    d = collections.OrderedDict()
    d["conv.weight"] = base.reshape(2, 3, 2, 2)                   # {K, C, R, S}
    d["shared"] = base[4:10].reshape(2, 3)                        # the same storage, from element 4 on
    d["transposed"] = base[:6].reshape(2, 3).t()                  # {3, 2}, strides {1, 3}
    d["strided"] = base[1:20:3]                                   # {7}, stride 3
    d["permuted"] = base.reshape(2, 3, 2, 2).permute(0, 2, 3, 1)  # {2, 2, 2, 3}
    d["parameter"] = torch.nn.Parameter(torch.tensor([1.5, -2.25]))
    d["half"] = torch.tensor([0.0, -0.0, 1.0, -2.5, 65504.0, 2.0 ** -24, 2.0 ** -14, float("inf"), float("-inf"),
                              float("nan"), 1.0 + 2.0 ** -10], dtype=torch.float16)
    d["bfloat"] = torch.tensor([1.0, -3.0], dtype=torch.bfloat16)
    d["double"] = torch.tensor([[0.1, -1e300]], dtype=torch.float64)
    d["int"] = torch.tensor([-5, 2 ** 31 - 1], dtype=torch.int32)
    d["num_batches_tracked"] = torch.tensor(7)                    # a scalar, int64
    d["bytes"] = torch.tensor([0, 255], dtype=torch.uint8)
    d._metadata = collections.OrderedDict([("", {"version": 1})])
    return d


def path(name):
    return os.path.join(HERE, name)


torch.save(state(), path("state_zip.pth"))
torch.save(state(), path("state_legacy.pth"), _use_new_zipfile_serialization=False)
with zipfile.ZipFile(path("state_zip.pth")) as stored, \
        zipfile.ZipFile(path("state_deflated.pth"), "w", zipfile.ZIP_DEFLATED) as deflated:
    for name in stored.namelist():
        deflated.writestr(zipfile.ZipInfo(name), stored.read(name), zipfile.ZIP_DEFLATED)
