//! Vectors and their ids in memory.

use anyhow::{Context, Result, bail};
use slowdb_client::vectors::Vectors;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Vectors of one dimension, each with an id.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Components of each vector.
    pub dimension: usize,
    /// The ids, in the order of the vectors.
    pub ids: Vec<String>,
    components: Vec<f32>,
}

impl Dataset {
    /// Reads a file of vectors (.npy or .fvecs) and its ids, one a line; without a file of ids they are the
    /// numbers of the rows.
    pub fn load(data: &Path, ids: Option<&Path>) -> Result<Dataset> {
        let (dimension, components) = load_vectors(data)?;
        let rows = components.len() / dimension;
        let ids = match ids {
            Some(path) => load_ids(path, rows)?,
            None => (0..rows).map(|row| row.to_string()).collect(),
        };
        Ok(Dataset { dimension, ids, components })
    }

    /// Vectors that are already in memory, one after the other.
    pub fn new(dimension: usize, ids: Vec<String>, components: Vec<f32>) -> Dataset {
        assert_eq!(components.len(), ids.len() * dimension, "one vector for each id");
        Dataset { dimension, ids, components }
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// One vector.
    pub fn vector(&self, row: usize) -> &[f32] {
        &self.components[row * self.dimension..][..self.dimension]
    }

    /// All of them in order.
    pub fn vectors(&self) -> impl Iterator<Item = &[f32]> {
        self.components.chunks_exact(self.dimension)
    }

    /// The row of each id.
    pub fn rows(&self) -> BTreeMap<&str, usize> {
        self.ids.iter().enumerate().map(|(row, id)| (id.as_str(), row)).collect()
    }
}

/// Reads a file of vectors whole: dimension and components.
pub fn load_vectors(path: &Path) -> Result<(usize, Vec<f32>)> {
    let mut file = Vectors::open(path)?;
    file.check()?;
    if file.rows() == 0 {
        bail!("{} holds no vector", path.display());
    }
    Ok((file.dimension(), file.read_all()?))
}

fn load_ids(path: &Path, rows: usize) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let ids: Vec<String> = text.lines().map(str::to_owned).collect();
    if ids.len() != rows {
        bail!("{} holds {} ids for {rows} vectors", path.display(), ids.len());
    }
    let mut lines = BTreeMap::new();
    for (n, id) in ids.iter().enumerate() {
        if let Some(first) = lines.insert(id, n) {
            bail!("{}: lines {} and {} hold the same id, {id:?}", path.display(), first + 1, n + 1);
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn the_sample_is_what_its_readme_says() {
        let dir = workspace::root().join("xtask/data");
        let data = Dataset::load(&dir.join("debian-3000.npy"), Some(&dir.join("debian-3000.ids.txt")));
        let data = data.expect("the sample can be read");
        assert_eq!((data.len(), data.dimension), (3_000, 384));
        for vector in data.vectors() {
            let length: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
            assert!((length - 1.0).abs() < 1e-5, "of unit length");
        }
        let (dimension, queries) =
            load_vectors(&dir.join("queries-100.npy")).expect("the queries can be read");
        assert_eq!((dimension, queries.len()), (384, 38_400));
        for (name, lines) in [("debian-3000.txt", 3_000), ("queries-100.txt", 100)] {
            assert_eq!(fs::read_to_string(dir.join(name)).expect("a text").lines().count(), lines);
        }
    }

    #[test]
    fn ids_are_as_many_as_vectors_and_distinct() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ids");
        fs::write(&path, "a\nb\na\n").expect("written");
        let error = load_ids(&path, 3).unwrap_err().to_string();
        assert!(error.contains("lines 1 and 3"), "{error}");
        assert!(load_ids(&path, 2).unwrap_err().to_string().contains("3 ids for 2 vectors"));
    }
}
