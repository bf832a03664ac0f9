//! What the market stages share: events of an exchange, the book, and the state at each tick of a
//! clock.
//!
//! ```text
//! bars (CSV, Parquet)                          ---------------------------+
//! stream lines, CSV of quotes, depth, trades   -> event -> book -> clock --+-> Sample
//! orders one by one                            -> orders -> event          |
//! ```
//!
//! A [`Sample`] is all that a feature ever sees; it knows nothing past its own time. No stage is
//! named here.

pub mod bars;
pub mod binance;
pub mod book;
pub mod clock;
pub mod event;
pub mod file;
pub mod join;
pub mod levels;
pub mod message;
pub mod orders;
pub mod quality;
pub mod rows;
mod sample;
mod source;
pub mod spool;
pub mod table;
pub mod time;
pub mod zone;

pub use sample::{Quote, Sample, Samples, Trade};
pub use source::{Series, Source, open};

/// Samples with what was found on the way.
pub trait Feed: Samples {
    /// What was read so far, and what was wrong with it.
    fn counts(&self) -> quality::Counts;
    /// The form in which to write the samples' times.
    fn form(&self) -> time::Form;
    /// Which of the files, from 0 in the order of the names, made the last sample known: without that
    /// file and those after it the sample would not be there, with it it is.
    fn file(&self) -> usize;
}

#[cfg(test)]
pub(crate) mod tests;
