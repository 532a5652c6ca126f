//! Profiles as operators write them and as people look at them.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use provara_domain::Profiles;
use provara_runner::{Mounts, OwnFiles, ProfileFile, load_profiles};
use serde_json::{Value, json};

use crate::args::Profile;
use crate::commands::{Session, page};
use crate::config::{Settings, read_trusted};
use crate::describe::text;
use crate::display::visible_line;
use crate::failure::Failure;
use crate::prepare::{own_files, resolved};

/// The operator's file, below ROOT.
pub(crate) const FILE: &str = "profiles.toml";

/// Returns the built-in profiles and those of the operator's file.
pub(crate) fn loaded(settings: &Settings, binary: &Path, mounts: Mounts) -> Result<Profiles, Failure> {
    Ok(read(&settings.root.join(FILE), settings, binary, mounts)?.unwrap_or_else(Profiles::builtin))
}

/// The built-in profiles and those of a file, if it is there. Whoever can write it can loosen what others approve.
fn read(path: &Path, settings: &Settings, binary: &Path, mounts: Mounts) -> Result<Option<Profiles>, Failure> {
    let Some(text) = read_trusted(path)? else { return Ok(None) };
    let name = path.display().to_string();
    let file = ProfileFile { name: &name, text: &text };
    let public = [Some(binary), settings.tls_cert.as_deref(), settings.ca_cert.as_deref()];
    let public: Vec<_> = public.into_iter().flatten().map(resolved).collect();
    let (public, secret) = own_files(settings, binary).into_iter().partition(|(_, path)| public.contains(path));
    let loaded = load_profiles(&file, &OwnFiles { secret, public }, mounts);
    loaded.map(Some).map_err(|errors| Failure::Usage(errors.to_string()))
}

impl Session {
    pub(crate) fn profile(&self, what: &Profile) -> Result<ExitCode, Failure> {
        match what {
            Profile::Check { file } => self.check_profiles(file),
            Profile::List => {
                let answer = self.operator()?.get("/profiles")?;
                self.answer(&answer, |out, paint| {
                    for profile in answer.as_array().into_iter().flatten() {
                        page(out, paint, &io::stdout()).profile(profile)?;
                    }
                    Ok(())
                })
            }
            Profile::Show { name } => {
                let all = self.operator()?.get("/profiles")?;
                let named = |profile: &&Value| text(profile, "name") == name;
                let Some(found) = all.as_array().into_iter().flatten().find(named) else {
                    let mend = "see `provara profile list`";
                    return Err(Failure::Usage(format!("no profile is called `{name}`; {mend}")));
                };
                self.answer(found, |out, paint| {
                    page(out, paint, &io::stdout()).profile(found)?;
                    writeln!(out, "digest    {}", visible_line(text(found, "sha256")))?;
                    let canonical = found.get("canonical").unwrap_or(&Value::Null);
                    writeln!(out, "canonical {}", visible_line(&canonical.to_string()))
                })
            }
        }
    }

    /// Loads a file as a start would, own files and all.
    fn check_profiles(&self, file: &Path) -> Result<ExitCode, Failure> {
        let loaded = read(file, &self.settings, &std::env::current_exe()?, Mounts::Available)?;
        let missing = || Failure::Usage(format!("`{}` is not there; name a file of profiles in TOML", file.display()));
        let loaded = loaded.ok_or_else(missing)?;
        let builtin = Profiles::builtin();
        let own: Vec<Value> = loaded
            .iter()
            .filter(|profile| builtin.get(profile.name()).is_none())
            .map(|profile| {
                let may = profile.asked_by() == provara_domain::AskedBy::Agents;
                json!({ "name": profile.name(), "words": profile.words(), "agents_may_ask": may })
            })
            .collect();
        self.answer(&json!({ "ok": true, "profiles": own }), |out, paint| {
            for profile in &own {
                page(out, paint, &io::stdout()).profile(profile)?;
            }
            writeln!(out, "OK: {} beside the built-in ones", own.len())
        })
    }
}
