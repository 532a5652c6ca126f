//! What kind of place a path leads to.

use serde::Deserialize;

use crate::facts::Scope;
use crate::matching::{Place, resolve};
use crate::pattern;

/// Places that mean more than the folder they lie in.
#[derive(Debug)]
pub(crate) struct Places(Vec<Kind>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kind {
    scope: Scope,
    paths: Vec<String>,
    #[serde(default)]
    names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    place: Vec<Kind>,
}

pub(crate) const BUILTIN: &str = include_str!("../../../policies/places.toml");

impl Places {
    pub(crate) fn builtin() -> Result<Self, String> {
        toml::from_str::<RawFile>(BUILTIN).map(|file| Self(file.place)).map_err(|error| error.to_string())
    }

    /// Returns where `path` leads. `glob` says that the shell matches it against names.
    pub(crate) fn scope(&self, path: &str, glob: bool, place: &Place<'_>) -> Scope {
        let path = path.strip_prefix("file://").unwrap_or(path);
        if path.is_empty() || path == "-" {
            return Scope::Nowhere;
        }
        let simple;
        let path = if glob {
            simple = without_single_brackets(path);
            &simple
        } else {
            path
        };
        let dynamic = path.contains(['$', '`']);
        let whole = whole(path, place);
        let shown = whole.as_deref().unwrap_or(path);
        let homely = homely(shown);
        let name = homely.rsplit('/').next().unwrap_or("");
        let mut found = None;
        for kind in &self.0 {
            let here = kind.paths.iter().any(|known| {
                pattern::matches(known, &homely)
                    || (glob && known.starts_with(['/', '~']) && pattern::matches(&homely, known.trim_end_matches('*')))
            });
            let named = kind.names.iter().any(|known| pattern::matches(known, name));
            if here || named {
                found = Some(kind.scope);
                break;
            }
        }
        // A workspace may lie in a temporary folder or below a folder of the system; what is dangerous in it stays so.
        if let Some(scope) = found.filter(|scope| !matches!(scope, Scope::Temporary | Scope::System)) {
            return scope;
        }
        let Some(whole) = whole else { return Scope::Unknown };
        let mut folders = place.workspaces.iter().map(String::as_str).filter(|folder| *folder != "/").peekable();
        let own = if folders.peek().is_none() {
            place.cwd.as_deref().is_some_and(|cwd| cwd != "/" && is_below(&whole, cwd))
        } else {
            folders.any(|folder| is_below(&whole, folder))
        };
        match () {
            () if own => Scope::Workspace,
            () if found.is_some() => found.unwrap_or(Scope::Outside),
            () if homely.starts_with('~') => Scope::Home,
            () if dynamic && !path.starts_with('/') => Scope::Unknown,
            () => Scope::Outside,
        }
    }
}

/// Returns `path` absolute and without `.` and `..`, or beginning with `~`; none where nobody can tell.
fn whole(path: &str, place: &Place<'_>) -> Option<String> {
    let home = ["~/", "$HOME/", "${HOME}/"].into_iter().find_map(|prefix| path.strip_prefix(prefix));
    if let Some(rest) = home {
        return resolve(&format!("/~/{rest}"), None).map(|path| path.trim_start_matches('/').to_owned());
    }
    if matches!(path, "~" | "$HOME" | "${HOME}") {
        return Some("~".to_owned());
    }
    if path.starts_with('~') {
        let rest = path.split_once('/').map_or("", |(_, rest)| rest);
        return resolve(&format!("/~/{rest}"), None).map(|path| path.trim_start_matches('/').to_owned());
    }
    if path.starts_with("$PWD/") || path.starts_with("${PWD}/") {
        return resolve(path.split_once('/').map_or("", |(_, rest)| rest), place.cwd.as_deref());
    }
    if path.contains(['$', '`']) && !path.starts_with('/') {
        return None;
    }
    resolve(path, place.cwd.as_deref())
}

/// Any home directory becomes `~`.
fn homely(path: &str) -> String {
    if path == "/root" || path.starts_with("/root/") {
        return format!("~{}", path.get(5..).unwrap_or(""));
    }
    for homes in ["/home/", "/Users/"] {
        if let Some(rest) = path.strip_prefix(homes) {
            return match rest.split_once('/') {
                Some((_, below)) => format!("~/{below}"),
                None => "~".to_owned(),
            };
        }
    }
    path.to_owned()
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `use[r]` is `user` in other letters.
fn without_single_brackets(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('[') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let mut inner = after.chars().skip(1);
        match (inner.next(), inner.next()) {
            (Some(c), Some(']')) if c != '!' && c != '^' => {
                out.push(c);
                rest = after.get(2 + c.len_utf8()..).unwrap_or("");
            }
            _ => {
                out.push('[');
                rest = after.get(1..).unwrap_or("");
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_they_lead() {
        let places = Places::builtin().unwrap();
        let workspaces = ["/home/ann/work".to_owned()];
        let place = Place { cwd: Some("/home/ann/work/a".to_owned()), workspaces: &workspaces };
        for (path, glob, scope) in [
            ("x.txt", false, Scope::Workspace),
            ("../x.txt", false, Scope::Workspace),
            ("../../x.txt", false, Scope::Home),
            ("/home/ann/work", false, Scope::Workspace),
            ("/home/ann/works", false, Scope::Home),
            ("../../.ssh/id_rsa", false, Scope::Credentials),
            ("~/.aws/credentials", false, Scope::Credentials),
            ("$HOME/.ssh/id_rsa", false, Scope::Credentials),
            ("/home/./bob/.ssh//id_rsa", false, Scope::Credentials),
            ("/etc/sh*dow", true, Scope::Credentials),
            ("/home/use[r]/.ssh/id_rsa", true, Scope::Credentials),
            ("/etc/../etc/shadow", false, Scope::Credentials),
            (".env", false, Scope::Secrets),
            ("~/.bashrc", false, Scope::Startup),
            (".git/hooks/pre-commit", false, Scope::Startup),
            ("/tmp/x", false, Scope::Temporary),
            ("/tmp/../etc/x", false, Scope::System),
            ("/dev/null", false, Scope::Nowhere),
            ("/dev/sda", false, Scope::Device),
            ("/", false, Scope::System),
            ("/opt/x", false, Scope::Outside),
            ("/usr/local/bin/x", false, Scope::System),
            ("$X/y", false, Scope::Unknown),
            ("/etc/hosts", false, Scope::System),
        ] {
            assert_eq!(places.scope(path, glob, &place), scope, "{path}");
        }
    }
}
