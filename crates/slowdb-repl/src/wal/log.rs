//! The open log: appending and syncing.
//!
//! One owner, no threads, no clock. At any time only the newest segment holds what is not synced: before the
//! next one is begun, the full one is synced. Opening is in `recover`, freeing segments in `release`.

use std::collections::VecDeque;
use std::sync::Arc;

use slowdb_disk::Disk;

use super::batch::{Cursor, Item, bytes_of};
use super::error::{InvalidRecord, WalError, WalOpenError};
use super::format::{HEADER_AREA, SegmentHeader, record_bytes};
use super::group::Effect;
use super::groups::{Groups, Staged};
use super::options::{WalOptions, data_bytes_max};
use super::reader::{Segments, WalReader};
use super::record::{Location, Record, Recovered};
use super::recover;
use super::segment::{Pool, SegmentFile};

/// The write-ahead log of a node, open.
///
/// The calls, in the order in which they make sense: [`Wal::append`] any number of times, then [`Wal::sync`], and only
/// then may anything be said about what was appended. Now and then [`Wal::release`], after groups were compacted.
/// [`Wal::mark`] when nothing is to be done, [`Wal::close`] at the end.
///
/// After a failed write or sync every call that writes is refused until the log is opened again; readers go on.
///
/// ```
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use slowdb_disk::RealDisk;
/// use slowdb_repl::wal::{HardState, Record, Wal, WalOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// let options = WalOptions { segment_bytes: 1 << 20, log_id: 0x5eed, ..WalOptions::default() };
/// let disk = Arc::new(RealDisk::open(directory.path())?);
/// let (mut wal, recovered) = Wal::open(disk, "wal", options)?;
/// assert!(recovered.created);
///
/// let mut locations = Vec::new();
/// let data = Bytes::from_static(b"hello");
/// let entry = Record::Entry { group: 7, leader_term: 1, term: 1, index: 1, kind: 0, data };
/// let state = Record::HardState { group: 7, state: HardState { term: 1, vote: 3, commit: 1 } };
/// wal.append(&[entry, state], &mut locations)?;
/// wal.sync()?; // from here on both survive a power cut
/// assert_eq!(wal.reader().read(locations[0])?, "hello");
/// wal.close()?;
/// # Ok(())
/// # }
/// ```
pub struct Wal {
    pub(super) options: WalOptions,
    pub(super) pool: Pool,
    pub(super) groups: Groups,
    /// The segments of the log, oldest first. The last one is being written.
    pub(super) live: VecDeque<LiveSegment>,
    pub(super) cursor: Cursor,
    /// Whether the newest segment's file was written to since it was synced.
    pub(super) dirty: bool,
    /// What failed, once something has.
    pub(super) poison: Option<(&'static str, String)>,
    pub(super) segments: Arc<Segments>,
    pub(super) scratch: Vec<u8>,
}

/// A segment that is part of the log.
pub(super) struct LiveSegment {
    pub(super) header: SegmentHeader,
    pub(super) file: SegmentFile,
}

/// Who asks for room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A caller of `append`, for whom the last spare segment is not meant.
    Append,
    /// `release`, which gives back more than it takes.
    Release,
}

/// Where the records of a batch go, and what they do.
struct Plan {
    /// (segment, offset, effect), one per record.
    places: Vec<(u64, u32, Effect)>,
    staged: Staged,
    /// How many segments must be begun.
    rolls: usize,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal")
            .field("dir", &self.pool.dir)
            .field("segments", &self.live.len())
            .field("end", &self.cursor.end)
            .field("synced", &self.cursor.synced)
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}

/// What [`Wal::verify`] read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalVerified {
    /// How many segments the log has.
    pub segments: u64,
    /// The size of their files, in bytes.
    pub bytes: u64,
}

