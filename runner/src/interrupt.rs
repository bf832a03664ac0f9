//! What asks a run to end: Ctrl-C, TERM (a service, a cluster, a closing session) and HUP (a terminal
//! that went away). All are the same: stop the stages, say so, and end with the code of an interrupt.

use quantmill_stages::Cancel;

use crate::exit::code;

/// The first signal asks the stages to stop, the second does not ask.
pub async fn cancel(cancel: Cancel) {
    let Ok(mut signals) = Signals::new() else { return };
    while signals.next().await {
        if cancel.is_cancelled() {
            std::process::exit(code::INTERRUPTED.into());
        }
        cancel.cancel();
    }
}

/// Waits until the process is asked to end.
#[cfg(feature = "lm")]
pub async fn asked() {
    if let Ok(mut signals) = Signals::new()
        && signals.next().await
    {
        return;
    }
    std::future::pending().await
}

/// What asks a process to end.
#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Signals([interrupt?, terminate?, hangup?]))
    }

    async fn next(&mut self) -> bool {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            some = interrupt.recv() => some.is_some(),
            some = terminate.recv() => some.is_some(),
            some = hangup.recv() => some.is_some(),
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals)
    }

    async fn next(&mut self) -> bool {
        tokio::signal::ctrl_c().await.is_ok()
    }
}
