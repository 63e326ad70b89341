//! One SlowDB node: catalog, shards, routing
