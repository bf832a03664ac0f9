//! What is run again and what is not, beyond the list in `semantics`.

use crate::space::Space;

const CHAIN: &str = r#"
version: 1
vars: { word: hello }
inputs:
  text: data.txt
stages:
  upper:
    uses: command
    from: { text: text }
    with:
      run: "echo upper >> log; tr a-z A-Z < {in.text} > {out.upper}"
      outputs: { upper: out/upper.txt }
  first:
    uses: command
    from: { upper: upper }
    with:
      run: "echo first >> log; head -n 1 {in.upper} > {out.first}"
      outputs: { first: out/first.txt }
  greet:
    uses: command
    from: { first: first }
    with:
      run: "echo greet >> log; echo ${word} $(cat {in.first}) > {out.greeting}"
      outputs: { greeting: out/greeting.txt }
"#;

fn chain() -> Space {
    let space = Space::new(CHAIN);
    space.write("data.txt", "world\nsecond line\n");
    assert!(space.run().ok().ran(&["upper", "first", "greet"]));
    assert_eq!(space.read("out/greeting.txt"), "hello WORLD\n");
    space
}

#[test]
fn a_changed_value_reruns_what_uses_it_and_says_so() {
    let space = chain();
    let plan = space.quantmill(&["plan", "--set", "word=bye"]).ok();
    assert!(plan.out.contains("hit     upper"), "{}", plan.out);
    assert!(plan.out.contains("run     greet command   run: "), "{}", plan.out);
    let ended = space.quantmill(&["run", "--set", "word=bye"]).ok();
    assert!(ended.ran(&["greet"]));
    assert_eq!(space.read("out/greeting.txt"), "bye WORLD\n");
}

#[test]
fn what_was_once_made_comes_back_without_running() {
    let space = chain();
    space.quantmill(&["run", "--set", "word=bye"]).ok();
    let ended = space.run().ok();
    assert!(ended.ran(&[]), "{ended:?}");
    assert_eq!(space.read("out/greeting.txt"), "hello WORLD\n");
    fs_err::remove_dir_all(space.path("out")).unwrap();
    let ended = space.run().ok();
    assert!(ended.ran(&[]));
    assert!(ended.summary().contains("3 cached (3 restored)"), "{ended:?}");
    assert_eq!(space.read("out/greeting.txt"), "hello WORLD\n");
}

#[test]
fn a_lost_blob_is_made_again() {
    let space = chain();
    fs_err::remove_dir_all(space.path(".quantmill/store")).unwrap();
    fs_err::remove_dir_all(space.path("out")).unwrap();
    assert!(space.run().ok().ran(&["upper", "first", "greet"]));
}

#[test]
fn a_lost_index_loses_nothing() {
    let space = chain();
    for file in ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"] {
        let _ = fs_err::remove_file(space.path(".quantmill").join(file));
    }
    assert!(space.run().ok().ran(&[]));
}

