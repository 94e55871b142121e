"""A layer norm and the product after it, in one kernel and in two: milliseconds and relative errors."""

import json, sys, torch, torch.nn.functional as F, statistics
from sequencer2d.ops import gluon_linear as L
from sequencer2d.ops.gluon_linear import Normed

dev = "cuda"
b = torch.bfloat16


def timed(fn, n=20, reps=7):
    s = torch.cuda.Stream()
    with torch.cuda.stream(s):
        for _ in range(3):
            fn()
    torch.cuda.synchronize()
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        for _ in range(n):
            fn()
    ts = []
    for _ in range(reps):
        a, e = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        g.replay()
        e.record()
        torch.cuda.synchronize()
        ts.append(a.elapsed_time(e) / n)
    return statistics.median(ts)


def ref(x, s, w, bi, gelu):
    y = F.linear(F.layer_norm(x - s, (x.shape[-1],), eps=1e-6), w, bi)
    return F.gelu(y, approximate="tanh") if gelu else y


norm = torch.compile(dynamic=False, fullgraph=True)(
    lambda x, s: F.layer_norm((x.float() - s.float()), (x.shape[-1],), eps=1e-6).to(x.dtype)
)


def base(x, s, w, bi, gelu):
    n = norm(x, s)
    return torch._addmm_activation(bi, n.view(-1, n.shape[-1]), w.t(), use_gelu=True) if gelu else F.linear(n, w, bi)


CASES = [
    (262144, 192, 768, 0),
    (262144, 192, 576, 1),
    (65536, 384, 1536, 0),
    (65536, 384, 1152, 1),
    (16384, 192, 768, 0),
    (16384, 192, 576, 1),
    (4096, 384, 1536, 0),
    (4096, 384, 1152, 1),
    (1024, 192, 768, 0),
    (1024, 192, 576, 1),
    (256, 384, 1536, 0),
    (256, 384, 1152, 1),
]
LA = {
    384: [Normed(128, 128), Normed(64, 128), Normed(64, 64), Normed(64, 64, 2)],
    192: [Normed(128, 128), Normed(128, 64, 2, 128), Normed(64, 128), Normed(64, 128, 2), Normed(64, 64, 2)],
}
for rows, K, N, gelu in CASES:
    torch.manual_seed(0)
    x = torch.randn(rows, K, device=dev).mul_(2).add_(0.3).to(b)
    s = torch.randn(K, device=dev).to(b)
    w = (torch.randn(N, K, device=dev) / K**0.5).to(b)
    bi = torch.randn(N, device=dev).to(b)
    few = slice(0, 4096)
    last = slice(-300, None)
    e1 = ref(x[few].double(), s.double(), w.double(), bi.double(), gelu)
    e2 = ref(x[last].double(), s.double(), w.double(), bi.double(), gelu)
    y = base(x, s, w, bi, gelu)
    err0 = ((y[few].double() - e1).norm() / e1.norm()).item()
    t0 = timed(lambda: base(x, s, w, bi, gelu))
    xn = norm(x, s)
    tg = timed(
        (lambda: torch._addmm_activation(bi, xn, w.t(), use_gelu=True)) if gelu else (lambda: F.linear(xn, w, bi))
    )
    row = {
        "rows": rows,
        "K": K,
        "N": N,
        "gelu": gelu,
        "base_ms": round(t0, 5),
        "product_ms": round(tg, 5),
        "err": round(err0, 5),
        "tflops_base": round(2 * rows * K * N / tg / 1e9),
    }
    print(row, flush=True)
    for la in LA[K]:
        try:
            f = lambda: L.launch_normed_linear(x, s, w, bi, 1e-6, bool(gelu), la)
            y = f()
            y.fill_(float("nan"))
            y = f()
            torch.cuda.synchronize()
            er = max(
                ((y[few].double() - e1).norm() / e1.norm()).item(), ((y[last].double() - e2).norm() / e2.norm()).item()
            )
            same = torch.equal(y, f())
            t = timed(f)
            print(
                "   ",
                la,
                "err",
                round(er, 5),
                "same",
                same,
                "ms",
                round(t, 5),
                "tflops",
                round(2 * rows * K * N / t / 1e9),
                flush=True,
            )
        except Exception as ex:
            print("   ", la, type(ex).__name__, str(ex)[:300], flush=True)
