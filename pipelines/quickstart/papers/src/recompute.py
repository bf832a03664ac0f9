"""Recompute the numbers printed in the three notes (Python 3.10+, numpy, scipy; two or three minutes).

usage: python3 recompute.py [regime | execution | factor]
"""
import csv
import itertools
import math
import pathlib
import sys

import numpy as np
from scipy.stats import kurtosis, norm, skew

BARS = pathlib.Path(__file__).resolve().parents[2] / "data" / "nasdaq.csv"
YEAR = math.sqrt(252)


def closes():
    with open(BARS, newline="") as f:
        rows = list(csv.DictReader(f))
    return np.array([r["date"] for r in rows]), np.array([float(r["close"]) for r in rows])


def sharpe(r):
    return r.mean() / r.std(ddof=1)


# --- regime-detection -------------------------------------------------------------------------------------------


def forward_backward(x, pi, P, mu, sd):
    """Log-likelihood, filtered and smoothed probabilities, expected transitions."""
    f = np.exp(-0.5 * ((x[:, None] - mu) / sd) ** 2) / sd / math.sqrt(2 * math.pi) + 1e-300
    filtered, scale = np.empty_like(f), np.empty(len(x))
    p = pi
    for t in range(len(x)):
        p = p * f[t]
        scale[t] = p.sum()
        p = p / scale[t]
        filtered[t] = p
        p = p @ P
    back = np.ones_like(f)
    for t in range(len(x) - 2, -1, -1):
        back[t] = P @ (f[t + 1] * back[t + 1]) / scale[t + 1]
    smoothed = filtered * back
    smoothed /= smoothed.sum(1, keepdims=True)
    pairs = P * (filtered[:-1].T @ (f[1:] * back[1:] / scale[1:, None]))
    return np.log(scale).sum(), filtered, smoothed, pairs


def fit(x, states, seed, sticky, iterations=400):
    rng = np.random.default_rng(seed)
    mu = rng.choice(x, states)
    sd = x.std() * np.exp(rng.normal(0, 0.7, states))
    P, pi, last = rng.dirichlet(np.ones(states), states), np.ones(states) / states, -math.inf
    for i in range(iterations):
        ll, _, smoothed, pairs = forward_backward(x, pi, P, mu, sd)
        objective = ll + sticky * np.log(np.diag(P) + 1e-300).sum()
        if i > 20 and abs(objective - last) < 1e-7 * abs(objective):
            break
        last = objective
        pi, pairs = smoothed[0], pairs + sticky * np.eye(states)
        P = pairs / pairs.sum(1, keepdims=True)
        weight = smoothed.sum(0) + 1e-12
        mu = (smoothed * x[:, None]).sum(0) / weight
        sd = np.maximum(np.sqrt((smoothed * (x[:, None] - mu) ** 2).sum(0) / weight), 0.05)
    o = np.argsort(sd)
    return ll, pi[o], P[np.ix_(o, o)], mu[o], sd[o], smoothed[:, o].mean(0)


def regime():
    dates, close = closes()
    dates, r = dates[1:], np.diff(np.log(close)) * 100
    cut = int((dates < "2013-01-01").sum())
    print(f"{len(r)} returns, {cut} in the training span")
    for states, sticky in ((2, 0), (2, 50), (3, 0), (3, 50)):
        fits = [fit(r[:cut], states, seed, sticky) for seed in range(20)]
        lasting = [m for m in fits if np.diag(m[2]).min() >= 0.5]
        print(f"\nK={states} a={sticky}: {len(fits) - len(lasting)} of {len(fits)} restarts degenerate")
        print("  log-likelihoods", np.sort([round(m[0], 1) for m in fits]))
        for m in [m for m in fits if np.diag(m[2]).min() < 0.5][:3]:
            print("  degenerate: mean", m[3].round(2), "sd", m[4].round(2), "P_ii", np.diag(m[2]).round(2), "share", m[5].round(3))
        ll, pi, P, mu, sd, share = max(lasting, key=lambda m: m[0])
        print("  best", round(ll, 3), "mean", mu.round(2), "vol", (sd * YEAR).round(1), "P_ii", np.diag(P).round(3),
              "duration", (1 / (1 - np.diag(P))).round(), "share", share.round(2))
        _, filtered, smoothed, _ = forward_backward(r, pi, P, mu, sd)
        differ = filtered.argmax(1) != smoothed.argmax(1)
        print("  argmax differs: train %.3f, test %.3f, all %.3f" % (differ[:cut].mean(), differ[cut:].mean(), differ.mean()))
        if (states, sticky) != (2, 0):
            continue
        print("  buy and hold %.2f %.2f" % (sharpe(r[cut:]) * YEAR, sharpe(r) * YEAR))
        for name, p in (("filtered", filtered[:, 1]), ("smoothed", smoothed[:, 1])):
            held = (p < 0.5) * 1.0
            print(f"  {name}: {int(np.abs(np.diff(held)).sum())} switches")
            print("    next day %.2f %.2f" % (sharpe((held[:-1] * r[1:])[cut:]) * YEAR, sharpe(held[:-1] * r[1:]) * YEAR))
            print("    same day %.2f %.2f" % (sharpe((held * r)[cut:]) * YEAR, sharpe(held * r) * YEAR))
        high = filtered[:, 1] > 0.5
        entries = np.where(np.diff((smoothed[:, 1] > 0.5) * 1) == 1)[0] + 1
        print("  median lag of the filter at an entry", np.median([np.argmax(high[e:]) for e in entries]))
        day = list(dates).index("2018-02-05")
        print("  2018-02-05: return %.2f, filtered %.2f, smoothed %.2f" % (r[day], filtered[day, 1], smoothed[day, 1]))


