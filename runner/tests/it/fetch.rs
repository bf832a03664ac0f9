//! Sources that lie elsewhere.

use std::io::{Read, Write};
use std::net::TcpListener;

use quantmill_cache::Digest;

use crate::space::{Space, skip};

fn pipeline(url: &str) -> String {
    format!(
        "version: 1\ninputs: {{ x: '{url}' }}\nstages:\n  a: {{ uses: command, from: {{ x: x }}, with: {{ run: 'cat {{in.x}} > {{out.y}}', outputs: {{ y: out/a }} }} }}\n"
    )
}

/// Answers `times` requests with these bytes; where it listens.
fn serve(bytes: &'static [u8], times: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for _ in 0..times {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).unwrap();
            stream.write_all(bytes).unwrap();
        }
    });
    format!("http://{address}/day.csv")
}

#[test]
fn a_mirror_is_looked_at_by_content_and_the_store_after_it() {
    let digest = Digest::of(b"1,2\n");
    // Nobody listens there.
    let space = Space::new(&pipeline(&format!("http://127.0.0.1:9/day.csv#blake3={digest}")));
    let mirror = tempfile::tempdir().unwrap();
    std::fs::create_dir(mirror.path().join("below")).unwrap();
    std::fs::write(mirror.path().join("other"), "3,4\n").unwrap();
    std::fs::write(mirror.path().join("below/any name"), "1,2\n").unwrap();
    let mut command = space.command(&["run"]);
    let ran = command.env("QUANTMILL_MIRROR", mirror.path()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(space.read("out/a"), "1,2\n");
    // The store has it now.
    std::fs::remove_dir_all(mirror.path()).unwrap();
    let ended = space.quantmill(&["run", "--force", "a"]);
    assert_eq!((ended.code, ended.ran(&["a"])), (0, true), "{ended:?}");
    let ended = space.quantmill(&["run"]);
    assert!(ended.ran(&[]), "{ended:?}");
}

#[test]
fn a_url_is_fetched_once_and_another_content_is_refused() {
    if std::process::Command::new("curl").arg("--version").output().is_err() {
        return skip("there is no `curl`");
    }
    let digest = Digest::of(b"fetched\n");
    let space = Space::new(&pipeline(&format!("{}#blake3={digest}", serve(b"fetched\n", 1))));
    let ended = space.quantmill(&["run"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.err.contains("fetching http://127.0.0.1"), "{ended:?}");
    assert_eq!(space.read("out/a"), "fetched\n");

    let other = Space::new(&pipeline(&format!("{}#blake3={digest}", serve(b"another\n", 1))));
    let ended = other.quantmill(&["run"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("holds something else now: its digest is"), "{ended:?}");
    assert!(!other.path("out/a").exists());
}

#[test]
fn a_url_without_a_digest_is_a_mistake_of_the_file() {
    for (url, said) in [
        ("https://host/day.csv", "has no digest: what it holds could change"),
        ("https://host/day.csv#blake3=abc", "`abc` is not a BLAKE3 digest"),
        (&format!("https://host/#blake3={}", Digest::of(b"")), "names no file"),
    ] {
        let ended = Space::new(&pipeline(url)).quantmill(&["check"]);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.err.contains(said), "{ended:?}");
    }
}
