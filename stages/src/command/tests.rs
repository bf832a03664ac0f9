mod sandbox;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Command;
use crate::{Cancel, Context, Job, Kind, Progress, Result, Sandbox, Sink, StageError, testing};

const KIND: Kind = Kind::of::<Command>();

#[derive(Default)]
struct Heard {
    lines: Mutex<Vec<String>>,
    warnings: Mutex<Vec<String>>,
    sandbox: Mutex<String>,
    /// Cancelled when this line is heard.
    stop: Option<(&'static str, Cancel)>,
}

impl Sink for Heard {
    fn progress(&self, _: Progress) {}
    fn metric(&self, _: &str, _: f64) {}
    fn warn(&self, message: &str) {
        self.warnings.lock().unwrap().push(message.into());
    }
    fn sandbox(&self, how: &str) {
        *self.sandbox.lock().unwrap() = how.into();
    }
    fn output(&self, line: &str) {
        self.lines.lock().unwrap().push(line.into());
        if let Some((at, cancel)) = &self.stop
            && *at == line
        {
            cancel.cancel();
        }
    }
}

/// A pipeline's folder, and beside it what the engine makes for an action.
struct Space {
    root: tempfile::TempDir,
    job: Job,
}

impl Space {
    fn new(params: Value) -> Space {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["pipeline", "scratch", "done"] {
            fs_err::create_dir(at(folder)).unwrap();
        }
        let params = (KIND.resolve)(&params).unwrap();
        let mut outputs = BTreeMap::new();
        for port in (KIND.outputs)(&params) {
            let place = at("done").join(format!("{}.part", port.name));
            if port.tree {
                fs_err::create_dir(&place).unwrap();
            }
            outputs.insert(port.name.into_owned(), place);
        }
        let job = Job {
            kind: "command".into(),
            params,
            outputs,
            scratch: at("scratch"),
            dir: at("pipeline"),
            ..Job::default()
        };
        Space { root, job }
    }

    /// Writes a file and feeds it to a port under a name.
    fn feed(mut self, port: &str, name: &str, place: &str, text: &str) -> Space {
        let path = self.root.path().join(place);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        let input = self.job.inputs.entry(port.into()).or_default();
        let files = input.files.iter().map(|(name, path)| (name.clone(), path.clone()));
        input.files = files.chain([(name.into(), path)]).collect();
        input.tree = input.files.len() > 1;
        self
    }

    fn run(&self) -> (Result<()>, Heard) {
        let heard = Heard::default();
        let run = (KIND.run)(&self.job.params, &Context::new(&self.job, &heard, Cancel::default()));
        (run, heard)
    }

    fn ran(&self) -> Heard {
        let (run, heard) = self.run();
        run.unwrap();
        heard
    }