# --- mev-aware-execution ----------------------------------------------------------------------------------------


def execution():
    A, k, H, half, maker, taker, oc, c = 0.20, 0.08, 30, 1.75, 0.5, 1.5, 12, 0.25
    sigma = 1e4 * 0.28 / math.sqrt(252 * 13)
    rows = [("market", -half - taker + 2)]
    for delta, adverse in ((5, 3), (10, 6), (10, 12), (25, 14), (50, 30)):
        p = 1 - math.exp(-A * math.exp(-k * delta) * H)
        rows.append((f"limit {delta}, AS {adverse}, P_fill {p:.2f}", p * (half + delta - maker - adverse) - (1 - p) * oc))
    for name, R in rows:
        print(f"{name}: R {R:.2f}, reward {0.5 + 0.5 * math.tanh(R / (c * sigma)):.2f}")
    for risk in (1e-7, 1e-6, 2e-6):
        kappa = math.acosh(1 + risk * 0.95**2 / (2.5e-6 * (1 - 2.5e-7 / 5e-6)) / 2)
        print(f"risk {risk}: kappa {kappa:.3f}", [round(1000 * math.sinh(kappa * (5 - j)) / math.sinh(5 * kappa)) for j in range(6)])

    def swap(have, want, pay):
        out = want * 0.997 * pay / (have + 0.997 * pay)
        return out, have + pay, want - out

    def sandwich(front):
        got, y, x = swap(2e6, 1000.0, front)
        victim, y, x = swap(y, x, 20_000)
        back, _, _ = swap(x, y, got)
        return victim, back - front

    alone = sandwich(0)[0]
    print(f"alone {alone:.3f} at {20_000 / alone:.0f}; front 50,000: {sandwich(5e4)[0]:.3f}, "
          f"price {1e4 * (alone / sandwich(5e4)[0] - 1):.0f} bps higher, profit {sandwich(5e4)[1]:.0f}")
    for tolerance in (10, 50, 100, 200):
        low, high = 0.0, 1e6
        for _ in range(80):
            mid = (low + high) / 2
            low, high = (mid, high) if sandwich(mid)[0] >= alone * (1 - tolerance / 1e4) else (low, mid)
        print(f"tolerance {tolerance}: outlay {low:.0f}, profit {sandwich(low)[1]:.0f}")


# --- factor-diagnostics -----------------------------------------------------------------------------------------


def expected_max(n):
    return (1 - np.euler_gamma) * norm.ppf(1 - 1 / n) + np.euler_gamma * norm.ppf(1 - 1 / (n * math.e))


def shape(sr, g3, g4):
    return 1 - g3 * sr + (g4 - 1) / 4 * sr**2


def psr(sr, benchmark, n, g3, g4):
    return norm.cdf((sr - benchmark) * math.sqrt(n - 1) / math.sqrt(shape(sr, g3, g4)))


def lo(rho, q=252):
    return q / math.sqrt(q + 2 * sum((q - k) * p for k, p in enumerate(rho, 1)))


def pbo(M, blocks):
    size = M.shape[1] // blocks
    B = M[:, : size * blocks].reshape(len(M), blocks, size)
    s1, s2, n = B.sum(2), (B**2).sum(2), size * blocks // 2

    def sr(chosen):
        a, b = s1[:, chosen].sum(1), s2[:, chosen].sum(1)
        return a / n / np.sqrt((b - a * a / n) / (n - 1))

    bad = total = 0
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        out = sr([j for j in range(blocks) if j not in chosen])
        rank = (out.argsort().argsort()[sr(list(chosen)).argmax()] + 1) / (len(M) + 1)
        bad, total = bad + (rank <= 0.5), total + 1
    return bad / total, total


