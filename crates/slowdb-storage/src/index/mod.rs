//! The id index on the disk: what leads from ids to slots as of a checkpoint.
//!
//! It is a chain of files. The last, the *base*, has an entry for each record that there was when it was written, and a
//! bitmap of their slots; each *delta* above it has entries for what was put since the file below it, and lists of
//! the slots that were put and that died. So a checkpoint costs what was changed, and now and then more, when a new
//! delta takes in some of those below it, or a new base all of them ([`merge`]).
//!
//! An entry of any file counts only if its slot lives as of the newest file, and if no newer file has put another
//! record there. The first is looked at before the slot is: what died may have been cleared and used again. The
//! second need not be: the id in the slot is compared in full, and another's is not taken for it.

mod build;
mod chain;
mod file;
mod merge;
mod page;
mod scrub;

pub(crate) use chain::Chain;
pub(crate) use file::Lookup;
pub(crate) use merge::{Merged, merge};
pub(crate) use scrub::IndexScrub;
