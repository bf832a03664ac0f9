//! The book of a market, rebuilt from snapshots and changes by the exchange's rules.
//!
//! - **With a snapshot** (Binance): changes up to its `lastUpdateId` are stale; the first after it must
//!   begin at or before the next id, and each further one follow the one before (`U = u + 1` on spot,
//!   `pu = u` on futures). Changes received before the snapshot and newer than it are put on top of it.
//! - **Without one** (a file that begins in the middle): levels become known as they change. Such a book
//!   counts as known after a warm-up that the caller sets; levels that never changed are missing from it.
//! - **After a gap or a crossed book** it is begun anew, since what was missed cannot be known.
//!
//! The best quotes are the ticker's where that is newer than the changes of the book. Nothing is
//! guessed from trades.

use super::Quote;
use super::event::{Depth, Level, Place};
use super::levels::Levels;
use super::quality::{Fault, Tally};
use crate::Result;

/// The book.
#[derive(Clone, Debug)]
pub struct Book {
    bids: Levels,
    asks: Levels,
    /// Id of the last update that is in.
    last: Option<u64>,
    /// A snapshot is in, and every change since.
    whole: bool,
    /// No change was made since the snapshot.
    fresh: bool,
    /// Changes that a snapshot may still have to be completed with.
    held: Held,
    ticker: Option<(Quote, Option<u64>)>,
    /// When the book was begun.
    since: Option<i64>,
}

impl Default for Book {
    fn default() -> Book {
        Book {
            bids: Levels::bids(),
            asks: Levels::asks(),
            last: None,
            whole: false,
            fresh: false,
            held: Held::default(),
            ticker: None,
            since: None,
        }
    }
}

impl Book {
    /// Takes a change of the book or a snapshot.
    ///
    /// # Errors
    /// More gaps, duplicates or crossed books than `tally` lets pass.
    pub fn change(
        &mut self,
        time: i64,
        place: Place,
        depth: &Depth,
        tally: &mut Tally,
    ) -> Result<()> {
        self.since.get_or_insert(time);
        if depth.snapshot {
            self.snapshot(depth, tally);
        } else if !self.update(time, place, depth, tally)? {
            return Ok(());
        }
        let crossed = matches!(
            (self.bids.best(), self.asks.best()), (Some(bid), Some(ask)) if bid.price >= ask.price
        );
        if crossed {
            let (bid, ask) = (self.bids.best(), self.asks.best());
            let price = |level: Option<Level>| level.map_or(0.0, |level| level.price);
            let message = || format!("the book is crossed: bid {}, ask {}", price(bid), price(ask));
            tally.fault(Fault::Crossed, place, message, "updates before this line are missing")?;
            self.lose(time);
        }
        Ok(())
    }

    /// A change; false where it is left out.
    fn update(
        &mut self,
        time: i64,
        place: Place,
        depth: &Depth,
        tally: &mut Tally,
    ) -> Result<bool> {
        if let (Some(before), Some(last)) = (self.last, depth.last) {
            if last <= before {
                if self.fresh {
                    tally.counts.stale += 1;
                } else {
                    let message = || format!("update {last} comes after update {before}");
                    let hint = "remove what was recorded twice";
                    tally.fault(Fault::Duplicate, place, message, hint)?;
                }
                return Ok(false);
            }
            if !follows(before, self.fresh, depth.first, depth.previous) {
                let message = || match (depth.previous, depth.first) {
                    (Some(previous), _) => {
                        format!("the update after {before} says that it follows {previous}")
                    }
                    (None, Some(first)) => format!("update {first} follows update {before}"),
                    (None, None) => String::new(),
                };
                let hint = "updates are missing: fetch them, perhaps in a file of the series";
                tally.fault(Fault::Gap, place, message, hint)?;
                self.lose(time);
            }
        }
        if !self.whole && depth.last.is_some() {
            self.held.push(depth);
        }
        depth.bids.iter().for_each(|level| self.bids.set(*level));
        depth.asks.iter().for_each(|level| self.asks.set(*level));
        self.last = depth.last.or(self.last);
        self.fresh = false;
        Ok(true)
    }

    fn snapshot(&mut self, depth: &Depth, tally: &mut Tally) {
        if let Some(id) = depth.last {
            // One that is not newer adds nothing to a whole book.
            let older = self.whole && self.last.is_some_and(|last| id <= last);
            let newer = self.held.changes.iter().find(|held| held.last > id);
            let apart = newer.is_some_and(|held| !follows(id, true, held.first, held.previous));
            if older || apart {
                tally.counts.stale += 1;
                return;
            }
        }
        self.bids.replace(depth.bids);
        self.asks.replace(depth.asks);
        (self.whole, self.fresh, self.last) = (true, true, depth.last);
        let held = std::mem::take(&mut self.held);
        for (change, levels) in held.iter() {
            if self.last.is_some_and(|last| change.last <= last) {
                tally.counts.stale += 1;
                continue;
            }
            let (bids, asks) = levels.split_at(change.bids);
            bids.iter().for_each(|level| self.bids.set(*level));
            asks.iter().for_each(|level| self.asks.set(*level));
            (self.last, self.fresh) = (Some(change.last), false);
        }
    }

