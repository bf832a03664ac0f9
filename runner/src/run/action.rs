//! One action of a run: wait for the machine, run it, try again where the stage allows, and tell.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quantmill_cache::ActionResult;
use quantmill_stages::{Cancel, Progress, Sink, StageError};

use super::machine::Permit;
use super::{Ended, Shared};
use crate::event::Event;
use crate::executor::{self, Action, ActionError};
use crate::plan::Ready;

/// The wait before the first retry; each further one is four times as long.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits until the machine has room for an action of a stage.
pub async fn permit(shared: &Shared, index: usize) -> Result<Permit, Ended> {
    let permit = shared.machine.acquire(shared.graph.nodes[index].needs).await;
    if shared.stopped() { Err(Ended::Cancelled) } else { Ok(permit) }
}

/// Runs an action. The flag says whether it ran here: another run may have done it meanwhile.
pub fn run(shared: &Shared, index: usize, ready: &Ready) -> Result<(ActionResult, bool), Ended> {
    let node = &shared.graph.nodes[index];
    let item = ready.key.item.clone();
    let action = Action {
        node,
        ready,
        device: shared.plan.device(),
        dir: &shared.graph.dir,
        again: shared.plan.again(index),
        in_place: shared.options.publish,
    };
    let sandbox = Mutex::default();
    let speaker = Speaker { shared, stage: &node.name, item: &item, sandbox: &sandbox };
    let (mut left, mut pause) = (node.retries, PAUSE);
    loop {
        let cancel = &shared.options.cancel;
        match executor::execute(&action, &shared.state, &speaker, cancel) {
            Ok(done) => {
                let millis = if done.ran { done.result.millis } else { 0 };
                let (stage, key) = (node.name.clone(), done.key);
                let sandbox = lock(&sandbox).take();
                shared.say(Event::ActionFinished { stage, item, key, millis, sandbox });
                return Ok((done.result, done.ran));
            }
            Err(ActionError::Stage(StageError::Cancelled)) => return Err(Ended::Cancelled),
            Err(ActionError::Stage(error)) if left > 0 => {
                let count = node.retries - left + 1;
                speaker.warn(&format!("{error}; try {count} of {} follows", node.retries));
                if !sleep(pause, cancel) {
                    return Err(Ended::Cancelled);
                }
                left -= 1;
                pause = (pause * 4).min(LONGEST);
            }
            Err(ActionError::Stage(error)) => {
                shared.fail(&node.name, item, &error);
                return Err(Ended::Failed);
            }
            Err(ActionError::Index(error)) => return Err(Ended::Broken(error.into())),
        }
    }
}

/// False where it was cancelled meanwhile.
fn sleep(time: Duration, cancel: &Cancel) -> bool {
    let end = std::time::Instant::now() + time;
    while !cancel.is_cancelled() {
        let left = end.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
    false
}

/// Turns what an action says into events.
struct Speaker<'a> {
    shared: &'a Shared,
    stage: &'a str,
    item: &'a Option<String>,
    sandbox: &'a Mutex<Option<String>>,
}

fn lock(sandbox: &Mutex<Option<String>>) -> MutexGuard<'_, Option<String>> {
    sandbox.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink for Speaker<'_> {
    fn progress(&self, progress: Progress) {
        let (stage, item) = (self.stage.to_owned(), self.item.clone());
        self.shared.say(Event::Progress { stage, item, progress });
    }
    fn metric(&self, name: &str, value: f64) {
        let (stage, item, name) = (self.stage.to_owned(), self.item.clone(), name.to_owned());
        self.shared.say(Event::Metric { stage, item, name, value });
    }
    fn warn(&self, message: &str) {
        let (stage, item, message) = (self.stage.to_owned(), self.item.clone(), message.to_owned());
        self.shared.say(Event::Warning { stage, item, message });
    }
    fn output(&self, line: &str) {
        self.shared.say(Event::Output { stage: self.stage.to_owned(), line: line.to_owned() });
    }
    fn sandbox(&self, how: &str) {
        *lock(self.sandbox) = Some(how.to_owned());
    }
}