    fn text(&self, output: &str) -> String {
        fs_err::read_to_string(&self.job.outputs[output]).unwrap()
    }
}

fn wrong(params: Value) -> (String, String) {
    let wrong = (KIND.resolve)(&params).unwrap_err();
    (format!("{}: {}", wrong.path, wrong.message), wrong.help.unwrap_or_default())
}

#[test]
fn ports_come_from_the_placeholders_and_the_outputs() {
    let params = json!({
        "run": "join {in.b} {in.a} {in.b} > {out.z}",
        "outputs": { "z": "sub/z.txt", "dir": "./charts/" },
    });
    let (what, help) = wrong(params.clone());
    assert_eq!(what, "outputs.dir: a folder that the command does not name");
    assert!(help.contains("{out.dir}"));
    let mut params = params;
    params["run"] = json!("join {in.b} {in.a} {in.b} > {out.z}; ls > {out.dir}/x");
    let params = (KIND.resolve)(&params).unwrap();
    let inputs: Vec<_> =
        (KIND.inputs)(&params).into_iter().map(|port| (port.name, port.required)).collect();
    assert_eq!(inputs, [("b".into(), true), ("a".into(), true), ("*".into(), false)]);
    assert!((KIND.inputs)(&params)[2].is_any());
    let outputs: Vec<_> =
        (KIND.outputs)(&params).into_iter().map(|port| (port.name, port.path, port.tree)).collect();
    let dir = ("dir".into(), "./charts".into(), true);
    assert_eq!(outputs, [dir, ("z".into(), "./sub/z.txt".into(), false)]);
}

#[test]
fn what_cannot_run_is_refused_before_it_does() {
    let outputs = json!({ "a": "a.txt", "b": "b.txt" });
    let (what, help) = wrong(json!({ "run": "cat {in.x} > {out.c}", "outputs": outputs }));
    assert_eq!(what, "run: unknown placeholder `{out.c}`");
    assert!(help.contains("`{in.NAME}`") && help.contains("`{out.a}`, `{out.b}`"), "{help}");
    let (what, help) = wrong(json!({ "run": "cat {input.x} > {out.a}", "outputs": outputs }));
    assert_eq!(what, "run: unknown placeholder `{input.x}`");
    assert_eq!(help, "did you mean `{in.x}`?");
    let near = json!({ "run": "cat > {out.tabel}", "outputs": { "table": "t" } });
    assert_eq!(wrong(near).1, "did you mean `{out.table}`?");
    let (what, _) = wrong(json!({ "run": " ", "outputs": outputs }));
    assert_eq!(what, "run: nothing to run");
    let (what, _) = wrong(json!({ "run": 5, "outputs": outputs }));
    assert_eq!(what, "run: expected a command line, or a list of a program and its arguments");
    let (what, _) = wrong(json!({ "run": "true", "outputs": {} }));
    assert_eq!(what, "outputs: no output");
    for path in ["../a", "/etc/a", "", "./"] {
        let (what, _) = wrong(json!({ "run": "true", "outputs": { "a": path } }));
        assert_eq!(what, format!("outputs.a: `{path}` is not a path below the pipeline's folder"));
    }
    let (what, _) = wrong(json!({ "run": "true", "outputs": { "a": "x/y", "b": "./x//y" } }));
    assert_eq!(what, "outputs.b: two outputs have the same path");
    let (what, _) = wrong(json!({ "run": "true", "outputs": { "a b": "x" } }));
    assert_eq!(what, "outputs.a b: `a b` cannot be the name of an output");
}

#[test]
fn a_line_runs_through_the_shell_in_the_folder_of_the_pipeline() {
    let space = Space::new(json!({
        "run": "pwd; echo warned >&2\necho hello > {out.out}",
        "outputs": { "out": "out.txt" },
    }));
    let heard = space.ran();
    assert_eq!(space.text("out"), "hello\n");
    let dir = fs_err::canonicalize(&space.job.dir).unwrap().display().to_string();
    assert_eq!(*heard.lines.lock().unwrap(), [dir.as_str(), "warned"]);
}

#[test]
fn a_list_is_a_program_and_its_arguments() {
    let params = json!({
        "run": ["cp", "{in.x}", "{out.y}"],
        "outputs": { "y": "it's a \"copy\".txt" },
    });
    let space = Space::new(params).feed("x", "a b.txt", "it's/a b.txt", "words");
    space.ran();
    assert_eq!(space.text("y"), "words");
}

#[test]
fn paths_with_spaces_quotes_and_dollars_arrive_whole() {
    let name = "it's \"5 $x\" `y` {z}\\.txt";
    for line in [
        "cat {in.x} > {out.y}",
        "cat \"{in.x}\" > '{out.y}'",
        "echo \"$(cat {in.x})\" > \"{out.y}\"",
    ] {
        let params = json!({ "run": line, "outputs": { "y": name } });
        let space = Space::new(params).feed("x", name, &format!("a b/{name}"), "words\n");
        space.ran();
        assert_eq!(space.text("y"), "words\n", "{line}");
    }
}

#[test]
fn inputs_have_the_names_that_people_gave_them() {
    let params = json!({
        "run": "echo {in.one}; cd {in.all}; for f in *; do echo $f; done; cat sub/b.csv > {out.y}",
        "outputs": { "y": "y.txt" },
    });
    let space = Space::new(params)
        .feed("one", "one.csv", "store/ab/12cd", "1")
        .feed("all", "a.csv", "store/ab/34ef", "2")
        .feed("all", "sub/b.csv", "store/ab/56ab", "3");
    let heard = space.ran();
    let lines = heard.lines.lock().unwrap();
    assert!(lines[0].ends_with("/scratch/in/one/one.csv"), "{lines:?}");
    assert_eq!(lines[1..], ["a.csv", "sub"]);
    assert_eq!(space.text("y"), "3");
    let space = Space::new(json!({ "run": "echo {in.x} > {out.y}", "outputs": { "y": "y" } }))
        .feed("x", "x.csv", "pipeline/data/x.csv", "");
    space.ran();
    assert_eq!(Path::new(space.text("y").trim()), space.job.inputs["x"].files["x.csv"]);
}

#[test]
fn a_folder_is_given_where_it_lies_if_nothing_else_lies_there() {
    let params = json!({ "run": "echo {in.all} > {out.y}", "outputs": { "y": "y.txt" } });
    let feed = || {
        Space::new(params.clone()).feed("all", "a.csv", "pipeline/data/a.csv", "2").feed(
            "all",
            "sub/b.csv",
            "pipeline/data/sub/b.csv",
            "3",
        )
    };
    let given = |space: &Space| {
        space.ran();
        space.text("y").trim().to_owned()
    };
    let space = feed();
    let data = space.job.dir.join("data");
    fs_err::write(data.join(".hidden"), "").unwrap();
    assert_eq!(given(&space), data.display().to_string());
    // Others that the command must not see.
    let space = feed();
    fs_err::write(space.job.dir.join("data/sub/c.txt"), "").unwrap();
    let scratch = given(&space);
    assert!(scratch.ends_with("/scratch/in/all"), "{scratch}");
    let mut names: Vec<_> = fs_err::read_dir(Path::new(&scratch).join("sub")).unwrap().collect();
    assert_eq!(names.pop().unwrap().unwrap().file_name(), "b.csv");
    assert!(names.is_empty());
    // One that lies there no more.
    let space = feed();
    fs_err::rename(space.job.dir.join("data/a.csv"), space.job.dir.join("data/c.csv")).unwrap();
    let error = space.run().0.unwrap_err();
    assert!(error.to_string().contains("data/a.csv"), "{error}");
}

#[test]
fn outputs_keep_their_extension_and_may_be_folders_or_own_paths() {
    let space = Space::new(json!({
        "run": "echo {out.chart} > {out.chart}; echo 1 > {out.dir}/one; mkdir sub; echo own > sub/own.txt; : {out.none}",
        "outputs": { "chart": "c/chart.png", "dir": "dir/", "own": "sub/own.txt", "none": "none/" },
    }));
    let heard = space.ran();
    assert_eq!(*heard.warnings.lock().unwrap(), ["output `none` is an empty folder"]);
    assert!(space.text("chart").trim().ends_with("/chart.png"));
    assert_eq!(fs_err::read_to_string(space.job.outputs["dir"].join("one")).unwrap(), "1\n");
    assert_eq!(space.text("own"), "own\n");
}

#[test]
fn an_output_that_is_not_written_is_an_error() {
    let space = Space::new(json!({ "run": "true {out.y}", "outputs": { "y": "y.txt" } }));
    let (run, _) = space.run();
    let error = run.unwrap_err();
    assert_eq!(error.to_string(), "the command did not write its output `y`");
    assert!(error.help().unwrap().contains("{out.y}"));
    // A file of an earlier run is not believed.
    let space = Space::new(json!({ "run": "true", "outputs": { "y": "y.txt" } }));
    fs_err::write(space.job.dir.join("y.txt"), "stale").unwrap();
    let (run, _) = space.run();
    let error = run.unwrap_err();
    assert_eq!(error.to_string(), "the command left its output `y` as it was");
    let space = Space::new(json!({ "run": "mkdir {out.y}", "outputs": { "y": "y.txt" } }));
    let (run, _) = space.run();
    let error = run.unwrap_err();
    assert_eq!(error.to_string(), "its output `y` is a folder");
    assert!(error.help().unwrap().contains("outputs: { y: y.txt/ }"), "{error:?}");
}

#[test]
fn a_failure_tells_the_status_and_the_last_lines() {
    let outputs = json!({ "y": "y.txt" });
    let run = |line: Value| {
        let (run, _) = Space::new(json!({ "run": line, "outputs": outputs })).run();
        let error = run.unwrap_err();
        (error.to_string(), error.help().unwrap_or_default().to_owned())
    };
    let (what, help) = run(json!("echo 'no column `close`' >&2\nexit 3"));
    assert!(what.starts_with("`echo 'no column `close`' >&2` exited with status 3"), "{what}");
    assert!(what.ends_with("its last lines:\n  no column `close`"), "{what}");
    assert!(help.contains("PATH"));
    let (what, _) = run(json!("exit 4"));
    assert_eq!(what, "`exit 4` exited with status 4; it printed nothing");
    // The first line that fails ends it.
    let (what, _) = run(json!("false\necho fine > {out.y}"));
    assert_eq!(what, "`false` exited with status 1; it printed nothing");
    let (what, help) = run(json!("no-such-program-here"));
    assert!(what.contains("exited with status 127"), "{what}");
    assert!(help.contains("installed"));
    let (what, help) = run(json!(["no-such-program-here", "x"]));
    let no = "`no-such-program-here x` did not start: there is no program `no-such-program-here`";
    assert!(what.starts_with(no), "{what}");
    assert!(help.contains("./no-such-program-here"));
    let (what, _) = run(json!(["./tool", "x"]));
    assert_eq!(what, "`./tool x` did not start: there is no file `./tool`");
    let (what, help) = run(json!("kill -9 $$"));
    assert_eq!(what, "`kill -9 $$` was ended by signal 9 (KILL); it printed nothing");
    assert!(help.contains("memory"));
    let (what, help) = run(json!("sh -c 'kill -SEGV $$'; true"));
    assert!(what.contains("exited with status 139: a program in it was ended by signal 11 (SEGV)"));
    assert!(help.contains("crashed"));
}

#[test]
fn a_program_that_cannot_start_is_told_before_it_is_tried() {
    let space = Space::new(json!({ "run": ["./tool"], "outputs": { "y": "y.txt" } }));
    fs_err::write(space.job.dir.join("tool"), "echo no first line").unwrap();
    let error = space.run().0.unwrap_err();
    assert_eq!(error.to_string(), "`./tool` did not start: `./tool` is not executable");
    assert!(error.help().unwrap().contains("chmod +x ./tool"));
    make_executable(&space.job.dir.join("tool"));
    let error = space.run().0.unwrap_err();
    assert!(error.help().unwrap().contains("#!/bin/sh"), "{error:?}");
    fs_err::write(space.job.dir.join("tool"), "#!/no/such/interpreter\n").unwrap();
    let error = space.run().0.unwrap_err();
    assert!(error.help().unwrap().contains("interpreter"), "{error:?}");
}

fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_environment_is_clean() {
    let mut space = Space::new(json!({
        "run": "env > {out.y}",
        "outputs": { "y": "y.txt" },
    }));
    space.job.env.insert("SEEN".into(), "a b".into());
    space.ran();
    let text = space.text("y");
    let mut names: Vec<&str> =
        text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    names.retain(|name| !["PATH", "HOME", "LANG", "PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    assert_eq!(names, ["SEEN", "TMPDIR"]);
    assert!(text.lines().any(|line| line == "SEEN=a b"));
    assert!(text.contains(&format!("TMPDIR={}", space.job.scratch.display())));
}

/// Runs until a line is heard, cancels, and returns how long it then took.
fn cancelled(line: &str, at: &'static str) -> (Space, Duration) {
    let space = Space::new(json!({ "run": line, "outputs": { "y": "y.txt" } }));
    let cancel = Cancel::default();
    let heard = Heard { stop: Some((at, cancel.clone())), ..Heard::default() };
    let start = Instant::now();
    let run = (KIND.run)(&space.job.params, &Context::new(&space.job, &heard, cancel));
    assert!(matches!(run, Err(StageError::Cancelled)), "{run:?}");
    (space, start.elapsed())
}

fn lives(space: &Space, file: &str) -> bool {
    let pid = fs_err::read_to_string(space.job.dir.join(file)).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    // One that has ended is a zombie until its new parent looks.
    let state = fs_err::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let zombie =
        state.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|s| s.starts_with('Z')));
    rustix::process::test_kill_process(pid).is_ok() && !zombie
}

#[test]
fn a_cancelled_command_ends_at_once_with_its_children() {
    let (space, took) =
        cancelled("sh -c 'echo $$ > inner; sleep 60 & echo ready; wait' ; true", "ready");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(!lives(&space, "inner"));
}

#[test]
fn a_child_that_ignores_term_is_killed() {
    let line =
        "sh -c 'trap \"\" TERM; echo $$ > inner; echo ready; while :; do sleep 0.05; done'; true";
    let (space, took) = cancelled(line, "ready");
    assert!((2..4).contains(&took.as_secs()), "{took:?}");
    assert!(!lives(&space, "inner"));
}

#[test]
fn what_is_left_behind_ends_with_the_command() {
    let space = Space::new(json!({
        "run": "sleep 60 & echo $! > inner; echo 1 > {out.y}",
        "outputs": { "y": "y.txt" },
    }));
    let start = Instant::now();
    space.ran();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(!lives(&space, "inner"));
}

#[test]
fn what_leaves_the_group_ends_with_the_command_and_is_told() {
    // Once with the pipe in its hands, once without.
    for streams in ["", "</dev/null >/dev/null 2>&1"] {
        let line = format!(
            "setsid sh -c 'echo $$ > inner; while :; do sleep 0.05; done' {streams} &\n\
             while ! [ -s inner ]; do sleep 0.01; done; echo 1 > {{out.y}}"
        );
        let space = Space::new(json!({ "run": line, "outputs": { "y": "y.txt" } }));
        let start = Instant::now();
        let heard = space.ran();
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(!lives(&space, "inner"), "{streams}");
        let warnings = heard.warnings.lock().unwrap();
        assert!(warnings[0].starts_with("it left `sh` running outside"), "{warnings:?}");
    }
}

#[test]
fn a_command_has_its_time_and_no_more() {
    let mut space = Space::new(json!({
        "run": "sleep 60 & echo $! > inner; wait", "outputs": { "y": "y.txt" },
    }));
    space.job.timeout = Some(200);
    let start = Instant::now();
    let error = space.run().0.unwrap_err();
    assert_eq!(error.to_string(), "took longer than 200ms");
    assert!(error.help().unwrap().contains("`timeout`"));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(!lives(&space, "inner"));
    space.job.timeout = Some(60_000);
    space.job.params["run"] = json!("echo in time > {out.y}");
    space.ran();
}

#[test]
fn secrets_are_seen_by_the_command_and_by_nobody_else() {
    let mut space = Space::new(json!({
        "run": "echo \"$TOKEN.\"; printf '%s\\n' \"$PEM\"; echo $TOKEN > {out.y}; exit $CODE",
        "outputs": { "y": "y.txt" },
    }));
    space.job.env.insert("CODE".into(), "0".into());
    space.job.secrets.insert("TOKEN".into(), "s3cret".into());
    space.job.secrets.insert("PEM".into(), "begin s3cret\nAAAA\nend".into());
    let heard = space.ran();
    assert_eq!(*heard.lines.lock().unwrap(), ["***.", "***", "***", "end"]);
    assert_eq!(space.text("y"), "s3cret\n");
    space.job.env.insert("CODE".into(), "3".into());
    let error = space.run().0.unwrap_err();
    assert!(error.to_string().contains("\n  ***."), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    space.job.secrets.insert("TOKEN".into(), "abc".into());
    let error = space.run().0.unwrap_err();
    assert_eq!(error.to_string(), "the secret TOKEN is shorter than 4 characters");
}

#[test]
fn a_variable_that_it_uses_and_does_not_see_is_told() {
    // Cargo sets this one for every test.
    let name = "CARGO_MANIFEST_DIR";
    let told = |run: &str, more: fn(&mut Job)| {
        let mut space = Space::new(json!({ "run": run, "outputs": { "y": "y.txt" } }));
        fs_err::write(
            space.job.dir.join("s.py"),
            "import os\nx = os.environ.get('CARGO_MANIFEST_DIR')\n",
        )
        .unwrap();
        more(&mut space.job);
        let (run, heard) = space.run();
        (run, heard.warnings.into_inner().unwrap().join("\n"))
    };
    let (_, warnings) = told("echo ${CARGO_MANIFEST_DIR} $HOME $NOT_SET > {out.y}", |_| {});
    assert_eq!(
        warnings,
        format!(
            "the command line uses the variable {name}, which is set here but hidden from the \
             command: add `env: [{name}]`"
        )
    );
    let (_, warnings) = told("cat s.py > {out.y}", |_| {});
    assert!(warnings.starts_with("`s.py` uses the variable CARGO_MANIFEST_DIR"), "{warnings}");
    let (_, warnings) = told("CARGO_MANIFEST_DIR=1; echo $CARGO_MANIFEST_DIR > {out.y}", |_| {});
    assert_eq!(warnings, "");
    let (_, warnings) = told("echo $CARGO_MANIFEST_DIR > {out.y}", |job| {
        job.unset = vec!["CARGO_MANIFEST_DIR".into()];
    });
    assert_eq!(warnings, format!("{name} is declared and not set: the command does not see it"));
    let (run, _) = told("echo $CARGO_MANIFEST_DIR > {out.y}", |job| {
        job.sandbox = Sandbox::Strict;
    });
    let error = run.unwrap_err();
    assert!(error.to_string().contains("which the stage does not declare"), "{error}");
    assert_eq!(error.help(), Some("add `env: [CARGO_MANIFEST_DIR]`"));
}

#[test]
fn an_item_writes_its_own_file_in_the_folder_of_the_output() {
    let params = json!({
        "run": "echo {item.name} {item.stem} > {out.clean}; cat {in.item} >> {out.clean}",
        "outputs": { "clean": "clean/{stem}.csv" },
    });
    let space = Space::new(params.clone());
    let ports = (KIND.outputs)(&space.job.params);
    assert_eq!((ports[0].path.as_ref(), ports[0].tree), ("./clean", true));
    let mut space = space.feed("item", "x/a.txt", "pipeline/data/x/a.txt", "words\n");
    let error = space.run().0.unwrap_err();
    assert!(error.help().unwrap().contains("`map: "), "{error:?}");
    space.job.item = Some("x/a.txt".into());
    space.ran();
    let made = space.job.outputs["clean"].join("x/a.csv");
    assert_eq!(fs_err::read_to_string(made).unwrap(), "x/a.txt x/a\nwords\n");
    fs_err::remove_dir_all(space.job.outputs["clean"].join("x")).unwrap();
    space.job.params["run"] = json!("echo {item.stem}; : {out.clean}");
    let error = space.run().0.unwrap_err();
    assert_eq!(error.to_string(), "the command did not write its output `clean`");

    let wrong = |run: &str, outputs: Value| wrong(json!({ "run": run, "outputs": outputs }));
    let (what, _) = wrong(": {out.a} {out.b}", json!({ "a": "a/{name}", "b": "b.txt" }));
    assert_eq!(what, "outputs.b: every item would write the same file");
    let (what, help) = wrong(": {out.a}", json!({ "a": "{name}" }));
    assert_eq!(what, "outputs.a: the items need a folder of their own");
    assert_eq!(help, "begin the path with one, as `a/{name}`");
    let (what, _) = wrong(": {out.a} {out.b}", json!({ "a": "a/{stem}.x", "b": "a/{stem}.y" }));
    assert_eq!(what, "outputs.b: the items of two outputs go to the same folder");
    let (what, _) = wrong(": {out.a}", json!({ "a": "a/{item.stem}" }));
    assert_eq!(what, "outputs.a: `{item` has no meaning in a path");
    let (what, help) = wrong("cp {name} {out.a}", json!({ "a": "a/{name}" }));
    assert_eq!(what, "run: `{name}` is for the paths of outputs");
    assert_eq!(help, "did you mean `{item.name}`?");
    let (what, help) = wrong("cp x a", json!({ "a": "a/{name}" }));
    assert_eq!(what, "outputs.a: a folder that the command does not name");
    assert!(help.contains("{out.a}"));
}

#[test]
fn many_long_and_overwritten_lines_pass() {
    let space = Space::new(json!({
        "run": "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; \
                printf '10%%\\r20%%\\rdone\\nno end'; head -c 200000 /dev/zero | tr '\\0' x >&2; : > {out.y}",
        "outputs": { "y": "y.txt" },
    }));
    let heard = space.ran();
    let lines = heard.lines.lock().unwrap();
    assert_eq!(lines[..2], ["line 0", "line 1"]);
    assert_eq!(lines[1999..2001], ["line 1999", "done"]);
    assert!(lines[2001].starts_with("no endxxx"));
    let length: usize = lines[2001..].iter().map(String::len).sum();
    assert_eq!(length, 6 + 200_000);
}

#[test]
fn the_common_harness_runs_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.txt");
    fs_err::write(&file, "b\na\n").unwrap();
    let params = json!({ "run": "sort {in.x} > {out.y}", "outputs": { "y": "y.txt" } });
    let ran = testing::run::<Command>(params, &[("x", &file)]).unwrap();
    assert_eq!(ran.text("y"), "a\nb\n");
    assert!(ran.warnings.is_empty() && ran.metrics.is_empty());
}
