//! The binary `quantmill`: the engine with every built-in stage.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(quantmill::cli::main(quantmill_stages::ALL))
}
