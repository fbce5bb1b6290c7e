//! What some work takes at most.

use std::fmt;
use std::fs;
use std::sync::{Mutex, PoisonError};

use crate::HEAP;

/// One MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// Whose turn it is: the allocator counts for all threads.
static TURN: Mutex<()> = Mutex::new(());

/// The most that was in use at a time, beyond what was before, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peak {
    /// What was allocated by Rust code.
    pub(crate) heap: u64,
    /// What was resident, if the system says so.
    pub(crate) resident: Option<u64>,
}

impl Peak {
    /// Does the work while no other is measured.
    pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // Linux sets the mark back to what is resident now (proc(5), clear_refs).
        let known = fs::write("/proc/self/clear_refs", "5").is_ok();
        let before = (HEAP.current_usage(), resident("VmRSS:"));
        HEAP.reset_peak_usage();
        let done = work();
        let heap = (HEAP.peak_usage() - before.0) as u64;
        let resident = before.1.zip(resident("VmHWM:")).filter(|_| known);
        (done, Self { heap, resident: resident.map(|(before, most)| most.saturating_sub(before)) })
    }

    /// Fails unless neither measure is above the limit.
    #[track_caller]
    pub(crate) fn is_within(&self, limit: u64, what: impl fmt::Display) {
        println!("{what}: {self}");
        assert!(self.heap <= limit, "{what}: {self}");
        assert!(self.resident.is_none_or(|resident| resident <= limit), "{what}: {self}");
    }
}

impl fmt::Display for Peak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB allocated", self.heap.div_ceil(MIB))?;
        self.resident.map_or(Ok(()), |resident| write!(f, ", {} MiB resident", resident.div_ceil(MIB)))
    }
}

/// A figure of this process, in bytes.
fn resident(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}
