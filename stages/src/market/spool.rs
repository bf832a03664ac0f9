//! Samples in a file of our own, so that a source is read once and its samples as often as needed.
//!
//! Numbers are little-endian and whole: what is read is what was written, to the bit. It is scratch:
//! the format is no promise to anyone.

use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

use super::{Quote, Sample, Samples, Trade};
use crate::Result;

/// Writes samples.
pub struct Spool {
    out: BufWriter<fs_err::File>,
    buffer: Vec<u8>,
}

const BOUGHT: u8 = 1;
const QUOTE: u8 = 2;
const DEPTH: u8 = 4;
const FLOW: u8 = 8;
const TOUCH: u8 = 16;
const INDEX: u8 = 32;

impl Spool {
    /// A new file.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: &Path) -> Result<Spool> {
        let out = BufWriter::with_capacity(1 << 18, fs_err::File::create(path)?);
        Ok(Spool { out, buffer: Vec::new() })
    }

    /// Adds a sample.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn push(&mut self, sample: &Sample) -> Result<()> {
        let known = [
            (BOUGHT, sample.bought),
            (DEPTH, sample.depth),
            (FLOW, sample.flow),
            (TOUCH, sample.touch),
            (INDEX, sample.index),
        ];
        let mut flags = if sample.quote.is_some() { QUOTE } else { 0 };
        flags |= known.iter().filter(|(_, x)| x.is_some()).fold(0, |all, (flag, _)| all | flag);
        let b = &mut self.buffer;
        b.clear();
        b.push(flags);
        b.extend((sample.trades.len() as u32).to_le_bytes());
        b.extend((sample.peers.len() as u32).to_le_bytes());
        b.extend(sample.time.to_le_bytes());
        let mut put = |x: f64| b.extend(x.to_le_bytes());
        for x in [sample.open, sample.high, sample.low, sample.close, sample.volume] {
            put(x);
        }
        put(sample.turnover);
        known.iter().filter_map(|(_, x)| *x).for_each(&mut put);
        if let Some(Quote { bid, bid_size, ask, ask_size }) = sample.quote {
            [bid, bid_size, ask, ask_size].into_iter().for_each(&mut put);
        }
        sample.peers.iter().copied().for_each(put);
        for trade in &sample.trades {
            b.extend(trade.time.to_le_bytes());
            b.extend(trade.price.to_le_bytes());
            b.extend(trade.size.to_le_bytes());
            b.push(trade.bought.map_or(2, u8::from));
        }
        self.out.write_all(b)?;
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// Reads samples back.
pub struct Unspool {
    file: BufReader<fs_err::File>,
}

impl Unspool {
    /// Opens a file of [`Spool`].
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path) -> Result<Unspool> {
        Ok(Unspool { file: BufReader::with_capacity(1 << 18, fs_err::File::open(path)?) })
    }

    fn bytes<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
    fn float(&mut self) -> std::io::Result<f64> {
        self.bytes().map(f64::from_le_bytes)
    }
    fn count(&mut self) -> std::io::Result<usize> {
        self.bytes().map(|bytes| u32::from_le_bytes(bytes) as usize)
    }
}

impl Samples for Unspool {
    fn next(&mut self, into: &mut Sample) -> Result<bool> {
        let flags = match self.bytes::<1>() {
            Ok([flags]) => flags,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        let (trades, peers) = (self.count()?, self.count()?);
        into.time = i64::from_le_bytes(self.bytes()?);
        for slot in [&mut into.open, &mut into.high, &mut into.low, &mut into.close] {
            *slot = self.float()?;
        }
        (into.volume, into.turnover) = (self.float()?, self.float()?);
        let known = [
            (BOUGHT, &mut into.bought),
            (DEPTH, &mut into.depth),
            (FLOW, &mut into.flow),
            (TOUCH, &mut into.touch),
            (INDEX, &mut into.index),
        ];
        for (flag, slot) in known {
            *slot = if flags & flag > 0 { Some(self.float()?) } else { None };
        }
        into.quote = match flags & QUOTE > 0 {
            true => Some(Quote {
                bid: self.float()?,
                bid_size: self.float()?,
                ask: self.float()?,
                ask_size: self.float()?,
            }),
            false => None,
        };
        into.peers.clear();
        for _ in 0..peers {
            into.peers.push(self.float()?);
        }
        into.trades.clear();
        for _ in 0..trades {
            let time = i64::from_le_bytes(self.bytes()?);
            let (price, size) = (self.float()?, self.float()?);
            let bought = match self.bytes()? {
                [2] => None,
                [side] => Some(side == 1),
            };
            into.trades.push(Trade { time, price, size, bought });
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some() -> impl Strategy<Value = Option<f64>> {
        proptest::option::of(-1e9f64..1e9)
    }

    fn sample() -> impl Strategy<Value = Sample> {
        let plain = (any::<i64>(), proptest::array::uniform6(-1e9f64..1e9));
        let trade = (any::<i64>(), 0f64..1e6, 0f64..1e6, proptest::option::of(any::<bool>()));
        let trades = proptest::collection::vec(trade, 0..5);
        let peers = proptest::collection::vec(0f64..1e4, 0..4);
        let quote = proptest::option::of(proptest::array::uniform4(0f64..1e6));
        let known = (some(), some(), some(), some(), some());
        (plain, trades, peers, quote, known).prop_map(
            |((time, x), trades, peers, quote, (bought, depth, flow, touch, index))| Sample {
                time,
                open: x[0],
                high: x[1],
                low: x[2],
                close: x[3],
                volume: x[4],
                turnover: x[5],
                bought,
                trades: trades
                    .into_iter()
                    .map(|(time, price, size, bought)| Trade { time, price, size, bought })
                    .collect(),
                quote: quote.map(|[bid, bid_size, ask, ask_size]| Quote {
                    bid,
                    bid_size,
                    ask,
                    ask_size,
                }),
                depth,
                flow,
                touch,
                index,
                peers,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_read_is_what_was_written(samples in proptest::collection::vec(sample(), 0..20)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("spool");
            let mut spool = Spool::create(&path).unwrap();
            samples.iter().for_each(|sample| spool.push(sample).unwrap());
            spool.finish().unwrap();
            let mut file = Unspool::open(&path).unwrap();
            let mut read = Sample::default();
            for sample in &samples {
                prop_assert!(file.next(&mut read).unwrap());
                prop_assert_eq!(&read, sample);
            }
            prop_assert!(!file.next(&mut read).unwrap());
        }
    }
}
