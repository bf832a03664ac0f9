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

mod sample;

pub use sample::{Quote, Sample, Samples, Trade};
