//! A leader and a follower in one process: what is written on the one is read on the other.
//!
//! ```python
//! leader = ReplicationManager(node_id="leader", storage_path=path, dimension=128, port=8000)
//! await leader.start_leader()
//! follower = ReplicationManager(node_id="follower1", storage_path=path, dimension=128, port=8001)
//! await follower.start_follower("localhost", 8000)
//! ```
//!
//! The same in Rust, on free ports, with vectors. `cargo run -p slowdb --example replication [STORAGE_PATH]`

use slowdb::{Error, ReplicationManager};
use std::path::Path;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(storage_path: &Path) -> Result<(), Error> {
    let leader = ReplicationManager::builder("leader", storage_path, 128).start_leader().await?;
    let port = leader.address().port();
    println!("leader listens on port {port}");
    let follower =
        ReplicationManager::builder("follower1", storage_path, 128).start_follower("localhost", port).await?;
    println!("follower1 follows it, from port {}", follower.address().port());

    let vector: Vec<f32> = (0..128).map(|i| i as f32 / 128.0).collect();
    let written = leader.replicate_vector("vector1", &vector).await?;
    println!(
        "vector1 is written at {}, durable on {} of the voters' disks",
        written.position, written.durable_on
    );
    assert_eq!(leader.get_vector("vector1").await?.as_deref(), Some(&vector[..]));

    // The follower is an asynchronous copy: it shows the write when it has come that far.
    let applied = follower.wait_for(written.position, WITHIN).await?;
    println!("follower1 has come to {applied}");
    assert_eq!(follower.get_vector("vector1").await?.as_deref(), Some(&vector[..]));
    assert_eq!(follower.get_vector("vector2").await?, None);

    let replicas = leader.replicas().await;
    assert_eq!(
        replicas.iter().map(|r| (r.leads, r.votes)).collect::<Vec<_>>(),
        [(false, false), (true, true)]
    );
    for replica in replicas {
        let part = if replica.leads { "leads" } else { "follows" };
        println!("{} {part}, votes: {}, behind by: {:?}", replica.node_id, replica.votes, replica.lag);
    }
    follower.stop().await?;
    leader.stop().await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let given = std::env::args().nth(1);
    let storage_path = given.as_deref().map_or(temporary.path(), Path::new);
    tokio::time::timeout(4 * WITHIN, run(storage_path)).await??;
    println!("both read back what was written");
    Ok(())
}
