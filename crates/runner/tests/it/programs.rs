//! Ordinary programs go on working under the default profile.

use crate::support::*;

scenarios!(ordinary_programs_work_under_the_default_profile);

async fn ordinary_programs_work_under_the_default_profile() {
    let world = World::new().await;
    let hello = "printf '#include <stdio.h>\\nint main(void) { puts(\"hello\"); }' > h.c && gcc h.c -o h && ./h";
    let git = "git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && \
               git log --format=%s | grep -x x";
    let programs: [(&str, &str); 24] = [
        ("ls", "ls -l / | grep -q usr"),
        ("ls", "ls -la /etc ~ /tmp > /dev/null"),
        ("git", git),
        ("gcc", hello),
        ("python3", "python3 -c 'import subprocess; print(subprocess.check_output([\"echo\", \"x\"]))'"),
        ("python3", "python3 -c 'import threading; t = threading.Thread(target=print); t.start(); t.join()'"),
        ("python3", "python3 -c 'import multiprocessing as m; m.Pool(2).map(abs, [1, 2])'"),
        ("python3", "python3 -c 'import asyncio; asyncio.run(asyncio.sleep(0))'"),
        ("python3", "python3 -c 'import socket; print(socket.gethostbyname(\"localhost\"))'"),
        ("perl", "perl -e 'print 1'"),
        ("node", "node -e 'setTimeout(() => console.log(1), 1)'"),
        ("npm", "npm --version"),
        ("cargo", "cargo --version"),
        ("sort", "seq 100000 | sort -R | sort -n | tail -1 | grep -x 100000"),
        ("tar", "mkdir t && echo x > t/x && tar czf t.tgz t && rm -r t && tar xzf t.tgz && cat t/x"),
        ("apt", "apt list 2> /dev/null | head -3 > /dev/null"),
        ("dpkg", "dpkg -l bash > /dev/null"),
        ("bash", "set -m; sleep 0.01 & jobs; wait %1"),
        ("mktemp", "f=$(mktemp) && echo x > $f && d=$(mktemp -d) && mv $f $d/ && ls $d"),
        ("ps", "ps -ef | grep -q ps"),
        ("find", "find /usr/share -maxdepth 1 -name doc > /dev/null"),
        ("df", "df . > /dev/null"),
        ("timeout", "timeout 5 true"),
        ("xargs", "seq 20 | xargs -n1 -P4 echo | wc -l | grep -x 20"),
    ];
    for (program, command) in programs {
        // Asked of the command's own path: what a login shell adds to it is not what commands find.
        if world.run(&format!("command -v {program}")).await.code() != Some(0) {
            eprintln!("skipped: this host has no {program}");
            continue;
        }
        let done = world.run(&format!("export HOME=$PWD; set -e -o pipefail; {command}")).await;
        assert_eq!(done.ran.outcome, Outcome::Exited { code: 0 }, "`{command}`: {}{}", done.stdout, done.stderr);
    }
}