impl Wal {
    /// Opens the log in `dir`, creating it if there is none, and says what it holds.
    ///
    /// When this returns, all that is in `Recovered` is durable, and nothing that an earlier opening wrote can appear
    /// later. The log must be open only once; whoever owns the storage path sees to that.
    ///
    /// # Errors
    ///
    /// Something synced cannot be read, the format is not known, there is no room for another segment, or the disk
    /// failed. The log is then as it was, and opening it can be tried again.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &str,
        options: WalOptions,
    ) -> Result<(Self, Recovered), WalOpenError> {
        options.check().map_err(WalOpenError::Options)?;
        recover::open(disk, dir, options)
    }

    /// Reads the log in `dir` as opening it does, and changes nothing. Without a directory there is nothing to read.
    /// The log must not be open.
    ///
    /// # Errors
    ///
    /// What opening it would refuse: the first place that is damaged, by file and offset.
    pub fn verify(disk: Arc<dyn Disk>, dir: &str) -> Result<WalVerified, WalOpenError> {
        recover::verify(disk, dir)
    }

    /// Appends records, in order, and adds the place of each entry among them to `locations`.
    ///
    /// All or none are taken. They are readable at once, but durable only after [`Wal::sync`]. Payloads are not
    /// copied.
    ///
    /// # Errors
    ///
    /// [`WalError::Invalid`], [`WalError::NoSpace`] and [`WalError::Io`]: nothing was written and the log goes on.
    /// [`WalError::Poisoned`]: the log must be opened again.
    pub fn append(&mut self, records: &[Record], locations: &mut Vec<Location>) -> Result<(), WalError> {
        self.append_for(Purpose::Append, records, locations)
    }

    pub(super) fn append_for(
        &mut self,
        purpose: Purpose,
        records: &[Record],
        locations: &mut Vec<Location>,
    ) -> Result<(), WalError> {
        self.check_poison()?;
        let plan = self.plan(records)?;
        self.make_room(plan.rolls, purpose)?;
        self.write(records, &plan.places)?;
        self.groups.commit(plan.staged);
        for (record, (segment, offset, _)) in records.iter().zip(&plan.places) {
            if let Record::Entry { data, .. } = record {
                locations.push(Location { segment: *segment, offset: *offset, len: data.len() as u32 });
            }
        }
        Ok(())
    }

    /// Makes all that was appended durable, with one sync.
    ///
    /// # Errors
    ///
    /// [`WalError::Poisoned`]: what of it is durable is not known, and will be when the log was opened again.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.check_poison()?;
        if self.dirty {
            let result = self.active().file.file.sync();
            result.map_err(|error| self.fail("syncing a log segment", error))?;
            self.dirty = false;
            self.cursor.synced = self.cursor.end;
        }
        Ok(())
    }

    /// Writes down that all is synced, if that is so and not written yet. It need not be synced itself.
    ///
    /// Damage to the last synced batch can be told from a batch that never was synced only by what is written
    /// after it. Where another batch follows soon, that one does it; this is for when none is in sight.
    ///
    /// # Errors
    ///
    /// As for [`Wal::append`].
    pub fn mark(&mut self) -> Result<(), WalError> {
        self.check_poison()?;
        let all_synced = self.cursor.synced == self.cursor.end;
        if !all_synced || self.cursor.ends_with_mark || self.cursor.end == HEADER_AREA {
            return Ok(());
        }
        if u64::from(self.cursor.end) + record_bytes(0) <= u64::from(self.cursor.segment_bytes) {
            return self.write_items(&[Item::mark()]);
        }
        // A full segment: the header of the next one says where this one ended.
        self.make_room(1, Purpose::Append)?;
        self.roll()
    }

    /// Makes everything durable, and says so in the log: damage anywhere in it will be noticed.
    ///
    /// # Errors
    ///
    /// As for [`Wal::sync`].
    pub fn close(mut self) -> Result<(), WalError> {
        self.sync()?;
        self.mark()?;
        self.sync()
    }

    /// A reader for the payloads of entries, which can be used from other threads.
    pub fn reader(&self) -> WalReader {
        WalReader::new(Arc::clone(&self.segments), self.options.data_bytes_max())
    }

    /// The segment that is being written.
    pub(super) fn active(&self) -> &LiveSegment {
        self.live.back().expect("an open log has a segment")
    }

    pub(super) fn check_poison(&self) -> Result<(), WalError> {
        match &self.poison {
            None => Ok(()),
            Some((operation, message)) => Err(WalError::Poisoned { operation, message: message.clone() }),
        }
    }

    /// Notes that the disk failed and nothing more may be written.
    pub(super) fn fail(&mut self, operation: &'static str, error: std::io::Error) -> WalError {
        let message = error.to_string();
        self.poison = Some((operation, message.clone()));
        WalError::Poisoned { operation, message }
    }

    /// Checks the records and finds a place for each, without changing anything.
    fn plan(&self, records: &[Record]) -> Result<Plan, WalError> {
        let mut plan =
            Plan { places: Vec::with_capacity(records.len()), staged: Staged::default(), rolls: 0 };
        let mut sequence = self.active().header.sequence;
        let mut end = u64::from(self.cursor.end);
        let mut segment_bytes = u64::from(self.cursor.segment_bytes);
        let limit = data_bytes_max(self.options.segment_bytes);
        for record in records {
            if let Record::Entry { data, .. }
            | Record::Config { data, .. }
            | Record::Snapshot { data, .. }
            | Record::Overtaken { data, .. } = record
                && data.len() as u64 > limit
            {
                let (group, bytes) = (record.group(), data.len() as u64);
                return Err(InvalidRecord::TooLarge { group, bytes, limit }.into());
            }
            let bytes = bytes_of(record);
            if end + bytes > segment_bytes {
                plan.rolls += 1;
                sequence += 1;
                end = u64::from(HEADER_AREA);
                segment_bytes = self.options.segment_bytes;
            }
            let effect = self.groups.stage(&mut plan.staged, record, sequence)?;
            plan.places.push((sequence, end as u32, effect));
            end += bytes;
        }
        Ok(plan)
    }

    /// Sees to it that so many segments can be begun, before anything is written.
    fn make_room(&mut self, rolls: usize, purpose: Purpose) -> Result<(), WalError> {
        if rolls == 0 {
            return Ok(());
        }
        let kept_back = if purpose == Purpose::Append { 1 } else { 0 };
        while self.pool.spares.len() < rolls + kept_back {
            let bytes = self.options.segment_bytes;
            match self.pool.create(bytes) {
                Ok(file) => self.pool.spares.push(file),
                Err((_, error)) if slowdb_disk::is_full(&error) => {
                    return Err(WalError::NoSpace { bytes, message: error.to_string() });
                }
                Err((path, error)) => {
                    let message = error.to_string();
                    return Err(WalError::Io { operation: "creating log segment", path, message });
                }
            }
        }
        Ok(())
    }

    /// Writes the records to their places, beginning segments on the way.
    fn write(&mut self, records: &[Record], places: &[(u64, u32, Effect)]) -> Result<(), WalError> {
        let mut done = 0;
        while done < records.len() {
            let sequence = places[done].0;
            if sequence != self.active().header.sequence {
                self.roll()?;
            }
            let count = places[done..].iter().take_while(|place| place.0 == sequence).count();
            let range = done..done + count;
            let items: Vec<Item<'_>> = records[range.clone()]
                .iter()
                .zip(&places[range])
                .map(|(record, place)| Item::new(record, place.2))
                .collect();
            assert_eq!(self.cursor.end, places[done].1, "a batch is written where it was planned");
            self.write_items(&items)?;
            done += count;
        }
        Ok(())
    }

    fn write_items(&mut self, items: &[Item<'_>]) -> Result<(), WalError> {
        let file = Arc::clone(&self.active().file.file);
        let result = self.cursor.write(file.as_ref(), items, &mut self.scratch);
        result.map_err(|error| self.fail("writing to a log segment", error))?;
        self.dirty = true;
        Ok(())
    }

    /// Ends the newest segment, synced, and begins another, for which there is a spare file.
    fn roll(&mut self) -> Result<(), WalError> {
        self.sync()?;
        let file = self.pool.take(self.options.segment_bytes);
        let file = file.map_err(|(_, error)| self.fail("creating a log segment", error))?;
        let prev = self.active().header;
        let header = SegmentHeader {
            sequence: prev.sequence + 1,
            segment_bytes: file.bytes,
            prev_sequence: prev.sequence,
            prev_end: self.cursor.end,
            prev_chain: self.cursor.chain,
            synced_end: HEADER_AREA,
            ..prev
        };
        // Durable before the first record, which otherwise could not be told from the remains of earlier ones.
        file.write_header(&header).map_err(|error| self.fail("beginning a log segment", error))?;
        self.cursor = recover::cursor_at_start(&header, self.options.checks_chain());
        self.segments.insert(header.sequence, self.cursor.seed, Arc::clone(&file.file));
        self.live.push_back(LiveSegment { header, file });
        Ok(())
    }
}
