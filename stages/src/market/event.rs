//! What an exchange sends: changes of the book, best quotes, trades.
//!
//! An event borrows the reader's buffers, so that reading one allocates nothing: it is valid until the
//! reader is moved on.

use crate::Result;

use super::quality::Tally;
use super::{Quote, Trade};

/// A price and what rests there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Level {
    /// Price.
    pub price: f64,
    /// Units; 0 takes the level away.
    pub size: f64,
}

/// A change of the book: sizes that replace those of their levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Depth<'a> {
    /// The levels are all there are, rather than those that changed.
    pub snapshot: bool,
    /// Id of the first update that is folded in, where the source numbers them.
    pub first: Option<u64>,
    /// Id of the last.
    pub last: Option<u64>,
    /// Id of the last update of the change before, where the source says (Binance futures `pu`).
    pub previous: Option<u64>,
    /// Levels of buyers, in any order.
    pub bids: &'a [Level],
    /// Levels of sellers, in any order.
    pub asks: &'a [Level],
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What<'a> {
    /// The book changed.
    Depth(Depth<'a>),
    /// The best quotes, and the update of the book after which they held.
    Quote(Quote, Option<u64>),
    /// A trade. Its time is the event's.
    Trade(Trade),
}

/// Where an event stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which of the files, from 0.
    pub file: u32,
    /// Its line, from 1.
    pub line: u64,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event<'a> {
    /// When it was received, nanoseconds since 1970-01-01 UTC: before that nobody here knew it.
    pub time: i64,
    /// Where it stands.
    pub place: Place,
    /// What happened.
    pub what: What<'a>,
}

/// Events in order of time.
pub trait Events {
    /// Moves on to the next event; false at the end.
    ///
    /// # Errors
    /// The source cannot be read, or holds more faults than `tally` lets pass.
    fn advance(&mut self, tally: &mut Tally) -> Result<bool>;

    /// The event that [`Events::advance`] moved to.
    fn event(&self) -> Event<'_>;
}

impl<E: Events + ?Sized> Events for Box<E> {
    fn advance(&mut self, tally: &mut Tally) -> Result<bool> {
        (**self).advance(tally)
    }

    fn event(&self) -> Event<'_> {
        (**self).event()
    }
}
