//! The manual pages, made from what can be typed.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::failure::Failure;

/// Writes every page into `dir`, or the first one to standard output.
pub(crate) fn man(mut command: clap::Command, dir: Option<&Path>) -> Result<ExitCode, Failure> {
    command.build();
    let Some(dir) = dir else {
        io::stdout().write_all(&page(command, "provara")?)?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(dir)?;
    for (name, command) in pages(command) {
        fs::write(dir.join(format!("{name}.1")), page(command, &name)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Every command that people type, by its page's name: `provara-audit-verify`.
fn pages(root: clap::Command) -> Vec<(String, clap::Command)> {
    let mut found = vec![("provara".to_owned(), root)];
    let mut next = 0;
    while let Some((name, command)) = found.get(next).cloned() {
        let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
        found.extend(shown.map(|sub| (format!("{name}-{}", sub.get_name()), sub.clone())));
        next += 1;
    }
    found
}

fn page(command: clap::Command, name: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).title(name).render(&mut text)?;
    Ok(text)
}
