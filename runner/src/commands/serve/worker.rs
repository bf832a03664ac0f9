//! The one thread that computes: requests in, what becomes of them out.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};

use quantmill_stages::decode::{Batch, Hear, Job, Model};

use super::metrics::Metrics;
use crate::exit::Failure;

/// A job, and who hears of it.
pub struct Ask {
    /// The job.
    pub job: Job,
    /// Who hears of it.
    pub hear: Hear,
}

/// The thread, from outside.
pub struct Worker {
    /// The model, for what need not be computed.
    pub model: Arc<Model>,
    sender: Sender<Ask>,
}

impl Worker {
    /// Starts the thread. It ends with the last `Worker`.
    pub fn start(
        model: Arc<Model>,
        slots: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Worker, Failure> {
        let (sender, receiver) = channel();
        let of = model.clone();
        std::thread::Builder::new()
            .name("model".into())
            .spawn(move || work(&of, slots, &receiver, &metrics))?;
        Ok(Worker { model, sender })
    }

    /// Hands a job over; false where the thread has ended.
    pub fn ask(&self, ask: Ask) -> bool {
        self.sender.send(ask).is_ok()
    }
}

fn work(model: &Model, slots: usize, receiver: &Receiver<Ask>, metrics: &Metrics) {
    let mut batch = Batch::new(slots);
    // The next one, where it does not fit yet: nobody overtakes it.
    let mut next: Option<Ask> = None;
    loop {
        if batch.is_empty() && next.is_none() {
            match receiver.recv() {
                Ok(ask) => next = Some(ask),
                Err(RecvError) => return,
            }
        }
        loop {
            if next.is_none() {
                next = receiver.try_recv().ok();
            }
            let fits = |ask: &Ask| batch.is_empty() || batch.len() + ask.job.n <= slots;
            let Some(ask) = next.take_if(|ask| fits(ask)) else { break };
            batch.add(model, ask.job, ask.hear);
        }
        metrics.running(batch.len());
        batch.step(model);
        metrics.running(batch.len());
    }
}
