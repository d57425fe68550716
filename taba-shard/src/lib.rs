
//! taba-shard
