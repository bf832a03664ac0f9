//! What is measured. A case goes through its sizes; at each, the tools take turns.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::bench::{Bench, Outcome, Unit};
use crate::graph::{Graph, Noise};
use crate::measure::measure;
use crate::tools::{OURS, Tool, on_path};

/// A case.
pub type Case = fn(&mut Bench) -> Outcome<()>;

/// All cases by name.
pub const CASES: &[(&str, Case)] = &[
    ("version", version),
    ("fan-out", |bench| stages(bench, "fan-out", Graph::fan_out)),
    ("chain", |bench| stages(bench, "chain", Graph::chain)),
    ("folder", folder),
    ("map", map),
    ("hash", hash),
    ("check", check),
];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn version(bench: &mut Bench) -> Outcome<()> {
    let id = ("start-up, `--version`", Unit::One, 1);
    let arguments = words(&["--version"]);
    for _ in 0..bench.rounds * 3 {
        for (tool, program) in bench.tools.clone() {
            // doit has a command for it.
            let arguments =
                if tool.name == "doit" { words(&["--version"]) } else { arguments.clone() };
            let space = bench.space.clone();
            bench.once(id, tool.name, (&program, &arguments), &space, 0)?;
        }
    }
    bench.say(id.0, 1);
    Ok(())
}

/// A tool with the folder in which it runs a graph.
struct Seat {
    tool: &'static Tool,
    program: PathBuf,
    dir: PathBuf,
}

/// Gives each tool that can be expected to end in time a folder with the graph.
fn seats(
    bench: &Bench,
    case: &str,
    graph: &Graph,
    size: usize,
    alone: bool,
) -> io::Result<Vec<Seat>> {
    let mut seats = Vec::new();
    for (tool, program) in &bench.tools {
        let chosen = tool.file.is_some() && (!alone || tool.name == OURS);
        if chosen && bench.affordable(case, tool.name, size) {
            let dir = bench.space.join(tool.name);
            tool.prepare(program, graph, &dir)?;
            seats.push(Seat { tool, program: program.clone(), dir });
        }
    }
    Ok(seats)
}

/// First runs: from nothing, as often as time allows. Tools that fail lose their seat.
fn cold(bench: &mut Bench, id: (&str, Unit, usize), seats: &mut Vec<Seat>) -> Outcome<()> {
    let much = bench.limit.as_secs_f64() / 30.0;
    for round in 0..bench.rounds {
        let mut kept = Vec::new();
        for seat in seats.drain(..) {
            let least = bench.least(id.0, id.2, seat.tool.name);
            if round > 0 && least.is_some_and(|seconds| seconds > much) {
                kept.push(seat);
                continue;
            }
            seat.tool.forget(&seat.dir, &mut bench.trash)?;
            if again(bench, id, &seat)? {
                kept.push(seat);
            }
        }
        *seats = kept;
    }
    bench.say(id.0, id.2);
    Ok(())
}

fn again(bench: &mut Bench, id: (&str, Unit, usize), seat: &Seat) -> Outcome<bool> {
    let arguments = seat.tool.arguments();
    bench.once(id, seat.tool.name, (&seat.program, &arguments), &seat.dir, 0)
}

/// Runs with nothing to do. A tool that rewrites an output did something and is an error.
fn no_op(bench: &mut Bench, id: (&str, Unit, usize), seats: &mut Vec<Seat>) -> Outcome<()> {
    // Files that have only just been written are not trusted by every tool: one run goes unmeasured.
    std::thread::sleep(Duration::from_millis(100));
    let mut times = BTreeMap::new();
    for seat in seats.iter() {
        measure(&seat.program, &seat.tool.arguments(), &seat.dir, bench.limit * 3)?;
        times.insert(seat.tool.name, written(&seat.dir)?);
    }
    for _ in 0..bench.rounds {
        let mut kept = Vec::new();
        for seat in seats.drain(..) {
            if again(bench, id, &seat)? {
                kept.push(seat);
            }
        }
        *seats = kept;
    }
    for seat in seats.iter() {
        if times.get(seat.tool.name) != Some(&written(&seat.dir)?) {
            return Err(format!("{}, {}: {} wrote an output", id.0, id.2, seat.tool.name).into());
        }
    }
    bench.say(id.0, id.2);
    Ok(())
}

/// When each output was last written.
fn written(dir: &Path) -> io::Result<BTreeMap<PathBuf, SystemTime>> {
    let entries = fs::read_dir(dir.join("made"))?;
    entries.map(|entry| entry.and_then(|e| Ok((e.path(), e.metadata()?.modified()?)))).collect()
}

fn clear(bench: &mut Bench) -> io::Result<()> {
    for (tool, _) in &bench.tools {
        bench.trash.take(&bench.space.join(tool.name))?;
    }
    Ok(())
}

fn stages(bench: &mut Bench, shape: &str, graph: fn(usize) -> Graph) -> Outcome<()> {
    let (first, then) = (format!("cold, {shape}"), format!("no-op, {shape}"));
    let mut sizes: Vec<(usize, bool)> = bench.sizes.iter().map(|&size| (size, false)).collect();
    sizes.extend(bench.big.then_some((100_000, true)));
    for (size, alone) in sizes {
        let graph = graph(size);
        let mut seats = seats(bench, &first, &graph, size, alone)?;
        cold(bench, (&first, Unit::Stages, size), &mut seats)?;
        no_op(bench, (&then, Unit::Stages, size), &mut seats)?;
        clear(bench)?;
    }
    Ok(())
}

