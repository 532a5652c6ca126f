//! Profiles as operators write them, and which of them this runner can hold.

mod file;
mod own;

pub use file::{Mounts, ProfileError, ProfileErrors, ProfileFile, load_profiles};
pub use own::{OwnFiles, resolved};

use provara_domain::{Profile, ResourceLimits};

/// Returns why this runner cannot hold what was decided on, where that is so. A profile that it does not know at all it
/// refuses by itself.
pub fn unheld(_profile: &Profile, lowered: &ResourceLimits) -> Option<String> {
    let words = lowered.words();
    (!words.is_empty()).then(|| {
        format!("this runner cannot hold {} yet; re-open the plan and approve it without", words.join(" and "))
    })
}
