//! Giving segments back, and saying what the log holds and what keeps it from giving back more.

use super::error::WalError;
use super::groups::Pin;
use super::log::{Purpose, Wal};

/// How much the log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Segments that are part of the log.
    pub segments: usize,
    /// Released segments kept to be written again.
    pub spares: usize,
    /// Bytes of the files of both.
    pub disk_bytes: u64,
    /// Bytes of records that were appended and are not synced yet.
    pub unsynced_bytes: u64,
    /// The oldest segment.
    pub first_segment: u64,
    /// The segment being written.
    pub active_segment: u64,
    /// What it holds of each group.
    pub groups: Vec<GroupStats>,
}

/// How much the log holds of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupStats {
    /// The group.
    pub group: u64,
    /// The last index that is not needed any more.
    pub compacted_index: u64,
    /// The last index.
    pub last_index: u64,
    /// The oldest segment with an entry that is needed, if any is.
    pub first_segment: Option<u64>,
}

/// The oldest segment of the log and what keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestSegment {
    /// Its sequence number.
    pub segment: u64,
    /// How many segments were begun after it.
    pub newer_segments: usize,
    /// The groups with entries in it, and up to where each must be compacted to let go of it. None: it can be
    /// released.
    pub pins: Vec<Pin>,
}

impl Wal {
    /// Gives back the segments that no group needs, and says how many.
    ///
    /// What of groups' hard states, memberships, compactions and removals is only there is written again and synced
    /// first, so this makes everything appended before durable too. Locations in a released segment are not
    /// valid any more.
    ///
    /// # Errors
    ///
    /// As for [`Wal::append`] and [`Wal::sync`]. [`WalError::Io`] says that segments were released but a file
    /// could not be removed; it is tried again at the next opening.
    pub fn release(&mut self) -> Result<usize, WalError> {
        self.check_poison()?;
        let active = self.active().header.sequence;
        let keep = self.groups.first_segment().unwrap_or(active).min(active);
        if keep <= self.first_live() {
            return Ok(0);
        }
        let again = self.groups.restate(keep);
        self.append_for(Purpose::Release, &again, &mut Vec::new())?;
        self.sync()?;
        self.set_first_needed(keep)?;

        let mut freed = Vec::new();
        while self.first_live() < keep {
            let Some(segment) = self.live.pop_front() else { break };
            self.segments.remove(segment.header.sequence);
            freed.push(segment.file);
        }
        let count = freed.len();
        let spares_max = self.options.spare_segments;
        self.pool.give_back(freed, self.options.segment_bytes, spares_max).map_err(|(path, error)| {
            WalError::Io { operation: "removing log segment", path, message: error.to_string() }
        })?;
        Ok(count)
    }

    /// Notes in the newest segment's header, durably, that older segments than `keep` are not needed.
    fn set_first_needed(&mut self, keep: u64) -> Result<(), WalError> {
        let mut header = self.active().header;
        header.first_needed = keep;
        let written = self.active().file.write_header(&header);
        written.map_err(|error| self.fail("updating a log segment's header", error))?;
        if let Some(active) = self.live.back_mut() {
            active.header = header;
        }
        Ok(())
    }

    fn first_live(&self) -> u64 {
        self.live.front().map_or(0, |segment| segment.header.sequence)
    }

    /// The oldest segment and what keeps it: compact those groups to be able to release it.
    pub fn oldest_segment(&self) -> OldestSegment {
        let segment = self.first_live();
        let mut pins = self.groups.pins(segment);
        if self.live.len() == 1 {
            // The segment being written is kept by that alone.
            pins.clear();
        }
        OldestSegment { segment, newer_segments: self.live.len() - 1, pins }
    }

    /// The groups that need any of the `count` oldest segments, and up to where each must be compacted so that these
    /// segments can be released. The segment being written is never counted.
    pub fn pinned_by(&self, count: usize) -> Vec<Pin> {
        let last = count.min(self.live.len() - 1);
        match last.checked_sub(1).and_then(|place| self.live.get(place)) {
            Some(segment) => self.groups.pins(segment.header.sequence),
            None => Vec::new(),
        }
    }

    /// How much the log holds.
    pub fn stats(&self) -> WalStats {
        let group_stats = |(group, state): (&u64, &super::group::Group)| GroupStats {
            group: *group,
            compacted_index: state.base.0,
            last_index: state.last,
            first_segment: state.first_segment(),
        };
        WalStats {
            segments: self.live.len(),
            spares: self.pool.spares.len(),
            disk_bytes: self.live.iter().map(|segment| segment.file.bytes).sum::<u64>()
                + self.pool.spares.iter().map(|spare| spare.bytes).sum::<u64>(),
            unsynced_bytes: u64::from(self.cursor.end - self.cursor.synced),
            first_segment: self.first_live(),
            active_segment: self.active().header.sequence,
            groups: self.groups.live.iter().map(group_stats).collect(),
        }
    }
}
