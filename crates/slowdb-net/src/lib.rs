//! QUIC with the mutual TLS of a cluster's own authority, and checked frames
