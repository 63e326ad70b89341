//! A shard manager that routes by itself, and a second one that takes over half of the shards.
//!
//! ```python
//! manager = ShardManager(node_id="node1", storage_path=path, dimension=128, num_shards=16, virtual_nodes=3)
//! await manager.store_vector("vector1", vector)
//! ```
//!
//! The same in Rust, and then another node. `cargo run -p slowdb --example sharding [STORAGE_PATH]`

use slowdb::{Error, ShardManager};
use std::path::Path;
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(60);
const VECTORS: usize = 100;

/// Vector number `nth`, of length 1.
fn vector(nth: usize) -> Vec<f32> {
    let angle = nth as f32 * 0.01;
    let mut vector = vec![0.0; 128];
    (vector[0], vector[1]) = (angle.cos(), angle.sin());
    vector
}

pub(crate) async fn run(storage_path: &Path) -> Result<(), Error> {
    let manager =
        ShardManager::builder("node1", storage_path, 128).num_shards(16).virtual_nodes(3).start().await?;
    let port = manager.address().port();

    for nth in 1..=VECTORS {
        let id = format!("vector{nth}");
        let written = manager.store_vector(&id, &vector(nth)).await?;
        assert_eq!(written.shard, manager.shard_of(&id));
        if nth <= 5 {
            println!("{id} is in shard {} of {}", written.shard, manager.num_shards());
        }
    }
    check(&manager).await?;
    println!("{VECTORS} vectors are on node1, and read back");

    let second = ShardManager::builder("node2", storage_path, 128).join("localhost", port).await?;
    second.wait_until_settled(2 * WITHIN).await?;
    let shards = second.shards().await?;
    for node in ["node1", "node2"] {
        let held = shards.iter().filter(|shard| shard.nodes == [node]).map(|shard| shard.shard);
        let held: Vec<u32> = held.collect();
        println!("{node} holds the shards {held:?}");
        assert_eq!(held.len(), 8, "half of them");
    }
    check(&manager).await?;
    check(&second).await?;
    println!("all vectors read back through both nodes");
    second.stop().await?;
    manager.stop().await
}

/// Everything is there, and a search over all shards finds what is nearest.
async fn check(manager: &ShardManager) -> Result<(), Error> {
    for nth in 1..=VECTORS {
        assert_eq!(manager.get_vector(&format!("vector{nth}")).await?, Some(vector(nth)));
    }
    let nearest = manager.search(&vector(42), 3).await?;
    assert_eq!(nearest[0].id, "vector42");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let given = std::env::args().nth(1);
    let storage_path = given.as_deref().map_or(temporary.path(), Path::new);
    tokio::time::timeout(6 * WITHIN, run(storage_path)).await??;
    println!("everything was as claimed");
    Ok(())
}
