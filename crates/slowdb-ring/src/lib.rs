//! MurmurHash3, hash ring with virtual nodes, id to shard, shard to nodes
