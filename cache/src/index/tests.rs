//! What the index must never believe, and what it must not forget.

use std::collections::BTreeMap;

use super::*;
use crate::stamp::TICK;

fn space() -> (tempfile::TempDir, Store, Index) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let index = Index::open(&store).unwrap();
    (dir, store, index)
}

fn key(stage: &str) -> ActionKey {
    ActionKey {
        stage: stage.into(),
        version: 1,
        params: serde_json::json!({}),
        inputs: BTreeMap::new(),
        item: None,
        seed: None,
        device: None,
        env: BTreeMap::new(),
        secrets: Vec::new(),
    }
}

#[test]
fn a_result_is_believed_only_while_its_blobs_are_there() {
    let (_dir, store, index) = space();
    let digest = store.put(b"out").unwrap();
    let outputs = BTreeMap::from([("text".into(), Artifact::File(digest))]);
    let result = ActionResult { outputs, millis: 5, ..ActionResult::default() };
    let key = key("a");
    assert_eq!(index.get(&key.digest(), &store).unwrap(), None);
    index.put(&key, &result).unwrap();
    assert_eq!(index.get(&key.digest(), &store).unwrap(), Some(result.clone()));
    fs_err::remove_file(store.path(&digest)).unwrap();
    assert_eq!(index.get(&key.digest(), &store).unwrap(), None);
    assert_eq!(index.remembered(&key.digest()).unwrap(), Some(result));
}

#[test]
fn a_lost_or_torn_database_is_rebuilt() {
    let (dir, store, index) = space();
    index.put(&key("a"), &ActionResult::default()).unwrap();
    drop(index);
    let database = dir.path().join("index.sqlite");
    for damage in [None, Some("not a database at all, and long enough to look like one".repeat(99))]
    {
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", database.display()));
        }
        if let Some(bytes) = damage {
            fs_err::write(&database, bytes).unwrap();
        }
        let index = Index::open(&store).unwrap();
        assert!(index.get(&key("a").digest(), &store).unwrap().is_some());
    }
}

#[test]
fn an_edit_with_the_same_size_and_write_time_is_seen() {
    let (dir, _store, index) = space();
    let path = dir.path().join("file");
    fs_err::write(&path, "one").unwrap();
    let time = fs_err::metadata(&path).unwrap().modified().unwrap();
    std::thread::sleep(TICK * 2);
    assert_eq!(index.file(&path).unwrap().0.digest, Digest::of(b"one"));
    fs_err::write(&path, "two").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    assert_eq!(index.file(&path).unwrap().0.digest, Digest::of(b"two"));
}

#[test]
fn restore_rights_a_folder_and_then_leaves_it_alone() {
    let (dir, store, index) = space();
    let scratch = store.scratch().unwrap();
    let made = scratch.path().join("tree");
    fs_err::create_dir_all(made.join("deep")).unwrap();
    fs_err::write(made.join("a"), "alpha").unwrap();
    fs_err::write(made.join("deep/b"), "beta").unwrap();
    let artifact = store.adopt(&made).unwrap();
    let out = dir.path().join("out");
    assert!(index.restore(&store, &artifact, &out).unwrap());
    assert!(!index.restore(&store, &artifact, &out).unwrap());
    fs_err::write(out.join("a"), "tampered").unwrap();
    fs_err::write(out.join("stray"), "?").unwrap();
    assert!(index.restore(&store, &artifact, &out).unwrap());
    assert_eq!(fs_err::read_to_string(out.join("a")).unwrap(), "alpha");
    assert!(!out.join("stray").exists());
    assert_eq!(store.put_tree(&index.folder(&out).unwrap()).unwrap(), artifact);
}

/// A result whose blob was written under one boot, and what a later boot finds.
fn after_a_crash(bytes: &str) -> (tempfile::TempDir, Option<ActionResult>, Digest) {
    let dir = tempfile::tempdir().unwrap();
    let before = Store::open_in(dir.path(), Some("before".into())).unwrap();
    let index = Index::open(&before).unwrap();
    let digest = before.put(b"whole").unwrap();
    let outputs = BTreeMap::from([("text".into(), Artifact::File(digest))]);
    index.put(&key("a"), &ActionResult { outputs, ..ActionResult::default() }).unwrap();
    drop(index);
    let blob = before.path(&digest);
    fs_err::remove_file(&blob).unwrap();
    fs_err::write(&blob, bytes).unwrap();
    let same = Index::open(&before).unwrap();
    assert!(same.get(&key("a").digest(), &before).unwrap().is_some(), "the same boot");
    let after = Store::open_in(dir.path(), Some("after".into())).unwrap();
    let index = Index::open(&after).unwrap();
    let found = index.get(&key("a").digest(), &after).unwrap();
    (dir, found, digest)
}

#[test]
fn what_another_boot_left_is_believed_once_it_was_read() {
    assert!(after_a_crash("whole").1.is_some());
    // As a file may be whose length reached the disk before its bytes did.
    let (dir, found, digest) = after_a_crash("\0\0\0\0\0");
    assert_eq!(found, None);
    let store = Store::open(dir.path()).unwrap();
    assert!(!store.has(&digest, None), "the torn blob is gone");
    assert_eq!(store.put(b"whole").unwrap(), digest);
    assert_eq!(store.read(&digest).unwrap(), b"whole");
}

