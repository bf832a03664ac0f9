//! A user's program that scores completions: started once, asked by a line of JSON each, answering
//! by a line with a number.
//!
//! Its environment is that of a `command`: PATH, HOME, LANG and what the stage declares. It must
//! answer in order; what it prints on stderr is shown where it fails.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::command::environment;
use crate::{Context, Result, StageError};

/// The running program.
pub struct Scorer {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    line: String,
}

impl Scorer {
    /// Starts `command` by `sh`, with the path of input `reward` in place of `{reward}`.
    pub fn start(command: &str, ctx: &Context) -> Result<Scorer> {
        let mut text = command.to_owned();
        if text.contains("{reward}") {
            if !ctx.has("reward") {
                return Err(StageError::failed("`{reward}` in the command, but no such input")
                    .hint("feed the script to `reward` in `from`"));
            }
            let path = std::path::absolute(ctx.file("reward")?)?;
            text = text.replace("{reward}", &quoted(&path.to_string_lossy()));
        }
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(text).current_dir(&ctx.job().dir);
        environment::give(&mut command, ctx)?;
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.spawn()?;
        let (ask, answers) = (child.stdin.take(), child.stdout.take());
        match (ask, answers) {
            (Some(ask), Some(answers)) => {
                let answers = BufReader::new(answers);
                Ok(Scorer { child, ask, answers, line: String::new() })
            }
            _ => Err(StageError::failed("the scorer has no pipes")),
        }
    }

    /// The score of a completion. `record` is the line of `pairs` that the prompt is of.
    pub fn score(&mut self, prompt: &str, completion: &str, record: &Value) -> Result<f64> {
        let question = serde_json::json!({
            "prompt": prompt, "completion": completion, "record": record
        });
        let asked = writeln!(self.ask, "{question}").and_then(|()| self.ask.flush());
        self.line.clear();
        let read = asked.and_then(|()| self.answers.read_line(&mut self.line));
        let hint = "it reads a line of JSON and writes a line with a number, and flushes it, for \
                    each completion";
        match read {
            Ok(0) | Err(_) => {
                let status = self.child.wait()?;
                Err(StageError::failed(format!("the scorer ended ({status})")).hint(hint))
            }
            Ok(_) => match self.line.trim().parse::<f64>() {
                Ok(score) if score.is_finite() => Ok(score),
                _ => {
                    let said = self.line.trim().chars().take(80).collect::<String>();
                    Err(StageError::failed(format!("the scorer said `{said}`, not a number"))
                        .hint(hint))
                }
            },
        }
    }
}

impl Drop for Scorer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_program_answers_line_by_line() {
        let script = tempfile::NamedTempFile::new().unwrap();
        let text =
            "while read line; do case \"$line\" in *good*) echo 1.5;; *) echo -2e-1;; esac; done";
        fs_err::write(script.path(), text).unwrap();
        testing::with(&[("reward", script.path())], |ctx| {
            let mut scorer = Scorer::start("sh {reward}", ctx).unwrap();
            for (completion, score) in [("good", 1.5), ("bad\n", -0.2), ("good", 1.5)] {
                assert_eq!(scorer.score("p", completion, &Value::Null).unwrap(), score);
            }
        });
    }

    #[test]
    fn one_that_ends_or_says_no_number_is_an_error() {
        testing::with(&[], |ctx| {
            let said = |command: &str| {
                let mut scorer = Scorer::start(command, ctx)?;
                scorer.score("p", "c", &Value::Null)
            };
            assert!(said("exit 3").unwrap_err().to_string().contains("the scorer ended"));
            let e = said("read line; echo nan").unwrap_err();
            assert_eq!(e.to_string(), "the scorer said `nan`, not a number");
            assert!(said("cat {reward}").unwrap_err().help().unwrap().contains("`reward`"));
        });
    }
}
