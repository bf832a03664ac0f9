//! What ends a command when this process is killed and can end nothing itself.
//!
//! A small shell waits on a pipe that nobody else holds. The pipe ends when this process does, and
//! the shell then kills the command's process group, and on Linux who has left it. A command that
//! takes a moment gets none, so that it costs nothing there: killed in its first tenth of a second,
//! it runs to its own end. The other ways were worse: `PR_SET_PDEATHSIG` has to be set in the child,
//! which makes the standard library fork, and tells one process rather than all of them.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// `$1` is the group, `$2` a text of the environment of all its processes.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
read -r line && exit
kill -KILL -- "-$1"
for file in $(grep -lasF -e "$2" /proc/[0-9]*/environ); do
    pid=${file#/proc/}
    kill -KILL "${pid%/environ}"
done
"#;

/// The shell of one command; dropping it lets the command be.
pub struct Guard(Child);

impl Guard {
    /// Guards a group. `None` where no shell can be started: then nothing is guarded.
    pub fn start(group: u32, mark: &str) -> Option<Guard> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SCRIPT, "guard", &group.to_string(), mark]);
        shell.env_clear().current_dir("/").process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        shell.spawn().ok().map(Guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Its end of the pipe is still open: it dies before it could think that we did.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
