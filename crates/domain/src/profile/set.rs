//! The profiles that a server knows.

use std::collections::BTreeMap;
use std::fmt;

use super::grants::Profile;
use crate::plan::ProfileName;

/// The profiles that a server knows, by name: the built-in ones and the operator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profiles(BTreeMap<ProfileName, Profile>);

/// Two profiles whose names a person could take for one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfilesError {
    /// The name that came last.
    pub name: ProfileName,
    /// The name that was there.
    pub known: ProfileName,
}

impl fmt::Display for ProfilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the profile `{}` is named like `{}`", self.name, self.known)
    }
}

impl std::error::Error for ProfilesError {}

impl Profiles {
    /// Returns the built-in profiles alone.
    pub fn builtin() -> Self {
        Self(Profile::builtin().into_iter().map(|profile| (profile.name().clone(), profile)).collect())
    }

    /// Adds a profile. Names that differ in case alone are equal: a person would not see the difference.
    ///
    /// # Errors
    /// When its name is taken.
    pub fn add(&mut self, profile: Profile) -> Result<(), ProfilesError> {
        let name = profile.name().clone();
        let taken = self.0.keys().find(|known| known.as_str().eq_ignore_ascii_case(name.as_str()));
        match taken {
            Some(known) => Err(ProfilesError { known: known.clone(), name }),
            None => {
                self.0.insert(name, profile);
                Ok(())
            }
        }
    }

    /// Returns the profile of that name, to the letter.
    pub fn get(&self, name: &ProfileName) -> Option<&Profile> {
        self.0.get(name)
    }

    /// Returns every profile, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Profile> {
        self.0.values()
    }
}
