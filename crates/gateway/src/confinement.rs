//! Which profile a plan runs with: what the agent asks for, what rules force and forbid, and what whoever decides makes of
//! it. Tightening is free, loosening needs a reason, and what was decided on is what must be found when it runs.

use provara_audit::canonical;
use provara_domain::{
    AskedBy, Binding, Digest, Grants, Name, Network, Outcome, Plan, Profile, ProfileChange, ProfileName, Profiles,
    ResourceLimits, SpawnFailure,
};
use provara_policy::Demands;
use provara_store::PlanRecord;

use crate::decide::{Approval, DecideError};
use crate::gateway::{Gateway, Inner};
use crate::propose::ProposeError;

/// The profile that a plan runs with, for whoever looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// Its name.
    pub profile: ProfileName,
    /// What it lets a command do.
    pub words: String,
    /// The digest of its canonical form.
    pub sha256: Digest,
    /// The rules that force or forbid profiles for this plan.
    pub rules: Vec<String>,
}

/// One loaded profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedProfile<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// The digest of its canonical form.
    pub sha256: Digest,
    /// The canonical form, JSON.
    pub canonical: Vec<u8>,
}

impl Gateway {
    /// Returns every profile that is loaded, by name.
    pub fn profiles(&self) -> impl Iterator<Item = LoadedProfile<'_>> {
        self.inner.config.profiles.iter().map(|profile| {
            let canonical = canonical::profile(profile);
            LoadedProfile { profile, sha256: canonical::sha256(&canonical), canonical }
        })
    }

    /// Returns what the plan runs with: as decided, or as it will be where whoever decides says nothing else. Nothing where
    /// no loaded profile is that, so that a person has to name one.
    pub fn confinement(&self, record: &PlanRecord) -> Option<Confinement> {
        let demands = self.inner.policy.demands(&record.judgement);
        let terms = self.inner.terms(&demands);
        let decided = record.decision.as_ref().map(|known| &known.decision.profile);
        let profile = match decided {
            Some(name) => terms.profiles.get(name),
            None => terms.shown(&record.plan.profile),
        }?;
        let sha256 = canonical::profile_digest(profile);
        Some(Confinement { profile: profile.name().clone(), words: profile.words(), sha256, rules: demands.rules })
    }
}

impl Inner {
    /// What an agent asks for, where it may. Asking costs nothing: a person sees it and decides.
    pub(crate) fn asked_profile(&self, asked: Option<Name>) -> Result<ProfileName, ProposeError> {
        let Some(asked) = asked.map(ProfileName::new) else { return Ok(ProfileName::workspace()) };
        let nothing = Demands::default();
        let terms = self.terms(&nothing);
        let may = |profile: &&Profile| profile.asked_by() == AskedBy::Agents && terms.allows(profile);
        if terms.profiles.get(&asked).filter(may).is_some() {
            return Ok(asked);
        }
        let askable: Vec<String> =
            terms.profiles.iter().filter(may).map(|profile| format!("`{}`", profile.name())).collect();
        Err(ProposeError::Profile { asked, askable: askable.join(", ") })
    }

    /// What a yes makes of the plan's confinement.
    pub(crate) fn settle(&self, shown: &Plan, demands: &Demands, approval: &Approval) -> Result<Settled, DecideError> {
        let settled = self.terms(demands).settle(&shown.profile, approval)?;
        match approval.timeout {
            Some(timeout) if timeout > shown.timeout => Err(DecideError::HigherLimit { what: "timeout_s" }),
            Some(timeout) if timeout < shown.timeout => {
                Ok(Settled { change: settled.change.or(Some(ProfileChange::Tightened)), ..settled })
            }
            _ => Ok(settled),
        }
    }

    /// The digest of what the plan runs with where whoever decides names nothing; else of what it asks for, if that is loaded.
    pub(crate) fn shown_profile(&self, plan: &Plan, demands: &Demands) -> Option<Digest> {
        let terms = self.terms(demands);
        let profile = terms.shown(&plan.profile).or_else(|| terms.profiles.get(&plan.profile));
        profile.map(canonical::profile_digest)
    }

    /// What a preview of the plan runs with: what the plan itself would, but that nobody can be called; and never more than
    /// `workspace` allows. Else nothing.
    pub(crate) fn preview_profile(&self, plan: &Plan, demands: &Demands) -> Option<Profile> {
        self.terms(demands).shown(&plan.profile).and_then(quiet)
    }

