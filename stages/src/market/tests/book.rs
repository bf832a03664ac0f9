//! The rules of the exchange, one by one.

use super::super::Quote;
use super::super::book::Book;
use super::super::event::{Depth, Level, Place};
use super::super::quality::{Quality, Tally};
use crate::Result;

struct Bench {
    book: Book,
    tally: Tally,
    time: i64,
}

const fn level(price: f64, size: f64) -> Level {
    Level { price, size }
}

impl Bench {
    fn new(quality: Quality) -> Bench {
        Bench { book: Book::default(), tally: Tally::new(&quality, Vec::new()), time: 0 }
    }

    fn lenient() -> Bench {
        Bench::new(Quality { max_gaps: 9, max_crossed: 9, max_duplicates: 9, ..Quality::default() })
    }

    fn take(&mut self, depth: Depth) -> Result<()> {
        self.time += 1;
        self.book.change(self.time, Place::default(), &depth, &mut self.tally)
    }

    /// A change by spot's rules.
    fn spot(&mut self, first: u64, last: u64, bids: &[Level], asks: &[Level]) -> Result<()> {
        let (first, last) = (Some(first), Some(last));
        self.take(Depth { snapshot: false, first, last, previous: None, bids, asks })
    }

    /// A change by the rules of futures.
    fn futures(&mut self, previous: u64, first: u64, last: u64, bids: &[Level]) -> Result<()> {
        let (first, last, previous) = (Some(first), Some(last), Some(previous));
        self.take(Depth { snapshot: false, first, last, previous, bids, asks: &[] })
    }

    fn snapshot(&mut self, last: u64, bids: &[Level], asks: &[Level]) {
        let last = Some(last);
        self.take(Depth { snapshot: true, first: None, last, previous: None, bids, asks }).unwrap();
    }

    fn ticker(&mut self, id: u64, bid: f64, ask: f64) -> Result<()> {
        let quote = Quote { bid, bid_size: 1.0, ask, ask_size: 1.0 };
        self.time += 1;
        self.book.ticker(self.time, Place::default(), quote, Some(id), &mut self.tally)
    }

    fn best(&self) -> (f64, f64) {
        self.book.best().map_or((0.0, 0.0), |quote| (quote.bid, quote.ask))
    }
}

const BIDS: &[Level] = &[level(99.0, 1.0), level(98.0, 2.0)];
const ASKS: &[Level] = &[level(101.0, 1.0), level(102.0, 2.0)];

#[test]
fn a_snapshot_takes_the_changes_received_before_it() {
    let mut bench = Bench::new(Quality::default());
    bench.spot(1, 4, &[level(97.0, 9.0)], &[]).unwrap();
    bench.spot(5, 8, &[level(99.5, 3.0)], &[level(101.0, 0.0)]).unwrap();
    assert!(!bench.book.is_whole());
    // The first change ends with it, the second does not.
    bench.snapshot(6, BIDS, ASKS);
    assert!(bench.book.is_whole());
    assert_eq!(bench.best(), (99.5, 102.0));
    assert_eq!(bench.book.bids().at(97.0), 0.0);
    assert_eq!(bench.book.last(), Some(8));
    bench.spot(9, 9, &[level(99.5, 0.0)], &[]).unwrap();
    assert_eq!(bench.best(), (99.0, 102.0));
    assert_eq!((bench.tally.counts.stale, bench.tally.counts.gaps), (1, 0));
}

#[test]
fn changes_older_than_the_snapshot_are_stale() {
    let mut bench = Bench::new(Quality::default());
    bench.snapshot(10, BIDS, ASKS);
    bench.spot(7, 10, &[level(100.5, 1.0)], &[]).unwrap();
    bench.spot(8, 9, &[level(100.5, 1.0)], &[]).unwrap();
    assert_eq!(bench.best(), (99.0, 101.0));
    // In the middle of the snapshot's last change.
    bench.spot(9, 12, &[level(100.0, 1.0)], &[]).unwrap();
    assert_eq!(bench.best(), (100.0, 101.0));
    assert_eq!(bench.tally.counts.stale, 2);
}

