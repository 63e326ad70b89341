//! What a collection says of the requests to it: the levels of those that name none, and the lowest that it takes; and
//! of writes that conflict.

use crate::request::{ReadLevel, WriteLevel};
use rkyv::{Archive, Deserialize, Serialize};
use std::str::FromStr;

/// What becomes of two concurrent writes, one of which was acknowledged at `one`, overtaken by a failover, and offered
/// again. None lets it replace what was written at `quorum` or `all`.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ConflictPolicy {
    /// The newer one stays, by hybrid logical time.
    #[default]
    Newest,
    /// What is there stays.
    KeepCurrent,
    /// As `Newest`; and a record that lost stays readable beside the other, as its sibling, until a conditional write to
    /// it takes effect.
    KeepBoth,
}

impl ConflictPolicy {
    /// The policy as it is spelt in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            ConflictPolicy::Newest => "newest",
            ConflictPolicy::KeepCurrent => "keep_current",
            ConflictPolicy::KeepBoth => "keep_both",
        }
    }
}

impl FromStr for ConflictPolicy {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "newest" => Ok(ConflictPolicy::Newest),
            "keep_current" => Ok(ConflictPolicy::KeepCurrent),
            "keep_both" => Ok(ConflictPolicy::KeepBoth),
            other => {
                Err(format!("no conflict policy is called '{other}': use newest, keep_current or keep_both"))
            }
        }
    }
}

/// Settings of a collection, changeable at any time.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectionSettings {
    /// Level of writes that name none.
    pub write_level: WriteLevel,
    /// Level of reads that name none.
    pub read_level: ReadLevel,
    /// Lowest level at which writes are taken.
    pub write_floor: WriteLevel,
    /// Lowest level at which reads are taken.
    pub read_floor: ReadLevel,
    /// What becomes of writes that conflict.
    pub conflicts: ConflictPolicy,
}

impl Default for CollectionSettings {
    fn default() -> Self {
        CollectionSettings {
            write_level: WriteLevel::Quorum,
            read_level: ReadLevel::Quorum,
            write_floor: WriteLevel::One,
            read_floor: ReadLevel::One,
            conflicts: ConflictPolicy::Newest,
        }
    }
}

impl CollectionSettings {
    /// Whether the levels fit the floors.
    ///
    /// # Errors
    /// A sentence that names the level that is below its floor.
    pub fn check(&self) -> Result<(), String> {
        let CollectionSettings { write_level, read_level, write_floor, read_floor, .. } = self;
        let below = |what: &str, level: &str, floor: &str| {
            Err(format!(
                "the default level {level} for {what}s would be below their floor {floor}: change --{what}-level or \
                 --{what}-floor, too"
            ))
        };
        if write_level < write_floor {
            return below("write", write_level.as_str(), write_floor.as_str());
        }
        if read_level < read_floor {
            return below("read", read_level.as_str(), read_floor.as_str());
        }
        Ok(())
    }

    /// The level of a write that asks for this one, or for none.
    ///
    /// # Errors
    /// A sentence that names the floor and the level asked for, which is below it.
    pub fn write_at(&self, asked: Option<WriteLevel>) -> Result<WriteLevel, String> {
        let level = asked.unwrap_or(self.write_level);
        let floor = self.write_floor;
        if level >= floor { Ok(level) } else { Err(too_low("write", level.as_str(), floor.as_str())) }
    }

    /// The level of a read that asks for this one, or for none.
    ///
    /// # Errors
    /// A sentence that names the floor and the level asked for, which is below it.
    pub fn read_at(&self, asked: Option<ReadLevel>) -> Result<ReadLevel, String> {
        let level = asked.unwrap_or(self.read_level);
        let floor = self.read_floor;
        if level >= floor { Ok(level) } else { Err(too_low("read", level.as_str(), floor.as_str())) }
    }
}

fn too_low(what: &str, level: &str, floor: &str) -> String {
    format!("a {what} at {level}: the collection takes {what}s at {floor} and above only")
}

/// New settings of a collection; what is not given stays.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// Level of writes that name none.
    pub write_level: Option<WriteLevel>,
    /// Level of reads that name none.
    pub read_level: Option<ReadLevel>,
    /// Lowest level at which writes are taken.
    pub write_floor: Option<WriteLevel>,
    /// Lowest level at which reads are taken.
    pub read_floor: Option<ReadLevel>,
    /// What becomes of writes that conflict.
    pub conflicts: Option<ConflictPolicy>,
}

impl SettingsChange {
    /// The settings that these become. They may contradict themselves: see [`CollectionSettings::check`].
    pub fn of(&self, settings: CollectionSettings) -> CollectionSettings {
        CollectionSettings {
            write_level: self.write_level.unwrap_or(settings.write_level),
            read_level: self.read_level.unwrap_or(settings.read_level),
            write_floor: self.write_floor.unwrap_or(settings.write_floor),
            read_floor: self.read_floor.unwrap_or(settings.read_floor),
            conflicts: self.conflicts.unwrap_or(settings.conflicts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_resolved_and_held_to_the_floor() {
        let all = CollectionSettings::default();
        assert_eq!(all.write_at(None), Ok(WriteLevel::Quorum));
        assert_eq!(all.write_at(Some(WriteLevel::One)), Ok(WriteLevel::One));
        assert_eq!(all.read_at(None), Ok(ReadLevel::Quorum));
        let change = SettingsChange {
            write_level: Some(WriteLevel::All),
            read_level: Some(ReadLevel::Session),
            write_floor: Some(WriteLevel::Quorum),
            read_floor: Some(ReadLevel::Session),
            conflicts: None,
        };
        let strict = change.of(all);
        assert_eq!(strict.write_at(None), Ok(WriteLevel::All));
        assert_eq!(strict.write_at(Some(WriteLevel::Quorum)), Ok(WriteLevel::Quorum));
        assert_eq!(strict.read_at(None), Ok(ReadLevel::Session));
        let refused = strict.write_at(Some(WriteLevel::One)).expect_err("below the floor");
        assert!(refused.contains("at one") && refused.contains("at quorum"), "{refused}");
        let refused = strict.read_at(Some(ReadLevel::One)).expect_err("below the floor");
        assert!(refused.contains("at one") && refused.contains("at session"), "{refused}");
    }

    #[test]
    fn defaults_below_their_floor_contradict_it() {
        let all = CollectionSettings::default();
        assert_eq!(all.check(), Ok(()));
        let writes = SettingsChange { write_floor: Some(WriteLevel::All), ..SettingsChange::default() };
        let refused = writes.of(all).check().expect_err("quorum is below all");
        assert!(refused.contains("level quorum for writes") && refused.contains("floor all"), "{refused}");
        let reads = SettingsChange {
            read_level: Some(ReadLevel::One),
            read_floor: Some(ReadLevel::Session),
            ..SettingsChange::default()
        };
        reads.of(all).check().expect_err("one is below session");
    }
}