    fn terms<'a>(&'a self, demands: &'a Demands) -> Terms<'a> {
        let most = self.config.single_token.then(Profile::workspace);
        Terms { profiles: &self.config.profiles, demands, most }
    }
}

/// What a yes amounts to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) profile: ProfileName,
    pub(crate) binding: Binding,
    pub(crate) resources: ResourceLimits,
    pub(crate) change: Option<ProfileChange>,
}

/// What may be chosen for one plan.
struct Terms<'a> {
    profiles: &'a Profiles,
    demands: &'a Demands,
    /// What nothing may go beyond, where one token proposes and decides.
    most: Option<Profile>,
}

impl<'a> Terms<'a> {
    fn allows(&self, profile: &Profile) -> bool {
        // A rule may name a profile that is not loaded any more; then nothing is within it.
        let within = |name: &ProfileName| self.profiles.get(name).is_some_and(|forced| profile.is_within(forced));
        !self.demands.forbidden.contains(profile.name())
            && self.demands.forced.iter().all(within)
            && self.most.as_ref().is_none_or(|most| profile.is_within(most))
    }

    /// What the plan runs with where whoever decides names nothing: what was asked for, or what rules force instead.
    fn shown(&self, asked: &ProfileName) -> Option<&'a Profile> {
        let candidates = std::iter::once(asked).chain(&self.demands.forced);
        candidates.filter_map(|name| self.profiles.get(name)).find(|profile| self.allows(profile))
    }

    fn settle(&self, asked: &ProfileName, approval: &Approval) -> Result<Settled, DecideError> {
        let shown = self.shown(asked);
        let ruled = |name: &ProfileName| DecideError::ProfileRuled {
            profile: name.clone(),
            rules: self.demands.rules.iter().map(|rule| format!("`{rule}`")).collect::<Vec<_>>().join(", "),
        };
        let chosen = match &approval.profile {
            Some(name) => self.profiles.get(name).ok_or_else(|| DecideError::Profile(name.clone()))?,
            None => shown.ok_or_else(|| match self.profiles.get(asked) {
                Some(_) => ruled(asked),
                None => DecideError::Profile(asked.clone()),
            })?,
        };
        if self.most.as_ref().is_some_and(|most| !chosen.is_within(most)) {
            return Err(DecideError::Profile(chosen.name().clone()));
        }
        if !self.allows(chosen) {
            return Err(ruled(chosen.name()));
        }
        let sha256 = canonical::profile_digest(chosen);
        if approval.profile_sha256.as_ref().is_some_and(|seen| *seen != sha256) {
            return Err(DecideError::ProfileMismatch { profile: chosen.name().clone(), found: sha256 });
        }
        // Where rules leave nothing to be shown, nothing was shown that the choice could be tighter than.
        let change = match shown {
            Some(shown) if shown == chosen && approval.limits.is_empty() => None,
            Some(shown) if chosen.is_within(shown) => Some(ProfileChange::Tightened),
            _ => Some(ProfileChange::Loosened),
        };
        let has_reason = approval.reason.as_ref().is_some_and(|reason| !reason.trim().is_empty());
        if change == Some(ProfileChange::Loosened) && !has_reason {
            let from = shown.map_or(asked, Profile::name).clone();
            return Err(DecideError::NoReason { from, to: chosen.name().clone() });
        }
        let higher = approval
            .limits
            .limited()
            .find(|(resource, most)| chosen.grants().limits.get(*resource).is_some_and(|granted| *most > granted));
        if let Some((resource, _)) = higher {
            return Err(DecideError::HigherLimit { what: resource.as_str() });
        }
        Ok(Settled {
            profile: chosen.name().clone(),
            binding: Binding {
                runner: Name::local_target(),
                cwd_dev_ino: None,
                shell_sha256: None,
                scripts: Vec::new(),
                profile_sha256: sha256,
            },
            resources: approval.limits,
            change,
        })
    }
}

fn quiet(shown: &Profile) -> Option<Profile> {
    let most = Profile::workspace();
    let grants = Grants { network: Network::None, ..shown.grants().clone() };
    let alone = Profile::new(shown.name().clone(), grants, shown.asked_by());
    if alone.is_within(&most) {
        return Some(alone);
    }
    most.is_within(shown).then_some(most)
}

