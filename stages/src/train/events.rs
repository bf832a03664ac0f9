//! The log as TensorBoard reads it: one event file of scalars.
//!
//! The format is TFRecord (length, its checksum, bytes, their checksum) around protocol buffers
//! (`tensorflow/core/util/event.proto`). No clock: step `n` is written as `n` seconds after the
//! epoch, so that the same run gives the same bytes. Choose "step" as the horizontal axis.

use super::log::Row;

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
