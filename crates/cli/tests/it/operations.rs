//! The console examples of docs/operations.md, each run, in order, in one shell. Folders of the system are folders of the
//! test's; `systemctl` and `journalctl` are stand-ins that start and stop the real server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const SYSTEMCTL: &str = r#"#!/bin/bash
set -eu
halt() { if [ -f "$SCRATCH/pid" ]; then kill "$(cat "$SCRATCH/pid")"; while kill -0 "$(cat "$SCRATCH/pid")" 2>/dev/null; do sleep 0.02; done; rm "$SCRATCH/pid"; fi; }
run() {
  env -i AGENT_HUB_ROOT="$SCRATCH/state" AGENT_HUB_PORT=0 "$REAL" serve </dev/null >/dev/null 2>>"$SCRATCH/journal" &
  echo $! >"$SCRATCH/pid"
  for _ in $(seq 1500); do [ -f "$SCRATCH/state/runtime/address" ] && return; kill -0 $! || exit 1; sleep 0.02; done
  exit 1
}
case "$1" in
  daemon-reload) ;;
  start|enable) run ;;
  stop) halt ;;
  restart) halt; run ;;
  *) echo "no such verb: $1" >&2; exit 1 ;;
esac
"#;

/// The server's address is not the documented one, and the system is not ours to set up.
const PROVARA: &str = r#"#!/bin/bash
if [ "$1" = setup ]; then shift; exec "$REAL" setup --prefix "$SCRATCH/image" --binary /bin/true "$@"; fi
address="$SCRATCH/state/runtime/address"
if [ -f "$address" ]; then exec "$REAL" --base "$(cat "$address")" "$@"; fi
exec "$REAL" "$@"
"#;

fn program(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn every_console_example_of_the_operations_manual_works() {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["tools", "bin", "image", "state", "srv", "units"] {
        fs::create_dir(at(folder)).unwrap();
    }
    program(&at("tools"), "systemctl", SYSTEMCTL);
    program(&at("tools"), "journalctl", "#!/bin/bash\nexec cat \"$SCRATCH/journal\"\n");
    program(&at("tools"), "provara", PROVARA);
    program(scratch.path(), "provara", "#!/bin/sh\n");
    let mut script = "set -euo pipefail\ntrap 'systemctl stop provara' EXIT\n".to_owned();
    let mut commands = 0;
    for block in manual.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            let command = line.strip_prefix("# ").unwrap_or_else(|| panic!("not a command: {line}"));
            let mut command = command.to_owned();
            for (system, ours) in [
                ("/var/lib/provara", at("state")),
                ("/usr/local/bin", at("bin")),
                ("/etc/systemd/system", at("units")),
                ("/srv", at("srv")),
            ] {
                command = command.replace(system, ours.to_str().unwrap());
            }
            script.push_str(&format!(
                "echo {} >&2\n{command}\n",
                line.replace(['\'', '$', '<', '>', '\\'], "?").replace('#', "+")
            ));
            commands += 1;
        }
    }
    assert!(commands > 25, "only {commands} examples were found");
    let output = Command::new("timeout")
        .args(["120", "bash", "-c", &script])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", at("tools").display()))
        .env("SCRATCH", scratch.path())
        .env("REAL", env!("CARGO_BIN_EXE_provara"))
        .current_dir(scratch.path())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    // Some of it has to have happened, not only not failed.
    assert!(at("bin/provara").exists() && at("image/etc/systemd/system/provara.service").exists());
    assert!(at("srv/backups/before-upgrade/manifest.json").exists() && !at("pid").exists());
    assert!(out.contains("fit a checkpoint") || out.contains("entries fit"), "{out}");
}
