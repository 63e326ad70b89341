//! Writes a record, reads it back and searches. Needs a node with a collection of dimension 3:
//! `slowdb-node start --node-id n1 --storage-path ./data --dimension 3 --certs CERTS_DIR`

use slowdb_client::{Client, ClientOptions, Identity, ReadOptions, Role, SearchOptions, WriteOptions};
use std::path::Path;

type Error = Box<dyn std::error::Error>;

pub(crate) async fn run(address: String, certs: &Path) -> Result<(), Error> {
    let identity = Identity::load(certs, Role::Client)?;
    let client = Client::connect(ClientOptions::new([address], identity)).await?;
    let vectors = client.collection("default");

    vectors.put("cat", &[0.9, 0.1, 0.0], &WriteOptions::default()).await?;
    let record = vectors.get("cat", &ReadOptions::default()).await?.ok_or("just written")?;
    let found = vectors.search(&record.vector, &SearchOptions::default()).await?;
    println!("{} at {}: {:?}", record.id, record.position.index, found.results[0]);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let certs = std::env::args().nth(1).ok_or("give the directory of the cluster's certificates")?;
    let address = std::env::args().nth(2).unwrap_or_else(|| "localhost:8000".to_owned());
    run(address, certs.as_ref()).await
}
