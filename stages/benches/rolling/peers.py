"""Rolling columns with polars or pandas, each timed in CPU seconds, the least of three rounds.

peers.py polars|pandas FOLDER COLUMN=WINDOW...

Prints a line about the version, then the seconds of each column. polars writes its columns to
FOLDER, as 64-bit floats.
"""
import os
import resource
import sys

import numpy as np

name, folder, *wanted = sys.argv[1:]
wanted = [(column, int(window)) for column, window in (w.split("=") for w in wanted)]
x, y = (np.fromfile(os.path.join(folder, name_), dtype="<f8") for name_ in ("x", "y"))


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def polars():
    import polars as pl

    frame = pl.DataFrame({"x": x, "y": y})
    a, b = pl.col("x"), pl.col("y")
    make = {
        "mean": lambda w: a.rolling_mean(w),
        "std": lambda w: a.rolling_std(w),
        "min": lambda w: a.rolling_min(w),
        "max": lambda w: a.rolling_max(w),
        "corr": lambda w: pl.rolling_corr(a, b, window_size=w),
        "zscore": lambda w: (a - a.rolling_mean(w)) / a.rolling_std(w),
    }

    def run(column, window):
        return frame.select(make[column](window)).to_series()

    def keep(column, window, values):
        values.cast(pl.Float64).fill_null(float("nan")).to_numpy().tofile(
            os.path.join(folder, column)
        )

    return f"polars {pl.__version__}, {pl.thread_pool_size()} thread", run, keep


def pandas():
    import pandas as pd

    a, b = pd.Series(x), pd.Series(y)
    make = {
        "mean": lambda w: a.rolling(w).mean(),
        "std": lambda w: a.rolling(w).std(),
        "min": lambda w: a.rolling(w).min(),
        "max": lambda w: a.rolling(w).max(),
        "corr": lambda w: a.rolling(w).corr(b),
        "zscore": lambda w: (a - a.rolling(w).mean()) / a.rolling(w).std(),
    }
    return f"pandas {pd.__version__}", lambda c, w: make[c](w), lambda *_: None


about, run, keep = {"polars": polars, "pandas": pandas}[name]()
print(about)
for column, window in wanted:
    least = float("inf")
    for _ in range(3):
        begin = cpu_seconds()
        values = run(column, window)
        least = min(least, cpu_seconds() - begin)
    keep(column, window, values)
    print(least)
