//! Development tasks: `cargo xtask --help`.

use clap::Parser;
use std::process::ExitCode;
use xtask::arguments::{self, Arguments};

fn main() -> ExitCode {
    match arguments::run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
