//! What holding a profile takes, before a run is known.

use provara_domain::{Access, Files, Network, Profile, Tmp, UserName};

use crate::protocol::{Calls, View};

/// What holding a profile takes, its files and limits aside.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Demand<'a> {
    pub(crate) view: View,
    pub(crate) calls: Calls,
    pub(crate) user: Option<&'a UserName>,
}

/// Returns what holding `profile` takes, or why no host can hold it.
///
/// The host's files, temporary folders and network are given together, as `host` does, or none of them: a command that writes
/// wherever its user may would have the others anyway.
pub(crate) fn demand(profile: &Profile) -> Result<Demand<'_>, String> {
    let grants = profile.grants();
    let user = grants.user.as_ref();
    if (&grants.files, &grants.network) == (&host_files(), &Network::Host) {
        return Ok(Demand { view: View::Host, calls: Calls::Host, user });
    }
    let parts = [
        (grants.files.everywhere() == Access::Write, "all of the host's files"),
        (grants.files.tmp() == Tmp::Shared, "the host's tmp"),
        (grants.network == Network::Host, "the host's network"),
    ];
    let calls = match grants.network {
        Network::None => Calls::Nobody,
        Network::Loopback => Calls::Itself,
        Network::Hosts(_) | Network::All => Calls::Proxy,
        Network::Host => Calls::Host,
    };
    match parts.iter().find(|(granted, _)| *granted) {
        Some((_, part)) => Err(format!(
            "the profile `{}` gives {part} and not all that `host` does, which this runner does not tell apart; approve \
             another, or take it out of the profile",
            profile.name()
        )),
        None => Ok(Demand { view: View::Own, calls, user }),
    }
}

fn host_files() -> Files {
    Profile::host().grants().files.clone()
}

#[cfg(test)]
mod tests {
    use provara_domain::{AskedBy, Grants};

    use super::*;

    #[test]
    fn a_part_of_what_host_gives_is_not_held_as_less_or_more() {
        let seen = Profile::builtin().map(|profile| {
            let Demand { view, calls, user } = demand(&profile).unwrap();
            (view, calls, user.is_some())
        });
        let own = |calls| (View::Own, calls, false);
        let host = (View::Host, Calls::Host, false);
        assert_eq!(seen, [own(Calls::Nobody), own(Calls::Nobody), own(Calls::Proxy), host]);
        let [workspace, host] = [Profile::workspace(), Profile::host()].map(|profile| profile.grants().clone());
        let shared = Files::new(Access::Read, Access::Write, Tmp::Shared, [], []);
        for grants in [
            Grants { files: host.files.clone(), ..workspace.clone() },
            Grants { network: Network::Host, ..workspace.clone() },
            Grants { files: shared, ..workspace.clone() },
            Grants { network: Network::None, ..host.clone() },
        ] {
            // By what it grants: a name makes no profile.
            let profile = Profile::new(Profile::host().name().clone(), grants, AskedBy::Agents);
            let told = demand(&profile).unwrap_err();
            assert!(told.starts_with("the profile `host` gives "), "{told}");
        }
    }
}
