//! examples/taba-cli
fn main() {}
