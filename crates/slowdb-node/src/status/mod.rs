//! `status`: how is the cluster?

mod health;
mod human;
#[cfg(test)]
mod tests;
mod view;

use crate::args::StatusArgs;
use crate::connect;
use crate::failure::Failure;
use crate::operate;
use crate::output::Output;
use view::StatusView;

/// `status`
pub(crate) async fn run(args: StatusArgs, output: Output) -> Result<(), Failure> {
    let client = connect::client(&args.connect).await?;
    let (status, cluster) = tokio::join!(client.status(args.connect.timeout), operate::glance(&client));
    let view = StatusView::new(&status).with_cluster(cluster);
    output.print(&view, human::render)
}
