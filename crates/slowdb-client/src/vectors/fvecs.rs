//! `.fvecs`: each row is its dimension (i32, little endian) and then its components (f32, little endian).

use super::{FileError, Layout};
use slowdb_proto::limits::DIMENSION_MAX;
use std::io::Read;
use std::path::Path;

pub(super) const PREFIX_BYTES: usize = 4;

pub(super) fn read_header(file: &mut impl Read, length: u64, path: &Path) -> Result<Layout, FileError> {
    let malformed = |what: String| FileError::Malformed { path: path.to_owned(), what };
    if length == 0 {
        return Err(malformed("the file is empty".into()));
    }
    let mut prefix = [0; PREFIX_BYTES];
    file.read_exact(&mut prefix).map_err(|_| malformed(format!("{length} bytes hold no row")))?;
    let dimension = i32::from_le_bytes(prefix);
    let Some(dimension) = u32::try_from(dimension).ok().filter(|d| (1..=DIMENSION_MAX).contains(d)) else {
        return Err(malformed(format!("its first row claims {dimension} components: is it .fvecs at all?")));
    };
    let row_bytes = PREFIX_BYTES as u64 + u64::from(dimension) * 4;
    if !length.is_multiple_of(row_bytes) {
        let wanted = length.next_multiple_of(row_bytes);
        return Err(FileError::WrongLength { path: path.to_owned(), got: length, wanted });
    }
    Ok(Layout { data_start: 0, rows: length / row_bytes, dimension: dimension as usize })
}

pub(super) fn check_prefix(bytes: &[u8], dimension: usize, row: u64, path: &Path) -> Result<(), FileError> {
    let claimed = i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    if usize::try_from(claimed) == Ok(dimension) {
        return Ok(());
    }
    let what = format!("row {row} claims {claimed} components, the first row has {dimension}");
    Err(FileError::Malformed { path: path.to_owned(), what })
}
