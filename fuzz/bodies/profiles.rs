//! What must hold for every file of profiles.

use std::path::PathBuf;

use provara_domain::{Access, ProfileName, Profiles};
use provara_runner::{Mounts, OwnFiles, ProfileFile, load_profiles};

/// What files of profiles are made of.
pub const PROFILES: &[&str] = &[
    "[[profile]]\nname = 'own'\n",
    "[[profile]]\nname = 'OWN'\nextends = 'workspace'\n",
    "[[profile]]\nname = 'a'\nextends = \"network\"\nreadable = ['/usr', '/srv/data']\nwritable = ['workspace', '/srv/out']\nhidden = ['~/.ssh', '/srv/out/x']\nnetwork = ['example.org:443']\nenvironment = ['LANG']\nuser = 'build'\n[profile.limits]\nmemory = '2 GiB'\ncpu_s = 5\n",
    "readable = 'all'\n",
    "readable = [\"/\"]\n",
    "writable = ['/srv', '/srv/provara/runtime']\n",
    "writable = ['/srv/provara/runtime/x']\n",
    "writable = [",
    "'/tmp/a'",
    "'/srv/../x'",
    ", ",
    "]\n",
    "hidden = ['~/x']\n",
    "network = 'all'\n",
    "network = ['[::1]:80', 'a.org:1']\n",
    "limits = { output = 3 }\n",
    "agents_may_ask = true\n",
    "profile = []\n",
    "\"\"\"",
    "'''",
    "#",
];

/// Loaded or refused with words; what is loaded names nothing of Provara's own and speaks for itself on one line.
pub fn file(bytes: &[u8]) {
    const OWN: &str = "/srv/provara/runtime";
    let text = String::from_utf8_lossy(bytes);
    let own = OwnFiles { secret: vec![("the runtime folder", PathBuf::from(OWN))], public: Vec::new() };
    match load_profiles(&ProfileFile { name: "profiles.toml", text: &text }, &own, Mounts::Available) {
        Ok(profiles) => {
            for known in Profiles::builtin().iter() {
                assert_eq!(profiles.get(known.name()), Some(known), "a built-in profile was changed");
            }
            for profile in profiles.iter().filter(|profile| profile.name().as_str() != ProfileName::HOST) {
                let meets = |path: &str| PathBuf::from(path).starts_with(OWN) || PathBuf::from(OWN).starts_with(path);
                let files = &profile.grants().files;
                let exposed = files.paths().any(|(path, access)| access > Access::Hidden && meets(path.as_str()));
                assert!(!exposed && files.everywhere() < Access::Write, "{profile:?}");
                assert!(profile.is_within(profile) && !profile.words().chars().any(char::is_control));
            }
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            let told = |error: &provara_runner::ProfileError| !error.what.is_empty() && !error.mend.is_empty();
            assert!(errors.0.iter().all(told), "{errors}");
            assert!(errors.to_string().lines().count() == errors.0.len(), "a message is not one line: {errors}");
        }
    }
}