def leak(seed, split, h=20, n=1500, k=5, embargo=15):
    rng = np.random.default_rng(seed)
    e = rng.normal(size=n + h)
    y = np.array([e[i + 1 : i + 1 + h].sum() for i in range(n)])
    x = np.cumsum(rng.normal(size=(n, 3)), 0)
    order = rng.permutation(n) if split == "shuffled" else np.arange(n)
    hits, corrs = [], []
    for fold in np.array_split(order, 5):
        keep = np.ones(n, bool)
        keep[fold] = False
        if split == "purged":
            keep[max(0, fold.min() - h) : fold.max() + h + 1 + embargo] = False
        distance = ((x[fold][:, None] - x[keep][None]) ** 2).sum(2)
        p = y[keep][np.argpartition(distance, k, axis=1)[:, :k]].mean(1)
        hits.append((np.sign(p) == np.sign(y[fold])).mean())
        corrs.append(np.corrcoef(p, y[fold])[0, 1])
    return np.mean(hits), np.mean(corrs)


def factor():
    benchmark = math.sqrt(0.5 / 250) * expected_max(100)
    print(f"published example: SR* {benchmark:.4f}, DSR {psr(2.5 / math.sqrt(250), benchmark, 1250, -3, 10):.4f}")
    for n in (10, 45, 100, 1000):
        print(f"N={n}: {expected_max(n):.2f} sd, {expected_max(n) / math.sqrt(5):.2f} a year over five years")
    for rho in (0.1, 0.2, -0.1):
        print(f"AR(1) {rho}: {lo([rho**k for k in range(1, 252)]) / YEAR:.2f} of sqrt(252)")
    _, close = closes()
    r = close[1:] / close[:-1] - 1
    sr, g3, g4, x = sharpe(r), skew(r), kurtosis(r, fisher=False), r - r.mean()
    rho = [(x[k:] * x[:-k]).sum() / (x * x).sum() for k in range(1, 6)]
    print(f"index: {sr * YEAR:.3f}, Lo one lag {sr * lo(rho[:1]):.3f}, five {sr * lo(rho):.3f}; skew {g3:.2f}, kurtosis {g4:.1f}, "
          f"PSR {psr(sr, 0, len(r), g3, g4):.3f}, MinTRL {1 + shape(sr, g3, g4) * (norm.ppf(0.95) / sr) ** 2:.0f}")

    def average(w):
        s = np.concatenate([[0], np.cumsum(close)])
        return np.concatenate([np.full(w - 1, np.nan), (s[w:] - s[:-w]) / w])

    names = [(f, s) for f in range(2, 22, 2) for s in range(20, 220, 20) if f < s]
    held = np.array([np.sign(np.nan_to_num(average(f) - average(s)))[:-1] for f, s in names])
    M, hold = (held * r)[:, 220:], r[220:]
    srs = np.array([sharpe(m) for m in M])
    best = srs.argmax()
    m, n = M[best], M.shape[1]
    g3, g4 = skew(m), kurtosis(m, fisher=False)
    benchmark = srs.std(ddof=1) * expected_max(len(M))
    print(f"{len(M)} rules, {n} days: median {np.median(srs) * YEAR:.2f}, best {names[best]} {srs[best] * YEAR:.2f}, hold {sharpe(hold) * YEAR:.2f}")
    print(f"PSR {psr(srs[best], 0, n, g3, g4):.3f}, sd {srs.std(ddof=1) * YEAR:.3f}, SR* {benchmark * YEAR:.3f}, DSR {psr(srs[best], benchmark, n, g3, g4):.2f}")
    print("halves", [f"{sharpe(v) * YEAR:.2f}" for v in (m[: n // 2], m[n // 2 :], hold[: n // 2], hold[n // 2 :])])
    trades = np.abs(np.diff(held[best], prepend=0))
    turnover = trades[1:].sum() / len(r) * 252
    late = np.concatenate([[0], held[best][:-1]])
    print(f"gross {m.mean() * 252:.3f}, turnover {turnover:.1f}, break-even {1e4 * m.mean() * 252 / turnover:.0f} bps, "
          f"net of 20 bps {sharpe((held[best] * r - trades * 0.002)[220:]) * YEAR:.2f}, a bar late {sharpe((late * r)[220:]) * YEAR:.2f}")
    print("PBO of the rules %.2f in %d splits" % pbo(M, 16))
    noise = [np.random.default_rng(seed).normal(0, 0.01, (100, 1260)) for seed in range(20)]
    values = [pbo(z, 10)[0] for z in noise]
    print(f"PBO of noise {np.mean(values):.2f}, from {min(values):.2f} to {max(values):.2f}; "
          f"best ratio on average {np.mean([max(sharpe(v) for v in z) for z in noise]) * YEAR:.2f}")
    for split in ("shuffled", "contiguous", "purged"):
        q = np.array([leak(seed, split) for seed in range(20)])
        print(f"{split}: hits {q[:, 0].mean():.2f} (sd over seeds {q[:, 0].std():.3f}), correlation {q[:, 1].mean():.2f}")


if __name__ == "__main__":
    notes = {"regime": regime, "execution": execution, "factor": factor}
    for name in sys.argv[1:] or notes:
        print(f"== {name}")
        notes[name]()