fn folder(bench: &mut Bench) -> Outcome<()> {
    let (first, then, one) = (
        "first run, a folder of files",
        "no-op, a folder of files",
        "one file changed, a folder of files",
    );
    for size in [1_000, 10_000, 100_000] {
        let graph = Graph::folder(size);
        let mut seats = seats(bench, first, &graph, size, false)?;
        let Some(dir) = seats.first().map(|seat| seat.dir.clone()) else { return Ok(()) };
        cold(bench, (first, Unit::Files, size), &mut seats)?;
        no_op(bench, (then, Unit::Files, size), &mut seats)?;
        for round in 0..bench.rounds {
            for seat in &seats {
                let file = seat.dir.join(format!("data/{:03}/007.txt", size / 2_000));
                fs::write(file, format!("round {round}\n").repeat(100))?;
                // Nobody edits and runs within a tick of the file system's clock.
                std::thread::sleep(Duration::from_millis(50));
                again(bench, (one, Unit::Files, size), seat)?;
            }
        }
        bench.say(one, size);
        // What it costs at least to look at every file, and to read them all.
        let walk = words(&["data", "-type", "f", "-size", "+9999"]);
        if let Some(find) = on_path("find") {
            for _ in 0..bench.rounds {
                bench.once((then, Unit::Files, size), "find (floor)", (&find, &walk), &dir, 0)?;
            }
        }
        clear(bench)?;
    }
    Ok(())
}

/// A stage that maps over the files of a folder, each file an action of its own.
fn map(bench: &mut Bench) -> Outcome<()> {
    let Some((tool, program)) = bench.tools.iter().find(|(tool, _)| tool.name == OURS).cloned()
    else {
        return Ok(());
    };
    let (first, then, one) =
        ("first run, an item a file", "no-op, an item a file", "one file added, an item a file");
    let text = "version: 1\nstages:\n  sizes:\n    uses: command\n    map: ./data\n    with: { run: \
                \"wc -c < {in.item} > {out.size}\", outputs: { size: \"made/{name}\" } }\n";
    let mut sizes = vec![100, 1_000];
    sizes.extend(bench.big.then_some(10_000));
    for size in sizes {
        let dir = bench.space.join(OURS);
        tool.prepare(&program, &Graph::folder(size), &dir)?;
        fs::write(dir.join("pipeline.yaml"), text)?;
        let mut seats = vec![Seat { tool, program: program.clone(), dir: dir.clone() }];
        cold(bench, (first, Unit::Files, size), &mut seats)?;
        no_op(bench, (then, Unit::Files, size), &mut seats)?;
        for round in 0..bench.rounds {
            fs::write(dir.join(format!("data/000/new-{round}.txt")), format!("{round}"))?;
            for seat in &seats {
                again(bench, (one, Unit::Files, size), seat)?;
            }
        }
        bench.say(one, size);
        clear(bench)?;
    }
    Ok(())
}

fn hash(bench: &mut Bench) -> Outcome<()> {
    let size: usize = if bench.big { 4 << 30 } else { 1 << 30 };
    let id = ("hashing one file", Unit::Bytes, size);
    let dir = bench.space.join(OURS);
    fs::create_dir_all(&dir)?;
    let file = dir.join("big.bin");
    fill(&file, size)?;
    let text = "version: 1\nstages:\n  one:\n    uses: command\n    from: { file: ./big.bin }\n    \
                with: { run: \"echo > {out.file}\", outputs: { file: one.txt } }\n";
    fs::write(dir.join("pipeline.yaml"), text)?;
    let ours = bench.tools.iter().find(|(tool, _)| tool.name == OURS).map(|(_, path)| path.clone());
    let b3sum = on_path("b3sum");
    if b3sum.is_none() {
        eprintln!("b3sum is not installed, skipped; cargo install b3sum");
    }
    for _ in 0..bench.rounds {
        // Another time: the content is to be read again.
        fs::File::options().append(true).open(&file)?.set_modified(SystemTime::now())?;
        if let Some(ours) = &ours {
            bench.once(id, OURS, (ours, &words(&["run"])), &dir, 0)?;
        }
        if let Some(b3sum) = &b3sum {
            bench.once(id, "b3sum", (b3sum, &words(&["big.bin"])), &dir, 0)?;
        }
    }
    bench.say(id.0, size);
    clear(bench)?;
    Ok(())
}

/// Writes a file of real bytes: holes would not be read from anywhere.
fn fill(path: &Path, size: usize) -> io::Result<()> {
    use io::Write;
    let mut file = fs::File::create(path)?;
    let (mut noise, mut bytes) = (Noise(7), vec![0; 1 << 20]);
    for _ in 0..size >> 20 {
        noise.fill(&mut bytes);
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// Reading and judging a pipeline of which one stage is wrong.
fn check(bench: &mut Bench) -> Outcome<()> {
    let case = "`check` with one error";
    let Some((tool, program)) = bench.tools.iter().find(|(tool, _)| tool.name == OURS).cloned()
    else {
        return Ok(());
    };
    let dir = bench.space.join(OURS);
    let mut sizes = bench.sizes.clone();
    sizes.extend(bench.big.then_some(100_000));
    for size in sizes {
        tool.prepare(&program, &Graph::chain(size), &dir)?;
        let file = dir.join("pipeline.yaml");
        let text = fs::read_to_string(&file)?;
        let place = text.rfind("uses: command").unwrap_or_default();
        fs::write(&file, format!("{}uses: comand{}", &text[..place], &text[place + 13..]))?;
        for _ in 0..bench.rounds {
            bench.once(
                (case, Unit::Stages, size),
                OURS,
                (&program, &words(&["check"])),
                &dir,
                2,
            )?;
        }
        bench.say(case, size);
        clear(bench)?;
    }
    Ok(())
}
