//! One file from which another machine makes a run again: the record with its texts and lock, every
//! source by digest, and the files that git tracks in the pipeline's folder.
//!
//! The same run gives the same bytes: names are sorted, times and owners are zero. Outputs are left
//! out unless they are asked for; digests are enough to compare with.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use quantmill_cache::{Artifact, Digest, Store};
use quantmill_stages::Kind;
use serde_json::json;

use super::account::{self, Account};
use super::repository;
use super::restore::{self, Found, Gone, Origin, TRACKED, Tracked};
use crate::event::Event;
use crate::exit::Failure;
use crate::record::{self, EVENTS, LOCK, Line};

/// Files of the commit beyond this many bytes are left out.
const COMMIT: u64 = 64 << 20;

/// What went into an archive.
#[derive(Debug, Default)]
pub struct Packed {
    /// Where sources were found.
    pub found: Found,
    /// Sources that are nowhere any more: then nothing was written.
    pub gone: Vec<Gone>,
    /// Whether the files of the commit are in it.
    pub tracked: bool,
    /// Sources with absolute paths, which no other machine has.
    pub absolute: Vec<String>,
}

/// What an archive is made of, by name.
struct Contents {
    folder: tempfile::TempDir,
    files: BTreeMap<String, PathBuf>,
}

impl Contents {
    fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let place = self.folder.path().join(self.files.len().to_string());
        fs_err::write(&place, bytes)?;
        self.files.insert(name.to_owned(), place);
        Ok(())
    }

    fn blob(&mut self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.files.contains_key(&blob(&digest)) {
            self.add(&blob(&digest), bytes)?;
        }
        Ok(digest)
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{digest}")
}

/// Writes the archive of a run.
pub fn pack(
    run: &Account,
    store: &Store,
    outputs: bool,
    to: &Path,
    kinds: &[Kind],
) -> Result<Packed, Failure> {
    let lock = run.lock();
    let mut contents = Contents { folder: tempfile::tempdir()?, files: BTreeMap::new() };
    let mut packed = Packed::default();
    let origin = Origin { store, run };
    let scratch = tempfile::tempdir()?;
    let laid = restore::lay(run, &lock, scratch.path(), kinds)?;
    for wanted in &laid.wanted {
        if Path::new(&wanted.pattern).is_absolute() {
            packed.absolute.push(wanted.pattern.clone());
            continue;
        }
        let files = match origin.files(wanted) {
            Ok(files) => files,
            Err(gone) => {
                packed.gone.push(gone);
                continue;
            }
        };
        if let Artifact::Tree(digest) = wanted.artifact {
            contents.blob(&store.read(&digest)?)?;
        }
        for (path, entry) in files {
            if contents.files.contains_key(&blob(&entry.digest)) {
                continue;
            }
            let place = contents.folder.path().join(entry.digest.to_string());
            match origin.fetch(&path, &entry, &place, &mut packed.found)? {
                true => drop(contents.files.insert(blob(&entry.digest), place)),
                false => packed.gone.push(Gone { path, digest: entry.digest }),
            }
        }
    }
    if !packed.gone.is_empty() {
        return Ok(packed);
    }
    if outputs {
        for artifact in lock.iter().flat_map(|(_, record)| record.outputs.into_values()) {
            if let Artifact::Tree(digest) = artifact {
                contents.blob(&store.read(&digest)?)?;
            }
            for place in store.places(&artifact, "file")?.into_values() {
                contents.blob(&fs_err::read(place)?)?;
            }
        }
    }
    packed.tracked = tracked(run, &origin, &mut contents)?;
    let texts = run.texts().map(|(_, place)| place);
    let beside = [EVENTS, LOCK, account::NOTE].map(|name| run.folder.join(name));
    for place in texts.chain(beside).filter(|place| place.is_file()) {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        contents.add(&format!("run/{name}"), &fs_err::read(&place)?)?;
    }
    let metrics: BTreeMap<_, _> =
        run.told.iter().map(|(name, told)| (name, &told.metrics)).collect();
    let about = json!({ "run": run.id, "setting": run.setting, "survey": run.survey });
    for (name, value) in [("environment.json", about), ("metrics.json", json!(metrics))] {
        contents.add(name, format!("{value:#}\n").as_bytes())?;
    }
    write(&contents, to)?;
    Ok(packed)
}

