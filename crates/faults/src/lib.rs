//! Places where a test may end this process, as `kill -9` would, or slow it down.
//!
//! Every step of a plan's life has one. A test names places in the environment variable [`VARIABLE`], and what is to happen
//! there. Only builds with debug assertions look at it; in a release build a place is nothing at all.
//!
//! The same builds take the clock's error from a file, so that a test can set the clock of a server at work.

/// The environment variable that says what happens where: `place=kill:N` ends the process the N-th time that it comes by,
/// `place=sleep:MS` holds it up each time. Several are separated by commas.
pub const VARIABLE: &str = "PROVARA_FAULTS";

/// The environment variable that names a file with the clock's error in seconds, a whole number.
pub const CLOCK_VARIABLE: &str = "PROVARA_CLOCK_ERROR_FILE";

macro_rules! places {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A place in the life of a plan.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Place { $($(#[$doc])* $variant,)* }

        impl Place {
            /// Every place, in the order of a plan's life.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the place's name in [`VARIABLE`].
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

places! {
    /// A proposal was judged; nothing is stored.
    PlanJudged = "plan.judged",
    /// A proposal is durable; nobody was told.
    PlanStored = "plan.stored",
    /// A decision was made; nothing is stored.
    DecisionMade = "decision.made",
    /// A decision is durable; nobody was told.
    DecisionStored = "decision.stored",
    /// A transaction has begun.
    CommitBegun = "commit.begun",
    /// A transaction is whole and not committed.
    CommitReady = "commit.ready",
    /// A transaction is durable; memory does not know.
    CommitDone = "commit.done",
    /// Memory knows of a transaction; nobody was answered.
    CommitApplied = "commit.applied",
    /// A plan is claimed; nothing was started.
    RunClaimed = "run.claimed",
    /// A run is about to be handed to its shell's process.
    RunReady = "run.ready",
    /// A run is handed over.
    RunHandedOver = "run.handed_over",
    /// A piece of output is in its spool.
    OutputAppended = "output.appended",
    /// The run's tree is gone; nothing of it is recorded.
    RunEnded = "run.ended",
    /// The run's output is durable; its outcome is not.
    OutputSettled = "output.settled",
    /// The run is recorded; its spool is still there.
    OutputUnlinked = "output.unlinked",
    /// The run is recorded; nobody was told.
    RunRecorded = "run.recorded",
    /// A checkpoint is signed and not kept.
    CheckpointSigned = "checkpoint.signed",
    /// Entries are about to go into the mirror.
    MirrorReady = "mirror.ready",
    /// In the helper: a spare is asked for.
    HelperReceived = "helper.received",
    /// In the helper: the spare has its supervisor.
    HelperForked = "helper.forked",
    /// In the supervisor: it has begun.
    SupervisorBegun = "supervisor.begun",
    /// In the supervisor: the namespaces are there.
    SupervisorApart = "supervisor.apart",
    /// In the supervisor: the run's first process is there.
    SupervisorForked = "supervisor.forked",
    /// In the run's first process: the shell's process is there.
    InitForked = "init.forked",
    /// In the shell's process: all that can be made before the run is known is there.
    ShellWaits = "shell.waits",
    /// In the shell's process: the run has come in.
    ShellReceived = "shell.received",
    /// In the shell's process: the run's view is mounted.
    ShellMounted = "shell.mounted",
    /// In the shell's process: its rights are given up.
    ShellReady = "shell.ready",
}

/// Does what the environment asks for at `place`: in a release build, nothing.
#[inline]
pub fn reached(place: Place) {
    #[cfg(debug_assertions)]
    asked::reached(place);
    #[cfg(not(debug_assertions))]
    let _ = place;
}

/// Returns by how many seconds the clock is to be wrong, as the file says that the environment names: in a release build,
/// by none.
#[inline]
pub fn clock_error() -> i64 {
    #[cfg(debug_assertions)]
    return asked::clock_error();
    #[cfg(not(debug_assertions))]
    0
}

#[cfg(debug_assertions)]
mod asked {
    use std::path::PathBuf;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};

    use super::{CLOCK_VARIABLE, Place, VARIABLE};

    enum Fault {
        Kill { at: u64, passed: AtomicU64 },
        Sleep(Duration),
    }

    static FAULTS: LazyLock<Vec<(String, Fault)>> = LazyLock::new(|| {
        let asked = std::env::var(VARIABLE).unwrap_or_default();
        asked.split(',').filter_map(fault).collect()
    });

    static CLOCK: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os(CLOCK_VARIABLE).map(PathBuf::from));

    pub(super) fn clock_error() -> i64 {
        let told = CLOCK.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        told.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn fault(asked: &str) -> Option<(String, Fault)> {
        let (place, what) = asked.split_once('=')?;
        let (what, number) = what.split_once(':')?;
        let number = number.parse().ok()?;
        let fault = match what {
            "kill" => Fault::Kill { at: number, passed: AtomicU64::new(0) },
            "sleep" => Fault::Sleep(Duration::from_millis(number)),
            _ => return None,
        };
        Some((place.to_owned(), fault))
    }

    pub(super) fn reached(place: Place) {
        for (_, fault) in FAULTS.iter().filter(|(name, _)| name == place.as_str()) {
            match fault {
                // Never returns: SIGKILL cannot be held off.
                Fault::Kill { at, passed } if passed.fetch_add(1, Ordering::Relaxed) + 1 == *at => {
                    let _ = raise(Signal::SIGKILL);
                }
                Fault::Kill { .. } => {}
                Fault::Sleep(pause) => std::thread::sleep(*pause),
            }
        }
    }
}
