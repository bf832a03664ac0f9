//! The log as TensorBoard reads it: one event file of scalars.
//!
//! The format is TFRecord (length, its checksum, bytes, their checksum) around protocol buffers
//! (`tensorflow/core/util/event.proto`). No clock: step `n` is written as `n` seconds after the
//! epoch, so that the same run gives the same bytes. Choose "step" as the horizontal axis.
//!
//! [`read`] takes back what [`file`] writes: a model's folder holds its event file, so that what is known
//! of a training goes with the model.

pub(crate) use super::log::Row;

/// The file's name, which TensorBoard goes by.
pub const NAME: &str = "events.out.tfevents.0.quantmill";

/// The bytes of an event file of all numbers of all rows.
pub fn file(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut first = time(0);
    bytes(&mut first, 3, b"brain.Event:2");
    record(&mut out, &first);
    for row in rows {
        let mut summary = Vec::new();
        for (name, number) in &row.numbers {
            let mut value = Vec::new();
            bytes(&mut value, 1, name.as_bytes());
            value.push(2 << 3 | 5);
            value.extend((*number as f32).to_le_bytes());
            bytes(&mut summary, 1, &value);
        }
        let mut event = time(row.step);
        event.push(2 << 3);
        varint(&mut event, row.step as u64);
        bytes(&mut event, 5, &summary);
        record(&mut out, &event);
    }
    out
}

/// The rows of an event file of scalars, as [`file`] writes it; numbers are those of an f32. `None` where
/// a record is cut off, or its checksum is another.
pub fn read(mut file: &[u8]) -> Option<Vec<Row>> {
    let mut rows = Vec::new();
    while !file.is_empty() {
        let length = file.get(..8)?;
        let sum = u32::from_le_bytes(file.get(8..12)?.try_into().ok()?);
        let size = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let content = file.get(12..size.checked_add(12)?)?;
        let end = size.checked_add(16)?;
        let own = u32::from_le_bytes(file.get(size + 12..end)?.try_into().ok()?);
        if masked(length) != sum || masked(content) != own {
            return None;
        }
        file = &file[end..];
        let mut row = Row { step: 0, numbers: Vec::new() };
        for (field, value) in fields(content)? {
            match (field, value) {
                (2, Field::Number(step)) => row.step = usize::try_from(step).ok()?,
                (5, Field::Bytes(summary)) => {
                    for (_, value) in fields(summary)?.into_iter().filter(|(field, _)| *field == 1)
                    {
                        let Field::Bytes(value) = value else { return None };
                        row.numbers.extend(scalar(value)?);
                    }
                }
                _ => {}
            }
        }
        if !row.numbers.is_empty() {
            rows.push(row);
        }
    }
    Some(rows)
}

/// The name and the number of a value of a summary; none where it is no scalar.
fn scalar(value: &[u8]) -> Option<Option<(String, f64)>> {
    let (mut name, mut number) = (None, None);
    for (field, value) in fields(value)? {
        match (field, value) {
            (1, Field::Bytes(tag)) => name = Some(std::str::from_utf8(tag).ok()?.to_owned()),
            (2, Field::Fixed(bits)) => number = Some(f64::from(f32::from_bits(bits))),
            _ => {}
        }
    }
    Some(name.zip(number))
}

enum Field<'a> {
    Number(u64),
    Fixed(u32),
    Bytes(&'a [u8]),
    /// Eight bytes, of which none is needed here.
    Wide,
}

/// The fields of a message by number.
fn fields(mut message: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut all = Vec::new();
    while !message.is_empty() {
        let key = number(&mut message)?;
        let mut take = |size: usize| {
            let (taken, rest) = message.split_at_checked(size)?;
            message = rest;
            Some(taken)
        };
        let value = match key & 7 {
            0 => Field::Number(number(&mut message)?),
            1 => take(8).map(|_| Field::Wide)?,
            2 => {
                let size = usize::try_from(number(&mut message)?).ok()?;
                let (taken, rest) = message.split_at_checked(size)?;
                message = rest;
                Field::Bytes(taken)
            }
            5 => Field::Fixed(u32::from_le_bytes(take(4)?.try_into().ok()?)),
            _ => return None,
        };
        all.push((key >> 3, value));
    }
    Some(all)
}

fn number(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for (at, byte) in message.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f).checked_shl(7 * at as u32)?;
        if byte & 0x80 == 0 {
            *message = &message[at + 1..];
            return Some(number);
        }
    }
    None
}

/// An event that begins with its time.
fn time(seconds: usize) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1];
    event.extend((seconds as f64).to_le_bytes());
    event
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn bytes(out: &mut Vec<u8>, field: u8, content: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

fn record(out: &mut Vec<u8>, content: &[u8]) {
    let length = (content.len() as u64).to_le_bytes();
    out.extend(length);
    out.extend(masked(&length).to_le_bytes());
    out.extend(content);
    out.extend(masked(content).to_le_bytes());
}

/// CRC-32C, rotated and shifted as TFRecord has it, so that checksums of checksums differ.
fn masked(content: &[u8]) -> u32 {
    crc(content).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: a log is small.
fn crc(content: &[u8]) -> u32 {
    !content.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the polynomial, and one of RFC 3720, appendix B.4.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc(b"123456789"), 0xe306_9283);
        assert_eq!(crc(&[0; 32]), 0x8a91_36aa);
    }

    fn rows() -> Vec<Row> {
        let row = |step: usize| Row {
            step,
            numbers: vec![("loss".into(), 3.0 / step as f64), ("lr".into(), 1e-4)],
        };
        (1..=300).map(row).collect()
    }

    #[test]
    fn a_record_is_length_checksum_bytes_checksum() {
        let file = file(&rows()[..1]);
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        assert_eq!(&file[12 + 9 + 2..12 + length], b"brain.Event:2");
        let next = &file[12 + length + 4..];
        let length = u64::from_le_bytes(next[..8].try_into().unwrap()) as usize;
        assert_eq!(next.len(), 12 + length + 4);
        let sum = u32::from_le_bytes(next[8..12].try_into().unwrap());
        assert_eq!(sum, masked(&next[..8]));
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_not() {
        let whole = file(&rows());
        let back = read(&whole).unwrap();
        assert_eq!(back.len(), 300);
        for (row, got) in rows().iter().zip(&back) {
            assert_eq!(row.step, got.step);
            for ((name, number), (own, other)) in row.numbers.iter().zip(&got.numbers) {
                assert_eq!((name, f64::from(*number as f32)), (own, *other));
            }
        }
        assert_eq!(read(&[]), Some(Vec::new()));
        assert_eq!(read(&whole[..whole.len() - 1]), None);
        for at in (0..200).chain([whole.len() - 9]) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(read(&damaged), None, "byte {at}");
        }
    }

    /// Opt-in, with the `tensorboard` package: `QUANTMILL_TEST_PYTHON=1`.
    #[test]
    fn tensorboard_reads_it() {
        if std::env::var_os("QUANTMILL_TEST_PYTHON").is_none() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join(NAME), file(&rows())).unwrap();
        let script = "
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0}); events.Reload()
assert sorted(events.Tags()['scalars']) == ['loss', 'lr'], events.Tags()
loss = events.Scalars('loss')
assert [e.step for e in loss] == list(range(1, 301))
assert all(abs(e.value - 3 / e.step) < 1e-6 for e in loss)
";
        let read = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(dir.path())
            .output()
            .unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    }
}
