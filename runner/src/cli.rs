//! The command line: a table of verbs.

use clap::{Parser, Subcommand};
use quantmill_stages::Kind;

use crate::commands;
use crate::executor::worker;
use crate::exit::{Failure, code};
use crate::report::text::{Paint, colour, columns, paint};

/// Runs pipelines of content-hashed stages: only what has changed, and the same bytes again.
#[derive(Debug, Parser)]
#[command(name = "quantmill", version, propagate_version = true, infer_subcommands = true)]
#[command(after_help = "\
Examples:
  quantmill init my-pipeline                 a small pipeline to begin with
  quantmill run pipelines/quickstart         run what has changed
  quantmill plan                             what would run, and why
  quantmill graph --format svg > dag.svg     a picture")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Log for debugging, as in `--log debug` or `--log quantmill=trace`
    #[arg(long, global = true, value_name = "FILTER", env = "QUANTMILL_LOG")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run what has changed
    Run(commands::run::Run),
    /// Run, and run again whenever a source or the pipeline is saved
    #[command(after_help = commands::watch::EXAMPLES)]
    Watch(commands::watch::Watch),
    /// Show what a run would do, and why
    Plan(commands::plan::PlanArgs),
    /// Explain why a stage runs, or what made it
    Explain(commands::explain::Explain),
    /// Show which stages are up to date and in place
    Status(commands::status::Status),
    /// Check a pipeline file, and list all that is wrong with it
    Check(commands::check::Check),
    /// Draw a pipeline
    Graph(commands::graph::GraphArgs),
    /// Run a pipeline with many values, and show which were the best
    Sweep(commands::sweep::Sweep),
    /// Show the metrics of runs, beside what differs between them
    Metrics(commands::metrics::Metrics),
    /// Draw a metric of runs against a parameter
    Plots(commands::plots::Plots),
    /// List, show, compare and reproduce runs
    Runs(commands::runs::Runs),
    /// Look after the store: how large it is, whether it is whole, what can go
    Cache(commands::cache::Cache),
    /// Let a language model go on with texts
    #[cfg(feature = "lm")]
    #[command(after_help = commands::generate::EXAMPLES)]
    Generate(commands::generate::Generate),
    /// Ask a language model for trading decisions
    #[cfg(feature = "lm")]
    #[command(after_help = commands::decide::EXAMPLES)]
    Decide(commands::decide::Decide),
    /// Serve a language model over HTTP, as OpenAI's API
    #[cfg(feature = "lm")]
    #[command(after_help = commands::serve::EXAMPLES)]
    Serve(commands::serve::Serve),
    /// Begin a pipeline that works
    Init(commands::init::Init),
    /// Print the JSON Schema of pipeline files, for editors
    Schema(commands::schema::Schema),
    /// List the kinds of stages, or show the parameters of one
    Stages(commands::stages::Stages),
    /// Run one action for another process
    #[command(hide = true)]
    Worker,
}

/// Does what the command line says and returns the exit code.
pub fn main(kinds: &[Kind]) -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { code::USAGE } else { code::OK };
        }
    };
    if let Some(filter) = &cli.log {
        log(filter);
    }
    let done = match &cli.verb {
        Verb::Run(arguments) => commands::run::run(arguments, kinds),
        Verb::Watch(arguments) => commands::watch::watch(arguments, kinds),
        Verb::Plan(arguments) => commands::plan::plan(arguments, kinds),
        Verb::Explain(arguments) => commands::explain::explain(arguments, kinds),
        Verb::Status(arguments) => commands::status::status(arguments, kinds),
        Verb::Check(arguments) => commands::check::check(arguments, kinds),
        Verb::Graph(arguments) => commands::graph::graph(arguments, kinds),
        Verb::Sweep(arguments) => commands::sweep::sweep(arguments, kinds),
        Verb::Metrics(arguments) => commands::metrics::metrics(arguments),
        Verb::Plots(arguments) => commands::plots::plots(arguments),
        Verb::Runs(arguments) => commands::runs::runs(arguments, kinds),
        Verb::Cache(arguments) => commands::cache::cache(arguments, kinds),
        #[cfg(feature = "lm")]
        Verb::Generate(arguments) => commands::generate::generate(arguments),
        #[cfg(feature = "lm")]
        Verb::Decide(arguments) => commands::decide::decide(arguments, kinds),
        #[cfg(feature = "lm")]
        Verb::Serve(arguments) => commands::serve::serve(arguments),
        Verb::Init(arguments) => commands::init::init(arguments, kinds),
        Verb::Schema(arguments) => commands::schema::schema(arguments, kinds),
        Verb::Stages(arguments) => commands::stages::stages(arguments, kinds),
        Verb::Worker => worker::main(kinds).map_err(Failure::from),
    };
    done.map_or_else(|failure| tell(&failure), |()| code::OK)
}

fn log(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(filter);
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Says why it ended, on stderr.
pub(crate) fn tell(failure: &Failure) -> u8 {
    let word = paint(colour(), Paint::Red, "error");
    match failure {
        Failure::Problems(problems) => {
            let width = columns(&std::io::stderr(), 100).clamp(60, 120);
            eprint!("{}", problems.render(colour(), width));
        }
        // Each was told as it happened.
        Failure::Stages(_) | Failure::Told | Failure::Listed | Failure::Interrupted => {}
        Failure::Usage { message, help } => {
            eprintln!("{word}: {message}");
            if let Some(help) = help {
                eprintln!("  hint: {help}");
            }
        }
        Failure::Work(error) => {
            eprintln!("{word}: {error}");
            if let Some(help) = error.help() {
                eprintln!("  hint: {help}");
            }
        }
        Failure::Io(_) | Failure::Index(_) => eprintln!("{word}: {failure}"),
    }
    failure.code()
}