/// Returns the profile that was decided on, or how a run ends whose profile is another by now.
pub(crate) fn decided<'a>(
    profiles: &'a Profiles,
    name: &ProfileName,
    binding: Option<&Binding>,
) -> Result<&'a Profile, Outcome> {
    let changed = |what: &str| {
        let message = format!("the profile `{name}` is {what}; re-open the plan and decide again");
        Outcome::SpawnFailed { failure: SpawnFailure::Changed, message }
    };
    let profile = profiles.get(name).ok_or_else(|| changed("not loaded any more"))?;
    // A decision of an older version binds none.
    let bound = binding.map(|binding| &binding.profile_sha256);
    if bound.is_some_and(|bound| *bound != canonical::profile_digest(profile)) {
        return Err(changed("not what was decided on"));
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use provara_domain::{Access, Files, Resource, Tmp};

    use super::*;

    fn name(raw: &str) -> ProfileName {
        ProfileName::new(Name::parse(raw).unwrap())
    }

    /// The built-in ones, and one that can be compared with none of them but `read-only`.
    fn known() -> Profiles {
        let mut all = Profiles::builtin();
        let grants = Grants { network: Network::Loopback, ..Profile::read_only().grants().clone() };
        all.add(Profile::new(name("own"), grants, AskedBy::Agents)).unwrap();
        all
    }

    fn settle(forced: &[&str], forbidden: &[&str], asked: &str, approval: Approval) -> Result<Settled, DecideError> {
        let names = |raw: &[&str]| raw.iter().map(|raw| name(raw)).collect();
        let demands = Demands {
            forced: names(forced),
            forbidden: names(forbidden),
            rules: vec!["r1".to_owned(), "r2".to_owned()],
            ..Demands::default()
        };
        Terms { profiles: &known(), demands: &demands, most: None }.settle(&name(asked), &approval)
    }

    fn choosing(profile: &str, reason: Option<&str>) -> Approval {
        Approval { profile: Some(name(profile)), reason: reason.map(str::to_owned), ..Approval::default() }
    }

    fn outcome(settled: &Result<Settled, DecideError>) -> (&str, Option<ProfileChange>) {
        let settled = settled.as_ref().unwrap();
        (settled.profile.as_str(), settled.change)
    }

    #[test]
    fn tightening_is_free_and_loosening_needs_a_reason() {
        use ProfileChange::{Loosened, Tightened};
        let plain = settle(&[], &[], "workspace", Approval::default());
        assert_eq!(outcome(&plain), ("workspace", None));
        assert_eq!(plain.unwrap().binding.profile_sha256, canonical::profile_digest(&Profile::workspace()));
        assert_eq!(
            outcome(&settle(&[], &[], "workspace", choosing("read-only", None))),
            ("read-only", Some(Tightened))
        );
        for looser in ["network", "host", "own"] {
            for reason in [None, Some(""), Some(" \n\t")] {
                let refused = settle(&[], &[], "workspace", choosing(looser, reason));
                assert!(matches!(refused, Err(DecideError::NoReason { .. })), "{looser} {reason:?}: {refused:?}");
            }
            let settled = settle(&[], &[], "workspace", choosing(looser, Some("needs it")));
            assert_eq!(outcome(&settled), (looser, Some(Loosened)));
        }
        assert!(matches!(settle(&[], &[], "workspace", choosing("none", Some("x"))), Err(DecideError::Profile(_))));
        assert!(matches!(settle(&[], &[], "gone", Approval::default()), Err(DecideError::Profile(_))));
    }

    #[test]
    fn rules_force_and_forbid_and_the_strictest_wins() {
        let forced = settle(&["read-only"], &[], "workspace", Approval::default());
        assert_eq!(outcome(&forced), ("read-only", None), "what is forced is what is shown");
        let tighter = settle(&["workspace"], &[], "read-only", Approval::default());
        assert_eq!(outcome(&tighter), ("read-only", None), "tighter than forced stays");
        let both = settle(&["network", "read-only"], &[], "workspace", Approval::default());
        assert_eq!(outcome(&both), ("read-only", None));
        let approval = || choosing("workspace", Some("I say so"));
        for (forced, forbidden) in [(&["read-only"][..], &[][..]), (&[], &["workspace"]), (&["gone"], &[])] {
            let refused = settle(forced, forbidden, "workspace", approval()).unwrap_err();
            assert!(matches!(&refused, DecideError::ProfileRuled { .. }), "{refused:?}");
            assert!(refused.to_string().contains("`r1`, `r2`"), "{refused}");
        }
        let open = settle(&[], &["workspace"], "workspace", choosing("read-only", None));
        assert!(matches!(open, Err(DecideError::NoReason { .. })), "nothing was shown to be tighter than");
        // Neither is within the other, so only what is within both can run.
        let neither = settle(&["own", "workspace"], &[], "workspace", Approval::default());
        assert!(matches!(neither, Err(DecideError::ProfileRuled { .. })), "{neither:?}");
        let within = settle(&["own", "workspace"], &[], "workspace", choosing("read-only", Some("both rules")));
        assert_eq!(outcome(&within).0, "read-only");
    }

    #[test]
    fn an_approval_takes_the_profile_that_was_looked_at() {
        let seen = |seen: Profile, profile: &str| {
            let profile_sha256 = Some(canonical::profile_digest(&seen));
            settle(&[], &[], "workspace", Approval { profile_sha256, ..choosing(profile, Some("x")) })
        };
        assert!(seen(Profile::network(), "network").is_ok());
        for (other, profile) in [(Profile::workspace(), "network"), (Profile::network(), "workspace")] {
            let refused = seen(other, profile);
            assert!(matches!(refused, Err(DecideError::ProfileMismatch { .. })), "{refused:?}");
        }
    }

    #[test]
    fn a_preview_calls_nobody_and_has_no_more_than_workspace() {
        let named = |profile: Profile| quiet(&profile).map(|quiet| (quiet.name().to_string(), quiet.grants().clone()));
        let (read_only, workspace) = (Profile::read_only(), Profile::workspace());
        assert_eq!(named(read_only.clone()), Some(("read-only".to_owned(), read_only.grants().clone())));
        assert_eq!(named(Profile::network()), Some(("network".to_owned(), workspace.grants().clone())));
        assert_eq!(named(Profile::host()), Some(("workspace".to_owned(), workspace.grants().clone())));
        // Neither is it within `workspace`, whose credentials it shows, nor the other way round.
        let files = Files::new(Access::Hidden, Access::Read, Tmp::Private, [], []);
        let strange = Grants { files, user: None, network: Network::All, ..read_only.grants().clone() };
        let strange = Profile::new(name("own"), strange, AskedBy::Agents);
        assert!(named(strange.clone()).is_none_or(|(_, grants)| grants.is_within(workspace.grants())));
    }

    #[test]
    fn limits_only_go_down() {
        let with = |resource, most| {
            let limits = ResourceLimits::default().with(resource, most).unwrap();
            settle(&[], &[], "workspace", Approval { limits, ..Approval::default() })
        };
        let higher = with(Resource::Processes, 4097).unwrap_err();
        assert!(matches!(higher, DecideError::HigherLimit { what: "processes" }), "{higher:?}");
        for (resource, most) in [(Resource::Processes, 10), (Resource::Memory, 1 << 30)] {
            let settled = with(resource, most).unwrap();
            assert_eq!((settled.change, settled.resources.get(resource)), (Some(ProfileChange::Tightened), Some(most)));
        }
    }

    #[test]
    fn what_was_decided_on_is_what_must_be_found() {
        let binding = settle(&[], &[], "own", Approval::default()).unwrap().binding;
        let found = |profiles: &Profiles| match decided(profiles, &name("own"), Some(&binding)) {
            Err(Outcome::SpawnFailed { failure, .. }) => Err(failure),
            Err(other) => panic!("{other:?}"),
            Ok(profile) => Ok(profile.grants().clone()),
        };
        let own = known().get(&name("own")).unwrap().grants().clone();
        assert_eq!(found(&known()), Ok(own.clone()));
        assert_eq!(found(&Profiles::builtin()), Err(SpawnFailure::Changed), "it is gone");
        let mut other = Profiles::builtin();
        let looser = Profile::new(name("own"), Profile::network().grants().clone(), AskedBy::Agents);
        other.add(looser).unwrap();
        assert_eq!(found(&other), Err(SpawnFailure::Changed), "it says something else");
        let mut same = Profiles::builtin();
        same.add(Profile::new(name("own"), own.clone(), AskedBy::PeopleOnly)).unwrap();
        assert_eq!(found(&same), Ok(own), "who may ask for it is not part of it");
        // A decision of an older version binds none.
        assert!(decided(&known(), &ProfileName::workspace(), None).is_ok());
    }

    #[test]
    fn with_one_token_nothing_goes_beyond_the_workspace() {
        let demands = Demands::default();
        let (profiles, most) = (known(), Some(Profile::workspace()));
        let terms = Terms { profiles: &profiles, demands: &demands, most };
        for beyond in ["network", "host", "own"] {
            let refused = terms.settle(&name("workspace"), &choosing(beyond, Some("please")));
            assert!(matches!(refused, Err(DecideError::Profile(_))), "{beyond}: {refused:?}");
        }
        assert!(terms.settle(&name("workspace"), &choosing("read-only", None)).is_ok());
    }
}
