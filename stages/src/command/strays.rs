//! Processes of a command that left its group (`setsid`) and outlive it.
//!
//! This process adopts what its descendants leave behind (Linux's subreaper), so that a stray is
//! found among its own children, by what its environment says: the scratch folder, in `TMPDIR`, is of
//! this one action. A process that both leaves the group and clears its environment is not found.
//! Elsewhere than on Linux nothing is.

#[cfg(target_os = "linux")]
pub use linux::{adopt, end, kill};

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::Once;
    use std::time::{Duration, Instant};

    use rustix::process::{
        Pid, Signal, WaitId, WaitIdOptions, getpgid, getpid, kill_process, set_child_subreaper,
        test_kill_process_group, waitid,
    };

    /// A killed process that is not gone by then hangs in the kernel.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Lets orphans come to this process. Once is enough.
    pub fn adopt() {
        static ONCE: Once = Once::new();
        // An old kernel refuses: then strays are not found.
        ONCE.call_once(|| {
            let _ = set_child_subreaper(Some(getpid()));
        });
    }

    /// Waits for the end of a group whose members were killed and whose leader is reaped, and ends
    /// those who left it. Returns the names of these.
    pub fn end(group: u32, mark: &str) -> Vec<String> {
        let Some(group) = Pid::from_raw(group as i32) else { return Vec::new() };
        let begun = Instant::now();
        let mut ended = Vec::new();
        loop {
            reap(WaitId::Pgid(Some(group)), WaitIdOptions::NOHANG);
            let strays = sweep(group, mark);
            let alone = strays.is_empty() && test_kill_process_group(group).is_err();
            ended.extend(strays);
            if alone || begun.elapsed() > PATIENCE {
                return ended;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Ends those who have left a group by now, and returns their names.
    pub fn kill(group: u32, mark: &str) -> Vec<String> {
        Pid::from_raw(group as i32).map(|group| sweep(group, mark)).unwrap_or_default()
    }

    fn sweep(group: Pid, mark: &str) -> Vec<String> {
        let end = |(pid, name)| {
            // One that ends of itself meanwhile is as good.
            let _ = kill_process(pid, Signal::KILL);
            reap(WaitId::Pid(pid), WaitIdOptions::empty());
            name
        };
        strays(group, mark).into_iter().map(end).collect()
    }

    fn reap(who: WaitId, how: WaitIdOptions) {
        while let Ok(Some(_)) = waitid(who.clone(), WaitIdOptions::EXITED | how) {}
    }

    /// Children of this process that are the command's, by their environment, but not of its group.
    fn strays(group: Pid, mark: &str) -> Vec<(Pid, String)> {
        let own = std::process::id();
        // Orphans are given to the first thread.
        let children = fs_err::read_to_string(format!("/proc/self/task/{own}/children"));
        let children = children.unwrap_or_default();
        let found = children.split_whitespace().filter_map(|pid| {
            let number = Pid::from_raw(pid.parse().ok()?)?;
            if getpgid(Some(number)) == Ok(group) {
                return None;
            }
            let environment = fs_err::read(format!("/proc/{pid}/environ")).ok()?;
            environment.split(|byte| *byte == 0).find(|text| *text == mark.as_bytes())?;
            let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Some((number, name.trim().to_owned()))
        });
        found.collect()
    }
}

#[cfg(not(target_os = "linux"))]
pub fn adopt() {}

#[cfg(not(target_os = "linux"))]
pub fn kill(_: u32, _: &str) -> Vec<String> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
pub fn end(_: u32, _: &str) -> Vec<String> {
    Vec::new()
}
