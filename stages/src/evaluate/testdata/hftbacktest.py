"""Runs orders through hftbacktest: events.csv and orders.csv in, fills.csv out. `python hftbacktest.py FOLDER QUEUE`.

Orders stand in nobody's way there either: the book does not hold them.
"""
import csv
import sys

# A file of the same name as the package lies beside this one.
sys.path.pop(0)

import numpy as np
from hftbacktest import (
    BUY_EVENT, DEPTH_EVENT, DEPTH_SNAPSHOT_EVENT, EXCH_EVENT, FILLED, GTC, LIMIT, LOCAL_EVENT,
    SELL_EVENT, TRADE_EVENT, BacktestAsset, HashMapMarketDepthBacktest,
)
from hftbacktest.binding import event_dtype

folder, queue = sys.argv[1], sys.argv[2]
kinds = {"snapshot": DEPTH_SNAPSHOT_EVENT, "depth": DEPTH_EVENT, "trade": TRADE_EVENT}
rows = list(csv.DictReader(open(f"{folder}/events.csv")))
events = np.zeros(len(rows), event_dtype)
for event, row in zip(events, rows):
    side = BUY_EVENT if row["side"] == "buy" else SELL_EVENT
    event["ev"] = kinds[row["kind"]] | side | EXCH_EVENT | LOCAL_EVENT
    event["exch_ts"] = event["local_ts"] = int(row["time"])
    event["px"], event["qty"] = float(row["price"]), float(row["size"])

asset = (
    BacktestAsset().data(events).linear_asset(1.0).constant_order_latency(0, 0)
    .no_partial_fill_exchange().trading_value_fee_model(0.0, 0.0).tick_size(0.1).lot_size(1e-6)
)
asset = {
    "trades": lambda a: a.risk_adverse_queue_model(),
    "log": lambda a: a.log_prob_queue_model(),
    "power": lambda a: a.power_prob_queue_model(2.0),
}[queue](asset)
hbt = HashMapMarketDepthBacktest([asset])
orders = {int(row["id"]): row for row in csv.DictReader(open(f"{folder}/orders.csv"))}
actions = [(int(o["time"]), 1, number) for number, o in orders.items()]
actions += [(int(o["until"]), 0, number) for number, o in orders.items()]
# Until then it has no time.
hbt.elapse(1)
for time, what, number in sorted(actions):
    gone = time - hbt.current_timestamp
    if gone > 0:
        hbt.elapse(gone)
    order = orders[number]
    if what == 1:
        submit = hbt.submit_buy_order if order["side"] == "buy" else hbt.submit_sell_order
        submit(0, number, float(order["price"]), 1.0, GTC, LIMIT, False)
    elif hbt.orders(0).get(number).status != FILLED:
        hbt.cancel(0, number, False)
hbt.elapse(10**9)
with open(f"{folder}/fills.csv", "w") as out:
    out.write("id,time,price\n")
    for number in sorted(orders):
        order = hbt.orders(0).get(number)
        if order.status == FILLED:
            out.write(f"{number},{order.exch_timestamp},{order.exec_price:.1f}\n")
