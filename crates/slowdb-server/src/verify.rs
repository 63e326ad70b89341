//! Verifying the storage path of a node that does not run: every file that counts is read and compared.

use crate::shard::{SHARDS, decode_mark};
use crate::{catalog, identity};
use slowdb_disk::{Disk, LockError, RealDisk};
use slowdb_repl::wal::Wal;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One thing that was verified: a file, the log, or the records of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPart {
    /// Where it is, relative to the node's directory.
    pub path: String,
    /// How many records it holds that are good; of what holds no records, none.
    pub records: u64,
    /// How many bytes of it were read.
    pub bytes: u64,
    /// What is damaged: file, offset and what is wrong there.
    pub damage: Vec<String>,
}

/// Why a storage path cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no directory of a node.
    #[error("{0} is not the directory of a node: it is PATH/ID of --storage-path PATH and --node-id ID")]
    NoNode(PathBuf),
    /// Its node runs.
    #[error("{0} is in use: stop its node first")]
    InUse(PathBuf),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Verifies the directory of one node, `PATH/ID`, and changes nothing. `progress` hears what is being read, how many of
/// its records were, and how many there are.
///
/// # Errors
/// If it is no such directory, or its node runs. What is damaged is no error, but in the result.
pub fn verify(dir: &Path, progress: impl FnMut(&str, u64, u64)) -> Result<Vec<VerifiedPart>, VerifyError> {
    if !dir.join(identity::FILE).is_file() && !dir.join("wal").is_dir() {
        return Err(VerifyError::NoNode(dir.to_owned()));
    }
    let disk = RealDisk::open(dir)?;
    let _lock = disk.lock().map_err(|error| match error {
        LockError::InUse { root } => VerifyError::InUse(root),
        LockError::Io(error) => VerifyError::Io(error),
        other => VerifyError::Io(io::Error::other(other.to_string())),
    })?;
    Ok(verify_disk(&(Arc::new(disk) as Arc<dyn Disk>), progress)?)
}

fn verify_disk(
    disk: &Arc<dyn Disk>,
    mut progress: impl FnMut(&str, u64, u64),
) -> io::Result<Vec<VerifiedPart>> {
    let part = |path: &str, damage: Result<(), String>| -> io::Result<VerifiedPart> {
        let bytes = if disk.exists(path)? { disk.open(path, false)?.len()? } else { 0 };
        Ok(VerifiedPart { path: path.into(), records: 0, bytes, damage: damage.err().into_iter().collect() })
    };
    let mut parts =
        vec![part(identity::FILE, identity::check(&**disk))?, part(catalog::FILE, catalog::check(&**disk))?];
    progress("wal", 0, 0);
    let (bytes, damage) = match Wal::verify(Arc::clone(disk), "wal") {
        Ok(found) => (found.bytes, Vec::new()),
        Err(error) => (0, vec![error.to_string()]),
    };
    parts.push(VerifiedPart { path: "wal".into(), records: 0, bytes, damage });
    let names = if disk.exists(SHARDS)? { disk.list(SHARDS)? } else { Vec::new() };
    for name in names {
        let path = format!("{SHARDS}/{name}");
        let heard = |now: slowdb_storage::Progress| progress(&path, now.records, now.records_total);
        let mut part = VerifiedPart { path: path.clone(), records: 0, bytes: 0, damage: Vec::new() };
        match slowdb_storage::verify(&**disk, &path, heard) {
            Ok(found) => {
                (part.records, part.bytes) = (found.records, found.bytes);
                part.damage = found.bad.iter().map(ToString::to_string).collect();
                if let Err(error) = decode_mark(&found.mark) {
                    part.damage.push(format!("{path}/manifest: {error}"));
                }
            }
            Err(error) => part.damage.push(error.to_string()),
        }
        parts.push(part);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Founding, Identity};
    use slowdb_disk::SimDisk;
    use slowdb_proto::Metric;
    use slowdb_repl::wal::{HardState, Record, WalOptions};
    use slowdb_storage::{Options, Store, Version};
    use std::collections::BTreeMap;

    /// What a node keeps, with one replica.
    fn node() -> SimDisk {
        let sim = SimDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let founding = Founding {
            nodes: vec![("n1".into(), "127.0.0.1:7001".into())],
            zone: None,
            dimension: 2,
            metric: Metric::L2,
            num_shards: 1,
            virtual_nodes: 3,
            replication_factor: 1,
            weight: 1,
        };
        let identity = Identity {
            node: "n1".into(),
            storage: [2; 16],
            cluster: None,
            founding,
            joined: None,
            known: Vec::new(),
            peers: BTreeMap::new(),
        };
        identity.save(&*disk).expect("the disk works");
        let (mut wal, _) = Wal::open(Arc::clone(&disk), "wal", WalOptions::default()).expect("it is new");
        let state = HardState { term: 1, vote: 0, commit: 0 };
        wal.append(&[Record::HardState { group: 4, state }], &mut Vec::new()).expect("a good one");
        wal.close().expect("the disk works");
        disk.create_dir_all(SHARDS).expect("the disk works");
        let mut store = Store::open(disk, "shards/4.0", Options::new(2)).expect("it is new");
        for n in 0..100_u8 {
            store.put(&[n], (&[1.0, f32::from(n)]).into(), b"p", Version::default()).expect("a good put");
        }
        store.checkpoint(&[]).expect("the disk works");
        sim
    }

    fn damaged(disk: &SimDisk) -> Vec<(String, Vec<String>)> {
        let parts = verify_disk(&(Arc::new(disk.clone()) as Arc<dyn Disk>), |_, _, _| {});
        let parts = parts.expect("the disk works");
        assert_eq!(parts.len(), 4);
        let bad = parts.into_iter().filter(|part| !part.damage.is_empty());
        bad.map(|part| (part.path, part.damage)).collect()
    }

    #[test]
    fn damage_in_any_part_is_named_and_hides_that_in_no_other() {
        let disk = node();
        let used = disk.bytes_used();
        assert_eq!(damaged(&disk), []);
        let segment = format!("wal/{}", disk.list("wal").expect("it is there")[0]);
        disk.flip_bit("identity", 30, 1).expect("it is that long");
        disk.flip_bit(&segment, 8192 + 20, 1).expect("it is that long");
        disk.flip_bit("shards/4.0/vectors", 64 * 7 + 4, 1).expect("it is that long");
        let found = damaged(&disk);
        let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["identity", "wal", "shards/4.0"]);
        assert!(found[1].1[0].contains(&segment) && found[1].1[0].contains("8192"), "{found:?}");
        assert!(found[2].1[0].contains("shards/4.0/slots at byte 448"), "{found:?}");
        assert_eq!(disk.bytes_used(), used, "nothing was written");
    }
}
