//! The index files of a store, decoded as docs/format.md describes them.

use std::collections::BTreeSet;

use slowdb_disk::SimDisk;

pub(crate) const PAGE: usize = 4096;

/// An index file.
#[derive(Debug)]
pub(crate) struct IndexFile {
    pub(crate) number: u64,
    /// The number of the file below, 0 of a base.
    pub(crate) below: u64,
    pub(crate) table_pages: u64,
    /// The slots that entries lead to.
    pub(crate) entries: BTreeSet<u32>,
    /// Of a delta.
    pub(crate) puts: Vec<u32>,
    pub(crate) died: Vec<u32>,
}

pub(crate) fn index_name(number: u64) -> String {
    format!("index-{number:016x}")
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl IndexFile {
    fn decode(bytes: &[u8]) -> Self {
        let head = |n: usize| word(bytes, 8 + n * 8);
        let [number, table_pages, below, puts, died] = [2, 3, 5, 6, 7].map(head);
        let first = 1 + usize::from(below > 0);
        let words = |page: usize| (0..511).map(move |n| word(bytes, page * PAGE + 8 + n * 8));
        let table = (first..first + table_pages as usize).flat_map(words);
        let entries = table.filter(|entry| *entry > 0).map(|entry| entry as u32 - 1).collect();
        let list_pages = (puts + died).div_ceil(1022) as usize;
        let lists = first + table_pages as usize;
        let listed = (lists..lists + list_pages).flat_map(words).flat_map(|w| [w as u32, (w >> 32) as u32]);
        let mut puts: Vec<u32> = listed.take((puts + died) as usize).collect();
        let died = puts.split_off(puts.len() - died as usize);
        Self { number, below, table_pages, entries, puts, died }
    }
}

/// The chain of the directory `s`, from the newest file, which has the highest number there.
pub(crate) fn chain(disk: &SimDisk) -> Vec<IndexFile> {
    let files = super::content(disk);
    let newest = files.keys().filter(|name| name.starts_with("index-")).max();
    let mut next = newest.map_or(0, |name| u64::from_str_radix(&name[6..], 16).unwrap());
    let mut chain = Vec::new();
    while next > 0 {
        let file = IndexFile::decode(&files[&index_name(next)]);
        assert_eq!(file.number, next);
        next = file.below;
        chain.push(file);
    }
    chain
}

/// What checkpoints made of the index, to be sure that tests meet it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Met {
    before: Vec<u64>,
    pub(crate) bases: u64,
    /// New ones above others.
    pub(crate) deltas: u64,
    /// Those that took in others.
    pub(crate) merges: u64,
    /// The most files of one chain.
    pub(crate) most: usize,
    /// Entries that lead to a slot into which a newer file put another record.
    pub(crate) stale: usize,
}

impl Met {
    /// To be called after each checkpoint that was finished.
    pub(crate) fn look(&mut self, disk: &SimDisk) {
        let chain = chain(disk);
        let now: Vec<u64> = chain.iter().map(|file| file.number).collect();
        if now.first() != self.before.first() && !now.is_empty() {
            self.bases += u64::from(now.len() == 1);
            self.deltas += u64::from(now.len() > 1);
            self.merges += u64::from(now.len() > 1 && now.len() <= self.before.len());
        }
        self.most = self.most.max(now.len());
        for (n, file) in chain.iter().enumerate() {
            let put_since = |slot: &&u32| chain[..n].iter().any(|newer| newer.puts.contains(slot));
            self.stale += file.entries.iter().filter(put_since).count();
        }
        self.before = now;
    }
}
