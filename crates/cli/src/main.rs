//! The binary `deltaport`.

use std::process::ExitCode;

/// A push of 64 MiB spends half of its system time on page faults with the system's allocator, which gives buffers of
/// that size back at once; this one keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    deltaport::run(std::env::args_os())
}
