"""Derive nasdaq.csv and sp500.csv from a wheel of the PyPI package `arch`.

usage: python3 derive.py WHEEL OUTPUT_FOLDER      (standard library only)
"""
import csv
import datetime
import gzip
import io
import pathlib
import sys
import zipfile


def rows(wheel, name):
    packed = wheel.read(f"arch/data/{name}/{name}.csv.gz")
    table = csv.DictReader(io.StringIO(gzip.decompress(packed).decode("ascii")))
    for row in table:
        date = datetime.datetime.strptime(row["Date"], "%m/%d/%Y").date().isoformat()
        # The source keeps single-precision noise (2207.540039); exchanges publish cents.
        price = {k: f"{float(row[k]):.2f}" for k in ("Open", "High", "Low", "Close")}
        yield date, price, int(row["Volume"])


def write(path, header, lines):
    with open(path, "w", newline="\n", encoding="ascii") as out:
        out.write(header + "\n")
        out.writelines(",".join(map(str, line)) + "\n" for line in lines)


def main(wheel_path, folder):
    folder = pathlib.Path(folder)
    with zipfile.ZipFile(wheel_path) as wheel:
        write(
            folder / "nasdaq.csv",
            "date,open,high,low,close,volume",
            ((d, p["Open"], p["High"], p["Low"], p["Close"], v) for d, p, v in rows(wheel, "nasdaq")),
        )
        write(
            folder / "sp500.csv",
            "date,close",
            ((d, p["Close"]) for d, p, _ in rows(wheel, "sp500")),
        )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
