//! Where two files that should be equal are not: the first byte and line that differ, and, where both
//! hold numbers (JSON, JSONL, CSV, safetensors), how far apart these are at most.
//!
//! A distance is relative to the larger number, and absolute below 1: `|a - b| / max(1, |a|, |b|)`.
//! Only numbers may differ in files that have a distance; another word, column or tensor makes them
//! plainly different.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use serde_json::Value;

/// How two files differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The file's name.
    pub file: String,
    /// What is seen, for people.
    pub how: String,
    /// The largest distance of two numbers; `None` where more than numbers differ.
    pub distance: Option<f64>,
}

/// Two numbers that differ, and where.
#[derive(Clone, Debug, Default)]
struct Worst {
    distance: f64,
    at: String,
    pair: (f64, f64),
}

impl Worst {
    fn see(&mut self, a: f64, b: f64, at: impl FnOnce() -> String) {
        let same = a == b || a.is_nan() && b.is_nan();
        let distance = (a - b).abs() / a.abs().max(b.abs()).max(1.0);
        let distance = if distance.is_nan() { f64::INFINITY } else { distance };
        if !same && distance > self.distance {
            *self = Worst { distance, at: at(), pair: (a, b) };
        }
    }
}

/// Compares the bytes of a file with what they were. The name's ending says what is in it.
pub fn bytes(file: &str, old: &[u8], new: &[u8]) -> Option<Difference> {
    if old == new {
        return None;
    }
    let ending = Path::new(file).extension().and_then(|e| e.to_str()).unwrap_or("");
    let worst = match ending {
        "json" => json(old, new),
        "jsonl" | "ndjson" => jsonl(old, new),
        "csv" => table(old, new),
        "safetensors" => tensors(old, new),
        _ => None,
    };
    let first = first(old, new);
    let (how, distance) = match worst {
        Some(worst) if worst.distance > 0.0 => {
            let (a, b) = worst.pair;
            let how =
                format!("largest difference {:.3e}: {a} -> {b} at {}", worst.distance, worst.at);
            (how, Some(worst.distance))
        }
        // The same numbers, written otherwise.
        Some(_) => (first, Some(0.0)),
        None => (first, None),
    };
    Some(Difference { file: file.to_owned(), how, distance })
}

/// The first byte and line that differ.
fn first(old: &[u8], new: &[u8]) -> String {
    let at = old.iter().zip(new).position(|(a, b)| a != b).unwrap_or(old.len().min(new.len()));
    let sizes = match old.len() == new.len() {
        true => format!("{} bytes", old.len()),
        false => format!("{} -> {} bytes", old.len(), new.len()),
    };
    let texts = (std::str::from_utf8(old), std::str::from_utf8(new));
    let (Ok(old), Ok(new)) = texts else {
        return format!("{sizes}, first different byte {at}");
    };
    let before = old.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count();
    let line = |text: &str| text.lines().nth(before).map_or("(no line)".into(), shorten);
    format!("{sizes}, line {}: {} -> {}", before + 1, line(old), line(new))
}

fn shorten(line: &str) -> String {
    match line.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn json(old: &[u8], new: &[u8]) -> Option<Worst> {
    let mut worst = Worst::default();
    walk(&serde_json::from_slice(old).ok()?, &serde_json::from_slice(new).ok()?, "", &mut worst)?;
    Some(worst)
}

fn jsonl(old: &[u8], new: &[u8]) -> Option<Worst> {
    let lines =
        |bytes| -> Option<Vec<&str>> { Some(std::str::from_utf8(bytes).ok()?.lines().collect()) };
    let (old, new) = (lines(old)?, lines(new)?);
    let mut worst = Worst::default();
    for (n, (old, new)) in old.iter().zip(&new).enumerate().filter(|(_, (old, new))| old != new) {
        let (old, new) = (serde_json::from_str(old).ok()?, serde_json::from_str(new).ok()?);
        walk(&old, &new, &format!("line {}", n + 1), &mut worst)?;
    }
    (old.len() == new.len()).then_some(worst)
}

/// Walks two values side by side; `None` where more than numbers differ.
fn walk(old: &Value, new: &Value, at: &str, worst: &mut Worst) -> Option<()> {
    match (old, new) {
        (Value::Number(a), Value::Number(b)) => {
            worst.see(a.as_f64()?, b.as_f64()?, || at.trim_start().to_owned());
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                walk(a, b, &format!("{at}/{n}"), worst)?;
            }
        }
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            for (name, a) in a {
                walk(a, b.get(name)?, &format!("{at}/{name}"), worst)?;
            }
        }
        _ if old == new => {}
        _ => return None,
    }
    Some(())
}

fn table(old: &[u8], new: &[u8]) -> Option<Worst> {
    let reader =
        |bytes| csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let (mut old, mut new) = (reader(old), reader(new));
    let (mut a, mut b) = (csv::ByteRecord::new(), csv::ByteRecord::new());
    let (mut worst, mut line) = (Worst::default(), 0);
    loop {
        line += 1;
        let more = (old.read_byte_record(&mut a).ok()?, new.read_byte_record(&mut b).ok()?);
        match more {
            (false, false) => return Some(worst),
            (true, true) if a.len() == b.len() => {}
            _ => return None,
        }
        for (column, (a, b)) in a.iter().zip(b.iter()).enumerate().filter(|(_, (a, b))| a != b) {
            let number =
                |cell| -> Option<f64> { std::str::from_utf8(cell).ok()?.trim().parse().ok() };
            let at = || format!("line {line}, column {}", column + 1);
            worst.see(number(a)?, number(b)?, at);
        }
    }
}

