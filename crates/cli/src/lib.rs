//! The binary `deltaport`: arguments, settings, wiring and commands.
//!
//! It is a library so that tests and fuzz targets can reach the parts; the only thing that a program wants from it is
//! [`run`]. What things mean is decided in the other crates: here they are read from the command line and the
//! configuration file, put together, and their outcome is told.

mod args;
mod commands;
mod logging;
mod output;
mod places;
mod policy;
pub mod settings;
mod wiring;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};
use output::Output;

/// Runs the program with these arguments, the first of which is its own name, and returns what it exits with: 0 when
/// all is well, 1 when something is not, 2 when the arguments make no sense, 3 when a check could not be made, 4 when a
/// delta is not worth it.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            // Help and version come this way too. When not even that can be written there is nobody to tell.
            let _unheard = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let failure = match args.command {
        // 1 is what they found.
        Command::Fsck(_) | Command::Rebuild(_) | Command::Verify(_) => ExitCode::from(3),
        _ => ExitCode::FAILURE,
    };
    let mut output = Output::standard();
    let outcome = match args.command {
        Command::Serve(args) => commands::serve::run(&args, &mut output),
        Command::Config(args) => commands::config::run(&args, &mut output),
        Command::ClientConfig(args) => commands::client_config::run(&args, &mut output),
        Command::Fsck(args) => commands::fsck::run(&args, &mut output),
        Command::Rebuild(args) => commands::rebuild::run(&args, &mut output),
        Command::Usage(args) => commands::usage::run(&args, &mut output),
        Command::Gc(args) => commands::gc::run(&args, &mut output),
        Command::Migrate(args) => commands::migrate::run(&args, &mut output),
        Command::Passwd(args) => commands::passwd::run(&args, &mut output),
        Command::Token(args) => commands::token::run(&args, &mut output),
        Command::Delta(args) => commands::delta::run(&args, &mut output),
        Command::Image(args) => commands::image::run(&args, &mut output),
        Command::Mirror(args) => commands::mirror::run(&args, &mut output),
        Command::Demo(args) => commands::demo::run(&args, &mut output),
        Command::Verify(args) => commands::verify::run(&args, &mut output),
    };
    match outcome {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            failure
        }
    }
}
