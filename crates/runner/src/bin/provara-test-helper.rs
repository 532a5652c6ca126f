//! The helper alone, for this crate's tests: the product's binary has it behind `__helper`.

fn main() -> std::process::ExitCode {
    provara_runner::helper_main()
}
