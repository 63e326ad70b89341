//! `status`: how is the cluster?

mod health;
mod human;
#[cfg(test)]
mod tests;
mod view;

use crate::args::StatusArgs;
use crate::connect;
use crate::failure::Failure;
use crate::output::Output;
use view::StatusView;

/// `status`
pub(crate) async fn run(args: StatusArgs, output: Output) -> Result<(), Failure> {
    let client = connect::client(&args.connect).await?;
    let status = client.status(args.connect.timeout).await;
    let view = StatusView::new(&status);
    output.print(&view, human::render)
}