    /// Takes the best quotes as the exchange tells them, after update `id` of the book.
    ///
    /// # Errors
    /// More crossed quotes or duplicates than `tally` lets pass.
    pub fn ticker(
        &mut self,
        time: i64,
        place: Place,
        quote: Quote,
        id: Option<u64>,
        tally: &mut Tally,
    ) -> Result<()> {
        self.since.get_or_insert(time);
        if let (Some(id), Some((_, Some(last)))) = (id, self.ticker)
            && id <= last
        {
            let message = || format!("the quote of update {id} comes after that of update {last}");
            let hint = "remove what was recorded twice";
            return tally.fault(Fault::Duplicate, place, message, hint);
        }
        if quote.bid >= quote.ask {
            let message = || format!("the quote is crossed: bid {}, ask {}", quote.bid, quote.ask);
            let hint = "check that bid and ask are not swapped";
            return tally.fault(Fault::Crossed, place, message, hint);
        }
        if self.whole && id.is_some() && id <= self.last {
            tally.counts.superseded += 1;
        }
        self.ticker = Some((quote, id));
        Ok(())
    }

    /// Begins anew.
    fn lose(&mut self, time: i64) {
        self.bids.clear();
        self.asks.clear();
        self.held = Held::default();
        (self.whole, self.fresh, self.since) = (false, false, Some(time));
    }

    /// The best quotes; `None` while one side is unknown.
    #[inline]
    pub fn quote(&self) -> Option<Quote> {
        match self.ticker {
            // What is not whole may lack the best level: the exchange's word counts then.
            Some((quote, id)) if !self.whole || id.is_none() || id > self.last => Some(quote),
            _ => self.best(),
        }
    }

    /// The best quotes by the changes of the book alone.
    #[inline]
    pub fn best(&self) -> Option<Quote> {
        let (bid, ask) = (self.bids.best()?, self.asks.best()?);
        Some(Quote { bid: bid.price, bid_size: bid.size, ask: ask.price, ask_size: ask.size })
    }

    /// Notional, in units of the quote currency, that rests within `band` (10 basis points: 0.001) of
    /// the mid on both sides together; `None` where there is no book.
    pub fn depth(&self, band: f64) -> Option<f64> {
        let quote = self.quote().filter(|_| !self.bids.is_empty() && !self.asks.is_empty())?;
        let mid = quote.mid();
        let width = mid * band;
        let touch = quote.bid * quote.bid_size + quote.ask * quote.ask_size;
        let bids = self.bids.notional(quote.bid, mid - width);
        Some(touch + bids + self.asks.notional(quote.ask, mid + width))
    }

    /// Whether it is known: from a snapshot on without a gap, or for `warm_up` nanoseconds.
    pub fn ready(&self, now: i64, warm_up: i64) -> bool {
        self.whole || self.since.is_some_and(|since| now.saturating_sub(since) >= warm_up)
    }

    /// Whether a snapshot is in, and every change since.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Id of the last update that is in.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// The bids.
    pub fn bids(&self) -> &Levels {
        &self.bids
    }

    /// The asks.
    pub fn asks(&self) -> &Levels {
        &self.asks
    }
}

/// Whether a change continues a book whose last update is `before`. One just read from a snapshot may
/// begin in the middle of a change.
fn follows(before: u64, fresh: bool, first: Option<u64>, previous: Option<u64>) -> bool {
    match (previous, first) {
        (Some(previous), _) => previous == before || fresh && previous <= before,
        // Sizes replace sizes: a change that begins earlier does no harm.
        (None, Some(first)) => first <= before.saturating_add(1),
        (None, None) => true,
    }
}

/// Changes without their time: what came before a snapshot.
#[derive(Clone, Debug, Default)]
struct Held {
    changes: Vec<Change>,
    levels: Vec<Level>,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    first: Option<u64>,
    last: u64,
    previous: Option<u64>,
    /// How many of its levels are bids; the rest are asks.
    bids: usize,
    count: usize,
}

/// Levels that are held at most (4 MiB); the older half goes first. A snapshot that is so late that it
/// needs them joins no change, and is stale.
const HELD: usize = 1 << 18;

impl Held {
    fn push(&mut self, depth: &Depth) {
        if self.levels.len() > HELD {
            let half = self.changes.len() / 2;
            let levels: usize = self.changes.drain(..half).map(|change| change.count).sum();
            self.levels.drain(..levels);
        }
        self.levels.extend_from_slice(depth.bids);
        self.levels.extend_from_slice(depth.asks);
        self.changes.push(Change {
            first: depth.first,
            last: depth.last.unwrap_or(0),
            previous: depth.previous,
            bids: depth.bids.len(),
            count: depth.bids.len() + depth.asks.len(),
        });
    }

    fn iter(&self) -> impl Iterator<Item = (Change, &[Level])> {
        let mut from = 0;
        self.changes.iter().map(move |change| {
            let levels = &self.levels[from..from + change.count];
            from += change.count;
            (*change, levels)
        })
    }
}
