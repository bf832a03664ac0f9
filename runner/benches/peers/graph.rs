//! The graphs that are measured, as data that every tool's build file is written from.

use std::fs;
use std::io;
use std::path::Path;

/// Stages of one shell line each.
pub struct Graph {
    /// The stages; each comes after what it reads.
    pub stages: Vec<Stage>,
    /// The folder that the only stage reads whole, with the names of all its files.
    pub folder: Option<(String, Vec<String>)>,
}

/// A stage that reads one file, or the folder of its graph, and writes one.
pub struct Stage {
    /// Its name.
    pub name: String,
    /// What it reads: a file, or the folder.
    pub input: String,
    /// The stage that makes its input.
    pub after: Option<usize>,
    /// What it writes.
    pub output: String,
}

/// The file that the first stages read.
pub const SOURCE: &str = "in.txt";

impl Graph {
    /// `count` stages that all read the same file.
    pub fn fan_out(count: usize) -> Graph {
        let stage = |i| Stage {
            name: format!("s{i}"),
            input: SOURCE.into(),
            after: None,
            output: format!("made/{i}.txt"),
        };
        Graph { stages: (0..count).map(stage).collect(), folder: None }
    }

    /// `count` stages, each of which reads what the one before it wrote.
    pub fn chain(count: usize) -> Graph {
        let mut graph = Graph::fan_out(count);
        for i in 1..count {
            graph.stages[i].input = graph.stages[i - 1].output.clone();
            graph.stages[i].after = Some(i - 1);
        }
        graph
    }

    /// One stage that reads a folder of `count` files.
    pub fn folder(count: usize) -> Graph {
        let stage = Stage {
            name: "count".into(),
            input: "data".into(),
            after: None,
            output: "made/count.txt".into(),
        };
        let files = (0..count).map(|i| format!("data/{:03}/{:03}.txt", i / 1000, i % 1000));
        Graph { stages: vec![stage], folder: Some(("data".into(), files.collect())) }
    }

    /// The shell line of a stage, with these words for its input and its output.
    pub fn line(&self, input: &str, output: &str) -> String {
        match self.folder {
            Some(_) => format!("ls {input} | wc -l > {output}"),
            None => format!("cat {input} > {output}"),
        }
    }

    /// The source files that a stage reads.
    pub fn sources<'a>(&'a self, stage: &'a Stage) -> Vec<&'a str> {
        match &self.folder {
            Some((_, files)) => files.iter().map(String::as_str).collect(),
            None => vec![&stage.input],
        }
    }

    /// Writes the source files below `dir`.
    pub fn sow(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir.join("made"))?;
        let Some((_, files)) = &self.folder else {
            return fs::write(dir.join(SOURCE), "a line to copy\n");
        };
        let mut noise = Noise(1);
        let mut bytes = vec![0; 1024];
        for file in files {
            let path = dir.join(file);
            if file.ends_with("/000.txt") {
                fs::create_dir_all(path.parent().unwrap_or(dir))?;
            }
            noise.fill(&mut bytes);
            fs::write(path, &bytes)?;
        }
        Ok(())
    }
}

/// Bytes that no file system and no hash can take a short cut through (xorshift64).
pub struct Noise(pub u64);

impl Noise {
    /// Fills a slice whose length is a multiple of eight.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}
