//! What is no secret stays as it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::REDACTOR;

/// Fails with every line in which something was found.
fn is_ordinary(what: &str, text: &str) {
    let found = REDACTOR.find(text);
    let told: Vec<String> = found
        .iter()
        .map(|finding| {
            let from = text.get(..finding.range.start).unwrap().rfind('\n').map_or(0, |at| at + 1);
            let line = text.get(from..).unwrap().lines().next().unwrap_or_default();
            format!("{}: {:?} in {line}", finding.rule, text.get(finding.range.clone()).unwrap())
        })
        .collect();
    assert!(told.is_empty(), "in {what}:\n{}", told.join("\n"));
}

#[test]
fn logs_of_builds_and_diffs_hold_no_secret() {
    is_ordinary("a build's log", include_str!("ordinary/build.txt"));
    is_ordinary("a diff", include_str!("ordinary/diff.txt"));
    is_ordinary("a lock file", include_str!("../../../../Cargo.lock"));
    is_ordinary("a changelog", include_str!("../../../../CHANGELOG.md"));
    is_ordinary("a description of an API", include_str!("../../../../docs/openapi.json"));
    is_ordinary("settings", include_str!("../../../../docs/configuration.md"));
    is_ordinary("rules", include_str!("../../../../policies/default.toml"));
}

/// This program's own sources: much about tokens, secrets and passwords, and no secret.
#[test]
fn sources_about_secrets_hold_none() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut folders: Vec<_> =
        ["cli", "gateway", "server", "store", "policy"].map(|name| crates.join(name).join("src")).into();
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                // What follows are tests, which plant what looks like secrets.
                is_ordinary(&path.display().to_string(), text.split("#[cfg(test)]").next().unwrap());
                read += 1;
            }
        }
    }
    assert!(read > 50, "only {read} files were read");
}

/// Random bytes as base64 are as surprising as any secret: alone they are none, since no keyword stands beside them.
#[test]
fn images_in_base64_are_no_secrets() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(3_000_000)
    .collect();
    let text = STANDARD.encode(bytes);
    is_ordinary("an image on one line", &format!("data:image/png;base64,{text}"));
    let lines: Vec<&str> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    is_ordinary("an image on many lines", &lines.join("\n"));
}

#[test]
fn words_beside_keywords_are_no_secrets() {
    for text in [
        "Enter the password: ",
        "password authentication failed for user \"app\"",
        "error: could not read Password for 'https://github.com': No such device or address",
        "let token = self.next_token(&mut stream)?;",
        "token: \"${{ secrets.GITHUB_TOKEN }}\"",
        "secret_key_base: <%= ENV[\"SECRET_KEY_BASE\"] %>",
        "  password: ${DB_PASSWORD}",
        "-e PASSWORD=$PASSWORD",
        "Authorization: Bearer <token>",
        "https://example.org:8443/path?at=12:30@noon",
        "git@github.com:owner/repository.git",
        "postgres://localhost:5432/app",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "commit 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "TOKEN_COLUMNS: id, name, roles",
        "password_hash VARCHAR(255) NOT NULL",
        "PWD=/home/me/project2 OLDPWD=/home/me/project1",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGq7zR2mK9xW4vT8bN5cJ1q7zR2mK9xW4vT8bN5cJ1 me@host",
        "uses: actions/create-github-app-token@v1.2.3",
    ] {
        is_ordinary(text, text);
    }
}
