//! Files of vectors: `.npy` and `.fvecs`, read as a stream, so that their size is no matter.
//!
//! A file is checked when it is opened: header, element type, order, and that its length is exactly what
//! the header promises. Finite components are the reader's business to check (see [`Vectors::check`]),
//! because that takes a pass over the data.

mod fvecs;
mod npy;
#[cfg(test)]
mod tests;

pub use npy::NpyWriter;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The operating system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The name ends in nothing that is known.
    #[error("{}: what kind of file is it? The name has to end in .npy or .fvecs", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
    },
    /// Not what its name says.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Another element type.
    #[error(
        "{}: its elements are '{dtype}', and only '<f4' (32-bit floats, little endian) can be read; \
         in NumPy: numpy.save(f, a.astype('<f4'))",
        path.display()
    )]
    WrongType {
        /// The file.
        path: PathBuf,
        /// What it holds.
        dtype: String,
    },
    /// Columns first.
    #[error(
        "{}: it is in Fortran order (columns first); in NumPy: numpy.save(f, numpy.ascontiguousarray(a))",
        path.display()
    )]
    FortranOrder {
        /// The file.
        path: PathBuf,
    },
    /// Not a table.
    #[error("{}: its shape is {shape}; rows of vectors have the shape (rows, dimension)", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// What it has.
        shape: String,
    },
    /// The length is not what the header promises.
    #[error("{}: it has {got} bytes, and should have {wanted}: it is {}", path.display(),
        if got < wanted { "truncated" } else { "longer than its header says" })]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its length.
        got: u64,
        /// What the header promises.
        wanted: u64,
    },
    /// A component is NaN or infinite.
    #[error("{}: row {row}, component {component} is {value}; all components must be finite numbers", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Row, from 0.
        row: u64,
        /// Component, from 0.
        component: usize,
        /// Its value.
        value: f32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Npy,
    Fvecs,
}

/// An open file of vectors.
#[derive(Debug)]
pub struct Vectors {
    path: PathBuf,
    file: BufReader<File>,
    kind: Kind,
    data_start: u64,
    rows: u64,
    dimension: usize,
    next_row: u64,
    bytes: Vec<u8>,
}

impl Vectors {
    /// Opens a file by the ending of its name, and checks its header and length.
    ///
    /// # Errors
    /// [`FileError`]: it cannot be read, is none of the known kinds, or is not as long as it says.
    pub fn open(path: impl AsRef<Path>) -> Result<Vectors, FileError> {
        let path = path.as_ref();
        let io = |source| FileError::Io { path: path.to_owned(), source };
        let kind = match path.extension().and_then(|e| e.to_str()) {
            Some("npy") => Kind::Npy,
            Some("fvecs") => Kind::Fvecs,
            _ => return Err(FileError::UnknownKind { path: path.to_owned() }),
        };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let layout = match kind {
            Kind::Npy => npy::read_header(&mut file, length, path)?,
            Kind::Fvecs => fvecs::read_header(&mut file, length, path)?,
        };
        file.seek(SeekFrom::Start(layout.data_start)).map_err(io)?;
        Ok(Vectors {
            path: path.to_owned(),
            file,
            kind,
            data_start: layout.data_start,
            rows: layout.rows,
            dimension: layout.dimension,
            next_row: 0,
            bytes: Vec::new(),
        })
    }

    /// Rows in the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Components of each row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Reads the next row into `row`; false at the end.
    ///
    /// # Errors
    /// [`FileError::Io`], and [`FileError::Malformed`] if the row is not as long as the first.
    pub fn next_row(&mut self, row: &mut Vec<f32>) -> Result<bool, FileError> {
        row.clear();
        if self.next_row == self.rows {
            return Ok(false);
        }
        let prefix = if self.kind == Kind::Fvecs { fvecs::PREFIX_BYTES } else { 0 };
        self.bytes.resize(prefix + self.dimension * 4, 0);
        let io = |source| FileError::Io { path: self.path.clone(), source };
        self.file.read_exact(&mut self.bytes).map_err(io)?;
        if self.kind == Kind::Fvecs {
            fvecs::check_prefix(&self.bytes, self.dimension, self.next_row, &self.path)?;
        }
        let (components, _) = self.bytes[prefix..].as_chunks::<4>();
        row.extend(components.iter().map(|c| f32::from_le_bytes(*c)));
        self.next_row += 1;
        Ok(true)
    }

    /// Goes back to the first row.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn rewind(&mut self) -> Result<(), FileError> {
        let io = |source| FileError::Io { path: self.path.clone(), source };
        self.file.seek(SeekFrom::Start(self.data_start)).map_err(io)?;
        self.next_row = 0;
        Ok(())
    }

    /// Reads all rows once, checks that every component is a finite number, and goes back to the first row.
    ///
    /// # Errors
    /// [`FileError::NotFinite`] names the first that is not; and those of [`Vectors::next_row`].
    pub fn check(&mut self) -> Result<(), FileError> {
        self.rewind()?;
        let mut row = Vec::new();
        while self.next_row(&mut row)? {
            // Not-a-number spreads through a sum of zeros; the search for the culprit is only for bad rows.
            if row.iter().map(|x| x * 0.0).sum::<f32>() != 0.0
                && let Some(component) = row.iter().position(|x| !x.is_finite())
            {
                let (path, row_number) = (self.path.clone(), self.next_row - 1);
                return Err(FileError::NotFinite { path, row: row_number, component, value: row[component] });
            }
        }
        self.rewind()
    }

    /// All rows that are left, one after the other. For small files, such as queries.
    ///
    /// # Errors
    /// Those of [`Vectors::next_row`].
    pub fn read_all(&mut self) -> Result<Vec<f32>, FileError> {
        let (mut all, mut row) = (Vec::new(), Vec::new());
        while self.next_row(&mut row)? {
            all.extend_from_slice(&row);
        }
        Ok(all)
    }
}

/// Where the rows are.
struct Layout {
    data_start: u64,
    rows: u64,
    dimension: usize,
}
