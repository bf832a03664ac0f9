//! A disk that is damaged, full, or read-only.
//!
//! What needs a mount of its own is opt-in (`QUANTMILL_TEST_MOUNT=1`, as root); the rest damages the
//! state folder byte by byte and looks at what is believed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::space::{Space, long, skip};

/// A file, a folder, a built-in stage over items, and one that reads them all.
const PIPELINE: &str = r#"
version: 1
stages:
  file: { uses: command, from: { x: ./x }, with: { run: "tr a-z A-Z < {in.x} > {out.y}", outputs: { y: out/file } } }
  folder: { uses: command, from: { x: file }, with: { run: "for i in 1 2 3; do sed s/A/$i/ {in.x} > {out.y}/$i; done", outputs: { y: out/folder/ } } }
  text: { uses: extract, from: ./docs }
  all: { uses: command, from: { a: file, b: folder, c: text }, with: { run: "cat {in.a} {in.b}/* {in.c}/*.txt > {out.y}", outputs: { y: out/all } } }
"#;

const STAGES: [&str; 4] = ["file", "folder", "text", "all"];
const ALL: &str = "ABC\n1BC\n2BC\n3BC\nBonds fell.\nRates rose.\n";

fn made() -> Space {
    let space = Space::quick(PIPELINE);
    space.write("x", "abc\n");
    space.write("docs/a.txt", "Bonds fell.\n");
    space.write("docs/b.txt", "Rates rose.\n");
    assert!(space.run().ok().ran(&STAGES));
    right(&space);
    space
}

/// Every output is what it must be.
fn right(space: &Space) {
    assert_eq!(space.read("out/file"), "ABC\n");
    for i in 1..=3 {
        assert_eq!(space.read(&format!("out/folder/{i}")), format!("{i}BC\n"));
    }
    assert_eq!(space.read("out/text/text/a.txt"), "Bonds fell.\n");
    assert_eq!(space.read("out/text/text/b.txt"), "Rates rose.\n");
    assert_eq!(space.read("out/all"), ALL);
}

/// The files below a folder of the state folder, in a stable order.
fn files(space: &Space, below: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![space.path(".quantmill").join(below)]);
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Changes bytes of a file, whatever its mode.
fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs_err::read(path).unwrap();
    change(&mut bytes);
    fs_err::remove_file(path).unwrap();
    fs_err::write(path, bytes).unwrap();
}

fn lose_index(space: &Space) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs_err::remove_file(space.path(&format!(".quantmill/index.sqlite{suffix}")));
    }
}

#[test]
fn a_torn_index_is_made_again() {
    let space = made();
    let index = space.path(".quantmill/index.sqlite");
    for suffix in ["-wal", "-shm"] {
        let _ = fs_err::remove_file(space.path(&format!(".quantmill/index.sqlite{suffix}")));
    }
    let whole = fs_err::read(&index).unwrap();
    let mut damaged: Vec<Vec<u8>> = vec![Vec::new(), b"no database".repeat(1000)];
    let step = if long() { 97 } else { 4001 };
    damaged.extend((1..whole.len()).step_by(step).map(|length| whole[..length].to_vec()));
    damaged.extend((0..whole.len()).step_by(step).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        bytes
    }));
    damaged.extend((0..whole.len() / 4096).map(|page| {
        let mut bytes = whole.clone();
        bytes[page * 4096..][..4096].fill(0);
        bytes
    }));
    for (i, bytes) in damaged.iter().enumerate() {
        fs_err::write(&index, bytes).unwrap();
        if i % 2 == 0 {
            fs_err::remove_dir_all(space.path("out")).unwrap();
        }
        let ended = space.run().ok();
        assert!(ended.ran(&[]), "damage {i}: {ended:?}");
        right(&space);
        lose_index(&space);
    }
}

#[test]
fn a_torn_record_is_not_believed() {
    let space = made();
    let records = files(&space, "actions");
    assert!(records.len() >= STAGES.len());
    for (i, record) in records.iter().enumerate() {
        lose_index(&space);
        match i % 4 {
            0 => damage(record, |bytes| bytes.truncate(bytes.len() / 2)),
            1 => damage(record, |bytes| bytes.clear()),
            2 => damage(record, |bytes| bytes.fill(0)),
            // Another action's record.
            _ => drop(fs_err::copy(&records[i - 1], record).unwrap()),
        }
        space.run().ok();
        right(&space);
        assert!(space.run().ok().ran(&[]));
    }
}

/// Damages each blob in turn in one way; the next run, which needs them all, is right.
fn damaged_blobs(change: impl Fn(&mut Vec<u8>)) {
    let space = made();
    for blob in files(&space, "store") {
        damage(&blob, &change);
        fs_err::remove_dir_all(space.path("out")).unwrap();
        let ended = space.run().ok();
        right(&space);
        assert!(space.run().ok().ran(&[]), "after {} {ended:?}", blob.display());
    }
}

