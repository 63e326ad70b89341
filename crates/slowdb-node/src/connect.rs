//! From flags to a connected client.

use crate::args::{CollectionArgs, ConnectArgs, SeedArgs};
use crate::certs;
use crate::failure::Failure;
use slowdb_client::{Client, ClientOptions, Collection, Identity, ReadOptions, Role, WriteOptions};
use std::time::Duration;

pub(crate) async fn client(args: &ConnectArgs) -> Result<Client, Failure> {
    client_within(&args.seeds, args.timeout).await
}

/// A client each of whose requests may take so long.
pub(crate) async fn client_within(seeds: &SeedArgs, timeout: Duration) -> Result<Client, Failure> {
    let certs = match &seeds.certs {
        Some(dir) => dir.clone(),
        None => certs::default_dir()?,
    };
    let identity = Identity::load(&certs, Role::Client)?;
    let options = ClientOptions { timeout, ..ClientOptions::new(&seeds.connect, identity) };
    Ok(Client::connect(options).await?)
}

pub(crate) async fn collection(args: &CollectionArgs) -> Result<Collection, Failure> {
    Ok(client(&args.connect).await?.collection(&args.collection))
}

pub(crate) fn read_options(args: &CollectionArgs) -> Result<ReadOptions, Failure> {
    let level = args.consistency.for_read().map_err(Failure::usage)?;
    Ok(ReadOptions { level, ..ReadOptions::default() })
}

pub(crate) fn write_options(args: &CollectionArgs) -> WriteOptions {
    WriteOptions { level: args.consistency.for_write(), ..WriteOptions::default() }
}