#[test]
fn what_was_synced_needs_no_reading() {
    let dir = tempfile::tempdir().unwrap();
    let before = Store::open_in(dir.path(), Some("before".into())).unwrap();
    let index = Index::open(&before).unwrap();
    let digest = before.put(b"whole").unwrap();
    let outputs = BTreeMap::from([("text".into(), Artifact::File(digest))]);
    let result = ActionResult { outputs, ..ActionResult::default() };
    index.put(&key("early"), &result).unwrap();
    index.flush_rows();
    index.put(&key("late"), &result).unwrap();
    index.sync().unwrap();
    drop(index);
    let blob = before.path(&digest);
    fs_err::remove_file(&blob).unwrap();
    fs_err::write(&blob, "other").unwrap();
    let after = Store::open_in(dir.path(), Some("after".into())).unwrap();
    let index = Index::open(&after).unwrap();
    for stage in ["early", "late"] {
        assert!(index.get(&key(stage).digest(), &after).unwrap().is_some());
    }
}

#[test]
fn another_run_sees_a_result_at_once() {
    let (_dir, store, index) = space();
    let other = Index::open(&store).unwrap();
    index.put(&key("a"), &ActionResult::default()).unwrap();
    assert!(other.get(&key("a").digest(), &store).unwrap().is_some());
    let text = fs_err::read_to_string(index.path(&key("a").digest())).unwrap();
    fs_err::write(index.path(&key("b").digest()), text).unwrap();
    assert_eq!(other.get(&key("b").digest(), &store).unwrap(), None, "another action's record");
}

#[test]
fn a_large_tree_is_held_while_all_of_it_is_there() {
    let (_dir, store, index) = space();
    let names: Vec<String> = (0..600).map(|i| format!("file {i}")).collect();
    let entries = names.iter().map(|name| {
        let digest = store.put(name.as_bytes()).unwrap();
        (name.clone(), Entry { digest, size: name.len() as u64, executable: false })
    });
    let tree = Tree { entries: entries.collect() };
    let artifact = store.put_tree(&tree).unwrap();
    std::thread::sleep(TICK * 2);
    for _ in 0..3 {
        assert!(proof::holds(&index.database, &store, &artifact));
    }
    let lost = store.path(&tree.entries["file 7"].digest);
    fs_err::rename(&lost, lost.with_extension("aside")).unwrap();
    assert!(!proof::holds(&index.database, &store, &artifact));
    assert!(!proof::holds(&index.database, &store, &artifact));
    fs_err::rename(lost.with_extension("aside"), &lost).unwrap();
    assert!(proof::holds(&index.database, &store, &artifact));
}

#[test]
fn outputs_are_remembered_as_they_were_written() {
    let (dir, store, index) = space();
    let digest = store.put(b"bytes").unwrap();
    let out = dir.path().join("out/file");
    index.restore(&store, &Artifact::File(digest), &out).unwrap();
    let known = index.files.listing(&index.database, out.parent().unwrap(), |l| l.get("file"));
    assert_eq!(known.map(|known| known.stamp), Some(Stamp::read(&out).unwrap()));
    // At once, with the same length: another time of writing tells.
    fs_err::write(&out, "BYTES").unwrap();
    assert_eq!(index.file(&out).unwrap().0.digest, Digest::of(b"BYTES"));
}

#[test]
fn forgotten_rows_give_their_room_back() {
    let (dir, store, index) = space();
    let size = || fs_err::metadata(dir.path().join("index.sqlite")).unwrap().len();
    let result = ActionResult { warnings: vec!["w".repeat(2000)], ..ActionResult::default() };
    let keys: Vec<ActionKey> = (0..1500).map(|n| key(&n.to_string())).collect();
    keys.iter().for_each(|key| index.put(key, &result).unwrap());
    index.sync().unwrap();
    let all: Vec<Digest> = keys.iter().map(ActionKey::digest).collect();
    index.forget(&all[100..]).unwrap();
    let tree = Digest::of(b"a tree that is gone");
    index.database.with(|connection| {
        let sql = "INSERT INTO proofs VALUES (?1, x'00')";
        connection.execute(sql, [tree.as_bytes()])
    });
    // A row whose file somebody has removed.
    fs_err::remove_file(index.path(&all[0])).unwrap();
    index.shrink().unwrap();
    assert!(size() < 600 << 10, "{}", size());
    assert_eq!(fs_err::metadata(dir.path().join("index.sqlite-wal")).unwrap().len(), 0);
    let rows = |table: &str| -> i64 {
        let count = format!("SELECT COUNT(*) FROM {table}");
        index.database.with(|c| c.query_row(&count, [], |row| row.get(0))).unwrap()
    };
    assert_eq!((rows("actions"), rows("proofs")), (99, 0));
    drop(index);
    let index = Index::open(&store).unwrap();
    let known = |key: &&Digest| index.remembered(key).unwrap().is_some();
    assert_eq!(
        all.iter().filter(known).collect::<Vec<_>>(),
        all[1..100].iter().collect::<Vec<_>>()
    );
}