/// Adds the files of the commit, from git or from the archive that the record came with.
fn tracked(run: &Account, origin: &Origin, contents: &mut Contents) -> Result<bool, Failure> {
    let mut files = BTreeMap::new();
    let mut bytes = 0;
    let mut take = |path: &str, executable: bool, content: &mut dyn Read| -> io::Result<()> {
        let mut all = Vec::new();
        content.read_to_end(&mut all)?;
        bytes += all.len() as u64;
        if bytes <= COMMIT {
            let digest = contents.blob(&all)?;
            files.insert(path.to_owned(), Tracked { digest, executable });
        }
        Ok(())
    };
    let commit = run.setting.commit.as_ref();
    let git = match commit {
        Some(commit) => repository::files_at(&run.setting.dir, commit, &mut take)?,
        None => false,
    };
    let before = run.folder.join(TRACKED);
    if !git {
        let Ok(text) = std::fs::read(before) else { return Ok(false) };
        let before: BTreeMap<String, Tracked> =
            serde_json::from_slice(&text).map_err(io::Error::from)?;
        for (path, file) in before {
            take(&path, file.executable, &mut origin.store.read(&file.digest)?.as_slice())?;
        }
    }
    let text = serde_json::to_vec_pretty(&files).map_err(io::Error::from)?;
    contents.add(&format!("run/{TRACKED}"), &text)?;
    Ok(bytes <= COMMIT)
}

fn write(contents: &Contents, to: &Path) -> io::Result<()> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    let temp = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    let gzip = GzBuilder::new().mtime(0).write(temp, Compression::default());
    let mut tar = tar::Builder::new(gzip);
    for (name, place) in &contents.files {
        let file = fs_err::File::open(place)?;
        let mut header = tar::Header::new_ustar();
        header.set_size(file.metadata()?.len());
        header.set_mode(0o644);
        header.set_mtime(0);
        tar.append_data(&mut header, name, file)?;
    }
    let mut temp = tar.into_inner()?.finish()?;
    temp.flush()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        temp.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    temp.persist(to).map_err(|e| e.error)?;
    Ok(())
}

/// Puts an archive's record and blobs into a state folder. Everything is checked against its digest.
pub fn unpack(archive: &Path, home: &Path) -> Result<Account, Failure> {
    let broken = |what: &str| {
        let help = "`quantmill runs export` writes such archives".to_owned();
        Failure::usage(format!("{}: {what}", archive.display()), Some(help))
    };
    let save = |entry: &mut dyn Read, to: &Path| -> Result<(), Failure> {
        let mut file = fs_err::File::create(to)?;
        match io::copy(entry, &mut file).map_err(|error| (error.kind(), error)) {
            Ok(_) => Ok(()),
            Err((
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::InvalidData,
                _,
            )) => Err(broken("this is no archive of a run, or it is cut off")),
            Err((_, error)) => Err(error.into()),
        }
    };
    let store = Store::open(home)?;
    let scratch = store.scratch()?;
    let record = scratch.path().join("record");
    fs_err::create_dir(&record)?;
    let file = fs_err::File::open(archive)?;
    let mut tar = tar::Archive::new(GzDecoder::new(io::BufReader::new(file)));
    let entries = tar.entries().map_err(|_| broken("this is no archive of a run"))?;
    for entry in entries {
        let mut entry =
            entry.map_err(|_| broken("this is no archive of a run, or it is cut off"))?;
        let name = entry.path()?.to_string_lossy().into_owned();
        match name.split_once('/') {
            Some(("run", name)) if !name.contains(['/', '\\']) && name != ".." => {
                save(&mut entry, &record.join(name))?;
            }
            Some(("blobs", name)) => {
                let wanted: Digest = name.parse().map_err(|_| broken("a blob without a digest"))?;
                let copy = scratch.path().join("blob");
                save(&mut entry, &copy)?;
                if store.adopt(&copy)? != Artifact::File(wanted) {
                    return Err(broken(&format!("blob {} is damaged", wanted.short())));
                }
                let _ = std::fs::remove_file(copy);
            }
            _ => {}
        }
    }
    let text = std::fs::read_to_string(record.join(EVENTS)).unwrap_or_default();
    let first = text.lines().next().and_then(|line| serde_json::from_str(line).ok());
    let Some(Line { event: Event::RunStarted(setting), .. }) = first else {
        return Err(broken("it holds no record of a run"));
    };
    let id = &setting.run;
    if id.is_empty() || id.starts_with('.') || id.contains(['/', '\\']) {
        return Err(broken("its run has no usable name"));
    }
    let folder = record::folder(home, id);
    if folder.exists() {
        return Err(Failure::usage(format!("run {id} is here already"), None));
    }
    fs_err::create_dir_all(home.join("runs"))?;
    fs_err::rename(record, folder)?;
    account::read(home, id).ok_or_else(|| broken("its record cannot be read"))
}
