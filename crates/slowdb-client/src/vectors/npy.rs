//! `.npy`, versions 1 to 3: a magic string, the header's length, a Python dictionary as text, the data.

use super::{FileError, Layout};
use slowdb_proto::limits::DIMENSION_MAX;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Headers are a line of text; one this long is none.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Of what is written: room for any number of rows and components.
const HEADER_BYTES: usize = 128;

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

/// Always as long, so that it can be written again when the number of rows is known.
fn header(rows: u64, dimension: usize) -> Vec<u8> {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}");
    // The data starts at a multiple of 64, after a line feed.
    let width = HEADER_BYTES - MAGIC.len() - 4 - 1;
    let mut header = MAGIC.to_vec();
    header.extend([1, 0]);
    header.extend((width as u16 + 1).to_le_bytes());
    header.extend(format!("{text:width$}\n").as_bytes());
    header
}

/// Writes `.npy` (version 1, `<f4`, C order) row by row, when nobody knows yet how many there will be.
#[derive(Debug)]
pub struct NpyWriter<W: Write + Seek> {
    out: W,
    dimension: usize,
    rows: u64,
}

impl<W: Write + Seek> NpyWriter<W> {
    /// Begins a file of rows of `dimension` components each.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W, dimension: usize) -> std::io::Result<Self> {
        out.write_all(&header(0, dimension))?;
        Ok(NpyWriter { out, dimension, rows: 0 })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Those of the file; and [`std::io::ErrorKind::InvalidInput`] if the row has another dimension.
    pub fn write(&mut self, row: &[f32]) -> std::io::Result<()> {
        if row.len() != self.dimension {
            let message = format!("a row of {} components among rows of {}", row.len(), self.dimension);
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, message));
        }
        row.iter().try_for_each(|component| self.out.write_all(&component.to_le_bytes()))?;
        self.rows += 1;
        Ok(())
    }

    /// Writes how many rows there are, and hands the file back.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(mut self) -> std::io::Result<W> {
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header(self.rows, self.dimension))?;
        self.out.seek(SeekFrom::End(0))?;
        self.out.flush()?;
        Ok(self.out)
    }
}
