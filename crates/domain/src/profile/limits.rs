//! How much of the machine a command may use.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap as _, Serializer};

/// What is limited. Wall time is the plan's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Seconds of processor time, of all processes together.
    Cpu,
    /// Bytes of memory, of all processes together.
    Memory,
    /// Processes at a time.
    Processes,
    /// Open files of each process.
    OpenFiles,
    /// Bytes of each file that is written.
    FileSize,
    /// Bytes of output, both streams together.
    Output,
}

impl Resource {
    /// Every resource.
    pub const ALL: [Self; 6] =
        [Self::Cpu, Self::Memory, Self::Processes, Self::OpenFiles, Self::FileSize, Self::Output];

    /// Returns the resource's word in files and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu_s",
            Self::Memory => "memory",
            Self::Processes => "processes",
            Self::OpenFiles => "open_files",
            Self::FileSize => "file_size",
            Self::Output => "output",
        }
    }

    /// Returns the resource that `raw` names, if any.
    pub fn parse(raw: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.as_str() == raw)
    }

    /// Returns the smallest limit: with less no shell starts.
    pub const fn least(self) -> u64 {
        match self {
            Self::Memory => 1 << 24,
            Self::OpenFiles => 16,
            Self::Cpu | Self::Processes | Self::FileSize | Self::Output => 1,
        }
    }

    /// Returns whether it is counted in bytes.
    pub const fn is_bytes(self) -> bool {
        matches!(self, Self::Memory | Self::FileSize | Self::Output)
    }
}

/// A limit that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceLimitError {
    /// Of what.
    pub resource: Resource,
}

impl fmt::Display for ResourceLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, least) = (self.resource.as_str(), self.resource.least());
        write!(f, "the limit `{name}` is a whole number from {least} to {}", ResourceLimits::MOST)
    }
}

impl std::error::Error for ResourceLimitError {}

/// The most of each resource. What is not limited here is limited by the host alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResourceLimits([Option<u64>; 6]);

impl ResourceLimits {
    /// The largest limit: every JSON reader keeps it exact.
    pub const MOST: u64 = (1 << 53) - 1;

    /// Returns these limits with another one of `resource`.
    ///
    /// # Errors
    /// When `most` is too small for anything to run, or too large for JSON.
    pub fn with(self, resource: Resource, most: u64) -> Result<Self, ResourceLimitError> {
        if !(resource.least()..=Self::MOST).contains(&most) {
            return Err(ResourceLimitError { resource });
        }
        Ok(self.map(|known, limit| if known == resource { Some(most) } else { limit }))
    }

    /// Returns these limits without one of `resource`.
    #[must_use]
    pub fn without(self, resource: Resource) -> Self {
        self.map(|known, limit| if known == resource { None } else { limit })
    }

    /// Returns the limit of `resource`, if it has one.
    pub fn get(&self, resource: Resource) -> Option<u64> {
        self.limited().find(|(known, _)| *known == resource).map(|(_, most)| most)
    }

    /// Returns every limit that there is.
    pub fn limited(&self) -> impl Iterator<Item = (Resource, u64)> {
        Resource::ALL.into_iter().zip(self.0).filter_map(|(resource, limit)| Some((resource, limit?)))
    }

    /// Returns whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.limited().next().is_none()
    }

    /// Returns the stricter limit of both, for each resource.
    pub fn and(self, other: Self) -> Self {
        self.map(|resource, limit| match (limit, other.get(resource)) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        })
    }

    /// Returns the resource of which these limits allow more than `other`, if there is one.
    pub fn beyond(&self, other: &Self) -> Option<Resource> {
        Resource::ALL.into_iter().find(|resource| match (self.get(*resource), other.get(*resource)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(ours), Some(theirs)) => ours > theirs,
        })
    }

    fn map(self, change: impl Fn(Resource, Option<u64>) -> Option<u64>) -> Self {
        let mut changed = self.0;
        for (resource, limit) in Resource::ALL.into_iter().zip(&mut changed) {
            *limit = change(resource, *limit);
        }
        Self(changed)
    }
}

impl Serialize for ResourceLimits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (resource, most) in self.limited() {
            map.serialize_entry(resource.as_str(), &most)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ResourceLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = std::collections::BTreeMap::<String, u64>::deserialize(deserializer)?;
        stored.into_iter().try_fold(Self::default(), |limits, (name, most)| {
            // A limit that this version does not know would be one that it does not hold.
            let resource = Resource::parse(&name).ok_or_else(|| D::Error::custom("unknown limit"))?;
            limits.with(resource, most).map_err(D::Error::custom)
        })
    }
}
