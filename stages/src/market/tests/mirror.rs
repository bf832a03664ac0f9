//! Real data that is too large to keep here, looked up by digest below the folder that the environment
//! names as `QUANTMILL_MIRROR`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use quantmill_cache::Digest;

/// The file with a digest (BLAKE3, in hex), or a message that the test does not run.
pub fn file(digest: &str) -> Option<PathBuf> {
    let found = files().get(digest).cloned();
    if found.is_none() {
        println!("not run: no file {digest} below QUANTMILL_MIRROR");
    }
    found
}

fn files() -> &'static BTreeMap<String, PathBuf> {
    static FILES: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = BTreeMap::new();
        let mut folders: Vec<PathBuf> =
            std::env::var_os("QUANTMILL_MIRROR").map(PathBuf::from).into_iter().collect();
        while let Some(folder) = folders.pop() {
            for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(digest) = Digest::of_file(&path) {
                    files.insert(String::from_utf8_lossy(&digest.hex()).into_owned(), path);
                }
            }
        }
        files
    })
}

/// The files of a series, where all are there.
pub fn series<const N: usize>(digests: [&str; N]) -> Option<Vec<PathBuf>> {
    digests.into_iter().map(file).collect()
}

/// Spot BTCUSDT, 2024-08-08 23:54 to 2024-08-09 00:05 UTC (nkaz001/hftbacktest, MIT).
pub const SPOT: [&str; 2] = [
    "1db1708f641a507e87dc3bc7b0e9c5485271c69905dd40546ed0152372ce7fff",
    "b7522285b0994b7bbe08e0bb543c14951455ebadf2c6311caf8bfbd34a918537",
];
/// COIN-M BTCUSD perpetual, the same minutes.
pub const COIN: [&str; 2] = [
    "c7fa5f5d7a2272e6a4665fead5bb3d2f5491b2a5e4b38f3ba0b5d7e086ce2489",
    "9da934e3ee5a3a5d21a6e20417126ab472971f118e07cc6b00da6ce022f268d2",
];
/// Bitstamp's orders of five hours of 2015-05-01 (phil8192/ob-analytics).
pub const ORDERS: &str = "f6b44ec7bdffb4384faedc77284fc6c6fc3a002118d41c8fb5d5d3b3d095f46c";
/// One-minute bars of a BTC perpetual (nautilus_trader test data).
pub const MINUTES: &str = "4077f64dde391b9458644136b326fb6247b7d4bc94737978f6777fc2ee76e42e";
