//! From flags to a connected client.

use crate::args::{CollectionArgs, ConnectArgs, SeedArgs};
use crate::certs;
use crate::failure::Failure;
use crate::session::Carried;
use slowdb_client::{
    Client, ClientOptions, Collection, Identity, ReadLevel, ReadOptions, Role, WriteOptions,
};
use slowdb_proto::Consistency;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) async fn client(args: &ConnectArgs) -> Result<Client, Failure> {
    client_within(&args.seeds, args.timeout).await
}

fn options(seeds: &SeedArgs, timeout: Duration) -> Result<ClientOptions, Failure> {
    let certs = match &seeds.certs {
        Some(dir) => dir.clone(),
        None => made_by_start(certs::default_dir()?)?,
    };
    let identity = Identity::load(&certs, Role::Client)?;
    Ok(ClientOptions { timeout, ..ClientOptions::new(&seeds.connect, identity) })
}

/// The directory of this user's certificates, if a node has made them.
fn made_by_start(dir: PathBuf) -> Result<PathBuf, Failure> {
    if dir.exists() {
        return Ok(dir);
    }
    Err(Failure::bad_input(
        "bad_certificates",
        format!(
            "no certificates in {}: the first 'slowdb-node start' on this machine makes them, so start a node first; for a \
             cluster elsewhere copy its certificates here, and give --certs DIR",
            dir.display()
        ),
    ))
}

/// A client each of whose requests may take so long.
pub(crate) async fn client_within(seeds: &SeedArgs, timeout: Duration) -> Result<Client, Failure> {
    Ok(Client::connect(options(seeds, timeout)?).await?)
}

/// The collection, in the session that the command goes on with, if it does.
pub(crate) async fn collection(args: &CollectionArgs) -> Result<(Collection, Carried), Failure> {
    let (_, collection, carried) = client_and_collection(args).await?;
    Ok((collection, carried))
}

/// As [`collection`], with the client.
pub(crate) async fn client_and_collection(
    args: &CollectionArgs,
) -> Result<(Client, Collection, Carried), Failure> {
    let carried = Carried::open(args.session.as_deref())?;
    let ConnectArgs { seeds, timeout } = &args.connect;
    let options = ClientOptions { zone: args.zone.clone(), ..options(seeds, *timeout)? };
    let client = Client::connect(options).await?;
    let collection = carried.enter(&client.collection(&args.collection))?;
    Ok((client, collection, carried))
}

pub(crate) fn read_options(args: &CollectionArgs) -> Result<ReadOptions, Failure> {
    let level = match args.consistency {
        Some(consistency) => Some(consistency.for_read().map_err(Failure::usage)?),
        None => args.session.is_some().then_some(ReadLevel::Session),
    };
    Ok(ReadOptions { level, ..ReadOptions::default() })
}

pub(crate) fn write_options(args: &CollectionArgs) -> Result<WriteOptions, Failure> {
    let level = args.consistency.map(Consistency::for_write).transpose().map_err(Failure::usage)?;
    Ok(WriteOptions { level, ..WriteOptions::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_first_start_one_is_told_to_start_a_node() {
        let dir = tempfile::tempdir().expect("a directory");
        let failure = made_by_start(dir.path().join("certs")).expect_err("nobody made them");
        assert!(failure.exit == 2 && failure.message.contains("start a node first"), "{}", failure.message);
        assert_eq!(made_by_start(dir.path().to_owned()).expect("they are there"), dir.path());
    }
}
