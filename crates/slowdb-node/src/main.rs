//! The SlowDB binary: a node, and the commands to work with a cluster.
//!
//! It wires and prints; it decides nothing. Every command prints for people, or with `--json` one JSON
//! object on stdout; what goes wrong is said the same way, with an exit code that tells what kind it is
//! (see [`failure`]).

mod args;
mod bar;
mod certs;
mod compare;
mod config;
mod conflicts;
mod connect;
mod count;
mod export;
mod failure;
mod ids;
mod import;
mod operate;
mod output;
mod payload;
mod progress;
mod records;
mod rows;
mod scan;
mod search;
mod session;
mod start;
mod status;
mod verify;

use args::{CertsCommand, Cli, Command};
use clap::Parser;
use failure::Failure;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let output = Output { is_json: cli.json };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("no runtime: {error}")))
        .and_then(|runtime| runtime.block_on(run(cli.command, output)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

async fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Start(args) => start::run(args, output).await,
        Command::Put(args) => records::put(args, output).await,
        Command::Get(args) => records::get(args, output).await,
        Command::Delete(args) => records::delete(args, output).await,
        Command::Import(args) => import::run(args, output).await,
        Command::Export(args) => export::run(args, output).await,
        Command::Search(args) => search::run(args, output).await,
        Command::Scan(args) => scan::run(args, output).await,
        Command::Count(args) => count::run(args, output).await,
        Command::Compare(args) => compare::run(args, output).await,
        Command::Conflicts(args) => conflicts::run(args, output).await,
        Command::Status(args) => status::run(args, output).await,
        Command::Nodes(args) => operate::nodes(args, output).await,
        Command::Rebalance(args) => operate::rebalance(args, output).await,
        Command::Collections(args) => operate::collections(args, output).await,
        Command::Explain(args) => operate::explain(args, output).await,
        Command::Certs(args) => match args.command {
            CertsCommand::Create { dir } => certs::create(&dir, output),
        },
        Command::Verify(args) => verify::run(&args, output),
    }
}
