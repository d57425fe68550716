#[derive(Clone, Debug, PartialEq)]
struct Order(u64);

fn main() {
    fn record<V: taba_core::Value>(_: V) {}
    record(Order(1));
}