#[test]
fn targets_bound_what_runs() {
    let space = Space::new(CHAIN);
    space.write("data.txt", "world\n");
    assert!(space.quantmill(&["run", ".", "first"]).ok().ran(&["upper", "first"]));
    let ended = space.quantmill(&["run", ".", "frist"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("did you mean `first`?"), "{}", ended.err);
}

#[test]
fn the_environment_that_is_named_counts_and_no_other() {
    let space = Space::new(
        r#"
version: 1
stages:
  show:
    uses: command
    env: [QM_NAMED]
    with:
      run: "echo $QM_NAMED $QM_OTHER > {out.x}"
      outputs: { x: out/x }
"#,
    );
    let run = |named: &str, other: &str| {
        let mut command = space.command(&["run"]);
        let out = command.env("QM_NAMED", named).env("QM_OTHER", other).output().unwrap();
        (String::from_utf8_lossy(&out.stderr).contains("done "), space.read("out/x"))
    };
    assert_eq!(run("a", "1"), (true, "a\n".into()));
    assert_eq!(run("a", "2"), (false, "a\n".into()));
    assert_eq!(run("b", "2"), (true, "b\n".into()));
}

#[test]
fn a_lost_store_is_filled_again_from_what_is_in_place() {
    let space = chain();
    fs_err::remove_dir_all(space.path(".quantmill/store")).unwrap();
    assert!(space.run().ok().ran(&[]));
    fs_err::remove_dir_all(space.path("out")).unwrap();
    assert!(space.run().ok().ran(&[]));
    assert_eq!(space.read("out/greeting.txt"), "hello WORLD\n");
}

#[test]
fn force_and_downstream_of_choose_what_runs() {
    let space = chain();
    assert!(space.quantmill(&["run", ".", "--force", "first"]).ok().ran(&["first"]));
    assert!(space.quantmill(&["run", "--force"]).ok().ran(&["upper", "first", "greet"]));
    space.write("data.txt", "moon\nthird line\n");
    let ended = space.quantmill(&["run", ".", "upper", "--downstream-of", "first"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    let ended = space.quantmill(&["run", "--downstream-of", "first"]).ok();
    assert!(ended.ran(&["upper", "first", "greet"]), "what it needs is made too: {ended:?}");
}

/// What a folder holds, by hand: the files in the order of their names, hidden ones left out.
fn listing(space: &Space, folder: &str) -> String {
    let mut names: Vec<String> = fs_err::read_dir(space.path(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    let one = |name: &String| {
        let path = format!("{folder}/{name}");
        match space.path(&path).is_dir() {
            true => listing(space, &path),
            false => format!("{path}={}\n", space.read(&path)),
        }
    };
    names.iter().map(one).collect()
}

#[test]
fn every_edit_in_a_folder_that_was_in_place_is_seen() {
    let space = Space::new(
        r#"
version: 1
inputs: { data: data, csv: "data/**/*.csv" }
stages:
  all:
    uses: command
    from: { data: data }
    with:
      run: "echo all >> log; cd {in.data}/..; export LC_ALL=C; for f in $(find data -type f ! -name '.*' | sort); do echo $f=$(cat $f); done > {out.list}"
      outputs: { list: list.txt }
  tables:
    uses: command
    from: { csv: csv }
    with:
      run: "echo tables >> log; cd {in.csv}; cat $(find . -name '*.csv' | sort) > {out.sum}"
      outputs: { sum: sum.txt }
"#,
    );
    for name in ["a.csv", "b.txt", "c/d.csv", "c/e/f.txt", "c/e/g.csv", "h/.i"] {
        space.write(&format!("data/{name}"), name);
    }
    let settle = || std::thread::sleep(std::time::Duration::from_millis(60));
    let path = |name: &str| space.path(&format!("data/{name}"));
    settle();
    assert!(space.run().ok().ran(&["all", "tables"]));
    type Edit<'a> = (&'a dyn Fn(), &'a [&'a str]);
    let edits: [Edit; 9] = [
        (&|| (), &[]),
        (&|| space.write("data/c/d.csv", "D"), &["all", "tables"]),
        (&|| space.write("data/c/e/f.txt", "F"), &["all"]),
        (&|| space.write("data/h/j.txt", "new"), &["all"]),
        (&|| space.write("data/h/.hidden", "new"), &[]),
        (&|| fs_err::remove_file(path("c/e/g.csv")).unwrap(), &["all", "tables"]),
        (&|| fs_err::rename(path("a.csv"), path("z.csv")).unwrap(), &["all", "tables"]),
        (&|| space.write("data/new/k.csv", "K"), &["all", "tables"]),
        (&|| fs_err::rename(path("new"), path("old")).unwrap(), &["all", "tables"]),
    ];
    for (number, (edit, runs)) in edits.into_iter().enumerate() {
        edit();
        settle();
        let ended = space.run().ok();
        assert!(ended.ran(runs), "edit {number}: {ended:?}");
        assert_eq!(space.read("list.txt"), listing(&space, "data"), "edit {number}");
        assert!(space.run().ok().ran(&[]));
    }
}
