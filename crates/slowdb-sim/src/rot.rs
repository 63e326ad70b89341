//! Bit rot: bits that flip on the disk of a node that is away, and what its operator does when the node notices.

use crate::cluster::{Action, Cluster};
use crate::events::{Event, Stop};
use slowdb_disk::{Disk, SimDisk};

/// Slots are used from the first on, and those of short vectors are 64 bytes apart.
const FIRST_SLOTS_BYTES: u64 = 32 * 64;

impl Cluster {
    /// A node has closed its log. If its disk is to rot, it does now.
    pub(crate) fn rot(&mut self, node: usize) {
        let flips = std::mem::take(&mut self.nodes[node].rots);
        if flips == 0 || self.healed {
            return;
        }
        let disk = self.nodes[node].disk.clone();
        let mut files = Vec::new();
        find(&disk, "", &mut files);
        files.retain(|(_, len)| *len > 0);
        // Most of a disk is log, and most of a vector file is room for more. What hits a record is what can be mended.
        let of_vectors: Vec<usize> =
            (0..files.len()).filter(|at| files[*at].0.ends_with("/vectors")).collect();
        for _ in 0..flips.min(files.len() as u64 * 40) {
            let in_record = !of_vectors.is_empty() && self.random.chance(300);
            let at = if in_record { self.random.pick(&of_vectors) } else { self.random.index(files.len()) };
            let (path, len) = &files[at];
            let len = if in_record { (*len).min(FIRST_SLOTS_BYTES) } else { *len };
            let (offset, bit) = (self.random.below(len), self.random.below(8) as u8);
            disk.flip_bit(path, offset, bit).expect("the byte is there");
            self.note(format!("bit {bit} of byte {offset} of {path} of node {node} flips"));
            self.nodes[node].rotten = true;
        }
    }

    /// Whether a node that says why it cannot go on has reason to: bits of its disk have flipped. Then it gets another
    /// disk, is removed, and joins anew.
    pub(crate) fn notice_rot(&mut self, node: usize, why: &str) -> bool {
        // To refuse to start is always right. Later it has to be what the disk gives back.
        let says_so = why.starts_with("it does not start") || why.contains("corrupt");
        let noticed = self.nodes[node].rotten && says_so;
        if noticed {
            let away = self.random.between(self.options.faults.down);
            self.replace_disk(node, why, away);
        }
        noticed
    }

    /// The disk of a node is taken out, and an empty one put in its place.
    pub(crate) fn replace_disk(&mut self, node: usize, why: &str, away: u64) {
        self.note(format!("the disk of node {node} is replaced: {why}"));
        if self.nodes[node].running.is_some() {
            self.stop(node, Stop::Kill, away);
        } else {
            self.after(away, Action::Start { node });
        }
        self.log.push(self.now, Event::Wiped { node });
        let this = &mut self.nodes[node];
        this.disk = SimDisk::new();
        this.held.clear();
        (this.rotten, this.joins, this.lost) = (false, true, true);
    }
}

/// The files of a disk below a directory, with their lengths.
fn find(disk: &SimDisk, dir: &str, files: &mut Vec<(String, u64)>) {
    for name in disk.list(dir).expect("it is a directory") {
        let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
        match disk.open(&path, false).and_then(|file| file.len()) {
            Ok(len) => files.push((path, len)),
            Err(_) => find(disk, &path, files),
        }
    }
}
