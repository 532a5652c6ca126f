//! A run's first steps, for this crate's tests: in a network namespace of its own, make the listener, hand it out through
//! standard input, and become the command.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use provara_runner::egress::{environment, listen_in_run, send_listener};

fn main() -> io::Result<()> {
    send_listener(&io::stdin(), listen_in_run()?)?;
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().ok_or(io::ErrorKind::InvalidInput)?;
    Err(Command::new(program).args(arguments).envs(environment()).stdin(File::open("/dev/null")?).exec())
}