fn tensors(old: &[u8], new: &[u8]) -> Option<Worst> {
    let (old, new) = (SafeTensors::deserialize(old).ok()?, SafeTensors::deserialize(new).ok()?);
    let mut worst = Worst::default();
    if old.len() != new.len() {
        return None;
    }
    for (name, a) in old.iter() {
        let b = new.tensor(name).ok()?;
        if a.dtype() != b.dtype() || a.shape() != b.shape() {
            return None;
        }
        if a.data() == b.data() {
            continue;
        }
        let (a, b) = (numbers(a.dtype(), a.data())?, numbers(b.dtype(), b.data())?);
        for (n, (a, b)) in a.zip(b).enumerate() {
            worst.see(a, b, || format!("{name}[{n}]"));
        }
    }
    Some(worst)
}

/// The numbers of a tensor; `None` for types that hold no real numbers of a whole number of bytes.
fn numbers(dtype: Dtype, data: &[u8]) -> Option<Box<dyn Iterator<Item = f64> + '_>> {
    fn read<const N: usize>(
        data: &[u8],
        number: fn([u8; N]) -> f64,
    ) -> Option<Box<dyn Iterator<Item = f64> + '_>> {
        let chunks = data.chunks_exact(N);
        Some(Box::new(chunks.map(move |chunk| chunk.try_into().map_or(f64::NAN, number))))
    }
    match dtype {
        Dtype::F64 => read(data, f64::from_le_bytes),
        Dtype::F32 => read(data, |b| f32::from_le_bytes(b).into()),
        Dtype::F16 => read(data, |b| half::f16::from_le_bytes(b).to_f64()),
        Dtype::BF16 => read(data, |b| half::bf16::from_le_bytes(b).to_f64()),
        Dtype::I64 => read(data, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => read(data, |b| i32::from_le_bytes(b).into()),
        Dtype::I16 => read(data, |b| i16::from_le_bytes(b).into()),
        Dtype::I8 => read(data, |b| i8::from_le_bytes(b).into()),
        Dtype::U8 => read(data, |b| u8::from_le_bytes(b).into()),
        Dtype::U32 => read(data, |b| u32::from_le_bytes(b).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::tensor::TensorView;

    use super::*;

    fn seen(file: &str, old: &[u8], new: &[u8]) -> (Option<f64>, String) {
        let seen = bytes(file, old, new).unwrap();
        (seen.distance, seen.how)
    }

    #[test]
    fn numbers_have_a_distance_and_words_have_none() {
        assert_eq!(bytes("a.json", b"1", b"1"), None);
        let (distance, how) =
            seen("a.json", br#"{"a":[1,2.0],"b":"x"}"#, br#"{"b":"x","a":[1,2.5]}"#);
        assert_eq!(distance, Some(0.2));
        assert!(how.ends_with("2 -> 2.5 at /a/1"), "{how}");
        assert_eq!(seen("a.json", b"{\"a\":1}", b"{\"a\":1.0}").0, Some(0.0));
        assert_eq!(seen("a.json", br#"{"a":"x"}"#, br#"{"a":"y"}"#).0, None);
        assert_eq!(seen("a.json", br#"{"a":1}"#, br#"{"b":1}"#).0, None);
        let (distance, how) = seen("a.jsonl", b"{\"l\":1}\n{\"l\":2}\n", b"{\"l\":1}\n{\"l\":4}\n");
        assert_eq!(distance, Some(0.5));
        assert!(how.ends_with("at line 2/l"), "{how}");
        assert_eq!(seen("a.jsonl", b"1\n", b"1\n2\n").0, None);
        let (distance, how) = seen("a.csv", b"d,x\nmon,0.5\n", b"d,x\nmon,0.25\n");
        assert_eq!(distance, Some(0.25));
        assert!(how.ends_with("at line 2, column 2"), "{how}");
        assert_eq!(seen("a.csv", b"d,x\nmon,1\n", b"d,x\ntue,1\n").0, None);
        assert_eq!(seen("a.json", b"{\"a\":1e308}", b"{\"a\":-1e308}").0, Some(f64::INFINITY));
    }

    #[test]
    fn other_files_have_a_first_byte_and_line() {
        let (distance, how) = seen("a.txt", b"one\ntwo\n", b"one\nthree\n");
        assert_eq!((distance, how.as_str()), (None, "8 -> 10 bytes, line 2: two -> three"));
        let (_, how) = seen("a.bin", &[0, 255, 1], &[0, 255, 2]);
        assert_eq!(how, "3 bytes, first different byte 2");
        let (_, how) = seen("a.txt", b"one\n", b"one\ntwo\n");
        assert_eq!(how, "4 -> 8 bytes, line 2: (no line) -> two");
    }

    #[test]
    fn weights_are_compared_by_number() {
        let file = |values: [f32; 2], name: &str| {
            let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let view = TensorView::new(Dtype::F32, vec![2], &data).unwrap();
            safetensors::serialize(HashMap::from([(name, view)]), None).unwrap()
        };
        let (distance, how) =
            seen("w.safetensors", &file([1.0, 2.0], "w"), &file([1.0, 2.25], "w"));
        assert!((distance.unwrap() - 0.25 / 2.25).abs() < 1e-9);
        assert!(how.ends_with("2 -> 2.25 at w[1]"), "{how}");
        assert_eq!(seen("w.safetensors", &file([1.0, 2.0], "w"), &file([1.0, 2.0], "v")).0, None);
        let mut half = half::bf16::from_f32(1.5).to_le_bytes().to_vec();
        assert_eq!(numbers(Dtype::BF16, &half).unwrap().next(), Some(1.5));
        half.truncate(1);
        assert_eq!(numbers(Dtype::BF16, &half).unwrap().next(), None);
    }
}
