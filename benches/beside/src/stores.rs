//! The stores, as much as is measured of each.

use anyhow::{Context, Result, ensure};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use redb::{ReadableDatabase, TableDefinition};
use slowdb_disk::RealDisk;
use slowdb_storage::{Options, Store, VectorRef, Version};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

/// A store of vectors under ids.
pub(crate) trait StoreBeside {
    fn name(&self) -> &'static str;

    /// Puts records; they are on the disk when it returns.
    fn commit(&mut self, records: &mut dyn Iterator<Item = (String, &[f32])>) -> Result<()>;

    /// Reads the last component of each of these records.
    fn get_all(&self, ids: &[String]) -> Result<()>;
}

/// This project's.
pub(crate) struct SlowDb {
    store: Store,
    puts: u64,
}

impl SlowDb {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let disk = Arc::new(RealDisk::open(dir)?);
        Ok(Self { store: Store::open(disk, "store", Options::new(crate::DIMENSION))?, puts: 0 })
    }
}

impl StoreBeside for SlowDb {
    fn name(&self) -> &'static str {
        "SlowDB"
    }

    fn commit(&mut self, records: &mut dyn Iterator<Item = (String, &[f32])>) -> Result<()> {
        for (id, vector) in records {
            self.puts += 1;
            self.store.put(id.as_bytes(), VectorRef::Floats(vector), &[], Version([1, self.puts, 0]))?;
        }
        Ok(self.store.checkpoint(&[])?)
    }

    fn get_all(&self, ids: &[String]) -> Result<()> {
        let reader = self.store.reader();
        for id in ids {
            let last = |record: slowdb_storage::RecordRef<'_>| black_box(record.vector[crate::DIMENSION - 1]);
            ensure!(reader.get_with(id.as_bytes(), last)?.is_some(), "{id} is not there");
        }
        Ok(())
    }
}

/// The vector's bytes, as the other stores keep them.
fn bytes_of(vector: &[f32], bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.extend(vector.iter().flat_map(|component| component.to_le_bytes()));
}

fn last_of(bytes: &[u8]) -> Option<f32> {
    Some(f32::from_le_bytes(*bytes.last_chunk::<4>()?))
}

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("vectors");

/// A copy-on-write B-tree in one file.
pub(crate) struct Redb(redb::Database);

impl Redb {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self(redb::Database::create(dir.join("store"))?))
    }
}

impl StoreBeside for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn commit(&mut self, records: &mut dyn Iterator<Item = (String, &[f32])>) -> Result<()> {
        // Durable at once unless told otherwise.
        let transaction = self.0.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            let mut bytes = Vec::new();
            for (id, vector) in records {
                bytes_of(vector, &mut bytes);
                table.insert(id.as_bytes(), bytes.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn get_all(&self, ids: &[String]) -> Result<()> {
        let table = self.0.begin_read()?.open_table(TABLE)?;
        for id in ids {
            let found = table.get(id.as_bytes())?.with_context(|| format!("{id} is not there"))?;
            black_box(last_of(found.value()));
        }
        Ok(())
    }
}

/// Log-structured trees and a journal.
pub(crate) struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let database = Database::builder(dir).open()?;
        let keyspace = database.keyspace("vectors", KeyspaceCreateOptions::default)?;
        Ok(Self { database, keyspace })
    }
}

impl StoreBeside for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn commit(&mut self, records: &mut dyn Iterator<Item = (String, &[f32])>) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        let mut bytes = Vec::new();
        for (id, vector) in records {
            bytes_of(vector, &mut bytes);
            batch.insert(&self.keyspace, id.as_bytes(), bytes.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn get_all(&self, ids: &[String]) -> Result<()> {
        for id in ids {
            let found = self.keyspace.get(id.as_bytes())?.with_context(|| format!("{id} is not there"))?;
            black_box(last_of(&found));
        }
        Ok(())
    }
}
