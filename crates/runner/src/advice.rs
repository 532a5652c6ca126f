//! What the operator can do where the kernel, or what contains us, refuses the namespaces that a run needs.

use std::fs;

use crate::protocol::User;

/// Settings that forbid an ordinary user's namespaces, the value that forbids, and the way out.
const SETTINGS: [(&str, &str, &str); 3] = [
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "allow user namespaces by an AppArmor profile for this program with `userns,`, or by \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
    ),
    ("kernel/unprivileged_userns_clone", "0", "allow user namespaces by `sysctl kernel.unprivileged_userns_clone=1`"),
    ("user/max_user_namespaces", "0", "allow user namespaces by `sysctl user.max_user_namespaces=10000`"),
];

/// Returns the next steps for the operator after a run could not be confined.
pub(crate) fn advice(user: User) -> String {
    advise(user, |name| fs::read_to_string(format!("/proc/sys/{name}")).ok())
}

fn advise(user: User, setting: impl Fn(&str) -> Option<String>) -> String {
    let container = "in a container, give it `--security-opt seccomp=unconfined --security-opt apparmor=unconfined \
                     --security-opt systempaths=unconfined`";
    if user.from_root {
        return format!(
            "commands are not run without their namespaces: {container} and `--cap-add SYS_ADMIN`, and `--cap-add NET_ADMIN` \
             for profiles that call somebody"
        );
    }
    let forbids = |name: &str, value: &str| setting(name).is_some_and(|found| found.trim() == value);
    let found: Vec<&str> =
        SETTINGS.iter().filter(|(name, value, _)| forbids(name, value)).map(|(_, _, way)| *way).collect();
    // Where no setting says so, a filter around us does, and that cannot be asked.
    let ways = if found.is_empty() {
        "allow this user to make user namespaces (kernel.apparmor_restrict_unprivileged_userns on Ubuntu, \
         kernel.unprivileged_userns_clone on Debian, user.max_user_namespaces)"
            .to_owned()
    } else {
        found.join(" and ")
    };
    format!(
        "commands are not run without their namespaces: {ways}; or run the server as root with AGENT_HUB_RUN_AS naming \
         another user; {container}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(setting: &str, value: &str) -> String {
        let user = User { uid: 1000, gid: 1000, from_root: false };
        advise(user, |name| (name == setting).then(|| format!("{value}\n")))
    }

    #[test]
    fn the_setting_that_forbids_is_named_with_its_way_out() {
        for (setting, value, _) in SETTINGS {
            let name = setting.replace('/', ".");
            assert!(told(setting, value).contains(&format!("`sysctl {name}=")), "{}", told(setting, value));
        }
        // A setting that does not forbid is no advice of its own, and all are named where none can be blamed.
        let none = told("user/max_user_namespaces", "63000");
        for (setting, ..) in SETTINGS {
            assert!(none.contains(&setting.replace('/', ".")), "{none}");
        }
        assert!(none.contains("AGENT_HUB_RUN_AS") && none.contains("--security-opt seccomp=unconfined"), "{none}");
    }

    #[test]
    fn a_root_server_is_told_what_its_container_lacks() {
        let user = User { uid: 65534, gid: 65534, from_root: true };
        assert!(advise(user, |_| None).contains("--cap-add SYS_ADMIN"));
    }
}
