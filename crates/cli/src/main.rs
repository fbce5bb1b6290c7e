//! The binary `deltaport`.

use std::process::ExitCode;

fn main() -> ExitCode {
    deltaport::run(std::env::args_os())
}
