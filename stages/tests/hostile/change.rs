//! Changes of a file, by number.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What numbers in JSON become.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "2",
    "65535",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e400",
    "0.5",
    "null",
    "\"7\"",
    "[]",
];

/// The bytes with change `n`. Four of five are near the front, where headers are.
pub fn changed(bytes: &[u8], n: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(n);
    let mut out = bytes.to_vec();
    let mut pick = |below: usize| (rng.next_u64() % below.max(1) as u64) as usize;
    for _ in 0..1 + pick(2) {
        let reach = if pick(5) > 0 { out.len().min(4096) } else { out.len() };
        let at = pick(reach);
        let run = out.len().min(at + 8);
        match pick(7) {
            0 | 1 => out[at] ^= 1 << pick(8),
            2 => out[at..run].fill([0, 255, 127][pick(3)]),
            3 => out[at] = pick(256) as u8,
            4 if pick(2) == 0 => out.truncate(at),
            5 => {
                let part: Vec<u8> = out[at..(at + pick(64)).min(out.len())].to_vec();
                out.splice(at..at, part);
            }
            _ => number(&mut out, at, NUMBERS[pick(NUMBERS.len())]),
        }
        if out.is_empty() {
            break;
        }
    }
    out
}

/// Puts another number for the first one from `at` on.
fn number(out: &mut Vec<u8>, at: usize, new: &str) {
    let Some(start) = out[at..].iter().position(u8::is_ascii_digit) else { return };
    let start = at + start;
    let len = out[start..].iter().take_while(|c| c.is_ascii_digit()).count();
    out.splice(start..start + len, new.bytes());
}