#[test]
fn a_snapshot_too_old_to_be_joined_is_stale() {
    let mut bench = Bench::new(Quality::default());
    bench.spot(20, 22, &[level(99.0, 1.0)], &[level(100.0, 1.0)]).unwrap();
    bench.snapshot(10, &[level(50.0, 1.0)], &[level(51.0, 1.0)]);
    assert!(!bench.book.is_whole());
    assert_eq!(bench.best(), (99.0, 100.0));
    assert_eq!(bench.tally.counts.stale, 1);
    // So is one that a whole book is past.
    bench.snapshot(30, BIDS, ASKS);
    bench.spot(31, 35, &[], &[]).unwrap();
    bench.snapshot(33, &[level(50.0, 1.0)], &[level(51.0, 1.0)]);
    assert_eq!(bench.best(), (99.0, 101.0));
    // Both snapshots, and the change before the one that was taken.
    assert_eq!(bench.tally.counts.stale, 3);
}

#[test]
fn a_gap_stops_or_begins_the_book_anew() {
    let mut strict = Bench::new(Quality::default());
    strict.snapshot(10, BIDS, ASKS);
    strict.spot(11, 12, &[], &[]).unwrap();
    let error = strict.spot(14, 15, &[], &[]).unwrap_err();
    assert_eq!(
        super::said(&error),
        "update 14 follows update 12\nupdates are missing: fetch them, perhaps in a file of the series; \
         or set `quality: { max_gaps: N }`, which builds the book anew after each"
    );

    let mut lenient = Bench::lenient();
    lenient.snapshot(10, BIDS, ASKS);
    lenient.spot(12, 13, &[level(97.0, 1.0)], &[level(103.0, 1.0)]).unwrap();
    assert!(!lenient.book.is_whole());
    // What was before the gap is not believed.
    assert_eq!(lenient.best(), (97.0, 103.0));
    assert!(!lenient.book.ready(lenient.time, 5));
    assert!(lenient.book.ready(lenient.time + 5, 5));
    lenient.snapshot(13, BIDS, ASKS);
    assert!(lenient.book.is_whole());
    assert_eq!(lenient.tally.counts.gaps, 1);
}

#[test]
fn futures_go_by_the_update_before() {
    let mut bench = Bench::lenient();
    bench.snapshot(100, BIDS, ASKS);
    // The first may begin before the snapshot; ids leave holes.
    bench.futures(95, 97, 103, &[level(99.5, 1.0)]).unwrap();
    bench.futures(103, 110, 112, &[level(99.6, 1.0)]).unwrap();
    assert_eq!(bench.best(), (99.6, 101.0));
    assert_eq!(bench.tally.counts.gaps, 0);
    bench.futures(111, 113, 114, &[]).unwrap();
    assert_eq!(bench.tally.counts.gaps, 1);
    let mut strict = Bench::new(Quality::default());
    strict.snapshot(100, BIDS, ASKS);
    let error = strict.futures(101, 102, 103, &[]).unwrap_err();
    assert_eq!(error.to_string(), "the update after 100 says that it follows 101");
}

#[test]
fn what_comes_twice_is_left_out() {
    let mut bench = Bench::lenient();
    bench.spot(1, 2, BIDS, ASKS).unwrap();
    bench.spot(3, 4, &[level(99.5, 1.0)], &[]).unwrap();
    bench.spot(3, 4, &[level(99.5, 7.0)], &[]).unwrap();
    assert_eq!(bench.book.bids().at(99.5), 1.0);
    bench.ticker(5, 99.6, 101.0).unwrap();
    bench.ticker(5, 99.7, 101.0).unwrap();
    assert_eq!(bench.book.quote().unwrap().bid, 99.6);
    assert_eq!(bench.tally.counts.duplicates, 2);
    let mut strict = Bench::new(Quality::default());
    strict.spot(1, 2, BIDS, ASKS).unwrap();
    let error = strict.spot(1, 2, BIDS, ASKS).unwrap_err();
    assert_eq!(error.to_string(), "update 2 comes after update 2");
}

