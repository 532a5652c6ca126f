//! What the trial run attempts: acts that a confined command must not manage. A kernel that takes every rule and enforces none,
//! or a fault of ours, shows here and not in somebody's run.

/// Run by `/bin/sh` with Provara's runtime folder, and a folder outside of the workspace. Only built-in commands, so that
/// nothing fails for want of a program.
pub(crate) const SCRIPT: &str = r#"
for file in "$1"/* "$1"/.[!.]*; do [ -e "$file" ] && exit 3; done
(: > "$1/probe") 2> /dev/null && exit 4
(: > "$2/provara-probe") 2> /dev/null && exit 5
while read -r name value; do
  case "$name $value" in
    "CapEff: 0000000000000000" | "CapBnd: 0000000000000000" | "NoNewPrivs: 1" | "Seccomp: 2") ;;
    CapEff:* | CapBnd:*) exit 6 ;;
    NoNewPrivs:* | Seccomp:*) exit 7 ;;
  esac
done < /proc/self/status
exit 0
"#;

/// Says what the script managed, by its exit code.
pub(crate) const fn managed(code: i32) -> Option<&'static str> {
    match code {
        3 => Some("see Provara's own files"),
        4 => Some("write among Provara's own files"),
        5 => Some("write outside of its workspace"),
        6 => Some("keep a capability"),
        7 => Some("call the kernel without a filter"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// Unconfined, each act works, so the script tells a wall that is missing.
    #[test]
    fn what_no_wall_stops_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let [runtime, outside] = ["runtime", "outside"].map(|name| folder.path().join(name));
        let code =
            || Command::new("/bin/sh").args(["-c", SCRIPT, "sh"]).args([&runtime, &outside]).status().unwrap().code();
        let mut told = Vec::new();
        // Neither folder is there: only what the process itself may is left to find.
        told.push(code().and_then(managed));
        fs::create_dir(&outside).unwrap();
        told.push(code().and_then(managed));
        fs::create_dir(&runtime).unwrap();
        told.push(code().and_then(managed));
        fs::write(runtime.join(".token"), "").unwrap();
        told.push(code().and_then(managed));
        assert!(told[0].is_some_and(|act| act.contains("capability") || act.contains("filter")), "{told:?}");
        let rest = ["write outside of its workspace", "write among Provara's own files", "see Provara's own files"];
        assert_eq!(told[1..], rest.map(Some));
    }
}
