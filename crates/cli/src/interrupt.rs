//! Ctrl-C while we wait. It ends the program with code 130, after what was asked for has been done: telling how to come
//! back, or giving the terminal its echo again.

use std::sync::{Mutex, Once, PoisonError};

use nix::sys::signal::{SigSet, Signal};

type Act = Box<dyn FnOnce() + Send>;

static BEFORE_THE_END: Mutex<Option<Act>> = Mutex::new(None);
static WATCHED: Once = Once::new();

/// Undoes [`at_interrupt`].
pub(crate) struct Armed(());

/// Does `act` on Ctrl-C, until the answer is dropped. MUST be called before other threads are made: a signal goes to any
/// thread that does not block it.
pub(crate) fn at_interrupt(act: impl FnOnce() + Send + 'static) -> Armed {
    *BEFORE_THE_END.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(act));
    WATCHED.call_once(|| {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        // Where the signal cannot be waited for it ends the program as it always did.
        if signals.thread_block().is_ok() {
            std::thread::spawn(move || {
                while signals.wait().is_err() {}
                // A second Ctrl-C does not wait for what the first one does.
                let _ = signals.thread_unblock();
                let act = BEFORE_THE_END.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(act) = act {
                    act();
                }
                std::process::exit(130);
            });
        }
    });
    Armed(())
}

impl Drop for Armed {
    fn drop(&mut self) {
        *BEFORE_THE_END.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
