//! Profiles as operators write them, and which of them this runner can hold.

mod file;
mod own;

pub use file::{Mounts, ProfileError, ProfileErrors, ProfileFile, load_profiles};
pub use own::{OwnFiles, resolved};

use provara_domain::{Profile, ResourceLimits};

/// Returns why this runner cannot hold what was decided on, where that is so: it makes the grants of `workspace` and of
/// `host`, and no others. Whoever runs a claim MUST ask, and not run what is told of here.
pub fn unheld(profile: &Profile, lowered: &ResourceLimits) -> Option<String> {
    if ![Profile::workspace(), Profile::host()].contains(profile) {
        let name = profile.name();
        return Some(format!(
            "this runner cannot hold the profile `{name}` yet; plan again and approve it with another"
        ));
    }
    let words = lowered.words();
    (!words.is_empty())
        .then(|| format!("this runner cannot hold {} yet; plan again and approve it without", words.join(" and ")))
}

#[cfg(test)]
mod tests {
    use provara_domain::{AskedBy, Resource};

    use super::*;

    #[test]
    fn only_what_the_kernel_is_told_to_hold_is_called_held() {
        let none = ResourceLimits::default();
        let held: Vec<bool> = Profile::builtin().iter().map(|profile| unheld(profile, &none).is_none()).collect();
        assert_eq!(held, [false, true, false, true]);
        let other =
            Profile::new(Profile::workspace().name().clone(), Profile::network().grants().clone(), AskedBy::Agents);
        assert!(unheld(&other, &none).is_some(), "a name makes no profile");
        for resource in Resource::ALL {
            assert!(unheld(&Profile::workspace(), &none.with(resource, 1 << 26).unwrap()).is_some(), "{resource:?}");
        }
    }
}
