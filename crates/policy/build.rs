//! Lists the files of program knowledge, so that each is compiled in and none is named twice.

use std::fmt::Write as _;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::path::absolute(Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../policies/programs"))?;
    println!("cargo::rerun-if-changed={}", folder.display());
    let entries: Result<Vec<_>, _> = std::fs::read_dir(&folder)?.map(|entry| entry.map(|found| found.path())).collect();
    let mut files = entries?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    let mut list = String::from("pub(super) const BUILTIN: &[(&str, &str)] = &[\n");
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        writeln!(list, "    ({name:?}, include_str!({:?})),", file.display().to_string())?;
    }
    list.push_str("];\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("programs.rs"), list)?;
    Ok(())
}
