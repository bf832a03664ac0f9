//! `quantmill init`: a small pipeline that works, to begin with.

use std::path::{Path, PathBuf};

use clap::Args;
use quantmill_stages::Kind;

use crate::exit::Failure;

/// Arguments of `init`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Example:
  quantmill init my-pipeline && quantmill run my-pipeline")]
pub struct Init {
    /// The folder; it is made where it does not exist [default: .]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What is written, by its path below the folder.
const FILES: [(&str, &str); 5] = [
    ("pipeline.yaml", include_str!("init/pipeline.yaml")),
    ("data/prices.csv", include_str!("init/prices.csv")),
    ("scripts/returns.awk", include_str!("init/returns.awk")),
    ("scripts/volatility.awk", include_str!("init/volatility.awk")),
    (".gitignore", include_str!("init/gitignore")),
];

/// Writes the files, or nothing where one of them exists.
pub fn init(arguments: &Init, _: &[Kind]) -> Result<(), Failure> {
    let dir = arguments.dir.as_deref().unwrap_or(Path::new("."));
    if let Some((name, _)) = FILES.iter().find(|(name, _)| dir.join(name).exists()) {
        let message = format!("{} is there already", dir.join(name).display());
        let help = "nothing was written; name another folder, as `quantmill init my-pipeline`";
        return Err(Failure::usage(message, Some(help.into())));
    }
    for folder in ["data", "scripts"] {
        fs_err::create_dir_all(dir.join(folder))?;
    }
    for (name, text) in FILES {
        fs_err::write(dir.join(name), text)?;
        println!("wrote {}", dir.join(name).display());
    }
    let given = match &arguments.dir {
        Some(dir) => format!(" {}", dir.display()),
        None => String::new(),
    };
    println!("next: quantmill run{given}");
    Ok(())
}
