//! `.npy`, versions 1 to 3: a magic string, the header's length, a Python dictionary as text, the data.

use super::{FileError, Layout};
use slowdb_proto::limits::DIMENSION_MAX;
use std::io::{Read, Write};
use std::path::Path;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Headers are a line of text; one this long is none.
const HEADER_BYTES_MAX: usize = 64 * 1024;

pub(super) fn read_header(file: &mut impl Read, length: u64, path: &Path) -> Result<Layout, FileError> {
    let malformed = |what: &str| FileError::Malformed { path: path.to_owned(), what: what.to_owned() };
    let truncated = |_| malformed("it ends inside its header: it is truncated, or no .npy file");
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(truncated)?;
    if &start[..6] != MAGIC {
        return Err(malformed("it is no .npy file: it does not start with the bytes \\x93NUMPY"));
    }
    let (length_bytes, header_len) = match start[6] {
        1 => {
            let mut bytes = [0; 2];
            file.read_exact(&mut bytes).map_err(truncated)?;
            (2, usize::from(u16::from_le_bytes(bytes)))
        }
        2 | 3 => {
            let mut bytes = [0; 4];
            file.read_exact(&mut bytes).map_err(truncated)?;
            (4, u32::from_le_bytes(bytes) as usize)
        }
        other => return Err(malformed(&format!("version {other} of .npy is not known: 1, 2 and 3 are"))),
    };
    if header_len > HEADER_BYTES_MAX {
        return Err(malformed(&format!("its header claims {header_len} bytes")));
    }
    let mut text = vec![0; header_len];
    file.read_exact(&mut text).map_err(truncated)?;
    let text = String::from_utf8(text).map_err(|_| malformed("its header is no text"))?;
    let header =
        parse(&text).ok_or_else(|| malformed(&format!("its header makes no sense: {}", text.trim())))?;

    if header.descr != "<f4" {
        return Err(FileError::WrongType { path: path.to_owned(), dtype: header.descr });
    }
    let wrong_shape = || FileError::WrongShape { path: path.to_owned(), shape: shape_text(&header.shape) };
    let &[rows, dimension] = header.shape.as_slice() else { return Err(wrong_shape()) };
    if dimension == 0 || dimension > u64::from(DIMENSION_MAX) {
        return Err(wrong_shape());
    }
    if header.fortran_order {
        return Err(FileError::FortranOrder { path: path.to_owned() });
    }
    let data_start = (8 + length_bytes + header_len) as u64;
    let data = rows.checked_mul(dimension * 4).and_then(|data| data.checked_add(data_start));
    let wanted = data.ok_or_else(wrong_shape)?;
    if length != wanted {
        return Err(FileError::WrongLength { path: path.to_owned(), got: length, wanted });
    }
    Ok(Layout { data_start, rows, dimension: dimension as usize })
}

fn shape_text(shape: &[u64]) -> String {
    let all: Vec<String> = shape.iter().map(u64::to_string).collect();
    format!("({})", all.join(", "))
}

struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order.
fn parse(text: &str) -> Option<Header> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, tail) = quoted(rest)?;
        let tail = tail.trim_start().strip_prefix(':')?.trim_start();
        rest = match key {
            "descr" if tail.starts_with('[') => {
                // A structured type: no vector of floats. Named in the error as it stands.
                let end = tail.rfind(']')?;
                descr = Some(tail[..=end].to_owned());
                &tail[end + 1..]
            }
            "descr" => {
                let (value, tail) = quoted(tail)?;
                descr = Some(value.to_owned());
                tail
            }
            "fortran_order" => {
                let (value, tail) = match tail.strip_prefix("True") {
                    Some(tail) => (true, tail),
                    None => (false, tail.strip_prefix("False")?),
                };
                fortran_order = Some(value);
                tail
            }
            "shape" => {
                let (inside, tail) = tail.strip_prefix('(')?.split_once(')')?;
                let numbers = inside.split(',').map(str::trim).filter(|n| !n.is_empty());
                // NumPy 1 on Python 2 wrote long integers with an L.
                let number = |n: &str| n.trim_end_matches('L').parse().ok();
                shape = Some(numbers.map(number).collect::<Option<Vec<u64>>>()?);
                tail
            }
            _ => return None,
        };
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some(Header { descr: descr?, fortran_order: fortran_order?, shape: shape? })
}

fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// Writes vectors, given one after the other, as `.npy` (version 1, `<f4`, C order).
///
/// # Errors
/// Those of `out`; and [`std::io::ErrorKind::InvalidInput`] if `vectors` are not whole rows of `dimension`.
pub fn write_npy(out: &mut impl Write, dimension: usize, vectors: &[f32]) -> std::io::Result<()> {
    if dimension == 0 || !vectors.len().is_multiple_of(dimension) {
        let message = format!("{} numbers are no rows of {dimension}", vectors.len());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
    }
    let rows = vectors.len() / dimension;
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}");
    // The data starts at a multiple of 64, after a line feed.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    for component in vectors {
        out.write_all(&component.to_le_bytes())?;
    }
    Ok(())
}
