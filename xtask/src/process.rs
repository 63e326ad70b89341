//! Processes that this program started, known by more than a number.
//!
//! A pid can be given to somebody else once its process has ended. So a process is remembered with the
//! time at which it started, and nothing is signalled whose start time differs: not even when a state
//! file is days old. Linux only, since the start time comes from `/proc`.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(5);

/// A process and when it started, in clock ticks since the machine did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started.
    pub started: u64,
}

impl ProcessId {
    /// Looks up a process that is certainly running, such as one just spawned.
    pub fn of(pid: u32) -> Result<ProcessId> {
        let pid = i32::try_from(pid).context("a pid fits in 31 bits")?;
        let (started, _) = stat(pid).with_context(|| format!("process {pid} ended right after its start"))?;
        Ok(ProcessId { pid, started })
    }

    /// Whether it still runs. A process that ended but was not waited for yet counts as ended.
    pub fn is_running(self) -> bool {
        stat(self.pid).is_some_and(|(started, state)| started == self.started && state != 'Z' && state != 'X')
    }

    /// Sends a signal, if it is still the same process.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("a pid is not 0")?;
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => bail!("process {} cannot be signalled: {e}", self.pid),
        }
    }

    /// Whether it was stopped by a signal and can go on.
    pub fn is_paused(self) -> bool {
        stat(self.pid).is_some_and(|(started, state)| started == self.started && state == 'T')
    }

    /// CPU time of all its threads so far, also of those that ended; `None` if it does not run any more.
    pub fn cpu(self) -> Option<Duration> {
        let fields = stat_fields(self.pid)?;
        let ticks = |nth: usize| fields.get(nth)?.parse::<u64>().ok();
        let started = ticks(STARTED)?;
        let spent = ticks(USER)? + ticks(SYSTEM)?;
        (started == self.started).then(|| Duration::from_millis(spent * MILLIS_PER_TICK))
    }

    /// Waits until it has ended; false if the deadline came first.
    pub fn wait_ended(self, deadline: Duration) -> bool {
        let start = Instant::now();
        while self.is_running() {
            if start.elapsed() > deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }
}

/// Places in [`stat_fields`].
const STATE: usize = 0;
const USER: usize = 11;
const SYSTEM: usize = 12;
const STARTED: usize = 19;
/// Linux counts a hundred ticks a second for programs, whatever it does itself.
const MILLIS_PER_TICK: u64 = 10;

/// The fields of `/proc/PID/stat` from the third on. The second one is the program's name in parentheses and may hold
/// anything, so fields are counted from the last parenthesis.
fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// Start time and state letter.
fn stat(pid: i32) -> Option<(u64, char)> {
    let fields = stat_fields(pid)?;
    Some((fields.get(STARTED)?.parse().ok()?, fields.get(STATE)?.chars().next()?))
}

/// Asks for a condition again and again until it holds, or says what was awaited in vain.
pub fn wait_until(
    what: &str,
    deadline: Duration,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > deadline {
            bail!("{what}: not so after {:.1} s", deadline.as_secs_f64());
        }
        thread::sleep(POLL);
    }
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep exists");
        let id = ProcessId::of(child.id()).expect("it runs");
        assert!(id.is_running());
        let other = ProcessId { started: id.started + 1, ..id };
        assert!(!other.is_running());
        other.signal(Signal::KILL).expect("nothing to signal");
        assert!(id.is_running(), "another process with that number is not signalled");
        id.signal(Signal::KILL).expect("signalled");
        assert!(id.wait_ended(Duration::from_secs(10)));
        assert!(!child.wait().expect("reaped").success());
    }

    #[test]
    fn cpu_time_is_counted() {
        let id = ProcessId::of(std::process::id()).expect("it runs");
        let before = id.cpu().expect("it runs");
        let mut sum = 0u64;
        wait_until("some is spent", Duration::from_secs(60), || {
            sum = (0..1_000_000).fold(sum, |sum, n| std::hint::black_box(sum.wrapping_add(n)));
            Ok(id.cpu().is_some_and(|cpu| cpu > before))
        })
        .expect("it is counted");
        assert_eq!(ProcessId { started: id.started + 1, ..id }.cpu(), None);
    }

    #[test]
    fn an_ended_process_is_not_running() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat exists");
        let id = ProcessId::of(child.id()).expect("it waits for its input");
        drop(child.stdin.take());
        assert!(id.wait_ended(Duration::from_secs(10)), "also before its status is taken");
        assert!(child.wait().expect("reaped").success());
        assert!(!id.is_running());
    }

    #[test]
    fn waiting_in_vain_says_for_what() {
        let error = wait_until("the moon is full", Duration::from_millis(20), || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("the moon is full"), "{error}");
    }
}
