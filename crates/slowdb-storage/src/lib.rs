//! Memory-mapped fixed-dimension vector files: put, get, delete, scan, exact search, checkpoint, digest
