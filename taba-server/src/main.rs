//! taba-server
fn main() {}
