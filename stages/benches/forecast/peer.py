"""Training steps of the hybrid in PyTorch, for the benchmark beside: BATCH STEPS THREADS.

The model of `stages/src/forecast/neural/hybrid.rs`, as one would write it in PyTorch: fused matrix
products, a scan in chunks, `scaled_dot_product_attention` with a bias, AdamW. Prints the seconds of each
step and the peak memory of the process in MiB, as JSON.
"""
import json
import math
import resource
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

BATCH, STEPS, THREADS = map(int, sys.argv[1:4])
WINDOW, FEATURES, HORIZONS = 64, 20, 3
LAYERS, STATE, MEMORY, HEADS, CHUNK, DROPOUT = 2, 32, 64, 4, 16, 0.1


def linear(rows, columns):
    return nn.Linear(rows, columns, bias=False)


def scan(rate, v):
    """s_t = exp(-rate_t) s_{t-1} + v_t, [batch, rows, channels], in chunks.

    Within a chunk it is a cumulated sum over inverse decays; rates are bounded, so that it cannot overflow.
    (The exact form, a matrix of decays between the rows of a chunk, is slower by a third of a step.)
    """
    batch, rows, channels = v.shape
    total = rate.view(batch, -1, CHUNK, channels).cumsum(2)
    decay = (-total).exp()
    own = decay * (total.exp() * v.view_as(total)).cumsum(2)
    carry, out = None, []
    for g in range(own.shape[1]):
        s = own[:, g] if carry is None else own[:, g] + decay[:, g] * carry
        carry = s[:, -1:]
        out.append(s)
    return torch.cat(out, 1)


class Layer(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.norm = nn.RMSNorm(MEMORY, eps=1e-6)
        self.norm2 = nn.RMSNorm(MEMORY, eps=1e-6)
        # From the memory: rates and gates, queries, keys and values, the gate.
        self.of_memory = linear(MEMORY, 2 * STATE + 4 * MEMORY)
        # From the state: keys and values, the gate and what it lets through, gamma and beta.
        self.of_state = linear(STATE, 6 * MEMORY)
        self.input = linear(MEMORY if first else STATE, STATE)
        self.bias = nn.Parameter(torch.zeros(2 * STATE))
        self.decay = nn.Parameter(torch.linspace(0, -math.log(WINDOW), STATE))
        self.output = linear(MEMORY, MEMORY)
        self.up = linear(MEMORY, 4 * MEMORY)
        self.down = linear(2 * MEMORY, MEMORY)

    def forward(self, m, below, dt, alibi):
        batch, rows, _ = m.shape
        n = self.of_memory(self.norm(m))
        p, q, k, v, g = n.split([2 * STATE, MEMORY, MEMORY, MEMORY, MEMORY], -1)
        rates, gates = (p + self.bias).chunk(2, -1)
        rate = (F.softplus(rates) * dt * self.decay.exp()).clamp(1e-4, 5.0)
        u = torch.sqrt(-torch.expm1(-2 * rate)) * self.input(below) * torch.sigmoid(gates)
        s = scan(rate, u)
        ks, vs, gs, c, gamma, beta = self.of_state(s).chunk(6, -1)
        heads = [x.view(batch, rows, HEADS, -1).transpose(1, 2) for x in (q, k + ks, v + vs)]
        o = F.scaled_dot_product_attention(*heads, attn_mask=alibi)
        o = self.output(o.transpose(1, 2).reshape(batch, rows, MEMORY))
        g = torch.sigmoid(g + gs)
        m = m + F.dropout(torch.lerp(c, o, g), DROPOUT)
        y = (1 + gamma) * self.norm2(m) + beta
        gate, up = self.up(y).chunk(2, -1)
        return m + F.dropout(self.down(F.silu(gate) * up), DROPOUT), s


class Hybrid(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = linear(FEATURES + 2, MEMORY)
        self.layers = nn.ModuleList(Layer(i == 0) for i in range(LAYERS))
        self.norm = nn.RMSNorm(MEMORY + STATE, eps=1e-6)
        self.heads = nn.Linear(MEMORY + STATE, 5 * HORIZONS)
        slope = 2.0 ** (-8 * torch.arange(1, HEADS + 1) / HEADS)
        distance = torch.arange(WINDOW)[:, None] - torch.arange(WINDOW)
        alibi = -slope[:, None, None] * distance
        self.register_buffer("alibi", alibi.masked_fill(distance < 0, -math.inf)[None])

    def forward(self, x, dt):
        x = torch.cat([x, dt.log(), torch.ones_like(dt)], -1)
        m = below = self.embed(x)
        for layer in self.layers:
            m, below = layer(m, below, dt, self.alibi)
        return self.heads(self.norm(torch.cat([m, below], -1)))


def loss_of(heads, classes, values):
    z, mu, r = heads.split([3 * HORIZONS, HORIZONS, HORIZONS], -1)
    z = z.reshape(*mu.shape, 3)
    sigma = F.softplus(r) + 1e-3
    entropy = F.cross_entropy(z.flatten(0, -2), classes.flatten())
    nll = -torch.distributions.StudentT(5.0, mu, sigma, validate_args=False).log_prob(values)
    t = mu / sigma
    angle = torch.atan(t / math.sqrt(5))
    sin, cos = angle.sin(), angle.cos()
    twice = 2 / math.pi * (angle + sin * cos * (1 + 2 / 3 * cos * cos))
    p = z.softmax(-1)
    gap = (p[..., 2] - p[..., 0] - twice).abs().mean()
    held = 0.5 * (sigma.detach().sqrt() * nll).mean()
    return entropy + held + 0.25 * F.huber_loss(mu, values) + 0.1 * gap


def main():
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    net = Hybrid()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    x = torch.randn(BATCH, WINDOW, FEATURES)
    dt = torch.rand(BATCH, WINDOW, 1) + 0.5
    values = torch.randn(BATCH, WINDOW, HORIZONS)
    classes = torch.randint(0, 3, (BATCH, WINDOW, HORIZONS))
    seconds, cpu = [], []
    for _ in range(STEPS):
        start, began = time.perf_counter(), time.process_time()
        loss = loss_of(net(x, dt), classes, values)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - began)
    weights = sum(p.numel() for p in net.parameters())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mib": peak, "weights": weights}))


main()