#[test]
fn ids_may_be_as_large_as_they_get() {
    let mut bench = Bench::lenient();
    bench.spot(1, u64::MAX, BIDS, ASKS).unwrap();
    bench.spot(5, u64::MAX, BIDS, ASKS).unwrap();
    bench.ticker(u64::MAX, 99.0, 101.0).unwrap();
    assert_eq!((bench.tally.counts.duplicates, bench.best()), (1, (99.0, 101.0)));
}

#[test]
fn a_crossed_book_stops_or_begins_anew() {
    let mut strict = Bench::new(Quality::default());
    strict.snapshot(1, BIDS, ASKS);
    let error = strict.spot(2, 2, &[level(101.0, 1.0)], &[]).unwrap_err();
    assert_eq!(error.to_string(), "the book is crossed: bid 101, ask 101");
    let mut bench = Bench::lenient();
    bench.snapshot(1, BIDS, ASKS);
    bench.spot(2, 2, &[level(101.5, 1.0)], &[]).unwrap();
    assert_eq!(bench.book.best(), None);
    assert!(!bench.book.is_whole());
    bench.ticker(3, 5.0, 4.0).unwrap();
    assert_eq!(bench.book.quote(), None);
    assert_eq!(bench.tally.counts.crossed, 2);
}

#[test]
fn the_newer_of_ticker_and_book_is_the_quote() {
    let mut bench = Bench::new(Quality::default());
    bench.ticker(5, 99.0, 100.0).unwrap();
    assert_eq!(bench.book.quote().unwrap().bid, 99.0);
    bench.snapshot(10, BIDS, ASKS);
    assert_eq!(bench.book.quote(), bench.book.best());
    bench.ticker(9, 95.0, 105.0).unwrap();
    assert_eq!(bench.book.quote(), bench.book.best());
    assert_eq!(bench.tally.counts.superseded, 1);
    bench.ticker(12, 99.5, 100.5).unwrap();
    assert_eq!(bench.book.quote().unwrap().bid, 99.5);
    bench.spot(11, 12, &[level(99.5, 4.0)], &[level(100.5, 4.0)]).unwrap();
    assert_eq!(bench.book.quote().unwrap().bid_size, 4.0);
}

#[test]
fn depth_is_what_rests_near_the_mid() {
    let mut bench = Bench::new(Quality::default());
    let bids = [level(999.5, 1.0), level(999.0, 2.0), level(998.9, 4.0)];
    let asks = [level(1000.5, 1.0), level(1001.0, 2.0), level(1001.1, 4.0)];
    bench.snapshot(1, &bids, &asks);
    // Within 10 basis points of 1000: 999.0 to 1001.0.
    let expected = 999.5 + 2.0 * 999.0 + 1000.5 + 2.0 * 1001.0;
    assert_eq!(bench.book.depth(0.001), Some(expected));
    // The ticker knows that the best ask is gone.
    bench.ticker(2, 999.5, 1001.0).unwrap();
    // Within 10 basis points of 1000.25: 999.25 to 1001.25.
    assert_eq!(bench.book.depth(0.001), Some(999.5 + 1001.0 + 4.0 * 1001.1));
}

#[test]
fn what_is_held_for_a_late_snapshot_is_bounded() {
    let mut bench = Bench::new(Quality::default());
    let many: Vec<Level> = (1..=1000).map(|n| level(f64::from(n), 1.0)).collect();
    for id in 1..=2000 {
        bench.spot(id, id, &many, &[]).unwrap();
    }
    // Its changes are gone.
    bench.snapshot(5, &[], &[]);
    assert!(!bench.book.is_whole());
    bench.snapshot(1990, &[level(1.0, 5.0)], &[]);
    assert!(bench.book.is_whole());
    assert_eq!(bench.book.last(), Some(2000));
    assert_eq!(bench.book.bids().at(1.0), 1.0);
}
