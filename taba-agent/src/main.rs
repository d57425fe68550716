//! taba-agent
fn main() {}
