//! How each shell is called, and what of the server's environment reaches it.

use std::fs;
use std::process::Command;

use crate::support::*;

scenarios!(each_shell_reads_the_command_as_its_word);

async fn each_shell_reads_the_command_as_its_word() {
    let world = World::new().await;
    for (shell, expected) in [(Shell::Bash, "bash --noprofile --norc -c "), (Shell::Sh, "sh -c ")] {
        let command = "tr '\\0' ' ' < /proc/$$/cmdline; :";
        let mut plan = world.plan(command);
        plan.shell = shell;
        let done = world.run_plan(plan).await;
        let found = done.stdout.rsplit_once('/').map_or("", |(_, rest)| rest);
        assert!(done.stdout.contains(&format!("/{expected}{command} ")), "{found}: {}", done.stdout);
    }
    if !["/usr/local/bin/pwsh", "/usr/bin/pwsh"].iter().any(|path| Path::new(path).exists()) {
        let mut plan = world.plan("'x'");
        plan.shell = Shell::Pwsh;
        let message = "`pwsh` is not installed on this host".into();
        assert_eq!(
            world.run_plan(plan).await.ran.outcome,
            Outcome::SpawnFailed { failure: SpawnFailure::Missing, message }
        );
    }
}

/// A stand-in shows the words and the input that PowerShell would get; it lies in a `/usr/local/bin` of this test's own.
#[test]
fn pwsh_gets_the_command_as_one_word_and_its_input() {
    const ME: &str = "it::shells::pwsh_gets_the_command_as_one_word_and_its_input";
    as_root(ME, "the stand-in's mount needs root", async {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "none", "/usr/local/bin"]).status();
        assert!(mounted.unwrap().success());
        fs::write("/usr/local/bin/pwsh", "#!/bin/sh\nprintf '<%s>' \"$0\" \"$@\"; cat; echo err >&2; exit 9\n")
            .unwrap();
        fs::set_permissions("/usr/local/bin/pwsh", fs::Permissions::from_mode(0o755)).unwrap();
        let world = World::new().await;
        let command = "Write-Output \"a 'b'\" | % { $_ }; # ; rm -rf \\";
        let mut plan = world.plan(command);
        plan.shell = Shell::Pwsh;
        plan.stdin = Some(b"in\xff".to_vec());
        let done = world.run_plan(plan).await;
        let words = format!("</usr/local/bin/pwsh><-NoLogo><-NoProfile><-NonInteractive><-Command><{command}>");
        assert_eq!(done.out, [words.as_bytes(), b"in\xff"].concat());
        assert_eq!((done.code(), done.stderr.as_str()), (Some(9), "err\n"));
    });
}

#[test]
fn what_the_servers_environment_would_make_of_a_shell_never_arrives() {
    const ME: &str = "it::shells::what_the_servers_environment_would_make_of_a_shell_never_arrives";
    if !is_again() {
        let planted = "export BASH_ENV=/planted ENV=/planted SHELLOPTS PROMPT_COMMAND=echo IFS=x LD_PRELOAD= \
            PATH=\"/planted:$PATH\" AGENT_HUB_OPERATOR_TOKEN=secret; set -x; ls() { echo planted; }; export -f ls; \"$@\"";
        return again(ME, &["bash", "-c", planted, "bash"], As::Root);
    }
    assert!(std::env::vars().any(|(name, _)| name.starts_with("BASH_FUNC_ls")));
    assert_eq!(std::env::var("BASH_ENV").as_deref(), Ok("/planted"));
    play(async {
        let world = World::new().await;
        for profile in ["workspace", "host"] {
            let done = world.run_as("cat /proc/$$/environ /proc/1/environ; ls / | grep -x usr", profile).await;
            let home = world.path("workspace");
            let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            assert_eq!(done.stdout, format!("LANG=C.UTF-8\0PATH={path}\0HOME={home}\0usr\n"), "{profile}");
            // Not of the run's first process either, which the server started.
            assert_eq!(done.stderr, "cat: /proc/1/environ: Permission denied\n", "{profile}");
        }
    });
}