#[test]
fn a_flipped_byte_of_a_blob_is_not_believed() {
    damaged_blobs(|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

#[test]
fn a_cut_or_empty_or_longer_blob_is_not_believed() {
    damaged_blobs(|bytes| bytes.truncate(bytes.len() - 1));
    damaged_blobs(Vec::clear);
    damaged_blobs(|bytes| bytes.push(b'x'));
}

#[test]
fn a_stage_never_reads_a_damaged_blob() {
    for blob in files(&made(), "store") {
        let name = blob.strip_prefix(blob.ancestors().nth(2).unwrap()).unwrap().to_owned();
        let space = made();
        damage(&space.path(".quantmill/store").join(name), |bytes| bytes[0] ^= 1);
        // All but the last stage are hits, and their outputs are in their places.
        space.write("pipeline.yaml", &PIPELINE.replace("cat {in.a}", "cat  {in.a}"));
        space.run().ok();
        right(&space);
    }
}

/// A file system of its own, as root.
struct Mount(PathBuf);

impl Mount {
    fn new(at: PathBuf, arguments: &[&str]) -> Mount {
        fs_err::create_dir_all(&at).unwrap();
        let done = Command::new("mount").args(arguments).arg(&at).status().unwrap();
        assert!(done.success(), "mount {arguments:?}");
        Mount(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn may_mount() -> bool {
    let may = std::env::var_os("QUANTMILL_TEST_MOUNT").is_some();
    if !may {
        skip("QUANTMILL_TEST_MOUNT is not set");
    }
    may
}

#[test]
fn a_full_disk_is_an_error_and_no_more() {
    if !may_mount() {
        return;
    }
    let space = Space::new(
        r#"
version: 1
stages:
  a: { uses: command, from: { x: ./x }, with: { run: "head -c 300000 {in.x} > {out.y}", outputs: { y: out/a } } }
  b: { uses: command, from: { x: a }, with: { run: "cat {in.x} {in.x} > {out.y}", outputs: { y: out/b } } }
"#,
    );
    space.write("x", &"0123456789".repeat(30_000));
    let mount = Mount::new(space.path(".quantmill"), &["-t", "tmpfs", "-o", "size=2m", "none"]);
    let filler = mount.0.join("filler");
    for free in (0..2000).step_by(if long() { 20 } else { 200 }) {
        fs_err::write(&filler, vec![0; 2_090_000 - free * 1000]).unwrap_or(());
        let ended = space.run();
        assert!([0, 1, 70].contains(&ended.code), "{free}: {ended:?}");
        if ended.code != 0 {
            let said = ended.err.contains("No space left") || ended.err.contains("no space");
            assert!(said, "{free} KB: {ended:?}");
        }
        fs_err::remove_file(&filler).unwrap();
        space.run().ok();
        assert_eq!(space.read("out/a").len(), 300_000);
        assert_eq!(space.read("out/b").len(), 600_000);
        assert_eq!(space.leftovers(), Vec::<String>::new());
        for entry in fs_err::read_dir(&mount.0).unwrap() {
            let path = entry.unwrap().path();
            let _ = fs_err::remove_dir_all(&path).or_else(|_| fs_err::remove_file(&path));
        }
        fs_err::remove_dir_all(space.path("out")).unwrap();
    }
}

#[test]
fn a_full_workspace_leaves_outputs_as_they_were() {
    if !may_mount() {
        return;
    }
    let space = Space::new(
        r#"
version: 1
vars: { n: 1 }
stages:
  a: { uses: command, with: { run: "for i in 1 2 3 4 5 6 7 8; do head -c 100000 /dev/zero | tr '\\0' ${n} > {out.y}/$i; done", outputs: { y: out/a/ } } }
"#,
    );
    let mount = Mount::new(space.path("out"), &["-t", "tmpfs", "-o", "size=1m", "none"]);
    space.run().ok();
    fs_err::write(mount.0.join("filler"), vec![0; 220_000]).unwrap();
    let ended = space.quantmill(&["run", "--set", "n=2"]);
    assert_eq!(ended.code, 70, "{ended:?}");
    assert!(ended.err.contains("No space left"), "{ended:?}");
    for i in 1..=8 {
        let text = space.read(&format!("out/a/{i}"));
        assert!(text.len() == 100_000 && ["1", "2"].iter().any(|n| text.replace(n, "").is_empty()));
    }
    assert_eq!(space.leftovers(), Vec::<String>::new());
    fs_err::remove_file(mount.0.join("filler")).unwrap();
    assert!(space.quantmill(&["run", "--set", "n=2"]).ok().ran(&[]));
    assert!((1..=8).all(|i| space.read(&format!("out/a/{i}")).replace('2', "").is_empty()));
}

#[test]
fn a_read_only_state_folder_says_so() {
    if !may_mount() {
        return;
    }
    let space = made();
    let home = space.path(".quantmill");
    let text = home.display().to_string();
    let _mount = Mount::new(home, &["--bind", &text]);
    let remount = |how: &str| {
        let how = format!("remount,bind,{how}");
        assert!(Command::new("mount").args(["-o", &how, &text]).status().unwrap().success());
    };
    remount("ro");
    let plan = space.quantmill(&["plan"]);
    assert_eq!(plan.code, 0, "{plan:?}");
    space.write("x", "abd\n");
    let ended = space.run();
    assert_eq!(ended.code, 70, "{ended:?}");
    assert!(ended.err.contains("Read-only file system"), "{ended:?}");
    remount("rw");
    assert!(space.run().ok().ran(&["file", "folder", "all"]));
    space.write("x", "abc\n");
    assert!(space.run().ok().ran(&[]));
    right(&space);
}
